# %% [markdown]
# # What would have to be added to scVI so that it says how much is spliced?
#
# scVI {cite:p}`Lopez2018` is a {term}`variational autoencoder`: it reads the counts of a cell,
# squeezes them into a short vector, and from that vector predicts the counts again. In doing so it
# learns what kind of cell it is looking at. The {term}`splicing ratio` of a gene depends on the
# kind of cell too, if only a little ({numref}`fig-ratios` in {doc}`chapter 1 <01_data>`). So the
# vector may already hold the answer, and what is missing is somebody who asks. What exactly has to
# be added, how is it trained, and how loudly must it ask to be heard?
#
# :::{admonition} In this chapter
# :class: tip
# - You will build the model part by part, and know the shape of every tensor.
# - You will see why the loss is summed and not averaged, and what a learned prior does.
# - You need {doc}`chapter 1 <01_data>` and some PyTorch.
# :::

# %% tags=["parameters"]
profile = "smoke"  # type: str (smoke: a first look; standard, full: figures; a build puts in its own)

# %% tags=["remove-stderr"]
import inspect
import textwrap

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scvi
import torch
from IPython.display import Markdown
from scvi.dataloaders import AnnDataLoader
from torch.distributions import Normal, kl_divergence

import splicedvae as sv
import splicedvae_book as lab
from splicedvae.head import HierarchicalLinear, RatioHead, ratio_loss
from splicedvae.module import SplicedVAEModule
from splicedvae.ratios.regression import linear_ratio, ridge_binomial
from splicedvae.start import gene_statistics

lab.profiles.quiet()
lab.plots.use_style()
scvi.settings.seed = 0
adata = lab.profiles.load(profile)
lab.profiles.banner(adata, profile)

# %%
adata, (train, val, test) = lab.profiles.prepared(adata, profile, seed=0)
sv.SplicedVAE.setup_anndata(adata)  # x = layers["total"]; s and u for the head
model = sv.SplicedVAE(adata)

# %% [markdown]
# ## The model in one picture

# %% mystnb={"image": {"alt": "Diagram. Counts x of shape B by G enter an encoder, which gives a latent z of shape B by L; a decoder turns z into means of negative binomial counts, B by G. A new branch in orange leads from z to a splicing head and from there to predicted ratios, p with a hat, B by G, with s given n binomial. A dashed line leads from the counts to the head, past the latent: K principal components, and each gene's own count. Below the head stands the law of its weights, normal with a mean of C times the loadings of the gene."}, "figure": {"caption": "The upper row is scVI. The orange branch is all that SplicedVAE adds. B cells in a minibatch, G genes, L latent dimensions, H hidden units, K components. The law of the head's weights is explained further below.", "name": "fig-architecture"}} tags=["hide-input"]
ax = lab.plots.architecture()

# %% [markdown]
# Read from left to right, this is a recipe for computing. Read from $z$ outwards, it is a story of
# how the data came about. A cell has a state $z$, the {term}`latent`. The state fixes which share
# $\rho_g$ of its RNA belongs to gene $g$. It also fixes, and this is new, which share $\hat p_g$ of
# that gene's RNA is spliced. (The hat says that it is the model's word for the true $p$.) With the
# {term}`library size` $\ell$, the counts $x = n$ and, among them, the spliced ones $s$ are then
# drawn:
#
# $$
# \begin{aligned}
# z &\sim \mathcal N(0, I_L), \\
# x_g \mid z &\sim \mathrm{NB}\big(\text{mean } \ell \rho_g(z),\ \phi_g\big),
#   & \rho(z) &= \mathrm{softmax}\,f(z), \\
# s_g \mid x, z &\sim \mathrm{Binomial}\big(n_g,\ \hat p_g(z, x)\big),
#   & \hat p_g(z, x) &= \mathrm{sigmoid}\,\eta_g(z, x).
# \end{aligned}
# $$ (eq-model)
#
# :::{margin} Machine learning
# **Latent, encoder, decoder.** A cell's thousands of counts vary together, along a few lines: its
# type, its stage. The *encoder* writes a cell down in as few numbers, its *latent*, and the
# *decoder* reads the counts from them again. Nobody tells either what the numbers should mean.
# :::
#
# $f$ is the decoder and $\eta$ the {term}`head`. (The head may look at the totals too, as the dashed
# line does: $s$ is drawn after them.) The {term}`negative binomial` has one $\phi_g$ per
# gene for {term}`overdispersion`. Nobody knows a cell's $z$, so the encoder learns to guess it: it
# gives a normal distribution $q(z \mid x)$ with a mean and a standard deviation per dimension
# {cite:p}`Kingma2014`. Guess and story are fitted together by making the {term}`ELBO` large,
#
# $$ \mathrm{ELBO}(x) = \mathrm{E}_{q(z \mid x)}\Big[\sum_g \log p(x_g \mid z)\Big]
#    - \mathrm{KL}\big(q(z \mid x) \,\|\, \mathcal N(0, I)\big) . $$ (eq-elbo)
#
# The first term asks for a good reconstruction; the second, the {term}`KL divergence`, is the price
# of saying something particular about a cell. Both are in nats, and both are *sums*: over genes,
# and over latent dimensions. Keep that in mind, since it decides what happens below. Let one
# {term}`minibatch` go through the network and look at its shapes.
#
# :::{margin} Machine learning
# **Prior and KL.** Before it has seen a cell, the model holds that $z$ is standard normal: this is
# its {term}`prior`. The *KL divergence* is how far what it says after seeing the cell is from
# there. Without that price, every cell would get a corner of its own, and cells alike would not end
# up side by side.
# :::

# %%
loader = AnnDataLoader(model.adata_manager, indices=train, batch_size=128)
tensors = next(iter(loader))
inference, generative, _ = model.module(tensors)
logit = model.module.splicing_logit(tensors, inference["qz"].loc)

steps = {
    "x, the input": tensors["X"],
    "mean of q(z|x)": inference["qz"].loc,
    "z, drawn from it": inference["z"],
    "means ℓρ": generative["px"].mean,
    "logit p̂": logit,
}
pd.DataFrame({"shape": {name: tuple(tensor.shape) for name, tensor in steps.items()}})

