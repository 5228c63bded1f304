"""Text half of ``minitx topics``: topics of a real text beside what one attention layer learns from it (Li, Li, Risteski 2023).

Windows of the text are documents; id i of the corpus is token i + 1, token 0 is [MASK]. Topics are fitted to the content words of
the training documents. Masked language modelling then trains the embeddings at uniform attention, and after them, embeddings kept
as they are, the attention: the two stages of the paper, with cross-entropy loss and tied output.

Legend: V tokens with [MASK], R recorded steps.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from minitx.base import report, style
from minitx.base.checks import positive, probability, whole_number
from minitx.base.console import lower, progress_bar
from minitx.data.corpus import Corpus, load_corpus
from minitx.model.circuits import loss_and_gradient
from minitx.model.weights import EmbeddedWeights
from minitx.topics import command_text_figures
from minitx.topics import text as text_topics
from minitx.topics import training as topic_training
from minitx.topics.averages import PairTable, attention_table, cosine_matrix, gram, pair_averages, permutation_test
from minitx.topics.documents import Documents, mask_tokens

HELP = {
    "text": "text to read: .txt, .jsonl, .json, or .gz of each",
    "vocabulary": "number of words in the vocabulary, the most frequent ones; rarer ones become <unk>",
    "length": "tokens of a document: each text is cut into windows of so many",
    "windows": "use at most the first so many windows; all when not given",
    "topics": "number of topics fitted to the text",
    "threshold": "a word belongs to a topic whose probability, given the word, is at least this; other words have none",
    "stop_words": "leave English stop words out of the topics",
    "exclude": "comma-separated words to leave out of the topics as well, for example names",
    "min_words": "a topic left with fewer words than this has none",
    "permutations": "shuffles of the words' topics in each permutation test",
    "width": "dimensions of the embeddings",
    "attention_width": "dimensions of queries and keys",
    "learning_rate": "learning rate of the first stage: embeddings, at uniform attention",
    "steps": "steps of the first stage",
    "attention_rate": "learning rate of the second stage: queries and keys",
    "attention_steps": "steps of the second stage",
    "batch_size": "documents a step",
    "maskings": "how often each training document is masked anew",
    "p_m": "probability that a word is chosen to be predicted",
    "p_c": "probability that a chosen word is shown all the same",
    "p_r": "probability that a random word is shown in the place of a chosen one; else it is [MASK]",
    "init_scale": "standard deviation of the initial embeddings",
    "attention_scale": "standard deviation of the entries of the initial query and key matrices",
    "dtype": "precision of training; averages and tests are always float64",
    "seed": "seed of masks, initial weights, mini-batches, shuffles, and of the topics unless they have their own",
    "topic_seed": "seed of the fit of the topics; --seed when not given",
    "threads": "threads to use; all cores when not given. Results do not depend on it",
    "out": "folder for figures, results.json, report.html and weights.npz",
    "quick": "the same job in seconds: fewer words, windows, topics and steps",
}
QUICK = {"vocabulary": 300, "length": 64, "windows": 300, "topics": 5, "permutations": 199, "steps": 80, "attention_steps": 40,
         "maskings": 4, "batch_size": 50}
HELD_OUT = 10  # one document in so many, the last ones, for attention
RECORDED = {"embedding products": ("embeddings", "embedding"), "embedding cosines": ("embeddings", "cosine"),
            "attention": ("attention", "attention")}  # quantity: stage, part of its records
_WHOLE = {"vocabulary": 3, "length": 2, "windows": 1, "topics": 2, "min_words": 2, "permutations": 1, "width": 1,
          "attention_width": 1, "steps": 1, "attention_steps": 1, "batch_size": 1, "maskings": 1, "seed": 0, "topic_seed": 0,
          "threads": 1}


@dataclass(frozen=True)
class Options:
    """The effective configuration of a run, saved in ``results.json``; ``HELP`` says what each is."""

    text: str
    vocabulary: int = 800
    length: int = 128
    windows: int | None = None
    topics: int = 10
    threshold: float = 0.5
    stop_words: bool = True
    exclude: str = ""
    min_words: int = 2
    permutations: int = 999
    width: int = 64
    attention_width: int = 64
    learning_rate: float = 15.0
    steps: int = 800
    attention_rate: float = 3.0
    attention_steps: int = 200
    batch_size: int = 100
    maskings: int = 8
    p_m: float = 0.15
    p_c: float = 0.1
    p_r: float = 0.1
    init_scale: float = 0.02
    attention_scale: float = 0.1
    dtype: str = "float32"
    seed: int = 0
    topic_seed: int | None = None
    threads: int | None = None
    out: str = "minitx-topics"
    quick: bool = False
    asked: dict = field(init=False, compare=False, default_factory=dict)  # what --quick lowered: {option: value asked for}

    def __post_init__(self):
        if not self.text or not self.out:
            raise ValueError("the text and --out must each name something; one of them is empty")
        for name, least in _WHOLE.items():
            if getattr(self, name) is not None or name not in ("windows", "topic_seed", "threads"):
                whole_number(_option(name), getattr(self, name), least)
        for name in ("learning_rate", "attention_rate", "init_scale", "attention_scale"):
            positive(_option(name), getattr(self, name), below=1e30)
        for name in ("threshold", "p_m", "p_c", "p_r"):
            probability(_option(name), getattr(self, name))
        if self.threshold == 0 or self.p_m == 0:
            raise ValueError("--threshold and --p-m must be above 0: with 0 every word has a topic, or none is predicted")
        if self.p_c + self.p_r > 1:
            raise ValueError(f"--p-c + --p-r is {self.p_c + self.p_r:g}; a chosen word is shown, replaced or masked: at most 1")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f"--dtype is {self.dtype!r}; it must be float32 or float64")
        if self.quick:
            lower(self, QUICK)


def _option(name):
    return "--" + name.replace("_", "-")


@dataclass(frozen=True, eq=False)
class WordTopics:
    """Topics of the text and of its words."""

    fitted: text_topics.TextTopics
    of_token: np.ndarray  # (V,): topic of each token; -1: none
    words: list  # of each topic, all its words, most probable first
    left_out: dict  # {reason: number of words}


@dataclass(frozen=True, eq=False)
class Result:
    """What a run found.

    Attributes
    ----------
    stages : dict {"embeddings": Run, "attention": Run}
        See :func:`minitx.topics.training.train`; without the second when the first was stopped.
    held_out_loss : dict {str: float}
        Cross entropy of masked words of held-out documents at the start (the words' frequencies only) and after each stage.
    tables : dict {quantity: PairTable}
        Of the trained weights; row and column = token. In "attention" every occurrence of a pair counts, as in the paper; in a
        real text a few very frequent words decide it. In "attention by pair" each pair of words that meets counts once.
    averages, tests : dict {quantity: Averages}, {quantity: PermutationTest}
    """

    options: Options
    corpus: Corpus
    n_train: int
    topics: WordTopics
    held_out: Documents
    stages: dict
    held_out_loss: dict
    tables: dict
    averages: dict
    tests: dict

    @property
    def weights(self):
        """The trained weights."""
        return list(self.stages.values())[-1].weights

    @property
    def stopped(self):
        """Why training ended early; None when it did not."""
        return list(self.stages.values())[-1].trajectory.stopped


def run(options, say):
    """Do the job; ``say(line)`` receives what is to be printed, as it becomes known.

    Raises
    ------
    ValueError, FileNotFoundError
        scikit-learn is not installed (before anything is read); a text that cannot be read or is too short; fewer than two topics
        that have words, or none whose words meet in the held-out documents (before anything is trained).
    """
    text_topics.content_words(())  # fails where scikit-learn is not installed
    *generators, shuffles = np.random.default_rng(options.seed).spawn(6)
    corpus, training, held_out = _documents(options)
    say(corpus.summary())
    say(f"documents   {len(training):,} of {options.length} tokens to train on, the last {len(held_out):,} held out")
    topics = _topics(options, corpus, training.tokens - 1)
    say("\n" + topics_table(topics))
    _require_pairs(topics.of_token, held_out)
    stages, losses = _stages(options, topics.of_token, training, held_out, generators)
    tables = _tables(stages, held_out)
    averages = {name: pair_averages(table, topics.of_token) for name, table in tables.items()}
    tests = {name: permutation_test(table, topics.of_token, n_permutations=options.permutations, rng=rng)
             for (name, table), rng in zip(tables.items(), shuffles.spawn(len(tables)), strict=True)}
    result = Result(options, corpus, len(training), topics, held_out, stages, losses, tables, averages, tests)
    _say_result(result, say)
    return result


# ------------------------------------------------------------------------------------------------------- text and topics


def _documents(options):
    """(Corpus, Documents to train on, held-out Documents): the windows of the text, of which the last tenth is held out."""
    with progress_bar(unit="B", unit_scale=True, desc="reading") as bar:

        def progress(done, total):
            bar.total = total
            bar.update(done - bar.n)

        corpus = load_corpus(options.text, n_vocab=options.vocabulary, length=options.length - 1, n_windows=options.windows,
                             progress=progress)
    n_windows = len(corpus.tokens)
    if n_windows < HELD_OUT:
        raise ValueError(f"{corpus.name} gives {n_windows} windows of {options.length} tokens, too few to hold some out; at least "
                         f"{HELD_OUT} are needed: give more text, or a smaller --length")
    n_train = n_windows - n_windows // HELD_OUT
    parts = (Documents(tokens + 1, np.full(len(tokens), tokens.shape[1]), len(corpus.vocabulary) + 1)
             for tokens in (corpus.tokens[:n_train], corpus.tokens[n_train:]))
    return corpus, *parts


def _topics(options, corpus, tokens):
    """Topics of the content words of ``tokens`` (D, N), ids of the corpus."""
    vocabulary = corpus.vocabulary
    word = text_topics.content_words(vocabulary, stop_words=False)
    excluded = map(str.strip, options.exclude.split(","))
    common = word & ~text_topics.content_words(vocabulary, stop_words=options.stop_words)
    content = text_topics.content_words(vocabulary, stop_words=options.stop_words, extra=excluded)
    seed = options.seed if options.topic_seed is None else options.topic_seed
    fitted = text_topics.fit_topics(tokens, content, n_topics=options.topics, rng=seed)
    labels = text_topics.dominant_topics(fitted.topic_word, topic_share=fitted.share, threshold=options.threshold,
                                         min_words=options.min_words)
    n_topics = len(np.unique(labels[labels >= 0]))
    if n_topics < 2:
        raise ValueError(f"{n_topics} of {options.topics} topics have words of their own: of {content.sum()} content words "
                         f"{(labels >= 0).sum()} belong to one topic with probability {options.threshold:g} or more; two topics "
                         "are needed: lower --threshold, or change --topics")
    left_out = {"no words, or rare (<unk>)": int((~word).sum()), "stop words": int(common.sum()),
                "excluded": int((word & ~common & ~content).sum()), "of no single topic": int((content & (labels < 0)).sum())}
    words = text_topics.top_words(fitted.topic_word, vocabulary, labels, k=len(vocabulary))
    return WordTopics(fitted, np.append(-1, labels), words, left_out)


def _require_pairs(of_token, held_out):
    """ValueError unless the held-out documents hold pairs of different words of one topic, and of different topics."""
    uniform = EmbeddedWeights(W_E=np.zeros((1, held_out.n_vocab)))
    found = pair_averages(attention_table(uniform, held_out), of_token)
    if not (found.n_same_topic and found.n_different_topic):
        raise ValueError(f"in the {len(held_out)} held-out documents words of one topic meet {found.n_same_topic:g} times, words "
                         f"of different topics {found.n_different_topic:g} times, so attention between them cannot be compared; "
                         "give more text, lower --threshold, or change --topics")


# -------------------------------------------------------------------------------------------------------------- training


def _start(options, documents, rng):
    """Small Gaussian embeddings at uniform attention, and as bias the logarithm of the words' frequencies.

    Gradient descent on the bias alone would end there, so it stays as it is; embeddings do not have to learn the frequencies first.
    """
    weights = EmbeddedWeights.gaussian(documents.n_vocab, W_E=options.init_scale, b=0.0, width=options.width, rng=rng,
                                       dtype=options.dtype)
    counts = 1 + np.bincount(documents.tokens.ravel(), minlength=documents.n_vocab)
    return replace(weights, b=np.log(counts / counts.sum()).astype(options.dtype))


def _stages(options, of_token, training, held_out, generators):
    """({stage: Run}, {when: held-out loss}); no second stage when the first was stopped."""
    masks, start, order, attention_start, attention_order = generators
    shares = {"p_m": options.p_m, "p_c": options.p_c, "p_r": options.p_r}
    copies = (np.tile(part, (options.maskings,) + (1,) * (part.ndim - 1)) for part in (training.tokens, training.lengths))
    batch = mask_tokens(Documents(*copies, training.n_vocab), **shares, rng=masks)
    test_batch = mask_tokens(held_out, **shares, rng=masks)
    common = {"topics": of_token, "documents": held_out, "batch_size": min(options.batch_size, len(batch.with_loss()))}
    weights = _start(options, training, start)
    losses = {"word frequencies only": _loss(weights, test_batch)}
    first = _train("embeddings", weights, batch, options.learning_rate, options.steps, rng=order,
                   frozen=("b",), **common)
    losses["embeddings trained"] = _loss(first.weights, test_batch)
    if first.trajectory.stopped:
        return {"embeddings": first}, losses
    sizes = {"width": options.width, "attention_width": options.attention_width, "dtype": options.dtype}
    drawn = EmbeddedWeights.gaussian(held_out.n_vocab, W_E=0, W_QK=options.attention_scale, rng=attention_start, **sizes)
    weights = replace(first.weights, W_Q=drawn.W_Q, W_K=drawn.W_K)
    second = _train("attention", weights, batch, options.attention_rate, options.attention_steps, rng=attention_order,
                    frozen=("W_E", "b"), **common)
    losses["attention trained too"] = _loss(second.weights, test_batch)
    return {"embeddings": first, "attention": second}, losses


def _loss(weights, batch):
    """The loss; nan where training that diverged left weights too large for it."""
    try:
        return loss_and_gradient(weights, batch)[0]
    except FloatingPointError:
        return float("nan")


def _train(name, start, batch, learning_rate, steps, **settings):
    with progress_bar(total=steps, unit="step", desc=f"training {name}") as bar:
        at = {1, *topic_training.log_steps(steps)}
        return topic_training.train(start, batch, learning_rate=learning_rate, steps=steps, at=at,
                                    progress=lambda step: bar.update(step > 0), **settings)


def _tables(stages, held_out):
    """{quantity: PairTable} of the weights after the last stage."""
    weights = list(stages.values())[-1].weights
    tables = {"embedding products": PairTable.of_matrix(gram(weights.W_E)),
              "embedding cosines": PairTable.of_matrix(cosine_matrix(weights.W_E))}
    if "attention" in stages:
        found = tables["attention"] = attention_table(weights, held_out)
        meets = found.count > 0
        mean = np.divide(found.total, found.count, out=np.zeros_like(found.total), where=meets)
        tables["attention by pair"] = PairTable(mean, meets)
    return tables


# -------------------------------------------------------------------------------------------------------------- printing


def topics_table(topics, k=8):
    """The most probable words of each topic, how many belong to it, and why other words do not."""
    lines = [f"{'topic':>5} {'share':>6} {'words':>6}  the most probable words that belong to it"]
    for topic, words in enumerate(topics.words):
        lines.append(f"{topic:5d} {topics.fitted.share[topic]:6.0%} {len(words):6d}  {' '.join(words[:k]) or '(none)'}")
    left_out = ", ".join(f"{number} {reason}" for reason, number in topics.left_out.items() if number)
    return "\n".join([*lines, f"{(topics.of_token >= 0).sum()} words belong to a topic; left out: {left_out or 'none'}"])


def _say_result(result, say):
    say("\nheld-out loss (nats a masked word)")
    for name, loss in result.held_out_loss.items():
        say(f"  {name:24} {loss:8.4f}")
    if result.stopped:
        say(f"\nstopped early: {result.stopped}")
    say(f"\naverages over pairs of words; p and z: {result.options.permutations} shuffles of the words' topics\n"
        + averages_table(result))
    if "attention" in result.tables:
        say("attention: times the document's length (1: uniform), over all occurrences in held-out documents, so that a few\n"
            "frequent pairs decide it; by pair: each pair of words that meets there counts once")
    for name, (including, different_words, recorded) in exceeded(result).items():
        say(f"{name}: same topic above different topic at {different_words} of {recorded} recorded steps "
            f"({including} with the same word included)")


def averages_table(result):
    """Averages of each quantity by class of pairs, and the permutation test of same against different topic."""
    heads = ("same word", "same topic", "different", "same incl.", "same - diff.")
    lines = [f"{'':20}" + "".join(f"{head:>13}" for head in heads) + f"{'p':>9}{'z':>8}"]
    for name, found in result.averages.items():
        test = result.tests[name]
        values = (found.same_word, found.same_topic, found.different_topic, found.same_topic_including, found.difference)
        lines.append(f"{name:20}" + "".join(f"{value:13.4f}" for value in values) + f"{test.p_value:9.2g}{test.z:8.1f}")
    return "\n".join(lines)


def exceeded(result):
    """{quantity: (steps with same topic, same word included, above different topic; with different words only; recorded steps)}."""
    return {name: topic_training.same_exceeds_different([result.stages[stage]], part) for name, (stage, part) in RECORDED.items()
            if stage in result.stages}


# --------------------------------------------------------------------------------------------------------------- writing


def write(result, folder, printed):
    """Write weights.npz, results.json, the figures and report.html to ``folder``; returns the names of the files."""
    result.weights.save(folder / "weights.npz")
    report.write_json(folder / "results.json", _numbers(result))
    figures = command_text_figures.figures(result)
    for name, (figure, _) in figures.items():
        style.save(figure, folder / name)
    report.write_page(folder / "report.html", f"minitx topics: {result.corpus.name}", "\n".join(printed),
                      {name: caption for name, (_, caption) in figures.items()})
    return [*figures, "report.html", "weights.npz", "results.json"]


def _numbers(result):
    corpus, topics = result.corpus, result.topics
    return {"configuration": result.options, "environment": report.environment(),
            "corpus": {"name": corpus.name, "documents": corpus.n_documents, "tokens": corpus.n_words, "covered": corpus.n_covered,
                       "windows to train on": result.n_train, "windows held out": len(result.held_out)},
            "vocabulary": corpus.vocabulary,
            "topics": [{"share": share, "words": words} for share, words in zip(topics.fitted.share, topics.words, strict=True)],
            "words left out": topics.left_out, "held_out_loss": result.held_out_loss, "stopped": result.stopped,
            "records": {stage: run.records for stage, run in result.stages.items()},
            "loss": {stage: run.trajectory.loss for stage, run in result.stages.items()},
            "averages": result.averages, "tests": result.tests,
            "recorded steps at which same topic exceeds different topic": {
                name: dict(zip(("same word included", "different words", "recorded"), counts, strict=True))
                for name, counts in exceeded(result).items()}}
