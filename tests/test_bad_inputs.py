"""What a stranger may type in Python: every row is a call that is wrong, its error, and a word that the error says.

Beside the type of the error and the word, each row is held to this: the error is raised in minitx and not inside a
kernel, it names nothing of NumPy's or of Python's own words, and it shows no large object. The second table is made by
the test: for every public function, a call that is right, in which one argument after the other is replaced by what it
cannot be.
"""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import minitx
from minitx import (
    Adam,
    AdamW,
    Batch,
    Circuits,
    Corpus,
    EmbeddedWeights,
    GradientDescent,
    LastTokenWeights,
    LayeredWeights,
    Momentum,
    OneHotWeights,
    Samples,
)
from minitx import associations as A
from minitx import next_token as N
from minitx import topics as T
from minitx.associations import reduced, reference_dynamics, words
from minitx.base.numbers import agreement, cosine
from minitx.model import layers
from minitx.model.optimisers import Optimiser
from minitx.next_token.factors import FactoredWeights, factor_path, nuclear_svm
from minitx.next_token.path import split_path
from minitx.next_token.rank_one import equicorrelated
from minitx.next_token.ridge import ridge_path
from minitx.topics import text as topics_text
from minitx.topics import training as topics_training
from minitx.topics import two_stages, uniform_attention

ROOT = Path(minitx.__file__).parent
FOREIGN = re.compile(
    "could not be broadcast|setting an array|out of bounds|unsupported operand|object has no attribute|has no len|"
    "inhomogeneous|not subscriptable|not iterable|ambiguous|invalid literal|positional argument|numba|cannot reshape|"
    "shape mismatch|can't multiply|must be real number, not|ufunc|default_rng|SeedSequence|allow_pickle|"
    "could not convert|Unable to allocate|not supported between|argument must be|cannot unpack|_ArrayMemoryError|"
    r"slice\(|expected str")
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
        "layers": lambda: LayeredWeights.gaussian(4, 3, 2, scale=0.1, rng=0),
        "reference": lambda: reference_dynamics.reference(right("batch"), 4, 2),
        "embedded": lambda: EmbeddedWeights.gaussian(7, W_E=0.1, W_QK=0.1, width=3, rng=0),
        "values": lambda: EmbeddedWeights.gaussian(7, W_V=0.1, rng=0),
        "last": lambda: LastTokenWeights.gaussian(4, scale=0.1, rng=0),
        "headed": lambda: LastTokenWeights.gaussian(4, scale=0.1, C=np.eye(4), rng=0),
        "factors": lambda: FactoredWeights.gaussian(4, scale=0.1, rng=0),
        "circuits": lambda: right("weights").circuits(),
        "corpus": lambda: Corpus.from_documents(["a b c a b", "b c a c a"] * 10, n_vocab=4, length=2),
        "statistics": lambda: A.statistics(right("batch"), 4),
        "leading": lambda: A.leading_weights(right("statistics"), steps=2, learning_rate=0.1),
        "bounds": lambda: A.bounds(steps=2, learning_rate=0.1, length=3, n_vocab=4),
        "reduction": lambda: reduced.reduce(right("batch"), 4),
        "expansion": lambda: A.expand(right("batch"), 4, order=2),
        "scores": lambda: words.similarity(A.statistics(right("corpus").batch(), 4))["bigram"],
        "setting": lambda: T.TopicModel(2, 3, 8, tau=1),
        "mixed": lambda: T.TopicModel(4, 2, 8, tau=2),
        "documents": lambda: right("setting").documents(5),
        "blocks": lambda: T.separated_value(right("setting")),
        "moments": lambda: uniform_attention.moments(right("masked"), 7),
        "topics": lambda: right("setting").topic_of_token,
        "matrix": lambda: rng.standard_normal((7, 7)),
        "samples": lambda: Samples.of([[0, 1, 2], [1, 2, 0], [2, 1, 0], [3, 0, 1]], [1, 2, 1, 0], n_vocab=4),
        "graphs": lambda: N.priority_graphs(right("samples")),
        "split": lambda: N.Split(right("samples"), right("graphs")),
        "automaton": lambda: N.Automaton.fit(right("samples")),
        "W_svm": lambda: right("automaton").svm.W,
        "W_fin": lambda: right("automaton").soft.W,
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
NOT_NEGATIVE = [*RATE[:2], *RATE[3:], (True, "True")]
NO_BOOL = [("no", "'no'"), (1, "1"), (None, "None")]
OBJECT = [(None, "None"), ([1, 2], r"\[1, 2\]"), ("text.txt", "'text.txt'"), (3.5, "3.5"), (np.ones((2, 2)), "array"),
          (Path("text.txt"), "path|text.txt"), (OneHotWeights, "class OneHotWeights")]
STRENGTHS = [(None, "None"), ("weak", "'weak'"), (0.1, "0.1"), ([0.0], "0.0"), ([-1.0], "-1"), ([np.nan], "nan"),
             ([1.0, "b"], "'b'"), ([[1.0]], r"\[1.0\]")]
MATRIX = [(None, "None|shape"), ("abc", "'abc'|string|dtype"), ([[1.0], [2.0, 3.0]], "different lengths|length"),
          (np.ones((2, 3)), r"\(2, 3\)"), (np.full((4, 4), 1j), "complex"), ([["a", "b"], ["c", "d"]], "dtype|U1")]


def whole_ridge_path(**arguments):
    """All points, which are computed only when they are asked for; so are those of the other two paths."""
    return list(ridge_path(**arguments))


def whole_factor_path(**arguments):
    """Both factors decay."""
    return list(factor_path(**arguments))


def whole_split_path(**arguments):
    """The SCCs are given."""
    return list(split_path(**arguments))


