# %% [markdown]
# # How much of a gene's RNA is already spliced, and how well can we see it?
#
# Break a cell open and count its RNA, and you find two forms of each gene's message. Some molecules
# still hold their introns, the stretches that will be cut out; in others they are gone. The share
# of finished molecules is the {term}`splicing ratio`, and the rest of this book is about predicting
# it from data that do not report it. Before a model predicts a number, we should know how well the
# number can be seen at all. How much of a gene's RNA is already spliced, and how much of what we
# read off a single cell is chance?
#
# :::{admonition} In this chapter
# :class: tip
# - You will know what a splicing ratio is, and why one cell shows so little of it.
# - You will be able to say what a score of 0 and a perfect score look like.
# - You need Python and school statistics; no model is trained yet.
# :::

# %% tags=["parameters"]
profile = "smoke"  # type: str (smoke: a first look; standard, full: figures; a build puts in its own)

# %% tags=["remove-stderr"]
import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from scipy.stats import binom

import splicedvae as sv
import splicedvae_book as lab  # what only the chapters need: profiles, shared fits

lab.profiles.quiet()
lab.plots.use_style()
adata = lab.profiles.load(profile)
lab.profiles.banner(adata, profile)

# %% [markdown]
# ## The life of a message
#
# A gene is transcribed at some rate $\alpha$. Each new molecule carries introns, is spliced at a
# rate $\beta$ per molecule, and is degraded at a rate $\gamma$ per molecule: these are its
# {term}`kinetic rates`. With $u$ molecules that are still {term}`unspliced <unspliced count>` and
# $s$ that are {term}`spliced <spliced count>`,
#
# $$ \frac{du}{dt} = \alpha - \beta u, \qquad \frac{ds}{dt} = \beta u - \gamma s. $$ (eq-kinetics)
#
# :::{margin} Biology
# **Transcript, exon, intron.** A cell copies a gene's DNA into RNA, the *transcript*. Some
# stretches of the copy, the *introns*, are cut out within minutes; the others, the *exons*, are
# joined and carry the message. The cutting and joining is *splicing*.
# :::

# %% mystnb={"image": {"alt": "Diagram from left to right: a gene is transcribed at rate alpha into an unspliced molecule, two exons with an intron between them; splicing at rate beta u turns it into a spliced molecule of two joined exons; degradation at rate gamma s removes it."}, "figure": {"caption": "Every spliced molecule was unspliced before, so the unspliced count runs ahead of the spliced one.", "name": "fig-life"}} tags=["hide-input"]
ax = lab.plots.splicing_diagram()

# %% [markdown]
# Left alone, the two come to rest at $u = \alpha/\beta$ and $s = \alpha/\gamma$. The ratio is then
# $p = s/(s+u) = \beta/(\beta+\gamma)$, and $\alpha$ has dropped out: at rest, the ratio is a
# property of the *gene*. It becomes a property of the *cell* only while the gene changes. Just
# after it is switched on, $u$ has risen and $s$ has not, and $p$ is lower than at rest; just after
# it is switched off, $p$ is higher. This departure is what {term}`RNA velocity` reads
# {cite:p}`LaManno2018`, the subject of {doc}`chapter 5 <05_velocity>`.

# %% mystnb={"image": {"alt": "Three panels for a gene that is switched on at time 0 and off at time 8. Left: unspliced rises at once, spliced a little later, and both fall in the same order. Middle: the ratio is below its value at rest after the gene is switched on, and above it after it is switched off. Right: spliced against unspliced, a loop that rises above the line of rest and falls below it."}, "figure": {"caption": "A gene that is switched on and off again, by the equation above. The ratio is lower than at rest on the way up, and higher on the way down.", "name": "fig-on-off"}} tags=["hide-input"]
axes = lab.plots.switched_on_and_off()

# %% [markdown]
# The right panel is the {term}`phase portrait`: cells above the line of rest are on their way up.
#
# ## What was counted
#
# The two forms are told apart afterwards, by where the reads of a molecule fall: in an intron, or
# not. (An unspliced molecule of which only exons were read passes for spliced.) Our cells come from
# the developing pancreas of the mouse at embryonic day 15.5 {cite:p}`Bastidas-Ponce2019`. The
# banner above states their {term}`provenance`; if it calls them simulated, they are. Here are a few
# cells and four genes of which both forms are common.
#
# :::{margin} Biology
# **Cells at day 15.5.** In a mouse embryo of this age the pancreas makes its hormone cells.
# *Ductal* cells become endocrine progenitors (*EP*). In these the gene *Ngn3* is first low, then
# high. They become *pre-endocrine* cells and end as *alpha*, *beta*, *delta* or *epsilon* cells,
# each with a hormone of its own. Beta cells make insulin.
# :::

