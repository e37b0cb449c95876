# %% [markdown]
# # Other tissues, and when to trust it
#
# Whoever wants to use a model has other cells than those it was trained on. They may come from
# another animal, another library, another tissue. Nobody counted their spliced and unspliced
# molecules, so nobody can check what is predicted. The paper leaves this case open
# {cite:p}`SplicedVAE2026`. So we ask two questions. What carries over to a tissue that a model has
# never seen? And how does somebody with totals alone find out when not to believe it?
#
# For the first question, here are real cells of other tissues, with the same genes. For the second,
# a verdict that knows nothing but the totals stands beside the truth, for cells where we know it.
#
# :::{admonition} In this chapter
# :class: tip
# - You will see what a model knows of a tissue that it has never seen, on real cells where they can
#   be had.
# - You will set its intercepts with a few cells, and ask it whether to believe it.
# - You need {doc}`chapter 3 <03_training>`.
# :::

# %% tags=["parameters"]
profile = "auto"  # type: str (auto: standard if its results are published, else smoke; smoke: a first look; standard, full: figures)
results = "_build/results"  # type: str (folder of the runs that are made once)

# %% tags=["remove-stderr"]
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import splicedvae as sv
import splicedvae_book as lab

lab.profiles.quiet()
lab.plots.use_style()
profile = lab.published.choose(profile, results, "fits", "tissues")
real = lab.profiles.load(profile)
lab.profiles.banner(real, profile)

# %% [markdown]
# ## Three sets of cells, one list of genes
#
# `sv.data.tissues()` has three small sets of mouse cells, published as examples of Monod
# {cite:p}`Gorin2022`: the brain of an embryo, and two libraries of the adult
# cortex. All three count the same 200 genes. That is few, and there are no cell types, so these
# sets are for ratios and not for velocity.

# %% tags=["remove-stderr"]
sets = sv.data.tissues()
pd.DataFrame(
    {
        cells.uns["provenance"]["name"]: {
            "cells": cells.n_obs,
            "molecules per cell": round(
                sum(cells.layers[form].sum() for form in ("spliced", "unspliced")) / cells.n_obs
            ),
            "spliced": f"{cells.layers['spliced'].sum() / sum(cells.layers[f].sum() for f in ('spliced', 'unspliced')):.0%}",
            "simulated": "yes" if cells.uns["provenance"]["simulated"] else "no",
        }
        for cells in sets.values()
    }
).T

# %% [markdown]
# ## What carries over
#
# A gene's ratio can be wrong in two ways. Say that *Foxn3* is 60 % spliced in the brain and 40 % in
# the cortex, and that in both it is more spliced in old cells than in young ones. A model from the
# brain then has the wrong *mean* in the cortex, and the right *difference between cells*. Two
# scores keep these apart. {term}`Within-gene r <within-gene r>` asks for differences alone. D² over
# the target's own gene means asks for both.
#
# Each target's test cells are predicted from its totals, by a model that has seen no cell of it,
# and by one of the target's own cells.

# %% tags=["remove-stderr"]
jobs = lab.tissues.stage.run(real, profile, results)
known = lab.tissues.table(jobs)
simulated = any(job["simulated"] for job in jobs)
which = "SIMULATED tissues" if simulated else "real cells"
network = known[known["way"] == "SplicedVAE"]
own = network[network["from"] == "own"]
own = own[own["cells"] == own.groupby("target")["cells"].transform("max")].set_index(
    ["target", "seed"]
)
elsewhere = network[(network["from"] != "own") & (network["cells"] == 0)]
share = elsewhere.join(own["within_gene_r"].rename("own_r"), on=["target", "seed"])
share = share.assign(share=share["within_gene_r"] / share["own_r"])

# %% mystnb={"image": {"alt": "Dots per seed of within-gene r, by target and by what was learnt from: other sets, two of them together, own cells; SplicedVAE, the hierarchical regression and the ridge in three colours."}, "figure": {"caption": "What is known of cells of a target (left of the arrow: what was learnt from). For the brain and cortex C01, the last row is a model of own cells: how much of it does another library reach, and how much another tissue?", "name": "fig-carries-over"}} tags=["hide-input"]
ways = {
    "SplicedVAE": lab.plots.ORANGE,
    "hierarchical regression": lab.plots.BLUE,
    "ridge": lab.plots.INK,
}
largest = known.groupby(["target", "from"])["cells"].transform("max")
shown = known[np.where(known["from"] == "own", known["cells"] == largest, known["cells"] == 0)]
shown = shown[shown["way"].isin(ways)]
lines = shown.groupby(["target", "from"], sort=False).size().index
lines = sorted(lines, key=lambda x: (x[0], x[1] == "own", x[1]))
fig, ax = plt.subplots(figsize=(7.5, 0.42 * len(lines) + 1))
for row, (target, source) in enumerate(lines):
    for way, colour in ways.items():
        here = (shown["target"] == target) & (shown["from"] == source) & (shown["way"] == way)
        r = shown.loc[here, "within_gene_r"]
        ax.plot(
            r,
            [row] * len(r),
            "o",
            color=colour,
            ms=5,
            alpha=0.8,
            label=way if row == 0 else None,
        )
