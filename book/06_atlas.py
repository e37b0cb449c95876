# %% [markdown]
# # Do ten million cells teach a model about the next one?
#
# A {term}`head` that was trained on one tissue has seen one set of programmes. The paper's answer
# is size. It goes to scBaseCount {cite:p}`Youngblut2025`, which holds hundreds of millions of cells
# of the Sequence Read Archive. All were counted anew with one pipeline that keeps spliced and
# unspliced molecules apart. From 78 tissues it draws about ten million cells, more evenly than they
# come {cite:p}`SplicedVAE2026`. Whether the model then knows anything about a tissue that was *not*
# among them, it leaves open. Do ten million cells teach a model about the next one?
#
# This chapter builds the road to ten million cells in four steps, each of which runs on a laptop: a
# catalogue, a plan, a store, a stream. Then it asks the open question, on real cells as far as one
# tissue can answer it and on a simulated corpus for the rest, and says what ten million would cost.
#
# :::{admonition} In this chapter
# :class: tip
# - You will plan, build and stream a corpus that does not fit into memory.
# - You will foretell what ten million cells cost before a machine is booked.
# - You will see what a model knows of cells unlike those it has seen.
# - You need {doc}`chapter 3 <03_training>`.
# :::

# %% tags=["parameters"]
profile = "auto"  # type: str (auto: standard if its results are published, else smoke; smoke: a first look; standard, full: figures)
results = "_build/results"  # type: str (folder of the runs that are made once)

# %% tags=["remove-stderr"]
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

import splicedvae as sv
import splicedvae_book as lab

lab.profiles.quiet()
lab.plots.use_style()
profile = lab.published.choose(profile, results, "generalisation", "modality", "scale")
real = lab.profiles.load(profile)
lab.profiles.banner(real, profile)
scratch = tempfile.TemporaryDirectory()
root = Path(scratch.name)

# %% [markdown]
# :::{important}
# The {term}`atlas` on this page is **simulated**. scBaseCount lies in a bucket whose readers pay
# for what they take, so a page that anybody can build does not touch it. The next cell writes a
# small corpus in the files, folders and columns of scBaseCount, from the simulator of {doc}`chapter
# 1 <01_data>`. It has several tissues, protocols and organisms, and a few {term}`samples <sample>`
# that are broken on purpose. The same code reads the bucket when it is given
# `gs://arc-institute-virtual-cell-atlas/scbasecount/2026-01-12` and a project to bill. The real
# cells of the banner come in once, where cell types are left out.
# :::

# %% tags=["remove-stderr"]
n_cells, n_genes = {"smoke": (4_000, 100)}.get(profile, (20_000, 400))
size = n_cells // 40  # of a sample
truth = lab.corpus.corpus(root / "corpus", n_cells, n_genes, sample_cells=size)
files = [str(file.relative_to(root / "corpus")) for file in root.rglob("*.*")]
pd.Series(files).str.replace(r"SRX\d+", "SRX…", regex=True).drop_duplicates().tolist()

# %% [markdown]
# ## What there is
#
# Two tables describe an atlas: one with a line per sample, which fits into memory, and one with a
# line per cell, which with half a billion lines does not. The catalogue reads the first and streams
# the second. The filters are the paper's: one organism, 10x 3' or 5' libraries, and samples with
# more than 3,000 cells (here 50: the corpus is small). Each rule says what it costs.
#
# :::{margin} Biology
# **Protocols.** The common droplet kits read each transcript from one end only, its 3' or its 5'
# end, and meet an intron by chance. How often depends on the kit, so the unspliced share of a gene
# shifts from kit to kit, in all cells at once, whatever the cells are doing.
# :::

# %%
catalogue = sv.atlas.Catalogue.read(root / "corpus")
chosen = catalogue.select("Homo sapiens", min_cells=50)

# %% [markdown]
# Tissue is free text, whatever a submitter wrote. A table that comes with the package maps text to
# tissues, piece by piece where there are commas; pieces that disagree are "multiple", unknown ones
# "unmapped". Nothing is guessed, and everything can be looked at and replaced:

