"""What a stranger may type in Python: every row is a call that is wrong, its error, and a word that the error says.

Beside the type of the error and the word, each row is held to this: the error is raised in minitx and not inside a
kernel, it names nothing of NumPy's or of Python's own words, and it shows no large object. The second table is made by
the test: for every public function, a call that is right, in which one argument after the other is replaced by what it
cannot be.
"""

import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import minitx
from minitx import Batch, Corpus, EmbeddedWeights, LastTokenWeights, OneHotWeights, Samples
from minitx import associations as A
from minitx import next_token as N
from minitx import topics as T
from minitx.associations import reduced, words
from minitx.base.numbers import agreement, cosine
from minitx.topics import text as topics_text
from minitx.topics import uniform_attention

ROOT = Path(minitx.__file__).parent
FOREIGN = re.compile(
    "could not be broadcast|setting an array|out of bounds|unsupported operand|object has no attribute|has no len|"
    "inhomogeneous|not subscriptable|not iterable|ambiguous|invalid literal|positional argument|numba|cannot reshape|"
    "shape mismatch|can't multiply|must be real number|ufunc|default_rng|SeedSequence|allow_pickle|could not convert|"
    r"Unable to allocate|not supported between|argument must be|cannot unpack|_ArrayMemoryError|slice\(|expected str")
BOTH = (TypeError, ValueError)


def wrong(call, error, says):
    """Make the call, and hold its error to what all errors must be."""
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert re.search(says, message), message
    assert not FOREIGN.search(message), message
    assert "\n" not in message and len(message) <= 600, message
    frames = []
    trace = caught.value.__traceback__
    while trace is not None:
        frames.append(Path(trace.tb_frame.f_code.co_filename))
        trace = trace.tb_next
    assert ROOT in frames[-1].parents, frames[-1]
    assert frames[-1].name != "kernels.py"


# --------------------------------------------------------------------------------------------- what is right, to spoil


@cache
def right(name):
    """One of everything that public functions take."""
    rng = np.random.default_rng(0)
    make = {
        "batch": lambda: Batch([[0, 1, 2], [2, 1, 0]], [[1, 2, 3], [1, 0, 3]]),
        "masked": lambda: right("setting").mask(right("documents"), head="squared"),
        "weights": lambda: OneHotWeights.gaussian(4, 3, scale=0.1, rng=0),
        "embedded": lambda: EmbeddedWeights.gaussian(7, W_E=0.1, W_QK=0.1, width=3, rng=0),
        "values": lambda: EmbeddedWeights.gaussian(7, W_V=0.1, rng=0),
        "last": lambda: LastTokenWeights.gaussian(4, scale=0.1, rng=0),
        "circuits": lambda: right("weights").circuits(),
        "corpus": lambda: Corpus.from_documents(["a b c a b", "b c a c a"] * 10, n_vocab=4, length=2),
        "statistics": lambda: A.statistics(right("batch"), 4),
        "leading": lambda: A.leading_weights(right("statistics"), steps=2, learning_rate=0.1),
        "bounds": lambda: A.bounds(steps=2, learning_rate=0.1, length=3, n_vocab=4),
        "reduction": lambda: reduced.reduce(right("batch"), 4),
        "expansion": lambda: A.expand(right("batch"), 4, order=2),
        "scores": lambda: words.similarity(A.statistics(right("corpus").batch(), 4))["bigram"],
        "setting": lambda: T.TopicModel(2, 3, 8, tau=1),
        "documents": lambda: right("setting").documents(5),
        "blocks": lambda: T.separated_value(right("setting")),
        "moments": lambda: uniform_attention.moments(right("masked"), 7),
        "topics": lambda: right("setting").topic_of_token,
        "matrix": lambda: rng.standard_normal((7, 7)),
        "samples": lambda: Samples.of([[0, 1, 2], [1, 2, 0], [2, 1, 0], [3, 0, 1]], [1, 2, 1, 0], n_vocab=4),
        "graphs": lambda: N.priority_graphs(right("samples")),
        "split": lambda: N.Split(right("samples"), right("graphs")),
        "automaton": lambda: N.Automaton.fit(right("samples")),
        "law": lambda: N.PriorityLaw.random(4, rng=0),
        "I": lambda: np.eye(4),
    }
    return make[name]()


