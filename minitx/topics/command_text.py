"""``minitx topics TEXT``: topics of a real text beside what one attention layer learns from it (Li, Li, Risteski 2023).

Windows of the text are documents, and topics are fitted to the content words of the training documents. Masked language
modelling then trains the embeddings at uniform attention and after them, embeddings kept as they are, the attention:
the two stages of the paper, with cross-entropy loss and tied output.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from minitx.base.checkpoint import Checkpoint
from minitx.base.command import Outcome
from minitx.base.console import progress, read_with_bar, rise
from minitx.base.options import Resumable, option
from minitx.base.tables import number, table
from minitx.data.corpus import Corpus, load_corpus
from minitx.model.circuits import loss_and_gradient
from minitx.model.recording import Run
from minitx.topics import command_text_figures, page, snapshots, text, training
from minitx.topics.averages import (
    Averages,
    PairTable,
    PermutationTest,
    cosine_matrix,
    pair_averages,
    permutation_test,
)
from minitx.topics.documents import Documents, mask_tokens, valid_masking

FIGURES = command_text_figures.NAMES
RECORDED = {"embedding products": ("embeddings", "embedding"), "embedding cosines": ("embeddings", "cosine"),
            "attention": ("attention", "attention")}  # quantity: stage, part of its records
LARGEST = 1e30  # of a learning rate or standard deviation that a user may ask for
COPIES, QUICK_COPIES = 8, 4  # how often each training document is masked anew


@dataclass(frozen=True, kw_only=True)
class Options(Resumable):
    """The options of ``minitx topics TEXT``; an instance is the checked configuration of a run."""

    next_word = 1
    command = "topics"
    quick_note = f"{QUICK_COPIES} masked copies of each document"
    text: str = option("", "text to read: .txt, .jsonl, .json, or .gz of each; without it, documents of known topics",
                       positional=True, metavar="TEXT")
    embeddings: str | None = option(None, "folder of a pre-trained model (GPT-NeoX, GPT-2, Llama): its embeddings and "
                                    "attention are measured, and nothing is trained", metavar="MODEL")
    vocabulary: int = option(800, "number of words in the vocabulary, the most frequent ones; rarer ones become <unk>",
                             least=3, quick=300)
    length: int = option(128, "tokens of a document: each text is cut into windows of so many", least=2, quick=64)
    windows: int | None = option(None, "use at most this many windows, the first ones; all are used when it is not "
                                "given", least=1, quick=300)
    topics: int = option(10, "number of topics fitted to the text", least=2, quick=5)
    threshold: float = option(0.5, "a word belongs to its most probable topic if that has at least this probability, "
                              "given the word; other words belong to no topic", is_probability=True, above_zero=True)
    stop_words: bool = option(True, "leave English stop words out of the topics")
    exclude: str = option("", "comma-separated words to leave out of the topics as well, for example names")
    permutations: int = option(999, "shuffles of the words' topics in each permutation test", least=1, quick=199)
    width: int = option(64, "dimensions of the embeddings", least=1, most=10_000)
    attention_width: int = option(64, "dimensions of queries and keys", least=1, most=10_000)
    learning_rate: float = option(15.0, "learning rate of the first stage: embeddings, at uniform attention",
                                  above_zero=True, below=LARGEST)
    steps: int = option(800, "steps of the first stage", least=1, quick=80)
    attention_rate: float = option(3.0, "learning rate of the second stage: queries and keys", above_zero=True,
                                   below=LARGEST)
    attention_steps: int = option(200, "steps of the second stage", least=1, quick=40)
    batch_size: int = option(100, "documents a step", least=1, quick=50)
    p_m: float = option(0.15, "probability that a word is chosen to be predicted", is_probability=True, above_zero=True)
    p_c: float = option(0.1, "probability that a chosen word is shown", is_probability=True)
    p_r: float = option(0.1, "probability that a chosen word is replaced by a random one", is_probability=True)
    init_scale: float = option(0.02, "standard deviation of the initial embeddings", above_zero=True, below=LARGEST)
    attention_scale: float = option(0.1, "standard deviation of the entries of the initial query and key matrices",
                                    above_zero=True, below=LARGEST)
    dtype: str = option("float32", "precision of training; averages and tests are always float64",
                        choices=("float32", "float64"))
    out: str = option("minitx-topics", "folder for figures, results.json, index.html and weights", metavar="DIR")

    def __post_init__(self):
        super().__post_init__()
        if not self.text:
            raise ValueError("TEXT is empty; it must name a file")
        if self.p_c + self.p_r > 1 + 1e-12:
            raise ValueError(f"--p-c is {self.p_c:g} and --p-r {self.p_r:g}; together they must be at most 1")
        valid_masking(**self.masking, loss="pooled")

    @property
    def masking(self) -> dict[str, float]:
        """What is done to chosen words."""
        return {"p_m": self.p_m, "p_c": self.p_c, "p_r": self.p_r}


@dataclass(frozen=True, eq=False)
class Result:
    """What a run found.

    Attributes
    ----------
    stages : dict {"embeddings": Run, "attention": Run}
        See :func:`minitx.topics.training.train`; without the second when the first was stopped.
    held_out_loss : dict {str: float}
        Cross-entropy of masked words of held-out documents at the start (the words' frequencies only) and after each
        stage.
    tables, averages, tests : dict {quantity: PairTable}, {quantity: Averages}, {quantity: PermutationTest}
        Of the trained weights (:func:`minitx.topics.text.quantities`); row and column = token.
    """

    options: Options
    corpus: Corpus
    n_train: int
    topics: text.WordTopics
    held_out: Documents
    stages: dict[str, Run]
    held_out_loss: dict[str, float]
    tables: dict[str, PairTable]
    averages: dict[str, Averages]
    tests: dict[str, PermutationTest]

    @property
    def last(self) -> Run:
        """The last stage, whose weights are the trained ones; it tells whether training ended early."""
        return list(self.stages.values())[-1]


def run(options: Options, say: Callable[[str], object], checkpoint: Checkpoint | None = None) -> Outcome:
    """Do the job, from the ``checkpoint`` on; ``say(line)`` receives what is to be printed. Raises as :func:`study`."""
    result = study(options, say, checkpoint)
    return Outcome(f"minitx topics: {result.corpus.name}", _numbers(result), command_text_figures.figures(result),
                   {"weights.npz": result.last.weights.arrays()}, result.last.trajectory.stopped,
                   inside=page.inside, found=verdict(result.tests))


def verdict(tests: dict[str, PermutationTest]) -> str:
    """The sentence that says whether words of one topic have more in common than shuffled topics would."""
    found = [f"{name} {number(test.difference)} (p = {test.p_value:.2g})" for name, test in tests.items()]
    return f"Words of one topic exceed words of different topics by: {', '.join(found)}."


def study(options: Options, say: Callable[[str], object], checkpoint: Checkpoint | None = None) -> Result:
    """Fit topics, train, and measure.

    Raises
    ------
    ValueError, FileNotFoundError
        scikit-learn is not installed (before anything is read); the text cannot be read or is too short; fewer than two
        topics have words, or none whose words meet in the held-out documents (before anything is trained).
    """
    text.content_words(())  # fails where scikit-learn is not installed
    *generators, shuffles = np.random.default_rng(options.seed).spawn(6)
    corpus = read_with_bar(load_corpus, options.text, n_vocab=options.vocabulary, length=options.length - 1,
                           n_windows=options.windows)
    documents, held_out = text.text_documents(corpus)
    say(corpus.summary())
    say(f"documents   {len(documents):,} of {options.length} tokens to train on, the last {len(held_out):,} held out")
    topics = text.word_topics(documents, corpus.vocabulary, n_topics=options.topics, threshold=options.threshold,
                              stop_words=options.stop_words, exclude=map(str.strip, options.exclude.split(",")),
                              rng=options.seed)
    say("\n" + topics_table(topics))
    text.require_pairs(topics.of_token, held_out)
    stages, losses = _stages(options, corpus, topics, documents, held_out, generators, say, checkpoint)
    for name, trained in stages.items():
        if found := rise(trained.trajectory.loss, mini_batches=True):
            say(f"\ntraining of {name}: {found}")
    tables = text.quantities(list(stages.values())[-1].weights, held_out)
    averages = {name: pair_averages(found, topics.of_token) for name, found in tables.items()}
    tests = {name: permutation_test(found, topics.of_token, n_permutations=options.permutations, rng=rng)
             for (name, found), rng in zip(tables.items(), shuffles.spawn(len(tables)), strict=True)}
    result = Result(options, corpus, len(documents), topics, held_out, stages, losses, tables, averages, tests)
    _say_result(result, say)
    return result


def _stages(options, corpus, topics, documents, held_out, generators, say, checkpoint):
    """({stage: Run}, {when: held-out loss}); no second stage when the first was stopped."""
    masks, start, order, attention_start, attention_order = generators
    batch = text.masked_copies(documents, QUICK_COPIES if options.quick else COPIES, **options.masking, rng=masks)
    test_batch = mask_tokens(held_out, **options.masking, rng=masks)
    batch_size = min(options.batch_size, len(batch.with_loss()))

    frequency = np.bincount(corpus.tokens.ravel() + 1, minlength=len(topics.of_token)).astype(float)
    maps = {"embeddings": lambda weights: cosine_matrix(weights.W_E),
            "attention": partial(snapshots.attention_over_uniform, frequency=frequency)}
    tokens = shown_tokens(topics, corpus.vocabulary)

    def train(name, start, learning_rate, steps, rng, frozen):
        remedy = "smaller --steps, --attention-steps, --vocabulary or --batch-size are quicker"
        with progress(f"training of {name}", steps, say, remedy, title=f"training {name}") as show:
            return training.train(start, batch, topics=topics.of_token, documents=held_out, learning_rate=learning_rate,
                                  steps=steps, batch_size=batch_size, frozen=frozen, rng=rng, progress=show,
                                  at={1, *training.log_steps(steps)}, checkpoint=checkpoint and checkpoint.part(name),
                                  watch=snapshots.watch(maps[name], tokens))

    weights = text.start_at_frequencies(documents, width=options.width, scale=options.init_scale, dtype=options.dtype,
                                        rng=start)
    losses = {"word frequencies only": _loss(weights, test_batch)}
    stages = {"embeddings": train("embeddings", weights, options.learning_rate, options.steps, order, ("b",))}
    weights = stages["embeddings"].weights
    losses["embeddings trained"] = _loss(weights, test_batch)
    if not stages["embeddings"].trajectory.stopped:
        weights = text.with_attention(weights, width=options.attention_width, scale=options.attention_scale,
                                      rng=attention_start)
        stages["attention"] = train("attention", weights, options.attention_rate, options.attention_steps,
                                    attention_order, ("W_E", "b"))
        losses["attention trained too"] = _loss(stages["attention"].weights, test_batch)
    return stages, losses


def shown_tokens(topics: text.WordTopics, vocabulary: Sequence[str]) -> np.ndarray:
    """The tokens (n,) of the most probable words of each topic, which the maps of the page show."""
    token = {word: place + 1 for place, word in enumerate(vocabulary)}
    return snapshots.words_of([[token[word] for word in words] for words in topics.words])


def _loss(weights, batch):
    """The loss; nan where training that diverged left weights too large for it."""
    try:
        return loss_and_gradient(weights, batch)[0]
    except FloatingPointError:
        return float("nan")


# ------------------------------------------------------------------------------------------------ printing and writing


def topics_table(topics: text.WordTopics, k: int = 8) -> str:
    """The most probable words of each topic, how many belong to it, and why other words do not."""
    rows = [(str(topic), f"{share:.0%}", str(len(words)), " ".join(words[:k]) or "(none)")
            for topic, (share, words) in enumerate(zip(topics.share, topics.words, strict=True))]
    left_out = ", ".join(f"{number} {reason}" for reason, number in topics.left_out.items() if number)
    return (table(("topic", "share", "words", "the most probable words that belong to it "), rows)
            + f"\n{(topics.of_token >= 0).sum()} words belong to a topic; left out: {left_out or 'none'}")


def _say_result(result, say):
    losses = ((name, number(loss)) for name, loss in result.held_out_loss.items())
    say("\n" + table(("loss of held-out documents ", "nats a masked word"), losses))
    if stopped := result.last.trajectory.stopped:
        say(f"\nstopped early: {stopped}")
    say(f"\naverages over pairs of words; p and z are of {result.options.permutations} shuffles of the words' topics\n"
        + averages_table(result.averages, result.tests))
    if "attention" in result.tables:
        say("Attention is multiplied by the document's length: 1 is uniform. Its averages are over all occurrences in\n"
            "held-out documents, so that a few frequent pairs decide them; by pair, each pair that meets counts once.")
    for name, (including, different_words, recorded) in exceeded(result).items():
        steps = training.recorded_steps([result.stages[RECORDED[name][0]]], recorded)
        say(f"{name}: same topic above different topic at {different_words} of {steps}, {including} with the same word "
            "included")


def averages_table(averages: dict[str, Averages], tests: dict[str, PermutationTest]) -> str:
    """Averages of each quantity by class of pairs, and the permutation test of same against different topic."""
    heads = (" ", "same word", "same topic", "different topic", "same topic or word", "same - different", "p", "z")
    rows = []
    for name, found in averages.items():
        values = (found.same_word, found.same_topic, found.different_topic, found.same_topic_including,
                  found.difference)
        rows.append((name, *map(number, values), f"{tests[name].p_value:.2g}", f"{tests[name].z:.1f}"))
    return table(heads, rows)


def exceeded(result: Result) -> dict[str, tuple[int, int, int]]:
    """Of each quantity, the recorded steps at which same topic exceeds different topic.

    They are counted with the same word included and with different words only; the third number is all recorded steps.
    """
    return {name: training.same_exceeds_different([result.stages[stage]], part)
            for name, (stage, part) in RECORDED.items() if stage in result.stages}


def _numbers(result: Result) -> dict[str, Any]:
    """What ``results.json`` holds of a result, besides the keys of every command.

    - ``corpus``: its name and counts. ``vocabulary``: its words; word i is token i + 1.
    - ``topics``: of each topic its ``share`` of the text and its ``words``, most probable first. ``words left out``:
      {reason: number of words}.
    - ``records``, ``loss``: {stage: what was recorded, and the loss after 0, 1, 2, ... steps}. ``held_out_loss``: at
      the start and after each stage.
    - ``averages``, ``tests``: {quantity: :class:`minitx.topics.averages.Averages`, ...PermutationTest}.
    - ``snapshots``: {stage: maps between the most probable words of each topic (:mod:`minitx.topics.snapshots`)}:
      cosines of embeddings, and log2 of attention over uniform attention, one for each record.
    - ``recorded steps at which same topic exceeds different topic``: {quantity: how often, and of how many}.
    """
    corpus, topics = result.corpus, result.topics
    shown = [corpus.vocabulary[token - 1] for token in shown_tokens(topics, corpus.vocabulary)]
    return {"corpus": {"name": corpus.name, "documents": corpus.n_documents, "tokens": corpus.n_words,
                       "covered": corpus.n_covered, "windows to train on": result.n_train,
                       "windows held out": len(result.held_out)},
            "vocabulary": corpus.vocabulary,
            "topics": [{"share": share, "words": words}
                       for share, words in zip(topics.share, topics.words, strict=True)],
            "words left out": topics.left_out, "held_out_loss": result.held_out_loss,
            "records": {stage: run.records for stage, run in result.stages.items()},
            "loss": {stage: run.trajectory.loss for stage, run in result.stages.items()},
            "averages": result.averages, "tests": result.tests,
            "snapshots": {stage: snapshots.written(shown, run.watched) for stage, run in result.stages.items()},
            "recorded steps at which same topic exceeds different topic": {
                name: dict(zip(("same word included", "different words", "recorded"), counts, strict=True))
                for name, counts in exceeded(result).items()}}
