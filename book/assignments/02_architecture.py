# %% [markdown]
# # Assignment 2: The parts of SplicedVAE, one by one
#
# Here you build the pieces of chapter 2 by hand: the decoder's shares, the price of a latent, the
# likelihood of a splice, the head's first word, and the gradient by which it makes itself heard.
# None of them is more than a few lines. **All numbers here are simulated**, the same for everybody.
#
# As in the book, $z$ is the latent, $x = n = s + u$ the counts of a cell, $p$ a predicted splicing
# ratio (the book's $\hat p$), $r = s/n$ where $n > 0$, and $\lambda$ the weight of the splicing loss.
# Put your answers where `...` stands, keep the names as they are, and run `grader.check` after each.
# It runs the visible tests. Hidden ones, on other numbers, decide about the other half of the
# points. No answer needs another one. Everything is done with NumPy, except for the package's own
# loss, which is there to compare with.

# %%
import numpy as np
import torch

from splicedvae.head import ratio_loss

rng = np.random.default_rng(2)
s, u = rng.poisson([[1.5], [0.6]], (2, 1000)).reshape(2, 50, 20).astype(float)  # (cells, genes)
logit = rng.normal(0.9, 0.5, (50, 20))
loss = ratio_loss(*(torch.tensor(x) for x in (logit, s, u)), "binomial")
print(f"simulated: {s.shape[0]} cells, {s.shape[1]} genes; loss per entry {loss.mean():.3f} nats")

# %% [raw]
# # BEGIN QUESTION
# name: q1
# points: [1, 1]

# %% [markdown]
# ## Question 1: Shares of a cell
#
# The decoder ends in one number $f_g$ per gene and cell, any number at all. What it should say is
# which share $\rho_g$ of a cell's RNA belongs to gene $g$: above 0, and 1 in all. The softmax,
# $\rho_g = e^{f_g} / \sum_k e^{f_k}$, does this. It also has the best known trap of numerical
# computing: $e^{1000}$ is no number that a computer has. The way out costs nothing, since a constant
# that is added to all $f_g$ of a cell changes no share.
#
# Write `shares(f)`, which takes an array (cells, genes) and returns $\rho$ in the same shape, also
# where $f$ is very large or very small.

# %% [raw]
# # BEGIN SOLUTION