ax.set_yticks(range(len(lines)), [f"{source} → {target}" for target, source in lines])
ax.set(xlabel=f"within-gene r ({which})", xlim=(0, None))
ax.invert_yaxis()
ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
plt.show()

# %% tags=["remove-input"]
of = share.dropna(subset="share").groupby(["target", "from"])["share"].agg(["mean", "min", "max"])
means = elsewhere.groupby(["target", "from"])["d2_own_mean"].mean()
lab.profiles.finding(
    f"({which}; share of the within-gene r of a model of the target's own cells, and D² over the "
    "target's own gene means)\n\n"
    + "\n".join(
        f"- {source} → {target}: {row['mean']:.2f} (seeds from {row['min']:.2f} to {row['max']:.2f}), "
        f"D² {means[target, source]:.2f}"
        for (target, source), row in of.iterrows()
    )
    + "\n\nA D² below 0 is worse than the target's own means: they did not carry over.",
    profile,
)

# %% [markdown]
# ## The intercept of a gene
#
# The mean of a gene is one number, and a few cells with both forms tell it. `model.calibrate` moves
# each gene's logit by an offset. Genes with few molecules borrow from the others: all offsets have
# a common prior, whose mean and width are learnt from them (empirical Bayes). The figure asks what
# it is worth, over the *own* gene means of the target. To know these, you would need hundreds of its
# cells. Beside it is what the same few cells teach without any model from elsewhere: twenty cells teach
# little, a few hundred enough for a model of their own.

# %% mystnb={"image": {"alt": "D squared over the target's own gene means against the number of target cells with both forms, 20, 50 and 200: calibrated SplicedVAE from elsewhere above the gene mean, the ridge and the regression of the same few cells."}, "figure": {"caption": "Offsets from 20, 50 and 200 cells of the target. The line at 0 is the target's own gene means, from all cells that are not tested. Orange is SplicedVAE: where it lies above the others, a model from elsewhere whose intercepts are set is worth more than the three simple models learnt from these cells alone.", "name": "fig-offsets"}} tags=["hide-input"]
few = [n for n in lab.tissues.CALIBRATED if (known["cells"] == n).any()]
targets = [t for t in lab.tissues.TARGETS if t in set(known["target"])]
fig, axes = plt.subplots(1, len(targets), figsize=(8.5, 5), sharey=True)
for ax, target in zip(axes, targets, strict=True):
    own_few = known.query("target == @target and `from` == 'own' and cells in @few")
    for way, colour in (
        ("gene mean", "#999999"),
        ("ridge", lab.plots.INK),
        ("hierarchical regression", lab.plots.BLUE),
    ):
        mean = own_few[own_few["way"] == way].groupby("cells")["d2_own_mean"].mean()
        ax.plot(mean.index, mean, "o-", color=colour, label=f"{way}, those cells alone")
    from_there = network.query("target == @target and `from` != 'own' and cells in @few")
    for source, marker in zip(sorted(from_there["from"].unique()), "osD^", strict=False):
        mean = from_there[from_there["from"] == source].groupby("cells")["d2_own_mean"].mean()
        ax.plot(
            mean.index,
            mean,
            marker=marker,
            color=lab.plots.ORANGE,
            label=f"from {source}, calibrated",
        )
    ax.axhline(0, color=lab.plots.INK, lw=0.8)
    ax.set(title=f"{target} ({which})", xscale="log", xlabel="cells of the target")
    ax.set_xticks(few, few)
    ax.minorticks_off()
    ax.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.2))
axes[0].set_ylabel("D² over the target's own means")
plt.show()