# %%
chosen.tissues().head(8)

# %% [markdown]
# ## Which cells
#
# Take ten million cells at random, and a few large tissues give most of them.
# {term}`Weighted round robin <weighted round robin>` deals the cells out instead: a tissue with $N$
# cells gets turns in proportion to $N^\alpha$ (an exponent, by the paper's letter; the
# transcription rate of {doc}`chapter 1 <01_data>` plays no part here). With $\alpha = 1$ nothing
# changes, with $\alpha = 0$ all tissues get the same; the paper takes $\alpha = 0.5$. A tissue that
# has no more cells drops out and leaves its turns to the others. Within a tissue the samples take
# turns alike, so no single large sample fills it.
#
# The plan below is for the real size: 35,263 human samples. Their cells and tissues are simulated
# from a skewed distribution, because the real metadata are not ours to ship.

# %% tags=["remove-stderr"]
metadata = lab.scale.metadata(35_263, n_cells=290_000_000)
plans = {alpha: sv.atlas.sampling_plan(metadata, 10_000_000, alpha) for alpha in (1.0, 0.5, 0.0)}

# %% mystnb={"image": {"alt": "Share of the cells of 78 simulated tissues, on a logarithmic axis, from the largest to the smallest: a steep line without weighting, a flatter one with α = 0.5, a level one with α = 0."}, "figure": {"caption": "The smaller α, the more even the corpus: each line is the share of 78 tissues (simulated metadata), largest first, in a plan for ten million cells.", "name": "fig-shares"}} tags=["hide-input"]
shares = pd.DataFrame(
    {f"α = {a:g}": sv.atlas.balance(metadata, plan)["share_after"] for a, plan in plans.items()}
)
ax = lab.plots.shares_by_rank(shares)
ax.legend(title="simulated metadata")
plt.show()

# %% tags=["remove-input"]
half = plans[0.5]
before, after = (100 * shares[f"α = {a}"].iloc[0] for a in ("1", "0.5"))
lab.profiles.finding(
    f"with α = 0.5 the largest of {len(shares)} tissues goes from {before:.0f} % to {after:.1f} % of the "
    f"cells, the smallest from {100 * shares['α = 1'].iloc[-1]:.2f} % to "
    f"{100 * shares['α = 0.5'].iloc[-1]:.2f} %. The ten million come from {len(half):,} of "
    f"{len(metadata):,} samples, a median of {half['n_take'].median():.0f} cells from each: a balanced "
    f"corpus reads nearly every file of the atlas to keep "
    f"{100 * half['n_take'].sum() / metadata['n_cells'].sum():.1f} % of its cells. (Metadata simulated.)",
    profile,
    kept=f"A balanced plan takes the largest tissue from {before:.0f} % to {after:.1f} % of the cells, and reads {len(half):,} of {len(metadata):,} samples.",
)

# %% [markdown]
# The number of files that a plan opens decides the bill, further down.
#
# A plan is a table, one line per sample: how many cells, and the seed of the order in which its
# cells are drawn. It can be read, saved, and cut into training and test parts. The cut is by
# {term}`dataset`, never by cell: cells of one laboratory on both sides would test memory. (A
# dataset is a collection where the metadata name one, else a single sample: what else belongs
# together, they do not say, so two samples of one study can still be on two sides.)
#
# :::{margin} Biology
# **Batch effects.** Each laboratory, donor, kit and day (a {term}`batch`) leaves a mark on its
# cells, often larger than the difference between cell types. A model may learn the mark in place of
# the biology, and only cells from elsewhere give it away.
# :::

# %%
n_chosen = chosen.samples["n_cells"].sum() * 2 // 3
plan = sv.atlas.sampling_plan(chosen.samples, n_chosen, alpha=0.5)
plan = sv.atlas.split(plan, by="dataset", test=0.2, val=0.1)
plan.groupby("part")[["n_take"]].sum()