# %%
spliced, unspliced = (adata.layers[name] for name in ("spliced", "unspliced"))
in_both = np.minimum(*(np.asarray(layer.sum(0)).ravel() for layer in (spliced, unspliced)))
genes = np.argsort(-in_both)[[5, 10, 20, 40]]
few = {
    name: pd.DataFrame(layer[:4, genes].toarray().astype(int), columns=adata.var_names[genes])
    for name, layer in (("spliced, s", spliced), ("unspliced, u", unspliced))
}
pd.concat(few, axis=1).set_axis(adata.obs["clusters"][:4].astype(str), axis=0)

# %% [markdown]
# The sum of the two, $n = s + u$, is the {term}`total count`, and all that most data sets report.
#
# One gene in one cell is an *entry*. Two steps come before any analysis, in this order. First the cells are divided into
# {term}`train, val and test`, each with its share of every cell type. Then genes are chosen, on the
# training cells alone: a gene stays if the cells in which *both* forms were seen hold at least 20
# counts of it. A gene chosen because it looks good on test cells would flatter every later score.
#
# :::{margin} Machine learning
# **Held-out cells.** A model with many weights can learn its cells by heart and fail on others;
# this is {term}`overfitting`. So a model is fitted on training cells, its settings are chosen on
# validation cells, and what it is worth is read on test cells, once.
# :::

# %%
train, val, test = sv.data.split(adata, sizes=(0.6, 0.1, 0.3), seed=0)
adata = sv.data.prepare(adata, min_shared_counts=20, fit_on=train)

s, u = (adata.layers[name].toarray() for name in ("spliced", "unspliced"))  # (cells, genes)
n = s + u
r = np.divide(s, n, out=np.zeros_like(s), where=n > 0)  # the ratio; undefined where n = 0

# %% tags=["remove-input"]
lab.profiles.finding(
    f"{len(train)}, {len(val)} and {len(test)} cells; {adata.n_vars} genes stay. "
    f"{u.sum() / n.sum():.1%} of their counts are unspliced. {(n == 0).mean():.0%} of the entries "
    f"hold no molecule, so that they have no ratio; of the others, {(n[n > 0] == 1).mean():.0%} "
    f"hold a single one and {(n[n > 0] <= 2).mean():.0%} one or two.",
    profile,
    kept=f"{(n[n > 0] == 1).mean():.0%} of the entries that hold anything hold a single molecule.",
)

# %% mystnb={"image": {"alt": "Bar chart of the share of observed entries by their number of molecules n, from 1 to 12 and more. The bar for n = 1 is the tallest, and the bars fall quickly."}, "figure": {"caption": "One molecule is the commonest case. A ratio read off it can only be 0 or 1.", "name": "fig-depth"}}
share = pd.Series(np.minimum(n[n > 0], 12)).value_counts(normalize=True).sort_index()
share.index = [f"{count:.0f}" for count in share.index[:-1]] + ["12+"]
ax = share.plot.bar(rot=0, xlabel="molecules in the entry, $n$", ylabel="share of observed entries")

# %% [markdown]
# ## Where the noise comes from
#
# Suppose a gene's true ratio in a cell is $p$, and we catch $n$ of its molecules. Each is spliced
# with probability $p$, so that
#
# $$ s \sim \mathrm{Binomial}(n, p), \qquad
#    \mathrm{SD}(r) = \sqrt{\frac{p\,(1-p)}{n}} . $$ (eq-binomial)
#
# No instrument is to blame, and no normalisation helps: at $n = 1$ the ratio is a coin toss. Let us
# take one gene, pretend that its true ratio is *the same in every cell*, and see how far that goes.

