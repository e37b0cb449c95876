# %% [markdown]
# # What would have to be added to scVI so that it says how much is spliced?
#
# scVI {cite:p}`Lopez2018` is a {term}`variational autoencoder`: it reads the counts of a cell,
# squeezes them into a short vector, and from that vector predicts the counts again. In doing so it
# learns what kind of cell it is looking at. The {term}`splicing ratio` of a gene depends on the
# kind of cell too, if only a little ({numref}`fig-ratios` in {doc}`chapter 1 <01_data>`). So the
# vector may already hold the answer, and what is missing is somebody who asks. What exactly has to
# be added, how is it trained, and how loudly must it ask to be heard?

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

import splicedvae as sv
import splicedvae_book as lab
from splicedvae._regression import linear_ratio, ridge_binomial
from splicedvae.head import RatioHead, ratio_loss
from splicedvae.refit import refit_head, starting_values

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

# %% mystnb={"image": {"alt": "Diagram. Counts x of shape B by G enter an encoder, which gives a latent z of shape B by L; a decoder turns z into means of negative binomial counts, B by G. A new branch in orange leads from z to a splicing head and from there to predicted ratios, p with a hat, B by G, with s given n binomial. A dashed line leads from the counts to the head, past the latent: K principal components, and each gene's own count."}, "figure": {"caption": "The upper row is scVI. The orange branch is all that SplicedVAE adds. B cells in a minibatch, G genes, L latent dimensions, H hidden units, K components.", "name": "fig-architecture"}} tags=["hide-input"]
ax = lab.plots.architecture()

# %% [markdown]
# Read from left to right, this is a recipe for computing. Read from $z$ outwards, it is a story of
# how the data came about. A cell has a state $z$, the {term}`latent`. The state fixes which share
# $\rho_g$ of its RNA belongs to gene $g$, and, this is new, which share $\hat p_g$ of that gene's
# RNA is spliced (with a hat, since it is the model's word for the true $p$). With the
# {term}`library size` $\ell$, the counts $x = n$ and, among them, the spliced ones $s$ are then
# drawn:
#
# $$
# \begin{aligned}
# z &\sim \mathcal N(0, I_L), \\
# x_g \mid z &\sim \mathrm{NB}\big(\text{mean } \ell \rho_g(z),\ \theta_g\big),
#   & \rho(z) &= \mathrm{softmax}\,f(z), \\
# s_g \mid x, z &\sim \mathrm{Binomial}\big(n_g,\ \hat p_g(z, x)\big),
#   & \hat p_g(z, x) &= \mathrm{sigmoid}\,h_g(z, x).
# \end{aligned}
# $$ (eq-model)
#
# :::{margin} Machine learning
# **Latent, encoder, decoder.** A cell's thousands of counts vary together, along a few lines: its
# type, its stage. The *encoder* writes a cell down in as few numbers, its *latent*, and the
# *decoder* reads the counts from them again. Nobody tells either what the numbers should mean.
# :::
#
# $f$ is the decoder and $h$ the {term}`head`. (The head may look at the totals too, as the dashed
# line does: $s$ is drawn after them.) The {term}`negative binomial` has one $\theta_g$ per
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
# any number is allowed:
#
# $$ h_g(z, x) = \big(W\, t(z)\big)_g + b_g + w_g\, o_g + (V y)_g . $$ (eq-head)
#
# It reads three things: the latent $z$ (with covariates, such as a batch, if there are any); each
# gene for itself, the gene's own log-normalised count $o_g$, in units of its spread; and the first
# {term}`principal components` $y$ of the cell's log-normalised counts. This is all of its
# arithmetic, as the package has it.


# %% tags=["hide-input"]
def show(thing):
    """Show the source of a function or class of the package."""
    return Markdown(f"```python\n{textwrap.dedent(inspect.getsource(thing))}```")


show(RatioHead.forward)

# %% [markdown]
# Four kinds differ in what the `trunk`, $t$, does before the last layer. The *linear* head has
# none: $t$ changes nothing, and $h$ is a matrix and a bias. *mlp2* and *mlp3* put one and two hidden
# layers before the output layer, and *bottleneck* puts two, the second one narrow. The paper uses
# mlp2 {cite:p}`SplicedVAE2026`. More layers can bend the relation between state and ratio, and have
# more to fit noise with.

