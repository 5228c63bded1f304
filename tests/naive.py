"""Slow oracles: the equations of the papers as plain loops, importing nothing from minitx.

Legend
------
N sequences, T positions, V vocabulary. Loops run over i (sequence), t (query position), j and k (key positions),
all counted from 0; a, b, c are tokens. x = tokens[i], y = targets[i]. In code V is `n_vocab`; the name `V` is kept
for the value matrix of the one-hot model, as in the paper.

Circuits (DESIGN.md), each possibly None, meaning absent (zero, and no gradient):

    direct    (V, V)  row = current token,  column = output token
    ov        (V, V)  row = attended token, column = output token
    qk        (V, V)  row = query token,    column = key token
    position  (T,)    entry r = score of distance r = t - j >= 0; a key after its query (j > t) gets none
    bias      (V,)    entry = output token

One-hot model (Im et al. 2026, Definition 3.1), one layer: direct = W_O, ov = V W_O, qk = W, position = P.

tokens, targets: integers (N, T); weight: real (N, T); lengths: integers (N,), keys at j >= lengths[i] are padding.
mass: real (N, T) >= 0, or None for 1 everywhere: A_tj is proportional to mass_j exp(score_tj).
Tokens that are padding, and targets of weight 0, are never looked up. The losses are complex-safe: analytic in
every table, so that Im loss(table + i h) / h is the derivative of the loss to rounding.
"""

import numpy as np

COMPLEX_STEP = 1e-30


# ---------------------------------------------------------------------------------------------------------------------
# Small pieces
# ---------------------------------------------------------------------------------------------------------------------


def number_type(*tables):
    """complex128 if any of the tables is complex, float64 otherwise; None tables are skipped."""
    return np.result_type(np.float64, *[table for table in tables if table is not None])


def onehot(a, n_vocab):
    """Row (V,): 1 at token a, 0 elsewhere."""
    row = np.zeros(n_vocab)
    row[a] = 1.0
    return row


def softmax(row):
    """Row (n,) of exp(row) / sum exp(row). The shift is real, so the function stays analytic."""
    shifted = np.exp(row - np.max(row.real))
    return shifted / np.sum(shifted)


def product(left, right):
    """Matrix product, row by row: row a of the result = sum_c left[a, c] right[c, :]."""
    result = np.zeros((left.shape[0], right.shape[1]), dtype=number_type(left, right))
    for a in range(left.shape[0]):
        for c in range(left.shape[1]):
            result[a, :] += left[a, c] * right[c, :]
    return result


def allowed_keys(n_positions, t, causal, length):
    """List of the key positions j that query t may attend to: j < length, and j <= t if causal."""
    keys = []
    for j in range(n_positions):
        if j < length and (j <= t or not causal):
            keys.append(j)
    return keys


def length_of(lengths, i, n_positions):
    """Number of real (not padding) tokens of sequence i; T when lengths is None."""
    return n_positions if lengths is None else int(lengths[i])


def sigma(attention_row, delta):
    """Gradient through the softmax: sigma_tj = A_tj (delta_tj - sum_k A_tk delta_tk). Rows (T,) over keys j."""
    mean = 0.0
    for k in range(len(delta)):
        mean = mean + attention_row[k] * delta[k]
    row = np.zeros(len(delta), dtype=number_type(attention_row, delta))
    for j in range(len(delta)):
        row[j] = attention_row[j] * (delta[j] - mean)
    return row


# ---------------------------------------------------------------------------------------------------------------------
# Circuits: forward (DESIGN.md, 'One model for all three')
# ---------------------------------------------------------------------------------------------------------------------


def attention(tokens_i, qk, position, t, causal, length, mass_i=None):
    """Row t of the attention, (T,): entry j is the weight of key position j, 0 where j is not allowed or has no mass.

    score_tj = qk[x_t, x_j] + position[t - j];  A_tj = mass_j exp(score_tj) / sum_k mass_k exp(score_tk) of allowed k.
    No allowed key at all (length = 0): the row is zero.
    """
    row = np.zeros(len(tokens_i), dtype=number_type(qk, position))
    keys = [j for j in allowed_keys(len(tokens_i), t, causal, length) if mass_i is None or mass_i[j] > 0]
    if not keys:
        return row
    scores = np.zeros(len(keys), dtype=row.dtype)
    for n, j in enumerate(keys):
        if qk is not None:
            scores[n] += qk[tokens_i[t], tokens_i[j]]
        if position is not None and j <= t:
            scores[n] += position[t - j]
    weights = softmax(scores)
    total = 0.0
    for n, j in enumerate(keys):
        row[j] = weights[n] * (1.0 if mass_i is None else mass_i[j])
        total = total + row[j]
    return row / total


