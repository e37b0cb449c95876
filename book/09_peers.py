# %% [markdown]
# # Who else gives a velocity without the two counts?
#
# SplicedVAE is not alone. Several methods promise arrows from one matrix of counts: some follow a
# {term}`pseudotime`, some train a network, some write down a model of how genes are made and lost.
# Their papers use different cells and different scores, so nobody can say which to take. Here all of
# them see the same cells, on one {term}`UMAP`, and are asked the same question: does the arrow point
# where the {term}`velocity from true counts <velocity cosine>` points? Which of them would you trust
# with cells that have no such counts?
#
# :::{admonition} In this chapter
# :class: tip
# - You will see how other methods make arrows without the two counts.
# - You will see all of them on the same cells, and why one popular score is no bar.
# - You need {doc}`chapter 5 <05_velocity>`.
# :::

# %% tags=["parameters"]
profile = "auto"  # type: str (auto: standard if its results are published, else smoke; smoke: a first look; standard, full: figures)
results = "_build/results"  # type: str (folder of the fits that are made once)

# %% tags=["remove-stderr"]
import matplotlib.pyplot as plt
import pandas as pd

import splicedvae_book as lab
from splicedvae.velocity.peers import pseudotime
from splicedvae.velocity.peers.table import (
    COUNTED,
    METHODS,
    NOT_RUN,
    REFERENCE,
    TURNED,
    field_of,
    held_out,
)

lab.profiles.quiet()
lab.plots.use_style()
profile = lab.published.choose(profile, results, "fits", "peers")
adata = lab.profiles.load(profile)
lab.profiles.banner(adata, profile)

# %% [markdown]
# ## Five ideas
#
# What a method must be told stands in its name: *root given* means that somebody said where
# development begins, and arrows then cross the known borders in the known order for that reason.
#
# **Follow a learnt clock: scTour** {cite:p}`Li2023`. An autoencoder gives each cell a time and a
# place, and a differential equation, itself a network, has to lead from the earliest place through
# all others. Nothing in the fit says at which end the clock starts: a film fits as well when it runs
# backwards. The package then picks an end by a count of expressed genes. The authors advise to look, and to turn it by hand where it is wrong. So the table shows
# scTour as it came and as turned by the root, over all seeds.
#
# **Move each group onto the next: VelOT.** Cells are ordered by a pseudotime and cut into windows.
# Optimal transport finds the cheapest way to move one window onto the next, and a network
# smooths the steps. The pseudotime needs a root, so the direction is told, not found.
#
# **Let regulators drive a gene: TFvelo** {cite:p}`Li2024`. A gene is made at a rate that its
# transcription factors set, and lost in proportion to what is there. The expression follows a sine
# over time. Take a gene whose expression swings between 1 and 3: it passes 2 twice, once rising and
# once falling, and the factors tell which.
#
# **The variance runs ahead of the mean: noSpliceVelo** {cite:p}`Mahajan2024`. Genes are made in
# bursts, and bursts add variance to that of a Poisson distribution, which is the mean. After a switch
# this excess, variance minus mean, reaches its new value before the mean does. Put both on a scale
# from 0, off, to 1, on. Half-way up, at a mean of 0.5, the excess is already at 0.75; half-way down it
# is at 0.25.
#
# **Learn the arrow's quadrant: the cascade forest** {cite:p}`Zhou2017`. Like Velo-Predictor, it
# names one of four directions and gives no velocity. Each layer of forests reads the genes, and what
# the layer before has said.

# %% mystnb={"image": {"alt": "Five sketches: points on a curve with one arrow each way; two clouds joined by lines; points on a circle; points on two curves that share their ends, the upper one rising and the lower one falling; and three columns of four trees, each feeding the next."}, "figure": {"caption": "Simulated sketches of five ideas. The first leaves open which way time runs, the second is told, the next two read it from a shape, and the last one learns it from labels.", "name": "fig-ideas"}}
_, axes = plt.subplots(1, 5, figsize=(13, 2.9))
lab.plots.ideas(axes)

# %% [markdown]
# The packages of scTour and VelOT are the authors' own. The cascade is built on scikit-learn. TFvelo
# has no licence, and noSpliceVelo asks for versions of 2024 and a GPU. So both are *ours from the
# paper*, written anew for all genes at once. Tests make data by their own equations and find the
# parameters again. Three names are missing, for these reasons.

