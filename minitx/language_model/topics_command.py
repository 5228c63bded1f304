"""``minitx topics TEXT --embeddings MODEL``: topics of a text beside the embeddings and attention of a trained model.

Topics are fitted to the text as for ``minitx topics TEXT``; nothing is trained. Words that are whole tokens of the
model have a row of its embeddings, and attention between them is that of its own forward pass over the text.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitx.base.command import Outcome, run_command
from minitx.base.console import progress_bar, read_with_bar
from minitx.base.options import Options as CommonOptions
from minitx.base.options import option, read_options
from minitx.base.tables import table
from minitx.data.corpus import load_corpus
from minitx.data.tokenizers import Tokenizer
from minitx.language_model.forward import Transformer
from minitx.language_model.reading import read_model, read_tokenizer
from minitx.topics import figures as plots
from minitx.topics import page, text
from minitx.topics.averages import (
    Averages,
    PairTable,
    PermutationTest,
    cosine_matrix,
    gram,
    pair_averages,
    permutation_test,
)
from minitx.topics.command import FILES, fitting
from minitx.topics.command_text import averages_table, topics_table, verdict

WINDOWS = 200  # windows of the text over which attention is averaged, at most


@dataclass(frozen=True, kw_only=True)
class Options(CommonOptions):
    """The configuration of a run; ``results.json`` keeps it. Help and meaning are those of ``minitx topics TEXT``."""

    next_word = 1
    command = "topics"
    trains = False
    embeddings: str = option("", "folder of a pre-trained model", metavar="MODEL")
    text: str = option("", "text to read", positional=True, metavar="TEXT")
    vocabulary: int = option(800, "number of words in the vocabulary", least=3, quick=300)
    length: int = option(128, "tokens of a document and of a window", least=2, quick=64)
    topics: int = option(10, "number of topics fitted to the text", least=2, quick=5)
    threshold: float = option(0.5, "a word belongs to a topic that is at least so probable", is_probability=True,
                              above_zero=True)
    stop_words: bool = option(True, "leave English stop words out of the topics")
    exclude: str = option("", "comma-separated words to leave out of the topics as well")
    permutations: int = option(999, "shuffles of the words' topics in each permutation test", least=1, quick=199)
    out: str = option("minitx-topics", "folder for figures, results.json and index.html", metavar="DIR")


def main(parsed: argparse.Namespace) -> int:
    """Run the command from parsed arguments; the exit status is that of :func:`minitx.base.command.run_command`."""
    typed = {name: value for name, value in vars(parsed).items() if name != "command"}
    if not typed.get("text"):
        raise ValueError(f"--embeddings is {typed['embeddings']}, but no TEXT was typed; its topics are needed")
    typed = fitting(typed, Options, "--embeddings, which trains nothing", "leave --embeddings out")
    return run_command(read_options(Options, typed), typed, run, FILES)


def run(options: Options, say: Callable[[str], None]) -> Outcome:
    """Do the job; ``say(line)`` receives what is to be printed, as it becomes known.

    The keys of results.json, besides those of every command (:func:`minitx.base.report.write_json`):

    - ``model``: its name. ``words``: {topic: the words of it that are whole tokens of the model}.
    - ``averages``, ``tests``: {quantity: :class:`minitx.topics.averages.Averages`, ...PermutationTest}.

    Raises
    ------
    ValueError, FileNotFoundError
        The text or the model cannot be read, a package is missing, fewer than two topics have two whole words.
    """
    text.content_words(())  # fails where scikit-learn is not installed
    model, tokenizer = read_model(options.embeddings), read_tokenizer(options.embeddings)
    corpus = read_with_bar(load_corpus, options.text, n_vocab=options.vocabulary, length=options.length - 1)
    documents, _ = text.text_documents(corpus)
    topics = text.word_topics(documents, corpus.vocabulary, n_topics=options.topics, threshold=options.threshold,
                              stop_words=options.stop_words, exclude=map(str.strip, options.exclude.split(",")),
                              rng=options.seed)
    say(corpus.summary() + "\n\n" + topics_table(topics))
    word_of = {word: topic for topic, words in enumerate(topics.words) for word in words}
    ids = {word: token for word in word_of if (token := whole_token(tokenizer, word)) is not None}
    labels = np.array([word_of[word] for word in ids])
    say(f"\nmodel       {model.name}: {len(ids)} of these {len(word_of)} words are whole tokens")
    if sum(np.bincount(labels, minlength=2) > 1) < 2:
        raise ValueError(f"{len(ids)} words of topics are whole tokens of {model.name}; two topics with two such words "
                         "are needed: raise --vocabulary, or lower --threshold or --topics")
    windows = load_corpus(options.text, tokenizer=tokenizer, length=options.length - 1, n_windows=WINDOWS).tokens
    tables = embedding_tables(model, list(ids.values()))
    with progress_bar(total=model.architecture.n_layers, unit="layer") as bar:
        tables |= attention_tables(model, list(ids.values()), windows, bar.update)
    averages = {name: pair_averages(found, labels) for name, found in tables.items()}
    if not all(found.n_same_topic and found.n_different_topic for found in averages.values()):
        say(f"attention is left out: in {len(windows)} windows such words of one topic, or of two, never meet")
        tables = {name: found for name, found in tables.items() if found.count.all()}
    tests = {name: permutation_test(found, labels, n_permutations=options.permutations, rng=options.seed)
             for name, found in tables.items()}
    averages = {name: averages[name] for name in tests}
    return _outcome(options, say, model.name, topics.words, ids, averages, tests)


def whole_token(tokenizer: Tokenizer, word: str) -> int | None:
    """The id of ``word`` within a sentence, if it is one token, with its space before it or, else, alone."""
    for written in (f" {word}", word):
        if len(found := tokenizer.encode(written)) == 1 and tokenizer.decode(found.tolist()).strip() == word:
            return int(found[0])
    return None


def embedding_tables(model: Transformer, ids: list[int]) -> dict[str, PairTable]:
    """Products and cosines of the embeddings of n tokens, (n, n), and cosines after their mean is taken from them.

    What all tokens share makes all cosines large; without it they tell words apart.
    """
    E = model.embedding(np.array(ids)).T.astype(np.float64)  # (d, n)
    matrices = {"embedding products": gram(E), "embedding cosines": cosine_matrix(E),
                "cosines, mean token removed": cosine_matrix(E - E.mean(axis=1, keepdims=True))}
    return {name: PairTable.of_matrix(matrix) for name, matrix in matrices.items()}


def attention_tables(model: Transformer, ids: list[int], windows: NDArray[np.int32],
                     done: Callable[[], Any]) -> dict[str, PairTable]:
    """Of each layer, the attention between n tokens, mean over heads, times the positions that share it: 1 is uniform.

    ``windows`` (N, T) are token ids of the text. Row = token that attends, column = token attended, at the same or an
    earlier position. ``done()`` is called after each layer.
    """
    n, number = len(ids), np.full(model.architecture.n_vocab, -1)
    number[ids] = np.arange(n)
    word = number[windows]
    known = (word >= 0)[:, :, None] & (word >= 0)[:, None, :] & np.tri(windows.shape[1], dtype=bool)
    pair = (word[:, :, None] * n + word[:, None, :])[known]  # of a query and a key position
    count = np.bincount(pair, minlength=n * n).reshape(n, n).astype(float)
    positions = np.arange(1, windows.shape[1] + 1)[:, None]
    tables = {}
    for state in model.states(windows):
        relative = state.pattern.mean(axis=1) * positions
        total = np.bincount(pair, relative[known], n * n).reshape(n, n).astype(float)
        tables[f"attention, layer {state.number}"] = PairTable(total, count)
        done()
    return tables


def _outcome(options: Options, say: Callable[[str], None], name: str, words: list[list[str]], ids: dict[str, int],
             averages: dict[str, Averages], tests: dict[str, PermutationTest]) -> Outcome:
    kept = {topic: [word for word in group if word in ids] for topic, group in enumerate(words)}
    say(table(("topic", "whole tokens "), [(str(topic), " ".join(group[:10])) for topic, group in kept.items()]))
    say(f"\naverages over pairs of words; p and z are of {options.permutations} shuffles of the words' topics\n"
        + averages_table(averages, tests))
    say("Attention is the mean over heads, times the number of positions that share it: 1 is uniform.")
    drawn = {quantity: (test.null, test.difference, test.p_value) for quantity, test in list(tests.items())[:3]}
    figure = plots.permutation_histogram(drawn, title=f"{name}: words of one topic against words of different topics",
                                         xlabel="same topic minus different topic")
    results = {"model": name, "words": kept, "averages": averages, "tests": tests}
    caption = "Same topic minus different topic, observed and with the topics of the words shuffled."
    return Outcome(f"minitx topics: embeddings of {name}", results, {"permutations.png": (figure, caption)},
                   inside=page.inside, found=verdict(tests))
