"""Files of samples: JSON lines of {"tokens": [...], "label": ...}, with tokens that are strings or whole numbers.

Legend: n samples, K distinct tokens.
"""

from dataclasses import dataclass

from minitx.data.corpus import file_kind, read_json_lines


@dataclass(frozen=True, eq=False)
class SampleFile:
    """What a file of samples holds.

    Attributes
    ----------
    vocabulary : tuple of str, K
        ``vocabulary[i]`` is the token of id i: numbers ascending, strings by first appearance.
    sequences : list of n lists of ints
    labels : list of n ints
    n_left_out : int
        Samples left out, because their label does not occur in their tokens.
    """

    vocabulary: tuple[str, ...]
    sequences: list
    labels: list
    n_left_out: int


def holds_samples(path):
    """Whether a file is one of samples: named .jsonl (or .jsonl.gz), and its first line is an object with a field "tokens".

    Or with a "label" and no "text": then "tokens" is misspelt, and :func:`read_samples` says so.
    """
    if file_kind(path) != ".jsonl":
        return False
    _, first = next(iter(read_json_lines(path)), (None, None))
    return isinstance(first, dict) and ("tokens" in first or ("label" in first and "text" not in first))


def read_samples(path, *, absent="omit", n_samples=None, progress=None):
    """Read a file of samples.

    Parameters
    ----------
    path : str or Path
        ``.jsonl``, or ``.jsonl.gz``; UTF-8.
    absent : {"omit", "refuse"}
        What happens to a sample whose label does not occur in its tokens: it is left out (and counted), or refused by ValueError.
    n_samples : int, optional
        Read at most so many samples.
    progress : callable, optional
        Called as ``progress(bytes_done, bytes_in_file)`` while reading.

    Returns
    -------
    SampleFile

    Raises
    ------
    FileNotFoundError, ValueError
        No such file; a line that is not such an object; no sample that can be used.
    """
    sequences, labels, n_left_out = [], [], 0
    for place, item in read_json_lines(path, progress=progress):
        tokens, label = _sample(place, item, kind=type(labels[0]) if labels else None)
        if label in tokens:
            sequences.append(tokens)
            labels.append(label)
        elif absent == "refuse":
            raise ValueError(f"{place}: label {label!r} does not occur in its sequence; attention can only retrieve what is there: "
                             "correct it, or let such samples be left out (absent: omit)")
        else:
            n_left_out += 1
        if len(labels) == n_samples:
            break
    if not labels:
        raise ValueError(f"no samples: {path} holds {n_left_out or 'no'} samples, and none whose label occurs among its tokens")
    distinct = dict.fromkeys(token for tokens in sequences for token in tokens)
    words = sorted(distinct) if isinstance(labels[0], int) else list(distinct)
    number = {word: i for i, word in enumerate(words)}
    return SampleFile(tuple(map(str, words)), [[number[token] for token in tokens] for tokens in sequences],
                      [number[label] for label in labels], n_left_out)


def _sample(place, item, kind):
    """(tokens, label) of one line; all of type ``kind``, if that is known."""
    if not isinstance(item, dict) or not {"tokens", "label"} <= set(item):
        found = f"the fields {', '.join(item) or '(none)'}" if isinstance(item, dict) else f"a {type(item).__name__}"
        raise ValueError(f'{place}: found {found}; an object with the fields "tokens" and "label" is needed')
    tokens, label = item["tokens"], item["label"]
    if not isinstance(tokens, list) or not tokens:
        raise ValueError(f'{place}: "tokens" must be a non-empty list of strings or whole numbers')
    kind = kind or (int if type(label) is int else str)
    for value in (*tokens, label):
        if type(value) is not kind:  # True is no number here
            raise ValueError(f"{place}: {value!r} is of type {type(value).__name__}; tokens and labels must be strings, or all "
                             f"of them whole numbers: here {'whole numbers' if kind is int else 'strings'}")
    try:
        "".join(map(str, (*tokens, label))).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{place}: a token holds half a character (a lone \\ud800 to \\udfff), not valid in UTF-8") from error
    return tokens, label