# %%
n_latent, n_genes = model.module.n_latent, adata.n_vars
sizes = {
    activation: {
        kind: sum(p.numel() for p in RatioHead(n_latent, n_genes, kind, activation).parameters())
        for kind in ("linear", "mlp2", "mlp3", "bottleneck")
    }
    for activation in ("sigmoid", "softmax")
}
sizes = pd.DataFrame(sizes).rename_axis("parameters of the head", axis=1)
sizes

# %% tags=["hide-input"]
lab.profiles.finding(
    f"with {n_latent} latent dimensions and {n_genes} genes, the linear head has "
    f"{sizes.loc['linear', 'sigmoid']:,} parameters and mlp2 {sizes.loc['mlp2', 'sigmoid']:,}, "
    f"{sizes.loc['mlp2', 'sigmoid'] / sizes.loc['linear', 'sigmoid']:.1f} times as many.",
    profile,
)

# %% [markdown]
# Three details matter more than depth. The first is where the head starts. Its output weights are
# zero and its bias is the logit of each gene's pooled training ratio, so before any training it
# says what the {term}`gene mean` says. Whatever it says beyond that, it has learnt. The second is
# `own_total`: the latent is shared by all genes and summarises them, but the count of the gene
# itself says something that no summary keeps. One weight per gene lets the head look at it.
#
# The third is `n_components`. A latent of few dimensions is made to rebuild counts, and it may lose
# some of what totals say of ratios, which need not be what rebuilds counts best. What totals say of
# ratios is also nearly linear in them: no bent function that we tried found more
# ({doc}`chapter 3 <03_training>` tells which). So the plainest summary serves: a few dozen
# principal components, which are fixed before training and are what the {term}`baseline` reads that
# any statistician would try first, a regression for each gene. Their weights $V$ are no parameters:
# they stay zero while the network trains, so that $z$ has to say all it can, and are found at the
# end, in a way that a section below explains. {doc}`Chapter 3 <03_training>` takes each of these
# parts away and measures what is lost.
#
# :::{margin} Machine learning
# **Principal components.** The directions along which cells differ most, each at a right angle to
# those before it. A cell's position on the first thirty is a short summary of its counts, a
# weighted sum of genes for each: linear, where an encoder may bend.
# :::

# %%
head = RatioHead(n_latent, n_genes, "mlp2")
total, spliced, unspliced = (adata.layers[k][train] for k in ("total", "spliced", "unspliced"))
head.initialise(*starting_values(total, spliced, unspliced))
start = torch.sigmoid(head.eval()(torch.randn(5, n_latent), torch.randn(5, n_genes)))

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
# s/n$. How wrong is it? Three answers to begin with, the first in the logit $\eta = h_g(z, x)$
# that the head puts out, with $\hat p = \mathrm{sigmoid}(\eta)$:
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
# The package knows two more: the {term}`beta-binomial`, and the squared error with genes weighted
# by their {term}`total counts <total count>`. Unfold the source to see all five.

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
# with forty weighs forty times as much as one with a single one, as it should, being that much
# better known. The squared error counts entries, and listens to the noisiest just as closely.
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
# ## Train it
#
# A few {term}`epochs <epoch>` are enough to see the machinery at work;
# {doc}`chapter 3 <03_training>` trains in earnest. Fitting sees the training cells, validation
# cells only watch, and test cells are not touched ({term}`train, val and test`). (One last step of
# a training, the {term}`refit`, is left out here and taken below, where it is explained.)

# %%
model.train(
    max_epochs=3 if profile == "smoke" else 5,
    split=(train, val),
    refit_head=False,
    enable_progress_bar=False,
)

# %% mystnb={"image": {"alt": "Three panels by epoch, each with a solid line for training and a dashed one for validation cells: the negative ELBO falls, the ratio loss moves little, and the Pearson correlation of the ratio is high from the first epoch."}, "figure": {"caption": "The correlation is high from the first epoch, since the head starts at the gene mean. Only what comes on top of it is learnt from cells.", "name": "fig-history"}}
figure, axes = plt.subplots(1, 3, figsize=(10, 3.2))
for ax, score in zip(axes, ("elbo", "ratio_loss", "ratio_pearson_r"), strict=True):
    lab.plots.history(model.history, score, ax)