# %% [markdown]
# ## The head
#
# A head turns what it reads of a cell into one number per gene, on the {term}`logit` scale, where
# any number is allowed. It reads three things:
#
# 1. the first {term}`principal components` $y$ of the cell's log-normalised counts;
# 2. the latent $z$, with covariates, such as a batch, if there are any;
# 3. for each gene its own log-normalised count $o_g$, in units of its spread.
#
# The first two are the *features* $h$ of a cell, the same for all of its genes. The third is a
# gene's own. Each gene has a *weight* for every feature and one for its own count.
#
# Here is one gene in one cell, with two features only. In training, 0.8 of the gene's molecules were
# spliced, a logit of 1.39. The cell has the features $h = (1, -2)$, and its count of the gene is one
# spread above the mean, $o = 1$. The gene's weights are $(0.1,\ 0.05)$ on the features and $-0.2$ on
# its own count. So the head says $1.39 + 0.1 \cdot 1 - 0.05 \cdot 2 - 0.2 \cdot 1 = 1.19$, a ratio of
# 0.77. In letters,
#
# $$ \eta_g(z, x) = b_g + \theta_g \cdot h + \theta'_g\, o_g, \qquad h = \big(y,\ t(z)\big) . $$ (eq-head)
#
# And in the package:


# %% tags=["hide-input"]
def show(thing):
    """Show the source of a function or class of the package."""
    return Markdown(f"```python\n{textwrap.dedent(inspect.getsource(thing))}```")


show(RatioHead.forward)

# %% [markdown]
# `features` makes $o$ and $y$ of the counts, `trunk` is $t$, and `output` holds the weights.
#
# Four kinds of head differ in $t$. The *linear* head has none: $t$ changes nothing, and the head is
# one linear map. *mlp2* and *mlp3* put one and two hidden layers before that map, and *bottleneck*
# puts two, the second one narrow. The paper uses mlp2 {cite:p}`SplicedVAE2026`. More layers can bend
# the relation between state and ratio, and have more to fit noise with. Here they are without
# components and with plain weights (`l2=0`), as in the paper.

# %%
n_latent, n_genes = model.module.n_latent, adata.n_vars
sizes = {
    activation: {
        kind: sum(
            weights.numel()
            for weights in RatioHead(n_latent, n_genes, kind, activation, l2=0).parameters()
        )
        for kind in ("linear", "mlp2", "mlp3", "bottleneck")
    }
    for activation in ("sigmoid", "softmax")
}
sizes = pd.DataFrame(sizes).rename_axis("parameters of the head", axis=1)
sizes

# %% tags=["remove-input"]
lab.profiles.finding(
    f"with {n_latent} latent dimensions and {n_genes} genes, the linear head has "
    f"{sizes.loc['linear', 'sigmoid']:,} parameters and mlp2 {sizes.loc['mlp2', 'sigmoid']:,}, "
    f"{sizes.loc['mlp2', 'sigmoid'] / sizes.loc['linear', 'sigmoid']:.1f} times as many.",
    profile,
    kept=f"The linear head has {sizes.loc['linear', 'sigmoid']:,} parameters, mlp2 {sizes.loc['mlp2', 'sigmoid'] / sizes.loc['linear', 'sigmoid']:.1f} times as many.",
)

# %% [markdown]
# Three details are easily overlooked. The first is where the head starts. Its weights are zero and
# its intercept $b_g$ is the logit of the gene's pooled training ratio, so before any training it
# says what the {term}`gene mean` says. Whatever it says beyond that, it has learnt.
#
# The second is `own_total`. The latent is shared by all genes and summarises them. The count of the
# gene itself says something that no summary keeps, and one weight per gene lets the head look at it.
#
# The third is `n_components`. A latent of few dimensions is made to rebuild counts. On the way it
# may lose some of what totals say of ratios. What totals say of ratios is also nearly linear in
# them: no bent function that we tried found more (they are listed in {doc}`tried`). So
# the plainest summary serves: thirty principal components, fixed before training. They are what the
# {term}`baseline` reads that any statistician would try first, a regression for each gene.
# {doc}`Chapter 3 <03_training>` takes own counts and components away and measures what is lost.
#
# :::{margin} Machine learning
# **Principal components.** The directions along which cells differ most, each at a right angle to
# those before it. A cell's position on the first thirty is a short summary of its counts, a
# weighted sum of genes for each: linear, where an encoder may bend.
# :::

# %%
head = RatioHead(n_latent, n_genes, "mlp2")
total, spliced, unspliced = (adata.layers[k][train] for k in ("total", "spliced", "unspliced"))
statistics = gene_statistics(total, spliced, unspliced)
head.start(statistics)
counts = torch.as_tensor(total[:5].toarray())  # five cells, with any latent
start = torch.sigmoid(head.eval()(torch.randn(5, n_latent), counts))

gene_mean = sv.baselines.GeneMean().fit(adata[train], adata[val]).mean_
print(
    f"largest difference to the gene mean: {np.abs(start.detach().numpy() - gene_mean).max():.1e}"
)

# %% [markdown]
# The table above has a second column. The paper also tries a *softmax* over two outputs per gene,
# one for spliced and one for unspliced. This sounds like a different model and is the same one.
# With outputs $a$ and $b$,
#
# $$ \frac{e^a}{e^a + e^b} = \frac{1}{1 + e^{-(a - b)}} = \mathrm{sigmoid}(a - b), $$
#
# so only the difference counts, and a single output can be that difference. The second one doubles
# the parameters of the last layer and adds no function that the head could not compute before.

# %%
a, b = torch.randn(2, 1000)
print(torch.allclose(torch.softmax(torch.stack([a, b]), dim=0)[0], torch.sigmoid(a - b)))

# %% [markdown]
# ## What counts as wrong?
#
# A prediction $\hat p$ meets an {term}`entry` with $s$ spliced molecules of $n$, that is with $r =
# s/n$. How wrong is it? Three answers to begin with, the first in the logit $\eta$ that the head
# puts out, with $\hat p = \mathrm{sigmoid}(\eta)$:
#
# $$
# \begin{aligned}
# \text{binomial:} \quad & -\log p(s \mid n, \hat p)
#   = n \log(1 + e^{\eta}) - s\,\eta + \text{const}, \\
# \text{squared error (MSE):} \quad & (\hat p - r)^2, \\
# \text{absolute error (L1):} \quad & |\hat p - r|.
# \end{aligned}
# $$ (eq-losses)
#
# The package knows three more: the {term}`beta-binomial`, the squared error with genes weighted by
# their {term}`total counts <total count>`, and the {term}`quasi-binomial`, which is the default and
# comes below. Unfold the source to see all six.