# ---------------------------------------------------------------------------- one argument after the other is replaced


NO_COUNT = [(None, "None"), ("three", "'three'"), (-1, "-1"), (1.5, "1.5"), (np.nan, "nan"), (True, "True"),
            (10**30, "1000|memory|most|table")]
COUNT = [(value, says) for value, says in NO_COUNT if value != 10**30]
RATE = [(None, "None"), ("fast", "'fast'"), (0.0, "0"), (-1.0, "-1"), (np.nan, "nan"), (np.inf, "inf")]
NO_RNG = [("zero", "'zero'"), (-1, "-1"), (1.5, "1.5"), (True, "True")]
NO_BOOL = [("no", "'no'"), (1, "1"), (None, "None")]
OBJECT = [(None, "None"), ([1, 2], r"\[1, 2\]"), ("text.txt", "'text.txt'"), (3.5, "3.5"), (np.ones((2, 2)), "array"),
          (Path("text.txt"), "path|text.txt"), (OneHotWeights, "class OneHotWeights")]
MATRIX = [(None, "None|shape"), ("abc", "'abc'|string|dtype"), ([[1.0], [2.0, 3.0]], "different lengths|length"),
          (np.ones((2, 3)), r"\(2, 3\)"), (np.full((4, 4), 1j), "complex"), ([["a", "b"], ["c", "d"]], "dtype|U1")]