# %% [markdown]
# ## How loudly must the head ask?
#
# The paper's objective is the negative ELBO plus a splicing loss with a weight {term}`λ`,
# $\mathcal L = \mathcal L_\mathrm{ELBO} + \lambda\,\mathcal L_\mathrm{splice}$, with a mean squared
# error and $\lambda = 1$ {cite:p}`SplicedVAE2026`. A weight of one sounds like equal voices. But a
# sum over genes stands on one side and a mean over entries on the other. We take the model we have
# just trained, one minibatch of its training cells, and measure each term, and how hard it pulls at
# the encoder's weights.

# %%
model.to_device("cpu")
module = model.module.eval()  # no dropout: the same pass for each term
inference, generative, loss = module(tensors)
s, u = tensors["spliced"], tensors["unspliced"]
counted = (s + u > 0).sum()
logit = module.splicing_logit(tensors, inference["qz"].loc)

terms = {
    "negative ELBO": (
        loss.reconstruction_loss["reconstruction_loss"] + sum(loss.kl_local.values())
    ).mean(),
    "binomial, summed over genes": ratio_loss(logit, s, u, "binomial").sum(1).mean(),
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

# %% mystnb={"image": {"alt": "Two bar charts on logarithmic axes, the size of four loss terms and their gradients on the encoder: the negative ELBO, the binomial summed over genes, the squared error summed over genes, and the squared error averaged over entries. The last is smaller than the others by orders of magnitude in both."}, "figure": {"caption": "Averaged over entries, the splicing loss is smaller than the ELBO by orders of magnitude, and so is its pull on the encoder.", "name": "fig-scale"}}
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

# %% tags=["hide-input"]
elbo, binomial, _, averaged = scale.to_numpy()
lab.profiles.finding(
    f"the negative ELBO is {elbo[0]:,.0f} nats per cell, the summed binomial {binomial[0]:,.0f}, "
    f"and the averaged squared error {averaged[0]:.3f}. On the encoder, the averaged error pulls "
    f"{binomial[1] / averaged[1]:,.0f} times less than the summed binomial, which in turn pulls "
    f"{elbo[1] / binomial[1]:,.0f} times less than the ELBO.",
    profile,
)

# %% [markdown]
# (The head is young, and pulls harder as it learns; how the two splicing losses compare is what to
# read off.) So $\lambda = 1$, read literally, leaves the encoder as it was: a mean over entries is
# the sum per cell divided by the number of counted genes, and no weight of order one makes up for
# that. What then is the right weight? There is one choice with a reason. Take the binomial, *sum*
# it over genes as the ELBO does, and set $\lambda = 1$. Since $x = n = s + u$,
#
# $$ \log p(x \mid z) + \log p(s \mid x, z) = \log p(s, u \mid z), $$
#
# and the loss becomes the negative ELBO of a model of *both* counts, up to a constant. Neither term
# needs a weight, as both are log-probabilities in nats. The default stays close to it, at half the
# weight, $\lambda = 0.5$. (On real cells, while the model was built, the latent then gave less of
# its reconstruction away than at 1, and held-out ratios came out alike.) A {term}`ridge penalty`
# keeps the head close to the gene mean. The paper's setting remains within reach:
# `ratio_loss="mse", ratio_reduction="mean", ratio_weight=1`.
#
# :::{exercise} A weight for the paper's loss
# :label: ex-weight
# Which $\lambda$ would give the averaged squared error the same pull on the encoder as the summed
# binomial? Why is it not simply the number of counted genes in a cell?
# :::
#
# :::{solution} ex-weight
# :class: dropdown
# ```python
# pulls = scale["gradient on the encoder"]
# print(pulls.iloc[1] / pulls.iloc[3], "counted genes per cell:", float(counted / len(s)))
# ```
# The number of counted genes turns the mean into a sum, no more. The binomial also weighs an entry
# by its molecules, and its gradient lacks the squared error's factor $2 \hat p (1 - \hat p)$, which
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
    term = ratio_loss(module.splicing_logit(tensors, latent), s, u).sum(1).mean()
    print(f"{name:8} gradient on the encoder: {float(pull(term)):.3g}")

# %% [markdown]
# `sv.SplicedVAE(adata, detach_head=True)` is the second. Whether multitask learning helps is then a
# measurable question, coupled minus detached, and {doc}`chapter 3 <03_training>` measures it.
#
# ## Sharing strength between genes
#
# In the head, a gene has some fifty slopes: one for each latent dimension, one for each component,
# one for its own count. It has some hundreds or thousands of molecules to learn them from, and most
# of these are spliced, so each says little. Fitted by themselves, the slopes of a gene are mostly
# noise. A penalty that draws them to 0 helps. But how strong should it be? The same for all fifty?
# And why to 0?
#
# Statisticians have met the question among baseball players, whose batting averages in the first
# weeks of a season are poor guides to the rest of it. A better one draws each player's average
# towards that of all players, and how far is read from how much they spread
# {cite:p}`Efron1975`. Players do not bat for one another, yet the many tell what is likely of the
# one. This is {term}`empirical Bayes`: the {term}`prior` is not chosen but estimated, from the very
# data that it is then used on. The larger the crowd, the better it works, and ours has as many
# players as there are genes:
#
# $$ \mathrm{logit}\, p_{cg} = a_g + w_g \cdot (x_c, o_{cg}), \qquad
#    w_g \sim t_\nu(B\, l_g,\, \Sigma), $$ (eq-prior)
#
# with $x_c$ here for features of the cell $c$, $z$ or $y$, and $w_g$ for the slopes of the gene on
# them and on its own count. Each part of the prior answers one of the questions.
#
# - $\Sigma$, **how strong?** It says how far ratios follow each feature, and which slopes go
#   together. A feature that says nothing of any gene has its slopes drawn to nothing; one that many
#   genes follow is trusted in the next gene too. (Which slopes go together takes many genes to
#   tell; the fewer there are, the more that part of $\Sigma$ is held back.)
# - $B\, l_g$, **why to 0?** The loadings $l_g$ are the covariances of the gene's expression with
#   the features. A gene that is being switched on along some direction rises in it, and has more of
#   its molecules unspliced. So what its total does hints at what its ratio does, and $B$ is how
#   much, learnt from all genes.
# - $t_\nu$, **the same for all?** Most genes hardly follow the state of the cell; a few follow it
#   far. A normal prior knows one width, and draws those few in as hard as the others. A $t$
#   distribution (here with $\nu = 8$) is a normal one with a width per gene, so a gene with
#   evidence enough may stand out.
#
# Slopes and prior depend on each other, so they are found in turns, by the EM algorithm: from the
# prior, the slopes of each gene and how sure they are; from all slopes, and their uncertainty, the
# prior; until little moves. The prior starts narrow and widens as far as the genes call for it, in
# some twenty turns where cells are many, in a hundred where they are few. During training there
# would be no point in it, since $z$ still moves. So it is done once, at the end, and `train` does
# it by itself: encoder, decoder and everything that the head reads stay as they are, and only its
# output layer is replaced. This is the {term}`refit`.
#
# It is done twice, once with the latent for features and once with the components, and the head's
# logit is the mean of the two. Why not once, with both side by side? The encoder has been trained on
# the ratios of these very cells, so on them its features look better than they are, and a
# regression that could choose would lean on them too much; components know nothing of ratios. Two
# predictors that err in different ways are better averaged than either is alone, which holds far
# beyond this head. We take the refit now.
#
# :::{margin} Biology
# **Switched on.** When a gene is switched on, its unspliced molecules come first and the spliced
# ones a little later; when it is switched off, the unspliced ones go first. So ratios follow
# change, of which totals show the course.
# :::

# %%
refit_head(model, train)

# %% [markdown]
# To see what sharing does, each gene is also fitted by itself on $z$ and $y$, with no more of a
# penalty than keeps its slopes finite.


# %%
def features(cells):
    """What the head reads of each cell, less the genes' own counts, (cells, L + K)."""
    head, z = model.module.head, model.get_latent_representation(indices=cells)
    counts = torch.as_tensor(adata.layers["total"][cells].toarray())
    y = (head.log_normalise(counts) - head.own_mean) @ head.components
    return np.column_stack([z, y.numpy()]).astype(float)


known = features(train)
molecules = [layer.toarray().astype(float) for layer in (spliced, total)]
first = np.zeros((1 + known.shape[1], n_genes))  # intercept, then slopes
first[0] = starting_values(total, spliced, unspliced)[0]
head = model.module.head
together = head.output.bias[None], head.output.weight.T, head.component_weight.T
slopes = {
    "alone": ridge_binomial(known, *molecules, l2=1, weights=first),
    "together": torch.cat(together).detach().numpy(),
}

# %% mystnb={"image": {"alt": "Scatter plot, a dot per gene: its slope on the first principal component fitted alone, across, against the slope fitted together with all genes, up. Nearly all dots lie in a flat band near zero, which the dashed line of equal slopes crosses steeply."}, "figure": {"caption": "The slope of each gene on the first component, fitted by itself and together with all others. On the dashed line nothing would change; the band is much flatter. Colours: molecules of the gene in the training cells.", "name": "fig-together"}}
one = pd.DataFrame({way: weights[1 + n_latent] for way, weights in slopes.items()})
figure, ax = plt.subplots()
dots = ax.scatter(*one.to_numpy().T, c=np.log10(molecules[1].sum(0)), s=8, cmap="viridis")
ax.axline((0, 0), slope=1, color=lab.plots.INK, ls="--", lw=1)
ax.set(xlabel="slope, gene by gene", ylabel="slope, all genes together")
top = 1.5 * one["together"].abs().max()
ax.set_ylim(-top, top)
_ = figure.colorbar(dots, label=r"$\log_{10}$ molecules")

# %% tags=["hide-input"]
held_out = [adata.layers[name][val] for name in ("spliced", "unspliced")]
explained = {
    way: sv.metrics.ratio_report(*held_out, linear_ratio(features(val), weights), gene_mean)["d2"]
    for way, weights in slopes.items()
}
spread = one.std()
lab.profiles.finding(
    f"the slopes of {n_genes} genes on the first component have a standard deviation of "
    f"{spread['alone']:.3f} gene by gene and of {spread['together']:.3f} together, where the gene "
    f"that follows most stands out by {one['together'].abs().max() / spread['together']:.0f} "
    "standard deviations. On the validation cells, the first explain "
    f"{explained['alone']:.3f} of the deviance beyond the gene mean (D²), the second "
    f"{explained['together']:.3f}, both without the genes' own counts and after few epochs.",
    profile,
)

# %% [markdown]
# ## Counts in, ratios out
#
# What can a trained model be asked? First, the ratio of every gene in every cell, test cells
# included.

# %%
ratio = model.get_splicing_ratio(indices=test)
ratio.iloc[:4, :5].round(3)

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
# ratio, and the package warns of it. The remedy is to train on what the user will have, with
# `input="spliced"`: the encoder sees $s$, the head still learns from both, and the
# {term}`unspliced counts <unspliced count>` follow from the spliced ones,
#
# $$ S' = s, \qquad U' = s\,\frac{1 - \hat p}{\max(\hat p,\ p_{\min})}, $$
#
# with a floor $p_{\min}$, as a small $\hat p$ would make a few molecules explode into thousands.
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
# molecules were all unspliced in a cell gets none: $U'$ is zero where $s$ is.
# :::
#
# ## What we found
#
# Little has to be added: one linear map from the latent and a few components to the genes, a
# sigmoid, and a loss. The choices that look large, softmax or sigmoid, are the same function. The
# ones that look small decide: where the head starts, what it may see besides the latent, whether
# genes learn alone or together, whether the loss counts molecules or entries, and above all whether
# it is summed or averaged, since that is the difference between a voice that the encoder hears and
# one that it does not. With the binomial, summed, at
# $\lambda = 1$, the splicing loss would be no foreign addition at all but the other half of a
# likelihood, and the default is not far from there.
#
# None of this says that the answer is any good. For that we train until it is done, and put the
# result beside {term}`baselines <baseline>` and the {term}`noise ceiling`: {doc}`03_training`
