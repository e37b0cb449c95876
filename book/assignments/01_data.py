# %% [markdown]
# # Assignment 1: What a handful of molecules can tell
#
# In this assignment you read splicing ratios off counts, as chapter 1 does, and meet the places
# where it is easy to go wrong: entries without molecules, cells of different depth, genes chosen
# with the wrong cells in sight. **All cells here are simulated**, the same for everybody: 400 cells
# and 200 genes of a made-up pancreas.
#
# As in the book, $s$ and $u$ are spliced and unspliced counts (cells × genes), $n = s + u$, and
# $r = s/n$ where $n > 0$. Put your answers where `...` stands, keep the names as they are, and run
# `grader.check` after each. It runs the visible tests. Hidden ones, on other numbers, decide about
# the other half of the points. No answer needs another one.

# %%
import numpy as np

import splicedvae as sv

cells = sv.data.simulate(n_obs=400, n_vars=200, seed=1)
s, u = (cells.layers[name].toarray().astype(float) for name in ("spliced", "unspliced"))
n = s + u
print(f"simulated: {n.shape[0]} cells, {n.shape[1]} genes; {(n == 0).mean():.0%} of the n are 0")

# %% [raw]
# # BEGIN QUESTION
# name: q1
# points: [1, 1]

# %% [markdown]
# ## Question 1: No molecule, no ratio
#
# Most entries of these matrices hold nothing. What you write there is a claim: 0 says "all
# unspliced", 1 says "all spliced", and a model would learn either. Only NaN says that nobody knows.
#
# Write `observed_ratio(s, u)`, which returns $r$ for two arrays of the same shape, with NaN where
# nothing was counted.

# %% [raw]
# # BEGIN SOLUTION


# %%
def observed_ratio(s, u):
    """The splicing ratio of each entry; NaN where nothing was counted."""
    # BEGIN SOLUTION
    molecules = s + u
    return np.divide(s, molecules, out=np.full(s.shape, np.nan), where=molecules > 0)
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q1_four_entries(env):
    import numpy as np

    from splicedvae_book import grading

    s, u = np.array([[3.0, 0.0], [2.0, 5.0]]), np.array([[1.0, 0.0], [2.0, 0.0]])
    r = grading.call(env, "observed_ratio", s, u, shape=(2, 2), nan=True)
    hint = "With s = [[3, 0], [2, 5]] and u = [[1, 0], [2, 0]]: what can be said of each entry?"
    grading.agree("observed_ratio", r, [[0.75, np.nan], [0.5, 1]], hint)