def uniform_attention(n_positions, t, causal, length):
    """Row t of the reference attention A0, (T,): 1 / (number of allowed keys) on each allowed key, 0 elsewhere."""
    row = np.zeros(n_positions)
    keys = allowed_keys(n_positions, t, causal, length)
    for j in keys:
        row[j] = 1.0 / len(keys)
    return row


def output(direct, ov, qk, position, bias, tokens_i, t, causal, length, mass_i=None):
    """Row (V,) over output tokens: out_t = direct[x_t, :] + sum_j A_tj ov[x_j, :] + bias."""
    n_vocab = [table.shape[-1] for table in (direct, ov, bias) if table is not None][0]
    out = np.zeros(n_vocab, dtype=number_type(direct, ov, qk, position, bias))
    if direct is not None:
        out += direct[tokens_i[t], :]
    if ov is not None:
        attention_row = attention(tokens_i, qk, position, t, causal, length, mass_i)
        for j in allowed_keys(len(tokens_i), t, causal, length):
            out += attention_row[j] * ov[tokens_i[j], :]
    if bias is not None:
        out += bias
    return out


def head_value(out, target, head):
    """Loss of one output row (V,) against its target token y.

    cross_entropy: -log softmax(out)[y];  squared: sum_b (out_b - 1(b = y))^2;  log: -log(out[y]).
    """
    if head == "cross_entropy":
        shift = np.max(out.real)
        return np.log(np.sum(np.exp(out - shift))) - (out[target] - shift)
    if head == "squared":
        error = out - onehot(target, len(out))
        return np.sum(error * error)
    if head == "log":
        return -np.log(out[target])
    raise ValueError(f"head is {head!r}; need 'cross_entropy', 'squared' or 'log'")


def head_residual(out, target, head):
    """Row (V,): rho = -d head / d out."""
    if head == "cross_entropy":
        return onehot(target, len(out)) - softmax(out)
    if head == "squared":
        return 2.0 * (onehot(target, len(out)) - out)
    if head == "log":
        return onehot(target, len(out)) / out[target]
    raise ValueError(f"head is {head!r}; need 'cross_entropy', 'squared' or 'log'")


def loss(
    direct, ov, qk, position, bias, tokens, targets, weight, *, lengths=None, causal=True, head="cross_entropy",
    mass=None
):
    """Sum over i and t with weight[i, t] != 0 of weight[i, t] * head(out_t, y_t); a scalar, complex-safe."""
    n_sequences, n_positions = tokens.shape
    total = 0.0
    for i in range(n_sequences):
        length = length_of(lengths, i, n_positions)
        for t in range(n_positions):
            if weight[i, t] == 0:
                continue
            own_mass = None if mass is None else mass[i]
            out = output(direct, ov, qk, position, bias, tokens[i], t, causal, length, own_mass)
            total = total + weight[i, t] * head_value(out, targets[i, t], head)
    return total


# ---------------------------------------------------------------------------------------------------------------------
# Circuits: backward (DESIGN.md, 'The exact gradient, and its terms')
# ---------------------------------------------------------------------------------------------------------------------


def gradient(
    direct, ov, qk, position, bias, tokens, targets, weight, *, lengths=None, causal=True, head="cross_entropy",
    mass=None
):
    """d loss / d table, a dict with the keys of the tables that are not None, each shaped and oriented as its table.

    With rho_t = -d head / d out_t and w_t = weight[i, t]:

        -dL/d direct      = sum_t w_t onehot(x_t) rho_t^T
        -dL/d ov          = sum_t w_t sum_j A_tj onehot(x_j) rho_t^T
        -dL/d bias        = sum_t w_t rho_t
        delta_tj          = rho_t . ov[x_j, :]
        sigma_tj          = A_tj (delta_tj - sum_k A_tk delta_tk)
        -dL/d qk          = sum_t w_t sum_j sigma_tj onehot(x_t) onehot(x_j)^T
        -dL/d position[r] = sum_t w_t sum_{j: t-j=r} sigma_tj
    """
    n_sequences, n_positions = tokens.shape
    tables = {"direct": direct, "ov": ov, "qk": qk, "position": position, "bias": bias}
    gradients = {name: np.zeros(table.shape) for name, table in tables.items() if table is not None}
    for i in range(n_sequences):
        x = tokens[i]
        length = length_of(lengths, i, n_positions)
        for t in range(n_positions):
            w = weight[i, t]
            if w == 0:
                continue
            mass_i = None if mass is None else mass[i]
            out = output(direct, ov, qk, position, bias, x, t, causal, length, mass_i)
            rho = head_residual(out, targets[i, t], head)
            if direct is not None:
                gradients["direct"][x[t], :] -= w * rho
            if bias is not None:
                gradients["bias"] -= w * rho
            if ov is None:
                continue
            keys = allowed_keys(n_positions, t, causal, length)
            attention_row = attention(x, qk, position, t, causal, length, mass_i)
            delta = np.zeros(n_positions)
            for j in keys:
                gradients["ov"][x[j], :] -= w * attention_row[j] * rho
                delta[j] = np.sum(rho * ov[x[j], :])
            sigma_row = sigma(attention_row, delta)
            for j in keys:
                if qk is not None:
                    gradients["qk"][x[t], x[j]] -= w * sigma_row[j]
                if position is not None and j <= t:
                    gradients["position"][t - j] -= w * sigma_row[j]
    return gradients


