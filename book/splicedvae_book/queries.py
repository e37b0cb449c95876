"""Cells without spliced and unspliced counts: what is predicted for them, and how good it is.

A model is trained on cells with spliced (S) and unspliced (U) counts. Its queries are held-out
cells from which these have been removed; what is predicted is then scored against what was
removed. All fields of a query lie on one neighbour graph and one UMAP, those of its own counts, so
the velocity from its true S and U is fitted on them too.
"""

from __future__ import annotations

import logging
from os import PathLike

import numpy as np
import scvi
import torch
from anndata import AnnData
from scipy import sparse

from splicedvae import baselines, metrics, velocity
from splicedvae.counts import split_counts, total_counts
from splicedvae.model import SplicedVAE
from splicedvae.simulate import simulate

from . import fits
from .fields import from_vectors
from .profiles import PROFILES, prepared, quiet

TOTALS, SPLICED, GENES = "S+U totals", "spliced counts", "70 % of the genes"
BATCH, TISSUES = "simulated second batch", "simulated tissues"
NAMES = (TOTALS, SPLICED, GENES, BATCH, TISSUES)
#: What is scored as a query of its own in the job ``TISSUES``.
SAME_TISSUE, OTHER_TISSUE = "same simulated tissue", "another simulated tissue"
#: Modules that a query runs through, besides those of the fits.
SOURCES = {
    "splicedvae": (
        "simulate",
        "steady_state",
        "velocity",
        "velocity_baselines",
        "velocity_metrics",
    ),
    "splicedvae_book": ("fields", "queries"),
}
GENE_SHARE = 0.7
BATCH_DEPTH, CAPTURE_LOG_SD = 0.5, 0.3
SCORES = ("cosine", "cosine_raw", "accuracy", "angular_error")
REFERENCE = "_reference_γ"  # ends the scores of the second protocol
WRONG_INPUT = ", wrong input"


def stripped(cells: AnnData, layer: str = "total") -> AnnData:
    """What a user has of cells: one matrix of counts.

    Parameters
    ----------
    cells
        Cells × genes, with clusters.
    layer
        The counts that the user has.

    Returns
    -------
    Cells of the same genes, whose X are these counts; nothing else but ``obs["clusters"]``.
    """
    return AnnData(cells.layers[layer].copy(), obs=cells.obs[["clusters"]], var=cells.var[[]])


def second_batch(cells: AnnData, seed: int = 0) -> AnnData:
    """Simulate that the same cells are sequenced again, half as deep and with other chemistry.

    Each molecule is kept with the probability ``BATCH_DEPTH`` · f, at most 1. A gene has one f for
    its spliced and another for its unspliced molecules: independent and log-normal, of mean 1 and
    with standard deviation ``CAPTURE_LOG_SD`` of their logarithm. So the gene's ratio shifts by
    about 0.42 on the logit scale.

    Parameters
    ----------
    cells
        Cells × genes with the counts ``spliced`` and ``unspliced``.
    seed
        Of factors and molecules.

    Returns
    -------
    A copy with fewer counts and their sum in ``layers["total"]``; the probabilities are in
    ``var["kept_spliced"]`` and ``var["kept_unspliced"]``.
    """
    rng, batch = np.random.default_rng(seed), cells.copy()
    for name in ("spliced", "unspliced"):
        factor = rng.lognormal(-(CAPTURE_LOG_SD**2) / 2, CAPTURE_LOG_SD, cells.n_vars)
        kept = np.minimum(BATCH_DEPTH * factor, 1)
        counts = sparse.csr_matrix(cells.layers[name], dtype=np.float32, copy=True)
        counts.data = rng.binomial(counts.data.astype(int), kept[counts.indices]).astype("float32")
        counts.eliminate_zeros()
        batch.layers[name], batch.var[f"kept_{name}"] = counts, kept
    batch.layers["total"] = total_counts(batch)
    return batch


