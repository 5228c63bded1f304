"""The numba kernel of the topics theory: averages over pairs."""

from minitx.base.compiling import kernel


@kernel
def sums_within_topics(matrix, topics, sums):
    """sums[s] = sum over b < a with topics[s, a] == topics[s, b] of matrix[a, b]; (n, n), (S, n), (S,)."""
    for s in range(topics.shape[0]):
        topic = topics[s]
        total = 0.0
        for a in range(matrix.shape[0]):
            row, own = matrix[a], topic[a]
            for b in range(a):
                total += row[b] if topic[b] == own else 0.0
        sums[s] = total