# %% tags=["hide-output"]
show(ratio_loss)

# %% [markdown]
# One entry shows the shapes of the curves. Many entries show what they aim at, so the second panel
# averages each loss over simulated entries with a single molecule and a true ratio of 0.7.

# %% mystnb={"image": {"alt": "Two panels of loss against the predicted ratio, for binomial, squared and absolute error. Left, one entry with 3 of 4 molecules spliced: all three have their minimum at 0.75, and the binomial rises steeply towards 0 and 1. Right, the mean over entries with one molecule and true ratio 0.7: binomial and squared error have their minimum near 0.7, the absolute error falls all the way to a prediction of 1."}, "figure": {"caption": "Binomial and squared error aim at the true ratio. The absolute error aims at the median, which for single molecules is 0 or 1.", "name": "fig-losses"}}
grid = torch.linspace(0.01, 0.99, 99)[:, None]  # (99, 1), predicted ratios
few = torch.tensor([[3.0]]), torch.tensor([[1.0]])  # s and u of one entry
once = (torch.rand(1, 5000) < 0.7).float()  # (1, 5000), s of entries with n = 1
cases = {"one entry, s = 3, n = 4": few, "5000 entries, n = 1, true p = 0.7": (once, 1 - once)}

figure, axes = plt.subplots(1, 2, figsize=(9, 3.6))
lowest = {}
for ax, (title, (s, u)) in zip(axes, cases.items(), strict=True):
    losses = {
        kind: ratio_loss(torch.logit(grid), s, u, kind).mean(1)
        for kind in ("binomial", "mse", "l1")
    }
    table = pd.DataFrame(losses, index=grid[:, 0].numpy())
    above = table - table.min()
    above.plot(ax=ax, style=["-", "--", "-."], lw=2, title=title, ylim=(0, 1.5))
    ax.set(xlabel=r"predicted ratio, $\hat p$", ylabel="loss above its minimum")
    lowest[title] = table.idxmin()

# %%
pd.DataFrame(lowest).T.rename_axis("p̂ with the lowest loss", axis=1).round(2)

# %% [markdown]
# Most entries that hold anything hold one or two molecules ({numref}`fig-depth` in
# {doc}`chapter 1 <01_data>`), so the absolute error learns to say 1 for most genes. Binomial and
# squared error both aim at $p$, but not with the same care. The binomial counts molecules: an entry
# with forty weighs forty times as much as one with a single one, as it should if molecules are independent
# (whether they are is asked below). The squared error counts entries, and listens to the noisiest just as closely.
#
# Where $n = 0$ there is no ratio and there must be no loss. Writing $r = 0$ there would teach the
# head that genes without counts are unspliced. So these entries are masked: no loss, and no
# gradient.

# %%
logits = torch.zeros(1, 2, requires_grad=True)
s, u = torch.tensor([[0.0, 3.0]]), torch.tensor([[0.0, 1.0]])  # nothing counted; 3 of 4
for kind in ("binomial", "mse", "l1"):
    loss = ratio_loss(logits, s, u, kind)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    print(f"{kind:9} loss {loss.detach().numpy().round(3)}  gradient {gradient.numpy().round(3)}")

# %% [markdown]
# :::{exercise} Weigh a molecule
# :label: ex-weigh
# Two entries have $r = 0.75$: one with $s = 3$ of 4, one with $s = 30$ of 40. At $\hat p = 0.5$,
# how do their gradients on the logit differ under the binomial and under the squared error?
# :::
#
# :::{solution} ex-weigh
# :class: dropdown
# ```python
# logits = torch.zeros(1, 2, requires_grad=True)
# s, u = torch.tensor([[3.0, 30.0]]), torch.tensor([[1.0, 10.0]])
# for kind in ("binomial", "mse"):
#     print(kind, torch.autograd.grad(ratio_loss(logits, s, u, kind).sum(), logits)[0])
# ```
# The binomial's gradient is $n\,(\hat p - r)$, ten times larger for the deeper entry. The squared
# error's, $2\,(\hat p - r)\,\hat p\,(1 - \hat p)$, does not contain $n$: both entries pull equally
# hard.
# :::
#
# ## How much is a molecule worth?
#
# The binomial takes every molecule for independent evidence: forty weigh ten times as much as four.
# But genes burst. Molecules that one burst made are of one age, and tend to be spliced together or
# not at all. So real counts scatter about a ratio more than a binomial says ({term}`overdispersion`),
# and the fortieth molecule of an entry tells less than the first. A loss that does not know this
# listens too much to a few deep entries, and the more so the deeper the data.
#
# How much less does it tell? The scatter itself says so. Each gene has a {term}`concentration` $c$,
# measured on the training cells before the training: if it is large, the binomial is right; if it is
# small, the molecules of a cell go together. $n$ molecules then scatter as much as
#
# $$ n_\mathrm{eff} = n\, \frac{c + 1}{c + n} $$ (eq-effective)
#
# independent ones would {cite:p}`Williams1982`. Take $c = 20$ and 1, 10 and 100 molecules.

# %%
n = torch.tensor([[1.0, 10.0, 100.0]])
case = torch.zeros(1, 3), 0.75 * n, 0.25 * n  # logit, s, u
log_c = torch.full((3,), 20.0).log()
weight = ratio_loss(*case, "quasi_binomial", None, log_c) / ratio_loss(*case, "binomial")
pd.DataFrame({"molecules": n[0], "worth": (weight * n)[0]}).round(1)

# %% [markdown]
# One molecule counts in full, ten as seven, a hundred as seventeen and a half. However many there
# are, they never count as more than $c + 1 = 21$. The default loss, the {term}`quasi-binomial`, is
# the binomial with each entry multiplied by $(c + 1)/(c + n)$. It aims at the same ratio, since both
# $s$ and $n$ are scaled by one factor.

# %% tags=["remove-input"]
c = statistics.concentration.numpy()
middle, n = np.median(c), total.tocoo()
worth = (n.data * (c[n.col] + 1) / (c[n.col] + n.data)).sum() / n.data.sum()
lab.profiles.finding(
    f"half of the {n_genes} genes have a concentration below {middle:.0f}. In the gene in the middle, "
    f"10 molecules count as {10 * (middle + 1) / (middle + 10):.1f} and 100 as "
    f"{100 * (middle + 1) / (middle + 100):.0f}. All molecules of the training cells together count as "
    f"{worth:.0%} of their number.",
    profile,
    kept=f"All molecules of the training cells together count as {worth:.0%} of their number: they are not independent.",
)