# %%
pd.set_option("display.max_colwidth", None)
pd.Series(NOT_RUN, name="not run because").to_frame()

# %% [markdown]
# ## The simplest rival
#
# Before any network there is {term}`pseudotime drift`: say where development begins, order the cells
# by their distance from there (DPT, diffusion pseudotime), and let each cell move towards its later
# neighbours. CytoTRACE needs
# no root. It takes cells with many expressed genes for early ones.

# %% tags=["remove-stderr"]
seeds = lab.profiles.PROFILES[profile].seeds
whole, (train, _, test) = lab.profiles.prepared(adata, profile, seeds[0])
cells = held_out(whole, train, test)
drift = field_of(cells.test, pseudotime.dpt(cells.test, root="Ductal"))
counted = field_of(cells.test, pseudotime.cytotrace(cells.test))

# %% mystnb={"image": {"alt": "Three UMAPs of the test cells with streamlines: from true counts, from drift along diffusion pseudotime, which flows smoothly from the ductal cells to the endocrine ones, and from CytoTRACE drift."}, "figure": {"caption": "Streamlines from true counts, from a pseudotime whose root was named, and from the number of expressed genes. The middle one knows nothing of splicing.", "name": "fig-drift"}}
_, axes = plt.subplots(1, 3, figsize=(12, 3.8))
fields = {
    "true counts": cells.reference,
    "DPT drift, root given": drift,
    "CytoTRACE drift": counted,
}
for (name, field), ax in zip(fields.items(), axes, strict=True):
    lab.plots.stream(field, ax=ax).set_title(name)

# %% [markdown]
# ## The table
#
# Every method sees the totals of the {term}`test cells <train, val and test>`, as in the
# {term}`query protocol` of {doc}`chapter 5 <05_velocity>`. Two rows saw more: SplicedVAE was trained
# on other cells that have both counts, and *velocity transfer* copies from those cells. That is
# their point, and it is an advantage. Scores are those of chapter 5. *Accuracy* asks for the right
# quadrant, averaged over turns of the compass, *balanced* weighs the quadrants equally, and *raw*
# leaves genes in their own units. Minutes are those of one core, arrows included; SplicedVAE's leave
# out its training in the first two tables, where it was done before.

# %% tags=["remove-stderr"]
jobs = lab.fits.stage.run(adata, profile, results, lab.peers.FITS)
scores = lab.experiment.table(lab.peers.stage.run(adata, profile, results))
columns = {
    "cosine": "cosine",
    "cosine_raw": "raw cosine",
    "angular_error": "angle, °",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced",
    "cbdir": "CBDir",
    "coherence": "coherence",
    "minutes": "minutes",
}


def shown(ending=""):
    """Means over seeds of the rows whose names end so, for people to read."""
    names = [
        name
        for name in [*METHODS, "scTour" + TURNED, COUNTED, REFERENCE]
        if (name + ending) in models
    ]
    means = (
        scores.loc[[name + ending for name in names]]
        .groupby("model", sort=False)
        .mean(numeric_only=True)
    )
    means.index = names
    return means.reindex(columns=list(columns)).rename(columns=columns).round(3).fillna("–")


models = set(scores.index.unique("model"))
shown()

# %% [markdown]
# What was not run says why here; an empty table means that everything was.

# %%
absent = scores["note"][scores["note"].fillna("").str.startswith("not run")]
absent.groupby("model").first().to_frame("why")

# %% mystnb={"image": {"alt": "Dot plot of the velocity cosine of each method, a dot per seed and a bar with its interval: SplicedVAE and velocity transfer far to the right, the other methods around zero."}, "figure": {"caption": "Cosine with the velocity from true counts, a dot per seed. What learns from cells with both counts stands apart from what does not.", "name": "fig-peers"}}
run = [
    n
    for n in [*METHODS, "scTour" + TURNED]
    if n in models and scores.loc[n, "cosine"].notna().all()
]
roles = {name: "null" for name in run if name.startswith("null")}
ax = plt.figure(figsize=(7, 4.2)).add_subplot()
lab.plots.scores_over_seeds(scores, "cosine", run, roles, intervals=True, ax=ax)
_ = ax.set_xlabel("cosine, test cells")