def reference_gradient(tokens, targets, weight, n_vocab, ov, *, lengths=None, causal=True):
    """DESCENT direction (minus the gradient) at the reference point: a dict direct, ov, qk (V, V) and position (T,).

    The same sums as in `gradient`, with rho0_t = onehot(y_t) - 1/V in the place of rho_t, A0 uniform over the allowed
    keys in the place of A, and delta_tj = rho0_t . ov[x_j, :] for the given ov table (V, V).
    """
    n_sequences, n_positions = tokens.shape
    descent = {name: np.zeros((n_vocab, n_vocab)) for name in ("direct", "ov", "qk")}
    descent["position"] = np.zeros(n_positions)
    for i in range(n_sequences):
        x = tokens[i]
        length = length_of(lengths, i, n_positions)
        for t in range(n_positions):
            w = weight[i, t]
            if w == 0:
                continue
            rho0 = onehot(targets[i, t], n_vocab) - 1.0 / n_vocab
            descent["direct"][x[t], :] += w * rho0
            keys = allowed_keys(n_positions, t, causal, length)
            attention_row = uniform_attention(n_positions, t, causal, length)
            delta = np.zeros(n_positions)
            for j in keys:
                descent["ov"][x[j], :] += w * attention_row[j] * rho0
                delta[j] = np.sum(rho0 * ov[x[j], :])
            sigma_row = sigma(attention_row, delta)
            for j in keys:
                descent["qk"][x[t], x[j]] += w * sigma_row[j]
                if j <= t:
                    descent["position"][t - j] += w * sigma_row[j]
    return descent


# ---------------------------------------------------------------------------------------------------------------------
# Corpus statistics (Im et al. 2026; associations.md, 'The three basis functions' and 'Composed')
# ---------------------------------------------------------------------------------------------------------------------


def prefix_share(x, t, n_vocab):
    """Row (V,): entry a = (count of a among the tokens up to and including position t) / (number of these tokens)."""
    row = np.zeros(n_vocab)
    for j in range(t + 1):
        row[x[j]] += 1.0
    return row / (t + 1)


def statistics(tokens, targets, n_vocab):
    """B, Sigma_B, Phi, Q, Delta and alpha of a corpus, every position with weight 1/(N T), causal prefixes.

    bigram             (V, V)  B[a, b] = P(a then b) - alpha_a / V; row = current token, column = next token
    interchangeability (V, V)  Sigma_B = B^T B; symmetric
    context            (V, V)  Phi[b, a] = 1/(NT) sum_{i,t} 1(y_t = b) (count of a in x_1..x_t)/t - mu_a,
                               mu_a = (1/V) 1/(NT) sum_{i,t} (count of a in x_1..x_t)/t; row = next token b,
                               column = token a of its prefix
    attention          (V, V)  Q[a, c] = 1/(NT) sum_{i,t,j} q_tj 1(x_t = a) 1(x_j = c); row = query, column = key
    position           (T,)    Delta[r] = 1/(NT) sum_i sum_{t-j=r} q_tj
    frequency          (V,)    alpha_a = relative frequency of a among the inputs x_t

    where G = Sigma_B Phi, g_tj = G[y_t, x_j] - mean_b G[b, x_j], q_tj = (g_tj - mean_{k<=t} g_tk) / t for j <= t.
    """
    n_sequences, n_positions = tokens.shape
    n_total = n_sequences * n_positions

    alpha = np.zeros(n_vocab)
    pair = np.zeros((n_vocab, n_vocab))
    for i in range(n_sequences):
        for t in range(n_positions):
            alpha[tokens[i, t]] += 1.0 / n_total
            pair[tokens[i, t], targets[i, t]] += 1.0 / n_total
    bigram = np.zeros((n_vocab, n_vocab))
    for a in range(n_vocab):
        for b in range(n_vocab):
            bigram[a, b] = pair[a, b] - alpha[a] / n_vocab

    interchangeability = np.zeros((n_vocab, n_vocab))
    for b in range(n_vocab):
        for c in range(n_vocab):
            for a in range(n_vocab):
                interchangeability[b, c] += bigram[a, b] * bigram[a, c]

    context = np.zeros((n_vocab, n_vocab))
    mu = np.zeros(n_vocab)
    for i in range(n_sequences):
        for t in range(n_positions):
            share = prefix_share(tokens[i], t, n_vocab)
            context[targets[i, t], :] += share / n_total
            mu += share / (n_vocab * n_total)
    for b in range(n_vocab):
        context[b, :] -= mu

    g_table = product(interchangeability, context)  # G: row = output token, column = key token
    attention_table = np.zeros((n_vocab, n_vocab))
    position_table = np.zeros(n_positions)
    for i in range(n_sequences):
        x = tokens[i]
        for t in range(n_positions):
            g = np.zeros(t + 1)
            for j in range(t + 1):
                g[j] = g_table[targets[i, t], x[j]] - np.sum(g_table[:, x[j]]) / n_vocab
            for j in range(t + 1):
                q = (g[j] - np.sum(g) / (t + 1)) / (t + 1)
                attention_table[x[t], x[j]] += q / n_total
                position_table[t - j] += q / n_total

    return {
        "bigram": bigram,
        "interchangeability": interchangeability,
        "context": context,
        "attention": attention_table,
        "position": position_table,
        "frequency": alpha,
    }