# %% mystnb={"image": {"alt": "Scatter plot of the observed ratio of one gene against its number of molecules, with dots as large as the cells are many. The dots fan out between 0 and 1 where n is small and draw together around the gene mean where n is large; a shaded binomial band follows them."}, "figure": {"caption": "A single ratio for the whole gene, and the spread that sampling alone gives it, already covers most cells.", "name": "fig-binomial"}}
gene_mean = sv.baselines.GeneMean().fit(adata[train], adata[val])
middle = np.argsort(-n.sum(0))[20:220]  # well counted, but not extreme
gene = middle[np.argmin(abs(gene_mean.mean_[middle] - 0.7))]
p = gene_mean.mean_[gene]
ax = lab.plots.ratio_against_depth(s[:, gene], n[:, gene], p)
_ = ax.set_title(f"{adata.var_names[gene]}, all cells")

# %%
seen = n[:, gene] > 0
low, high = (binom.ppf(q, n[seen, gene], p) for q in (0.025, 0.975))
inside = ((low <= s[seen, gene]) & (s[seen, gene] <= high)).mean()
expected = (binom.cdf(high, n[seen, gene], p) - binom.cdf(low - 1, n[seen, gene], p)).mean()

# %% tags=["remove-input"]
lab.profiles.finding(
    f"for *{adata.var_names[gene]}*, {inside:.1%} of the cells lie in the band, where "
    f"{expected:.1%} would if its ratio were the same in all of them. Where the first is "
    "no lower than the second, the cells give no sign that the ratio differs between them. A gap shows "
    "that it does. It understates how many cells differ, since one with a single molecule is nearly "
    "always inside.",
    profile,
)

# %% [markdown]
# :::{exercise} How many molecules make a ratio?
# :label: ex-molecules
# With equation {eq}`eq-binomial`, what is the standard deviation of $r$ at $n = 1$ and $p = 0.8$?
# How many molecules bring it below 0.05, and in what share of the observed {term}`entries <entry>`
# do we have that many?
# :::
#
# :::{solution} ex-molecules
# :class: dropdown
# At $n = 1$ it is $\sqrt{0.8 \cdot 0.2} = 0.4$. Solving for $n$ gives $n > p(1-p)/0.05^2 = 64$.
#
# ```python
# needed = 0.8 * 0.2 / 0.05**2
# print(needed, (n[n > 0] > needed).mean())
# ```
# :::
#
# ## Genes differ, cells hardly do
#
# To see ratios without the noise, pool: add up the counts of a gene over many cells and divide
# once. The {term}`gene mean` does so over all training cells. Within a cell type we pool the same
# way, and keep the genes with at least 20 counts in each of the eight, so that all violins show the
# same genes. This is the distribution of the paper's Figure 3A {cite:p}`SplicedVAE2026`.

# %% mystnb={"image": {"alt": "Left: histogram of the pooled splicing ratios of all genes, spread from near 0 to 1 with most genes high. Right: eight violins, one for each cell type from Ductal to Epsilon, of the pooled ratios of the genes within it; the eight shapes and their medians are much alike."}, "figure": {"caption": "Genes fill the whole range from 0 to 1, and they fill it in much the same way in every cell type.", "name": "fig-ratios"}}
pooled = {}
for cluster, cells in adata.obs.groupby("clusters", observed=True).indices.items():
    counts = n[cells].sum(0)
    pooled[cluster] = np.where(counts >= 20, s[cells].sum(0) / np.maximum(counts, 1), np.nan)
pooled = pd.DataFrame(pooled, index=adata.var_names).dropna()  # (genes, cell types)

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), width_ratios=(1, 1.8))
left.hist(gene_mean.mean_, bins=np.linspace(0, 1, 31))
left.set(xlabel="pooled ratio, all cells", ylabel="genes")
ax = lab.plots.ratio_by_cluster(pooled, right)

# %% [markdown]
# The violins do not show whether *the same* genes sit at the same height in each. So we ask the
# test cells: how much of the variance of $r$ over observed entries does the gene alone explain, and
# how much more the gene together with its cell type?

# %%
by_cluster = sv.baselines.GeneByCluster().fit(adata[train], adata[val])
observed = n[test] > 0
truth = r[test][observed]
explained = {
    name: 1 - np.mean((truth - model.predict(adata[test])[observed]) ** 2) / truth.var()
    for name, model in (("gene", gene_mean), ("gene and cell type", by_cluster))
}
m = gene_mean.predict(adata[test])[observed]
sampling = np.mean(m * (1 - m) / n[test][observed]) / truth.var()

