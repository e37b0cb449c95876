"""Velocity fields of held-out cells: from every ratio model, baseline and null, in one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData

from splicedvae import baselines, metrics, velocity
from splicedvae.counts import split_counts, total_counts
from splicedvae.model import SplicedVAE
from splicedvae.velocity.field import embed_parts
from splicedvae.velocity.steady_state import draws, smoothed

from ..directions import directions
from ..profiles import prepared
from ..stage import Stage
from . import fits

NAMES = ("velocities", "directions")
#: Draws of counts for the slopes of a field, and rounds of Velo-Predictor's boosting.
SETTINGS = {
    "smoke": {"n_draws": 5, "rounds": 20},
    "standard": {"n_draws": 10, "rounds": 40},
    "full": {"n_draws": 20, "rounds": 60},
}
OTHER_HALF = ", other half"
NO_DRAWS = ", no draws"  # the slopes that scVelo finds in expected layers
IF_TRUE = ", if SplicedVAE's ratios were true"
N_CEILING = 5  # draws that such a score is the mean of
BASELINES = (
    "GeneMean",
    "GeneByCluster",
    "NearestNeighbours",
    "RidgeBinomial",
    "ScviLatentRidge",
    "HierarchicalBinomial",
)
#: Predictors of ratios whose fields are made from the test cells alone.
RATIOS = (
    *BASELINES,
    "SplicedVAE",
    "SplicedVAE, without own total",
    "SplicedVAE, paper's setting",
)
#: The jobs of ``fits`` that make them.
FITS = (fits.BASELINES, "scVI", *(name for name in RATIOS if name in fits.FITS))
#: Those shown in the second protocol, with other slopes, and if SplicedVAE's ratios were true.
SHORT = ("GeneMean", "NearestNeighbours", "RidgeBinomial", "HierarchicalBinomial", "SplicedVAE")
CONCENTRATION = "concentration"  # the column of var


@dataclass
class Cells:
    """A seed's cells on one UMAP, with velocities from their true counts.

    Attributes
    ----------
    train, reference
        Training and test cells, each with a neighbour graph of its own and a velocity from true
        counts.
    test
        The test cells with totals, graph and UMAP, and no velocity; and the training cells'
        concentrations, see :func:`concentration`.
    scale
        Each gene's unit (genes,), from `train`.
    """

    train: AnnData
    reference: AnnData
    test: AnnData
    scale: np.ndarray


def cells(adata: AnnData, train: np.ndarray, test: np.ndarray) -> Cells:
    """Embed a seed's cells and fit velocities on true counts.

    The UMAP is one for all cells, from totals, so that training and test arrows share a compass;
    graphs and moments are made within train and within test.

    Parameters
    ----------
    adata
        Prepared cells, see :func:`~splicedvae_book.profiles.prepared`.
    train, test
        Positions.

    Returns
    -------
    The cells.
    """
    train, test = embed_parts(adata, train, test)
    reference = test.copy()
    for part in (train, reference):
        velocity.fit(part)
    test.var[CONCENTRATION] = concentration(train)
    return Cells(train, reference, test, metrics.velocity_scale(train))


def concentration(train: AnnData) -> np.ndarray:
    """How much counts of training cells scatter about each gene's mean ratio.

    Parameters
    ----------
    train
        Cells with true counts.

    Returns
    -------
    Array (genes,), see :func:`splicedvae.metrics.fit_concentration`; models write the same.
    """
    counts = train.layers["spliced"], train.layers["unspliced"]
    return metrics.fit_concentration(*counts, baselines.GeneMean().fit(train, train).mean_)


def from_ratio(
    test: AnnData, ratio: np.ndarray, counts: np.ndarray | None = None, **kwargs
) -> AnnData:
    """The field that splicing ratios imply.

    Parameters
    ----------
    test
        Cells as in :class:`Cells`.
    ratio
        (cells, genes).
    counts
        What to split, in place of the totals.
    **kwargs
        For :func:`splicedvae.velocity.fit`, which reads the concentrations unless told otherwise.

    Returns
    -------
    A copy with expected layers and a velocity.
    """
    field = test.copy()
    counts = test.layers["total"] if counts is None else counts
    field.layers["spliced"], field.layers["unspliced"] = split_counts(counts, ratio)
    velocity.fit(field, **{"concentration": CONCENTRATION, **kwargs})
    return field


def from_vectors(test: AnnData, vectors: np.ndarray, genes: np.ndarray) -> AnnData:
    """A field given as vectors: cells lie at the smoothed totals, the only place known of them.

    Parameters
    ----------
    test
        Cells as in :class:`Cells`.
    vectors
        (cells, genes).
    genes
        Boolean (genes,): those that decide on transitions.

    Returns
    -------
    A copy with a velocity.
    """
    field = test.copy()
    total = field.layers["total"]
    field.layers["Ms"] = smoothed(field, total, total).layers["Ms"]
    velocity.project(field, vectors, genes)
    return field


def with_noise(ratio: np.ndarray, seed: int) -> np.ndarray:
    """Ratios with noise of 0.1 %, so that a gene mean has a velocity at all.

    Parameters
    ----------
    ratio
        (cells, genes).
    seed
        Of the noise.

    Returns
    -------
    Array (cells, genes) in [0, 1].
    """
    noise = np.random.default_rng(seed).normal(0, 1e-3, ratio.shape)
    return (ratio * (1 + noise)).clip(0, 1)


def if_true(test: AnnData, ratio: np.ndarray, seed: int) -> AnnData:
    """The velocity that counts would have if these ratios were true: a parametric bootstrap.

    Against it, the field of the ratios themselves is short of 1 by noise alone, of counts and of
    slopes. Counts are drawn given the cells' totals, as overdispersed as the concentrations say.

    Parameters
    ----------
    test
        Cells as in :class:`Cells`.
    ratio
        (cells, genes).
    seed
        Of the draw; another than the slopes' of the field that is scored against it.

    Returns
    -------
    A copy with drawn counts and their velocity.
    """
    field = test.copy()
    pair = split_counts(test.layers["total"], ratio)
    pair = next(draws(*pair, 1, seed, test.var[CONCENTRATION].to_numpy()))
    field.layers["spliced"], field.layers["unspliced"] = pair
    velocity.fit(field)
    return field


def run_job(adata: AnnData, profile: str, seed: int, name: str, folder: Path) -> dict:
    """Score all fields of one seed's test cells, or the methods that name directions alone.

    Parameters
    ----------
    adata
        From :func:`~splicedvae_book.profiles.load`.
    profile
        A key of ``splicedvae_book.profiles.PROFILES``.
    seed
        Of the split.
    name
        One of ``NAMES``.
    folder
        Of these results; the fits are kept beside it.

    Returns
    -------
    JSON-ready: ``rows``, a report per field.
    """
    results = folder.parent
    whole, (train, val, test) = prepared(adata, profile, seed)
    bench, setting = cells(whole, train, test), SETTINGS[profile]
    if name == "directions":
        return {"rows": directions(bench.train, bench.reference, seed, setting["rounds"])}
    ratios = {m: fits.ratios(results, adata, profile, seed, m) for m in RATIOS}
    ratios["GeneMean"] = with_noise(ratios["GeneMean"], seed)
    kept = fits.checkpoint(results, adata, profile, seed, "SplicedVAE")
    model = SplicedVAE.load(str(kept), whole)
    learnt = {
        "NearestNeighbours": baselines.NearestNeighbours(seed=seed),
        "HierarchicalBinomial": baselines.HierarchicalBinomial(seed=seed),
    }
    for baseline in learnt.values():
        baseline.fit(whole[train], whole[val])
    means = model.get_normalized_expression(indices=test, library_size="latent", return_numpy=True)
    made = partial(from_ratio, n_draws=setting["n_draws"])
    fields = chain(
        _query(bench, ratios, made, means, seed),
        _other_half(bench, ratios, made, model, learnt, seed),
        _reference_gamma(bench, ratios),
    )
    reports: dict[str, list[dict]] = {}  # one each, but for the ceilings
    for row, reference, field in fields:
        report = metrics.velocity_report(reference, field, bench.scale, seed=seed)
        reports.setdefault(row, []).append(report)
    means = {
        row: several[0] if len(several) == 1 else pd.DataFrame(several).mean().to_dict()
        for row, several in reports.items()
    }
    return {"rows": means}


stage = Stage(
    run_job,
    NAMES,
    ("cosine", "cosine_raw", "angular_error", "accuracy", "balanced_accuracy", "cbdir"),
    settings=SETTINGS,
    after=(fits.stage.title,),
)


Fields = Iterator[tuple[str, AnnData, AnnData]]  # name, what it is scored against, field


def _query(bench: Cells, ratios: dict, made: Callable, means: np.ndarray, seed: int) -> Fields:
    """Fields made from the test cells alone, the nulls, and what noise leaves of the truth."""
    reference, test = bench.reference, bench.test
    drawn = [if_true(test, ratios["SplicedVAE"], 1 + i) for i in range(N_CEILING)]
    for name in RATIOS:
        field = made(test, ratios[name])
        yield name, reference, field
        if name in SHORT:
            yield from ((name + IF_TRUE, truth, field) for truth in drawn)
    for name in SHORT:
        field = made(test, ratios[name], concentration=None)
        yield f"{name}, binomial draws", reference, field
    for name in (*BASELINES, "SplicedVAE"):
        yield f"{name}{NO_DRAWS}", reference, made(test, ratios[name], n_draws=0)
    denoised = made(test, ratios["SplicedVAE"], means)
    yield "SplicedVAE, denoised", reference, denoised
    genes = bench.train.var["velocity_genes"].to_numpy()
    for name, vectors in baselines.velocity_baselines(bench.train, reference, seed=seed).items():
        yield name, reference, from_vectors(test, vectors, genes)
    first, second = baselines.halves(reference, seed)
    for half in (first, second):
        velocity.fit(half, overwrite=True)
    yield "half versus half", first, second


def _other_half(
    bench: Cells, ratios: dict, made: Callable, model, learnt: dict, seed: int
) -> Fields:
    """Fields from one half of each cell's molecules, scored against the velocity of the other.

    A field from a cell's totals shares molecules, and so noise, with the velocity from its S and
    U; a field from the other half shares none (but for the graph).
    """
    first, second = baselines.halves(bench.reference, seed)
    velocity.fit(second, overwrite=True)
    test = bench.test.copy()
    test.layers["total"] = first.layers["total"] = total_counts(first)
    query = SplicedVAE.prepare_query_anndata(AnnData(test.layers["total"], var=test.var), model)
    means = model.get_normalized_expression(query, library_size="latent", return_numpy=True)
    ratio = model.get_splicing_ratio(query, return_numpy=True)
    for name, field in (
        ("GeneMean", made(test, ratios["GeneMean"])),
        *((name, made(test, fitted.predict(test))) for name, fitted in learnt.items()),
        ("SplicedVAE", made(test, ratio)),
        ("SplicedVAE, denoised", made(test, ratio, means)),
    ):
        yield name + OTHER_HALF, second, field
    genes = bench.train.var["velocity_genes"].to_numpy()
    vectors = baselines.velocity_baselines(bench.train, first, seed=seed)
    for name in ("constant velocity", "velocity transfer"):
        yield name + OTHER_HALF, second, from_vectors(test, vectors[name], genes)


def _reference_gamma(bench: Cells, ratios: dict) -> Fields:
    """Fields with slopes and velocity genes from the training cells' true counts."""
    for name in SHORT:
        field = from_ratio(bench.test, ratios[name], reference=bench.train)
        yield f"{name}, reference γ", bench.reference, field
    field = bench.reference.copy()
    velocity.fit(field, reference=bench.train, overwrite=True)
    yield "true counts, reference γ", bench.reference, field