# %% [markdown]
# ## A store that survives
#
# Thousands of compressed files in as many gene orders cannot feed a training loop. So each is read,
# in row blocks, and its planned cells go into a sharded zarr store with one list of genes: spliced
# counts in the left half of the columns, unspliced in the right. (In a Velocyto file of scBaseCount
# `X` holds the *spliced* counts; the total has to be summed.) What is wrong with a sample is found
# here, and written down:

# %% tags=["remove-stderr"]
genes = lab.corpus.orthologues(n_genes)["Homo sapiens"].drop_duplicates()
settings = {"shard_cells": 4096, "progress": False}
store = sv.atlas.build_store(plan, root / "store", genes, **settings)
left = store.manifest[store.manifest["skipped"] != ""]
why = left.set_index("sample")["skipped"].str.partition(" (")[0]
why.to_frame("left out because")

# %% [markdown]
# A {term}`shard` is made in a temporary folder, renamed when it is whole, and counts as made once
# its manifest with its checksums stands beside it. Kill the build at any moment, run the same line
# again, and it goes on; the tests do this with `kill -9`. Nothing is shared between shards, so a
# cluster builds them side by side, `--shard i/n` on each machine:
#
# ```{literalinclude} slurm/build.sbatch
# :language: bash
# ```
#
# ## A stream that is random enough
#
# A disk likes to read consecutive rows, and training likes to have none of them together. The
# compromise: cells are shuffled within a shard when it is written; then {term}`blocks <block>` of
# 256 rows are drawn at random from the whole store, 32 at a time, and their cells are shuffled
# again. How much randomness that buys can be measured: the entropy of the tissues in a
# {term}`minibatch`, $-\sum_t q_t \log q_t$ with the share $q_t$ of tissue $t$ among its cells,
# against minibatches drawn cell by cell. (The corpus is small: here a block has 64 rows, a
# minibatch 64 cells.)
#
# :::{margin} Machine learning
# **Why random?** A step along the gradient of a minibatch is right on average if the minibatch
# looks like the whole. One of liver alone pulls all weights towards liver, and the next one, of
# brain, pulls them back.
# :::

# %% tags=["remove-stderr"]
settings["shard_cells"] = 256
small = sv.atlas.build_store(plan, root / "small", genes, **settings)
stores, mixed = {"shards of 4,096 cells": store, "shards of 256 cells": small}, {}
for name, place in stores.items():
    for n in (1, 2, 4, 8, 16, 32):
        sizes = {"batch_size": 64, "block": 64, "preload": n}
        datamodule = sv.atlas.AtlasDataModule(place, **sizes)
        mixed[name, n] = sv.atlas.minibatch_entropy(datamodule)
mixed = pd.DataFrame(mixed).T
ideal = mixed["ideal"].mean()
mixed = pd.DataFrame({name: mixed.loc[name, "minibatches"] for name in stores})

# %% mystnb={"image": {"alt": "Mean entropy of tissues in a minibatch against the number of blocks read together, 1 to 32, with a dashed line for cells drawn at random: from shards of 4,096 cells the curve starts near the line, from shards of 256 cells it starts low and rises to it."}, "figure": {"caption": "The more blocks are read together, the nearer a minibatch comes to cells drawn at random; shuffling within large shards does part of the work beforehand. (Simulated corpus.)", "name": "fig-mixing"}} tags=["hide-input"]
ax = lab.plots.mixing(mixed, ideal)
ax.set_title("simulated corpus")
ax.legend(loc="lower right")
plt.show()

# %% tags=["remove-input"]
reached = 100 * mixed / ideal
lab.profiles.finding(
    "of the entropy that cells drawn at random have, minibatches of one block have "
    + " and ".join(f"{reached[name].iloc[0]:.0f} % ({name})" for name in reached)
    + ", those of 32 blocks "
    + " and ".join(f"{reached[name].iloc[-1]:.1f} %" for name in reached)
    + ". What is not mixed on the disk has to be mixed in memory.",
    profile,
    kept="Minibatches of 32 blocks have "
    + " and ".join(f"{reached[name].iloc[-1]:.0f} % ({name})" for name in reached)
    + " of the entropy of cells drawn at random.",
)

