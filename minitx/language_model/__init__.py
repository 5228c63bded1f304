"""Language models: do the weights of pre-trained transformers hold the associations of a text?

Im et al. (ICLR 2026, Section 5.2) compare Pythia-1.4B with the leading terms of a text and find cosines near 1. Such a
cosine hardly changes when the tokens of one side are permuted (measured on smaller models), so that it does not tell
tokens apart. This room sets a statistic beside it that does.

**The model's side.** Every token is given to the model alone, in one position. What is compared of each layer is the
residual stream before the layer, after its attention and after its MLP (n x d, row = token), and the query-key maps and
output-value maps W_E W_V^h W_O^h W_U of its heads.

**The text's side.** The leading terms between the n most frequent tokens are counted over windows of the text, which
the model's own tokenizer splits; no token is added at the ends of documents. Sums within products run over the 4,000
most frequent tokens.

=============================================================================  =========================================
quantity                                                                       function
=============================================================================  =========================================
GPT-NeoX (Pythia), GPT-2, Llama, from config.json and model.safetensors        `read_model`, `read_tokenizer`
residual streams, attention, logits, one layer in memory at a time             `Transformer.states`, `.logits`, `.loss`
B, Sigma_B, Phi^T B^T, Phi^T Sigma_B and Q between the n tokens                `leading_terms`
cosine of row-centred token covariances, as published                          `comparison.published`
the same centred over tokens: linear CKA (Kornblith et al. 2019)               `comparison.centred`
cosine of the entries of two maps, centred over rows and columns               `comparison.map_cosine`
mean Spearman correlation of corresponding rows of the covariances             `comparison.row_correlation`
all of them, for every layer and head                                          `compare_layers`
=============================================================================  =========================================

Each statistic stands beside its mean and standard deviation over permutations of the tokens; z is its distance from
this mean in standard deviations. A vector that all tokens share makes the published cosine large in any order of the
tokens, so that its permutations have the same value. A large z says that the agreement is not chance. It does not say
why: both sides may follow how frequent tokens are. Figures show checkpoints of one training over its steps, by layer
and by head.

**What was run.** The forward pass was tested on random weights, against `transformers` and plain loops. Memory and time
were measured with random weights of the shape of Pythia-1.4B (`experiments/large_model.py`), and the comparison was run
on the two small trained models of the package `glassllm` (`experiments/language_model.py`). Pythia itself was not run.
With its checkpoints in folders, it can be run as follows:

    pip install 'minitx[llm]'
    minitx language-model pythia-1.4b-step0 pythia-1.4b-step512 pythia-1.4b-step143000 --text my.txt

`minitx topics TEXT --embeddings MODEL` tests in a model what the theory of topics predicts: words of one topic have
similar embeddings and attend to each other.
"""

from minitx.language_model import comparison, forward, layers, reading, text
from minitx.language_model.forward import Transformer
from minitx.language_model.layers import compare_layers
from minitx.language_model.reading import read_model, read_tokenizer, training_step
from minitx.language_model.text import LeadingTerms, leading_terms

__all__ = [
    "LeadingTerms", "Transformer", "compare_layers", "comparison", "forward", "layers", "leading_terms", "read_model",
    "read_tokenizer", "reading", "text", "training_step",
]


def __dir__() -> list[str]:
    return __all__
