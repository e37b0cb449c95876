# %% [markdown]
# # Assignment 3: Better than what, and how sure?
#
# Training is the easy half of chapter 3. The other half is to say, without fooling yourself, what was
# gained: over which baseline, on which cells, by how much more than chance. Here you write the scores
# and comparisons of that chapter, and find out how each of them can be made to say too much. **All
# numbers here are simulated**, the same for everybody: ratios of 300 cells and 40 genes, and the
# predictions of a model that knows a little.
#
# As in the book, $s$ and $u$ are counts (cells × genes), $n = s + u$, $r = s/n$ where $n > 0$, and
# $p$ is a predicted splicing ratio (the book's $\hat p$). Put your answers where `...` stands, keep
# the names as they are, and run `grader.check` after each. It runs the visible tests. Hidden ones,
# on other numbers, decide about the other half of the points. No answer needs another one.

# %%
import numpy as np
from scipy.special import expit, logit, xlogy
from scipy.stats import t

rng = np.random.default_rng(3)
mean = rng.beta(6, 2, 40)  # (genes,), the gene means
state = rng.normal(0, 0.6, (300, 1)) * rng.normal(0, 1, 40)  # what differs between cells
n = rng.poisson(rng.gamma(0.8, 1.5, 40), (300, 40))
s = rng.binomial(n, expit(logit(mean) + state)).astype(float)
u = n - s
p = expit(logit(mean) + 0.5 * state)  # (cells, genes), a prediction
seen = n > 0
pooled = np.corrcoef(p[seen], s[seen] / n[seen])[0, 1]
print(f"simulated: {n.shape[0]} cells, {n.shape[1]} genes; pooled r = {pooled:.2f}")

# %% [raw]
# # BEGIN QUESTION
# name: q1
# points: [1, 1]

# %% [markdown]
# ## Question 1: The share explained
#
# A pooled correlation is high before training begins, since genes differ and the gene mean knows it.
# $D^2$ starts where the gene mean ends. Write $L(q)$ for the log-likelihood of all entries under the
# ratios $q$,
#
# $$ L(q) = \sum \big( s \log q + u \log (1 - q) \big) , \qquad
#    D^2 = \frac{L(p) - L(m)}{L(r) - L(m)} , $$
#
# where $m$ are the gene means, and $L(r)$ the best that anyone could do: to predict each observed
# ratio itself. Mind $0 \log 0$, which is 0 here; `xlogy(a, b)` is $a \log b$ with that rule.
#
# Write `deviance_explained(s, u, p, mean)` with counts and $p$ (cells × genes) and $m$ (genes,). It
# returns $D^2$, a number. Entries with $n = 0$ have no say.

# %% [raw]
# # BEGIN SOLUTION


# %%
def deviance_explained(s, u, p, mean):
    """Share of the binomial deviance that p explains beyond the gene means."""
    # BEGIN SOLUTION
    r = s / np.maximum(s + u, 1)
    best, model, null = ((xlogy(s, q) + xlogy(u, 1 - q)).sum() for q in (r, p, mean))
    return (model - null) / (best - null)
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q1_one_gene(env):
    import numpy as np

    from splicedvae_book import grading

    s, u, mean = np.array([[3.0], [1.0], [2.0]]), np.array([[1.0], [3.0], [2.0]]), np.array([0.5])
    for p, expected in ((s / 4, 1), (np.full((3, 1), 0.5), 0)):
        found = grading.call(env, "deviance_explained", s, u, p, mean)
        hint = "Whoever predicts each r gets 1, and whoever predicts the gene mean gets 0."
        grading.agree("deviance_explained", found, expected, hint)
    found = grading.call(env, "deviance_explained", s, u, np.array([[0.6], [0.4], [0.5]]), mean)
    gained = 6 * np.log(0.6) + 2 * np.log(0.4) - 8 * np.log(0.5)
    possible = 6 * np.log(0.75) + 2 * np.log(0.25) - 8 * np.log(0.5)
    hint = "What was gained over the gene mean, divided by what could have been gained?"
    grading.agree("deviance_explained", found, gained / possible, hint)


