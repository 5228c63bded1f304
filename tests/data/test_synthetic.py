"""Stories: the same seed gives the same bits; the published classes and companions are those of the grammar."""

import re
from collections import Counter

import numpy as np
import pytest

from minitx.data.corpus import builtin_corpus
from minitx.data.stories import _LITERALS, _TABLES, LEXICON, STORY_CLASSES, STORY_COMPANIONS, stories

INVENTED = {word for name in ("names", "towns") for word in _TABLES[name][0]}


@pytest.fixture(scope="module")
def made():
    return stories(2048, n_words=201)


def text(story):
    """A story as text; no space stands before punctuation."""
    return re.sub(r" (?=[.,!?])", "", " ".join(LEXICON[i] for i in story))


def test_same_seed_same_bits_and_other_seed_other_bits():
    assert np.array_equal(stories(30, n_words=40, rng=5), stories(30, n_words=40, rng=5))
    assert not np.array_equal(stories(30, n_words=40, rng=5), stories(30, n_words=40, rng=6))


def test_generator_is_used_and_advanced():
    first, second, again = np.random.default_rng(3), np.random.default_rng(3), np.random.default_rng(3)
    second.random()
    tokens = stories(10, n_words=30, rng=first)
    assert np.array_equal(tokens, stories(10, n_words=30, rng=again))
    assert not np.array_equal(tokens, stories(10, n_words=30, rng=first))
    assert not np.array_equal(tokens, stories(10, n_words=30, rng=second))


def test_no_seed_gives_fresh_stories():
    assert not np.array_equal(stories(10, n_words=30, rng=None), stories(10, n_words=30, rng=None))


@pytest.mark.parametrize("n_documents, n_words", [(1, 1), (1, 201), (7, 65), (1500, 65), (2048, 20)])
def test_fewer_or_shorter_stories_are_the_beginning_of_more(made, n_documents, n_words):
    tokens = stories(n_documents, n_words=n_words)
    assert tokens.shape == (n_documents, n_words) and tokens.dtype == np.int32
    # Whether a cut story's last "a" is "an" depends on the word after it, which is generated all the same.
    assert np.array_equal(tokens, made[:n_documents, :n_words])


def test_long_stories_reuse_their_sentences():
    assert stories(2, n_words=3000).shape == (2, 3000)


@pytest.mark.parametrize("bad", [dict(n_documents=0), dict(n_words=0), dict(n_documents=2.5), dict(n_words="many")])
def test_bad_sizes(bad):
    sizes = dict(n_documents=2, n_words=5) | bad
    with pytest.raises(ValueError, match=f"{next(iter(bad))} is .* whole number, at least 1"):
        stories(sizes["n_documents"], n_words=sizes["n_words"])


def test_text_gives_back_the_tokens(made, tmp_path):
    from minitx.data.corpus import load_corpus

    path = tmp_path / "stories.txt"
    path.write_text("\n".join(map(text, made[:50])))
    corpus = load_corpus(path, n_vocab=len(LEXICON), length=200)
    words = [[LEXICON[i] for i in row] for row in made[:50]]
    assert [[corpus.vocabulary[i] for i in row] for row in corpus.tokens[:50]] == words


def test_text_reads_like_a_story(made):
    assert ' a owl' not in (told := " ".join(map(text, made[:300])))
    assert " an owl " in told and " ," not in told and "{" not in told


def test_lexicon_has_no_word_twice_and_is_used(made):
    assert len(set(LEXICON)) == len(LEXICON)
    assert len(np.unique(made)) > 3000
    shown = {LEXICON[i] for i in np.unique(made)}
    assert set(STORY_COMPANIONS) <= shown and {w for c in STORY_CLASSES.values() for w in c} <= shown


def test_3000_words_are_a_real_setting():
    corpus = builtin_corpus("stories", n_vocab=3000, length=200, unknown="omit")
    assert len(corpus.vocabulary) == 3000 and len(corpus.tokens) > 1000


def test_every_word_of_an_open_class_stands_nowhere_else():
    words = [word for members in STORY_CLASSES.values() for word in members]
    assert [word for word, n in Counter(words).items() if n > 1] == []
    assert not set(words) & {*_LITERALS, "a", "an"}
    assert not INVENTED & {*words, *_LITERALS, "a", "an"}


def test_classes_and_company_are_large_enough_to_be_scored():
    assert min(len(members) for members in STORY_CLASSES.values()) >= 12
    assert min(len(company) for company in STORY_COMPANIONS.values()) >= 10


def test_company_is_mutual_and_has_no_self():
    for word, company in STORY_COMPANIONS.items():
        assert word not in company
        assert all(word in STORY_COMPANIONS[other] for other in company)


@pytest.mark.parametrize("word", ["sparrow", "pond", "red", "truck"])
def test_company_is_kept(made, word):
    """A story that holds a word holds its companions far more often than other stories do."""
    ids = np.isin(made, [LEXICON.index(w) for w in STORY_COMPANIONS[word]]).sum(axis=1)
    having = (made == LEXICON.index(word)).any(axis=1)
    assert ids[having].mean() > 3 * ids[~having].mean()


@pytest.mark.parametrize("name", STORY_CLASSES)
def test_members_of_a_class_are_about_as_frequent(made, name):
    count = np.bincount(made.ravel(), minlength=len(LEXICON))[[LEXICON.index(w) for w in STORY_CLASSES[name]]]
    assert count.min() > 20 and count.max() < 5 * count.min()


def test_interchangeability_of_bigrams_recovers_the_classes():
    """Cosine of the columns of B = P(a then b) - alpha_a / V, i.e. Sigma scaled by its diagonal: precision at 10."""
    corpus = builtin_corpus("stories")
    size = len(corpus.vocabulary)
    pairs = np.zeros((size, size))
    np.add.at(pairs, (corpus.tokens[:, :-1].ravel(), corpus.tokens[:, 1:].ravel()), 1)
    bigram = pairs - pairs.sum(axis=1, keepdims=True) / size
    similar = (bigram.T @ bigram) / np.linalg.norm(bigram, axis=0)  # row b: scaled by column
    np.fill_diagonal(similar, -np.inf)
    of = {word: name for name, members in STORY_CLASSES.items() for word in members}
    names = np.array([of.get(word, "") for word in corpus.vocabulary])
    scored = np.flatnonzero(names != "")
    top = np.argsort(-similar[scored], axis=1)[:, :10]
    assert (names[top] == names[scored, None]).mean() > 0.95