# %% [markdown]
# Two engines read the blocks: [annbatch](https://annbatch.readthedocs.io) where Python is 3.12 or
# newer, else anndata; the same seed gives the same minibatches in both. The module says which it
# takes.
#
# ## Training, on one device or on many
#
# Lightning calls what feeds a model a {term}`data module`. It takes the place of the AnnData, and
# the rest is {doc}`chapter 3 <03_training>`: the same model, the same loss, the same history.
# Every training cell of the stream teaches the head, as it teaches the encoder. (Before the first
# step, the head takes the genes' means and {term}`principal components` from a sample of at most
# 20,000 cells.)

# %% tags=["remove-stderr"]
datamodule = sv.atlas.AtlasDataModule(store, batch_size=256)
model = sv.SplicedVAE(registry=datamodule.registry)
epochs = 3 if profile == "smoke" else 20
model.train(epochs, datamodule=datamodule, enable_progress_bar=False)

# %% mystnb={"image": {"alt": "Negative ELBO and RMSE of the ratios over the epochs of a training that is streamed from the store, for training and validation datasets."}, "figure": {"caption": "A training that is streamed is watched like one in memory ({numref}`fig-history`). The dashed lines are whole datasets that the training never saw. (Simulated corpus.)", "name": "fig-streamed"}} tags=["hide-input"]
fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.4))
lab.plots.history(model.history, "elbo", ax=axes[0])
lab.plots.history(model.history, "ratio_rmse", ax=axes[1])
fig.suptitle("simulated corpus, validation on other datasets")
plt.show()

# %% [markdown]
# `model.train(datamodule=…, devices=4, strategy="ddp_find_unused_parameters_true")` does the same
# on four devices. Every {term}`rank` reads its own cells; together they read each cell once per
# epoch. A {term}`checkpoint` every so many steps holds weights, optimiser and the place in the
# stream, so that a run whose machine dies goes on in mid-epoch, without a cell twice or one missed.
# From the command line:
#
# ```bash
# torchrun --nproc-per-node 4 -m splicedvae.atlas train STORE OUTPUT --devices 4
# ```
#
# and for a cluster:
#
# ```{literalinclude} slurm/train.sbatch
# :language: bash
# ```
#
# ## What is left out
#
# Now the question. Leave a group of cells out, train on all the others, and predict ratios for the
# group. What can be known about new cells from elsewhere? In the figures, *elsewhere* is what was
# trained without the group, *there* what was trained on cells of it. Beside the model stand, from elsewhere,
# the {term}`gene mean`, over which {term}`D²` is counted, a {term}`ridge <ridge penalty>` and the
# *hierarchical regression* (`sv.baselines.HierarchicalBinomial`, the head without its network).
# From some of the *new* cells (300 in the published book) come another gene mean, both regressions
# and a model. Such a mean knows what the group has in common and nothing about a cell. Last comes
# the model from elsewhere, fine-tuned on the new cells. Both trainings on new cells have the same
# number of updates of the weights, and keep a fifth of these cells to check on. The cells that are
# scored are others.
#
# :::{margin} Machine learning
# **Fine-tuning.** Training goes on from weights that were learnt elsewhere, on a few cells of the
# new kind. It starts near a good answer, so few cells do; given too many steps, it forgets what it
# knew.
# :::
#
# First the real cells, with a cell type of the pancreas left out at a time, genes chosen without
# it.

# %% tags=["remove-stderr"]
jobs = lab.generalisation.stage.run(real, profile, results)
rows = pd.DataFrame(
    row | {"kind": job["name"], "seed": f"seed {job['seed']}"}
    for job in jobs
    for row in job["rows"].values()
)
# a dot is a group, the mean of its seeds; one organism is left out, so there it is a seed
rows["unit"] = rows["group"].where(rows["kind"] != "organism", rows["seed"])
known = rows.groupby(["kind", "way", "unit"])[["d2", "within_gene_r", "rmse_observed"]].mean()
ways = [way for way in rows["way"].unique() if "ceiling" not in way]
roles = {"gene mean, elsewhere": "null", "gene mean, there": "null"}


