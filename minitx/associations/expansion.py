"""Training from zero weights as a power series in the learning rate, exactly, for any number of steps.

Gradient descent from zero is analytic in eta: Theta(s) = sum_m eta^m Theta_m(s). Three facts make the coefficients
computable:

1.  A step in series arithmetic is exact: Theta_m(s + 1) = Theta_m(s) - (dL/dTheta)_{m-1}(s), where the coefficients of
    the gradient follow from those of the weights by the rules for products, exp and quotients of power series (below).
    A coefficient depends on coefficients of lower orders only.
2.  Theta_m(s) is a polynomial in s of degree at most m, because its differences are products of coefficients whose
    orders sum to m - 1.
3.  A polynomial of degree m is known from its values at s = 0 .. m, by Newton's forward differences:

        Theta_m(s) = sum_{d <= m} C(s, d) Theta_{m,d},        Theta_{m,d} = (d-th difference of Theta_m in s, at s = 0)

So M steps of series arithmetic give the first M orders of every later step. The leading terms of Im et al. (2026) are
the first coefficients that are not zero: W_O_1 = C(s,1) B, V_2 = C(s,2) Phi^T B^T, W_4 = (3 C(s,4) + 2 C(s,3)) Q, and
P_4 is the same multiple of Delta. Gradient flow is the limit of many small steps, eta^m Theta_m(s) -> (s eta)^m
Theta_{m,m} / m!.

The M steps cost up to M^2 / 2 exact ones each (measured: M = 10 costs 310 exact steps in all), and memory of about M^2
sets of weights. A series is a list of its coefficients, in which None stands for 0.

Legend: T positions, V vocabulary, M highest order, m an order, s steps, eta learning rate.
"""

import functools
import operator
from dataclasses import dataclass
from itertools import pairwise
from math import comb, factorial

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from minitx.associations.basis import next_token_vocabulary
from minitx.base import parallel
from minitx.base.checks import positive, table_size, whole_number
from minitx.base.numbers import norm
from minitx.base.shown import Shown
from minitx.data.batch import Batch
from minitx.model.weights import OneHotWeights

FIRST_ORDERS = {"W_O": 1, "V": 2, "W": 4, "P": 4}  # at which the weights begin; of some batches later, or never
NAMES = tuple(FIRST_ORDERS)
MOST_ORDERS = 100  # its 5,050 sets of weights, and steps, are more than anybody waits for
LARGEST = 1e300  # of a factor of a coefficient
BLOCK_BYTES = 64 << 20  # Size of the coefficients of a block's outputs. A constant, so that all machines cut alike.
WAVE = 4  # Blocks that are computed before their results are added; more take more memory.


@dataclass(frozen=True, eq=False)
class Expansion(Shown):
    """Coefficients of training from zero, as :func:`expand` finds them.

    ``order`` is M, the highest order; ``differences`` is {(m, d): Theta_{m,d}}, 1 <= d <= m <= M, each array in the
    orientation of its weight.
    """

    differences: dict[tuple[int, int], OneHotWeights]
    order: int

    def coefficient(self, order: int, *, steps: int) -> OneHotWeights:
        """Theta_m(s) for m = ``order``, the coefficient of eta^m in the weights after ``steps`` steps.

        Raises ValueError if the order is not 1 .. M.
        """
        whole_number("steps", steps, 0, most=10**12)
        if whole_number("order", order, 1) > self.order:
            raise ValueError(f"order is {order}, but the expansion has orders 1 to {self.order}; expand to a higher "
                             "order")
        total = self.differences[1, 1].map(np.zeros_like)
        for d in range(1, order + 1):
            if (number := comb(steps, d)) > LARGEST:
                raise ValueError(f"C(steps, {d}) exceeds the range of floats for steps = {steps}; ask for a lower "
                                 "order or fewer steps")
            total = total.map(lambda a, b, number=number: a + number * b, self.differences[order, d])
        return total

    def weights(self, *, steps: int, learning_rate: float, order: int | None = None) -> OneHotWeights:
        """Partial sum of the weights after ``steps`` steps, up to ``order`` (default: all orders)."""
        learning_rate = positive("learning_rate", learning_rate, below=LARGEST ** (1 / self.order))
        total = self.differences[1, 1].map(np.zeros_like)
        for m in range(1, (self.order if order is None else whole_number("order", order, 0)) + 1):
            total = total.map(lambda a, b, m=m: a + learning_rate**m * b, self.coefficient(m, steps=steps))
        return total

    def flow_sizes(self) -> dict[str, NDArray[np.float64]]:
        """|Theta_{m,m}| / m!, m = 1 .. M: sizes of the orders in powers of s eta, for many small steps. (M,) each"""
        return {name: np.array([norm(getattr(self.differences[m, m], name)) / factorial(m)
                                for m in range(1, self.order + 1)]) for name in NAMES}

    def radius(self, share: float = 0.01) -> "Radius":
        """The s eta up to which the last order is at most ``share`` of the first that is not zero, by parameter.

        For many small steps, the partial sum of all orders stops being good to that share at about this s eta. It is
        nan where there are no two orders to compare; ``undefined`` of the result says why.
        """
        share, found, undefined = positive("share", share), {}, {}
        for name, size in self.flow_sizes().items():
            orders = np.flatnonzero(size)
            if len(orders) > 1:
                first, last = orders[0], orders[-1]
                found[name] = float((share * size[first] / size[last]) ** (1 / (last - first)))
            else:
                found[name], undefined[name] = float("nan"), self._why_undefined(name, orders)
        return Radius(found, undefined)

    def _why_undefined(self, name, orders):
        begins = FIRST_ORDERS[name]
        if self.order <= begins:
            return (f"{name} begins at order {begins}, and the expansion ends at order {self.order}; two orders are "
                    f"compared: expand to order {begins + 1} or more")
        if len(orders) == 0:
            return f"{name} is 0 at all orders up to {self.order}: this batch does not train it"
        return (f"{name} has order {orders[0] + 1} alone, and is 0 at the other orders up to {self.order}; two orders "
                "are compared: expand to a higher order")


