"""One attention layer, its gradient by hand, and what it learns of a text: python experiments/one_layer.py [TEXT]

The model is Definition 3.1 of Im, Oh, Fang, Li (ICLR 2026, arXiv 2601.19208) with one layer. N sequences of T tokens
are stacked in X (N T x V): each row is the one-hot vector of a token, and the same row of Y is that of the next token.
The weights W_O, V, W (V x V) and P (T) take s steps of gradient descent from zero with learning rate eta. They then are
nearly statistics of the text (`leading_weights`), and `terms` splits the gradient exactly. TEXT is a file to read.
"""
import sys
from collections import namedtuple
from math import comb
from pathlib import Path

import numpy as np

SENTENCES = """The cat sat on the mat. The dog sat on the rug. The cat saw the bird. The dog saw the cat. The bird sang.
The girl fed the cat. The boy fed the dog. The girl has a red ball. The boy has a blue ball. The dog saw the red ball.
The cat ran to the mat. The bird flew to the tree. A girl sat in the tree. A boy sat on the mat. The dog ran to the boy.
The happy cat ran to the girl. The bird saw a blue ball. The boy saw a bird. The girl sang to a boy. A dog sat."""
LENGTH, ETA, SHOWN = 8, 1.0, (0, 1, 2, 3, 5, 10, 15, 20, 25, 30)  # Training ends at the last step that is shown.
ROW = "{:44}" + 4 * "{:#10.4g}"
Weights = namedtuple("Weights", "W_O V W P")  # A gradient has the same four parts. V alone is the value matrix.

def windows(text, T):
    """Cut the first 600 words and signs of a text into sequences, and return X and Y."""
    words = "".join(c if c.isalpha() else f" {c} " for c in text.lower()).split()[:600]
    if len(words) <= T or len(set(words)) < 2:
        raise SystemExit(f"The text has {len(words)} words; give one of more than {T} that are not all the same.")
    one_hot = 1.0 * (np.array(words)[:, None] == np.unique(words))  # Row = position in the text, column = word.
    whole = (len(words) - 1) // T * T  # What is left over at the end is not a whole sequence.
    return one_hot[:whole], one_hot[1:whole + 1]

def zeros(X, T):
    """The weights from which training starts: output and attention are uniform."""
    return Weights(*np.zeros((3, X.shape[1], X.shape[1])), np.zeros(T))

def softmax(scores):
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)

def forward(weights, X, Y):
    """Return the loss, the attention A (N T x N T) and the probabilities p (N T x V) of the next token."""
    (W_O, V, W, P), t = weights, np.arange(len(X))
    distance = t[:, None] - t  # Row t is the position that attends, column j the one that it attends to.
    allowed = (distance >= 0) & (distance <= t[:, None] % len(P))  # j is in the same sequence, not after t.
    scores = X @ W @ X.T + P[allowed * distance]  # 1: P[t - j] is added to the score of t and j.
    A = softmax(np.where(allowed, scores, -np.inf))  # 2
    h = X + A @ X @ V  # 3: Attention adds what it reads to the residual stream.
    p = softmax(h @ W_O)  # 4: The logits are F = h W_O.
    return -np.log((p * Y).sum(axis=1)).mean(), A, p  # 5: The loss is the mean over N T positions.

def backward(weights, X, Y, A, p):
    """The exact gradient dL/dweights: the lines of `forward` in reverse. The name dF stands for dL/dF, and so on."""
    dF = (p - Y) / len(X)  # 5 and 4: This is the derivative of -log softmax(F)[y], over N T positions.
    dW_O, dh = (X + A @ X @ weights.V).T @ dF, dF @ weights.W_O.T  # 4: F = h W_O
    dV, dA = (A @ X).T @ dh, dh @ (X @ weights.V).T  # 3: h = X + A X V
    return Weights(dW_O, dV, *backward_scores(A, dA, X, len(weights.P)))

def backward_scores(A, dA, X, T):
    """The way back from dA to dW and dP: X W X^T + P gives the scores, and their softmax A."""
    dscores = A * (dA - (A * dA).sum(axis=1, keepdims=True))  # 2: A is a softmax, and 0 where attention is not allowed.
    return X.T @ dscores @ X, np.array([np.trace(dscores, offset=-r) for r in range(T)])  # 1: P[r] is on diagonal -r.

def train(X, Y, T, eta, steps):
    """Descend from zero, and yield the step, the loss and the weights, from step 0 on."""
    weights = zeros(X, T)
    for step in range(steps + 1):
        loss, A, p = forward(weights, X, Y)
        yield step, loss, weights
        gradient = backward(weights, X, Y, A, p)
        weights = Weights(*(weight - eta * slope for weight, slope in zip(weights, gradient, strict=True)))

