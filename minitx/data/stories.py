"""Short stories drawn from a known law, with lists of the word classes and of the word companions that are in it.

A story is a sequence of sentence templates filled from tables of words. It has two scenes: a kind of animals (with its
places, parts, actions and foods) and a colour (with the things that come in it). Two facts are therefore true by
construction, and a reader can score what a model or a statistic recovers against them:

- ``STORY_CLASSES``: the words of one class are interchangeable, because they fill the same slots of the same sentences.
- ``STORY_COMPANIONS``: the words of one scene recur together: one of them in the prefix makes the others more likely.

Legend: D documents, S slots of a template, L places of the longest template.
"""

from itertools import product

import numpy as np
from numpy.typing import NDArray

from minitx.base.checks import seed, table_size, whole_number

# Three lines for each kind of animals: what they are called; where they live and what they have; what they do and what
# they eat. No word is used twice.
_KIND_CLASSES = ("animals", "places", "parts", "actions", "foods")
_KINDS = """
bird sparrow robin owl eagle parrot pigeon crow finch canary woodpecker dove
nest tree branch sky treetop birdhouse | wings feathers beak talons plumage crest
fly flutter chirp soar glide tweet | seeds crumbs worms millet birdseed cherries
fish minnow goldfish trout salmon carp perch bass catfish pike eel guppy
pond lake river stream creek brook | fins scales gills tailfin lips belly
swim splash dive wiggle paddle float | algae pondweed flakes tadpoles snails duckweed
cow pig sheep goat horse hen rooster donkey lamb calf pony turkey
barn stable pasture farmyard coop meadow | hooves mane udder snout horns wool
moo graze oink trot gallop neigh | hay oats corn straw grain clover
fox bear rabbit squirrel deer wolf hedgehog raccoon badger beaver skunk moose
den burrow forest woods cave hollow | fur paws tail whiskers antlers claws
climb dig sniff growl howl prowl | acorns nuts berries mushrooms honey roots
ant bee butterfly beetle ladybug grasshopper cricket dragonfly moth caterpillar firefly wasp
garden anthill hive flowerbed petal log | antennae stinger feelers legs spots tummy
buzz crawl hum hop sting creep | nectar pollen leaves sap sugar dew
whale dolphin crab octopus seal turtle shark lobster starfish jellyfish seahorse squid
ocean sea reef shore beach lagoon | flippers tentacles shell pincers blowhole suckers
surf leap squirt drift snap bob | seaweed plankton shrimp kelp clams krill
lion tiger elephant monkey giraffe zebra gorilla hippo rhino leopard crocodile panda
jungle savanna riverbank waterhole canopy plains | trunk jaws ears stripes teeth tusks
roar swing stomp charge pounce chatter | bananas mangoes bamboo melons vines coconuts
"""
_COLOURS = {
    "red": "truck ball wagon brick apple mailbox balloon scarf rose firetruck mitten ladder",
    "blue": "boat kite bucket marble bicycle pillow jacket vase sailboat teapot raincoat notebook",
    "green": "tractor frisbee bottle backpack tent canoe bench fern crayon sweater hose cactus",
    "yellow": "bus taxi lemon pencil umbrella sponge daffodil raft whistle lamp helmet banner",
    "purple": "cape grape robe potion wand gem curtain lollipop plum slipper mask cushion",
    "pink": "dress doll tutu bonnet purse cupcake bow teacup hairbrush parasol sandal diary",
    "brown": "teddy basket saddle boot chest drum guitar wallet biscuit barrel stool cart",
    "black": "hat cauldron piano suitcase kettle stove cane cloak tire telescope camera magnet",
    "white": "snowman candle napkin plate towel sock envelope apron igloo chalk tablecloth pearl",
    "gray": "robot anchor pebble hammer wheelbarrow submarine rocket engine statue pipe wrench boulder",
    "golden": "crown coin trophy key locket medal trumpet throne goblet chain harp treasure",
    "silver": "spoon mirror airplane bell sword ring flute scooter fork thimble skate watch",
    "turquoise": "necklace bracelet tile bathtub pitcher fan swimsuit surfboard gondola shawl ornament brush",
}
_PEOPLE = {
    "feelings": "happy sad excited scared angry proud lonely tired curious nervous worried cheerful surprised jealous "
    "shy grumpy calm sleepy joyful thankful",
    "family": "mom dad mother father sister brother aunt uncle cousin grandma grandpa grandmother grandfather twin "
    "stepmother godfather",
    "weather": "sunny rainy windy cloudy foggy snowy stormy chilly frosty misty breezy warm hot cold gloomy drizzly",
    "traits": "brave kind gentle clever silly playful friendly lazy polite careful noisy quiet patient funny stubborn "
    "helpful",
    "jobs": "baker farmer doctor teacher painter tailor sailor miller gardener cook postman nurse blacksmith carpenter "
    "librarian barber",
}
# Invented names, first syllable x second: the long tail of rare words that real text has.
_STARTS = """ba be bi bo bru da de di do dra fa fe fi flo ga ge gi gro ha he hi jo ju ka ke ki kor la le li lo lu ma me
mi mo na ne ni no pa pe pi por qua ra re ri ro sa se si sto ta te ti tru va ve vi wa wil za ze zi"""
_NAME_ENDS = """bbin dda dric lla llan lmar mbo mmy ndel ndra nelle nzo ppin rabel rdo rissa rlin rmo rnie rrick rvin
ska sko ssie stra thea thiel tolo ttie vinna vick vina xander xie ylo zara zette zim"""
_TOWN_ENDS = """bury combe dale ford gate ham haven kirk mere minster mont mouth nham port shire stead thorpe tonia
ville wick"""