# %% [markdown]
# ## What few molecules can tell, and what many genes know
#
# In the head, a gene has 51 weights: one for each of 20 latent dimensions and of 30 components, and
# one for its own count. (We call them *slopes* too, as in any regression.) Can its molecules tell
# them? Take a gene with 100 molecules, of which 80 are spliced, and one feature of variance 1. The
# gene tells its slope with a standard error of $1/\sqrt{100 \cdot 0.8 \cdot 0.2} = 0.25$. The slopes
# that we look for are mostly of the size of 0.1 or less. So a slope that such a gene tells alone is
# mostly noise, and it has fifty of them.
#
# A {term}`ridge penalty`, which draws slopes to 0, helps. But how strong should it be? The same for
# all features? And why to 0? Statisticians have met the question among baseball players, whose
# batting averages in the first weeks of a season are poor guides to the rest of it. It helps to draw
# each player's average towards that of all players {cite:p}`Efron1975`. Players do not bat for one
# another, yet the many tell what is likely of the one. The less players differ, the stronger the
# pull. Such a law for all players is a {term}`prior`. It is not chosen but learnt, from the very
# data that it is then used on. The larger the crowd, the better that works, and ours has as many
# players as there are genes.
#
# ### Five genes
#
# Let us do it by hand. Five genes have one slope each. The first has 2,500 molecules, the last two
# have 100. In all of them, 0.8 is spliced, which gives the noise as above. The slopes that each gene
# tells alone are made up.

# %%
genes = pd.DataFrame(
    {"molecules": [2500, 400, 400, 100, 100], "alone": [0.20, -0.10, 0.25, 0.35, -0.30]},
    index=list("ABCDE"),
)
genes["noise"] = 1 / np.sqrt(genes["molecules"] * 0.8 * 0.2)  # standard error
genes

# %% [markdown]
# Genes D and E stand out, and they are the ones with the fewest molecules. Is that chance? What we
# see in the slopes is the spread of the true slopes and the noise, one on top of the other, and
# variances add up. So we take the noise away, and what is left is how much true slopes spread.

# %%
seen, noise = (genes["alone"] ** 2).mean(), genes["noise"] ** 2
spread = seen - noise.mean()  # variance of the true slopes: the prior
genes["kept"] = spread / (spread + noise)
genes["shrunk"] = genes["kept"] * genes["alone"]
print(f"variance seen {seen:.3f} = noise {noise.mean():.3f} + true spread {spread:.3f}")
genes.round(3)

# %% [markdown]
# Gene A keeps 93 % of its slope: its own molecules know better than the crowd. D keeps 35 %. Its
# slope was the largest of all, and is now smaller than A's. Nobody chose these shares. They follow
# from the noise of each gene and from a spread that all five have told together.
#
# ### The same in one loss
#
# This took two steps, first the spread, then the slopes. But it is also the lowest point of a single
# loss, and a loss is what a network can be trained with. We no longer ask for one number per slope
# but for what is known of it, a normal distribution with a mean $\mu$ and a variance $\nu$: its
# {term}`variational posterior`. The loss has two terms. The first is how badly the slope fits what
# the gene tells. The second is the KL divergence of the posterior from the prior, the price of
# saying something particular about a gene, as the ELBO has one of saying something particular about
# a cell. The width of the prior is a parameter like the others.

# %%
alone, variance = (torch.tensor(v.to_numpy(), dtype=torch.float32) for v in (genes["alone"], noise))
mean, log_v = torch.zeros(5, requires_grad=True), torch.full((5,), -5.0, requires_grad=True)
log_width = torch.tensor(-2.0, requires_grad=True)
optimizer = torch.optim.Adam([mean, log_v, log_width], lr=0.03)
for _ in range(600):
    posterior, prior = Normal(mean, (log_v / 2).exp()), Normal(0.0, log_width.exp())
    misfit = ((mean - alone) ** 2 + log_v.exp()) / (2 * variance)  # expected, in nats
    loss = (misfit + kl_divergence(posterior, prior)).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

genes["by one loss"], genes["± sd"] = mean.detach().numpy(), posterior.stddev.detach().numpy()
print(f"width of the prior: {spread**0.5:.2f} by hand, {log_width.exp().item():.2f} by the loss")
genes[["alone", "noise", "shrunk", "by one loss", "± sd"]].round(3)

# %% [markdown]
# Nearly the same slopes (the two ways estimate the spread a little differently, and five genes tell
# it roughly). And each comes with how sure it is: always surer than the gene's own noise, since the
# crowd has added to what is known.
#
# :::{exercise} A gene without molecules
# :label: ex-sixth
# A sixth gene, F, has no molecules at all, so its slope alone could be anything. Where does the
# prior put it? Suppose now that genes which rise along the feature have slopes about $-0.2$, and
# those that fall $+0.2$. F rises. Where should the prior put it?
# :::
#
# :::{solution} ex-sixth
# :class: dropdown
# Its noise is infinite, so its share `kept` is 0, and its slope is 0, the mean of the prior, with
# the whole width of the prior for an uncertainty. In the second case the prior's mean should be
# $-0.2$ for F. What a gene's total does is known even where its splicing is not, and that is a
# better guess than 0. The next section lets the head have it.
# :::
#
# ### All genes, all features
#
# The head does this for some fifty slopes of all genes at once. The logit of the gene $g$ in the
# cell $i$ is
#
# $$ \eta_{ig} = b_g + (A^\top h_i) \cdot w_g + a\, o_{ig} v_g, \qquad
#    (w_g, v_g) \sim \mathcal N(C\, l_g,\; \sigma_g^2 I) . $$ (eq-prior)
#
# It is equation {eq}`eq-head` again, with slopes $\theta_g = A w_g$ on the features and
# $\theta'_g = a v_g$ on the own count. $A$, $a$, $C$ and $\sigma_g$ belong to the prior, and each answers a question.
#
# - $A$ and $a$, **how strong?** In the example one width served one feature. The matrix $A$ has a
#   width along each direction of the features. Along a direction that says nothing of any gene, all
#   slopes are drawn to nothing. Along one that many genes follow, the next gene is trusted too.
#   $a$ is the width for own counts.
# - $C\, l_g$, **why to 0?** The loadings $l_g$ are the correlations of the gene's total with the
#   components (and a 1, for what all genes have in common). A gene that is being switched on along
#   some direction rises in it, and has more of its molecules unspliced. So what its total does hints
#   at what its ratio does. $C$ is how much, learnt from all genes.
# - $\sigma_g$, **the same for all?** Most genes hardly follow the state of the cell; a few follow it
#   far. A single width would draw those few in as hard as the others. So each gene has a scale of
#   its own, drawn to 1. This makes the prior a $t$ distribution, here with 8 degrees of freedom,
#   and a gene with evidence enough may stand out.
#
# :::{margin} Biology
# **Switched on.** When a gene is switched on, its unspliced molecules come first and the spliced
# ones a little later; when it is switched off, the unspliced ones go first. So ratios follow
# change, of which totals show the course.
# :::
#
# What does the prior cost? Take one weight whose prior is standard normal.