# ---------------------------------------------------------------------------------------------------------------------
# The one-hot model (Im et al. 2026, Definition 3.1), one layer
# ---------------------------------------------------------------------------------------------------------------------


def one_hot_loss(W_O, V, W, P, tokens, targets):
    """Mean over N x T of the cross-entropy of the model as the paper writes it, with one-hot matrices; complex-safe.

    X (T, V): row t = onehot(x_t). A = softmax(mask(X W X^T + DM(P))) (T, T): row = query position, column = key
    position, DM(P)[t, j] = P[t - j] for j <= t. h = X + A X V (T, V). F = h W_O (T, V): row t = logits of y_t.

    W_O (V, V): row = coordinate of h, column = output token. V (V, V): row = attended token, column = coordinate
    of h. W (V, V): row = query token, column = key token. P (T,): entry = distance.
    """
    n_sequences, n_positions = tokens.shape
    n_vocab = W_O.shape[0]
    total = 0.0
    for i in range(n_sequences):
        X = np.zeros((n_positions, n_vocab))
        for t in range(n_positions):
            X[t, tokens[i, t]] = 1.0
        DM = np.zeros((n_positions, n_positions), dtype=number_type(P))
        for t in range(n_positions):
            for j in range(t + 1):
                DM[t, j] = P[t - j]
        score = X @ W @ X.T + DM
        A = np.zeros((n_positions, n_positions), dtype=number_type(score))
        for t in range(n_positions):
            A[t, : t + 1] = softmax(score[t, : t + 1])
        h = X + A @ X @ V
        F = h @ W_O
        for t in range(n_positions):
            shift = np.max(F[t].real)
            total = total + np.log(np.sum(np.exp(F[t] - shift))) - (F[t, targets[i, t]] - shift)
    return total / (n_sequences * n_positions)


def one_hot_gradient(W_O, V, W, P, tokens, targets):
    """d one_hot_loss / d parameter, a dict W_O, V, W, P shaped as the parameters: complex step, entry by entry."""
    parameters = {"W_O": W_O, "V": V, "W": W, "P": P}
    gradients = {}
    for name in parameters:
        gradients[name] = np.zeros(parameters[name].shape)
        for index in np.ndindex(parameters[name].shape):
            moved = dict(parameters)
            moved[name] = parameters[name].astype(np.complex128)
            moved[name][index] += 1j * COMPLEX_STEP
            value = one_hot_loss(moved["W_O"], moved["V"], moved["W"], moved["P"], tokens, targets)
            gradients[name][index] = value.imag / COMPLEX_STEP
    return gradients


def term_name(saturation, attention_drift, weight_drift):
    """Name of the product of factors in which the flagged ones are not the leading ones."""
    names = []
    if saturation:
        names.append("saturation")
    if attention_drift:
        names.append("attention drift")
    if weight_drift:
        names.append("weight drift")
    return " x ".join(names) if names else "leading"