# %% tags=["remove-input"]
lab.profiles.finding(
    f"the gene alone explains {explained['gene']:.1%} of the variance, and knowing the cell type "
    f"as well makes it {explained['gene and cell type']:.1%}. Binomial sampling, with one ratio "
    f"per gene, takes {sampling:.1%}. Together, gene and sampling account for "
    f"{explained['gene'] + sampling:.1%}. This is an upper bound: of entries with a single molecule, "
    "sampling takes all, whatever the ratio does.",
    profile,
    kept=f"The gene and the chance of counting account for {explained['gene'] + sampling:.0%} of the variance of the observed ratios; the cell type adds {explained['gene and cell type'] - explained['gene']:.1%}.",
)

# %% [markdown]
# So a table with one number per gene, which knows nothing about cells, is already a strong
# predictor. It is the {term}`baseline` that every later score must stand beside. From here on,
# $\hat p$ is what a predictor says, $p$ the truth that it is after, and $r$ what was seen of it.
#
# ## What would a good score be?
#
# The paper reports a root mean squared error ({term}`RMSE`) of 0.1271 and a Pearson correlation of
# $R = 0.67$ on held-out cells {cite:p}`SplicedVAE2026`. (A correlation is an upper-case $R$ here or
# has a name, *Pearson r*, {term}`pooled r` (over all genes at once) or *within-gene r*. The lower-case $r$ of an entry is
# its ratio.) Neither figure means much until we know the target. There are at least four ways to
# write down "the true ratio" of an entry:
#
# *Observed* is $s/n$ wherever $n > 0$. *Min counts 5* is the same where $n \ge 5$, which drops the
# worst of the noise and with it most entries. *Smoothed* replaces the counts by {term}`moments`,
# their averages over a cell's neighbours, before dividing. *Zero-filled* keeps the whole matrix and
# writes 0 where nothing was counted. We give each of them to the gene mean.

# %%
cells = anndata.AnnData(n[test])
sc.pp.normalize_total(cells)
sc.pp.log1p(cells)
sc.pp.pca(cells, n_comps=30)
sc.pp.neighbors(cells, n_neighbors=30)
graph = cells.obsp["connectivities"].toarray() + np.eye(len(test))  # a cell counts as its own
smooth_s, smooth_n = graph @ s[test], graph @ n[test]

targets = {  # the ratio, and which entries count
    "observed": (r[test], n[test] > 0),
    "min_counts_5": (r[test], n[test] >= 5),
    "smoothed": (smooth_s / np.maximum(smooth_n, 1e-9), smooth_n > 0),
    "zero_filled": (r[test], n[test] >= 0),
}
prediction = gene_mean.predict(adata[test])
scores = {}
for name, (target, counts) in targets.items():
    y, y_hat = target[counts], prediction[counts]
    error, correlation = np.sqrt(np.mean((y - y_hat) ** 2)), np.corrcoef(y, y_hat)[0, 1]
    scores[name] = {"entries": len(y), "sd": y.std(), "rmse": error, "R": correlation}
scores = pd.DataFrame(scores).T

report = sv.metrics.ratio_report(
    s[test], u[test], prediction, gene_mean.mean_, connectivities=cells.obsp["connectivities"]
)
assert all(np.isclose(scores.loc[t, "rmse"], report[f"rmse_{t}"], atol=1e-4) for t in targets)
scores.round(3).astype({"entries": int})

# %% [markdown]
# The same table of gene means, which has learnt nothing about any cell, scores very differently
# depending on what we call the truth. And there is more to be had from the paper's pair of numbers.
# Among all predictions whose Pearson correlation with the target is $R$, the best are those on the
# regression line, and they leave a share $1 - R^2$ of the variance:
#
# $$ \mathrm{RMSE} \;\ge\; \mathrm{SD}\,\sqrt{1 - R^2} . $$ (eq-bound)
#
# Turned around, an RMSE and an $R$ say how spread out the target can have been at most.

# %% mystnb={"image": {"alt": "RMSE against Pearson correlation. Four curves fall from the standard deviation of each target at R = 0 to zero at R = 1; the gene mean's four dots lie on or above their curves. A star at R = 0.67 and RMSE 0.127, the paper, lies below all four curves."}, "figure": {"caption": "No predictor of a target can lie below its curve. The paper's pair lies below all four.", "name": "fig-bound"}}
paper_rmse, paper_r = 0.1271, 0.67
ax = lab.plots.error_bound(scores, (paper_r, paper_rmse))

# %%
implied = paper_rmse / np.sqrt(1 - paper_r**2)