# %%
def shares(f):
    """Share of each gene in its cell's RNA, (cells, genes)."""
    # BEGIN SOLUTION
    raised = np.exp(f - f.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q1_two_cells(env):
    import numpy as np

    from splicedvae_book import grading

    f = np.log([[1.0, 1.0, 2.0], [3.0, 6.0, 1.0]])
    rho = grading.call(env, "shares", f, shape=(2, 3))
    hint = "f is the log of [[1, 1, 2], [3, 6, 1]]; each cell's shares sum to 1."
    grading.agree("shares", rho, [[0.25, 0.25, 0.5], [0.3, 0.6, 0.1]], hint)


# %%
# HIDDEN
def q1_extreme_cells(env):
    import numpy as np

    from splicedvae_book import grading

    f = np.random.default_rng(21).normal(0, 1, (6, 9))
    expected = np.exp(f) / np.exp(f).sum(1)[:, None]
    shift = np.array([0, 1, -1, 900, -900, 5000])[:, None]
    rho = grading.call(env, "shares", f + shift, shape=(6, 9))
    hint = "Some cells have very large f and some very small ones."
    grading.agree("shares", rho, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q2
# points: [1, 1]

# %% [markdown]
# ## Question 2: What it costs to be particular
#
# The encoder answers with a normal distribution for each latent dimension, of mean $\mu_l$ and
# standard deviation $\sigma_l$. Saying "this is just a cell", $\mathcal N(0, 1)$ in each dimension,
# is free. Anything more particular has a price, the KL divergence to the prior. For two normal
# distributions in one dimension it is
#
# $$ \mathrm{KL}\big(\mathcal N(\mu, \sigma^2) \,\|\, \mathcal N(0, 1)\big)
#    = \tfrac12 \left(\mu^2 + \sigma^2 - 1\right) - \log \sigma , $$
#
# and for independent dimensions, prices add up. It is never negative: saying something can't be
# cheaper than saying nothing.
#
# Write `kl(mean, sd)`, which takes $\mu$ and $\sigma$ (cells, latent dimensions) and returns the KL
# divergence of each cell, (cells,), in nats.

# %% [raw]
# # BEGIN SOLUTION


# %%
def kl(mean, sd):
    """KL divergence of each cell's q(z|x) to the standard normal prior, (cells,), in nats."""
    # BEGIN SOLUTION
    per_dimension = (np.square(mean) + np.square(sd) - 1) / 2 - np.log(sd)
    return per_dimension.sum(axis=1)
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q2_one_dimension(env):
    import numpy as np

    from splicedvae_book import grading

    price = grading.call(env, "kl", np.array([[0.0], [1.0], [2.0]]), np.ones((3, 1)), shape=(3,))
    hint = "Three cells, one dimension, sd = 1 throughout; the means are 0, 1 and 2."
    grading.agree("kl", price, [0, 0.5, 2], hint)


# %%
# HIDDEN
def q2_ten_dimensions(env):
    import numpy as np
    from scipy.stats import norm

    from splicedvae_book import grading

    rng = np.random.default_rng(22)
    mean, sd = rng.normal(0, 1, (4, 10)), rng.uniform(0.1, 1.5, (4, 10))
    steps = np.linspace(-12, 12, 24001)
    q = norm(mean[..., None], sd[..., None])
    expected = (q.pdf(steps) * (q.logpdf(steps) - norm.logpdf(steps))).sum((1, 2)) * 0.001
    price = grading.call(env, "kl", mean, sd, shape=(4,))
    hint = "Ten dimensions here, and sd is a standard deviation that differs from 1."
    grading.agree("kl", price, expected, hint, tolerance=1e-4)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q3
# points: [1, 1]

# %% [markdown]
# ## Question 3: The likelihood of a splice
#
# The head puts out a logit $\eta$, any number, with
# $p = \mathrm{sigmoid}(\eta) = 1 / (1 + e^{-\eta})$. If $s$ of $n$ molecules are spliced, the
# negative log-likelihood is
#
# $$ -\,s \log p - u \log (1 - p) \;+\; \text{const}
#    \;=\; n \log(1 + e^{\eta}) - s\,\eta \;+\; \text{const} , $$
#
# and the constant, the log of a binomial coefficient, is left out. Left and right are the same
# number on paper. In a computer, one breaks down where $p$ rounds to 0 or 1, and so does a naive
# $e^{\eta}$; `np.logaddexp(a, b)` is $\log(e^a + e^b)$ for any two numbers.
#
# Write `binomial_loss(logit, s, u)`, which returns the loss of each entry, an array of the same shape
# as its arguments, and is finite for logits of any size.

# %% [raw]
# # BEGIN SOLUTION


# %%
def binomial_loss(logit, s, u):
    """Negative log-likelihood of each entry under the binomial, without its constant, in nats."""
    # BEGIN SOLUTION
    return (s + u) * np.logaddexp(0, logit) - s * logit
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q3_three_entries(env):
    import numpy as np

    from splicedvae_book import grading

    logit, s, u = (
        np.array([0.0, np.log(3), 5.0]),
        np.array([1.0, 3.0, 0.0]),
        np.array([1.0, 1.0, 0.0]),
    )
    loss = grading.call(env, "binomial_loss", logit, s, u, shape=(3,))
    hint = "The p are 1/2, 3/4 and nearly 1; the last entry has no molecules, and so no loss."
    expected = [2 * np.log(2), 4 * np.log(4) - 3 * np.log(3), 0]
    grading.agree("binomial_loss", loss, expected, hint)


# %%
# HIDDEN
def q3_extreme_logits(env):
    import numpy as np
    import torch

    from splicedvae.head import ratio_loss
    from splicedvae_book import grading

    rng = np.random.default_rng(23)
    logit = rng.normal(0, 3, (40, 30))
    logit[:4] *= 400
    s, u = rng.poisson(1.0, (2, 40, 30)).astype(float)
    expected = ratio_loss(*(torch.tensor(x) for x in (logit, s, u)), "binomial").numpy()
    loss = grading.call(env, "binomial_loss", logit, s, u, shape=(40, 30))
    grading.agree("binomial_loss", loss, expected, "Some logits are very large or very small here.")


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q4
# points: [1, 1]

# %% [markdown]
# ## Question 4: Numbers that do nothing
#
# More parameters need not mean more functions. Take the linear head with the paper's softmax: from a
# latent of 10 dimensions, it computes *two* outputs for each of 500 genes, one for spliced and one
# for unspliced, each with its own weights and its own bias. A softmax over the two gives $p$.
# (There are no other parameters, and no `own_total`.)
#
# How many of these parameters could be dropped, at most, so that the head could still compute every
# function from $z$ to $p$ that it can now? Put the number into `spare`.

# %% [raw]
# # BEGIN SOLUTION

# %%
spare = 500 * (10 + 1)  # SOLUTION

# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q4_is_a_count(env):
    from splicedvae_book import grading

    spare = grading.value(env, "spare")
    if spare != int(spare) or spare < 0:
        raise AssertionError("`spare` should be a number of parameters: whole, and not negative.")


# %%
# HIDDEN
def q4_value(env):
    from splicedvae_book import grading

    spare = grading.value(env, "spare")
    expected = 5500
    hint = "What of two outputs does their softmax see? And which numbers make up an output?"
    grading.agree("spare", spare, expected, hint)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q5
# points: [1, 1]

# %% [markdown]
# ## Question 5: The head's first word
#
# A head that starts at $p = 1/2$ for every gene spends its first epochs on learning what a table of
# gene means knows, and pulls at the encoder all the while. So the output bias starts at the logit of
# each gene's pooled ratio, $b_g = \log \frac{p_g}{1 - p_g}$. One catch: a gene that was never seen
# unspliced would start at infinity, where no gradient ever brings it back. So each gene is given one
# more molecule, which is spliced in part, namely in the share $\bar p$ of spliced ones among *all*
# molecules of all genes. A gene without any molecule then starts at $\bar p$ itself, a gene with
# thousands does not notice.
#
# Write `first_bias(s, u)`, which takes counts (cells × genes) and returns $b$, (genes,).

# %% [raw]
# # BEGIN SOLUTION


# %%
def first_bias(s, u):
    """Logit of each gene's pooled ratio, with one molecule more at the ratio of all, (genes,)."""
    # BEGIN SOLUTION
    overall = s.sum() / (s.sum() + u.sum())
    return np.log((s.sum(axis=0) + overall) / (u.sum(axis=0) + 1 - overall))
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q5_three_genes(env):
    import numpy as np

    from splicedvae_book import grading

    s, u = (
        np.array([[1.0, 0.0, 2.0], [2.0, 0.0, 0.0]]),
        np.array([[1.0, 1.0, 0.0], [1.0, 2.0, 0.0]]),
    )
    bias = grading.call(env, "first_bias", s, u, shape=(3,))
    hint = "Half of all ten molecules are spliced. The genes have 3 of 5, 0 of 3 and 2 of 2."
    grading.agree("first_bias", bias, np.log([3.5 / 2.5, 0.5 / 3.5, 2.5 / 0.5]), hint)


# %%
# HIDDEN
def q5_many_genes(env):
    import numpy as np
    import torch
    from scipy.sparse import csr_matrix

    from splicedvae.start import gene_statistics
    from splicedvae_book import grading

    rng = np.random.default_rng(25)
    s, u = rng.poisson(rng.gamma(0.3, 2, (2, 1, 60)) * [[[1]], [[0.3]]], (2, 40, 60)).astype(float)
    s[:, 7] = u[:, 7] = u[:, 8] = 0
    counts = (csr_matrix(x) for x in (s + u, s, u))
    expected = gene_statistics(*counts).gene_logit.to(torch.float64)
    bias = grading.call(env, "first_bias", s, u, shape=(60,))
    hint = "Most molecules are spliced here, and some genes lack one form, or both."
    # The package also adds half a molecule of each form to the share of all: no share is then 0.
    grading.agree("first_bias", bias, expected, hint, tolerance=2e-3)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION

# %% [raw]
# # BEGIN QUESTION
# name: q6
# points: [1, 1]

# %% [markdown]
# ## Question 6: What reaches the encoder
#
# Shrink the network until it fits on a line: one count $x$, an encoder with the single weight $w$, a
# head with the single weight $v$,
#
# $$ z = w\,x, \qquad \eta = v\,z, \qquad p = \mathrm{sigmoid}(\eta), $$
#
# and the binomial loss of question 3 for an entry with $s$ and $u$. In a coupled head, the encoder
# learns from $\partial\,\text{loss} / \partial w$. In a detached head, this derivative is taken to
# be 0.
#
# Write `pull(s, u, x, w, v)`, the derivative of the loss to $w$ in the coupled head, for single
# numbers. Then set $v = 0$, where every head of the package starts, and see how much of the splicing
# loss reaches the encoder in the first step.

# %% [raw]
# # BEGIN SOLUTION


# %%
def pull(s, u, x, w, v):
    """Derivative of the binomial loss to the encoder's weight."""
    # BEGIN SOLUTION
    p = 1 / (1 + np.exp(-v * w * x))
    return ((s + u) * p - s) * v * x
    # END SOLUTION


# %% [raw]
# # END SOLUTION

# %% [raw]
# # BEGIN TESTS


# %%
def q6_one_molecule(env):
    from splicedvae_book import grading

    found = [grading.call(env, "pull", s, 1 - s, 2.0, 0.0, 1.0) for s in (0.0, 1.0)]
    hint = "One molecule, x = 2, w = 0, v = 1, so that p = 1/2; unspliced first, then spliced."
    grading.agree("pull", found, [1, -1], hint)


# %%
# HIDDEN
def q6_any_entry(env):
    import numpy as np

    from splicedvae_book import grading

    def loss(s, u, x, w, v):
        return (s + u) * np.logaddexp(0, v * w * x) - s * v * w * x

    cases = [(3.0, 1.0, 2.0, 0.3, -0.7), (1.0, 6.0, 0.5, -1.2, 2.0), (2.0, 2.0, 4.0, 0.5, 0.0)]
    step, found, expected = 1e-5, [], []
    for s, u, x, w, v in cases:
        found.append(grading.call(env, "pull", s, u, x, w, v))
        expected.append((loss(s, u, x, w + step, v) - loss(s, u, x, w - step, v)) / (2 * step))
    hint = (
        "Several molecules here, and weights other than 1: does the chain rule have all its links?"
    )
    grading.agree("pull", found, expected, hint, tolerance=1e-5)


# %% [raw]
# # END TESTS

# %% [raw]
# # END QUESTION