# %%
# HIDDEN
def q1_many_genes(env):
    import numpy as np

    from splicedvae import metrics
    from splicedvae_book import grading

    rng = np.random.default_rng(31)
    n = rng.poisson(rng.gamma(0.8, 2, 30), (50, 30))
    s = rng.binomial(n, rng.beta(3, 1, (50, 30))).astype(float)
    p, mean = rng.uniform(0.3, 0.95, (50, 30)), (s.sum(0) + 0.7) / (n.sum(0) + 1)
    for ratio in (p, 0.9 * mean + 0.1 * p):
        expected = metrics.ratio_report(s, n - s, ratio, mean, genes=n.sum(0) > 0)["d2"]
        found = grading.call(env, "deviance_explained", s, n - s, ratio, mean)
        hint = "Many genes, entries without molecules, and many with r = 0 or r = 1."
        grading.agree("deviance_explained", found, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q2
# points: [1, 1]

# %% [markdown]
# ## Question 2: Credit for cells, not for genes
#
# Velocity lives on differences between *cells*. A score for these must not pay for knowing which gene
# one looks at, so correlate within each gene, over the cells in which it was seen, and then average
# over genes. A gene for which the prediction does not move has no correlation. Leaving it out would
# reward a model for staying silent wherever it is unsure, so it counts as 0. The same goes for a gene
# whose observed ratios are all equal.
#
# Write `within_gene_r(s, u, p)`, which takes arrays (cells × genes) and returns the plain mean over
# all genes. Every gene is seen in at least two cells.

# %% [raw]
# # BEGIN SOLUTION


# %%
def within_gene_r(s, u, p):
    """Mean over genes of the correlation of p and r over the cells in which the gene was seen."""
    # BEGIN SOLUTION
    correlations = []
    for gene in range(s.shape[1]):
        cells = (s + u)[:, gene] > 0
        x, y = p[cells, gene], s[cells, gene] / (s + u)[cells, gene]
        varies = np.ptp(x) > 0 and np.ptp(y) > 0
        correlations.append(np.corrcoef(x, y)[0, 1] if varies else 0.0)
    return np.mean(correlations)
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q2_two_genes(env):
    import numpy as np

    from splicedvae_book import grading

    s = np.array([[4.0, 0.0], [3.0, 1.0], [2.0, 2.0]])
    p = np.array([[0.9, 0.2], [0.8, 0.25], [0.7, 0.3]])
    found = grading.call(env, "within_gene_r", s, 4 - s, p)
    hint = "In both genes the prediction rises with r along a straight line."
    grading.agree("within_gene_r", found, 1, hint)
    found = grading.call(env, "within_gene_r", s, 4 - s, p * [1, -1] + [0, 0.5])
    hint = "Now the second gene goes the wrong way; knowing which gene is higher earns nothing."
    grading.agree("within_gene_r", found, 0, hint)


# %%
# HIDDEN
def q2_many_genes(env):
    import numpy as np

    from splicedvae_book import grading

    rng = np.random.default_rng(32)
    ratio = rng.beta(4, 2, (200, 12))
    n = rng.poisson(0.8, (200, 12))
    n[:2] += 1
    s = rng.binomial(n, ratio).astype(float)
    p = 0.6 * ratio + 0.4 * rng.uniform(0, 1, 12)
    p[:, [2, 7, 8]] = 0.75
    s[:, 4] = n[:, 4]
    total = 0.0
    for x, y, k in zip(p.T, s.T, n.T, strict=True):
        if x.std() > 1e-9 and (y < k).any():
            total += np.corrcoef(x[k > 0], y[k > 0] / k[k > 0])[0, 1]
    expected = total / 12
    found = grading.call(env, "within_gene_r", s, n - s, p)
    hint = "Some entries are empty here, and in some genes nothing moves. How do these count?"
    grading.agree("within_gene_r", found, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q3
# points: [1, 1]

# %% [markdown]
# ## Question 3: How sure are five seeds?
#
# Two models are trained with the same five seeds. A seed fixes the split, and a lucky split flatters
# both, so the scores of the two rise and fall together. What they share is no evidence, and it
# vanishes from the difference *within* each seed. With few seeds the standard deviation of these
# differences is itself badly known, which is why the interval is taken from Student's $t$ rather than
# from the normal distribution.
#
# Write `paired_interval(a, b)`, which takes two arrays (seeds,) and returns an array of three numbers:
# the mean of $a - b$, and the lower and upper end of its 95 % confidence interval.
# `t.ppf(0.975, k - 1)` is the quantile that you need for $k$ seeds.

# %% [raw]
# # BEGIN SOLUTION


# %%
def paired_interval(a, b):
    """Mean of the paired differences a - b, and its 95 % interval, (3,)."""
    # BEGIN SOLUTION
    gain = np.asarray(a) - np.asarray(b)
    margin = t.ppf(0.975, len(gain) - 1) * gain.std(ddof=1) / np.sqrt(len(gain))
    return gain.mean() + margin * np.array([0, -1, 1])
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q3_always_as_much_better(env):
    import numpy as np

    from splicedvae_book import grading

    b = np.array([0.1, 0.5, 0.2, 0.9, 0.4])
    found = grading.call(env, "paired_interval", b + 0.25, b, shape=(3,))
    hint = "a is better than b by 0.25 with each seed. Is there anything left to be unsure of?"
    grading.agree("paired_interval", found, [0.25, 0.25, 0.25], hint)


# %%
# HIDDEN
def q3_any_scores(env):
    import numpy as np

    from splicedvae import metrics
    from splicedvae_book import grading

    rng = np.random.default_rng(33)
    for seeds in (3, 5, 12):
        shared = rng.normal(0, 1, seeds)
        a, b = shared + rng.normal(0.3, 0.2, seeds), shared + rng.normal(0, 0.2, seeds)
        expected = metrics.paired_interval(a, b)
        found = grading.call(env, "paired_interval", a, b, shape=(3,))
        hint = f"With {seeds} seeds the interval is of another width."
        grading.agree("paired_interval", found, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q4
# points: [1, 1]

# %% [markdown]
# ## Question 4: Choose, then score
#
# Several settings of $\lambda$ were each trained with several seeds, and scored on validation and on
# test cells. You want one setting, the same for all seeds, and an honest figure for it. Every look
# at the test scores while choosing makes the figure a record of your luck.
#
# Write `honest_score(val, test)`: two arrays of $D^2$ (settings × seeds), higher is better. It returns
# the figure to be published, a mean over seeds.

# %% [raw]
# # BEGIN SOLUTION


# %%
def honest_score(val, test):
    """Mean test score of the one setting that was rightly chosen."""
    # BEGIN SOLUTION
    chosen = np.argmax(val.mean(axis=1))
    return test[chosen].mean()
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q4_a_clear_case(env):
    import numpy as np

    from splicedvae_book import grading

    val = np.array([[0.01, 0.02], [0.05, 0.07], [0.03, 0.02]])
    test = np.array([[0.01, 0.01], [0.04, 0.06], [0.02, 0.03]])
    found = grading.call(env, "honest_score", val, test)
    hint = "The second setting is the best on all cells; what is published is its mean over seeds."
    grading.agree("honest_score", found, 0.05, hint)


# %%
# HIDDEN
def q4_an_unclear_case(env):
    import numpy as np

    from splicedvae_book import grading

    rng = np.random.default_rng(34)
    for _ in range(5):
        quality = rng.normal(0.03, 0.003, (6, 1))
        val, test = quality + rng.normal(0, 0.01, (2, 6, 4))
        expected = test[val.sum(1) == val.sum(1).max()].mean()
        found = grading.call(env, "honest_score", val, test)
        hint = "Validation and test cells disagree here, and so do seeds. Who chooses?"
        grading.agree("honest_score", found, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q5
# points: [1, 1]

# %% [markdown]
# ## Question 5: Warm-up, and what a curve shows
#
# While a network is young, the KL term would press its latent flat before it has learnt to use it. So
# the weight of that term rises in a line, from 0 in epoch 0 to 1 in epoch 50, a third of the 150
# epochs. The loss therefore changes its meaning from epoch to epoch; the ELBO does not.
#
# For a cell in epoch 10, $\mathrm{E}_q \log p(x \mid z)$ is $-1400$ nats, the KL divergence 12 nats,
# and the splicing loss 150 nats, with $\lambda = 1$. What is the ELBO of this cell's total counts $x$,
# as chapter 2 defines it, the bound itself rather than its negative? Put the number into `elbo`.

# %% [raw]
# # BEGIN SOLUTION

# %%
elbo = -1400 - 12  # SOLUTION

# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q5_is_a_bound(env):
    from splicedvae_book import grading

    elbo = grading.value(env, "elbo")
    if elbo >= 0:
        raise AssertionError(
            "`elbo` should be a lower bound on the log-probability of counts; a log-probability of "
            "counts is below 0."
        )


# %%
# HIDDEN
def q5_value(env):
    from splicedvae_book import grading

    elbo = grading.value(env, "elbo")
    expected = -1412
    hint = "Which of these terms is in the bound, and does the bound know about warm-up?"
    grading.agree("elbo", elbo, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q6
# points: [1, 1]

# %% [markdown]
# ## Question 6: What may be written?
#
# A made-up table, five seeds, test cells; means and paired 95 % intervals.
#
# | difference | $D^2$ | ELBO, nats per cell |
# |---|---|---|
# | coupled − detached head | +0.0020 [−0.0011, +0.0051] | −3.1 [−4.9, −1.3] |
# | coupled head − gene mean | +0.0310 [+0.0275, +0.0345] | |
#
# Which sentence may stand in the abstract?
#
# - **a** Sharing the encoder improves the ratios, by 0.0020 in $D^2$.
# - **b** Sharing the encoder has no effect on the ratios, as the interval holds 0.
# - **c** Sharing the encoder costs ELBO; whether the ratios gain from it remains open, and if they do,
#   then by little.
# - **d** By sharing the encoder, SplicedVAE predicts ratios better than the gene mean does.
#
# Put its letter into `sentence`, as in `sentence = "e"`.

# %% [raw]
# # BEGIN SOLUTION

# %%
sentence = "c"  # SOLUTION

# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q6_is_a_letter(env):
    from splicedvae_book import grading

    grading.choice(env, "sentence", "abcd")


# %%
# HIDDEN
def q6_value(env):
    from splicedvae_book import grading

    found, expected = grading.choice(env, "sentence", "abcd"), "c"
    hint = "Which row is about sharing, and which values does an interval leave possible?"
    grading.agree("sentence", found, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION
