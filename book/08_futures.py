# %% [markdown]
# # Where may a cell go, and how sure can we be?
#
# A {term}`velocity field` gives each cell one arrow. Many cells have more than one way to go. The
# paper ends with a wish: models that learn "distributions over possible future states"
# {cite:p}`SplicedVAE2026`. This chapter builds such a model, and asks two questions of it. Are its
# futures the right ones? And does it know what it does not know? Pictures cannot answer these
# questions, so every future is scored where the truth is known: in a simulation, and in cells whose
# relatives were followed for days.
#
# :::{admonition} In this chapter
# :class: tip
# - You will turn an arrow into a distribution over places and fates.
# - You will score it where the truth is known, and see whether its probabilities can be believed.
# - You need {doc}`chapter 5 <05_velocity>`.
# :::

# %% tags=["parameters"]
profile = "auto"  # type: str (auto: standard if its results are published, else smoke; smoke: a first look; standard, full: figures)
results = "_build/results"  # type: str (folder of the runs that are made once)

# %% tags=["remove-stderr"]
import logging

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

import splicedvae as sv
import splicedvae_book as lab

lab.profiles.quiet()
lab.plots.use_style()
logging.getLogger("splicedvae").setLevel(logging.ERROR)
profile = lab.published.choose(profile, results, "fits", "futures")
adata = lab.profiles.load(profile)
lab.profiles.banner(adata, profile)

# %% [markdown]
# ## From an arrow to a distribution
#
# Begin with one dimension. A cell lies at 0, and the next day half of its kind lie at −1 and half
# at +1. The mean arrow has length 0: it points to a place where no cell ever goes. A distribution
# says what the arrow cannot: two places, each as likely as the other.
#
# How good is such a forecast? The {term}`energy score` takes draws $X$ and the truth $y$,
#
# $$ \mathrm{ES} = \mathrm{E}\,|X - y| - \tfrac12\,\mathrm{E}\,|X - X'|. $$ (eq-energy)
#
# The first part is how far draws are from the truth. The second gives back what an honest spread
# must cost. Say the truth is $+1$. The arrow says 0, and its score is 1. Draws of −1 and +1 are 1
# away on average. Of pairs of draws, half coincide and the others are 2 apart, 1 on average, so they score $1 - \tfrac12 = \tfrac12$. Smaller is better.

# %%
truth = np.ones((1, 1, 1))  # (true draws, cells, dimensions)
forecasts = {
    "arrow: 0": np.zeros((1, 1, 1)),
    "−1 or +1": np.array([-1.0, 1.0] * 500).reshape(-1, 1, 1),
    "always +1, lucky today": np.ones((1, 1, 1)),
}
today = {name: sv.metrics.energy_score(x, truth)[0] for name, x in forecasts.items()}
both = {
    name: np.mean([sv.metrics.energy_score(x, sign * truth)[0] for sign in (-1, 1)])
    for name, x in forecasts.items()
}
pd.DataFrame({"if it went to +1": today, "on average": both}).round(2)

# %% [markdown]
# A lucky guess wins today and loses on average. Nothing beats the true distribution on average, and
# a score with this property is called *proper*.
#
# Now let a model learn the fork. `sv.futures.Futures` takes cells of two days and no velocity. It
# pairs the days by optimal transport, and learns the mean way of all pairs that pass a place. This
# is {term}`flow matching`. What the mean leaves out comes back as noise.

# %% tags=["remove-stderr"]
from anndata import AnnData

rng = np.random.default_rng(0)
n_fork = 300
day = np.repeat([0.0, 1.0], n_fork)
side = np.where(rng.random(n_fork) < 0.5, 1.0, -1.0)
height = np.concatenate([0.2 * rng.normal(size=n_fork), side + 0.1 * rng.normal(size=n_fork)])
fork = AnnData(obs=pd.DataFrame({"day": day}, index=[f"c{k}" for k in range(2 * n_fork)]))
fork.obsm["X_line"] = height[:, None]
forked = sv.futures.Futures(fork, "X_line", time_key="day").fit(500, batch_size=128, progress=False)
middle = int((side < 0).sum())  # as many cells go down as lie below this one
starts = np.argsort(height[:n_fork])[[60, middle, 240]]
ways = forked.paths(starts, horizon=1, n=30, n_times=20)