# %% tags=["remove-input"]
lab.profiles.finding(
    f"the paper's pair implies a target with a standard deviation of at most {implied:.3f}; these "
    f"four have {scores['sd'].min():.2f} to {scores['sd'].max():.2f}. The gene mean reaches "
    f"R = {scores['R'].min():.2f} to {scores['R'].max():.2f} on them, and an RMSE of "
    f"{scores['rmse'].min():.3f} to {scores['rmse'].max():.3f}.",
    profile,
    kept=f"One number per gene reaches a correlation of {scores['R'].min():.2f} to {scores['R'].max():.2f}, by the choice of the target alone.",
)

# %% [markdown]
# We do not know which target the paper used, and this is no proof of an error: other genes, another
# filter or another scaling would all change the spread. It does mean that the two numbers cannot be
# compared with ours, so from here on every score stands beside the gene mean's, on the same
# entries.
#
# :::{exercise} A target with less spread
# :label: ex-spread
# Look for a target that the paper's pair could belong to. Try only the genes whose mean ratio is
# above 0.9, or subtract the gene mean from $r$ where $n \ge 5$. What is the spread of each?
# :::
#
# :::{solution} ex-spread
# :class: dropdown
# ```python
# high = (n[test] >= 5) & (gene_mean.mean_ > 0.9)
# centred = (r[test] - gene_mean.mean_)[n[test] >= 5]
# print(f"highly spliced genes: {r[test][high].std():.3f}; centred: {centred.std():.3f}")
# ```
# Both narrow the target by taking away what the gene mean knows. On such a target a correlation of
# 0.67 would be a different claim, and a much stronger one. ({doc}`chapter 7 <07_scorecard>` tries
# more targets.)
# :::
#
# ## How well could anyone do?
#
# A perfect model would know the true $p$ of every entry, and would still be wrong about $r$,
# because $r$ is a sample. The score of that perfect model is the {term}`noise ceiling`. We have no
# $p$, so we cannot compute it directly. But counts carry a trace of how much $p$ varies: **two
# molecules of the same gene in the same cell agree more often than two from different cells**. If
# the gene's mean is $m$ and its $p$ varies over cells with variance $\varphi\, m (1-m)$, two
# molecules of one cell are both spliced with probability
#
# $$ \mathrm{E}[p^2] = m^2 + \varphi\, m\,(1 - m). $$
#
# `thinning_ceiling` draws two molecules from each entry that has them, the smallest possible
# {term}`thinning`. It learns $\varphi$ from how often they agree. From $\varphi$ follows the
# correlation over cells that the true $p$ would reach within a gene. `bootstrap_ceiling` goes
# another way. It fits a {term}`beta-binomial` to each gene, draws a $p$ and then an $s$ for each
# entry, and lets that $p$ predict that $s$. Do they find the right answer? Only where we know it
# can we tell, so we make counts from a known $p$ at four depths and score $p$ itself.
#
# :::{margin} Machine learning
# **Irreducible error.** Even who knows the law of a coin cannot foretell its next toss. What is left
# when the law is known, no model removes: a score well beyond the ceiling means a leak, not a better
# model.
# :::


# %%
def known_p(depth, n_obs, n_vars=200, seed=0):
    """Simulated counts and the ratios behind them: p is beta around each gene's mean."""
    rng = np.random.default_rng(seed)
    mean, spread = rng.uniform(0.5, 0.95, n_vars), rng.uniform(2, 10, n_vars)
    p = rng.beta(mean * spread, (1 - mean) * spread, size=(n_obs, n_vars))
    n = rng.poisson(depth, p.shape)
    s = rng.binomial(n, p)
    return s, n - s, p


name = "within_gene_r_min_counts_2"  # correlation over cells with n >= 2, averaged over genes
recovered = {}
for depth, n_obs in ((0.15, 12_000), (0.5, 3000), (1, 1500), (3, 1500)):
    sim_s, sim_u, sim_p = known_p(depth, n_obs)
    pooled_p = (sim_s.sum(0) + 0.5) / ((sim_s + sim_u).sum(0) + 1)
    recovered[depth] = {
        "the true p": sv.metrics.ratio_report(sim_s, sim_u, sim_p, pooled_p)[name],
        "by thinning": sv.metrics.thinning_ceiling(sim_s, sim_u)[name],
        "by bootstrap": sv.metrics.bootstrap_ceiling(sim_s, sim_u, pooled_p, n_draws=2)[name],
    }
