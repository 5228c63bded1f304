"""Statistics of texts by parts: the same bits for every executor, what is done is kept, faults are said by name."""

import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from minitx import associations
from minitx.associations import streaming
from minitx.associations.counts import Counts, read_npz
from minitx.data.corpus import load_corpus
from minitx.data.streams import Texts
from minitx.data.tokenizers import WordTokenizer

NAMES = ("bigram", "interchangeability", "context", "value", "attention", "position", "frequency", "share")
WORDS = "fish bird cat dog tree house garden river sun moon".split()


@pytest.fixture
def path(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "text.txt"
    path.write_text("\n".join(" ".join(rng.choice(WORDS, 30)) for _ in range(60)))
    return path


def texts_of(path, **settings):
    return Texts.of(path, **({"n_vocab": 9, "length": 6, "part_size": 1500} | settings))


def same_bits(one, two):
    return all(getattr(one, name).tobytes() == getattr(two, name).tobytes() for name in NAMES)


def test_statistics_are_those_of_the_text_in_memory_for_every_executor(path):
    batch = load_corpus(path, n_vocab=9, length=6).batch()
    expected = associations.statistics(batch, 9)
    found = associations.text_statistics(texts_of(path))
    for name in NAMES:
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-12, atol=1e-15)
    with ThreadPoolExecutor(3) as threads:
        assert same_bits(associations.text_statistics(texts_of(path), executor=threads, ahead=5), found)
    assert same_bits(associations.text_statistics(texts_of(path, part_size=10**6)), found)


@pytest.mark.slow
def test_processes_give_the_same_bits(path):
    with ProcessPoolExecutor(2) as pool:
        assert same_bits(associations.text_statistics(texts_of(path), executor=pool),
                         associations.text_statistics(texts_of(path)))


@pytest.mark.slow
def test_a_cluster_gives_the_same_bits_when_a_worker_is_killed(path, tmp_path, monkeypatch):
    distributed = pytest.importorskip("dask.distributed")
    monkeypatch.setenv("KILL_ONCE", str(tmp_path / "killed"))
    (tmp_path / "empty.txt").write_text("\n")
    texts = texts_of([path, tmp_path / "empty.txt"]).with_vocabulary()
    expected = streaming.count_texts(texts)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        with distributed.Client(cluster) as client:
            executor = client.get_executor()
            total = None
            for found in streaming.over_parts(_Killing(texts), texts.parts, executor=executor):
                total = found if total is None else total + found
            assert (tmp_path / "killed").exists()
            assert total.contexts.part.tobytes() == expected.contexts.part.tobytes()
            assert (total.pairs != expected.pairs).nnz == 0
            (tmp_path / "empty.txt").write_bytes(b"a\0b")
            with pytest.raises(ValueError, match="empty.txt is a binary file"):
                streaming.count_texts(texts, executor=executor)


class _Killing:
    """Counts a part; the first worker that counts the second part ends instead."""

    def __init__(self, texts):
        self.texts, self.mark = texts, os.environ["KILL_ONCE"]

    def __call__(self, part):
        if part.begin and not os.path.exists(self.mark):
            open(self.mark, "w").close()
            os._exit(1)
        return streaming.count_part(self.texts, part)


def test_what_is_done_is_kept_and_the_next_run_goes_on(path, tmp_path, monkeypatch):
    texts, keep = texts_of(path).with_vocabulary(), tmp_path / "kept.npz"
    expected, read = streaming.count_texts(texts), []
    real = streaming.count_part

    def counted(texts, part, fails=True):
        if fails and len(read) == 4:
            raise KeyboardInterrupt
        read.append(part)
        return real(texts, part)

    monkeypatch.setattr(streaming, "count_part", counted)
    with pytest.raises(KeyboardInterrupt):
        streaming.count_texts(texts, keep=keep)
    assert keep.exists()
    monkeypatch.setattr(streaming, "count_part", lambda texts, part: counted(texts, part, fails=False))
    found = streaming.count_texts(texts, keep=keep)
    assert read == list(texts.parts) and not keep.exists()
    assert found.contexts.part.tobytes() == expected.contexts.part.tobytes() and found.totals == expected.totals