def run_job(
    adata: AnnData, profile: str, seed: int, name: str, results: str | PathLike
) -> dict[str, dict]:
    """Predict ratios and velocity of one kind of query, and score them.

    Parameters
    ----------
    adata
        From :func:`~splicedvae_book.profiles.load`; ``TISSUES`` simulates its own cells.
    profile
        A key of ``splicedvae_book.profiles.PROFILES``.
    seed
        Of the split, and of all that is drawn here.
    name
        One of ``NAMES``.
    results
        Folder in which the fits are kept.

    Returns
    -------
    ``rows``: named by query and predictor, as in "spliced counts: SplicedVAE". Each holds
    ``SCORES`` of a velocity, for ratios also with slopes and velocity genes of the training cells
    (names end in ``REFERENCE``), and for ratios ``d2``, over the gene mean of the training cells,
    and ``within_gene_r``. ``WRONG_INPUT`` names predictors that expect totals.
    """
    quiet()
    torch.set_num_threads(1)
    logging.getLogger("splicedvae").setLevel(logging.WARNING)  # a worker would repeat each note
    source = adata
    if name == TISSUES:
        n_obs = PROFILES[profile].n_obs or 3000
        source = simulate(n_obs, n_obs // 3, seed)
    cells, (train, val, test) = prepared(source, profile, seed)
    known, truth = cells[np.concatenate([train, val])].copy(), cells[test].copy()
    split = np.split(np.arange(known.n_obs), [len(train)])
    queries, models = {name: truth}, {}
    if name == GENES:
        n_genes = round(GENE_SHARE * cells.n_vars)
        kept = np.random.default_rng(seed).choice(cells.n_vars, n_genes, replace=False)
        queries[name] = truth[:, np.sort(kept)].copy()
    elif name == BATCH:
        queries[name] = second_batch(truth, seed)
    elif name == TISSUES:
        other = simulate(n_obs, n_obs // 3, seed, programme_seed=seed)
        other = other[test, cells.var_names].copy()
        other.layers["total"] = total_counts(other)
        queries = {SAME_TISSUE: truth, OTHER_TISSUE: other}
        models["total"] = _trained(known, split, profile, seed, "total")
    if name != TISSUES:
        folder = fits.checkpoint(results, adata, profile, seed, "SplicedVAE")
        models["total"] = SplicedVAE.load(str(folder), known.copy())
    if name == SPLICED:
        models["spliced"] = _trained(known, split, profile, seed, "spliced")

    train, val = (known[part].copy() for part in split)
    velocity.embed(train, overwrite=True)  # a file may bring an embedding of its own
    velocity.fit(train)
    layer = "spliced" if name == SPLICED else "total"
    return {
        "rows": {
            f"{query}: {row}": scores
            for query, truth in queries.items()
            for row, scores in _rows(train, val, truth, layer, models, seed).items()
        }
    }


def _trained(known: AnnData, split, profile: str, seed: int, input: str) -> SplicedVAE:
    scvi.settings.seed = seed
    known = known.copy()
    SplicedVAE.setup_anndata(known, input=input)
    model = SplicedVAE(known)
    model.train(PROFILES[profile].max_epochs, split=split, enable_progress_bar=False)
    return model


def _rows(train, val, truth, layer: str, models: dict, seed: int) -> dict[str, dict]:
    """Scores by predictor. `layer` names what the user has; `models` what each model expects."""
    cells, genes = stripped(truth, layer), truth.var_names
    train, val = (part[:, genes].copy() for part in (train, val))
    gene_mean = baselines.GeneMean().fit(train, val)
    ratios = {"GeneMean": (gene_mean.predict(cells), layer)}  # and what they take counts for
    for kind in dict.fromkeys((layer, "total")):
        wrong = "" if kind == layer else WRONG_INPUT
        query = SplicedVAE.prepare_query_anndata(cells, models[kind])
        ratio = models[kind].get_splicing_ratio(query, gene_list=genes, return_numpy=True)
        ratios[f"SplicedVAE{wrong}"] = ratio, kind
        nearest = baselines.NearestNeighbours(seed=seed)
        nearest.fit(_as_total(train, kind), _as_total(val, kind))
        ratios[f"NearestNeighbours{wrong}"] = nearest.predict(_as_total(cells)), kind

    cells = _as_total(cells)
    velocity.embed(cells)
    reference = cells.copy()
    pair = [truth.layers[name] for name in ("spliced", "unspliced")]
    reference.layers["spliced"], reference.layers["unspliced"] = pair
    velocity.fit(reference)
    fields = {"true S and U": reference}
    scale = metrics.velocity_scale(train)
    if "velocity_true" in truth.layers:
        scale = metrics.velocity_scale(train, "velocity_true")
        reference = reference.copy()
        reference.layers["spliced_true"] = truth.layers["spliced_true"]
        known = truth.layers["velocity_true"]
        velocity.project(reference, known, scale > 0, xkey="spliced_true", overwrite=True)

    def scores(field: AnnData, ending: str = "") -> dict[str, float]:
        report = metrics.velocity_report(reference, field, scale)
        return {f"{score}{ending}": report[score] for score in SCORES}

    listed = metrics.within_gene_list(train.layers["total"], truth.layers["total"])
    rows = {}
    for row, (ratio, kind) in ratios.items():
        within = listed if listed.any() else None  # a thinned run
        report = metrics.ratio_report(*pair, ratio, gene_mean.mean_, genes=within)
        rows[row] = {score: report[score] for score in ("d2", "within_gene_r")}
        field = cells.copy()
        field.layers["spliced"], field.layers["unspliced"] = split_counts(cells.X, ratio, kind)
        velocity.fit(field)
        fields[row] = field
    for row, field in fields.items():
        by_train = field.copy()
        velocity.fit(by_train, reference=train, overwrite=True)
        rows[row] = rows.get(row, {}) | scores(field) | scores(by_train, REFERENCE)
    carried = baselines.velocity_baselines(_as_total(train, layer), reference, seed=seed)
    for row in ("velocity transfer", "constant velocity"):
        rows[row] = scores(from_vectors(cells, carried[row], train.var["velocity_genes"]))
    return rows


def _as_total(cells: AnnData, layer: str | None = None) -> AnnData:
    """Cells that show the baselines, which read totals, another layer or X in their place."""
    cells = cells.copy()
    cells.layers["total"] = (cells.X if layer is None else cells.layers[layer]).copy()
    return cells
