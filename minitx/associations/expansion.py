"""Training from zero weights as a power series in the learning rate, exactly, for any number of steps.

Gradient descent from zero is analytic in eta: Theta(s) = sum_m eta^m Theta_m(s). Three facts make the coefficients computable:

1.  A step in series arithmetic is exact: Theta_m(s + 1) = Theta_m(s) - (dL/dTheta)_{m-1}(s), where the coefficients of the gradient
    follow from those of the weights by the rules for products, exp and quotients of power series (below). Orders never mix upwards.
2.  Theta_m(s) is a polynomial in s of degree at most m (its differences are products of coefficients whose orders sum to m - 1).
3.  A polynomial of degree m is known from its values at s = 0 .. m, by Newton's forward differences:

        Theta_m(s) = sum_{d <= m} C(s, d) Theta_{m,d},        Theta_{m,d} = (d-th difference of Theta_m in s, at s = 0)

So M steps of series arithmetic give the first M orders of every later step, and the leading terms of Im et al. (2026) are the first
coefficients that are not zero: W_O_1 = C(s,1) B, V_2 = C(s,2) Phi^T B^T, W_4 = (3 C(s,4) + 2 C(s,3)) Q, P_4 = the same, Delta.
Gradient flow is the limit of many small steps, eta^m Theta_m(s) -> (s eta)^m Theta_{m,m} / m!.

Cost: M steps, each up to M^2 / 2 exact ones (measured: M = 10 costs 310 exact steps in all); memory about M^2 sets of weights.
A series is a list of its coefficients, None for 0.

Legend: N sequences, T positions, V vocabulary, M highest order, m an order, s steps, eta learning rate; S sequences of a block.
"""

from dataclasses import dataclass
from itertools import pairwise
from math import comb, factorial

import numpy as np
from scipy import sparse

from minitx.base import parallel
from minitx.base.checks import positive, whole_number
from minitx.base.numbers import norm
from minitx.data.batch import Batch
from minitx.model.weights import OneHotWeights

NAMES = ("W_O", "V", "W", "P")
BLOCK_BYTES = 64 << 20  # of the coefficients of a block's outputs. Fixed, so that the bits are
WAVE = 4  # blocks computed before what they add is added