# %% tags=["remove-input"]
def gain(target: str, source: str, n: int, other: str) -> str:
    """D² of the calibrated model less that of what the same cells teach alone, in words."""
    column = ["seed", "d2_own_mean"]
    a = network.query("target == @target and `from` == @source and cells == @n")[column]
    b = known.query("target == @target and `from` == 'own' and cells == @n and way == @other")[
        column
    ]
    pair = a.merge(b, on="seed")
    if len(pair) < 2:
        return f"{(pair['d2_own_mean_x'] - pair['d2_own_mean_y']).mean():+.3f} (one seed)"
    mean, low, high = sv.metrics.paired_interval(
        pair["d2_own_mean_x"].to_numpy(), pair["d2_own_mean_y"].to_numpy()
    )
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


chosen = {
    lab.tissues.BRAIN: "cortex_b01 + cortex_c01",
    lab.tissues.CORTEX_C: "cortex_b01",
}
lab.profiles.finding(
    f"({which}) D² of a model from elsewhere, its intercepts set on 50 cells, less that of "
    "what these 50 cells teach alone:\n\n"
    + "\n".join(
        f"- {source} → {target}: {gain(target, source, 50, 'ridge')} against the ridge, "
        f"{gain(target, source, 50, 'gene mean')} against the gene means."
        for target, source in chosen.items()
    ),
    profile,
)

# %% [markdown]
# Calibrating takes one line; a {term}`pseudobulk` of both forms works too:
#
# ```python
# table = model.calibrate(cells_with_both_forms)           # 20 cells, or more
# model.calibrate(query, pseudobulk=(spliced, unspliced))  # or sums for each gene
# model.save("model")                                      # the intercepts stay
# ```
#
# ### Does velocity need it?
#
# Velocity asks less than D² does. scVelo draws a line through the origin for each gene, and reads
# velocity from the cells above and below it. An offset of the gene's ratio moves all of its cells
# in the same direction, and the slope of the line moves with them. We try it with ratios of the
# pancreas by {term}`nearest neighbours <baseline>`: once as they are, and once with a random offset
# for each gene. Its standard deviation is 0.5 on the logit scale.

# %% tags=["remove-stderr"]
cells, (train, val, test) = lab.profiles.prepared(real, profile, 0)
some = cells[test].copy()
for name in (*some.obsm, *some.obsp):
    (some.obsm if name in some.obsm else some.obsp).pop(name)
sv.velocity.embed(some, overwrite=True)
ratio = sv.baselines.NearestNeighbours().fit(cells[train], cells[val]).predict(some)
logits = np.log(ratio) - np.log1p(-ratio)


def arrows(offset: np.ndarray) -> np.ndarray:
    """Velocity on the UMAP from ratios whose logits are moved, gene by gene."""
    moved, total = 1 / (1 + np.exp(-logits - offset)), some.layers["total"].toarray()
    field = some.copy()
    field.layers["s"], field.layers["u"] = total * moved, total * (1 - moved)
    sv.velocity.fit(field, "s", "u", n_draws=3)
    return field.obsm["velocity_umap"]


def angle(a: np.ndarray, b: np.ndarray) -> float:
    """Mean angle between two fields, in degrees."""
    norm = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(
        np.degrees(np.arccos(np.clip((a * b).sum(1) / np.maximum(norm, 1e-12), -1, 1))).mean()
    )


plain = arrows(np.zeros(some.n_vars))
shifted = arrows(np.random.default_rng(0).normal(0, 0.5, some.n_vars))
lab.profiles.finding(
    f"random offsets of 0.5 on the logit scale turn the arrows by {angle(plain, shifted):.1f}° on "
    "average (90° would be chance): the slope takes up most of an offset.",
    profile,
    kept=f"Offsets of 0.5 on the logit scale turn the arrows by {angle(plain, shifted):.0f}° on average.",
)

# %% [markdown]
# ## How many cells with both forms do you need?

# %% mystnb={"image": {"alt": "Within-gene r of the brain's test cells against the number of its own training cells, for SplicedVAE, the hierarchical regression and the ridge, with a dashed line for the model from other tissues."}, "figure": {"caption": "Own cells of the brain against none: how many of one's own cells a model from elsewhere is worth, for differences between cells. Dashed: the best of the other sets, chosen on these very cells.", "name": "fig-own-cells"}} tags=["hide-input"]
target = lab.tissues.BRAIN
curve = known.query("target == @target and `from` == 'own'")
fig, ax = plt.subplots()
for way, colour in ways.items():
    mean = curve[curve["way"] == way].groupby("cells")["within_gene_r"].mean()
    ax.plot(mean.index, mean, "o-", color=colour, label=f"{way}, own cells")