_OPENINGS = """
once upon a time , there was a little {animal} named {hero} .
one day , a {trait} {animal} named {hero} woke up in the {place} .
in the village of {town} , there lived a {trait} {animal} named {hero} .
long ago , near {town} , a young {animal} called {hero} lived in the {place} .
{hero} was a {trait} little {animal} who lived by the {place} .
there once was a {animal} called {hero} . {he} lived near the {place} with {his} {relative} .
"""
_SENTENCES = """
the {animal} loved to {act} and {act2} all day .
every morning , {hero} liked to {act} near the {place} .
{hero} could {act} better than any other {animal} .
a {mate} and a {mate2} came to the {place} to {act} .
one little {mate} lived deep inside the {place} .
{hero} found some {food} in the {place} .
the {animal} ate some tasty {food} for lunch .
{hero} shared {his} {food} with a small {mate} .
{he} washed {his} {part} by the {place} .
the {mate} had beautiful {part} .
" what big {part} you have ! " said the {mate} .
{hero} hurt {his} {part} and could not {act} .
the {mate} showed {hero} how to {act} .
" can you {act} ? " asked the little {mate} .
" i can {act} and you can {act2} , " said {hero} .
they looked for {food} and {food2} near the {place} .
an old {mate} slept in the {place} .
all the animals went to the {place} to eat {food} .
{hero} dreamed of fresh {food} and tasty {food2} .
{his} {part} got stuck in the {place} .
{friend} the {mate} wanted to {act} with {hero} .
{hero} hid behind the {place} until the {mate} began to {act} .
together they gathered {food} and carried it to the {place} .
the young {mate} cleaned its {part} and started to {act} .
{hero} had a {colour} {thing} .
on the table there was a {colour} {thing} and a {colour} {thing2} .
{his} favorite color was {colour} .
{hero} looked inside the box and saw a shiny {thing} .
" look at my new {thing} ! " said {friend} .
the {thing} was all {colour} .
{his} {relative} gave {him} a {colour} {thing} .
{friend} painted the {thing} {colour} and the {thing2} {colour2} .
the {job} sold a {thing} and a {thing2} .
{hero} lost {his} {thing} near the broken {thing2} .
" is this your {thing} ? " asked the {job} .
it was a bright {colour} {thing} .
{friend} put the {thing} next to the {thing2} .
they played with the {colour} {thing} all afternoon .
the {thing} broke , so the {job} fixed it .
at the shop in {village} they bought a {colour} {thing} and a new {thing2} .
{hero} felt very {feeling} .
{he} was so {feeling} that {he} began to cry .
{friend} felt {feeling} too .
" why are you so {feeling} ? " asked {his} {relative} .
" do not be {feeling} , " said {his} {relative} .
{hero} was {feeling} but {his} {relative} was {feeling2} .
it was a {weather} day .
the next morning was {weather} and {weather2} .
one {weather} afternoon , {hero} met {friend} .
" it is too {weather} to go out , " said {his} {relative} .
a boy named {name} came from {village} .
{name} and {name2} lived in {village} .
a {job} named {name} came by .
{hero} wrote a letter to {name} in {village} .
{his} {relative} hugged {him} and smiled .
{friend} and {his} {relative} walked to the house of {name} .
everyone thought {hero} was very {trait} .
" you are a {trait} friend , " said {friend} .
the {trait} {job} helped {hero} and {friend} .
" thank you , {name} , " said {hero} . " you are a {trait} {job} . "
from that day on , {hero} and {friend} were best friends .
"""