def panel(kind: str, ax: plt.Axes) -> None:
    """D² of each way to know the cells left out, a dot per group."""
    lab.plots.scores_over_seeds(known.loc[kind], "d2", ways, roles, ax=ax)
    ax.set(xlabel="D² over the gene mean", title=f"{kind} left out")


def told(kind: str, a: str, b: str, score: str = "d2") -> str:
    """Mean over groups, and its difference with a 95 % interval, paired by group."""
    table = known.loc[kind]
    means = ", ".join(f"{way} {table.loc[way, score].mean():.4f}" for way in (a, b))
    return f"{means}: {lab.experiment.format_difference(table, a, b, score, 4)}"


# %% mystnb={"image": {"alt": "D² over the gene mean of other cell types, for real pancreas cells of types that training did not see: a dot per cell type for the gene mean, a ridge and a hierarchical regression from elsewhere and from new cells, and SplicedVAE from elsewhere, from new cells, and fine-tuned."}, "figure": {"caption": "A cell type that training did not see, a dot per type. Right of 0, more is known of its cells than the gene mean from elsewhere says; the second grey row is what their own gene mean would say.", "name": "fig-left-out"}} tags=["hide-input"]
fig, ax = plt.subplots(figsize=(6.8, 3.6))
panel("cell type", ax)
plt.show()

# %% tags=["remove-input"]
types = known.loc["cell type"].loc["SplicedVAE, elsewhere"]
lab.profiles.finding(
    f"{real.uns['provenance']['name']}, {len(types)} cell types left out in turn ({', '.join(types.index)}), "
    f"D²:\n\n- {told('cell type', 'SplicedVAE, elsewhere', 'gene mean, there')}."
    f"\n- {told('cell type', 'SplicedVAE, elsewhere', 'hierarchical regression, elsewhere')}."
    f"\n- {told('cell type', 'SplicedVAE, elsewhere', 'ridge, elsewhere')}."
    f"\n- {told('cell type', 'SplicedVAE, elsewhere', 'SplicedVAE, there')}."
    f"\n- {told('cell type', 'SplicedVAE, fine-tuned', 'SplicedVAE, elsewhere')}."
    f"\n\nAnd the within-gene r, which no mean can have: "
    f"{told('cell type', 'SplicedVAE, elsewhere', 'SplicedVAE, there', 'within_gene_r')}; "
    f"{told('cell type', 'SplicedVAE, fine-tuned', 'SplicedVAE, elsewhere', 'within_gene_r')}.",
    profile,
    kept="A cell type left out, D²: "
    + told("cell type", "SplicedVAE, elsewhere", "gene mean, there")
    + ".",
)

# %% [markdown]
# Cell types of one tissue share a laboratory and a day. Between datasets, tissues and organisms
# more changes at once. Other cells are there, and a protocol also sees more or less of the
# unspliced RNA. That shifts the ratio of every gene and has nothing to do with biology. In the
# simulated corpus both are known. Its tissues have the genes' own kinetics in common and nothing of
# the programmes; its datasets and protocols differ in the capture of each gene; its second organism
# has {term}`orthologues` with captures of their own. The new cells that may be learnt from come
# from half of the group's samples, the cells that are tested from the other half, all of one
# protocol. (The regressions and the gene means from elsewhere learn from at most
# `lab.generalisation.IN_MEMORY` cells, the model from all.)

# %% mystnb={"image": {"alt": "Three panels of D² over the gene mean from elsewhere, on a simulated corpus: a dataset, a tissue and an organism left out. Dots for means, regressions and SplicedVAE from elsewhere, from new cells, and fine-tuned."}, "figure": {"caption": "Datasets, tissues and an organism that training did not see, in the same ways. A dot is a group, and in the last panel a seed. What the group's own gene mean gains (second grey row) is a shift of whole genes from group to group; compare the orange rows with it. (Simulated corpus.)", "name": "fig-groups"}} tags=["hide-input"]
fig, axes = plt.subplots(1, 3, figsize=(9, 3.4), sharey=True)
for ax, kind in zip(axes, ("dataset", "tissue", "organism"), strict=True):
    panel(kind, ax)