# %% mystnb={"image": {"alt": "Three cells start near height zero and fan out over a day. Paths of the lowest cell end near minus one, those of the highest near plus one, and those of the middle cell part ways."}, "figure": {"caption": "A fork in one dimension. Paths of the lowest cell (blue), the middle one (orange) and the highest (green). The middle cell's part ways.", "name": "fig-fork"}}
ax = plt.figure(figsize=(6, 3.4)).add_subplot()
for k, colour in enumerate((lab.plots.BLUE, lab.plots.ORANGE, lab.plots.GREEN)):
    ax.plot(np.linspace(0, 1, 21), ways[:, :, k, 0].T, color=colour, lw=0.8, alpha=0.7)
ax.scatter(day, height, s=4, color="#999999", zorder=0)
_ = ax.set(xlabel="day", ylabel="height")

# %% [markdown]
# :::{margin} Machine learning
# **Flow and diffusion.** A flow learns a drift and follows it. A {term}`diffusion model` learns to
# take noise away, step by step, until a likely future is left. The paper names both; `kind=` chooses.
# :::
#
# ## Fans instead of arrows
#
# With a velocity there are no days. Each cell has neighbours, and the velocity says which of them
# are its likely next places. `Futures` learns from pairs of a cell and a next place, and time is
# counted in such steps. How far ahead we look, in steps, is the *horizon*. The argument `noise`
# multiplies the scatter that was learnt from the pairs; 1 is all of it.
#
# The next cell simulates cells, trains a small SplicedVAE, and makes velocities of cells that
# training did not see. **These cells are simulated**, so that we know where each of them really goes.
# The figures use the velocity of these cells' true counts; the table below has the predicted one too.

# %% tags=["remove-stderr"]
shown = lab.futures.SETTINGS["smoke" if profile == "smoke" else "standard"]
size = {key: shown[key] for key in ("n_obs", "n_vars", "max_epochs")}
bench = lab.futures.Bench(0, **size)
fields = bench.velocities()
field = fields["true S/U"]
futures = sv.futures.Futures(field, "X_splicedvae").fit(400, progress=False)
sv.velocity.embed(field, overwrite=True)  # a UMAP to draw on

# %% mystnb={"image": {"alt": "UMAP of simulated cells coloured by cell type, with thin dark paths that start at three marked cells and spread over neighbouring cell types."}, "figure": {"caption": "Simulated cells. Each fan holds eight futures of one cell, drawn at the cells that they pass. A fan that splits says that the cell is undecided.", "name": "fig-fans"}}
clusters = field.obs["clusters"]
followed = [
    np.flatnonzero(clusters == name)[0] for name in ("Ductal", "Ngn3 high EP", "Pre-endocrine")
]
ways = futures.paths(followed, horizon=8, n=8, n_times=8, noise=0.25)
lab.plots.fans(
    field.obsm["X_umap"],
    clusters,
    bench.places,
    ways,
    n_neighbors=15,
    ax=plt.figure(figsize=(6.4, 4.6)).add_subplot(),
)
_ = plt.gcf().legend(loc="outside lower center", ncols=4, markerscale=2)

# %% [markdown]
# Where the paths end is a cell's {term}`fate`. Each corner of the next figure is one: a cell in a
# corner is certain, and a cell in the middle has all ways open.

# %% mystnb={"image": {"alt": "A triangle with the corners Beta, Alpha, and Delta or Epsilon. Cells that are not yet of these types lie inside it, away from the corners."}, "figure": {"caption": "Fates of simulated progenitors. In this simulation, a cell's branch is drawn by lot at the end of the stage Pre-endocrine, so no progenitor belongs in a corner.", "name": "fig-triangle"}}
going = np.concatenate([bench.val, bench.test])
fates = futures.fates(going, list(lab.futures.TERMINAL), n=25)
three = pd.DataFrame(
    {
        "Beta": fates["Beta"],
        "Alpha": fates["Alpha"],
        "Delta or Epsilon": fates["Delta"] + fates["Epsilon"],
    }
)
lab.plots.fate_triangle(three, clusters.iloc[going], ax=plt.figure(figsize=(5, 4.6)).add_subplot())
_ = plt.gcf().legend(loc="outside lower center", ncols=2, markerscale=2)