# %%
prior = Normal(0.0, 1.0)
for what, posterior in {
    "as the prior": Normal(0.0, 1.0),
    "mean moved by one width": Normal(1.0, 1.0),
    "ten times as sure": Normal(0.0, 0.1),
}.items():
    print(f"{what:24} {kl_divergence(posterior, prior):.2f} nats")

# %% [markdown]
# To say nothing is free. To move by one width of the prior costs half a nat, and to be ten times as
# sure costs 1.8. A weight moves only where the likelihood of the counts gains more than that. With a
# posterior $\mathcal N(\mu_j, \nu_j)$ for each weight $j$ of the gene, the price of all genes is
#
# $$ \mathrm{KL}\big(q(w) \,\|\, p(w)\big) = \tfrac12 \sum_g \sum_j \left[ \frac{\nu_{gj}}{\sigma_g^2}
#    + \frac{\big(\mu_{gj} - (C l_g)_j\big)^2}{\sigma_g^2} - 1 - \log \frac{\nu_{gj}}{\sigma_g^2}
#    \right] , $$ (eq-kl)
#
# and here it is, with a few nats that keep $b$, $C$ and $\sigma$ themselves within bounds.

# %%
show(HierarchicalLinear.penalty)

# %% [markdown]
# In training, weights have to be drawn from their posterior, since the loss asks what all weights
# that are still possible would say. Draws of the weights would be shared by all cells of the
# minibatch, which would err together and make the gradient noisy. But a logit is a sum of normal
# weights, so it is normal itself, with mean $\sum_j \mu_j h_j$ and variance $\sum_j \nu_j h_j^2$ for
# inputs $h_j$. Therefore each cell draws its logit in place of the weights: the same loss on
# average, with much less noise ({term}`local reparameterisation`, {cite:p}`Kingma2015`). In
# prediction the weights are at their means. Unfold the source to see both.

# %% tags=["hide-output"]
show(HierarchicalLinear.forward)

# %% [markdown]
# (A number for `head_l2` fixes the prior in place of learning it. The KL term then becomes
# $\tfrac{\tau}{2} \lVert w \rVert^2$ with $\tau$ = `head_l2`, a ridge penalty, and the weights are
# single numbers. The paper's head has none, `head_l2=0`.)
#
# ### A second modality
#
# A gene's region of the DNA opens before the gene is transcribed, and closes before it stops. A
# {term}`multiome` measures that too: for each gene, how much of its chromatin is open in this cell.
# It is one more thing that is each gene's own, so it enters as the own count does, with a width
# $a'$ of its own that is learnt from all genes:
#
# $$ \eta_{ig} = \ldots + a'\, d_{ig} v'_g , $$
#
# where $d_{ig}$ is the value, standardised over the training cells. Whole numbers are taken for
# counts and log-normalised first; others, such as a methylated share, are taken as they are. Where
# a value is missing, $d_{ig}$ is 0 and says nothing. If chromatin tells nothing of splicing, $a'$
# shrinks and the model is what it was. One argument of `setup_anndata` names the layer:
#
# ```python
# sv.SplicedVAE.setup_anndata(adata, modality_layer="chromatin")
# ```
#
# The encoder still reads counts alone. With `SplicedVAE(adata, encode_modality=True)` it reads the
# second modality beside them, so that the latent is of both.
# {doc}`Chapter 6 <06_atlas>` asks what either buys.
#
# ## The loss on one page
#
# Now everything is there. The loss of a {term}`minibatch` is the mean over cells of
#
# $$ \mathcal L = -\mathrm{ELBO}(x) + \lambda \Big[ \sum_g \mathrm{loss}(s_g, u_g, \hat p_g)
#    + \tfrac1N\, \mathrm{KL}\big(q(w) \,\|\, p(w)\big) \Big] . $$ (eq-objective)
#
# All training cells share the weights. So the price of the weights is divided by the number $N$ of
# training cells. (It counts only those in which both forms were seen, since the others say nothing
# of ratios.) With 2,000 training cells, the sum over a minibatch of 100 bears a twentieth of it.

# %%
show(SplicedVAEModule.loss)

# %% [markdown]
# Encoder, decoder, head and prior learn from this one number, and what it has trained is what
# predicts. Nothing is fitted afterwards. Change a line here, and the predictions change.
#
# ## Train it
#
# A few {term}`epochs <epoch>` are enough to see the machinery at work;
# {doc}`chapter 3 <03_training>` trains in earnest. Fitting sees the training cells, validation
# cells only watch, and test cells are not touched ({term}`train, val and test`).

# %%
epochs = 12
model.train(max_epochs=epochs, split=(train, val), enable_progress_bar=False)

# %% mystnb={"image": {"alt": "Three panels by epoch, each with a solid line for training and a dashed one for validation cells: the negative ELBO falls, the ratio loss moves little, and the Pearson correlation of the ratio is high from the first epoch."}, "figure": {"caption": "The correlation is high from the first epoch, since the head starts at the gene mean. Only what comes on top of it is learnt from cells.", "name": "fig-history"}}
figure, axes = plt.subplots(1, 3, figsize=(10, 3.2))
for ax, score in zip(axes, ("elbo", "ratio_loss", "ratio_pearson_r"), strict=True):
    lab.plots.history(model.history, score, ax)

# %% [markdown]
# What does sharing do to real genes? To see it, each gene is also fitted alone, on the same features
# and with no more of a penalty than keeps its slopes finite.


# %%
def features(cells):
    """What the head reads of each cell, less the genes' own counts, (cells, K + L)."""
    counts = torch.as_tensor(adata.layers["total"][cells].toarray())
    _, components = model.module.head.features(counts)
    z = model.get_latent_representation(indices=cells)
    return np.column_stack([components.numpy(), z]).astype(float)