recovered = pd.DataFrame(recovered).T

# %% mystnb={"image": {"alt": "Correlation within genes against the mean number of molecules per entry, at depths 0.15, 0.5, 1 and 3, in simulated counts. The score of the known true p stays well below 1 at all of them; crosses and triangles, the estimates by thinning and by bootstrap, lie on or close to it."}, "figure": {"caption": "On simulated counts with a known p, both estimates come close to what the true p reaches, and that is far below 1.", "name": "fig-ceiling"}}
colours = [lab.plots.ROLES["truth"], lab.plots.ROLES["ceiling"], lab.plots.BLUE]
style = {"style": ["o-", "x", "^"], "color": colours, "ms": 9, "fillstyle": "none", "mew": 2}
ax = recovered.plot(**style, logx=True, ylim=(0, 1))
ax.set(xlabel="mean molecules per entry", ylabel="within-gene r, $n \\geq 2$")
ax.set_xticks(recovered.index, [f"{depth:g}" for depth in recovered.index])
ax.minorticks_off()

# %% tags=["remove-input"]
worst = (recovered.sub(recovered["the true p"], axis=0)).abs().to_numpy().max()
lab.profiles.finding(
    f"the estimates miss the known ceiling by at most {worst:.3f}. With three molecules per entry "
    f"on average, the true ratio itself correlates with the observed one at only "
    f"{recovered.loc[3, 'the true p']:.2f} within a gene (entries with n ≥ 2).",
    profile,
)

# %% [markdown]
# Now the cells at hand, and two scores that the rest of the book rests on. The binomial
# {term}`deviance` of a prediction is twice the log-likelihood by which it falls short of the best
# one, the observed $r$ itself. {term}`D²` asks which share of the gene mean's deviance goes away
# when the mean $m$ is replaced by $\hat p$:
#
# $$ D^2 = 1 - \frac{\sum d(s, n, \hat p)}{\sum d(s, n, m)}, \qquad
#    d(s, n, \hat p) = 2 \log \frac{p(s \mid n, r)}{p(s \mid n, \hat p)} . $$ (eq-d2)
#
# {term}`Within-gene r <within-gene r>` is the correlation of $\hat p$ with $r$ over the cells of
# one gene. It is averaged over a list of genes that is fixed before any model runs, each weighted
# by the cells in which it is seen. The gene mean has a D² of 0 by definition; a
# constant has no correlation, and counts as 0.

# %%
listed = sv.metrics.within_gene_list(n[train], n[test])
listed = listed if listed.any() else None  # a smoke run has too few cells for the list
ceiling = sv.metrics.bootstrap_ceiling(s[test], u[test], gene_mean.mean_, listed)
thinned = sv.metrics.thinning_ceiling(s[test], u[test], listed)
rows = ["rmse_observed", "r_observed", "d2", "within_gene_r", name]
limits = {"gene mean": report, "ceiling, bootstrap": ceiling, "ceiling, thinning": thinned}
pd.DataFrame(limits).loc[rows].map(lambda x: "–" if np.isnan(x) else f"{x:.3f}")

# %% tags=["remove-input"]
lab.profiles.finding(
    f"on the observed target, RMSE can fall from {report['rmse_observed']:.3f} to no less than "
    f"{ceiling['rmse_observed']:.3f}, and R can rise from {report['r_observed']:.2f} to "
    f"{ceiling['r_observed']:.2f}. A perfect model would have a D² of {ceiling['d2']:.2f} and a "
    f"within-gene r of {ceiling['within_gene_r']:.2f}, if all that varies could be predicted.",
    profile,
    kept=f"A perfect model would have a D² of {ceiling['d2']:.2f} and a within-gene r of {ceiling['within_gene_r']:.2f}.",
)