@dataclass(frozen=True, eq=False)
class Expansion:
    """Coefficients of training from zero, as :func:`expand` finds them.

    Attributes
    ----------
    differences : dict {(m, d): OneHotWeights}
        Theta_{m,d}, 1 <= d <= m <= order, each array in the orientation of its weight. Pairs that are not there are 0.
    loss_differences : dict {(m, d): float}
        The same for the loss, 0 <= d <= m < order.
    order : int
        M, the highest order of the weights; that of the loss is M - 1.
    """

    differences: dict
    loss_differences: dict
    order: int

    def coefficient(self, m, *, steps):
        """Theta_m(s), the coefficient of eta^m in the weights after ``steps`` steps: OneHotWeights. ValueError: no such order."""
        whole_number("steps", steps, 0)
        if whole_number("m", m, 1) > self.order:
            raise ValueError(f"m is {m}, but the expansion has orders 1 to {self.order}; expand to a higher order")
        total = self.differences[1, 1].map(np.zeros_like)
        for d in range(1, m + 1):
            if (m, d) in self.differences:
                number = comb(steps, d)
                total = total.map(lambda a, b, number=number: a + number * b, self.differences[m, d])
        return total

    def weights(self, *, steps, learning_rate, order=None):
        """Partial sum of the weights after ``steps`` steps, up to ``order`` (default: all orders). Returns OneHotWeights."""
        learning_rate = positive("learning_rate", learning_rate)
        total = self.differences[1, 1].map(np.zeros_like)
        for m in range(1, self._up_to(order, self.order) + 1):
            total = total.map(lambda a, b, m=m: a + learning_rate**m * b, self.coefficient(m, steps=steps))
        return total

    def loss(self, *, steps, learning_rate, order=None):
        """Partial sum of the loss after ``steps`` steps, up to ``order`` (default, and at most: M - 1). Returns a float."""
        whole_number("steps", steps, 0)
        learning_rate = positive("learning_rate", learning_rate)
        order = self._up_to(order, self.order - 1)
        return sum(learning_rate**m * comb(steps, d) * value for (m, d), value in self.loss_differences.items() if m <= order)

    def sizes(self, *, steps, learning_rate):
        """Size of every order: {parameter: (M,) float64}, eta^m |Theta_m(s)| (Frobenius) for m = 1 .. M."""
        learning_rate = positive("learning_rate", learning_rate)
        terms = [self.coefficient(m, steps=steps).parameters() for m in range(1, self.order + 1)]
        scales = learning_rate ** np.arange(1, self.order + 1)
        return {name: scales * [norm(term[name]) for term in terms] for name in NAMES}

    def flow_sizes(self):
        """|Theta_{m,m}| / m!, m = 1 .. M: size of every order in powers of s eta, for many small steps. {parameter: (M,)}"""
        def size(name, m):
            there = self.differences.get((m, m))
            return 0.0 if there is None else norm(getattr(there, name)) / factorial(m)

        return {name: np.array([size(name, m) for m in range(1, self.order + 1)]) for name in NAMES}

    def radius(self, share=0.01):
        """The s eta up to which the last order is at most ``share`` of the first that is not zero: {parameter: float}.

        For many small steps: about where the partial sum of all orders stops being good to that share. nan where there are no two
        orders to compare.
        """
        share, found = positive("share", share), {}
        for name, size in self.flow_sizes().items():
            there = np.flatnonzero(size)
            first, last = (there[0], there[-1]) if len(there) else (0, 0)
            found[name] = float((share * size[first] / size[last]) ** (1 / (last - first))) if last > first else float("nan")
        return found

    @staticmethod
    def _up_to(order, largest):
        order = largest if order is None else whole_number("order", order, 0)
        if order > largest:
            raise ValueError(f"order is {order}, but only orders up to {largest} were computed; expand to a higher order")
        return order


@parallel.one_blas_thread()
def expand(batch, n_vocab, *, order, callback=None):
    """Coefficients of full-batch gradient descent from zero :class:`~minitx.model.weights.OneHotWeights`, up to eta^``order``.

    Parameters
    ----------
    batch : Batch
        Causal, cross-entropy: next-token training.
    n_vocab : int
        V; meant for V <= 500.
    order : int
        M, at least 1. W and P begin at order 4.
    callback : callable, optional
        ``callback(step, order)`` after each of the M steps in series arithmetic.

    Returns
    -------
    Expansion
        float64.

    Raises
    ------
    TypeError, ValueError
        Settings that cannot be; batches that are not next-token training.
    """
    order, n_vocab = whole_number("order", order, 1), whole_number("n_vocab", n_vocab, 2)
    if not isinstance(batch, Batch):
        raise TypeError(f"batch must be a Batch (tokens, targets, weight), got {type(batch).__name__}")
    batch.require_next_token()
    batch.require_vocabulary(n_vocab)
    batch = batch.with_loss()
    weights = {name: [None] * (order + 1) for name in NAMES}
    values, losses = [dict.fromkeys((name, m) for name in NAMES for m in range(order + 1))], []
    for step in range(order):
        loss, gradient = _loss_and_gradient(weights, batch, n_vocab, order)
        losses.append(loss)
        # Theta_m(s + 1) = Theta_m(s) - gradient_{m-1}(s)
        weights = {name: [None, *(_sum(weights[name][m], _scaled(-1.0, gradient[name][m - 1])) for m in range(1, order + 1))]
                   for name in NAMES}
        values.append({(name, m): weights[name][m] for name in NAMES for m in range(step + 1, order + 1)})  # the later are known
        if callback is not None:
            callback(step + 1, order)
    return Expansion(_newton(values, n_vocab, batch.tokens.shape[1], order), _newton_losses(losses, order), order)