# %% [markdown]
# ## Does it know what it does not know?
#
# If a forecast says 30 % for many cells, three in ten should get there. The *reliability curve*
# draws this: told probability against observed share. Its mean distance from the diagonal is the
# {term}`expected calibration error`. The truth comes from `sv.data.futures_true`, which continues
# each cell with the kinetics that it was simulated with.
#
# Two scores go with it. The *log loss* is minus the logarithm of the probability given to what
# happened, averaged. The {term}`Brier score` is the squared distance between the probabilities and
# what happened, which is 1 for one fate and 0 for the others, or a share of a clone. Smaller is better for
# both. So that no fate has a probability of 0, the probabilities from some draws are mixed with one
# uniform draw.

# %% mystnb={"image": {"alt": "Reliability curves of 50 paths per cell and of one path per cell against the diagonal. The curve of one path strays farther from the diagonal."}, "figure": {"caption": "Reliability of the state four steps ahead, about one stage of the simulation. One path lands in one place, so it cannot say how sure it is.", "name": "fig-reliability"}}
drawn = futures.sample(bench.test, horizon=4, n=50, noise=0.5)
single = futures.sample(bench.test, horizon=4, n=1, noise=0)
curves = {
    "50 paths": sv.metrics.reliability(bench.fates(drawn), bench.fate[bench.test]),
    "one path": sv.metrics.reliability(bench.fates(single), bench.fate[bench.test]),
}
_ = lab.plots.reliability_curve(
    curves, {"one path": "null"}, ax=plt.figure(figsize=(4.6, 4.6)).add_subplot()
)

# %% [markdown]
# ## The table
#
# The rows of the table are futures of the same simulated cells. They differ in where the velocity
# comes from, and in what is made of it. *Stay put* says that nothing happens. *Carried on* follows
# the arrow. The *random walk* goes from neighbour to neighbour, more often to those that the same
# velocity points to, as CellRank does {cite:p}`Lange2022`. *Gene mean* takes its velocity from ratios
# that know nothing of cells.
# *Futures of neighbours* borrows the true futures of training cells. Nobody has them outside of a
# simulation, so its energy score shows how good a forecast can be. (Its fates are coarse, from few
# neighbours.) For each row, validation cells choose how many
# steps make up the horizon, and how much noise is best. The flow
# learns from the walk's own single steps, so the walk, which never leaves the cells, is a strong
# rival.

# %% tags=["remove-stderr"]
lab.fits.stage.run(adata, profile, results, ("SplicedVAE",))
jobs = lab.futures.stage.run(adata, profile, results)
scores = lab.experiment.table([job for job in jobs if job["name"] == "simulator"])
columns = {
    "energy_score": "energy score",
    "log_loss": "log loss",
    "brier": "Brier",
    "ece": "calibration error",
}
scores[list(columns)].groupby("model", sort=False).mean().rename(columns=columns).round(3)

# %% tags=["remove-input"]
lines, names = [], ("energy score", "log loss")
for source in lab.futures.SOURCES[:2]:
    for rival in (
        lab.futures.STAY,
        f"carried on, {source}",
        f"random walk, {source}",
        f"flow, one path, {source}",
        "flow, shuffled",
    ):
        told = [
            lab.experiment.format_difference(scores, f"flow, {source}", rival, score)
            for score in ("energy_score", "log_loss")
        ]
        lines.append(
            {"flow from": source, "flow minus": rival} | dict(zip(names, told, strict=True))
        )
error = (
    scores.loc[[f"flow, {source}" for source in lab.futures.SOURCES[:2]], "ece"]
    .groupby("model")
    .mean()
)
lab.profiles.finding(
    f"the flow's calibration error is {error.iloc[1]:.3f} from true S/U and {error.iloc[0]:.3f} from "
    "SplicedVAE. The next table sets it against its rivals, with the mean over seeds and, if there are "
    "several, its 95 % interval: below 0 the flow is better.",
    profile,
    kept=f"The flow's calibration error is {error.iloc[1]:.3f} from true S/U and {error.iloc[0]:.3f} from SplicedVAE (simulated cells).",
)
pd.DataFrame(lines).set_index(["flow from", "flow minus"])

