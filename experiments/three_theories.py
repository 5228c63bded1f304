"""The three theories in fifteen minutes: a notebook in cells, which also runs as a script.

Jupyter (with jupytext), VS Code and Spyder open the cells between the lines that begin with ``# %%``. Every result has
a table of its own in a notebook; ``print`` shows the same numbers where there is none. Figures are returned, and never
shown by themselves: in a notebook, a cell that ends in a figure shows it.
"""

# %% [markdown]
# ## 1. Associations: what a text alone says about the weights
# A text becomes windows of tokens. One attention layer starts from zero weights and takes ten steps of descent.

# %%
import numpy as np

import minitx
from minitx.associations import figures, words
from minitx.next_token import figures as figures_of_graphs

corpus = minitx.builtin_corpus("stories", n_vocab=300, length=24, n_windows=64)
batch, n_vocab = corpus.batch(), len(corpus.vocabulary)
start = minitx.OneHotWeights.zeros(n_vocab=n_vocab, length=corpus.length)
run = minitx.descend(start, batch, learning_rate=1.0, steps=10)
print(f"loss {run.loss[0]:.4f} before training, {run.loss[-1]:.4f} after {run.steps} steps")

# %% [markdown]
# Three statistics of the text are computed without training: the bigram B, interchangeability Σ_B and context Φ.
# The leading terms are multiples of their products. Each trained weight points where its leading term does.

# %%
statistics = minitx.associations.statistics(batch, n_vocab)
leading = minitx.associations.leading_weights(statistics, steps=10, learning_rate=1.0)
agreement = minitx.agreement(run.weights, leading)
print(agreement)
assert min(agreement.cosine.values()) > 0.99
agreement  # noqa: B018  A notebook shows its table.

# %% [markdown]
# The statistics know which words go together.

# %%
scores = words.similarity(statistics)
for function in scores:
    print(f"{function:20}", *(word for word, _ in words.associates(scores[function], corpus, "fish", k=5)))

# %% [markdown]
# The exact gradient is the leading term and its corrections. They are recorded over a longer training: the correction
# that grows first, drift of the weights, is what ends the leading terms.

# %%
terms = minitx.associations.record_terms(start, batch, learning_rate=1.0, steps=60, at=range(5, 61, 5))
print(terms)
figure = figures.gradient_terms(terms.steps, terms.norms, title="Terms of the gradient")

# %% [markdown]
# ## 2. Topics: words of one topic have more in common
# Documents of 64 words mix two of four topics; some words are hidden, and the value matrix W_V learns to fill them in.
# Its closed form is known after every step of descent, and at the end.

# %%
law = minitx.topics.TopicModel(4, 5, 64, tau=2)  # topics, words each, words and topics a document
documents = law.mask(law.documents(2000, rng=0), head="squared", rng=0)
values = minitx.EmbeddedWeights.gaussian(law.V, W_V=0.0, rng=0)
trained = minitx.descend(values, documents, learning_rate=5.0, steps=100)
W_V = trained.weights.W_V[1:, 1:]
same_topic = np.kron(np.eye(4), np.ones((5, 5))) - np.eye(20) > 0
measured, predicted = W_V[same_topic].mean(), minitx.topics.value_after(law, steps=100, learning_rate=5.0).same_topic
print(f"same topic, mean entry: trained {measured:.4f}, closed form {predicted:.4f}")
assert abs(measured - predicted) < 0.01

# %% [markdown]
# Attention prefers words of the same topic. On infinite documents the best ratio is a closed form.

# %%
best = minitx.topics.optimal_ratio(minitx.topics.TopicModel(4, 5, float("inf"), tau=2))
print(f"attention to the same topic is best at {best.rho:.3f} times that to another")
best  # noqa: B018  A notebook shows its table.

# %% [markdown]
# ## 3. Next token: attention becomes an automaton
# Each last token ranks the others. The automaton is fitted to samples, without training: it retrieves the strongest
# component that is present, and mixes the tokens of this component in fixed odds.

# %%
drawn = minitx.next_token.PriorityLaw.random(6, n_classes=3, rng=0).samples(200, length=5, rng=1)
samples = minitx.Samples.of(drawn.sequences, drawn.labels, n_vocab=6)
automaton = minitx.next_token.Automaton.fit(samples)
prediction = automaton.predict([0, 3, 3, 5, 2])
print(prediction)
prediction  # noqa: B018  A notebook shows its table.

# %% [markdown]
# Training finds the same attention by itself. The accelerated mode is given the components, and arrives in few steps.

# %%
learned = minitx.next_token.training.train(minitx.LastTokenWeights.zeros(6), automaton, mode="accelerated", steps=300)
attention = minitx.next_token.losses.context_attention(learned.weights, [np.array([0, 3, 3, 5, 2])])[0]
print("attention, trained and predicted:", np.round(attention, 6), np.round(prediction.p, 6))
assert np.abs(attention - prediction.p).max() < 1e-3

# %%
graphs = figures_of_graphs.priority_graphs(automaton.split.graphs, title="Who has priority over whom")