model.to_device("cpu")
known = features(train)
molecules = [layer.toarray().astype(float) for layer in (spliced, total)]
first = np.zeros((1 + known.shape[1], n_genes))  # intercept, then slopes
first[0] = statistics.gene_logit
output, width = model.module.head.output, known.shape[1]
each = torch.eye(width), [torch.zeros(width, n_genes)]  # one feature at a time, no own count
shared = output(*each) - output.bias  # A w, (K + L, genes)
slopes = {
    "alone": ridge_binomial(known, *molecules, l2=1, weights=first),
    "together": torch.vstack([output.bias, shared]).detach().numpy(),
}

# %% mystnb={"image": {"alt": "Two panels. Left, a scatter plot with a dot per gene: its slope on the first principal component fitted alone, across, against the slope fitted together with all genes, up. Nearly all dots lie in a flat band a little above zero, which the dashed line of equal slopes crosses steeply. Right, a bar for each feature: the learned width of the prior, for components in one colour and for latent dimensions in another, with a dashed line at the common width of the start. The bars of the first components are the highest."}, "figure": {"caption": "Left: the slope of each gene on the first component, alone and together with all others. On the dashed line nothing would change; the band is much flatter. Colours: molecules of the gene in the training cells. Right: the width of the prior along each feature. It began at the dashed line, the same for all.", "name": "fig-together"}}
one = pd.DataFrame({way: weights[1] for way, weights in slopes.items()})
widths = output.mixing.square().sum(1).sqrt().detach().numpy()  # of the slopes, by feature
figure, (ax, bars) = plt.subplots(1, 2, figsize=(9.4, 3.8))
dots = ax.scatter(*one.to_numpy().T, c=np.log10(molecules[1].sum(0)), s=8, cmap="viridis")
ax.axline((0, 0), slope=1, color=lab.plots.INK, ls="--", lw=1)
ax.set(xlabel="slope, gene by gene", ylabel="slope, all genes together")
top = 1.5 * one["together"].abs().max()
ax.set_ylim(-top, top)
figure.colorbar(dots, label=r"$\log_{10}$ molecules")

for name, part, colour in (
    ("components", slice(None, -n_latent), lab.plots.BLUE),
    ("latent", slice(-n_latent, None), lab.plots.ORANGE),
):
    bars.bar(np.arange(len(widths))[part], widths[part], color=colour, label=name)
bars.axhline(output.START, color=lab.plots.INK, ls="--", lw=1)
bars.set(xlabel="feature", ylabel="width of the prior")
_ = bars.legend()

# %% tags=["remove-input"]
held_out = [adata.layers[name][val] for name in ("spliced", "unspliced")]
explained = {
    way: sv.metrics.ratio_report(*held_out, linear_ratio(features(val), weights), gene_mean)["d2"]
    for way, weights in slopes.items()
}
sd, centre = one.std(), one["together"].mean()
lab.profiles.finding(
    f"the slopes of {n_genes} genes on the first component have a standard deviation of "
    f"{sd['alone']:.3f} gene by gene and of {sd['together']:.3f} together, where one gene stands out "
    f"from the others by {(one['together'] - centre).abs().max() / sd['together']:.0f} standard "
    f"deviations. Their mean is {centre:.3f}. The prior is {widths[:-n_latent].max():.3f} wide along its widest component "
    f"and {widths.min():.3f} along its narrowest feature. On the validation cells, slopes alone explain "
    f"{explained['alone']:.3f} of the deviance beyond the gene mean (D²), slopes together "
    f"{explained['together']:.3f}, both without the genes' own counts and after {epochs} epochs.",
    profile,
    kept=f"Slopes learnt gene by gene explain {explained['alone']:.3f} of the deviance beyond the gene mean, slopes that share a prior {explained['together']:.3f}.",
)

# %% [markdown]
# Alone, genes fit noise. Where a D² is below 0, the gene mean would have been better.
# Together, they lie about a mean that is not 0: it is what $C$ has learnt of all genes. And the
# prior has sorted the features, though nobody has told it which matter. Where a feature has lost its
# width, no gene is free to follow it. (The latent dimensions are still young here. What they are
# worth after a whole training, {doc}`chapter 3 <03_training>` measures.)
#
# ## How loudly must the head ask?
#
# The paper's objective is the negative ELBO plus a splicing loss with a weight {term}`λ`,
# $\mathcal L = \mathcal L_\mathrm{ELBO} + \lambda\,\mathcal L_\mathrm{splice}$, with a mean squared
# error and $\lambda = 1$ {cite:p}`SplicedVAE2026`. A weight of one sounds like equal voices. But a
# sum over genes stands on one side and a mean over entries on the other. We take the model we have
# just trained, one minibatch of its training cells, and measure each term, and how hard it pulls at
# the encoder's weights.

# %%
module = model.module.eval()  # no dropout: the same pass for each term
inference, generative, loss = module(tensors)
s, u = tensors["spliced"], tensors["unspliced"]
counted = (s + u > 0).sum()
logit = module.splicing_logit(tensors, inference["qz"].loc)
log_c = module.head.log_concentration
entries = ratio_loss(logit, s, u, "quasi_binomial", None, log_c)

terms = {
    "negative ELBO": (
        loss.reconstruction_loss["reconstruction_loss"] + sum(loss.kl_local.values())
    ).mean(),
    "quasi-binomial, summed over genes": entries.sum(1).mean(),
    "MSE, summed over genes": ratio_loss(logit, s, u, "mse").sum(1).mean(),
    "MSE, mean over entries (the paper)": ratio_loss(logit, s, u, "mse").sum() / counted,
}


def pull(term):
    """Norm of the gradient on the encoder's weights; 0 where none arrives."""
    weights = list(module.z_encoder.parameters())
    gradients = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
    return sum(g.square().sum() for g in gradients if g is not None) ** 0.5


scale = pd.DataFrame(
    {
        "size per cell": {name: term.item() for name, term in terms.items()},
        "gradient on the encoder": {name: float(pull(term)) for name, term in terms.items()},
    }
)