# %% [markdown]
# Read the row *flow, shuffled* with care. Its arrows belong to other cells, so what it earns is
# earned by noise and neighbourhood alone. A model of futures must beat it before its arrows deserve
# any credit.
#
# ## Cells whose relatives were followed
#
# Simulations are kind to models. In LARRY, blood cells got barcodes that their daughters inherit
# {cite:p}`Weinreb2020`. Some cells were read on day 2, and their sisters grew on until day 6. So for
# some cells we know what share of their clone became neutrophils rather than monocytes. There is no
# splicing in these data: they test the flow alone, from optimal transport between days 2, 4 and 6.
# In the table, *constant* tells every cell the mean share of other clones. WOT, PBA and FateID are
# published predictions; $R$ is the correlation with the share that was observed.

# %% tags=["remove-stderr"]
from IPython.display import Markdown, display

real = lab.experiment.table(
    [job for job in jobs if job["name"] == "larry" and job["rows"]]
    or [{"seed": 0, "rows": {"none": {}}}]
)
if "r" in real:
    table = (
        real[["r", "brier", "log_loss", "ece"]].astype(float).groupby("model", sort=False).mean()
    )
    display(
        table.rename(
            columns={
                "r": "R",
                "brier": "Brier",
                "log_loss": "log loss",
                "ece": "calibration error",
            }
        ).round(3)
    )
else:
    display(
        Markdown(
            "**The LARRY cells could not be had, so this page shows the simulated part alone.** Set `SPLICEDVAE_DATA` to a folder that holds them."
        )
    )

# %% mystnb={"image": {"alt": "Reliability curve of the neutrophil share of LARRY cells, or a note that the cells could not be had."}, "figure": {"caption": "Reliability on clones, where the cells are at hand: the flow, and FateID as published. A curve that covers only the middle makes no bold forecast.", "name": "fig-larry"}}
ax = plt.figure(figsize=(4.6, 4.6)).add_subplot()
if "r" in real:
    first = real.xs(real.index.get_level_values("seed")[0], level="seed")
    shown = {name: first.loc[name, "curve"] for name in ("flow", "FateID")}
    lab.plots.reliability_curve(shown, {"FateID": "baseline"}, ax=ax)
else:
    ax.text(0.5, 0.5, "LARRY cells could not be had", ha="center")
    ax.axis("off")

# %% tags=["remove-input"]
if "r" in real:
    text = "; ".join(
        f"{name}: R {table.loc[name, 'r']:.3f}, Brier {table.loc[name, 'brier']:.3f}, log loss {table.loc[name, 'log_loss']:.3f}, calibration error {table.loc[name, 'ece']:.3f}"
        for name in ("flow", "flow, one path", "WOT", "PBA", "FateID")
    )
    lab.profiles.finding(
        f"on LARRY's test cells, noise chosen on clones that are not tested: {text}.", profile
    )

# %% [markdown]
# ## Agreement on the pancreas
#
# Nobody followed the pancreas cells of this book. What can be asked is whether two methods agree:
# the fates that the flow draws, and those of CellRank from the same cells' true counts. The *total
# variation* is half the sum of absolute differences, 0 for the same fates and 1 for none in common.
# It measures agreement, not truth.

# %%
agree = lab.experiment.table([job for job in jobs if job["name"] == "pancreas"])
agree.groupby("model", sort=False).mean().rename(
    columns={"total_variation": "total variation"}
).round(3)

# %% tags=["remove-input"]
variation = {name: agree.loc[name, "total_variation"] for name in lab.futures.SOURCES}
lab.profiles.finding(
    "the flow's fates differ from CellRank's by "
    + ", ".join(f"{values.mean():.3f} ({name})" for name, values in variation.items())
    + "; the gene mean less SplicedVAE: "
    + lab.experiment.format_difference(agree, "gene mean", "SplicedVAE", "total_variation")
    + ".",
    profile,
)

# %% [markdown]
# ## An experiment in the model
#
# What if a gene were held down? It is tempting to set its counts to 0, encode the cells again, and
# draw their futures. We can do so here and know the right answer: in this simulation no gene acts on
# another, so holding one down changes no fate at all. The futures are drawn with the same random
# numbers, so whatever moves is the model's mistake. The last row, other random numbers and no gene
# held down, says whether the mistake is a large one.
# **This is an experiment in the model, not biology.**