# A class of words, the scene that restricts it, the slots that are drawn once for a whole story, and those that are
# drawn anew for each sentence.
_ROLES = (
    ("animals", "kind", "animal", "mate mate2"),
    ("places", "kind", "", "place"),
    ("parts", "kind", "", "part"),
    ("actions", "kind", "", "act act2"),
    ("foods", "kind", "", "food food2"),
    ("colours", "colour", "colour", "colour2"),
    ("things", "colour", "", "thing thing2"),
    ("feelings", None, "", "feeling feeling2"),
    ("family", None, "", "relative"),
    ("weather", None, "", "weather weather2"),
    ("traits", None, "", "trait"),
    ("jobs", None, "", "job"),
    ("names", None, "hero friend", "name name2"),
    ("towns", None, "town", "village"),
    ("subject", "sex", "he", ""),
    ("object", "sex", "him", ""),
    ("owner", "sex", "his", ""),
)
# {slot: (class, scene, whether it is drawn once)}
_SLOTS = {slot: (name, scene, once) for name, scene, fixed, varied in _ROLES
          for slots, once in ((fixed, True), (varied, False)) for slot in slots.split()}
_CHUNK = 1024  # stories that are drawn together; a larger value takes more memory and gives other stories for a seed
_STRAY = 0.1  # share of draws that leave the scene of the story, so that a companion is likely but not certain
_ZIPF = 0.8  # exponent of the frequencies of names and towns; a larger value makes the rare ones rarer


def _invented(ends):
    """Names made of two syllables; names that follow each other in frequency differ in both syllables."""
    names = ["".join(pair) for pair in product(_STARTS.split(), ends.split())]
    return [names[i * 1009 % len(names)] for i in range(len(names))]  # 1009 has no divisor in common with their number


def _compile(text, code):
    """Templates as rows of ids, (templates, L). Slot s has the id ``len(LEXICON) + s``; slot 0 fills up a row."""
    rows = [[code[word] for word in line.split()] for line in text.strip().splitlines()]
    width = max(map(len, rows))
    return np.array([row + [code[""]] * (width - len(row)) for row in rows], dtype=np.int32)


_LISTS = [words.split() for words in _KINDS.strip().replace("\n", "|").split("|")]
_ANIMALS = [_LISTS[i : i + len(_KIND_CLASSES)] for i in range(0, len(_LISTS), len(_KIND_CLASSES))]
# {class: rows of words}. A class that a scene restricts has a row for each value of the scene, others have one.
_TABLES = {
    **{name: [kind[i] for kind in _ANIMALS] for i, name in enumerate(_KIND_CLASSES)},
    "colours": [[colour] for colour in _COLOURS], "things": [things.split() for things in _COLOURS.values()],
    **{name: [words.split()] for name, words in _PEOPLE.items()},
    "names": [_invented(_NAME_ENDS)], "towns": [_invented(_TOWN_ENDS)],
    "subject": [["he"], ["she"]], "object": [["him"], ["her"]], "owner": [["his"], ["her"]],
}
_SCENE_WORDS = [sum(kind, []) for kind in _ANIMALS]
_SCENE_WORDS += [[colour, *things.split()] for colour, things in _COLOURS.items()]
_SCENES = {"kind": len(_ANIMALS), "colour": len(_COLOURS), "sex": 2}
_LITERALS = [word for word in (_OPENINGS + _SENTENCES).split() if word[0] != "{"]

LEXICON = tuple(dict.fromkeys([*_LITERALS, "a", "an", *(w for t in _TABLES.values() for row in t for w in row)]))
"""Every word that a story can hold; the position of a word is its id."""

STORY_CLASSES = {name: tuple(word for row in table for word in row) for name, table in _TABLES.items()
                 if name not in ("names", "towns", "subject", "object", "owner")}
"""{class: its words}. They are interchangeable, because they fill the same slots; no word is in two classes."""

