"""What a model knows of a tissue that it has never seen, on real cells of the same 200 genes.

A model learns from one or two sets of :func:`splicedvae.data.tissues` and predicts the cells of
another, beside a model of the target's own cells. A gene's mean ratio differs between tissues, so
``d2``, over the gene means of the source, mixes two questions. ``within_gene_r`` and
``d2_offset_free`` ask only the second: how do ratios differ between cells? For the latter each
gene's intercept is set on a fifth of the target's cells, and the baseline is the target's own gene
means, from all cells that are not tested. Where the sets could not be had, simulated ones take
their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scvi
from anndata import AnnData
from scipy.special import expit, logit

from splicedvae import data
from splicedvae.counts import missing_form
from splicedvae.model import SplicedVAE
from splicedvae.ratios import baselines, metrics
from splicedvae.ratios._entries import clipped
from splicedvae.ratios.ceilings import fit_concentration
from splicedvae.ratios.regression import gene_offsets

from ..stage import Stage

FORMS = "spliced", "unspliced"
BRAIN, CORTEX_B, CORTEX_C = "brain_e18", "cortex_b01", "cortex_c01"
SETS = (BRAIN, CORTEX_B, CORTEX_C)
#: What is learnt from; each is tried on the sets that are not in it.
SOURCES = ((CORTEX_B,), (CORTEX_C,), (BRAIN,), (CORTEX_B, CORTEX_C), (BRAIN, CORTEX_B))
TARGETS = BRAIN, CORTEX_C  # whose own cells are learnt from too
FROM, OWN = "from ", "own cells of "
NAMES = (*(FROM + " + ".join(s) for s in SOURCES), *(OWN + name for name in TARGETS))
VALIDATE = 0.15  # of the cells of the sources
CALIBRATED = (20, 50, 200)  # cells of the target whose spliced and unspliced counts are known
WITH_BATCH = ", library as batch"
#: ``cells`` of each set, at most; whether a model is also told the library (``batch``); ``curve``:
#: training cells of the target, beside all of them; ``epochs`` of each training, as many as in full
#: also in standard, since these sets are small.
SETTINGS = {
    "smoke": {"cells": 150, "batch": False, "curve": (), "epochs": 5},
    "standard": {"cells": None, "batch": False, "curve": (100, 500), "epochs": 150},
    "full": {"cells": None, "batch": True, "curve": (100, 250, 500), "epochs": 150},
}


def run_job(adata: AnnData | None, profile: str, seed: int, name: str, folder: Path) -> dict:
    """Learn from some sets and predict the test cells of others, or from a target's own cells.

    Parameters
    ----------
    adata, folder
        Not read: the sets are :func:`splicedvae.data.tissues`.
    profile
        A key of ``splicedvae_book.profiles.PROFILES``.
    seed
        Of splits, weights and minibatches.
    name
        One of ``NAMES``.

    Returns
    -------
    JSON-ready: ``rows`` of scores, named by target and way, each with ``target``, ``way``, number
    of ``sources`` and of ``cells`` of the target that were learnt from; and whether the cells are
    ``simulated``.
    """
    setting = SETTINGS[profile]
    sets = {k: _thinned(v, setting["cells"]) for k, v in data.tissues().items()}
    simulated = any(cells.uns["provenance"]["simulated"] for cells in sets.values())
    epochs = setting["epochs"]
    if name.startswith(OWN):
        target = name.removeprefix(OWN)
        rows = _own(sets[target], target, epochs, seed, setting["curve"])
    else:
        sources = tuple(name.removeprefix(FROM).split(" + "))
        rows = _elsewhere(sets, sources, epochs, seed, setting["batch"])
    return {"rows": rows, "simulated": simulated}


stage = Stage(run_job, NAMES, ("d2", "d2_offset_free", "within_gene_r"), settings=SETTINGS)


def _thinned(cells: AnnData, n_obs: int | None) -> AnnData:
    """The first cells of a set that have both forms, with totals."""
    both = missing_form(*(cells.layers[form] for form in FORMS)) == ""
    cells = cells[np.flatnonzero(both)[:n_obs]].copy()
    cells.layers["total"] = cells.layers["spliced"] + cells.layers["unspliced"]
    return cells


class Target:
    """The target's test cells, and the cells on which intercepts are set.

    Parameters
    ----------
    cells
        All cells of the target.
    seed
        Of the split.
    """

    def __init__(self, cells: AnnData, seed: int):
        self.parts = data.split(cells, seed=seed, stratify_by=None)
        rest = np.random.default_rng(seed).permutation(np.concatenate(self.parts[:2]))
        self.test, self.rest = cells[self.parts[2]].copy(), cells[rest].copy()
        self.fifth = self.rest[: round(0.2 * cells.n_obs)].copy()
        self.own_mean = _mean(self.rest)
        self.genes = metrics.within_gene_list(self.rest.layers["total"], self.test.layers["total"])
        self.genes = self.genes if self.genes.any() else None  # a thinned run

    def scores(self, test: np.ndarray, fifth: np.ndarray, mean: np.ndarray) -> dict[str, float]:
        """Score ratios of the test cells.

        Parameters
        ----------
        test, fifth
            Predicted ratios (cells, genes).
        mean
            Gene means that whoever predicts has (genes,).

        Returns
        -------
        ``d2`` over these means, ``d2_own_mean`` over the target's own, ``d2_offset_free``,
        ``within_gene_r``.
        """
        counts = [self.test.layers[form] for form in FORMS]
        report = metrics.ratio_report(*counts, test, mean, genes=self.genes)
        over_own = metrics.ratio_report(*counts, test, self.own_mean, genes=self.genes)
        shifted = expit(logit(clipped(test)) + offsets(self.fifth, fifth)[0])
        free = metrics.ratio_report(*counts, shifted, self.own_mean, genes=self.genes)
        return {
            "d2": report["d2"],
            "d2_own_mean": over_own["d2"],
            "d2_offset_free": free["d2"],
            "within_gene_r": report["within_gene_r"],
        }


def offsets(cells: AnnData, ratio: np.ndarray) -> tuple[np.ndarray, float]:
    """What :meth:`splicedvae.SplicedVAE.calibrate` would move each gene's logit by.

    Parameters
    ----------
    cells
        With spliced and unspliced counts.
    ratio
        Predicted for them, (cells, genes).

    Returns
    -------
    Offsets (genes,), and the width of their prior.
    """
    spliced, unspliced = (cells.layers[form].toarray().astype(np.float64) for form in FORMS)
    c = fit_concentration(*(cells.layers[form] for form in FORMS), ratio.mean(0))
    weight = (c + 1) / (c + spliced + unspliced)
    total = (spliced + unspliced) * weight
    offset, _, _, width = gene_offsets(logit(clipped(ratio)), spliced * weight, total)
    return offset, width


def _mean(cells: AnnData) -> np.ndarray:
    return baselines.GeneMean().fit(cells, cells).mean_


def _trained(cells: AnnData, parts, epochs: int, seed: int, batch: str | None = None) -> SplicedVAE:
    scvi.settings.seed = seed
    SplicedVAE.setup_anndata(cells, batch_key=batch)
    model = SplicedVAE(cells)
    model.train(epochs, split=parts, enable_progress_bar=False)
    return model


def _predictors(cells: AnnData, parts, seed: int) -> dict:
    """Baselines fitted on some cells, by name."""
    fitted = {
        "hierarchical regression": baselines.HierarchicalBinomial(seed=seed),
        "ridge": baselines.RidgeBinomial(seed=seed),
        "gene mean": baselines.GeneMean(),
    }
    return {k: v.fit(*(cells[part] for part in parts)).predict for k, v in fitted.items()}


def _elsewhere(sets: dict, sources: tuple[str, ...], epochs: int, seed: int, batch: bool) -> dict:
    cells = anndata.concat([sets[name] for name in sources], index_unique="-")
    order = np.random.default_rng(seed).permutation(cells.n_obs)
    parts = np.split(order, [round((1 - VALIDATE) * cells.n_obs)])
    mean = _mean(cells)
    predict = {"SplicedVAE": _trained(cells, parts, epochs, seed).get_splicing_ratio}
    if batch and len(sources) > 1:
        by_library = _trained(cells.copy(), parts, epochs, seed, "library")
        predict[f"SplicedVAE{WITH_BATCH}"] = by_library.get_splicing_ratio
    predict |= _predictors(cells, parts, seed)
    rows, given = {}, {"sources": len(sources), "from": " + ".join(sources)}
    for name in set(SETS) - set(sources):
        target = Target(sets[name], seed)
        for way, ratios in predict.items():
            test, fifth, rest = (
                np.asarray(ratios(part)) for part in (target.test, target.fifth, target.rest)
            )
            title = f"{way}, from {given['from']}"
            facts = given | {"target": name, "way": way}
            rows[f"{name}: {title}"] = facts | {"cells": 0} | target.scores(test, fifth, mean)
            for n in CALIBRATED if way.startswith("SplicedVAE") else ():
                offset, width = offsets(target.rest[:n], rest[:n])
                shifted = (expit(logit(clipped(x)) + offset) for x in (test, fifth))
                scores = target.scores(*shifted, _mean(target.rest[:n]))
                facts_n = facts | {"cells": n, "width": width}
                rows[f"{name}: {title}, {n} cells"] = facts_n | scores
    return rows


def _own(cells: AnnData, name: str, epochs: int, seed: int, curve: Sequence[int]) -> dict:
    target, rows = Target(cells, seed), {}

    def add(way: str, ratios, n: int, mean: np.ndarray) -> None:
        test, fifth = (np.asarray(ratios(part)) for part in (target.test, target.fifth))
        facts = {"target": name, "way": way, "sources": 0, "from": "own", "cells": n}
        rows[f"{name}: {way}, {n} own cells"] = facts | target.scores(test, fifth, mean)

    n_all = target.rest.n_obs
    for n in sorted({*CALIBRATED, *(n for n in curve if n < n_all), n_all}):
        few = target.rest[:n].copy()
        parts = np.split(np.arange(few.n_obs), [round(0.85 * few.n_obs)])
        mean = _mean(few)
        for way, ratios in _predictors(few, parts, seed).items():
            add(way, ratios, few.n_obs, mean)
        if n not in CALIBRATED:
            model = _trained(few, parts, epochs, seed)
            add("SplicedVAE", model.get_splicing_ratio, few.n_obs, mean)
    return rows


def table(jobs: list[dict]) -> pd.DataFrame:
    """One line per target, way, cells of the target and seed.

    Parameters
    ----------
    jobs
        From :meth:`splicedvae_book.stage.Stage.run`.

    Returns
    -------
    Columns ``target``, ``way``, ``from``, ``sources``, ``cells``, ``seed`` and a column per score.
    """
    return pd.DataFrame(
        [{**row, "seed": job["seed"]} for job in jobs for row in job["rows"].values()]
    )