# %% mystnb={"image": {"alt": "Two bar charts on logarithmic axes, the size of four loss terms and their gradients on the encoder: the negative ELBO, the quasi-binomial summed over genes, the squared error summed over genes, and the squared error averaged over entries. The last is smaller than the others by orders of magnitude in both."}, "figure": {"caption": "Averaged over entries, the splicing loss is smaller than the ELBO by orders of magnitude, and so is its pull on the encoder.", "name": "fig-scale"}}
axes = scale.plot.barh(
    subplots=True,
    layout=(1, 2),
    sharey=True,
    sharex=False,
    logx=True,
    legend=False,
    figsize=(9, 2.6),
)
for ax in axes.ravel():
    ax.bar_label(ax.containers[0], fmt=lambda x: f"{x:,.0f}" if x > 99 else f"{x:.2g}", padding=3)
    ax.margins(x=0.25)
axes[0, 0].invert_yaxis()

# %% tags=["remove-input"]
elbo, summed, _, averaged = scale.to_numpy()
lab.profiles.finding(
    f"the negative ELBO is {elbo[0]:,.0f} nats per cell, the summed quasi-binomial "
    f"{summed[0]:,.0f}, "
    f"and the averaged squared error {averaged[0]:.3f}. On the encoder, the averaged error pulls "
    f"{summed[1] / averaged[1]:,.0f} times less than the summed quasi-binomial, which in turn pulls "
    f"{elbo[1] / summed[1]:,.0f} times less than the ELBO.",
    profile,
    kept=f"An averaged error pulls {summed[1] / averaged[1]:,.0f} times less on the encoder than the summed loss.",
)

# %% [markdown]
# (The head is young, and pulls harder as it learns. What counts here is how the bar of the averaged loss compares with that of the summed one.)
# So with $\lambda = 1$, read literally, the encoder learns nearly what the ELBO alone would teach it. A mean over entries is the sum per
# cell divided by the number of counted genes, and no weight of order one makes up for that.
#
# What then is the right weight? There is one choice with a reason. Take the binomial, *sum* it over
# genes as the ELBO does, and set $\lambda = 1$. Since $x = n = s + u$,
#
# $$ \log p(x \mid z) + \log p(s \mid x, z, w) = \log p(s, u \mid z, w), $$
#
# and the loss becomes the negative ELBO of a model of *both* counts and of the head's weights, up to
# a constant. No term needs a weight, as all are log-probabilities in nats. This is the default, with
# the quasi-binomial in place of the binomial: its nats are those of the effective number of
# molecules. The paper's setting remains within reach: `sv.SplicedVAE(adata, **lab.fits.PAPER)`, in which
# `ratio_loss="mse", ratio_reduction="mean", ratio_weight=1` is the loss.
#
# Does it matter for the predictions? We train the same network twice more. One has $\lambda = 0$, so
# its head is never heard. The other has the paper's setting.


# %%
def trained(**settings):
    """Ratios of the validation cells, after as short a training as above."""
    scvi.settings.seed = 0
    other = sv.SplicedVAE(adata, **settings)
    other.train(max_epochs=epochs, split=(train, val), enable_progress_bar=False)
    return other.get_splicing_ratio(indices=val, return_numpy=True)


predicted = {
    "the default, λ = 1": model.get_splicing_ratio(indices=val, return_numpy=True),
    "λ = 0": trained(ratio_weight=0),
    "the paper's setting": trained(**lab.fits.PAPER),
}
(
    pd.DataFrame(
        {
            "typical distance from the gene mean": {
                name: np.abs(ratio - gene_mean).mean() for name, ratio in predicted.items()
            },
            "D², validation cells": {
                name: sv.metrics.ratio_report(*held_out, ratio, gene_mean)["d2"]
                for name, ratio in predicted.items()
            },
        }
    ).round(4)
    + 0.0
)

# %% [markdown]
# With $\lambda = 0$ the head still says the gene mean, to the last digit. What the loss does not ask
# for is not learnt, and there is no other place where it could be.
#
# :::{exercise} A loss of your own
# :label: ex-own
# Change the loss so that entries with a single molecule are ignored, and train with it. Must the
# head become worse, now that it sees fewer molecules?
# :::
#
# :::{solution} ex-own
# :class: dropdown
# In a clone of the repository, edit `ratio_loss` in `head.py` or `loss` in `module.py`. In a
# notebook, put another function where `module.py` looks for it:
# ```python
# import splicedvae.module
#
#
# def deep_only(logit, spliced, unspliced, *settings):
#     loss = ratio_loss(logit, spliced, unspliced, *settings)
#     return torch.where(spliced + unspliced > 1, loss, 0.0)
#
#
# splicedvae.module.ratio_loss = deep_only
# own = trained()
# splicedvae.module.ratio_loss = ratio_loss
# print(sv.metrics.ratio_report(*held_out, own, gene_mean)["d2"])
# ```
# It becomes worse. An entry with a single molecule says little, but there are many of them: chapter 1
# counts them. You have changed one line, and other
# ratios came out.
# :::
#
# :::{exercise} A weight for the paper's loss
# :label: ex-weight
# Which $\lambda$ would give the averaged squared error the same pull on the encoder as the summed
# quasi-binomial? Why is it not simply the number of counted genes in a cell?
# :::
#
# :::{solution} ex-weight
# :class: dropdown
# ```python
# pulls = scale["gradient on the encoder"]
# print(pulls.iloc[1] / pulls.iloc[3], "counted genes per cell:", float(counted / len(s)))
# ```
# The number of counted genes turns the mean into a sum, no more. The quasi-binomial also weighs an
# entry by its effective molecules, and its gradient lacks the squared error's factor $2 \hat p (1 - \hat p)$, which
# is small for the many genes with a ratio near 1.
# :::
#
# ## Coupled or detached?
#
# The paper's claim is that the question makes the latent better, and not only that the latent has
# an answer. These are two things, and one line of code separates them. In a {term}`coupled head`
# the gradient of the splicing loss flows through $z$ into the encoder. In a {term}`detached head`
# it stops at $z$: that is plain scVI, with a regression on its latent (and on what else the head
# reads, which no gradient can change).
#
# :::{margin} Machine learning
# **Gradient, detach.** Training asks of each weight: if it grew a little, how would the loss
# change? That is its *gradient*, and the weight takes a small step against it. The question travels
# back through the network; `detach` is a wall that it does not pass, so weights behind it stay as
# they are.
# :::

# %%
z = inference["qz"].loc
for name, latent in (("coupled", z), ("detached", z.detach())):
    logit = module.splicing_logit(tensors, latent)
    term = ratio_loss(logit, s, u, "quasi_binomial", None, log_c).sum(1).mean()
    print(f"{name:8} gradient on the encoder: {float(pull(term)):.3g}")