STORY_COMPANIONS = {word: frozenset(words) - {word} for words in _SCENE_WORDS for word in words}
"""{word: the other words of its scene}: a kind of animals with all that is theirs, or a colour with its things."""

_ID = {word: i for i, word in enumerate(LEXICON)}
_IDS = {name: np.array([[_ID[w] for w in row] for row in table], np.int32) for name, table in _TABLES.items()}
_CODE = _ID | {"": len(LEXICON)} | {f"{{{slot}}}": len(LEXICON) + 1 + i for i, slot in enumerate(_SLOTS)}
_FIRST, _NEXT = _compile(_OPENINGS, _CODE), _compile(_SENTENCES, _CODE)
_VOWEL = np.array([word[0] in "aeiou" for word in LEXICON])


def stories(n_documents: int, *, n_words: int, rng: int | np.random.Generator | None = 0) -> NDArray[np.int32]:
    """Draw short stories.

    Parameters
    ----------
    n_documents, n_words : int
        D, the number of stories, and the number of word tokens, punctuation included, after which every story is cut.
        Raises ValueError unless each is a whole number, at least 1.
    rng : int, numpy.random.Generator or None
        Seed. The same seed gives the same stories; more stories, or longer ones, begin with the same words.

    Returns
    -------
    (D, n_words) int32
        Row = story, column = position in it; id i is the word ``LEXICON[i]``.
    """
    whole_number("n_documents", n_documents, 1)
    whole_number("n_words", n_words, 1)
    table_size("the stories", n_documents, n_words)
    seeds = np.random.SeedSequence(seed(rng)).spawn(-(-n_documents // _CHUNK))
    tokens = np.empty((n_documents, n_words), np.int32)
    for i, of_chunk in enumerate(seeds):
        rows = tokens[i * _CHUNK : (i + 1) * _CHUNK]
        rows[:] = _chunk(np.random.default_rng(of_chunk), n_words)[: len(rows)]
    return tokens


def _chunk(rng, n_words):
    """Word ids of ``_CHUNK`` stories, (_CHUNK, n_words)."""
    scenes = {name: rng.integers(n, size=_CHUNK) for name, n in _SCENES.items()}
    order = rng.permuted(np.tile(np.arange(len(_NEXT)), (_CHUNK, 1)), axis=1)  # a sentence returns when all were used
    slots = np.stack([np.full(_CHUNK, -1), *(_draw(rng, slot, scenes) for slot in _SLOTS)], axis=1)
    sentences = [_fill(_FIRST[rng.integers(len(_FIRST), size=_CHUNK)], slots)]
    length = (sentences[0] >= 0).sum(axis=1)
    while length.min() < n_words:
        for i, (slot, (_, _, once)) in enumerate(_SLOTS.items(), start=1):
            if not once:
                slots[:, i] = _draw(rng, slot, scenes)
        sentences.append(_fill(_NEXT[order[:, (len(sentences) - 1) % len(_NEXT)]], slots))
        length += (sentences[-1] >= 0).sum(axis=1)
    text = np.concatenate(sentences, axis=1)
    words = text[text >= 0]  # all stories one after the other, without the padding of the templates
    words[:-1][(words[:-1] == _ID["a"]) & _VOWEL[words[1:]]] = _ID["an"]
    start = np.cumsum(length) - length
    return words[start[:, None] + np.arange(n_words)]


def _draw(rng, slot, scenes):
    """A word of the slot for every story, (_CHUNK,)."""
    name, scene, once = _SLOTS[slot]
    table = _IDS[name]
    if name in ("names", "towns"):
        share = np.cumsum(np.arange(1, table.size + 1) ** -_ZIPF)
        return table[0, np.searchsorted(share, rng.random(_CHUNK) * share[-1])]
    row = scenes.get(scene, 0)
    if scene and not once:
        row = np.where(rng.random(_CHUNK) < _STRAY, rng.integers(len(table), size=_CHUNK), row)
    return table[row, rng.integers(table.shape[1], size=_CHUNK)]


def _fill(templates, slots):
    """Each story's template (_CHUNK, L) with the words of its slots (_CHUNK, S) put in; -1 beyond the end."""
    slot = templates - len(LEXICON)
    return np.where(slot < 0, templates, np.take_along_axis(slots, np.maximum(slot, 0), axis=1))