KILLED = """
import os, sys
from minitx.associations import streaming
from minitx.data.streams import Texts
streaming.SAVED_EVERY, real, counted = -1.0, streaming.count_part, []
def count_part(texts, part):
    counted.append(part)
    return real(texts, part) if len(counted) < 5 else os._exit(9)
streaming.count_part = count_part
texts = Texts.of(sys.argv[1], n_vocab=9, length=6, part_size=1500).with_vocabulary()
streaming.count_texts(texts, keep="kept.npz")
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_from_what_it_saved(path, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=tmp_path, env=os.environ)
    assert done.returncode == 9
    about, _ = read_npz(tmp_path / "kept.npz", "counts")
    assert 1 <= about["done"] <= 4
    texts = texts_of(path).with_vocabulary()
    found, expected = streaming.count_texts(texts, keep=tmp_path / "kept.npz"), streaming.count_texts(texts)
    assert found.contexts.part.tobytes() == expected.contexts.part.tobytes() and found.totals == expected.totals


def test_what_was_kept_of_another_text_is_not_used(path, tmp_path):
    texts, keep = texts_of(path).with_vocabulary(), tmp_path / "kept.npz"
    Counts.of(np.zeros((3, 3), int), 9).save(keep, done=1, of="another")
    assert streaming.count_texts(texts, keep=keep).n_windows == streaming.count_texts(texts).n_windows
    counts = streaming.count_texts(texts)
    other = replace(counts, contexts=counts.contexts + counts.contexts)  # scores of other counts

    def stop(done, total):
        if done == total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        streaming.score_texts(texts, other, keep=keep, progress=stop)
    assert read_npz(keep, "scores")[0]["done"] == len(texts.parts) - 1
    scores = streaming.score_texts(texts, counts, keep=keep)
    assert scores.attention.part.tobytes() == streaming.score_texts(texts, counts).attention.part.tobytes()
    assert streaming.identity(texts) != streaming.identity(texts_of(path, length=7).with_vocabulary())
    before = streaming.identity(texts)
    os.utime(path, (1, 1))
    assert streaming.identity(texts) != before


def test_the_most_frequent_tokens_of_a_tokenizer(path):
    """K = V counts all; with K < V the bigram function is a block, in the order of frequency."""
    tokenizer = WordTokenizer(tuple(sorted(WORDS)))
    full = associations.text_statistics(texts_of(path, n_vocab=None, tokenizer=tokenizer))
    texts = texts_of(path, n_vocab=None, tokenizer=tokenizer, n_tokens=4).with_vocabulary()
    found = associations.text_statistics(texts)
    rows = [sorted(WORDS).index(word) for word in texts.vocabulary]
    np.testing.assert_allclose(found.bigram, full.bigram[np.ix_(rows, rows)], rtol=0, atol=1e-15)
    np.testing.assert_allclose(found.context, full.context[np.ix_(rows, rows)], rtol=0, atol=1e-15)
    assert found.n_vocab == 10 and found.bigram.shape == (4, 4)


def test_faults_are_said_by_name(path, tmp_path):
    with pytest.raises(TypeError, match="texts is .*; make one with minitx.data.Texts.of"):
        associations.text_statistics(str(path))
    with pytest.raises(ValueError, match=r"no vocabulary yet; use texts.with_vocabulary\(\)"):
        streaming.count_texts(texts_of(path))
    with pytest.raises(ValueError, match="none of the tokens that were read is in the vocabulary"):
        associations.text_statistics(texts_of(path, n_vocab=None, tokenizer=WordTokenizer(("<unk>", "nowhere"))))
    with pytest.raises(ValueError, match="no window was counted"):
        associations.text_statistics(texts_of(path, length=400))
    (tmp_path / "binary.txt").write_bytes(b"a\0b")
    with pytest.raises(ValueError, match="binary.txt is a binary file"):
        associations.text_statistics(texts_of([path, tmp_path / "binary.txt"]))