# %% tags=["remove-input"]
rivals = [name for name in lab.scorecard.peer_names() if name in run]
several = scores.index.unique("seed").size > 1
sure = "is seen above" if several else "(one seed, so without an interval) is above"
bound = 1 if several else 0  # of a difference: the lower end of its interval, or itself
ahead = {
    score: [
        n for n in rivals if lab.experiment.difference(scores, "SplicedVAE", n, score)[bound] > 0
    ]
    for score in ("cosine", "accuracy")
}
lab.profiles.finding(
    f"SplicedVAE {sure} {len(ahead['cosine'])} of {len(rivals)} rows of other methods in cosine, and "
    f"above {len(ahead['accuracy'])} in accuracy averaged over turns of the compass. "
    "Not above, in cosine: "
    + (", ".join(n for n in rivals if n not in ahead["cosine"]) or "none")
    + "; in accuracy: "
    + (", ".join(n for n in rivals if n not in ahead["accuracy"]) or "none")
    + ". The differences are in the next table.",
    profile,
    kept=f"SplicedVAE {sure} {len(ahead['cosine'])} of {len(rivals)} rows of other methods in cosine, and above {len(ahead['accuracy'])} in accuracy.",
)

# %%
pd.DataFrame(
    {
        score: {n: lab.experiment.format_difference(scores, "SplicedVAE", n, score) for n in rivals}
        for score in ("cosine", "accuracy")
    }
).rename_axis("SplicedVAE minus")

# %% [markdown]
# ## Why CBDir is no bar
#
# {term}`CBDir` asks whether cells at a border point to the next cell type. Most papers of the field
# rank methods by it. But a method that was told the order of cell types, or the root, has an
# advantage there that owes nothing to molecules. The dashed line is the score of the velocity from true counts, which everything here is
# measured against. A dot above this line, with a cosine near 0, is better at the test than the
# truth, and wrong about the genes.

# %% mystnb={"image": {"alt": "Scatter plot of CBDir against cosine. Drift along pseudotime and scTour, turned, stand high at a cosine near zero, at the dashed line of the reference or above it; SplicedVAE and velocity transfer stand far to the right."}, "figure": {"caption": "CBDir against the cosine with the truth. A dot can be high on the left.", "name": "fig-cbdir"}}
_ = lab.plots.cosine_and_cbdir(scores, [*run, REFERENCE])

# %% tags=["remove-input"]
mean = scores.groupby("model")[["cosine", "cbdir"]].mean(numeric_only=True)
best = mean.loc[rivals, "cbdir"].idxmax() if rivals else REFERENCE
lab.profiles.finding(
    f"the most CBDir among methods without the two counts has *{best}*, {mean.loc[best, 'cbdir']:.3f}; "
    f"the velocity from true counts has {mean.loc[REFERENCE, 'cbdir']:.3f}. The cosine of *{best}* is "
    f"{mean.loc[best, 'cosine']:.3f}.",
    profile,
    kept=f"The most CBDir has *{best}*, {mean.loc[best, 'cbdir']:.2f}, at a cosine of {mean.loc[best, 'cosine']:.2f}.",
)

# %% [markdown]
# ## Which way does time run?
#
# scTour counts expressed genes to decide which end is the beginning. Here is what it
# chose for each seed, and what remains when the root turns the arrows.

# %%
if "scTour" in run:
    turns = scores.loc["scTour", ["flipped", "cosine", "cbdir"]].rename(
        columns={"flipped": "reversed"}
    )
    turns["CBDir, turned"] = scores.loc["scTour" + TURNED, "cbdir"]
    print(turns.round(3).to_string())
    print(f"reversed in {int(turns['reversed'].sum())} of {len(turns)} fits")
else:
    print("scTour was not run:", absent.get("scTour", pd.Series(["no package"])).iloc[0])

# %% [markdown]
# ## The cascade forest, honest and as published
#
# Like Velo-Predictor in {doc}`chapter 5 <05_velocity>`, the forest is published with classes that
# were balanced *before* cells were set aside for a test. Rows of the test are then mixtures of rows
# of the training. The honest row sees no test cell.

# %%
forest = (
    scores.loc[[lab.peers.HONEST, lab.peers.LEAKY]]
    .groupby("model", sort=False)
    .mean(numeric_only=True)
)
columns_of = {
    "accuracy": "accuracy",
    "accuracy_unrotated": "compass as it is",
    "balanced_accuracy_unrotated": "balanced, compass as it is",
}
forest[list(columns_of)].rename(columns=columns_of).round(3).fillna("–")

