"""What a block adds to the gradient's tables, and the memory in which it is computed.

Legend: V vocabulary; of a block of S sequences: M queries, T keys, U distinct tokens.
"""

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minitx.base.parallel import workers
from minitx.model import kernels
from minitx.model.blocks import Block
from minitx.model.parameters import Array

TABLES = {"direct": 2, "bias": 1, "ov": 2, "qk": 2, "position": 1}  # {name of the circuit: number of dimensions}


@dataclass(frozen=True, eq=False)
class Pieces:
    """A block's derivatives before they are scattered into the tables. What is None adds nothing.

    d_direct[word u] += G_u, d_bias += G_u, d_ov[word u] += D_u, d_qk[x_t, x_j] += dscore_tj and d_position[t - j] +=
    dscore_tj.
    """

    G: Array | None = None  # (S, U, V) the sum of dL/dout_t over the queries t that hold the word
    D: Array | None = None  # (S, U, V)
    dscore: Array | None = None  # (S, M, T)


def add_pieces(block: Block, pieces: Pieces, tables: dict[str, Array]) -> None:
    """Add the pieces of a block to the tables {name of the circuit: writeable array}, of which any may be absent."""
    def given(array, ndim):
        return np.empty((0,) * ndim, block.mass.dtype) if array is None else array

    direct, bias, ov, qk, position = (given(tables.get(name), ndim) for name, ndim in TABLES.items())
    kernels.add_pieces(block.words, block.n_words, given(pieces.G, 3), direct, bias, given(pieces.D, 3), ov,
                       block.current, block.n_queries, block.keys, block.queries, block.causal, given(pieces.dscore, 3),
                       qk, position)


def sum_all(compute: Callable[[Any], tuple[float, Block, Pieces]], items: Sequence,
            like: dict[str, Array]) -> tuple[float, dict[str, Array]]:
    """``compute(item)`` of all items is (loss, block, pieces): the sum of the losses, and the tables of the pieces.

    There is at least one item. The tables have the names, shapes and dtype of those of ``like``. Items are computed in
    parallel. Those of odd number are added to a second set of tables, so that two threads can add at once, and this set
    is added to the first one at the end. The order of every sum, and so each bit, is the same for any number of
    threads.
    """
    losses = np.zeros(len(items))
    lines: list[dict[str, Array]] = [{}, {}]

    def numbered(item):
        number, one = item
        return number, *compute(one)

    def add(computed):
        number, losses[number], block, pieces = computed
        if number < 2:  # here, because the other threads compute meanwhile
            lines[number].update({name: np.zeros_like(table) for name, table in like.items()})
        add_pieces(block, pieces, lines[number % 2])

    with workers(len(items)) as run:
        run.in_turn(numbered, add, list(enumerate(items)), 2)
    tables, others = lines
    for name, table in others.items():  # where V is small, other threads would be awake too late
        tables[name] += table
    return float(losses.sum()), tables


class Workspace(threading.local):
    """Memory for the large arrays of a block, used again for the next block; every thread that uses it has its own.

    New memory costs more than the passes over it: the system hands it out page by page, and it is in no cache.
    """

    def __init__(self) -> None:
        self._memory: dict[str, Array] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
        """An array of this name with any values; it is overwritten when the same name is asked for again."""
        size = math.prod(shape)
        if name not in self._memory or self._memory[name].size < size:
            self._memory[name] = np.empty(size, dtype)
        return self._memory[name][:size].reshape(shape)