def gradient_terms(W_O, V, W, P, tokens, targets, W_O_lead, V_lead):
    """The exact split of dL/dparameter (not minus) of the one-hot model: {parameter: {term: array}}.

    Each factor of the gradient is a leading part plus the rest:

        rho = rho0 + drho     rho0 = onehot(y) - 1/V, drho = 1/V - p                        rest: 'saturation'
        A   = A0 + dA         A0 uniform over the prefix; sigma: sigma at A0, and the rest  rest: 'attention drift'
        weights brought in by the chain rule                                                rest: 'weight drift'
            in dL/dV:        W_O    = W_O_lead + (W_O - W_O_lead)
            in dL/dW, dL/dP: V W_O  = V_lead W_O_lead + (V W_O - V_lead W_O_lead)
            in dL/dW_O:      V      = 0 + V

    Term by term, with w = 1/(N T):

        -dL/dW_O  = sum_t w onehot(x_t) rho_t^T + V^T sum_t w sum_j A_tj onehot(x_j) rho_t^T
        -dL/dV    = sum_t w sum_j A_tj onehot(x_j) (W_O rho_t)^T
        -dL/dW    = sum_t w sum_j sigma_tj onehot(x_t) onehot(x_j)^T
        -dL/dP[r] = sum_t w sum_{j: t-j=r} sigma_tj
        sigma_tj  = A_tj (delta_tj - sum_k A_tk delta_tk),  delta_tj = rho_t . (V W_O)[x_j, :]

    A term is named by its non-leading factors (`term_name`). V, W and P have 8 terms; W_O has 6, as the direct path
    holds neither A nor V. The terms of a parameter sum to its gradient.
    """
    n_sequences, n_positions = tokens.shape
    n_vocab = W_O.shape[0]
    w = 1.0 / (n_sequences * n_positions)
    ov = product(V, W_O)
    ov_lead = product(V_lead, W_O_lead)

    terms = {"W_O": {}, "V": {}, "W": {}, "P": {}}
    for saturation in (False, True):
        terms["W_O"][term_name(saturation, False, False)] = np.zeros(W_O.shape)
        for attention_drift in (False, True):
            terms["W_O"][term_name(saturation, attention_drift, True)] = np.zeros(W_O.shape)
            for weight_drift in (False, True):
                name = term_name(saturation, attention_drift, weight_drift)
                terms["V"][name] = np.zeros(V.shape)
                terms["W"][name] = np.zeros(W.shape)
                terms["P"][name] = np.zeros(P.shape)

    for i in range(n_sequences):
        x = tokens[i]
        for t in range(n_positions):
            A = attention(x, W, P, t, True, n_positions)
            A0 = uniform_attention(n_positions, t, True, n_positions)
            p = softmax(output(W_O, ov, W, P, None, x, t, True, n_positions))
            rho0 = onehot(targets[i, t], n_vocab) - 1.0 / n_vocab
            drho = 1.0 / n_vocab - p

            for saturation in (False, True):
                rho = drho if saturation else rho0

                # W_O through the direct path: neither A nor V
                terms["W_O"][term_name(saturation, False, False)][x[t], :] -= w * rho

                # W_O through attention: row c of V^T onehot(x_j) rho^T is V[x_j, c] rho
                for attention_drift in (False, True):
                    attention_row = A - A0 if attention_drift else A0
                    name = term_name(saturation, attention_drift, True)
                    for j in range(t + 1):
                        for c in range(n_vocab):
                            terms["W_O"][name][c, :] -= w * attention_row[j] * V[x[j], c] * rho

                # V: entry c of W_O rho is W_O[c, :] . rho
                for attention_drift in (False, True):
                    attention_row = A - A0 if attention_drift else A0
                    for weight_drift in (False, True):
                        W_O_part = W_O - W_O_lead if weight_drift else W_O_lead
                        name = term_name(saturation, attention_drift, weight_drift)
                        for j in range(t + 1):
                            for c in range(n_vocab):
                                terms["V"][name][x[j], c] -= w * attention_row[j] * np.sum(W_O_part[c, :] * rho)

                # W and P
                for weight_drift in (False, True):
                    ov_part = ov - ov_lead if weight_drift else ov_lead
                    delta = np.zeros(n_positions)
                    for j in range(t + 1):
                        delta[j] = np.sum(rho * ov_part[x[j], :])
                    for attention_drift in (False, True):
                        sigma_row = sigma(A, delta) - sigma(A0, delta) if attention_drift else sigma(A0, delta)
                        name = term_name(saturation, attention_drift, weight_drift)
                        for j in range(t + 1):
                            terms["W"][name][x[t], x[j]] -= w * sigma_row[j]
                            terms["P"][name][t - j] -= w * sigma_row[j]
    return terms