# %% tags=["remove-stderr"]
def held_down(gene):
    """The test cells, encoded as if this gene had not been counted."""
    cells = bench.query[bench.test].copy()
    for layer in ("spliced", "unspliced", "total"):
        matrix = cells.layers[layer].tolil()
        matrix[:, cells.var_names.get_loc(gene)] = 0
        cells.layers[layer] = matrix.tocsr()
    cells.obsm["X_splicedvae"] = bench.latent(cells)
    return cells


def moved(cells):
    """Total variation of fates to those of the cells as they are."""
    return (futures.fates(cells, terminal, n=25, horizon=4.0, noise=0.5) - before).abs().sum(
        axis=1
    ).mean() / 2


terminal = list(lab.futures.TERMINAL)
before = futures.fates(bench.test, terminal, n=25, horizon=4.0, noise=0.5)
again = futures.fates(bench.test, terminal, n=25, horizon=4.0, noise=0.5, seed=1)
abundance = pd.Series(
    np.asarray(bench.query.layers["total"].mean(axis=0)).ravel(), bench.query.var_names
)
genes = abundance.sort_values(ascending=False).index[[0, 1, 2, 40, 80]]
changes = {f"{gene}, mean count {abundance[gene]:.1f}": moved(held_down(gene)) for gene in genes}
changes["nothing held down, other draws"] = (again - before).abs().sum(axis=1).mean() / 2
pd.Series(changes, name="fates moved by (truth: 0)").to_frame().round(3)

# %% tags=["remove-input"]
worst = max(list(changes)[:-1], key=changes.get)
lab.profiles.finding(
    f"no gene acts on another here, so every move is a mistake of the model. The largest is that of "
    f"{worst.split(',')[0]}, "
    f"{changes[worst]:.3f}; other random numbers alone move the fates by {changes['nothing held down, other draws']:.3f}.",
    profile,
    kept=f"Holding one gene down moves the model's fates by {changes[worst]:.3f}, other random numbers by {changes['nothing held down, other draws']:.3f}: an experiment in the model.",
)

# %% [markdown]
# :::{exercise} How much noise is honest?
# :label: ex-noise
# Draw the test cells' futures with noise of 0.1, 0.5, 1 and 2. Which noise has the best energy
# score, and which the best calibration? Why may you not choose it on these cells?
# :::
#
# :::{solution} ex-noise
# :class: dropdown
# ```python
# found = {
#     noise: bench.scores(futures.sample(bench.test, 4, 50, noise), bench.test)
#     for noise in (0.1, 0.5, 1.0, 2.0)
# }
# pd.DataFrame(found).T.round(3)
# ```
# Too little noise is overconfident, too much says little; the best lies between. Chosen on the
# cells that are scored, the score would be that of a model which has seen its exam. `bench.val` is
# there for the choice.
# :::
#
# :::{exercise} Cells from futures
# :label: ex-decode
# A place in the latent space is not a cell yet. Decode ten futures of one cell with
# `futures.decode(places, bench.model)`. How many of their molecules are unspliced, and how many in
# the cells that the model was trained on?
# :::
#
# :::{solution} ex-decode
# :class: dropdown
# ```python
# new = futures.decode(futures.sample(bench.test[:1], horizon=4, n=10), bench.model)
# [cells.layers["unspliced"].sum() / cells.layers["total"].sum() for cells in (new, bench.train)]
# ```
# The two shares should be close, since decoder and head learnt from these cells. Draws far from all
# cells may have any share: look at `futures.support` first.
# :::
#
# ## What we found

# %% tags=["remove-input"]
lab.profiles.what_we_found(profile)

# %% [markdown]
# An arrow cannot say that there are two ways; a fan can. Spread has to be paid for, and proper
# scores set the price. One path per cell always stands among the rows, and so do a walk from
# neighbour to neighbour and arrows of other cells. Read the findings above for how much of it holds
# in this build.
#
# ## Three questions
#
# :::{dropdown} 1. Why is one path per cell not enough?
# One path lands in one place. It cannot show that the cell may also go elsewhere; many draws can say
# 60 to 40, and the log loss rewards them for it.
# :::
#
# :::{dropdown} 2. Fates that are right on average may still be badly calibrated. How would you see it?
# Group cells by the probability that the model gives. In each group, count how often the fate came.
# The reliability curve sets the two beside each other.
# :::
#
# :::{dropdown} 3. Why is the random walk a strong rival?
# It steps along the same velocity from cell to cell, so it never leaves the data. The flow learns
# from its steps and has to be better than they are.
# :::
