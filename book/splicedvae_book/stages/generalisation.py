"""What a model knows of cells unlike those it has seen: a cell type, dataset, tissue, organism.

The real cells are one tissue, so only their cell types can be left out. Datasets, tissues and
organisms are those of the simulated corpus of :mod:`splicedvae_book.corpus`.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import scvi
from anndata import AnnData

from splicedvae import atlas, data
from splicedvae.atlas.blocks import BlockSampler, by_anndata
from splicedvae.model import SplicedVAE
from splicedvae.ratios import baselines

from .. import corpus
from ..profiles import PROFILES
from ..scorer import Scorer
from ..stage import Stage

#: ``groups``: how many are left out in turn; ``cells`` and ``genes`` of the simulated corpus;
#: ``epochs`` of a training on it; ``tuned``: cells of the new kind that a model may learn from, in
#: so many ``updates`` of the weights, whatever came before.
SETTINGS = {
    "smoke": {"groups": 1, "cells": 1500, "genes": 100, "epochs": 3, "tuned": 100, "updates": 60},
    "standard": {
        "groups": 2,
        "cells": 6000,
        "genes": 300,
        "epochs": 10,
        "tuned": 300,
        "updates": 300,
    },
    "full": {
        "groups": 5,
        "cells": 40_000,
        "genes": 500,
        "epochs": 20,
        "tuned": 300,
        "updates": 300,
    },
}
BATCH = 128  # cells in a minibatch, of every training here
NAMES = ("cell type", "dataset", "tissue", "organism")
#: Cells of the corpus, at most, that the baselines learn from: regressions want them in memory.
IN_MEMORY = 10_000


def run_job(adata: AnnData, profile: str, seed: int, name: str, folder: Path) -> dict:
    """Leave groups of cells out in turn, train on the others, score the cells left out.

    Parameters
    ----------
    adata
        From :func:`~splicedvae_book.profiles.load`; read for ``"cell type"``.
    profile
        A key of ``splicedvae_book.profiles.PROFILES``.
    seed
        Of splits, weights and minibatches.
    name
        One of ``NAMES``.
    folder
        For results; nothing is kept but these.

    Returns
    -------
    JSON-ready: ``rows`` of scores by group and model, such as ``"Beta: SplicedVAE"``, each with
    its ``group``, ``way`` and number of ``cells``.
    """
    left_out = _cell_types if name == "cell type" else _of_corpus
    rows = {}
    for group, scores in left_out(adata, profile, seed, name):
        for way, row in scores.items():
            rows[f"{group}: {way}"] = row | {"group": group, "way": way}
    return {"rows": rows}


stage = Stage(run_job, NAMES, ("d2", "within_gene_r"), settings=SETTINGS)


def _cell_types(adata: AnnData, profile: str, seed: int, name: str):
    """Yield each large cluster of the pancreas and the scores of its cells."""
    training, setting = PROFILES[profile].training, SETTINGS[profile]
    clusters, parts = adata.obs["clusters"].to_numpy(), data.split(adata, seed=seed)
    for group in adata.obs["clusters"].value_counts().index[: setting["groups"]]:
        there = clusters == group
        train, val = (part[~there[part]] for part in parts[:2])
        own = data.prepare(adata, n_top_genes=PROFILES[profile].n_top_genes, fit_on=train)
        new = np.random.default_rng(seed).permutation(np.flatnonzero(there))
        new, test = np.split(new, [min(setting["tuned"], len(new) // 2)])
        scvi.settings.seed = seed
        SplicedVAE.setup_anndata(own)
        model = SplicedVAE(own)
        model.train(**training, split=(train, val))
        yield group, compare(own, model, (train, val, new, test), seed, setting["updates"])


def compare(
    adata: AnnData, model: SplicedVAE, parts: tuple[np.ndarray, ...], seed: int, updates: int
) -> dict[str, dict[str, float]]:
    """Score what is known of new cells from elsewhere, from some of their own, and from both.

    Parameters
    ----------
    adata
        Prepared cells, set up for the model.
    model
        Of these cells; trained elsewhere, on the first part or on more cells like them. It is
        trained further here.
    parts
        Positions: train and val cells from elsewhere, cells of the new kind to learn from, test
        cells of the new kind.
    seed
        Of weights, minibatches and randomised scores.
    updates
        Of the weights, in each training here.

    Returns
    -------
    Reports, see :func:`splicedvae.metrics.ratio_report`, by way; D² is over the gene mean of the
    train cells. The number of ``cells`` tested, and of those ``learnt_from`` there: a mean takes
    all of them, other ways keep a fifth to check on.
    """
    train, val, new, test = parts
    tune, check = np.split(np.random.default_rng(seed).permutation(new), [round(0.8 * len(new))])
    query = adata[test]
    scorer = Scorer(adata, train, test, seed)
    ratios = {}
    for where, own, fitted, checked in (
        ("elsewhere", train, train, val),
        ("there", new, tune, check),
    ):
        mean = baselines.GeneMean().fit(adata[own], adata[own])
        ratios[f"gene mean, {where}"] = mean.predict(query)
        for way, baseline in (
            ("ridge", baselines.RidgeBinomial(seed=seed)),
            ("hierarchical regression", baselines.HierarchicalBinomial(seed=seed)),
        ):
            baseline.fit(adata[fitted], adata[checked])
            ratios[f"{way}, {where}"] = baseline.predict(query)
    args = {"indices": test, "return_numpy": True}
    ratios["SplicedVAE, elsewhere"] = model.get_splicing_ratio(**args)
    scvi.settings.seed = seed
    epochs = -(-updates // -(-len(tune) // BATCH))
    for title, learner in (("fine-tuned", model), ("there", SplicedVAE(adata))):
        learner.train(epochs, split=(tune, check), batch_size=BATCH, enable_progress_bar=False)
        ratios[f"SplicedVAE, {title}"] = learner.get_splicing_ratio(**args)
    rows = {way: scorer.report(ratio) for way, ratio in ratios.items()}
    rows |= {"ceiling": scorer.ceilings()["ceiling, bootstrap"]}
    return {way: row | {"cells": len(test), "learnt_from": len(new)} for way, row in rows.items()}


def _of_corpus(adata: AnnData, profile: str, seed: int, name: str):
    """Yield datasets, tissues or organisms of a simulated corpus and their cells' scores."""
    setting = SETTINGS[profile]
    with tempfile.TemporaryDirectory() as folder:
        store = _store(Path(folder), setting, seed)
        # what is learnt from and what is tested come from two samples of one protocol
        alike = store.samples.groupby([name, "tech", "cell_prep"])["n_stored"].agg(["size", "sum"])
        sizes = alike.loc[alike["size"] > 1, "sum"].groupby(name).sum()
        sizes = sizes.sort_values(ascending=False)
        groups = sizes.index[1:] if name == "organism" else sizes.index[: setting["groups"]]
        for group in groups:
            yield group, _left_out(store, Path(folder), setting, seed, name, group)