# function: (the call that is right, {argument: what it cannot be})
CALLS = {
    minitx.loss_and_gradient: ({"weights": "weights", "batch": "batch"}, {"batch": OBJECT}),
    minitx.attention_and_output: ({"weights": "weights", "batch": "batch"}, {"batch": OBJECT}),
    minitx.descend: ({"weights": "weights", "batch": "batch", "learning_rate": 0.1, "steps": 1, "batch_size": 1},
                     {"weights": OBJECT, "batch": OBJECT, "steps": COUNT, "rng": NO_RNG, "normalised": NO_BOOL,
                      "learning_rate": RATE, "batch_size": COUNT[1:], "start_step": COUNT}),
    minitx.gradient_terms: ({"weights": "weights", "batch": "batch"}, {"weights": OBJECT, "batch": OBJECT,
                                                                      "leading": OBJECT[1:]}),
    minitx.testing.check_gradient: ({"weights": "weights", "batch": "batch"},
                                    {"weights": OBJECT, "batch": OBJECT, "max_entries": COUNT, "rtol": RATE,
                                     "rng": NO_RNG}),
    minitx.load: ({"path": "no.npz"}, {"path": [(None, "None"), (3, "3"), ([1], r"\[1\]")]}),
    minitx.builtin_corpus: ({"name": "stories", "n_vocab": 5, "length": 2},
                            {"name": OBJECT, "n_vocab": COUNT, "length": NO_COUNT, "n_windows": COUNT[1:],
                             "n_documents": NO_COUNT[1:], "rng": NO_RNG}),
    OneHotWeights.zeros: ({"n_vocab": 3, "length": 2}, {"n_vocab": NO_COUNT, "length": NO_COUNT}),
    OneHotWeights.gaussian: ({"n_vocab": 3, "length": 2, "scale": 1.0}, {"scale": [*RATE[:2], *RATE[3:]],
                                                                       "rng": NO_RNG}),
    EmbeddedWeights.gaussian: ({"n_vocab": 3, "W_E": 1.0}, {"n_vocab": NO_COUNT, "width": NO_COUNT[1:], "rng": NO_RNG}),
    LastTokenWeights.gaussian: ({"n_vocab": 3, "scale": 1.0}, {"n_vocab": NO_COUNT[1:], "rng": NO_RNG}),
    LastTokenWeights.zeros: ({"E": "I"}, {"E": [*MATRIX[1:3], MATRIX[5]]}),
    A.statistics: ({"batch": "batch", "n_vocab": 4}, {"batch": OBJECT, "n_vocab": NO_COUNT}),
    A.leading_weights: ({"statistics": "statistics", "steps": 2, "learning_rate": 0.1},
                        {"statistics": OBJECT, "steps": NO_COUNT, "learning_rate": RATE}),
    A.second_order_output: ({"statistics": "statistics", "steps": 2, "learning_rate": 0.1}, {"statistics": OBJECT}),
    A.bounds: ({"steps": 2, "learning_rate": 0.1, "length": 3, "n_vocab": 4},
               {"steps": NO_COUNT, "learning_rate": RATE, "length": COUNT, "n_layers": COUNT, "full_batch": NO_BOOL,
                "init_scale": [*RATE[:2], *RATE[3:]]}),
    A.beside: ({"weights": "weights", "leading": "leading", "bounds": "bounds", "step": 1, "loss": 1.0},
               {"weights": OBJECT, "leading": OBJECT, "bounds": OBJECT, "step": COUNT}),
    A.expand: ({"batch": "batch", "n_vocab": 4, "order": 2},
               {"batch": OBJECT, "n_vocab": NO_COUNT, "order": [*NO_COUNT, (10**6, "1000000")]}),
    A.record_terms: ({"weights": "weights", "batch": "batch", "learning_rate": 0.1, "steps": 1},
                     {"weights": OBJECT, "batch": OBJECT, "steps": COUNT}),
    reduced.reduce: ({"batch": "batch", "n_vocab": 4}, {"batch": OBJECT, "order": COUNT, "n_cells": COUNT[1:]}),
    reduced.descend: ({"weights": "weights", "batch": "batch", "learning_rate": 0.1, "steps": 1},
                      {"weights": OBJECT, "batch": OBJECT}),
    reduced.loss_and_gradient: ({"weights": "weights", "reduction": "reduction"},
                                {"weights": OBJECT, "reduction": OBJECT}),
    words.similarity: ({"statistics": "statistics"}, {"statistics": OBJECT}),
    words.associates: ({"scores": "scores", "corpus": "corpus", "word": "a"},
                       {"scores": MATRIX, "corpus": OBJECT, "k": COUNT, "word": [(None, "None"), ("zz", "'zz'"),
                                                                                (0, "0")]}),
    words.precision: ({"scores": "scores", "corpus": "corpus", "truth": {"a": {"b"}}},
                      {"corpus": OBJECT, "truth": OBJECT[:4]}),
    T.TopicModel: ({"n_topics": 2, "words_per_topic": 3, "length": 8, "tau": 1},
                   {"n_topics": COUNT, "words_per_topic": COUNT[1:], "length": COUNT, "tau": COUNT[1:],
                    "p_m": [(None, "None"), ("a", "'a'"), (2, "2")], "loss": [(None, "None"), ("sum", "'sum'")]}),
    T.Documents: ({"tokens": [[1, 2]], "lengths": [2], "n_vocab": 3},
                  {"tokens": MATRIX[1:3], "lengths": MATRIX[1:3], "n_vocab": NO_COUNT}),
    T.mask_tokens: ({"documents": "documents"}, {"documents": OBJECT, "rng": NO_RNG, "head": [(None, "None")],
                                                "p_m": [("a", "'a'"), (np.nan, "nan")]}),
    T.attention_table: ({"weights": "embedded", "documents": "documents"}, {"weights": OBJECT, "documents": OBJECT}),
    T.pair_averages: ({"pairs": "matrix", "topics": "topics"}, {"pairs": MATRIX, "topics": MATRIX[:3]}),
    T.permutation_test: ({"pairs": "matrix", "topics": "topics"}, {"n_permutations": COUNT, "rng": NO_RNG}),
    T.gram: ({"E": "I"}, {"E": [*MATRIX[:3], MATRIX[5]]}),
    T.cosine_matrix: ({"E": "I"}, {"E": [*MATRIX[:3], MATRIX[5]]}),
    T.moments: ({"setting": "setting"}, {"setting": OBJECT}),
    T.optimal_value: ({"setting": "setting"}, {"setting": OBJECT}),
    T.paper_value: ({"setting": "setting"}, {"setting": OBJECT}),
    T.separated_value: ({"setting": "setting"}, {"setting": OBJECT}),
    T.other_limit_value: ({"setting": "setting"}, {"setting": OBJECT}),
    T.ridge_value: ({"setting": "setting", "ridge": 0.1}, {"setting": OBJECT, "ridge": RATE}),
    T.value_after: ({"setting": "setting", "steps": 2, "learning_rate": 0.1},
                    {"setting": OBJECT, "steps": NO_COUNT, "learning_rate": RATE}),
    T.optimal_gram: ({"setting": "setting"}, {"setting": OBJECT}),
    T.gram_plateau: ({"setting": "setting"}, {"setting": OBJECT}),
    T.cross_entropy_optimum: ({"setting": "setting"}, {"setting": OBJECT, "n_documents": NO_COUNT, "rng": NO_RNG,
                                                       "same_word": NO_BOOL}),
    T.attention_loss: ({"setting": "setting", "alpha": 2.0, "beta": 1.0},
                       {"setting": OBJECT, "alpha": MATRIX[1:3], "beta": [("a", "dtype|'a'"), (-1, "-1")],
                        "value": OBJECT[1:]}),
    T.optimal_ratio: ({"setting": "setting"}, {"setting": OBJECT, "free_mask": NO_BOOL}),
    T.optimal_attention: ({"setting": "setting", "value": "blocks"}, {"setting": OBJECT, "value": OBJECT}),
    T.attention_profile: ({"setting": "setting", "alpha": 2.0, "beta": 1.0},
                          {"setting": OBJECT, "alpha": [("a", "'a'"), ([1.0, 2.0], r"\(2,\)"), (np.inf, "inf")]}),
    T.infinite_documents: ({"setting": "setting"}, {"setting": OBJECT, "head": [(None, "None"), ("sum", "'sum'")]}),
    T.Blocks.of: ({"matrix": "matrix", "setting": "setting"}, {"matrix": MATRIX, "setting": OBJECT}),
    uniform_attention.moments: ({"batch": "masked", "n_vocab": 7}, {"batch": OBJECT, "n_vocab": NO_COUNT}),
    uniform_attention.loss_and_gradient: ({"weights": "values", "moments": "moments"},
                                          {"weights": OBJECT, "moments": OBJECT}),
    topics_text.text_documents: ({"corpus": "corpus"}, {"corpus": OBJECT}),
    topics_text.quantities: ({"weights": "embedded", "documents": "documents"}, {"weights": OBJECT,
                                                                                "documents": OBJECT}),
    Samples.of: ({"sequences": [[0, 1]], "labels": [0]},
                 {"sequences": OBJECT, "labels": [(None, "labels"), ("a", "labels"), ([0.5], "integers"), ([2], "2")],
                  "n_vocab": NO_COUNT[1:]}),
    Samples.prefixes: ({"texts": [[0, 1, 0]]}, {"texts": OBJECT, "n_vocab": NO_COUNT[1:], "unknown": COUNT[1:]}),
    N.priority_graphs: ({"samples": "samples"}, {"samples": OBJECT}),
    N.constraints: ({"graphs": "graphs"}, {"graphs": OBJECT}),
    N.graph_svm: ({"graphs": "graphs", "E": "I"}, {"graphs": OBJECT, "E": [*MATRIX[:4], MATRIX[5]]}),
    N.cyclic_subspace: ({"graphs": "graphs", "E": "I"}, {"graphs": OBJECT, "E": [*MATRIX[:4], MATRIX[5]]}),
    N.Split: ({"samples": "samples", "graphs": "graphs"}, {"samples": OBJECT, "graphs": OBJECT, "E": MATRIX[1:4]}),
    N.soft_component: ({"split": "split"}, {"split": OBJECT}),
    N.residual: ({"split": "split", "W_svm": "I", "W_fin": "I"}, {"split": OBJECT, "W_svm": MATRIX, "W_fin": MATRIX}),
    N.Automaton.fit: ({"samples": "samples"}, {"samples": OBJECT, "E": MATRIX[1:4]}),
    N.PriorityLaw: ({"rank": [[0, 1], [1, 0]]}, {"rank": MATRIX, "odds": MATRIX[1:]}),
    N.PriorityLaw.random: ({"n_vocab": 4}, {"n_vocab": NO_COUNT, "n_classes": COUNT, "rng": NO_RNG}),
    N.random_samples: ({"n_samples": 2, "length": 2, "n_vocab": 3},
                       {"n_samples": NO_COUNT, "length": COUNT, "n_vocab": NO_COUNT, "rng": NO_RNG}),
    N.unseen_contexts: ({"sequences": [[0, 1]], "n_contexts": 1, "length": 2, "n_vocab": 3},
                        {"sequences": OBJECT[:4], "n_contexts": NO_COUNT, "length": COUNT, "n_vocab": COUNT,
                         "rng": NO_RNG}),
    N.losses.loss_and_gradient: ({"weights": "last", "samples": "samples"},
                                 {"weights": OBJECT, "samples": OBJECT,
                                  "loss": [(None, "None"), ("cubic", "'cubic'")]}),
    N.losses.attention: ({"weights": "last", "samples": "samples"}, {"weights": OBJECT, "samples": OBJECT}),
    N.losses.context_attention: ({"weights": "last", "contexts": [[0, 1]]},
                                 {"weights": OBJECT, "contexts": [(None, "None"), ("a", "'a'"), ([3], "3"),
                                                                  ([[9]], "9"), ([[]], "non-empty")]}),
    N.training.train: ({"start": "last", "automaton": "automaton", "mode": "descent", "steps": 1},
                       {"start": OBJECT, "automaton": OBJECT, "steps": COUNT, "learning_rate": RATE[1:],
                        "mode": [(None, "None"), ("fast", "'fast'")],
                        "at": [("all", "'all'"), ([1.5], "1.5"), (1, "1")]}),
    N.local_training.train_local: ({"start": "last", "samples": "samples", "steps": 1},
                                   {"start": OBJECT, "samples": OBJECT, "steps": COUNT, "learning_rate": RATE}),
    cosine: ({"a": [1.0], "b": [2.0]}, {"a": [(None, "NoneType|dtype|None"), ("a", "'a'|dtype"), ([1j], "complex"),
                                              ([[1], [1, 2]], "different lengths"), ([1.0, 2.0], r"\(2,\)")]}),
    agreement: ({"weights": "weights", "predicted": "leading"}, {"weights": OBJECT, "predicted": OBJECT}),
}


def replaced():
    """(function, argument, value, word) of every row of CALLS."""
    return [pytest.param(function, argument, value, says, id=f"{function.__qualname__}-{argument}-{number}")
            for function, (_, faults) in CALLS.items() for argument, values in faults.items()
            for number, (value, says) in enumerate(values)]


def given(arguments):
    """The arguments of a call; a string is the name of something right."""
    found = {}
    for name, value in arguments.items():
        try:
            found[name] = right(value) if isinstance(value, str) else value
        except KeyError:
            found[name] = value
    return found


@pytest.mark.parametrize(("function", "argument", "value", "says"), replaced())
def test_an_argument_that_cannot_be_is_refused_by_name(function, argument, value, says):
    arguments = given(CALLS[function][0])
    wrong(lambda: function(**{**arguments, argument: value}), BOTH, says)


@pytest.mark.parametrize("function", CALLS, ids=lambda function: function.__qualname__)
def test_the_calls_that_are_spoilt_are_right(function):
    if function is minitx.load:
        pytest.skip("there is no file")
    function(**given(CALLS[function][0]))