def _newton(values, n_vocab, length, order):
    """Forward differences at s = 0, up to the m-th of order m, of the values at s = 0 .. order, which hold orders m >= s."""
    zeros = OneHotWeights.zeros(n_vocab, length).parameters()
    found = {}
    for d in range(1, order + 1):
        values = [{key: _sum(after[key], _scaled(-1.0, before[key])) for key in after}
                  for before, after in pairwise(values)]
        for m in range(d, order + 1):
            parts = {name: values[0][name, m] for name in NAMES}
            if any(part is not None for part in parts.values()):
                found[m, d] = OneHotWeights(**{name: zeros[name] if part is None else part for name, part in parts.items()})
    return found


def _newton_losses(losses, order):
    found, values = {}, np.array(losses)  # (s, m)
    for d in range(order):
        found |= {(m, d): float(values[0, m]) for m in range(d, order)}
        values = np.diff(values, axis=0)
    return found


# ------------------------------------------------------------------------------------- loss and gradient of a series of weights


def _loss_and_gradient(weights, batch, n_vocab, order):
    """Coefficients 0 .. order-1 of the loss, and of its gradient by every weight, at the series ``weights``."""
    W_O, V = (weights[name][:order] for name in ("W_O", "V"))
    tables = {"direct": W_O, "ov": _product(V, W_O, np.matmul), "qk": weights["W"][:order], "position": weights["P"][:order]}
    n, length = batch.tokens.shape
    size = max(1, BLOCK_BYTES // (8 * order * length * (n_vocab + length)))
    blocks = [slice(first, first + size) for first in range(0, n, size)]
    loss, d_tables = np.zeros(order), {name: [None] * order for name in tables}
    with parallel.workers(len(blocks)) as run:
        for first in range(0, len(blocks), WAVE):
            for part, pieces in run(lambda rows: _block(tables, batch, rows, n_vocab, order), blocks[first:first + WAVE]):
                loss += part
                d_tables = {name: [_sum(*pair) for pair in zip(d_tables[name], pieces[name], strict=True)] for name in tables}
        # direct = W_O, ov = V W_O: dW_O = d_direct + V^T d_ov, dV = d_ov W_O^T
        through = _product([None if v is None else v.T for v in V], d_tables["ov"], np.matmul)
        d_V = _product(d_tables["ov"], [None if w is None else w.T for w in W_O], np.matmul)
    d_W_O = [_sum(*pair) for pair in zip(d_tables["direct"], through, strict=True)]
    return loss, {"W_O": d_W_O, "V": d_V, "W": d_tables["qk"], "P": d_tables["position"]}


def _block(tables, batch, rows, n_vocab, order):
    """Loss coefficients of some sequences, and what they add to d_tables. Names as in circuits.py; every line is of series."""
    x, y, weight = batch.tokens[rows], batch.targets[rows], batch.weight[rows]
    n, length = x.shape
    t, j = np.arange(length)[:, None], np.arange(length)
    pairs, distance = (x[:, :, None].astype(np.int64) * n_vocab + x[:, None, :]), np.where(t >= j, t - j, 0)
    # 1  A = softmax over j <= t of qk[x_t, x_j] + position[t - j]
    scores = [_sum(None if qk is None else qk.ravel()[pairs], None if position is None else position[distance])
              for qk, position in zip(tables["qk"], tables["position"], strict=True)]
    A, _ = _softmax(scores, np.broadcast_to((t >= j).astype(np.float64), (n, length, length)))
    # 2  out = direct[x_t, :] + sum_j A_tj ov[x_j, :]
    ov = [None if table is None else table[x] for table in tables["ov"]]
    out = [_sum(attended, None if table is None else table[x])
           for attended, table in zip(_product(A, ov, np.matmul), tables["direct"], strict=True)]
    # 3  loss = sum weight (log Z - out_y),  dout = weight (softmax(out) - onehot(y))
    p, Z = _softmax(out, np.ones((n, length, n_vocab)))
    loss = np.array([_total(weight, log_Z) for log_Z in _log([_at(z, 0) for z in Z])])
    loss -= [_total(weight, None if o is None else np.take_along_axis(o, y[:, :, None], axis=2)[:, :, 0]) for o in out]
    dout = [_scaled(weight[:, :, None], share) for share in p]
    dout[0][np.arange(n)[:, None], np.arange(length), y] -= weight
    # 2  back: d_direct[x_t, :] += dout_t,  d_ov[x_j, :] += sum_t A_tj dout_t,  dA_tj = dout_t . ov[x_j, :]
    words = sparse.csr_array((np.ones(x.size), (x.ravel(), np.arange(x.size))), shape=(n_vocab, x.size))
    d_ov = _product([None if a is None else a.transpose(0, 2, 1) for a in A], dout, np.matmul)
    dA = _product(dout, [None if rows_ is None else rows_.transpose(0, 2, 1) for rows_ in ov], np.matmul)
    # 1  back: dscore = A (dA - sum_k A_k dA_k)
    A_dA = _product(A, dA, np.multiply)
    mean = _product(A, [None if a is None else a.sum(axis=2, keepdims=True) for a in A_dA], np.multiply)
    dscore = [_sum(a, _scaled(-1.0, b)) for a, b in zip(A_dA, mean, strict=True)]
    distances = np.broadcast_to(distance, pairs.shape).reshape(-1)
    return loss, {
        "direct": [None if d is None else words @ d.reshape(-1, n_vocab) for d in dout],
        "ov": [None if d is None else words @ d.reshape(-1, n_vocab) for d in d_ov],
        "qk": [None if d is None else np.bincount(pairs.reshape(-1), d.reshape(-1), n_vocab**2).reshape(n_vocab, n_vocab)
               for d in dscore],
        "position": [None if d is None else np.bincount(distances, d.reshape(-1), length) for d in dscore]}


# -------------------------------------------------------------------------------------------- power series, cut at their length


def _product(a, b, multiply):
    """(a b)_m = sum_k a_k b_{m-k}."""
    product = [None] * len(a)
    for i, left in enumerate(a):
        for k in range(len(a) - i):
            if left is not None and b[k] is not None:
                product[i + k] = _sum(product[i + k], multiply(left, b[k]))
    return product


def _softmax(a, allowed):
    """Softmax over the last axis of a series without constant term, ``allowed`` saying where it is not 0; and its sums Z.

    E = exp(a): E_0 = allowed, m E_m = sum_{k=1}^m k a_k E_{m-k}.  p = E / Z: p_m = (E_m - sum_{k=1}^m Z_k p_{m-k}) / Z_0.
    """
    if a[0] is not None:
        raise ValueError("the series has a constant term: the expansion is about zero weights")
    E, p = [allowed], []
    for m in range(1, len(a)):
        E.append(_scaled(1 / m, _sum(*(k * a[k] * E[m - k] for k in range(1, m + 1) if a[k] is not None and E[m - k] is not None))))
    Z = [None if e is None else e.sum(axis=-1, keepdims=True) for e in E]
    for m in range(len(a)):
        less = _sum(*(Z[k] * p[m - k] for k in range(1, m + 1) if Z[k] is not None and p[m - k] is not None))
        p.append(_scaled(1 / Z[0], _sum(E[m], _scaled(-1.0, less))))
    return p, Z


def _log(a):
    """log of a series: l_0 = log a_0, l_m = (a_m - sum_{k=1}^{m-1} (k/m) l_k a_{m-k}) / a_0."""
    log = [np.log(a[0])]
    for m in range(1, len(a)):
        less = _sum(*(-k / m * log[k] * a[m - k] for k in range(1, m) if log[k] is not None and a[m - k] is not None))
        log.append(_scaled(1 / a[0], _sum(a[m], less)))
    return log


def _sum(*terms):
    """Sum of coefficients, None being 0."""
    total = None
    for term in terms:
        if term is not None:
            total = term if total is None else total + term
    return total


def _scaled(factor, a):
    return None if a is None else factor * a


def _at(a, index):
    return None if a is None else a[..., index]


def _total(weight, a):
    return 0.0 if a is None else float(np.sum(weight * a))