def leading_weights(X, Y, T, s, eta):
    """The leading terms of the weights after s steps (Theorem D.7): statistics of the text, found without training."""
    _, A0, p0 = forward(zeros(X, T), X, Y)  # A0 gives 1/t to each of the t tokens so far; p0 is 1/V.
    rho0 = (Y - p0) / len(X)  # This is -dF while the output is uniform.
    B = X.T @ rho0  # bigrams: B[a, b] = P(a then b) - P(a) / V
    Phi = rho0.T @ A0 @ X  # contexts: Phi[b, a] says how much of what precedes b is a, beyond the mean over b.
    Sigma_B = B.T @ B  # interchangeability: it is large for two tokens that follow the same tokens.
    Q, Delta = backward_scores(A0, rho0 @ (X @ Phi.T @ Sigma_B).T, X, T)  # The row token of Q attends to the column.
    attention = (3 * comb(s, 4) + 2 * comb(s, 3)) * eta**4
    return Weights(s * eta * B, comb(s, 2) * eta**2 * Phi.T @ B.T, attention * Q, attention * Delta)

def terms(weights, leading, X, Y):
    """Split the gradient exactly: write each factor as its reference value [0] plus the rest [1], and multiply out."""
    T, ov = len(weights.P), leading.V @ leading.W_O
    (_, A0, p0), (_, A, p) = forward(zeros(X, T), X, Y), forward(weights, X, Y)
    dF = (p0 - Y) / len(X), (p - p0) / len(X)  # saturation: The output is no longer uniform.
    context = A0 @ X, (A - A0) @ X  # attention drift: Attention is no longer uniform.
    W_O = leading.W_O, weights.W_O - leading.W_O  # weight drift: The weights have left their leading terms,
    V_W_O = ov, weights.V @ weights.W_O - ov  # and so has their product, through which attention acts on the output.
    split = Weights({"leading": X.T @ dF[0], "saturation": X.T @ dF[1]}, {}, {}, {})  # X also reaches F directly.
    for s, a, w in np.ndindex(2, 2, 2):
        name = " x ".join(np.extract((s, a, w), ("saturation", "attention drift", "weight drift"))) or "leading"
        if w:  # What comes through attention is multiplied by V, whose reference value here is 0: V is all drift.
            split.W_O[name] = weights.V.T @ context[a].T @ dF[s]
        split.V[name] = context[a].T @ dF[s] @ W_O[w].T
        dA = dF[s] @ (X @ V_W_O[w]).T
        (W_0, P_0), (W_A, P_A) = backward_scores(A0, dA, X, T), backward_scores(A, dA, X, T)
        split.W[name], split.P[name] = (W_A - W_0, P_A - P_0) if a else (W_0, P_0)
    return split

def main():
    if sys.argv[1:] and not Path(sys.argv[1]).is_file():
        sys.exit(print(f"one_layer.py: error: there is no file {sys.argv[1]}; check the name", file=sys.stderr) or 2)
    X, Y = windows(Path(sys.argv[1]).read_text(encoding="utf-8") if sys.argv[1:] else SENTENCES, LENGTH)
    print(f"{len(X) // LENGTH} sequences of {LENGTH} tokens, {X.shape[1]} different ones; learning rate {ETA}.")
    print("\nCosine of each weight and its leading term         W_O         V         W         P (nan: still zero)")
    for step, loss, weights in train(X, Y, LENGTH, ETA, SHOWN[-1]):
        if step in SHOWN:
            leading = leading_weights(X, Y, LENGTH, step, ETA)
            cosines = map(lambda a, b: np.vdot(a, b) / (np.vdot(a, a) * np.vdot(b, b) or np.nan)**0.5, weights, leading)
            print(ROW.format(f"step {step:3}, loss {loss:.4f}", *cosines))
    print(f"\nNorm of each term of the gradient at step {step} (nan: this parameter has no such term)")
    split, gradient = terms(weights, leading, X, Y), backward(weights, X, Y, *forward(weights, X, Y)[1:])
    for name in split.W:
        print(ROW.format(name, *(np.linalg.norm(part.get(name, np.nan)) for part in split)))
    errors = (abs(sum(part.values()) - slope).max() for part, slope in zip(split, gradient, strict=True))
    print(ROW.format("largest |sum of the terms - gradient|", *errors))
if __name__ == "__main__":
    main()