fig.suptitle("simulated corpus")
plt.show()

# %% tags=["remove-input"]
lab.profiles.finding(
    "simulated corpus, D²:\n\n"
    + "\n".join(
        f"- {kind} left out ({known.loc[kind].loc[ways[0]].shape[0]} {'seeds' if kind == 'organism' else 'in turn'}): "
        f"{told(kind, 'SplicedVAE, elsewhere', 'gene mean, there')}; "
        f"{told(kind, 'SplicedVAE, fine-tuned', 'gene mean, there')}; within-gene r: "
        f"{told(kind, 'SplicedVAE, elsewhere', 'SplicedVAE, there', 'within_gene_r')}."
        for kind in ("dataset", "tissue", "organism")
    ),
    profile,
)

# %% [markdown]
# :::{exercise} A shift, or a difference between cells?
# :label: ex-shift
# D² mixes two things: where the means of the genes lie in the new group, and which of its cells are
# above them. Set the three ways beside each other that know the first, the second and both. For
# which kind of group is the shift the larger part? Which score does not see it at all, and why?
# :::
#
# :::{solution} ex-shift
# :class: dropdown
# ```python
# three = ["gene mean, there", "SplicedVAE, elsewhere", "SplicedVAE, fine-tuned"]
# kinds = {s: known[s].unstack("way").groupby("kind")[three].mean() for s in ("d2", "within_gene_r")}
# pd.concat(kinds)
# ```
# Where the first column of D² is far above the second, most of what was missing is one number per
# gene, and a few cells of the new kind give it. Within-gene r does not see it: a constant added to
# a gene's prediction leaves the correlation over its cells as it is, so there the gene mean has 0
# wherever it is from.
# :::
#
# ## What if chromatin was measured too?
#
# An atlas holds more than counts. The paper ends with the wish to "incorporate multimodal data",
# and in a {term}`multiome` the same cell tells which chromatin is open. Chromatin moves before
# transcription does, so it may say which way a gene is going. We have no such cells with spliced
# and unspliced counts, so what follows is **simulated**: by the kinetics of MultiVelo
# {cite:p}`LiWelch2023`, each gene's chromatin opens and closes at rates of its own, and transcription
# follows.
#
# What could chromatin tell that the counts of all genes do not? Think of two cells at the same place
# of the programme. Their latents are alike, and so is what the programme has opened in them. But
# genes are transcribed in bursts, and a burst is of one gene in one cell: no other gene tells of it.
# If the burst shows in the gene's chromatin, chromatin is news.
#
# So there are four cases. In the first, half of each burst shows in the chromatin. In the second
# too, but chromatin is counted ten times as sparsely. In the third, chromatin follows the programme
# alone. In the fourth it does so too late. Each case has five models: without chromatin, with it,
# with it in the encoder too, with that of other cells (the {term}`null`), and with half of the cells
# measured.

# %% tags=["remove-stderr"]
opened = lab.experiment.table(lab.modality.stage.run(real, profile, results))
shown = opened[["d2", "within_gene_r", "cosine"]].groupby("model", sort=False).mean()
shown.round(4)


# %% tags=["remove-input"]
def chromatin(case: str, what: str, score: str) -> str:
    """A model that reads chromatin minus the one that does not."""
    names = (f"{case}: {kind}" for kind in (what, lab.modality.WITHOUT))
    return lab.experiment.format_difference(opened, *names, score, 4)