# %% [markdown]
# ## The second protocol
#
# Perhaps these methods only need more cells. In the {term}`pooled protocol` they see the totals of
# the training cells too, three times as many. SplicedVAE takes its slopes from the true counts of the
# training cells instead, the {term}`reference γ` of chapter 5.

# %%
shown(", pooled")

# %% [markdown]
# ## Where the velocity is known
#
# The velocity from true counts is itself a model's reading. On simulated cells the velocity is
# known. The first table is our own simulator, in which splicing has the last word; the second is
# *dyngen*, a simulator that is not ours, in which genes regulate genes {cite:p}`Cannoodt2021`.
# *The reference itself* is the known velocity; dyngen leaves it out in a few cells.
# The row *scVelo on the two counts* says what can be had from both counts.

# %%
shown(", simulated")

# %%
known = ", dyngen"
shown(known) if "SplicedVAE" + known in models else "The dyngen cells are not at hand: not run."


# %% tags=["remove-input"]
def against(ending: str) -> str:
    """Which methods SplicedVAE is above, or below, in cosine to the known velocity."""
    found = {"above": [], "below": [], "level with": []}
    for name in (n for n in rivals if n + ending in models):
        centre, low, high = lab.experiment.difference(
            scores, "SplicedVAE" + ending, name + ending, "cosine"
        )
        if not several:
            low = high = centre
        where = "above" if low > 0 else "below" if high < 0 else "level with"
        found[where].append(f"*{name}*")
    return "; ".join(f"{where} {', '.join(names) or 'none'}" for where, names in found.items())


lab.profiles.finding(
    "in cosine to the known velocity, "
    + ("by intervals over seeds" if several else "by one seed, without intervals")
    + ", SplicedVAE is\n\n"
    + "\n".join(
        f"- on {title} (its cosine: {scores.loc['SplicedVAE' + ending, 'cosine'].mean():.3f}): {against(ending)}."
        for title, ending in (("our simulated cells", ", simulated"), ("dyngen's", known))
        if "SplicedVAE" + ending in models
    ),
    profile,
    kept=f"Where the velocity is known (our simulation), SplicedVAE's cosine is {against(', simulated')}.",
)

# %% [markdown]
# :::{exercise} Add a method
# :label: ex-peers
# A method is a function that takes a task and gives velocities of `task.cells`. Write one that moves
# every cell towards the mean of all cells, and score it on the cells above. Which of the scores does
# it do well in, and why?
# :::
#
# :::{solution} ex-peers
# :class: dropdown
# ```python
# from splicedvae.velocity.metrics import EDGES
# from splicedvae.velocity.peers.table import Task, expression, score
#
# def inwards(task):
#     x = expression(task.cells)
#     return x.mean(0) - x
#
# rows = score(cells, Task(cells.test, cells.train), {"inwards": inwards}, EDGES, progress=False)
# pd.DataFrame(rows).T[["cosine", "accuracy", "cbdir", "coherence"]]
# ```
# Coherence is high, since neighbours lie on the same side of the mean. The cosine shows that it is
# no velocity.
# :::
#
# ## What we found

# %% tags=["remove-input"]
lab.profiles.what_we_found(profile)

# %% [markdown]
# Methods without the two counts give smooth arrows, and where they are told the root the arrows
# cross the borders of cell types in the known order. That is worth having, and it is pseudotime.
# What a gene does next in a cell is another question. On real cells, what answers it here has seen
# molecules before and after splicing, in these cells or in others. Where nothing but the programme
# of the cells moves the genes, as in our simulator, order alone tells much of it: look at the drift
# along pseudotime in that table. If you have a method that says
# otherwise, `python -m splicedvae.velocity.peers` puts it into this table with one function.
#
# ## Three questions
#
# :::{dropdown} 1. A method is told the root. What does its name have to say?
# That it was told. Arrows that start at a given root cross the known borders in the known order for
# that reason alone.
# :::
#
# :::{dropdown} 2. Why can a pseudotime have more CBDir than the true velocity?
# CBDir asks whether arrows cross the borders of known types. A pseudotime is made along them, and
# the true velocity has noise.
# :::
#
# :::{dropdown} 3. A direction comes out reversed in half of the runs. May one turn it by hand?
# One may, if the table shows both, before and after, over all seeds.
# :::