# %%
# HIDDEN
def q1_many_entries(env):
    import numpy as np

    from splicedvae_book import grading

    rng = np.random.default_rng(11)
    s, u = rng.poisson(0.7, (2, 30, 20)).astype(float)
    with np.errstate(invalid="ignore"):
        expected = s / (s + u)
    r = grading.call(env, "observed_ratio", s, u, shape=(30, 20), nan=True)
    hint = "Which entries have a ratio, and which have none?"
    grading.agree("observed_ratio", r, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q2
# points: [1, 1]

# %% [markdown]
# ## Question 2: One ratio per gene
#
# The gene mean is the baseline of the whole book, and there are two ways to average. In one, every
# molecule has a vote; in the other, every cell has, and a cell with a single molecule shouts as loud
# as one with forty. The first is the maximum-likelihood estimate of a ratio that is the same in all
# cells.
#
# Write `gene_mean(s, u)`, which takes counts (cells × genes) and returns that estimate for each
# gene, an array (genes,). A gene without a single molecule gets NaN.

# %% [raw]
# # BEGIN SOLUTION


# %%
def gene_mean(s, u):
    """Maximum-likelihood ratio of each gene, (genes,), if it is the same in all cells."""
    # BEGIN SOLUTION
    with np.errstate(invalid="ignore"):
        return s.sum(axis=0) / (s + u).sum(axis=0)
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q2_cells_of_equal_depth(env):
    import numpy as np

    from splicedvae_book import grading

    s, u = (
        np.array([[3.0, 0.0], [1.0, 2.0], [2.0, 4.0]]),
        np.array([[1.0, 4.0], [3.0, 2.0], [2.0, 0.0]]),
    )
    mean = grading.call(env, "gene_mean", s, u, shape=(2,), nan=True)
    hint = "These three cells hold four molecules of each of the two genes, half of them spliced."
    grading.agree("gene_mean", mean, [0.5, 0.5], hint)


# %%
# HIDDEN
def q2_cells_of_unequal_depth(env):
    import numpy as np

    from splicedvae_book import grading

    rng = np.random.default_rng(12)
    depth = rng.gamma(0.5, 4, (40, 1))
    s, u = (rng.poisson(depth * rate, (40, 25)).astype(float) for rate in (0.6, 0.3))
    s[:, 3] = u[:, 3] = 0
    with np.errstate(invalid="ignore"):
        expected = s.sum(0) / (s.sum(0) + u.sum(0))
    mean = grading.call(env, "gene_mean", s, u, shape=(25,), nan=True)
    hint = "Cells differ in depth here, some are empty, and one gene has no molecule at all."
    grading.agree("gene_mean", mean, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q3
# points: [1, 1]

# %% [markdown]
# ## Question 3: A ratio at rest, through a bad lens
#
# A gene's molecules are spliced at the rate $\beta = 2$ per hour and degraded, once spliced, at
# $\gamma = 0.5$ per hour. Transcription has been constant for days, so that $u$ and $s$ rest where
# $du/dt = ds/dt = 0$. Now the lens: introns are hard to catch, and the protocol finds an unspliced
# molecule with only a quarter of the probability with which it finds a spliced one.
#
# Which share of the *counted* molecules of this gene is spliced, on average? Put the number into
# `share_at_rest`, to three digits or better. (You see why ratios of two protocols can't be compared
# without care.)

# %% [raw]
# # BEGIN SOLUTION

# %%
share_at_rest = (1 / 0.5) / (1 / 0.5 + 0.25 / 2)  # SOLUTION

# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q3_is_a_share(env):
    from splicedvae_book import grading

    share = grading.value(env, "share_at_rest")
    if not 0 < share < 1:
        raise AssertionError("`share_at_rest` should be a share, above 0 and below 1.")


# %%
# HIDDEN
def q3_value(env):
    from splicedvae_book import grading

    share = grading.value(env, "share_at_rest")
    expected = 16 / 17
    hint = "Where do u and s rest? And what of each is counted?"
    grading.agree("share_at_rest", share, expected, hint, tolerance=6e-4)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q4
# points: [1, 1]

# %% [markdown]
# ## Question 4: More than chance?
#
# Suppose a gene has the same ratio $m$ in every cell. Then $s$ is Binomial$(n, m)$, its variance is
# $n\,m\,(1-m)$, and the squared residuals, each divided by the variance that it should have, are 1
# on average. Genes whose ratio does differ between cells give themselves away by a larger number.
# This is Pearson's dispersion, with $m$ the pooled ratio of the gene and $k$ the number of cells
# with $n > 0$:
#
# $$ \frac{1}{k - 1} \sum_{\text{cells with } n > 0} \frac{(s - n m)^2}{n\,m\,(1 - m)} $$
#
# Write `dispersion(s, u)` for the counts of one gene, two arrays (cells,). You may rely on both
# forms being present.

# %% [raw]
# # BEGIN SOLUTION


# %%
def dispersion(s, u):
    """Pearson's dispersion of one gene: 1 if sampling explains its ratios, more if it does not."""
    # BEGIN SOLUTION
    seen = s + u > 0
    s, molecules = s[seen], (s + u)[seen]
    m = s.sum() / molecules.sum()
    return np.sum((s - molecules * m) ** 2 / (molecules * m * (1 - m))) / (seen.sum() - 1)
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q4_four_cells(env):
    import numpy as np

    from splicedvae_book import grading

    s, u = np.array([4.0, 3.0, 2.0, 3.0]), np.array([0.0, 1.0, 2.0, 1.0])
    found = grading.call(env, "dispersion", s, u)
    grading.agree("dispersion", found, 8 / 9, "Here m = 3/4, n = 4 in each cell, and k = 4.")


# %%
# HIDDEN
def q4_many_cells(env):
    import numpy as np

    from splicedvae_book import grading

    rng = np.random.default_rng(14)
    for spread in (2, 20):
        count = rng.poisson(rng.gamma(0.7, 3, 500))
        s = rng.binomial(count, rng.beta(0.7 * spread, 0.3 * spread, 500)).astype(float)
        at, m = count[count > 0], s.sum() / count.sum()
        expected = ((s[count > 0] - at * m) ** 2 / at).sum() / (m * (1 - m) * (len(at) - 1))
        found = grading.call(env, "dispersion", s, count - s)
        hint = (
            "Cells differ in depth here, and some hold nothing. Which of them count in m, and in k?"
        )
        grading.agree("dispersion", found, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q5
# points: [1, 1]

# %% [markdown]
# ## Question 5: Choose genes, but don't look
#
# A gene of which one form is never seen says nothing about splicing, so the book keeps a gene only
# if it has enough *shared counts*: over the cells in which both forms were seen, $s > 0$ and
# $u > 0$, sum $n$. Which genes pass is already a result, and must not depend on test cells.
#
# Write `choose_genes(s, u, train, least)`: counts (cells × genes), the positions of the training
# cells, and the least number of shared counts that lets a gene stay. It returns a boolean array
# (genes,).

# %% [raw]
# # BEGIN SOLUTION


# %%
def choose_genes(s, u, train, least):
    """Which genes have at least `least` shared counts in the training cells, (genes,)."""
    # BEGIN SOLUTION
    s, u = s[train], u[train]
    shared = np.where((s > 0) & (u > 0), s + u, 0).sum(axis=0)
    return shared >= least
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q5_three_genes(env):
    import numpy as np

    from splicedvae_book import grading

    s = np.array([[5.0, 9.0, 1.0], [6.0, 8.0, 0.0], [7.0, 9.0, 1.0], [5.0, 9.0, 0.0]])
    u = np.array([[2.0, 0.0, 1.0], [3.0, 0.0, 4.0], [2.0, 0.0, 1.0], [2.0, 1.0, 5.0]])
    chosen = grading.call(env, "choose_genes", s, u, np.array([0, 1, 2]), 15, shape=(3,))
    hint = "In three training cells, the genes have 25, 0 and 4 shared counts; 15 are asked for."
    grading.agree("choose_genes", chosen, [1, 0, 0], hint)


# %%
# HIDDEN
def q5_other_cells(env):
    import numpy as np

    from splicedvae_book import grading

    rng = np.random.default_rng(15)
    s, u = rng.poisson(0.8, (2, 60, 80)).astype(float)
    train = rng.permutation(60)[:30]
    both = (s[train] > 0) & (u[train] > 0)
    shared = (both * (s + u)[train]).sum(0)
    least = np.median(shared)
    chosen = grading.call(env, "choose_genes", s, u, train, least, shape=(80,))
    hint = "Which cells may be looked at, and does a gene with exactly so many counts stay?"
    grading.agree("choose_genes", chosen, shared >= least, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q6
# points: [1, 1]

# %% [markdown]
# ## Question 6: One of these can't be true
#
# Four talks at a conference, each on another target. Each reports the standard deviation of its
# target, the RMSE of its predictions, and their Pearson correlation $r$ with the target, rounded to
# two digits. One of the four has made a mistake. (None of them need have made *good* predictions.)
#
# | talk | SD of the target | RMSE | $r$ |
# |---|---|---|---|
# | a | 0.40 | 0.33 | 0.60 |
# | b | 0.25 | 0.11 | 0.80 |
# | c | 0.30 | 0.45 | 0.10 |
# | d | 0.25 | 0.20 | 0.95 |
#
# Put the letter of the talk whose numbers can't all be true into `impossible`, as in
# `impossible = "e"`.

# %% [raw]
# # BEGIN SOLUTION

# %%
impossible = "b"  # SOLUTION

# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q6_is_a_letter(env):
    from splicedvae_book import grading

    grading.choice(env, "impossible", "abcd")


# %%
# HIDDEN
def q6_value(env):
    from splicedvae_book import grading

    found, expected = grading.choice(env, "impossible", "abcd"), "b"
    hint = "How low can an RMSE be at a given r, and is there a limit to how high?"
    grading.agree("impossible", found, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION
