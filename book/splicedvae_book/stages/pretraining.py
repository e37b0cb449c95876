"""What pretraining is worth: SplicedVAE on few cells, from scratch and from a checkpoint.

The checkpoint is the paper's Census model if it was fetched before, by ``python -m
splicedvae.census fetch mus_musculus``: a build fetches none by itself, so that all its seeds have
the same. If it was not, and for simulated cells, this stage makes its own, in the same
architecture and file format, from the *total counts* of half of the training cells, and hands it
to the same code. That is a best case: the same tissue, the same laboratory.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import scvi
from anndata import AnnData
from scipy.special import xlog1py, xlogy

from splicedvae import census, data
from splicedvae.model import SplicedVAE
from splicedvae.training import kl_warmup

from ..profiles import PROFILES
from ..scorer import Scorer
from ..stage import Stage

NAMES = ("curves",)
#: The architecture of the Census models.
CENSUS = {"n_latent": 50, "n_hidden": 128, "n_layers": 2, "gene_likelihood": "nb"}
#: Training cells; the last is all that the pretraining has not seen.
SIZES = (100, 200, 500, None)
LEFT_OUT = {"standard": (500,)}  # of these, in a profile
#: The ways to start, of cells and a checkpoint: two at all sizes, the others at one.
STARTS = {
    "scratch": lambda cells, _: SplicedVAE(cells, **CENSUS),
    "pretrained": census.transplant,
}
VARIANTS = {
    "scratch, default size": lambda cells, _: SplicedVAE(cells),
    "pretrained, full rate": lambda cells, checkpoint: census.transplant(cells, checkpoint, 1.0),
    "pretrained, frozen": lambda cells, checkpoint: census.transplant(cells, checkpoint, 0.0),
}
VARIED = 200


def split(adata: AnnData, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Part the cells; those of the pretraining are half of what would be training cells.

    Parameters
    ----------
    adata
        From :func:`~splicedvae_book.profiles.load`.
    seed
        Of the split.

    Returns
    -------
    Positions for pretraining, of train, val and test cells, the second in random order.
    """
    train, val, test = data.split(adata, seed=seed)
    order = np.random.default_rng(seed).permutation(train)
    return np.sort(order[: len(order) // 2]), order[len(order) // 2 :], val, test


def made_up_ids(adata: AnnData) -> dict[str, str]:
    """Ids in the form of Ensembl's, by counting: a checkpoint knows its genes by such ids.

    Parameters
    ----------
    adata
        Cells × genes.

    Returns
    -------
    An id for each gene.
    """
    return {name: f"ENSMUSG{i:011d}" for i, name in enumerate(adata.var_names, start=1)}


def pretrain(adata: AnnData, cells: np.ndarray, profile: str, seed: int, path: Path) -> Path:
    """Train a plain scVI on total counts, and save it as the Census models are saved.

    Parameters
    ----------
    adata
        From :func:`~splicedvae_book.profiles.load`.
    cells
        Positions of the cells to train on.
    profile
        A key of ``splicedvae_book.profiles.PROFILES``.
    seed
        Of weights and minibatches.
    path
        Of the file, ``model.pt`` in a folder of its own.

    Returns
    -------
    The file.
    """
    setting, ids = PROFILES[profile], made_up_ids(adata)
    own = data.prepare(adata[cells], n_top_genes=setting.n_top_genes)
    own.var_names = [ids[name] for name in own.var_names]
    scvi.settings.seed = seed
    scvi.model.SCVI.setup_anndata(own, layer="total")
    model = scvi.model.SCVI(own, **CENSUS)
    plan = kl_warmup(setting.max_epochs) | {"lr": setting.lr}
    model.train(setting.max_epochs, plan_kwargs=plan, enable_progress_bar=False)
    model.save(str(path.parent), overwrite=True)
    return path


def _census(adata: AnnData, profile: str) -> tuple[census.Checkpoint, pd.Series] | None:
    """The paper's checkpoint, if somebody has fetched it, and ids for the genes' symbols."""
    if profile == "smoke" or adata.uns["provenance"]["simulated"]:
        return None
    known = census.releases().set_index(["release", "organism"])["cached"]
    if not known[census.DEFAULT_RELEASE, "mus_musculus"]:
        return None
    return census.read(census.fetch("mus_musculus")), census.symbols("mus_musculus")


def run_job(adata: AnnData, profile: str, seed: int, name: str, folder: Path) -> dict:
    """Pretrain, then train on more and more other cells from scratch and from the checkpoint.

    Parameters
    ----------
    adata
        From :func:`~splicedvae_book.profiles.load`.
    profile
        A key of ``splicedvae_book.profiles.PROFILES``.
    seed
        Of split, weights and minibatches.
    name
        ``"curves"``, the only one.
    folder
        For the checkpoint.

    Returns
    -------
    JSON-ready: ``rows`` of test scores by start and number of cells, such as ``"scratch, 200"``;
    ``curves`` of validation scores by epoch under the same names; the ``overlap`` of the genes;
    which ``checkpoint`` it was.
    """
    before, train, val, test = split(adata, seed)
    fetched = _census(adata, profile)
    if fetched is None:
        ids, origin, files = made_up_ids(adata), "the build's own", [f"{seed}-pretrained/model.pt"]
        checkpoint = census.read(pretrain(adata, before, profile, seed, folder / files[0]).parent)
    else:
        checkpoint, ids = fetched
        origin, files = f"Census, {census.DEFAULT_RELEASE}", []
        train = np.concatenate([train, before])
    setting, rows, curves = PROFILES[profile], {}, {}
    # genes and gene mean are the same for all sizes: else neither ELBO nor D² could be compared
    own = data.prepare(adata, n_top_genes=setting.n_top_genes, fit_on=train)
    matched = census.match(own, checkpoint.genes, ids)
    SplicedVAE.setup_anndata(matched)
    scorer = Scorer(matched, train, test, seed)
    for size in SIZES:
        cells = train[:size]
        if size in LEFT_OUT.get(profile, ()) or (size is not None and 1.5 * size > len(train)):
            continue  # a thinned run
        times = min(2, len(train) / len(cells))
        length = round(setting.max_epochs * times)
        for start, make in (STARTS | (VARIANTS if size == VARIED else {})).items():
            scvi.settings.seed = seed
            model = make(matched, checkpoint)
            begin = time.perf_counter()
            model.train(**setting.training | {"max_epochs": length}, split=(cells, val))
            key = f"{start}, {len(cells)}"
            seconds = time.perf_counter() - begin
            curves[key] = _curves(model, scorer.mean, val) | {"seconds": seconds}
            rows[key] = scorer.report(model.get_splicing_ratio(indices=test, return_numpy=True))
            rows[key]["elbo"] = float(model.get_elbo(indices=test, return_mean=True))
            rows[key] |= {"start": start, "cells": len(cells), "epochs": length}
    found = census.overlap(own, checkpoint.genes, ids).table.to_dict()
    return {
        "files": files,
        "checkpoint": origin,
        "rows": rows,
        "curves": curves,
        "overlap": found,
    }


stage = Stage(run_job, NAMES, ("d2", "within_gene_r", "elbo"))


def _curves(model: SplicedVAE, mean: np.ndarray, val: np.ndarray) -> dict[str, list[float]]:
    """ELBO and D² of the validation cells by epoch."""
    s, u = (model.adata.layers[layer][val].toarray() for layer in ("spliced", "unspliced"))
    ratio = s / np.maximum(s + u, 1)
    best, worst = (-(xlogy(s, p) + xlog1py(u, -p)).sum() / len(val) for p in (ratio, mean))
    history = {k: v.iloc[:, 0].to_numpy(float) for k, v in model.history.items()}
    d2 = 1 - (history["ratio_nll_validation"] - best) / (worst - best)
    return {"elbo": (-history["elbo_validation"]).tolist(), "d2": d2.tolist()}