lab.profiles.finding(
    "what chromatin adds, simulated cells.\n\n"
    + "\n".join(
        f"- {case}: {chromatin(case, lab.modality.WITH, 'd2')} in D², "
        f"{chromatin(case, lab.modality.WITH, 'cosine')} in the cosine to the true velocity; "
        f"encoded too, {chromatin(case, lab.modality.ENCODED, 'd2')} in D²; "
        f"measured in half of the cells, {chromatin(case, lab.modality.HALF, 'd2')} in D²; "
        f"of other cells, {chromatin(case, lab.modality.PERMUTED, 'd2')} in D² and "
        f"{chromatin(case, lab.modality.PERMUTED, 'cosine')} in the cosine."
        for case in lab.modality.CASES
    ),
    profile,
    kept="On simulated cells, chromatin adds "
    + chromatin(lab.modality.BURSTS, lab.modality.WITH, "d2")
    + " to D² if bursts show in it, and "
    + chromatin(lab.modality.PROGRAMME, lab.modality.WITH, "d2")
    + " if it follows the programme alone.",
)

# %% [markdown]
# So the question for a real multiome is not whether chromatin comes first. It is whether a gene's
# chromatin differs between cells that are alike in everything else.
#
# A real test would need nuclei with both modalities, counted with introns, and a table of open
# chromatin by gene, such as the gene activities of `muon` or `snapatac2`. The rest is here.
# `sv.data.add_modality` brings such a table to the cells and genes of the counts by their names,
# and `sv.data.read` does so for both parts of an `h5mu` file:
#
# ```python
# adata = sv.data.read("velocyto/sample.loom")
# sv.data.add_modality(adata, activity)  # cells × genes, from snapatac2.pp.make_gene_matrix
# sv.SplicedVAE.setup_anndata(adata, modality_layer="chromatin")
# ```
#
# ## What ten million cost
#
# Before a cluster is booked, somebody asks for a number. The runs below build a store, stream it
# and train one {term}`epoch` at three sizes, each in a process of its own, on the machine that
# built this page. (The published book goes up to a million cells, the other {term}`profiles
# <profile>` to fewer.) A straight line through the two smaller sizes predicts the largest, which it
# has not seen; where it is right, it may be asked about ten million. Memory should grow far
# less than the corpus: that is what the blocks are for, and what still grows is the list of the cells. Each size takes whole samples, as few as hold its
# cells, since a build takes as long as the files that it reads; a plan that takes little of each
# takes longer.

# %% tags=["remove-stderr"]
sizes = lab.scale.stage.run(real, profile, results)[0]["rows"]
sizes = pd.DataFrame(sizes).T.set_index("cells", drop=False).rename_axis(None)
largest = int(sizes["cells"].max())
ask = [*sizes["cells"].astype(int), 10_000_000]
model_of_cost = lab.scale.cost_model(sizes, ask)

# %% mystnb={"image": {"alt": "Seconds to build a store, to stream it and to train one epoch against the number of cells, on logarithmic axes: measured runs of three sizes, and a line through the two smaller that goes on to ten million cells."}, "figure": {"caption": "Each step costs so much per cell and a little to begin with. The line knows the two round dots; how far the square lies from it is how much to trust it at ten million.", "name": "fig-cost"}} tags=["hide-input"]
fig, axes = plt.subplots(1, 3, figsize=(9, 3), sharey=True)
for ax, step in zip(axes, lab.scale.STEPS, strict=True):
    lab.plots.extrapolation(sizes[f"{step}_s"], model_of_cost[f"{step}_s"], len(sizes) - 1, ax=ax)
    ax.set_title(step)
axes[0].set_ylabel("seconds")
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
plt.show()

# %% tags=["hide-input"]
names = {
    "build_s": "building the store in one process, cells/s",
    "stream_s": "streaming it, cells/s",
    "train_s": "training an epoch, cells/s",
    "disk": "store, KB per cell",
    "egress": "files read, KB per cell",
}
table = pd.DataFrame(
    {
        f"{int(n):,}": [
            n / sizes.loc[n, c] if c.endswith("_s") else 1e6 * sizes.loc[n, c] / n for c in names
        ]
        for n in sizes.index
    },
    index=names.values(),
).round(1)
off = [model_of_cost.loc[largest, c] / sizes.loc[largest, c] - 1 for c in names]
table.loc["peak memory, GiB"] = sizes["gib"].round(2).to_numpy()
table[f"prediction at {largest:,}, off by"] = [f"{100 * x:+.0f} %" for x in off] + ["–"]
table

