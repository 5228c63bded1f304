"""What stands trained beside what is predicted: numbers for how alike two arrays are."""

from dataclasses import dataclass

import numpy as np

# the basis functions of the associations theory and what their rows and columns are
BASIS_FUNCTIONS = {
    "bigram": ("current token", "next token"),
    "interchangeability": ("token", "token"),
    "context": ("next token", "token of its context"),
    "attention": ("query (current) token", "key (attended) token"),
}


@dataclass(frozen=True)
class Agreement:
    """How near weights are to those predicted; both dicts are {parameter: number}, nan where it is undefined.

    Attributes
    ----------
    cosine, relative_error : dict
        Of the weight and its prediction; |weight - prediction| / |prediction|.
    """

    cosine: dict
    relative_error: dict


def agreement(weights, predicted):
    """Set ``weights`` beside ``predicted`` ones, of the same parametrisation. Returns :class:`Agreement`."""
    pairs = {name: (array, getattr(predicted, name)) for name, array in weights.parameters().items()}
    return Agreement({name: cosine(*pair) for name, pair in pairs.items()},
                     {name: relative_error(*pair) for name, pair in pairs.items()})


@dataclass(frozen=True)
class Beside:
    """Trained weights beside their leading terms after ``step`` steps; every dict is {parameter: number}.

    Attributes
    ----------
    step : int
    loss : float
    cosine, relative_error : dict
        Of the weight and its leading term; nan where the leading term (or the weight) is zero and they are undefined.
    over_bound : dict
        |weight - leading term| / its proved bound; nan where the bound underflows to 0.
    outside : tuple of str
        Conditions of the theorem that are not met at this step (empty: the bound is proved).
    """

    step: int
    loss: float
    cosine: dict
    relative_error: dict
    over_bound: dict
    outside: tuple


def beside(weights, leading, bounds, *, step, loss):
    """Set ``weights`` beside their ``leading`` terms and the theorem's ``bounds``. Returns :class:`Beside`."""
    found = agreement(weights, leading)
    over_bound = {name: _over(norm(np.subtract(array, getattr(leading, name), dtype=np.float64)), getattr(bounds, name))
                  for name, array in weights.parameters().items()}
    return Beside(step, loss, found.cosine, found.relative_error, over_bound, bounds.outside)


def _over(error, bound):
    return error / bound if bound > 0 else float("nan")  # a bound so small that it underflows


def norm(a, axis=None, *, keepdims=False):
    """Euclidean (Frobenius) norm in float64, of all of ``a`` or along ``axis``; no square underflows or overflows.

    Entries are scaled by a power of 2, which is exact, and summed by NumPy, because the bits of a sum by BLAS depend on
    its threads. Returns a float, or an array as ``np.linalg.norm`` does.
    """
    a = np.asarray(a, np.float64)
    largest = np.abs(a).max(axis=axis, keepdims=True, initial=0.0)
    scale = np.ldexp(1.0, np.frexp(largest)[1] - 1)  # 1/2 for 0, and for inf and nan, which are then their own norm
    size = scale * np.sqrt(np.sum(np.square(a / scale), axis=axis, keepdims=True))
    if axis is None:
        return float(size.item())
    return size if keepdims else np.squeeze(size, axis=axis)


def cosine(a, b):
    """<a, b> / (|a| |b|) of two arrays of the same shape (Frobenius, float64).

    Scale-free: nothing is added to a norm, and entries of any size are welcome.

    Returns
    -------
    float
        nan where it is undefined: ``a`` or ``b`` is all zero.

    Raises
    ------
    ValueError
        Shapes that differ, or entries that are not finite.
    """
    a, b = _pair(a, b)
    size_a, size_b = np.abs(a).max(initial=0), np.abs(b).max(initial=0)
    if size_a == 0 or size_b == 0:
        return float("nan")
    a, b = a / size_a, b / size_b
    # sums, not BLAS, whose bits depend on its threads
    return float(np.clip(np.sum(a * b) / np.sqrt(np.sum(a * a) * np.sum(b * b)), -1.0, 1.0))


def relative_error(a, reference):
    """|a - reference| / |reference| (Frobenius); nan where it is undefined: ``reference`` is all zero. Raises as :func:`cosine`."""
    a, reference = _pair(a, reference)
    return norm(a - reference) / norm(reference) if reference.any() else float("nan")


def _pair(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"cannot compare arrays of shapes {a.shape} and {b.shape}; they must have the same shape")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("cannot compare arrays that hold inf or nan")
    return a, b
