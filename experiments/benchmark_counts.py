"""How fast texts are counted, beside the same work in memory, and how much memory large texts and vocabularies take.

    python experiments/benchmark_counts.py [TEXT] [--quick] [--out DIR]

The texts are TEXT, or the embedded stories, written again and again with shuffled words, so that counts go on growing:
the most frequent words stay, each of the others becomes another word in every repetition. Times are processor times.
Speeds are those of one core, the best of three rounds, all within one process. Memory is the peak of a process of its
own.
"""

import multiprocessing
import resource
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from running import block, command_line, paragraphs, write_down

from minitx import builtin_corpus, load_corpus, set_threads
from minitx.associations import basis, words
from minitx.associations.counts import Counts
from minitx.associations.streaming import count_texts, score_texts
from minitx.data.readers import read_documents
from minitx.data.streams import Texts
from minitx.data.word_table import split_words

LENGTH = 64
STAY = 100  # the most frequent words, which are the same in every repetition
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def name(number):
    """A word of letters, another one for every number."""
    return LETTERS[number % 26] + (name(number // 26 - 1) if number >= 26 else "")


def write_text(path, source, n_words, n_pool):
    """Write about so many words, one document a line; those that do not stay are drawn from a pool of so many."""
    documents = [split_words(text) for text in source]
    found, ids = np.unique([word for document in documents for word in [*document, "\n"]], return_inverse=True)
    order = np.argsort(-np.bincount(ids), kind="stable")
    rng, pool = np.random.default_rng(0), np.array([name(i) for i in range(26, n_pool + 26)], object)
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(max(1, n_words // len(ids))):
            spelled = found.astype(object)
            spelled[order[STAY:]] = pool[(n_pool * rng.random(len(found))**2).astype(int)[STAY:]]
            spelled[found == "\n"] = "\n"
            file.write(" ".join(spelled[ids]))


def shortest(works, rounds):
    """The least processor time of each of ``works``, {name: function}, in seconds; rounds visit all of them in turn."""
    times = {key: [] for key in works}
    for _ in range(rounds):
        for key, work in works.items():
            began = time.process_time()
            work()
            times[key].append(time.process_time() - began)
    return {key: min(found) for key, found in times.items()}


def speeds(path, n_vocab, rounds):
    """{pass: {"streamed", "in memory": tokens a second}} on one core."""
    set_threads(1)
    unread = Texts.of(path, n_vocab=n_vocab, length=LENGTH, layout="lines")
    texts = unread.with_vocabulary()
    counts = count_texts(texts)
    load = partial(load_corpus, path, n_vocab=n_vocab, length=LENGTH, layout="lines")
    corpus = load()
    batch, (pairs, alpha), (Phi, _) = corpus.batch(), *_sums(corpus.batch(), n_vocab)
    seconds = shortest({
        "vocabulary": unread.with_vocabulary, "load": load,
        "counts": lambda: count_texts(texts), "sums": lambda: _sums(batch, n_vocab),
        "scores": lambda: score_texts(texts, counts),
        "sums of scores": lambda: basis.scores(batch, basis.compositions(pairs, alpha, Phi, n_vocab)[1].T),
        "windows only": lambda: Counts.of(corpus.tokens, n_vocab)}, rounds)
    n = counts.totals["tokens"]
    assert counts.totals["documents"] == corpus.n_documents
    load_seconds = seconds["load"]
    memory = {"vocabulary": load_seconds, "counts": load_seconds + seconds["sums"],
              "scores": load_seconds + seconds["sums of scores"], "windows only": seconds["sums"]}
    return {"tokens": n, **{key: {"streamed": n / seconds[key], "in memory": n / memory[key]} for key in memory}}


def _sums(batch, n_vocab):
    """The sums over a batch in memory that counts stand for: (pairs, frequency) and (context, share)."""
    return basis.bigram_counts(batch, n_vocab), basis.context(batch, n_vocab)


def large_text(path, n_vocab):
    """Two passes over a large text."""
    texts = Texts.of(path, n_vocab=n_vocab, length=LENGTH, layout="lines").with_vocabulary()
    return count_texts(texts).totals["tokens"], texts.n_vocab


def large_vocabulary(path, n_vocab, n_tokens):
    """All that is known of the most frequent tokens of a large vocabulary: statistics, and associates of some."""
    texts = Texts.of(path, n_vocab=n_vocab, length=LENGTH, n_tokens=n_tokens, layout="lines").with_vocabulary()
    counts = count_texts(texts)
    statistics = counts.finish(score_texts(texts, counts))
    words.similarity(statistics, range(10))
    return counts.totals["tokens"], texts.n_vocab, counts.coverage


def _alone(connection, function, arguments):
    began = time.process_time()
    result = function(*arguments)
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    connection.send((result, seconds, peak))


def alone(function, *arguments):
    """Result, processor seconds and peak memory in bytes of a function in a process of its own."""
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_alone, args=(there, function, arguments))
    process.start()
    there.close()
    result = here.recv()
    process.join()
    return result


def section(results):
    """The Markdown section about a run."""
    speed, text, wide = results["speed"], results["large text"], results["large vocabulary"]
    rows = [[key, *(f"{speed[key][side] / 1e6:.2f}" for side in ("streamed", "in memory")),
             f"{speed[key]['streamed'] / speed[key]['in memory']:.2f}"]
            for key in ("vocabulary", "counts", "scores", "windows only")]
    return paragraphs(
        "## Texts of any size: speed and memory",
        f"The table gives million tokens per second of processor time on one core, for {speed['tokens']:,} tokens, V = "
        f"{results['vocabulary']:,} and T = {LENGTH}. The column `streamed` is about passes that read the text part by "
        "part, and `in memory` about the functions that do the same for a text in memory: load_corpus for the "
        "vocabulary, and load_corpus followed by sums over its batch in float64 for counts and scores. Both columns of "
        "scores include the product Sigma_B Phi. The last row is about the sums over windows without the reading of "
        "the text.",
        block(["pass ", "streamed", "in memory", "ratio"], rows),
        f"A text of {text['bytes'] / 1e9:.2f} GB ({text['tokens']:,} tokens) was counted in {text['seconds']:.0f} s "
        f"(two passes) with at most {text['peak'] / 1e9:.2f} GB of memory; this is {text['ratio']:.2f} times the time "
        f"of its first half. With V = {wide['vocabulary']:,}, of which the K = {wide['tokens told apart']:,} most "
        f"frequent tokens are told apart, all statistics of {wide['tokens']:,} tokens and the associates of ten words "
        f"took {wide['seconds']:.0f} s with at most {wide['peak'] / 1e9:.2f} GB; {wide['coverage']:.1%} of the pairs "
        "of neighbours consist of these K tokens.")


def main():
    """Run the benchmark."""
    arguments = command_line("benchmark_counts", __doc__, text="the text whose words are shuffled",
                             quick="texts of a megabyte and small vocabularies; the numbers mean nothing")
    if arguments.text:
        source = list(read_documents(arguments.text))
    else:
        corpus = builtin_corpus("stories")
        source = [" ".join(corpus.vocabulary[i] for i in row) for row in corpus.tokens]
    quick = arguments.quick
    n_vocab, wide_vocab, n_tokens = (300, 1000, 200) if quick else (3000, 50_000, 8000)
    with TemporaryDirectory() as folder:
        small, half, large, wide = (Path(folder) / f"{key}.txt" for key in ("small", "half", "large", "wide"))
        write_text(small, source, 150_000 if quick else 4_000_000, 20_000)
        write_text(half, source, 150_000 if quick else 142_500_000, 20_000)
        write_text(large, source, 300_000 if quick else 285_000_000, 20_000)
        write_text(wide, source, 150_000 if quick else 10_000_000, 120_000)
        _, first, _ = alone(large_text, half, n_vocab)
        (tokens, _), seconds, peak = alone(large_text, large, n_vocab)
        found = {"bytes": large.stat().st_size, "tokens": tokens, "seconds": seconds, "peak": peak,
                 "ratio": seconds / first}
        (tokens, wide_vocab, coverage), seconds, peak = alone(large_vocabulary, wide, wide_vocab, n_tokens)
        results = {"vocabulary": n_vocab, "speed": speeds(small, n_vocab, 1 if quick else 3), "large text": found,
                   "large vocabulary": {"vocabulary": wide_vocab, "tokens told apart": n_tokens, "tokens": tokens,
                                        "seconds": seconds, "peak": peak, "coverage": coverage}}
    write_down("benchmark_counts", arguments, results, section)


if __name__ == "__main__":
    main()