# %% tags=["remove-input"]
big = model_of_cost.loc[10_000_000]
terabytes = len(half) * 90 / 1e6
lab.profiles.finding(
    f"from runs of up to {largest:,} cells: on this machine ten million cells of "
    f"{lab.scale.SETTINGS[profile]['genes']:,} genes would take {big['build_s'] / 3600:.1f} h to build in "
    f"one process, {big['stream_s'] / 60:.0f} min to stream once, {big['train_s'] / 3600:.1f} h of the "
    f"device for an epoch, and {big['disk']:.0f} GB of disk. The plan above touches {len(half):,} files. If "
    f"they have 90 MB, which is what files of one matrix have in the release of 2026 and too little for "
    f"the four of Velocyto, that is {terabytes:.1f} TB to fetch: {terabytes * 1000 * 0.12:,.0f} US dollars "
    "if a GB costs 0.12, which is an assumption, and nothing from a machine beside the bucket.",
    profile,
    kept=f"Ten million cells would take {big['build_s'] / 3600:.1f} h to build here in one process, and {big['train_s'] / 3600:.1f} h for an epoch.",
)

# %% [markdown]
# Hours of a GPU follow from its own rate: cells × epochs / (cells per second × 3600). Build the
# page on a GPU, and the figures above are that GPU's; the device is in the banner.
#
# :::{exercise} Fewer files
# :label: ex-fewer-files
# The balanced plan takes little from nearly every file. Draw, with `metadata.groupby("tissue")`,
# a tenth of each tissue's samples before planning, and plan ten million cells again. What does the
# corpus lose in balance, what does the bill lose, and what is lost that neither table shows?
# :::
#
# :::{solution} ex-fewer-files
# :class: dropdown
# ```python
# few = metadata.groupby("tissue").sample(frac=0.1, random_state=0)
# less = sv.atlas.sampling_plan(few, 10_000_000, alpha=0.5)
# sv.atlas.balance(few, less)["share_after"].head(), len(less)
# ```
# A tenth of the files is fetched, so the bill is a tenth. The shares change where a tissue now runs
# out of cells and leaves its turns to others. What no share shows is the number of laboratories.
# Ten times as many cells from each of a tenth of the samples are less independent, and what fails
# on a new dataset is exactly what a model learns from few.
# :::
#
# ## What we found

# %% tags=["remove-input"]
lab.profiles.what_we_found(profile)

# %% [markdown]
# The road to ten million cells is a matter of files: a plan that is a table, a store that survives,
# a stream that mixes well enough, a bill that can be foretold. Whether it leads anywhere is another
# question, and two scores answer it apart. {term}`Within-gene r <within-gene r>` asks which cell of
# a gene is more spliced than another; the first finding sets what was learnt from others beside what a
# few hundred cells of one's own can teach ({doc}`chapter 10 <10_tissues>` asks the same of real
# tissues). D² also asks where each gene's mean lies. There,
# a shift of whole genes from one group to the next can outweigh everything that is known about
# cells. Only cells of the new kind tell of it. Read the two findings above for how much of each
# there is in the data of this build.
#
# What of the paper has held so far? {doc}`Chapter 7 <07_scorecard>` takes stock, and chapters 8 to
# 10 go beyond it.
#
# ## Three questions
#
# :::{dropdown} 1. Why are cells read in blocks and not one by one?
# A disk and a bucket are fast with consecutive rows. Training wants no neighbours together. Many
# blocks mixed in memory give both.
# :::
#
# :::{dropdown} 2. What does within-gene r say of a new tissue that D² does not?
# Within-gene r asks which cells of a gene are more spliced than others. D² also asks where the
# gene's mean lies, and that may be another in a new tissue.
# :::
#
# :::{dropdown} 3. Why does a balanced corpus cost much to fetch?
# It takes few cells from nearly every file, and a file is fetched whole.
# :::