class Radius(dict[str, float]):
    """{parameter: s eta, or nan}, and in ``undefined`` {parameter: why it is nan}. It shows both."""

    def __init__(self, found: dict[str, float], undefined: dict[str, str]):
        super().__init__(found)
        self.undefined = undefined

    def __repr__(self) -> str:
        return "\n".join(f"{name:4} {'undefined: ' + self.undefined[name] if name in self.undefined else f'{size:.4g}'}"
                         for name, size in self.items())


@parallel.one_blas_thread()
def expand(batch: Batch, n_vocab: int, *, order: int) -> Expansion:
    """Coefficients of full-batch gradient descent from zero ``OneHotWeights``, up to eta^``order``; float64.

    ``batch`` is one of next-token training (causal attention, cross-entropy); ``n_vocab`` is V, at best not above 500;
    ``order`` is M, from 1 to ``MOST_ORDERS``. W and P begin at order 4.

    Raises
    ------
    TypeError, ValueError
        Settings that are not valid; batches that are not next-token training.
    """
    order, n_vocab = whole_number("order", order, 1, most=MOST_ORDERS), next_token_vocabulary(batch, n_vocab)
    batch = batch.with_loss()
    table_size(f"an expansion to order {order}", order * (order + 1) // 2, 3 * n_vocab**2 + batch.tokens.shape[1])
    weights = {name: [None] * (order + 1) for name in NAMES}
    values = {(name, m): [None] for name in NAMES for m in range(1, order + 1)}  # Theta_m(s) at s = 0 .. m
    for step in range(1, order + 1):
        gradient = _gradient(weights, batch, n_vocab, order)
        # Theta_m(s + 1) = Theta_m(s) - gradient_{m-1}(s)
        weights = {name: [None, *map(_difference, weights[name][1:], gradient[name])] for name in NAMES}
        for name, m in values:
            if m >= step:
                values[name, m].append(weights[name][m])
    return Expansion(_newton(values, n_vocab, batch.tokens.shape[1], order), order)


def _newton(values, n_vocab, length, order):
    """Theta_{m,d}: the forward differences at s = 0 of ``values``, {(name, m): Theta_m(s) at s = 0 .. m}."""
    zeros = OneHotWeights.zeros(n_vocab, length).parameters()
    found = {}
    for m in range(1, order + 1):
        for d in range(1, m + 1):
            for name in NAMES:
                values[name, m] = [_difference(after, before) for before, after in pairwise(values[name, m])]
            first = {name: values[name, m][0] for name in NAMES}
            found[m, d] = OneHotWeights(**{name: zeros[name] if array is None else array
                                           for name, array in first.items()})
    return found


# -------------------------------------------------------------------------------------- gradient at a series of weights


def _gradient(weights, batch, n_vocab, order):
    """Coefficients 0 .. order-1 of the gradient by every weight, at the series ``weights``."""
    W_O, V = (weights[name][:order] for name in ("W_O", "V"))
    tables = {"direct": W_O, "ov": _product(V, W_O), "qk": weights["W"][:order], "position": weights["P"][:order]}
    n, length = batch.tokens.shape
    size = max(1, BLOCK_BYTES // (8 * order * length * (n_vocab + length)))
    blocks = [slice(first, first + size) for first in range(0, n, size)]
    d_tables = {name: [None] * order for name in tables}
    with parallel.workers(len(blocks)) as run:
        for first in range(0, len(blocks), WAVE):
            for pieces in run(lambda rows: _block(tables, batch, rows, n_vocab), blocks[first:first + WAVE]):
                d_tables = {name: list(map(_sum, d_tables[name], pieces[name])) for name in tables}
        # direct = W_O, ov = V W_O: dW_O = d_direct + V^T d_ov, dV = d_ov W_O^T
        d_W_O = list(map(_sum, d_tables["direct"], _product(_transposed(V), d_tables["ov"])))
        d_V = _product(d_tables["ov"], _transposed(W_O))
    return {"W_O": d_W_O, "V": d_V, "W": d_tables["qk"], "P": d_tables["position"]}


def _block(tables, batch, rows, n_vocab):
    """What some sequences add to the gradient of the tables. Names as in model/circuits.py; every line is of series."""
    x, y, weight = batch.tokens[rows], batch.targets[rows], batch.weight[rows]
    n, length = x.shape
    t, j = np.arange(length)[:, None], np.arange(length)
    pairs, distance = (x[:, :, None].astype(np.int64) * n_vocab + x[:, None, :]), np.where(t >= j, t - j, 0)
    # 1  A = softmax over j <= t of qk[x_t, x_j] + position[t - j]
    scores = map(_sum, _each(tables["qk"], lambda qk: qk.ravel()[pairs]),
                 _each(tables["position"], lambda P: P[distance]))
    A = _softmax(list(scores), np.broadcast_to((t >= j).astype(np.float64), (n, length, length)))
    # 2  out = direct[x_t, :] + sum_j A_tj ov[x_j, :]
    ov = _each(tables["ov"], lambda table: table[x])
    out = list(map(_sum, _product(A, ov), _each(tables["direct"], lambda table: table[x])))
    # 3  dout = weight (softmax(out) - onehot(y))
    dout = _each(_softmax(out, np.ones((n, length, n_vocab))), lambda p: weight[:, :, None] * p)
    dout[0][np.arange(n)[:, None], np.arange(length), y] -= weight
    # 2  back: d_direct[x_t, :] += dout_t,  d_ov[x_j, :] += sum_t A_tj dout_t,  dA_tj = dout_t . ov[x_j, :]
    words = sparse.csr_array((np.ones(x.size), (x.ravel(), np.arange(x.size))), shape=(n_vocab, x.size))
    d_ov = _product(_transposed(A), dout)
    dA = _product(dout, _transposed(ov))
    # 1  back: dscore = A (dA - sum_k A_k dA_k)
    A_dA = _product(A, dA, np.multiply)
    mean = _product(A, _each(A_dA, lambda a: a.sum(axis=2, keepdims=True)), np.multiply)
    dscore = list(map(_difference, A_dA, mean))
    distances = np.broadcast_to(distance, pairs.shape).reshape(-1)
    return {
        "direct": _each(dout, lambda d: words @ d.reshape(-1, n_vocab)),
        "ov": _each(d_ov, lambda d: words @ d.reshape(-1, n_vocab)),
        "qk": _each(dscore, lambda d: np.bincount(pairs.reshape(-1), d.reshape(-1), n_vocab**2).reshape(n_vocab, -1)),
        "position": _each(dscore, lambda d: np.bincount(distances, d.reshape(-1), length))}


# ------------------------------------------------------------------------------------ power series, cut at their length


def _product(a, b, multiply=np.matmul):
    """(a b)_m = sum_k a_k b_{m-k}."""
    product = [None] * len(a)
    for i, left in enumerate(a):
        for k in range(len(a) - i):
            if left is not None and b[k] is not None:
                product[i + k] = _sum(product[i + k], multiply(left, b[k]))
    return product


def _softmax(a, allowed):
    """Softmax over the last axis of a series without constant term, ``allowed`` saying where it is not 0.

    E = exp(a):  E_0 = allowed, m E_m = sum_{k=1}^m k a_k E_{m-k}.
    p = E / Z:   p_m = (E_m - sum_{k=1}^m Z_k p_{m-k}) / Z_0.
    """
    E, p = [allowed], []
    for m in range(1, len(a)):
        E.append(_scaled(1 / m, _sum(*(k * a[k] * E[m - k] for k in range(1, m + 1)
                                       if a[k] is not None and E[m - k] is not None))))
    Z = _each(E, lambda e: e.sum(axis=-1, keepdims=True))
    for m in range(len(a)):
        less = _sum(*(Z[k] * p[m - k] for k in range(1, m + 1) if Z[k] is not None and p[m - k] is not None))
        p.append(_scaled(1 / Z[0], _difference(E[m], less)))
    return p


def _each(series, function):
    """``function`` of every coefficient that is not 0."""
    return [None if a is None else function(a) for a in series]


def _transposed(series):
    return _each(series, lambda a: a.swapaxes(-1, -2))


def _sum(*terms):
    """Sum of coefficients, None being 0."""
    there = [term for term in terms if term is not None]
    return functools.reduce(operator.add, there) if there else None


def _difference(a, b):
    return _sum(a, _scaled(-1.0, b))


def _scaled(factor, a):
    return None if a is None else factor * a