without = elsewhere.query("target == @target")["within_gene_r"].groupby(elsewhere["from"]).mean()
ax.axhline(
    without.max(), color=lab.plots.ORANGE, ls="--", label=f"SplicedVAE from {without.idxmax()}"
)
ax.set(xscale="log", xlabel=f"own cells ({which})", ylabel="within-gene r", ylim=(0, None))
ax.legend()
plt.show()

# %% [markdown]
# ## When not to believe it
#
# What is wrong with a ratio can't be seen from totals: neither a gene's wrong mean, nor a change of
# splicing that leaves the totals as they are. What can be seen is whether these cells
# *differ from each other in the ways that the model has learnt*. `sv.trust` parts each cell's
# molecules at random into two halves. The model reads one half, and says what the other should be.
# If it does so as well as for validation cells of the training, the state that it reads is really there.
# From that state, ratios are read.
#
# How far off is the velocity of a cell whose halves predict each other so well? That was measured once, on the validation cells of the
# training. Their true counts are known, and they are made shallow and noisy on purpose, so that
# there are bad ones among them. Fewer cells, or fewer genes, make a poorer velocity of the same
# ratios; what they cost was measured on parts of the validation cells too.
#
# And which arrow is it? Chapter 5 drew ratios from what the model does not know, its weights and a
# cell's latent, and found that arrows that disagree are often wrong. The function `sv.trust` makes five such
# draws of the query. A curve through the validation cells turns their disagreement into degrees.
#
# The verdict is `trust` if the expected angle is at most 35° and nothing else warns. Up to 45°, which is chapter
# 5's rule for whole fields with known truth, it is `caution`, since what is expected is no promise.
# Beyond, or where cells hardly differ in the ways that were learnt, it is `do not trust`. Two more
# things make it `caution`: fewer than 50 cells, and cells of which nearly all are unlike any training
# cell. If even the training cells show no clear velocity, no angle is expected, and the verdict is
# about ratios alone. The reasons say what it was. Few molecules and missing genes are told too, but count only
# through the angle.
#
# Spliced counts in the place of totals need a test of their own: they differ between cells as
# totals do. Genes with much unspliced mRNA then have too few molecules, and that is what is tested.
#
# A cell's *support* is 1 where no error of its arrow is expected, and 0 where 90° are, which is
# chance. The map shows a query of held-out pancreas cells: the support that needs no truth, and the
# angle to the velocity of their true counts.

# %% tags=["remove-stderr"]
lab.fits.stage.run(real, profile, results, ["SplicedVAE"])
kept = lab.fits.checkpoint(results, real, profile, 0, "SplicedVAE")
model = sv.SplicedVAE.load(str(kept), cells)
query = lab.chemistries.as_counted_by(some, "whole cells, 3′, introns counted")
found = sv.trust(query, model)
print(found)

# %% tags=["remove-stderr"]
reference, predicted = some.copy(), some.copy()
sv.velocity.fit(reference)
model.impute_layers(predicted)
sv.velocity.fit(
    predicted,
    "spliced_splicedvae",
    "unspliced_splicedvae",
    concentration="concentration_splicedvae",
    n_draws=3,
)
a, b = (field.obsm["velocity_umap"] for field in (reference, predicted))
norm = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
error = np.degrees(np.arccos(np.clip((a * b).sum(1) / np.maximum(norm, 1e-12), -1, 1)))
support = query.obs["splicedvae_support"].to_numpy()
agree = pd.Series(-support).corr(pd.Series(error), method="spearman")

# %% mystnb={"image": {"alt": "Two UMAPs of held-out pancreas cells: support from totals alone, high in the middle of the differentiation and low at its ends, and the true angle of error, which is large where support is low."}, "figure": {"caption": "Support, from totals alone (left), and how far each arrow is from that of the true counts (right). Where support is low, read no direction.", "name": "fig-support"}} tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(9, 3.8))
for ax, values, label, colours in (
    (axes[0], support, "support", "viridis"),
    (axes[1], error, "angle to true counts, degrees", "viridis_r"),
):
    dots = ax.scatter(*some.obsm["X_umap"].T, c=values, s=7, cmap=colours, lw=0)
    ax.set(xticks=[], yticks=[])
    fig.colorbar(dots, ax=ax, label=label, shrink=0.8)
plt.show()

