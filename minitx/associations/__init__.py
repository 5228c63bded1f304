"""Associations: how weights arise from corpus statistics (Im, Oh, Fang, Li, ICLR 2026, arXiv 2601.19208).

**What is trained.** The one-hot model of Definition 3.1 with one layer, h = X + A X V, out = h W_O, A = softmax over
the prefix of W[x_t, x_j] + P[t - j] (:class:`minitx.model.weights.OneHotWeights`), is trained by full-batch gradient
descent on the mean cross-entropy of the next token, from zero weights, for s steps with the learning rate eta.

**What is predicted.** At zero weights the output is uniform and attention is uniform over the prefix. The gradient
there is made of three basis functions of the corpus, and the weights of the early steps are multiples of their
compositions. Later, as the loss falls, three kinds of corrections grow. The exact gradient is split into the leading
term and these corrections, which shows when and why the leading terms end. Two further theories go on from there:
reduced dynamics and the expansion in eta.

All formulas in s and eta are of gradient descent. Beside another optimiser of :func:`minitx.descend` there remain
reduced and reference dynamics, because what they predict is the gradient, and the split of the gradient at any weights.

    equation                                                                function                      paper
    ----------------------------------------------------------------------  ----------------------------  -------------
    B[a, b] = P(a then b) - alpha_a / V,  Sigma_B = B^T B                   statistics                    Sec. 4
    Phi[b, a] = P(b is next, and a in the prefix) - mu_a                    statistics                    Sec. 4
    Q, Delta = gradient of the scores where ov = Phi^T Sigma_B              statistics                    Thm. D.7
    W_O ~ s eta B,  V ~ C(s,2) eta^2 Phi^T B^T,                             leading_weights               Thm. D.7, D.10
        (W, P) ~ (3 C(s,4) + 2 C(s,3)) eta^4 (Q, Delta)
    W_O ~ s eta B - C(s,2) (eta^2 / V) diag(alpha) B                        second_order_output           (minitx)
    errors <= 3 (s eta)^2, 4 (s eta)^3, 6 (s eta)^5 T of W_O, V, (W, P)     bounds, beside                Thm. D.7, D.10
        and others after two or three steps, or from a Gaussian start       bounds                        D.5, D.6, D.13
    gradient = leading term + saturation + attention drift + weight drift   gradient_terms                proof of D.7
        + products of these corrections
    the step at which a correction exceeds a share of the leading term      first_exceeds                 (minitx)
    all of this over training, in one call, or as a callback of descend     record_terms, TermRecorder    (minitx)
    loss and predictions of the leading terms alone, beside training        explained                     (minitx)
    W_O and V to the next order, any number of layers L;                    next_order                    (minitx)
        V_l - V_m ~ (m - l) kappa eta^4 (Phi_2^T Sigma_B Phi
        - B Phi Phi_2^T B^T),  kappa = 3 C(s,4) + 2 C(s,3)
    training at uniform output and attention, the actual weights            reference_dynamics            (minitx)
    W_O = B U ((1+x)^s - (1-x)^s)/(2 sqrt(L) sigma) U^T,                    reference_dynamics            (minitx)
        Phi = U sigma Z^T, x = eta sqrt(L) sigma                                .closed_form
    loss without the projection of trained weights on their leading         interventions                 Table 3
        terms, with nothing else, or without a random direction
    the same statistics by sums that merge, exact for any split             Counts, Scores                (minitx)
    statistics of texts of any size, on any executor                        text_statistics               (minitx)
    words that go together under B, Sigma_B, Phi                            words.similarity, .associates Fig. 5
    training with one prediction for each cell of contexts                  reduced.descend               (minitx)
    the same corrected on sampled windows, with an estimate of its own      reduced.descend               (minitx)
        error, 2 max |S_v - (v/m) S_m| / |weight|                               (tolerance=0.05)
    Theta(s) = sum_m eta^m sum_d C(s, d) Theta_{m,d}                        expand                        (minitx)
    entry of B, Sigma_B, Phi, Phi^T B^T, Q, Delta, or of a gradient and     attribution                   (minitx)
        its terms = sum over positions of what each adds
    Theta(s) - Theta(0) = - sum over steps and positions of eta_k times     record_attribution            (minitx)
        the part of the gradient of the step's batch
    W_O + V W_O ~ s eta B + C(s,2) s eta^3 Phi^T Sigma_B, by positions      logit_parts                   (minitx)

**Several layers** (:class:`minitx.model.layers.LayeredWeights`) have the same leading terms in every layer. Depth
enters W_O at eta^3 (linearly in L), V at eta^4, W and P at eta^6, and the layers begin to differ from each other at the
same orders of V, W and P. The first correction that matters is L C(s,3) eta^3 B Phi Phi^T of W_O; reference dynamics
takes all orders of this kind together, and grows with the rate sqrt(L) sigma_1(Phi) until the loss visibly falls.

**An example for a pencil.** Four sentences are made of four tokens. Each has three pairs of a current and a next token,
so T = 3, and each of the 12 pairs has the weight 1/12.

>>> import minitx, numpy as np
>>> tokens = ["the", "pond", "contains", "fish"]
>>> text = ["the pond contains fish", "the fish contains pond", "pond contains the fish", "the pond the fish"]
>>> ids = np.array([[tokens.index(word) for word in sentence.split()] for sentence in text])
>>> batch = minitx.Batch(ids[:, :-1], ids[:, 1:])
>>> found = minitx.associations.statistics(batch, n_vocab=4)

Row = current token, column = next token. Three pairs are (the, fish), and "the" is the current token of five, so alpha
of "the" is 5/12 and B[the, fish] = 3/12 - (5/12)/4 = 7/48.

>>> print((48 * found.bigram).round().astype(int))
[[-5  3 -5  7]
 [ 1 -3  5 -3]
 [ 1  1 -3  1]
 [-1 -1  3 -1]]

Sigma_B[the, fish] is the product of two columns of B, (-5 * 7 - 1 * 3 + 1 * 1 + 1 * 1) / 48^2 = -36/2304: the tokens
that are followed by "the" are not those that are followed by "fish", so the two are not interchangeable.

>>> print((2304 * found.interchangeability).round().astype(int))
[[ 28 -16  24 -36]
 [-16  20 -36  32]
 [ 24 -36  68 -56]
 [-36  32 -56  60]]

Row = next token, column = token of the prefix. Where "fish" is next, the shares of "the" in the prefix are 1/3, 1, 1/3
and 2/3, whose sum over 12 is 7/36. At all 12 positions they sum to 37/6, so mu of "the" is (37/6) / 12 / 4 = 37/288 and
Phi[fish, the] = 7/36 - 37/288 = 19/288.

>>> print((288 * found.context).round().astype(int))
[[-25   3   3  -5]
 [ 19 -21  -1   3]
 [-13  15  -9   7]
 [ 19   3   7  -5]]

The leading term of the value matrix is the composition Phi^T B^T. Its entry for "the" attended to from "the" is column
"the" of Phi times row "the" of B, (25 * 5 + 19 * 3 + 13 * 5 + 19 * 7) / (288 * 48) = 380/13824.

>>> print((13824 * found.value).round().astype(int))
[[ 380 -204   52  -52]
 [-132  132  -60   60]
 [  76  -60   36  -36]
 [ -36   36  -28   28]]

Attention to a token adds the token's row of V W_O to the outputs, and this composition grows along Phi^T Sigma_B. Its
transpose Sigma_B Phi has row = next token, column = attended token. The entry for "contains" next and "the" attended to
is row "contains" of Sigma_B times column "the" of Phi, (-24 * 25 - 36 * 19 - 68 * 13 - 56 * 19) / (2304 * 288).

>>> print((663552 * found.interchangeability @ found.context).round().astype(int))
[[-2000   672  -368   160]
 [ 1856  -912   480  -272]
 [-3232  1680  -896   528]
 [ 3376 -1440   784  -416]]

The last composition is Q: row = query (current token), column = key (attended token). "pond" is the current token three
times. Once it stands alone, and attention has nothing to choose. Twice the prefix is "the pond", each token has half of
the attention, and the next token is "contains" and then "the". Each time Q[pond, the] gains 1/12 (the pair) times 1/2
(the attention) times what "the" adds to the output of the next token above the mean of the prefix, which is half the
difference of two entries above. Together that is ((-3232 - 1680) + (-2000 - 672)) / 663552 / 48 = -17064/71663616, and
Q[pond, pond] is the opposite: "pond" learns to attend to itself.

>>> print((71663616 * found.attention).round().astype(int))
[[ 17040 -16672   -368      0]
 [-17064  17064      0      0]
 [ 10912  -4700  -3332  -2880]
 [ -8460      0      0   8460]]

Attribution says which position of which sentence added what. To B[the, fish] the three positions of "the" with "fish"
next add (1 - 1/4) / 12 = 3/48 each, the two others of "the" -1/48 each, and all other positions nothing.

>>> print((48 * minitx.associations.attribution(found, batch, "bigram", row=0, column=3).parts).round().astype(int))
[[-1  0  0]
 [ 3  0  0]
 [ 0  0  3]
 [-1  0  3]]

After five small steps from zero the trained weights point along B, Phi^T B^T and Q, and P along the distances Delta.

>>> run = minitx.descend(minitx.OneHotWeights.zeros(4, 3), batch, learning_rate=0.01, steps=5)
>>> leading = minitx.associations.leading_weights(found, steps=5, learning_rate=0.01)
>>> {name: f"{cosine:.5f}" for name, cosine in minitx.agreement(run.weights, leading).cosine.items()}
{'W_O': '1.00000', 'V': '1.00000', 'W': '1.00000', 'P': '1.00000'}

Modules: ``basis`` (statistics), ``counts`` and ``streaming`` (the same by parts of a text), ``leading`` (leading terms
and bounds), ``next_order``, ``reference_dynamics``, ``terms`` (the split gradient) and ``layer_terms`` (that of several
layers), ``recording`` (its terms over training), ``attribution`` (what positions add to an entry), ``gradient_parts``
(to one of the gradient), ``attribution_over_training`` and ``taught`` (the windows that add most); ``composed`` (the
model of leading terms alone), ``interventions``, ``words``, ``closure`` (one prediction a cell), ``rest`` (what it
leaves out) and ``reduced`` (the descent on both), ``expansion``; ``figures``, ``tables`` and the files that begin with
``command`` are those of the command line.
"""

