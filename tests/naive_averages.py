"""Slow oracles of averages over pairs of words: plain loops that import nothing from minitx."""

import itertools


def pair_averages(total, count, topics):
    """[same word, same topic, different topic, same topic including, three counts]; None where there is no pair."""
    sums = {"word": [0.0, 0.0], "topic": [0.0, 0.0], "other": [0.0, 0.0]}
    for a, b in itertools.product(range(len(topics)), repeat=2):
        if topics[a] == -1 or topics[b] == -1:
            continue
        kind = "word" if a == b else "topic" if topics[a] == topics[b] else "other"
        sums[kind][0] += total[a][b]
        sums[kind][1] += count[a][b]
    sums["including"] = [x + y for x, y in zip(sums["word"], sums["topic"], strict=True)]
    averages = [t / c if c > 0 else None for t, c in (sums[kind] for kind in ("word", "topic", "other", "including"))]
    return averages + [sums[kind][1] for kind in ("word", "topic", "other")]


def all_differences(total, count, topics):
    """Same topic minus different topic for the given topics, then for every way to shuffle them among their words."""
    labelled = [a for a in range(len(topics)) if topics[a] != -1]
    differences = []
    for shuffled in itertools.permutations([topics[a] for a in labelled]):
        new = [-1] * len(topics)
        for a, topic in zip(labelled, shuffled, strict=True):
            new[a] = topic
        _, same, other, *_ = pair_averages(total, count, new)
        differences.append(None if same is None or other is None else same - other)
    return differences