def _store(folder: Path, setting: dict, seed: int) -> atlas.Store:
    """A corpus of its own for each seed, all of its sound samples in a store."""
    corpus.corpus(folder / "corpus", setting["cells"], setting["genes"], flawed=False, seed=seed)
    catalogue = atlas.Catalogue.read(folder / "corpus").select(min_cells=0)
    samples = catalogue.samples
    plan = atlas.sampling_plan(samples, int(samples["n_cells"].sum()), alpha=1, seed=seed)
    genes = atlas.one_to_one(corpus.orthologues(setting["genes"]))
    return atlas.build_store(plan, folder / "store", genes, progress=False)


def _left_out(store: atlas.Store, folder: Path, setting: dict, seed: int, by: str, group: str):
    """Train on all samples but those of a group, and compare what is known of these."""
    parts = atlas.split(store.samples, by=by, test=[group], seed=seed)["part"]
    datamodule = atlas.AtlasDataModule(store, parts, batch_size=BATCH, seed=seed)
    scvi.settings.seed = seed
    model = SplicedVAE(registry=datamodule.registry)
    model.train(setting["epochs"], datamodule=datamodule, enable_progress_bar=False)
    rng, rows = np.random.default_rng(seed), datamodule.rows
    # of the new kind, samples of one protocol: half of them are known, in a few cells, half tested
    protocol = store.samples.groupby(["tech", "cell_prep"]).ngroup().to_numpy()
    sample = store.codes[rows["test"]]
    alike = np.unique(sample)
    alike = rng.permutation(alike[protocol[alike] == np.bincount(protocol[alike]).argmax()])
    known, tested = np.split(alike, [len(alike) // 2])
    new, test = (rng.permutation(rows["test"][np.isin(sample, part)]) for part in (known, tested))
    few = (rng.permutation(rows[part])[:IN_MEMORY] for part in ("train", "val"))
    chosen = *few, new[: setting["tuned"]], test[:IN_MEMORY]
    own = in_memory(store, np.concatenate(chosen))
    positions = np.split(np.arange(own.n_obs), np.cumsum([len(part) for part in chosen])[:-1])
    SplicedVAE.setup_anndata(own)
    model.save(str(folder / "model"), overwrite=True)
    model = SplicedVAE.load(str(folder / "model"), own)
    return compare(own, model, positions, seed, setting["updates"])


def in_memory(store: atlas.Store, rows: np.ndarray) -> AnnData:
    """Read some cells of a store.

    Parameters
    ----------
    store
        See :func:`splicedvae.atlas.store.build_store`.
    rows
        Positions of cells.

    Returns
    -------
    These cells in this order, with layers of counts, and in obs what is known of their samples.
    """
    sampler = BlockSampler(np.sort(rows), len(rows), shuffle=False)
    counts, _ = next(by_anndata(store, sampler))
    counts = counts[np.argsort(np.argsort(rows))]
    spliced, unspliced = counts[:, : len(store.genes)], counts[:, len(store.genes) :]
    layers = {"spliced": spliced, "unspliced": unspliced, "total": spliced + unspliced}
    obs = store.samples.iloc[store.codes[rows]].reset_index()
    obs.index = rows.astype(str)
    return AnnData(obs=obs, var=pd.DataFrame(index=store.genes), layers=layers)