# %% tags=["remove-input"]
lab.profiles.finding(
    f"held-out cells: `{found.verdict}`, {found.expected_angle:.0f}° expected, "
    f"{error.mean():.0f}° true; rank correlation of low support with a cell's true error "
    f"{agree:.2f}.",
    profile,
    kept=f"On held-out cells, trust expects an angle of {found.expected_angle:.0f}° and the true one is {error.mean():.0f}°; the rank correlation of low support with a cell's error is {agree:.2f}.",
)

# %% [markdown]
# | verdict | what to do |
# | --- | --- |
# | `trust` | use it; read no direction where `obs["splicedvae_support"]` is low |
# | `caution` | read the reasons; look at ratios and velocity where support is high, and say so |
# | `do not trust` | don't publish an arrow of it; get the counts that the reasons ask for, or train on cells like these |
#
# ## Can I use it on my data?
#
# Protocols differ in what they count. The table takes held-out cells of the banner above and gives
# them the counts that another protocol would have found. **All rows but the first are simulated**
# from these cells: molecules are thinned, left out or mixed. The verdict sees totals alone.

# %% tags=["remove-stderr"]
rows = {}
for name in lab.chemistries.CHEMISTRIES:
    shown = lab.chemistries.as_counted_by(some, name)
    verdict = sv.trust(shown, model)
    rows[name] = {
        "verdict": verdict.verdict,
        "expected angle": "–"
        if verdict.verdict == "do not trust"
        else f"{verdict.expected_angle:.0f}°",
        "first reason": verdict.reasons[0],
    }
pd.set_option("display.max_colwidth", None)
pd.DataFrame(rows).T

# %% [markdown]
# | your cells | what to know | what was measured |
# | --- | --- | --- |
# | 3′, introns counted | what the models here learn from | real: libraries and tissues above, pancreas |
# | 5′ | meets other introns, so gene means differ: calibrate | nothing; no 5′ cells here |
# | nuclei, multiome | mostly unspliced: a model of whole cells finds directions (above), and far too many spliced molecules; for ratios, calibrate or train on nuclei | simulated |
# | Flex and other probes | probes lie on exons: there is no unspliced count to be had | simulated |
# | Smart-seq | deep, whole length; no molecules to count | nothing; see {doc}`chapter 2 <02_architecture>` on what a molecule weighs |
# | spliced counts alone | train with `input="spliced"` | simulated here; {doc}`chapter 5 <05_velocity>` |
# | spatial spots | mixtures of cells: an arrow of a mixture is no cell's | simulated |
#
# :::{exercise} Noise by the spoonful
# :label: ex-spoonful
# Replace a growing share of the query's entries by noise of the same means. At which share does the
# verdict change? Then the other way round: what could be wrong with ratios that totals can never
# show?
# :::
#
# :::{solution} ex-spoonful
# :class: dropdown
# ```python
# x, rng = query.X.toarray(), np.random.default_rng(0)
# noise = rng.poisson(x.sum(1, keepdims=True) * x.sum(0) / x.sum())
# for share in (0, 0.3, 0.6, 0.9):
#     mixed = query.copy()
#     mixed.X = np.where(rng.random(x.shape) < share, noise, x)
#     print(share, sv.trust(mixed, model).verdict)
# ```
# If a drug slowed splicing in some genes only, totals would differ between cells as before, and
# those genes' ratios would be wrong. Nothing in the totals tells. Some cells with both forms do:
# `model.calibrate` then finds offsets that differ widely from gene to gene.
# :::
#
# ## What we found

# %% tags=["remove-input"]
lab.profiles.what_we_found(profile)

# %% [markdown]
# In the standard build, differences between cells carry over fully to another library, and to
# another tissue in part: the first finding says how much. A gene's mean does not carry over to another tissue. A few cells
# with both forms set it, and velocity needs it less than D² does. With hundreds of own cells,
# learn from these. Whether any of this holds for *your* cells, totals can say to a good
# part: not whether each ratio is right, but whether the model still reads a state that is there.
#
# ## Three questions
#
# :::{dropdown} 1. What carries over to another tissue, and what does not?
# Which cell of a gene is more spliced than another carries over in part. A gene's mean ratio does
# not: it depends on the tissue and on how the molecules were captured.
# :::
#
# :::{dropdown} 2. How many cells with both counts do you need to set a gene's intercept, and how many for a model of their own?
# Twenty help, and a few hundred may already teach a model of their own. The second figure shows
# where the lines cross.
# :::
#
# :::{dropdown} 3. What can `sv.trust` not see?
# A wrong mean of a gene, and any change that leaves the totals as they are, such as a drug that
# slows splicing. Only cells with both counts show it.
# :::