# %% [markdown]
# `sv.SplicedVAE(adata, detach_head=True)` is the second. Whether multitask learning helps is then a
# measurable question, coupled minus detached, and {doc}`chapter 3 <03_training>` measures it.

# %% [markdown]
# ## Counts in, ratios out
#
# What can a trained model be asked? First, the ratio of every gene in every cell, test cells
# included.

# %%
ratio = model.get_splicing_ratio(indices=test)
ratio.iloc[:4, :5].round(3)

# %% [markdown]
# How sure is the model of them? `n_samples` draws latents of the cell, and weights of the head from
# their posterior, and reads the ratios with each draw. How far the draws scatter is what the model
# does not know. Here are the first cell and the first five genes.

# %%
draws = model.get_splicing_ratio(indices=test[:1], n_samples=200, return_mean=False)[:, 0]
pd.DataFrame({"ratio": ratio.iloc[0], "± sd of draws": draws.std(0)}).head().round(4)

# %% [markdown]
# The head learns from $s$ and $u$, but it *reads* only $x$. To see this, we take the totals of the
# test cells and nothing else, as they would come from a data set without spliced counts.

# %%
bare = anndata.AnnData(
    adata.layers["total"][test].copy(), obs=adata.obs.iloc[test][[]], var=adata.var[[]]
)
query = sv.SplicedVAE.prepare_query_anndata(bare, model)
print("the same ratios:", np.allclose(model.get_splicing_ratio(query), ratio, atol=1e-5))

# %% [markdown]
# Second, the layers that velocity methods want. From totals, $S' = \hat p\,x$ and
# $U' = (1 - \hat p)\,x$, with $\hat p$ the predicted ratio: the total is kept, and divided. These are
# expectations. How far real counts scatter about them is in the genes' table, as each gene's
# {term}`concentration`; {doc}`chapter 5 <05_velocity>` needs it.

# %%
model.impute_layers(query)
s_new, u_new = (query.layers[f"{name}_splicedvae"] for name in ("spliced", "unspliced"))
print("S' + U' is the total:", np.allclose((s_new + u_new).toarray(), bare.X.toarray(), atol=1e-4))
print(f"unspliced share: {u_new.sum() / bare.X.sum():.3f} predicted, ", end="")
print(f"{adata.layers['unspliced'][test].sum() / adata.layers['total'][test].sum():.3f} counted")

# %% [markdown]
# :::{margin} Biology
# **Counted or not.** Whether a read in an intron counts is a setting of the program that counts.
# Older data sets mostly leave such reads out, so their counts are spliced counts; newer ones
# include them, so theirs are totals. The matrix does not say which.
# :::
#
# Many data sets report not the total but *the {term}`spliced counts <spliced count>` alone*, having
# counted no read that falls into an intron. Feeding them to a model of totals would bias every
# ratio, and the package warns of it. The remedy begins with training on what the user will have,
# `input="spliced"`: the encoder sees $s$, the head still learns from both, and the
# {term}`unspliced counts <unspliced count>` follow from the spliced ones,
#
# $$ S' = s, \qquad U' = s\,\frac{1 - \hat p}{\max(\hat p,\ p_{\min})}, $$
#
# with a floor $p_{\min}$, as a small $\hat p$ would make a few molecules explode into thousands.
# For work of your own, also set `own_total=False` and impute with `counts="denoised"`: a gene's
# spliced count is the numerator of its own ratio, and {doc}`chapter 5 <05_velocity>` shows what that
# does.
#
# :::{exercise} Spliced counts only
# :label: ex-spliced
# Train a model with `input="spliced"` for a few epochs, and impute the layers of all cells. Which
# of the two layers equals the data exactly? How close does the unspliced share come?
# :::
#
# :::{solution} ex-spliced
# :class: dropdown
# ```python
# cells = adata[np.asarray(adata.layers["spliced"].sum(1)).ravel() > 0].copy()
# sv.SplicedVAE.setup_anndata(cells, input="spliced")
# exonic = sv.SplicedVAE(cells)
# exonic.train(max_epochs=3, split=sv.data.split(cells)[:2], enable_progress_bar=False)
# exonic.impute_layers(cells)
# s_new, u_new = (cells.layers[f"{k}_splicedvae"] for k in ("spliced", "unspliced"))
# print("spliced is kept:", abs(s_new - cells.layers["spliced"]).max() == 0)
# print(u_new.sum() / (s_new + u_new).sum())
# print(cells.layers["unspliced"].sum() / cells.layers["total"].sum())
# ```
# The spliced layer is kept as it is. The unspliced share comes from the formula, and a gene whose
# molecules were all unspliced in a cell gets none: $U'$ is zero where $s$ is. That is one reason for
# `counts="denoised"`, which we left out here.
# :::
#
# ## What we found

# %% tags=["remove-input"]
lab.profiles.what_we_found(profile)

# %% [markdown]
# Little has to be added: one linear map from the latent and a few components to the genes, a
# sigmoid, and a loss. Some choices look large and are none: softmax and sigmoid are the same
# function. Others look small and decide:
#
# - where the head starts, and what it may see besides the latent;
# - whether genes learn alone or share a prior, since few of them can tell their slopes by themselves;
# - whether the loss counts entries, molecules, or as many molecules as are independent;
# - above all whether it is summed or averaged. The encoder hears the sum, and hardly hears the mean.
#
# With everything summed, at $\lambda = 1$, the splicing loss is no foreign addition but the other
# half of a likelihood, and the weights' prior is its third term. One number trains all of it, so
# whoever wants another model changes one page of code.
#
# None of this says that the answer is any good. For that we train until it is done, and put the
# result beside {term}`baselines <baseline>` and the {term}`noise ceiling`: {doc}`03_training`
#
# ## Three questions
#
# :::{dropdown} 1. Softmax over two outputs, or a sigmoid: what differs?
# The functions are the same, $e^a/(e^a+e^b) = \mathrm{sigmoid}(a-b)$. Softmax has twice the
# parameters in the last layer, and computes nothing new.
# :::
#
# :::{dropdown} 2. Why do genes share a prior?
# Most genes have too few molecules to tell their own slopes. What all genes have in common says how
# large a slope may be, and a gene with few molecules keeps close to that.
# :::
#
# :::{dropdown} 3. Why does a loss that is averaged over entries hardly move the encoder?
# The ELBO is a sum over genes. A mean over counted entries is smaller by about the number of
# counted genes in a cell. No weight of order one makes up for that.
# :::
