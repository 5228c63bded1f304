"""Language models: do the weights of pre-trained transformers hold the associations of a text?

Im et al. (ICLR 2026, Section 5.2) compare Pythia-1.4B with the leading terms of a text and find cosines near 1. That
number does not tell tokens apart; here it stands beside one that does.

**The model's side.** Every token is given to the model alone, in one position, and each layer has its residual stream
before it, after attention, and after the MLP (n x d, row = token), its query-key maps, and the output-value maps
W_E W_V^h W_O^h W_U of its heads.

**The text's side.** Leading terms between the n most frequent tokens, counted over windows of the text with the model's
own tokenizer; no token is invented at their ends. Sums within products run over the 4,000 most frequent tokens.

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

Each statistic stands beside its mean and standard deviation over permutations of the tokens. What all tokens share, a
common vector, makes the published cosine large whichever token is which: its permutations then have the same value.
A large z says that the agreement is not chance; it does not say why: both sides may follow how frequent tokens are.
Checkpoints of one training are drawn over their steps, by layer and by head.

**What was run.** Files of random weights, against `transformers` and plain loops; random weights of the shape of
Pythia-1.4B (`experiments/large_model.py`); and the two small trained models of the package `glassllm`
(`experiments/language_model.py`). Pythia itself was not run. With its checkpoints in folders:

    pip install 'minitx[llm]'
    minitx language-model pythia-1.4b-step0 pythia-1.4b-step512 pythia-1.4b-step143000 --text my.txt

`minitx topics TEXT --embeddings MODEL` asks of a model what the theory of topics predicts: do words of one topic have
embeddings that resemble, and attend to each other?
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
