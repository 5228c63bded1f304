"""Documents drawn from a known law: short stories whose word classes and word company are published.

A story is a sequence of sentence templates filled from tables of words. It has two scenes: a kind of animals (with its
places, parts, actions and foods) and a colour (with the things that come in it). So two facts are true by construction,
and a reader can score what a model or a statistic recovers against them:

- ``STORY_CLASSES``: the words of one class fill the same slots of the same sentences, they are interchangeable;
- ``STORY_COMPANIONS``: the words of one scene recur together, one in the prefix makes the others more likely.

Legend: D documents, S slots of a template, L places of the longest template.
"""

import re
from dataclasses import dataclass
from itertools import product

import numpy as np

# One row a kind: what it is called, where it lives, what it has, what it does, what it eats. A word is used once.
_KINDS = {
    "birds": dict(
        animals="bird sparrow robin owl eagle parrot pigeon crow finch canary woodpecker dove",
        places="nest tree branch sky treetop birdhouse",
        parts="wings feathers beak talons plumage crest",
        actions="fly flutter chirp soar glide tweet",
        foods="seeds crumbs worms millet birdseed cherries",
    ),
    "fish": dict(
        animals="fish minnow goldfish trout salmon carp perch bass catfish pike eel guppy",
        places="pond lake river stream creek brook",
        parts="fins scales gills tailfin lips belly",
        actions="swim splash dive wiggle paddle float",
        foods="algae pondweed flakes tadpoles snails duckweed",
    ),
    "farm": dict(
        animals="cow pig sheep goat horse hen rooster donkey lamb calf pony turkey",
        places="barn stable pasture farmyard coop meadow",
        parts="hooves mane udder snout horns wool",
        actions="moo graze oink trot gallop neigh",
        foods="hay oats corn straw grain clover",
    ),
    "forest": dict(
        animals="fox bear rabbit squirrel deer wolf hedgehog raccoon badger beaver skunk moose",
        places="den burrow forest woods cave hollow",
        parts="fur paws tail whiskers antlers claws",
        actions="climb dig sniff growl howl prowl",
        foods="acorns nuts berries mushrooms honey roots",
    ),
    "insects": dict(
        animals="ant bee butterfly beetle ladybug grasshopper cricket dragonfly moth caterpillar firefly wasp",
        places="garden anthill hive flowerbed petal log",
        parts="antennae stinger feelers legs spots tummy",
        actions="buzz crawl hum hop sting creep",
        foods="nectar pollen leaves sap sugar dew",
    ),
    "sea": dict(
        animals="whale dolphin crab octopus seal turtle shark lobster starfish jellyfish seahorse squid",
        places="ocean sea reef shore beach lagoon",
        parts="flippers tentacles shell pincers blowhole suckers",
        actions="surf leap squirt drift snap bob",
        foods="seaweed plankton shrimp kelp clams krill",
    ),
    "jungle": dict(
        animals="lion tiger elephant monkey giraffe zebra gorilla hippo rhino leopard crocodile panda",
        places="jungle savanna riverbank waterhole canopy plains",
        parts="trunk jaws ears stripes teeth tusks",
        actions="roar swing stomp charge pounce chatter",
        foods="bananas mangoes bamboo melons vines coconuts",
    ),
}
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
_STARTS = (
    "ba be bi bo bru da de di do dra fa fe fi flo ga ge gi gro ha he hi jo ju ka ke ki kor la le li lo lu ma me mi mo "
    "na ne ni no pa pe pi por qua ra re ri ro sa se si sto ta te ti tru va ve vi wa wil za ze zi"
)
_NAME_ENDS = (
    "bbin dda dric lla llan lmar mbo mmy ndel ndra nelle nzo ppin rabel rdo rissa rlin rmo rnie rrick rvin ska sko "
    "ssie stra thea thiel tolo ttie vinna vick vina xander xie ylo zara zette zim"
)
_TOWN_ENDS = (
    "bury combe dale ford gate ham haven kirk mere minster mont mouth nham port shire stead thorpe tonia ville wick"
)

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

# slot: (word class, the scene that restricts it, drawn once a story). Every other slot is drawn for each sentence.
_SLOTS = {
    "animal": ("animals", "kind", True),
    "mate": ("animals", "kind", False),
    "mate2": ("animals", "kind", False),
    "place": ("places", "kind", False),
    "part": ("parts", "kind", False),
    "act": ("actions", "kind", False),
    "act2": ("actions", "kind", False),
    "food": ("foods", "kind", False),
    "food2": ("foods", "kind", False),
    "colour": ("colours", "colour", True),
    "colour2": ("colours", "colour", False),
    "thing": ("things", "colour", False),
    "thing2": ("things", "colour", False),
    "feeling": ("feelings", None, False),
    "feeling2": ("feelings", None, False),
    "relative": ("family", None, False),
    "weather": ("weather", None, False),
    "weather2": ("weather", None, False),
    "trait": ("traits", None, False),
    "job": ("jobs", None, False),
    "hero": ("names", None, True),
    "friend": ("names", None, True),
    "name": ("names", None, False),
    "name2": ("names", None, False),
    "town": ("towns", None, True),
    "village": ("towns", None, False),
    "he": ("subject", "sex", True),
    "him": ("object", "sex", True),
    "his": ("owner", "sex", True),
}
_CHUNK = 1024  # documents generated together: bounds the memory, and fixes which seed makes which document
_STRAY = 0.1  # share of draws that leave the scene of the story: a companion is likely, not certain
_ZIPF = 0.8  # exponent of the frequencies of names and towns


def _invented(ends):
    """Names made of two syllables; neighbours in rank differ in both (a stride prime to the number of names)."""
    names = ["".join(pair) for pair in product(_STARTS.split(), ends.split())]
    return [names[i * 1009 % len(names)] for i in range(len(names))]