# %% [markdown]
# That last condition matters. The bootstrap counts every difference between cells as predictable,
# also bursts of one gene that leave no mark on any other. A ceiling is an upper bound, not a
# promise. The two estimates of it differ, so take them as a range.
#
# :::{exercise} Depth or cells?
# :label: ex-depth
# You may sequence the cells four times as deep, or take four times as many. Which of the two raises
# the ceiling? Use `known_p` to check.
# :::
#
# :::{solution} ex-depth
# :class: dropdown
# ```python
# for depth, n_obs in ((1, 1500), (4, 1500), (1, 6000)):
#     sim_s, sim_u, _ = known_p(depth, n_obs)
#     print(depth, n_obs, sv.metrics.thinning_ceiling(sim_s, sim_u)[name])
# ```
# Depth does: the noise in $r$ depends on $n$, not on the number of cells. More cells make the *estimate* of the ceiling
# steadier, and give a model more to learn from, but leave each ratio as noisy as before.
# :::
#
# ## What is real, and what is simulated?
#
# Where the real cells cannot be had, a simulated pancreas takes their place: the same eight cell
# types, with equation {eq}`eq-kinetics` as the law of every gene. How like the real thing is it? We
# compare the cells at hand with a simulation in depth, in sparsity, in the unspliced share and in
# {term}`overdispersion`. Totals are overdispersed by their excess over the Poisson variance,
# relative to the squared mean; ratios by $\varphi$ above, which is $1/(1 + c)$ for a
# {term}`concentration` $c$.


# %%
def figures(adata):
    """Depth, sparsity and unspliced share of all entries; overdispersion of the median gene."""
    s, u = (adata.layers[name].toarray() for name in ("spliced", "unspliced"))
    n = s + u
    scaled = n * (n.sum(1).mean() / n.sum(1, keepdims=True))
    excess = (scaled.var(0) - scaled.mean(0)) / scaled.mean(0) ** 2
    mean = (s.sum(0) + 0.5) / (n.sum(0) + 1)
    return {
        "molecules per entry": n.mean(),
        "entries with n = 0": (n == 0).mean(),
        "unspliced share": u.sum() / n.sum(),
        "overdispersion of totals": np.median(excess),
        "overdispersion of ratios": np.median(1 / (1 + sv.metrics.fit_concentration(s, u, mean))),
    }


simulated = sv.data.simulate(n_obs=min(adata.n_obs, 3000), seed=1)
simulated = sv.data.prepare(simulated, fit_on=sv.data.split(simulated)[0])
here = "cells at hand" + (" (simulated too)" if adata.uns["provenance"]["simulated"] else "")
compared = pd.DataFrame({here: figures(adata), "a simulated pancreas": figures(simulated)})
compared.round(3)

# %% tags=["remove-input"]
a, b = compared.iloc[:, 0], compared.iloc[:, 1]
furthest = (np.log(a / b)).abs().idxmax()
lab.profiles.finding(
    f"the two differ most in the {furthest}, {a[furthest]:.3f} against {b[furthest]:.3f}; "
    f"molecules per entry are {a.iloc[0]:.2f} against {b.iloc[0]:.2f}.",
    profile,
)

# %% [markdown]
# Agreement in such figures makes the simulation a fair place to test methods whose answer must be
# known, as we did with the ceiling ({numref}`fig-ceiling`). It does not make it evidence about the
# pancreas. No biological claim in this book rests on simulated cells.
#
# ## What we found

# %% tags=["remove-input"]
lab.profiles.what_we_found(profile)

# %% [markdown]
# The splicing ratio of a gene in a cell is real but badly lit. Most entries that hold anything hold
# a few molecules, and the binomial spread of so few covers nearly everything that one sees. What
# remains is mostly a difference between *genes*, which a single table of gene means captures, and
# which turns pooled correlations into a measure of the target more than of the model. The part that
# depends on the cell, the part that velocity needs, is small, and a ceiling tells how much of it
# can be seen. A model deserves credit for exactly this part: for D² above 0, and within-gene r
# above 0.
#
# Can a network that sees only the totals find it? First it has to be built: {doc}`02_architecture`
#
# ## Three questions
#
# :::{dropdown} 1. Why is the ratio of an entry with one molecule of no use by itself?
# It can only be 0 or 1, whatever $p$ is. Its standard deviation is $\sqrt{p(1-p)}$, 0.4 at $p =
# 0.8$. Only over many entries does it say something.
# :::
#
# :::{dropdown} 2. Of a model you are told one number, a pooled r of 0.79. Is that good?
# Nobody can tell. The gene mean, which knows nothing of cells, may have the same. Ask for D² or
# within-gene r, where the gene mean has 0.
# :::
#
# :::{dropdown} 3. Why is a perfect model not at 1?
# The observed ratio is a sample. A model that knew $p$ would still not know how the molecules fell.
# The score that it would get is the noise ceiling.
# :::