from minitx.associations import (
    basis,
    composed,
    counts,
    expansion,
    leading,
    recording,
    reduced,
    reference_dynamics,
    streaming,
    terms,
    words,
)
from minitx.associations.attribution import Attribution, attribution, logit_parts
from minitx.associations.attribution_over_training import AttributionOverTraining, record_attribution
from minitx.associations.basis import Statistics, statistics
from minitx.associations.composed import Explained, explained
from minitx.associations.counts import Counts, Scores
from minitx.associations.expansion import Expansion, expand
from minitx.associations.interventions import Intervention, interventions
from minitx.associations.leading import Beside, Bounds, beside, bounds, leading_weights, second_order_output
from minitx.associations.next_order import NextOrder, next_order
from minitx.associations.recording import TermRecorder, TermsOverTraining, record_terms
from minitx.associations.streaming import text_statistics
from minitx.associations.terms import first_exceeds, gradient_terms

__all__ = [
    "Attribution", "AttributionOverTraining", "Beside", "Bounds", "Counts", "Expansion", "Explained", "Intervention",
    "NextOrder", "Scores", "Statistics", "TermRecorder", "TermsOverTraining", "attribution", "basis", "beside",
    "bounds", "composed", "counts", "expand", "expansion", "explained", "first_exceeds", "gradient_terms",
    "interventions", "leading", "leading_weights", "logit_parts", "next_order", "record_attribution", "record_terms",
    "recording", "reduced", "reference_dynamics", "second_order_output", "statistics", "streaming", "terms",
    "text_statistics", "words",
]


def __dir__() -> list[str]:
    return __all__