def _word_tables():
    """Words of each class, as a list of rows: one row a scene for classes that go with scenes, else one row in all."""
    tables = {name: [kind[name].split() for kind in _KINDS.values()] for name in _KINDS["birds"]}
    tables["colours"] = [[colour] for colour in _COLOURS]
    tables["things"] = [things.split() for things in _COLOURS.values()]
    tables.update({name: [words.split()] for name, words in _PEOPLE.items()})
    tables["names"], tables["towns"] = [_invented(_NAME_ENDS)], [_invented(_TOWN_ENDS)]
    tables["subject"], tables["object"], tables["owner"] = [["he"], ["she"]], [["him"], ["her"]], [["his"], ["her"]]
    return tables


def _company():
    """Each word of a scene -> the other words of its scene."""
    scenes = [" ".join(kind.values()).split() for kind in _KINDS.values()]
    scenes += [[colour, *things.split()] for colour, things in _COLOURS.items()]
    return {word: frozenset(scene) - {word} for scene in scenes for word in scene}


def _compile(text, code):
    """Templates as rows of ids, (templates, L): a word, ``len(LEXICON) + slot`` for a slot, slot 0 beyond the end."""
    rows = [[code[word] for word in line.split()] for line in text.strip().splitlines()]
    width = max(map(len, rows))
    return np.array([row + [code[""]] * (width - len(row)) for row in rows], dtype=np.int32)


_TABLES = _word_tables()
_SCENES = {"kind": len(_KINDS), "colour": len(_COLOURS), "sex": 2}
_LITERALS = [word for word in (_OPENINGS + _SENTENCES).split() if word[0] != "{"]

LEXICON = tuple(dict.fromkeys([*_LITERALS, "a", "an", *(w for t in _TABLES.values() for row in t for w in row)]))
"""Every word a story can hold; the position of a word is its id."""

STORY_CLASSES = {
    name: tuple(word for row in table for word in row)
    for name, table in _TABLES.items()
    if name not in ("names", "towns", "subject", "object", "owner")
}
"""Class -> its words, which are interchangeable: they fill the same slots. Classes are disjoint."""

STORY_COMPANIONS = _company()
"""Word -> the words that keep its company: its kind of animals and all theirs; a colour and the things it is on."""

_ID = {word: i for i, word in enumerate(LEXICON)}
_IDS = {name: np.array([[_ID[w] for w in row] for row in table], np.int32) for name, table in _TABLES.items()}
_CODE = _ID | {"": len(LEXICON)} | {f"{{{slot}}}": len(LEXICON) + 1 + i for i, slot in enumerate(_SLOTS)}
_FIRST, _NEXT = _compile(_OPENINGS, _CODE), _compile(_SENTENCES, _CODE)
_VOWEL = np.array([word[0] in "aeiou" for word in LEXICON])


@dataclass(frozen=True, eq=False)
class Stories:
    """Stories as word ids.

    Attributes
    ----------
    words : tuple of str
        The lexicon: ``words[i]`` is the word of id i.
    tokens : ndarray of int32, (n_documents, n_words)
        Row d is document d.
    """

    words: tuple[str, ...]
    tokens: np.ndarray

    def text(self, document):
        """Return document number ``document`` as text, which the tokenizer of ``corpus`` splits into the same words."""
        return re.sub(r" (?=[.,!?])", "", " ".join(self.words[i] for i in self.tokens[document]))


def stories(n_documents, *, n_words, rng=0):
    """Draw short stories.

    Parameters
    ----------
    n_documents : int
        Number of stories, at least 1.
    n_words : int
        Word tokens (punctuation included) of each story, at least 1; a story is told until then, and cut there.
    rng : int, numpy.random.Generator or None
        Seed. The same seed gives the same stories; asking for more stories, or longer ones, keeps the beginning.

    Returns
    -------
    Stories

    Raises
    ------
    ValueError
        If ``n_documents`` or ``n_words`` is not a whole number, at least 1.
    """
    for name, value in (("n_documents", n_documents), ("n_words", n_words)):
        if not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} is {value!r}; it must be a whole number, at least 1")
    entropy = rng.integers(2**63) if isinstance(rng, np.random.Generator) else rng
    seeds = np.random.SeedSequence(entropy).spawn(-(-n_documents // _CHUNK))
    tokens = np.empty((n_documents, n_words), np.int32)
    for i, seed in enumerate(seeds):
        rows = tokens[i * _CHUNK : (i + 1) * _CHUNK]
        rows[:] = _chunk(np.random.default_rng(seed), n_words)[: len(rows)]
    return Stories(LEXICON, tokens)


def _chunk(rng, n_words):
    """Return ``_CHUNK`` stories of ``n_words`` words, (_CHUNK, n_words)."""
    scenes = {name: rng.integers(n, size=_CHUNK) for name, n in _SCENES.items()}
    order = rng.permuted(np.tile(np.arange(len(_NEXT)), (_CHUNK, 1)), axis=1)  # no sentence twice before all were told
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
    words = text[text >= 0]  # all stories in one row, without the padding of the templates
    words[:-1][(words[:-1] == _ID["a"]) & _VOWEL[words[1:]]] = _ID["an"]
    start = np.cumsum(length) - length
    return words[start[:, None] + np.arange(n_words)]


def _draw(rng, slot, scenes):
    """Draw one word of a slot for every story, (_CHUNK,)."""
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
    """Put each story's slot words (_CHUNK, S) into its template (_CHUNK, L); -1 beyond the end."""
    slot = templates - len(LEXICON)
    return np.where(slot < 0, templates, np.take_along_axis(slots, np.maximum(slot, 0), axis=1))