# function: (the call that is right, {argument: what it cannot be})
CALLS = {
    minitx.loss_and_gradient: ({"weights": "weights", "batch": "batch"}, {"batch": OBJECT}),
    minitx.attention_and_output: ({"weights": "weights", "batch": "batch"}, {"batch": OBJECT}),
    minitx.descend: ({"weights": "weights", "batch": "batch", "learning_rate": 0.1, "steps": 1, "batch_size": 1},
                     {"weights": OBJECT, "batch": OBJECT, "steps": COUNT, "rng": NO_RNG, "normalised": NO_BOOL,
                      "learning_rate": RATE, "batch_size": COUNT[1:], "start_step": COUNT,
                      "optimiser": [*OBJECT[1:], ("adam", r"'adam'.* minitx.Adam\(\)"), (Adam, "the class Adam")]}),
    GradientDescent: ({}, {"decay": NOT_NEGATIVE, "steps": COUNT, "memory": [(None, "None"), ([1], r"\[1\]")]}),
    Momentum: ({}, {"beta": [*NOT_NEGATIVE, (1.0, "beta is 1; it must be below 1")], "decay": NOT_NEGATIVE}),
    Adam: ({}, {"beta_1": [*NOT_NEGATIVE, (1.0, "below 1")], "beta_2": [*NOT_NEGATIVE, (1.5, "below 1")],
                "epsilon": NOT_NEGATIVE, "decay": NOT_NEGATIVE}),
    AdamW: ({}, {"decay": NOT_NEGATIVE}),
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
    LayeredWeights.zeros: ({"n_vocab": 3, "length": 2, "n_layers": 2},
                           {"n_vocab": NO_COUNT, "length": NO_COUNT, "n_layers": NO_COUNT}),
    LayeredWeights.gaussian: ({"n_vocab": 3, "length": 2, "n_layers": 2, "scale": 1.0},
                              {"scale": [*RATE[:2], *RATE[3:]], "rng": NO_RNG}),
    layers.loss_and_gradient: ({"weights": "layers", "batch": "batch"},
                               {"weights": OBJECT, "batch": OBJECT, "form": [(3, "3"), ("fast", "'fast'")]}),
    layers.operations: ({"weights": "layers", "batch": "batch"}, {"weights": OBJECT, "batch": OBJECT}),
    layers.attention_and_output: ({"weights": "layers", "batch": "batch"}, {"weights": OBJECT, "batch": OBJECT}),
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
    A.explained: ({"weights": "weights", "predicted": "leading", "batch": "batch"},
                  {"weights": OBJECT, "predicted": OBJECT, "batch": OBJECT}),
    A.expand: ({"batch": "batch", "n_vocab": 4, "order": 2},
               {"batch": OBJECT, "n_vocab": NO_COUNT, "order": [*NO_COUNT, (10**6, "1000000")]}),
    A.next_order: ({"batch": "batch", "n_vocab": 4, "steps": 2, "learning_rate": 0.1},
                   {"batch": OBJECT, "n_vocab": NO_COUNT, "steps": NO_COUNT, "learning_rate": RATE, "n_layers": COUNT}),
    A.interventions: ({"weights": "weights", "batch": "batch", "leading": "leading"},
                      {"weights": OBJECT, "batch": OBJECT, "leading": OBJECT, "n_random": COUNT, "rng": NO_RNG}),
    reference_dynamics.OneLayer: ({"batch": "batch", "statistics": "statistics", "learning_rate": 0.1},
                                  {"batch": OBJECT, "statistics": OBJECT, "learning_rate": RATE}),
    reference_dynamics.contexts: ({"batch": "batch", "n_vocab": 4, "n": 2},
                                  {"batch": OBJECT, "n_vocab": NO_COUNT, "n": NO_COUNT}),
    reference_dynamics.reference: ({"batch": "batch", "n_vocab": 4, "n_layers": 2},
                                   {"batch": OBJECT, "n_vocab": NO_COUNT, "n_layers": NO_COUNT}),
    reference_dynamics.loss_and_gradient: ({"weights": "layers", "reference": "reference"},
                                           {"weights": OBJECT, "reference": OBJECT}),
    reference_dynamics.closed_form: ({"statistics": "statistics", "steps": 2, "learning_rate": 0.1},
                                     {"statistics": OBJECT, "steps": NO_COUNT, "learning_rate": RATE,
                                      "n_layers": COUNT}),
    A.record_terms: ({"weights": "weights", "batch": "batch", "learning_rate": 0.1, "steps": 1},
                     {"weights": OBJECT, "batch": OBJECT, "steps": COUNT}),
    A.attribution: ({"of": "statistics", "batch": "batch", "parameter": "bigram", "row": 0, "column": 1},
                    {"of": OBJECT, "batch": OBJECT, "row": NO_COUNT[:6], "column": NO_COUNT[:6],
                     "parameter": [(None, "None"), ("B", "'B'; it must be one of bigram"), (["bigram"], "bigram")],
                     "leading": OBJECT[1:]}),
    A.logit_parts: ({"statistics": "statistics", "batch": "batch", "word": 0, "other": 1, "steps": 2,
                     "learning_rate": 0.1},
                    {"statistics": OBJECT, "batch": OBJECT, "word": COUNT, "other": COUNT, "steps": NO_COUNT,
                     "learning_rate": RATE}),
    A.record_attribution: ({"weights": "weights", "batch": "batch", "parameter": "W_O", "row": 0, "column": 1,
                            "steps": 1, "learning_rate": 0.1},
                           {"weights": OBJECT, "batch": OBJECT, "steps": COUNT, "row": COUNT, "column": COUNT,
                            "learning_rate": RATE, "rng": NO_RNG, "callback": [(1, "1"), ("all", "'all'")],
                            "parameter": [("Q", "'Q'; it must be one of W_O, V, W, P")]}),
    reduced.reduce: ({"batch": "batch", "n_vocab": 4}, {"batch": OBJECT, "order": COUNT, "n_cells": COUNT[1:]}),
    reduced.descend: ({"weights": "weights", "batch": "batch", "learning_rate": 0.1, "steps": 1},
                      {"weights": OBJECT, "batch": OBJECT, "tolerance": RATE[1:]}),
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
    T.cross_entropy_optimum: ({"setting": "mixed"}, {"setting": OBJECT, "n_documents": NO_COUNT, "rng": NO_RNG,
                                                       "same_word": NO_BOOL}),
    T.attention_loss: ({"setting": "setting", "alpha": 2.0, "beta": 1.0},
                       {"setting": OBJECT, "alpha": MATRIX[1:3], "beta": [("a", "dtype|'a'"), (-1, "-1")],
                        "value": OBJECT[1:]}),
    T.optimal_ratio: ({"setting": "setting"}, {"setting": OBJECT, "free_mask": NO_BOOL}),
    T.optimal_attention: ({"setting": "setting", "value": "blocks"}, {"setting": OBJECT, "value": OBJECT}),
    T.expected_attention_loss: ({"setting": "setting", "alpha": 2.0, "beta": 1.0},
                                {"setting": OBJECT, "alpha": MATRIX[1:3], "value": OBJECT[1:],
                                 "beta": [("a", "dtype|'a'"), (-1, "-1"), (np.nan, "nan|finite")]}),
    T.best_attention: ({"setting": "setting"}, {"setting": OBJECT, "value": OBJECT[1:], "tied": NO_BOOL}),
    T.pair_spread: ({"pairs": "matrix", "topics": "topics"}, {"pairs": MATRIX, "topics": MATRIX[:3]}),
    T.attention_profile: ({"setting": "setting", "alpha": 2.0, "beta": 1.0},
                          {"setting": OBJECT, "alpha": [("a", "'a'"), ([1.0, 2.0], r"\(2,\)"), (np.inf, "inf")]}),
    T.infinite_documents: ({"setting": "setting"}, {"setting": OBJECT, "head": [(None, "None"), ("sum", "'sum'")]}),
    topics_training.train: (
        {"start": "values", "batch": "masked", "topics": "topics", "documents": "documents", "learning_rate": 0.1,
         "steps": 1},
        {"start": OBJECT, "batch": OBJECT, "documents": OBJECT, "topics": [*MATRIX[:3], ([0, 1], r"\(2,\)")],
         "steps": COUNT, "learning_rate": RATE, "at": [("all", "'all'"), ([1.5], "1.5"), (1, "1"), ([2], "2")],
         "progress": [(1, "1")], "backtracking": NO_BOOL, "optimiser": OBJECT[1:]}),
    T.Blocks: ({"mask_mask": 0.0, "mask_column": 0.0, "mask_row": 0.0, "same_word": 1, "same_topic": np.nan,
                "different_topic": np.float32(0.5)},
               {"same_word": [(None, "None"), ("a", "'a'"), (1j, "1j"), ([1.0], r"\[1.0\]"), (np.eye(2), "array")]}),
    uniform_attention.Moments: ({"M": "I", "C": "I"},
                                {"M": MATRIX, "C": MATRIX, "weight": [(None, "None"), ("a", "'a'")]}),
    Corpus: ({"name": "mine", "vocabulary": ["a", "b"], "tokens": [[0, 1], [1, 0]], "n_documents": 2, "n_left_out": 0,
              "n_words": 4, "n_distinct": 2, "n_covered": 4, "unknown": ""},
             {"name": [(None, "None"), (3, "3")], "tokens": [*MATRIX[:3], ([[0, 2]], "2"), ([[0]], r"\(1, 1\)")],
              "vocabulary": [(None, "None"), ("ab", "'ab'"), (["a"], "1 words"), (["a", 1], "1")]}),
    T.Blocks.of: ({"matrix": "matrix", "setting": "setting"}, {"matrix": MATRIX, "setting": OBJECT}),
    uniform_attention.moments: ({"batch": "masked", "n_vocab": 7}, {"batch": OBJECT, "n_vocab": NO_COUNT}),
    uniform_attention.loss_and_gradient: ({"weights": "values", "moments": "moments"},
                                          {"weights": OBJECT, "moments": OBJECT}),
    topics_text.text_documents: ({"corpus": "corpus"}, {"corpus": OBJECT}),
    topics_text.quantities: ({"weights": "embedded", "documents": "documents"}, {"weights": OBJECT,
                                                                                "documents": OBJECT}),
    Samples.of: ({"sequences": [[0, 1]], "labels": [0]},
                 {"sequences": [*OBJECT[:1], ([1, 2], "sequence 0 must be .* got 1"), *OBJECT[2:4],
                                (np.ones((2, 2)), "integers, got dtype float64"), *OBJECT[5:]],
                  "labels": [(None, "labels"), ("a", "labels"), ([0.5], "integers"), ([2], "2")],
                  "n_vocab": NO_COUNT[1:]}),
    Samples.prefixes: ({"texts": [[0, 1, 0]]},
                       {"texts": [OBJECT[0], *OBJECT[2:4], *OBJECT[5:]], "n_vocab": NO_COUNT[1:],
                        "unknown": COUNT[1:]}),
    N.priority_graphs: ({"samples": "samples"}, {"samples": OBJECT}),
    N.constraints: ({"graphs": "graphs"}, {"graphs": OBJECT}),
    N.graph_svm: ({"graphs": "graphs", "E": "I"}, {"graphs": OBJECT, "E": [*MATRIX[:4], MATRIX[5]]}),
    N.cyclic_subspace: ({"graphs": "graphs", "E": "I"}, {"graphs": OBJECT, "E": [*MATRIX[:4], MATRIX[5]]}),
    N.Split: ({"samples": "samples", "graphs": "graphs"}, {"samples": OBJECT, "graphs": OBJECT, "E": MATRIX[1:4]}),
    N.soft_component: ({"split": "split"}, {"split": OBJECT}),
    N.residual: ({"split": "split", "W_svm": "W_svm", "W_fin": "W_fin"},
                 {"split": OBJECT, "W_svm": MATRIX, "W_fin": MATRIX}),
    N.Automaton.fit: ({"samples": "samples"}, {"samples": OBJECT, "E": MATRIX[1:4]}),
    N.PriorityLaw: ({"rank": [[0, 1], [1, 0]]},
                    {"rank": [*MATRIX[:3], (np.ones((2, 3), int), r"\(2, 3\)"), *MATRIX[4:]], "odds": MATRIX[1:]}),
    N.PriorityLaw.random: ({"n_vocab": 4}, {"n_vocab": NO_COUNT, "n_classes": COUNT, "rng": NO_RNG}),
    N.random_samples: ({"n_samples": 2, "length": 2, "n_vocab": 3},
                       {"n_samples": NO_COUNT, "length": COUNT, "n_vocab": NO_COUNT, "rng": NO_RNG}),
    N.unseen_contexts: ({"sequences": [[0, 1]], "n_contexts": 1, "length": 2, "n_vocab": 3},
                        {"sequences": [OBJECT[0], *OBJECT[2:4]], "n_contexts": NO_COUNT, "length": COUNT,
                         "n_vocab": COUNT, "rng": NO_RNG}),
    N.losses.loss_and_gradient: ({"weights": "last", "samples": "samples"},
                                 {"weights": OBJECT, "samples": OBJECT,
                                  "loss": [(None, "None"), ("cubic", "'cubic'"), (["log"], "log")]}),
    N.losses.attention: ({"weights": "last", "samples": "samples"}, {"weights": OBJECT, "samples": OBJECT}),
    N.losses.context_attention: ({"weights": "last", "contexts": [[0, 1]]},
                                 {"weights": OBJECT, "contexts": [(None, "None"), ("a", "'a'"), ([3], "3"),
                                                                  ([[9]], "9"), ([[]], "non-empty")]}),
    N.training.train: ({"start": "last", "automaton": "automaton", "mode": "descent", "steps": 1},
                       {"start": OBJECT, "automaton": OBJECT, "steps": COUNT, "learning_rate": RATE[1:],
                        "mode": [(None, "None"), ("fast", "'fast'")], "progress": [(1, "1")],
                        "loss": [(None, "None"), ("cubic", "'cubic'; it must be one of log")],
                        "at": [("all", "'all'"), ([1.5], "1.5"), (1, "1")]}),
    N.training.record: ({"step": 0, "loss": 1.0, "weights": "factors", "automaton": "automaton"},
                        {"weights": OBJECT, "automaton": OBJECT}),
    N.training.smoothness: ({"split": "split"}, {"split": OBJECT}),
    FactoredWeights: ({"W_K": "I", "W_Q": "I"}, {"W_K": MATRIX[1:3], "W_Q": MATRIX[1:3], "E": MATRIX[1:3]}),
    FactoredWeights.gaussian: ({"n_vocab": 4, "scale": 0.1},
                               {"n_vocab": NO_COUNT[1:], "attention_width": NO_COUNT[1:], "rng": NO_RNG,
                                "scale": NOT_NEGATIVE, "E": [(np.eye(3), "give n_vocab .* one of the two")]}),
    FactoredWeights.of: ({"weights": "last"}, {"weights": OBJECT}),
    nuclear_svm: ({"graphs": "graphs", "E": "I"}, {"graphs": OBJECT, "E": [*MATRIX[:4], MATRIX[5]]}),
    whole_factor_path: ({"samples": "samples", "strengths": [0.1]},
                        {"samples": OBJECT, "strengths": STRENGTHS, "E": MATRIX[1:4]}),
    whole_ridge_path: ({"samples": "samples", "strengths": [0.1]},
                       {"samples": OBJECT, "strengths": STRENGTHS, "E": MATRIX[1:4]}),
    whole_split_path: ({"split": "split", "W_fin": "W_fin", "strengths": [1.0]},
                       {"split": OBJECT, "W_fin": MATRIX, "strengths": STRENGTHS}),
    equicorrelated: ({"n_vocab": 4, "cosine": 0.3},
                     {"n_vocab": NO_COUNT, "cosine": [*RATE, (1.0, "1; it must be below 1")]}),
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


@pytest.mark.parametrize("function", [function for function in CALLS if function is not minitx.load],
                         ids=lambda function: function.__qualname__)
def test_the_calls_that_are_spoilt_are_right(function):
    function(**given(CALLS[function][0]))


# ------------------------------------------------------------------------------------------------- calls one by one


class Nothing(OneHotWeights):
    """A parametrisation whose pullback forgets to return."""

    def pullback(self, gradient):
        gradient.parameters()


class Tables(OneHotWeights):
    """A parametrisation whose circuits are a list."""

    def circuits_for(self, tokens):
        return [self.W]


def descend(**settings):
    return minitx.descend(right("weights"), right("batch"), **{"learning_rate": 0.1, "steps": 2, **settings})


BATCH = {"tokens": [[0, 1]], "targets": [[1, 0]]}
NAN = np.full((4, 4), np.nan)
ROWS = [
    # parametrisations
    (lambda: minitx.loss_and_gradient(Nothing.zeros(4, 3), right("batch")),
     TypeError, r"pullback\(gradient\) returns is N"),
    (lambda: minitx.loss_and_gradient(Tables.zeros(4, 3), right("batch")),
     TypeError, r"circuits\(\) returns is \[|a list"),
    (lambda: minitx.testing.check_gradient(Nothing.zeros(4, 3), right("batch")), TypeError, "returns is None"),
    (lambda: minitx.testing.check_gradient(right("weights"), right("batch"),
                                           loss=lambda *given: minitx.loss_and_gradient(*given)[0]),
     TypeError, r"loss cannot take complex weights.*plain_loss\(weights.circuits"),
    (lambda: minitx.loss_and_gradient(None, right("batch")),
     TypeError, "weights is None; it must be of the type Param"),
    (lambda: minitx.loss_and_gradient([1], right("batch")), TypeError, r"weights is \[1\].*OneHotWeights.zeros"),
    (lambda: minitx.attention_and_output(np.eye(3), right("batch")), TypeError, "weights is an array"),
    (lambda: minitx.gradient_terms(right("embedded"), right("batch")), TypeError, "weights is an EmbeddedWeights"),
    (lambda: right("weights").pullback(None), TypeError, "gradient is None; it must be of the type Circuits"),
    (lambda: right("embedded").pullback(right("weights")), TypeError, "gradient is a OneHotWeights"),
    (lambda: right("last").pullback([1]), TypeError, r"gradient is \[1\]"),
    (lambda: right("weights").astype("float16"), TypeError, "dtype is 'float16'; it must be float64 or float32"),
    (lambda: right("weights").astype(int), TypeError, "dtype is the class int"),
    (lambda: OneHotWeights.zeros(3, 2, dtype="abc"), TypeError, "dtype is 'abc'"),
    (lambda: OneHotWeights([[1.0], [1.0, 2.0]], np.eye(2), np.eye(2), np.zeros(2)), ValueError, "different lengths"),
    (lambda: OneHotWeights(np.eye(2), np.eye(3), np.eye(2), np.zeros(2)), ValueError, r"V has shape \(3, 3\)"),
    (lambda: OneHotWeights("W", np.eye(2), np.eye(2), np.zeros(2)), TypeError, "W_O must be an array of float64"),
    (lambda: Circuits(None, [[1.0], [1.0, 2.0]], None, None, None), ValueError, "ov is .* different lengths"),
    (lambda: minitx.loss_and_gradient(Circuits(None, None, None, None, None), right("batch")),
     ValueError, "ov is None"),
    (lambda: minitx.loss_and_gradient(Circuits(None, NAN, None, None, None), right("batch")), ValueError, "inf or nan"),
    (lambda: OneHotWeights.zeros(10**6, 4), ValueError, "1,000,000 x 1,000,000 numbers"),
    (lambda: EmbeddedWeights.gaussian(5, W_E=1.0, width=10**10), ValueError, "10,000,000,000 x 5"),
    # batches
    (lambda: Batch([[0, 1]], [[1, 0]], [[1j, 1]]), TypeError, "weight must be real numbers, got dtype complex128"),
    (lambda: Batch([[0, 1]], [[1, 0]], "all"), TypeError, "weight must be real numbers, got 'all'"),
    (lambda: Batch([[0, 1]], [[1, 0]], [[np.inf, 1]]), ValueError, "1 values of weight are not finite"),
    (lambda: Batch([[0, 1]], [[1, 0]], mass=[[1j, 1]]), TypeError, "mass must be real numbers"),
    (lambda: Batch([[0, 1]], [[1, 0]], np.ones(3)), ValueError, r"tokens have shape \(1, 2\) but weight \(3,\)"),
    (lambda: Batch([[0, 1], [0]], [[1, 0]]), ValueError, "tokens is .* different lengths"),
    (lambda: Batch("ab", "ba"), TypeError, "tokens must be integers, got 'ab'"),
    (lambda: Batch(None, [[0]]), TypeError, "tokens must be integers, got None"),
    (lambda: Batch([[0.5]], [[0]]), TypeError, "tokens must be integers, got dtype float64"),
    (lambda: Batch([[2**40]], [[0]]), ValueError, "below 2"),
    (lambda: Batch(np.array([[2**64 - 1]], np.uint64), [[0]]), ValueError, "below 2"),
    (lambda: Batch([0, 1], [1, 0]), ValueError, "2-dimensional"),
    (lambda: Batch(**BATCH, head="softmax"), ValueError, "head is 'softmax'; it must be one of cross_entropy"),
    (lambda: Batch(**BATCH, head=["log"]), ValueError, r"head is \['log'\]"),
    (lambda: Batch(**BATCH, causal="yes"), TypeError, "causal is 'yes'; it must be True or False"),
    (lambda: Batch(**BATCH, lengths=[3]), ValueError, "lengths must be 1 numbers from 1 to 2"),
    (lambda: right("batch").take([9]), ValueError, r"rows of the batch are 0 to 1, got \[9\]"),
    (lambda: right("batch").take("all"), ValueError, "rows of the batch are 0 to 1, got 'all'"),
    (lambda: right("batch").take(1.5), ValueError, "got 1.5"),
    (lambda: right("batch").take([[0], [0, 1]]), ValueError, "rows of the batch"),
    (lambda: right("batch").require_vocabulary("4"), ValueError, "n_vocab is '4'"),
    # corpora
    (lambda: minitx.load_corpus(None, n_vocab=5, length=2), TypeError, "path is None; it must be the name of one text"),
    (lambda: minitx.load_corpus("no.txt", n_vocab=5, length=2), FileNotFoundError, "there is no file no.txt"),
    (lambda: minitx.load_corpus(".", n_vocab=5, length=2), ValueError, "is a folder"),
    (lambda: minitx.load_corpus("a\0b", n_vocab=5, length=2), ValueError, "NUL"),
    (lambda: minitx.load_corpus(__file__, n_vocab=5, length=2, layout="pages"), ValueError, "layout is 'pages'"),
    (lambda: minitx.load_corpus(__file__, n_vocab=5, length=2, progress=1), TypeError, "progress is 1"),
    (lambda: minitx.load_corpus(__file__, n_vocab=5, length=2, unknown=["omit"]), ValueError, "unknown is"),
    (lambda: right("corpus").id(None), ValueError, "None is not among the 4 words"),
    # theories
    (lambda: A.bounds(steps=1, learning_rate=0.1, length=3, n_vocab=9, init_scale=np.nan),
     ValueError, "init_scale is nan"),
    (lambda: A.basis.scores(right("batch"), "ov"), TypeError, "ov must be real numbers"),
    (lambda: A.basis.scores(right("batch"), np.ones((4, 3))),
     ValueError, r"ov has shape \(4, 3\); it must be a matrix"),
    (lambda: A.basis.scores(right("batch"), np.eye(2)), ValueError, "the vocabulary has 2 tokens"),
    (lambda: A.first_exceeds("abc", {}), TypeError, "steps is 'abc'"),
    (lambda: A.first_exceeds([1.5], {}), ValueError, "a step is 1.5"),
    (lambda: A.first_exceeds([1, 2], None), TypeError, "norms is None; it must be a dict"),
    (lambda: A.first_exceeds([2, 1], {}), ValueError, "steps must ascend"),
    (lambda: A.first_exceeds([1], {"W": {"leading": [1.0, 2.0]}}), ValueError, "one norm of every term"),
    (lambda: A.first_exceeds([1], {"W": {"saturation": [1.0]}}), ValueError, "one norm of every term"),
    (lambda: right("expansion").coefficient(3, steps=5), ValueError, "order is 3, but the expansion has orders 1 to 2"),
    (lambda: right("expansion").coefficient(1, steps=-1), ValueError, "steps is -1"),
    (lambda: right("expansion").coefficient(1, steps=10**13), ValueError, "at most 1,000,000,000,000"),
    (lambda: right("expansion").weights(steps=5, learning_rate=1e200), ValueError, "learning_rate is 1e.200"),
    (lambda: right("expansion").radius(0), ValueError, "share is 0"),
    (lambda: A.expand(right("batch"), 20000, order=50), ValueError, "an expansion to order 50: a table of"),
    (lambda: A.TermRecorder([1]), TypeError, "batch is"),
    (lambda: A.attribution(right("statistics"), right("batch"), "bigram", 4, 0), ValueError, "row is 4; .* most 3"),
    (lambda: A.attribution(right("statistics"), right("batch"), "position", 1, 0), ValueError,
     "column is 0, but position is a vector of 3 entries"),
    (lambda: A.attribution(right("weights"), right("batch"), "bigram", 1, 0), ValueError,
     "parameter is 'bigram'; it must be one of W_O, V, W, P"),
    (lambda: A.attribution(right("statistics"), Batch([[1, 1, 2]], [[0, 0, 0]]), "bigram", 1, 0), ValueError,
     "the statistics are not those of this batch"),
    (lambda: A.attribution(replace(right("statistics"), n_vocab=9), right("batch"), "bigram", 1, 0), ValueError,
     "the statistics are of 4 tokens of a vocabulary of 9"),
    (lambda: A.attribution(replace(right("statistics"), attention=None), right("batch"), "attention", 1, 0), ValueError,
     "these statistics have no scores"),
    (lambda: A.attribution(right("statistics"), right("batch"), "bigram", 1, 0).strongest(0), ValueError, "k is 0"),
    (lambda: A.attribution(right("statistics"), right("batch"), "bigram", 1, 0).strongest(corpus=right("corpus")),
     ValueError, "corpus is documents, whose windows are not the sequences of the batch"),
    (lambda: A.attribution(right("layers"), right("batch"), "W_O", 1, 0), TypeError, "of is a LayeredWeights"),
    (lambda: replace(right("statistics"), bigram=np.eye(3)),
     ValueError, r"bigram has shape|interchangeability has shape \(4, 4\); it must be \(V, V\) with V = 3"),
    (lambda: replace(right("statistics"), position="near"), TypeError, "position must be real numbers, got 'near'"),
    (lambda: replace(right("reduction"), weight=np.ones(2)), ValueError, r"weight has shape \(2,\); it must be \(n\)"),
    (lambda: replace(right("reduction"), tokens=None), TypeError, "tokens is None"),
    (lambda: replace(right("samples"), starts=[0, 1]), ValueError, r"starts has shape \(2,\); it must be \(n\+1\)"),
    (lambda: replace(right("samples"), label_at=[0.5]), TypeError, "label_at must be integers"),
    (lambda: T.TopicModel(2, 3, 8, tau=1, alpha=0.1), ValueError, "give exactly one"),
    (lambda: T.TopicModel(2, 3, 8, alpha="a"), ValueError, "alpha is 'a'"),
    (lambda: T.TopicModel(2, 3, 8, alpha=[[1.0], [1.0, 2.0]]), ValueError, "alpha is .* different lengths"),
    (lambda: T.TopicModel(2, 3, 8, alpha=[1j, 1]), TypeError, "alpha must be real numbers"),
    (lambda: T.TopicModel(2, topic_word="words", tau=1), TypeError, "topic_word must be real numbers, got 'words'"),
    (lambda: T.TopicModel(2, topic_word=[[0.5, 0.5], [1]], tau=1), ValueError, "different lengths"),
    (lambda: T.TopicModel(2, 3, [8, "9"], tau=1), ValueError, "length is '9'"),
    (lambda: right("setting").documents(0), ValueError, "n_documents is 0"),
    (lambda: right("setting").documents(10**12), ValueError, "the documents: a table of"),
    (lambda: right("setting").documents(2, rng="a"), TypeError, "rng is 'a'"),
    (lambda: T.TopicModel(2, 3, 10**20, tau=1).documents(1), ValueError, "table of 1 x 100,000,000,000,000,000,000"),
    (lambda: T.attention_profile(T.TopicModel(2, 3, 10**20, tau=1), 2.0, 1.0), ValueError, "table of"),
    (lambda: T.optimal_value(T.TopicModel(10**6, 10**6, 8, tau=1)).matrix(T.TopicModel(10**6, 10**6, 8, tau=1)),
     ValueError, "a matrix of 1,000,000,000,001 tokens"),
    (lambda: T.attention_loss(right("setting"), np.ones(2), np.ones(3)),
     ValueError, r"alpha has shape \(2,\) and beta"),
    (lambda: right("blocks").matrix(None), TypeError, "setting is None"),
    (lambda: right("blocks").sectors("law"), TypeError, "setting is 'law'"),
    (lambda: T.pair_averages("ab", [0, 1]), TypeError, "real numbers"),
    (lambda: topics_text.quantities(EmbeddedWeights(W_V=np.eye(7)), right("documents")),
     ValueError, "no embeddings W_E"),
    (lambda: topics_text.content_words("abc"), TypeError, "single string"),
    (lambda: topics_text.dominant_topics(np.ones((2, 3)), np.ones(3), 0.5), ValueError, r"\(2, 3\) and share \(3,\)"),
    (lambda: Samples.of([[10**12, 0]], [0]), ValueError, "1,000,000,000,001 tokens"),
    (lambda: Samples.of([[0, 1]], [[0], [1, 2]]), ValueError, "labels must be integers"),
    (lambda: Samples.of([[0, [1]]], [0]), ValueError, "sequence 0 must be a non-empty"),
    (lambda: right("automaton").predict(None), ValueError, "context must be a non-empty"),
    (lambda: right("automaton").predict([9]), ValueError, r"token ids must lie in \[0, 4\)"),
    (lambda: right("automaton").predict([0, 1], strict="no"), TypeError, "strict is 'no'"),
    (lambda: right("automaton").predict([0, 1], path=1), TypeError, "path is 1"),
    (lambda: right("automaton").generate([0, 1], "three"), ValueError, "length is 'three'"),
    (lambda: right("automaton").generate([0, 1], 2, rng="a"), TypeError, "rng is 'a'"),
    (lambda: N.Split(right("samples"), {}), ValueError, "give priority_graphs"),
    (lambda: N.PriorityGraph.of("k", [0, 1], [[0, 1]]), ValueError, "last is 'k'"),
    (lambda: N.PriorityGraph.of(0, [0.5], [[0, 1]]), TypeError, "tokens must be integers"),
    (lambda: N.PriorityGraph.of(0, [0, 1], [0, 1, 0]), ValueError, r"edges have shape \(3,\)"),
    (lambda: N.constraints({0: "graph"}), TypeError, r"graphs\[0\] is 'graph'"),
    (lambda: right("split").subspace.project(np.ones(3)),
     ValueError, r"W has shape \(3,\); it must be a matrix of 4 rows"),
    (lambda: right("split").cyclic_loss(np.eye(3)), ValueError, r"W has shape \(3, 3\)"),
    (lambda: right("split").excess("W"), TypeError, "W must be real numbers"),
    (lambda: list(N.path.split_path(right("split"), right("W_fin"), [0.0])), ValueError, "a strength is 0.0"),
    (lambda: right("law").distribution("ab"), TypeError, "contexts must be integers"),
    (lambda: right("law").distribution([[9]]), ValueError, "a context holds 9"),
    (lambda: right("law").samples(10**12, 5), ValueError, "table of"),
    (lambda: right("law").samples(2, 5, rng=[1]), TypeError, r"rng is \[1\]"),
    (lambda: N.losses.loss_and_gradient(right("last").astype(complex), right("samples")), TypeError, "complex"),
    (lambda: N.losses.loss_and_gradient(right("headed"), right("samples")),
     ValueError, "a head C, but only the losses cross_entropy and squared_error have one"),
    (lambda: N.losses.loss_and_gradient(right("factors"), right("samples")), TypeError, "weights is a FactoredWeights"),
    (lambda: N.losses.loss_and_gradient(LastTokenWeights(np.eye(4), C=NAN), right("samples"), "cross_entropy"),
     ValueError, "C: an entry is inf or nan"),
    (lambda: N.losses.loss_and_gradient(LastTokenWeights(np.eye(4), C=1e200 * np.eye(4)), right("samples"),
                                        "squared_error"), FloatingPointError, "overflow"),
    (lambda: LastTokenWeights(np.eye(4), C=np.eye(3)), ValueError, r"C has shape \(3, 3\)"),
    (lambda: FactoredWeights(np.eye(4), np.ones((4, 3))), ValueError, r"W_Q has shape \(4, 3\)"),
    (lambda: FactoredWeights(np.eye(4), np.eye(4), np.eye(3)), ValueError, r"E has shape \(3, 3\)|\(4, 4\)"),
    (lambda: FactoredWeights(None, np.eye(4)), TypeError, "W_K must be an array of float64"),
    (lambda: FactoredWeights.gaussian(scale=0.1, E="abc"), TypeError, "E must be real numbers, got .abc."),
    (lambda: FactoredWeights.of(LastTokenWeights(NAN)), ValueError, "W: an entry is inf or nan"),
    (lambda: right("factors").chain(np.eye(3)), ValueError, r"dW has shape \(3, 3\)"),
    (lambda: right("factors").chain("W"), ValueError, r"dW has shape \(\)"),
    (lambda: right("factors").pullback(None), TypeError, "gradient is None"),
    (lambda: minitx.loss_and_gradient(right("factors"), right("masked")), ValueError, "4|masked|tokens|causal"),
    (lambda: N.training.train(FactoredWeights(NAN, NAN), right("automaton"), mode="descent", steps=1),
     ValueError, "an entry is inf or nan"),
    (lambda: N.training.train(right("factors"), right("automaton"), mode="split", steps=1),
     ValueError, r"give start.product\(\)"),
    (lambda: N.training.train(right("headed"), right("automaton"), mode="descent", steps=1),
     ValueError, "a head C, but only"),
    (lambda: N.training.train(right("headed"), right("automaton"), mode="split", steps=1), ValueError, "a head C"),
    (lambda: N.training.train(right("last"), right("automaton"), mode="accelerated", steps=1, loss="square"),
     ValueError, "loss is 'square'; use mode 'normalised', or loss 'log'"),
    (lambda: N.training.train(LastTokenWeights.gaussian(5, scale=0.1, rng=0), right("automaton"), mode="descent",
                              steps=1), ValueError, "fit it with E=start.E"),
    (lambda: N.training.descend_W(right("last"), right("samples"), None, learning_rate=0.1, steps=1),
     TypeError, "objective is None"),
    (lambda: equicorrelated(10**6, 0.3), ValueError, "the embeddings: a table of"),
    # optimisers
    (lambda: Optimiser(), TypeError, r"give minitx.GradientDescent\(\), .* or minitx.AdamW\(\)"),
    (lambda: Adam().step({"W": np.eye(2)}, {"V": np.eye(2)}, 0.1), ValueError, "there is no V among the weights"),
    (lambda: Adam().step({"W": np.eye(2)}, {"W": np.eye(3)}, 0.1), ValueError, r"\(3, 3\)"),
    (lambda: Adam().step({}, right("weights"), 0.1), TypeError, "slopes is a OneHotWeights"),
    (lambda: descend(optimiser=Adam(memory={"W_O": (np.eye(4), np.eye(4))}, steps=1)), ValueError, "remembers a run"),
    (lambda: descend(optimiser=Adam(), normalised=True), ValueError, "normalised is for gradient descent"),
    (lambda: A.record_terms(right("weights"), right("batch"), learning_rate=0.1, steps=1, optimiser=Adam(),
                            leading=lambda step: right("leading")), ValueError, "leave out leading beside Adam"),
    (lambda: A.record_terms(right("weights"), right("batch"), learning_rate=0.1, steps=1, optimiser="adam",
                            leading=lambda step: right("leading")), TypeError, "optimiser is 'adam'"),
    (lambda: reduced.descend(right("weights"), right("batch"), learning_rate=0.1, steps=1, tolerance=0.1,
                             optimiser=Adam()), ValueError, "leave optimiser out"),
    (lambda: topics_training.train(right("values"), right("masked"), topics=right("topics"), learning_rate=0.1,
                                   documents=right("documents"), steps=1, optimiser=Adam(), backtracking=True),
     ValueError, "backtracking"),
    (lambda: two_stages.MovementRecorder()(0, 1.0, np.eye(2)), TypeError, "weights is an array"),
    # the best attention, and the model of leading terms
    (lambda: T.expected_attention_loss(right("setting"), 0.0, 1.0), ValueError, "alpha is 0"),
    (lambda: T.expected_attention_loss(right("setting"), np.ones(2), np.ones(3)),
     ValueError, r"alpha has shape \(2,\) and beta"),
    (lambda: T.best_attention(T.TopicModel(2, 3, 10**6, tau=1)), ValueError, "table of"),
    (lambda: T.best_attention(T.TopicModel(2, 3, 8, tau=1, loss="per_document")), ValueError, "give loss='pooled'"),
    (lambda: A.explained(right("weights"), right("weights"), right("masked")), ValueError, "next|causal|cross"),
    (lambda: A.explained(right("weights"), right("leading"), Batch([[9]], [[0]])), ValueError, "9|vocabulary"),
    (lambda: A.explained(right("weights"), OneHotWeights(NAN, NAN, NAN, np.zeros(3)), right("batch")),
     ValueError, "inf or nan"),
    # descent
    (lambda: descend(keep="all"), TypeError, "keep is 'all'"), (lambda: descend(keep=[9]), ValueError, "keep holds 9"),
    (lambda: descend(keep=[1.5]), ValueError, "keep holds 1.5"), (lambda: descend(keep=3), TypeError, "keep is 3"),
    (lambda: descend(frozen="W"), TypeError, "frozen is the string 'W'"),
    (lambda: descend(frozen=["Q"]), ValueError, "frozen names Q, but the weights are W_O, V, W, P"),
    (lambda: descend(callback=1), TypeError, "callback is 1"),
    (lambda: descend(learning_rate=[0.1, "b"]), TypeError, "learning_rate must be real numbers"),
    (lambda: descend(learning_rate=[0.1]), ValueError, "one number for each of the 2 steps"),
    (lambda: descend(learning_rate=lambda step: -step), ValueError, r"learning_rate\(0\) is 0"),
    (lambda: descend(loss_and_gradient=lambda weights, batch: None), TypeError, "returned None; it must return"),
    (lambda: descend(rng={"state": 1}), ValueError, "not the state of a random generator"),
    # the rest
    (lambda: minitx.set_threads("two"), ValueError, "threads is 'two'"),
    (lambda: minitx.set_threads(0), ValueError, "threads is 0"),
    (lambda: minitx.relative_error([1, 2], [1]), ValueError, r"shapes \(2,\) and \(1,\)"),
    (lambda: minitx.agreement(right("weights"), right("embedded")), TypeError, "without P, V, W, W_O"),
    (lambda: minitx.nothing, AttributeError, "no attribute 'nothing'"),
    (lambda: minitx.base.nothing, AttributeError, "no attribute 'nothing'"),
    (lambda: minitx.testing.weights(3), TypeError, "kind is 3; it must be a parametrisation"),
    (lambda: minitx.load("no.npz"), FileNotFoundError, "there is no file no.npz"),
    (lambda: minitx.load("a\0b"), ValueError, "NUL"),
]


@pytest.mark.parametrize(("call", "error", "says"), ROWS)
def test_a_call_that_is_wrong_says_what_it_found_and_what_it_needs(call, error, says):
    wrong(call, error, says)


def test_there_are_rows_enough():
    """The tables may grow, but not shrink."""
    assert len(ROWS) >= 187
    assert len(ROWS) + len(replaced()) >= 1972
