"""Cells without spliced and unspliced counts: what is predicted for them, and how good it is.

A model is trained on cells with spliced (S) and unspliced (U) counts. Its queries are held-out
cells from which these have been removed; what is predicted is then scored against what was
removed. All fields of a query lie on one neighbour graph and one UMAP, those of its own counts, so
the velocity from its true S and U is fitted on them too. Cosines are over the velocity genes of
that fit, also where cells are simulated and the true velocity is known.

With spliced counts alone, a gene's own count is the numerator of the ratio that is scored. A model
that reads it (``own_total``) knows that the ratio is 0 where no spliced molecule was counted: its
D² says little of what it knows of cells, and it has no unspliced molecules to give to such a cell.
:data:`NO_OWN` reads the cell's state alone. The hierarchical regression always reads the own count,
so it predicts for queries of totals only.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import scvi
from anndata import AnnData
from scipy import sparse

from splicedvae import baselines, metrics, velocity
from splicedvae.counts import split_counts, total_counts
from splicedvae.model import SplicedVAE
from splicedvae.simulate import simulate

from ..profiles import PROFILES, prepared
from ..stage import Stage
from . import fields, fits

TOTALS, SPLICED, GENES = "S+U totals", "spliced counts", "70 % of the genes"
BATCH, TISSUES = "simulated second batch", "simulated tissues"
NAMES = (TOTALS, SPLICED, GENES, BATCH, TISSUES)
#: The two queries of the job ``TISSUES``.
SAME_TISSUE, OTHER_TISSUE = "same simulated tissue", "another simulated tissue"
GENE_SHARE = 0.7
BATCH_DEPTH, CAPTURE_LOG_SD = 0.5, 0.3
SPECIES = ("spliced", "unspliced")
SCORES = ("cosine", "cosine_raw", "accuracy", "angular_error")
REFERENCE = "_reference_γ"  # ends the scores of the second protocol
DENOISED, WRONG_INPUT = ", denoised", ", wrong input"
NO_OWN = "SplicedVAE, without own count"
TRUTH = "true S and U"


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
    The cells with the layers ``spliced``, ``unspliced`` and ``total``, their sum; the probabilities
    are in ``var["kept_spliced"]`` and ``var["kept_unspliced"]``.
    """
    rng, batch = np.random.default_rng(seed), AnnData(obs=cells.obs, var=cells.var[[]])
    for name in SPECIES:
        factor = rng.lognormal(-(CAPTURE_LOG_SD**2) / 2, CAPTURE_LOG_SD, cells.n_vars)
        kept = np.minimum(BATCH_DEPTH * factor, 1)
        counts = sparse.csr_matrix(cells.layers[name], dtype=np.float32, copy=True)
        counts.data = rng.binomial(counts.data.astype(int), kept[counts.indices]).astype("float32")
        counts.eliminate_zeros()
        batch.layers[name], batch.var[f"kept_{name}"] = counts, kept
    batch.layers["total"] = total_counts(batch)
    return batch


def run_job(adata: AnnData, profile: str, seed: int, name: str, folder: Path) -> dict:
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
    folder
        Of these results; the fits are kept beside it.

    Returns
    -------
    ``rows``, named by query and predictor, as in "spliced counts: SplicedVAE". A velocity has
    ``SCORES``; one from layers has them once more, ending in ``REFERENCE``, with slopes and
    velocity genes of the training cells; ratios have ``d2``, over the gene mean of the training
    cells, and ``within_gene_r``. Predictors in ``WRONG_INPUT`` take the counts for totals; those
    in ``DENOISED`` split the decoder's means in place of the counts. The first protocol is missing
    where fewer than two genes have a slope.
    """
    source = adata
    if name == TISSUES:
        n_obs = PROFILES[profile].n_obs or 3000
        source = simulate(n_obs, n_obs // 3, seed)
    cells, (train, val, test) = prepared(source, profile, seed)
    known, truth = cells[np.concatenate([train, val])].copy(), cells[test].copy()
    split = np.split(np.arange(known.n_obs), [len(train)])
    queries = {name: truth}
    if name == TISSUES:
        models = {"SplicedVAE": _trained(known, split, profile, seed)}
        other = simulate(n_obs, n_obs // 3, seed, programme_seed=seed)[test, cells.var_names].copy()
        other.layers["total"] = total_counts(other)
        queries = {SAME_TISSUE: truth, OTHER_TISSUE: other}
    else:
        kept = fits.checkpoint(folder.parent, adata, profile, seed, "SplicedVAE")
        models = {"SplicedVAE": SplicedVAE.load(str(kept), known.copy())}
    if name == SPLICED:
        models = {
            "SplicedVAE": _trained(known, split, profile, seed, "spliced"),
            NO_OWN: _trained(known, split, profile, seed, "spliced", own_total=False),
            f"SplicedVAE{WRONG_INPUT}": models["SplicedVAE"],
        }
    elif name == GENES:
        n_genes = round(GENE_SHARE * cells.n_vars)
        chosen = np.random.default_rng(seed).choice(cells.n_vars, n_genes, replace=False)
        queries = {name: truth[:, np.sort(chosen)].copy()}
    elif name == BATCH:
        queries = {name: second_batch(truth, seed)}

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


SHOWN = ("d2", "cosine", "cosine_reference_γ", "accuracy")
stage = Stage(run_job, NAMES, SHOWN, after=(fits.stage.title,))


def _trained(known, split, profile: str, seed: int, input: str = "total", **kwargs) -> SplicedVAE:
    scvi.settings.seed = seed
    known = known.copy()
    SplicedVAE.setup_anndata(known, input=input)
    model = SplicedVAE(known, **kwargs)
    model.train(**PROFILES[profile].training, split=split)
    return model


def _rows(train, val, truth, layer: str, models: dict, seed: int) -> dict[str, dict]:
    """Scores by predictor; `layer` names what the user has."""
    cells, genes = stripped(truth, layer), truth.var_names
    train, val = (part[:, genes].copy() for part in (train, val))
    ratios, pairs = {}, {}  # of spliced and unspliced counts
    for row, model in models.items():
        with warnings.catch_warnings(action="ignore"):  # scVI's, of the genes that are missing
            query = SplicedVAE.prepare_query_anndata(cells, model)
        given = {"gene_list": genes, "return_numpy": True}
        ratios[row] = model.get_splicing_ratio(query, **given)
        pairs[row] = split_counts(cells.X, ratios[row], model.input)
        if model.input == "spliced":
            means = model.get_normalized_expression(query, library_size="latent", **given)
            pairs[row + DENOISED] = split_counts(means, ratios[row], model.input)
    cells = _as_total(cells)
    mean = baselines.GeneMean().fit(train, val)
    plain = {"GeneMean": mean}
    if layer == "total":
        plain["HierarchicalBinomial"] = baselines.HierarchicalBinomial(seed=seed).fit(train, val)
    for row, baseline in plain.items():
        ratios[row] = baseline.predict(cells)
        pairs[row] = split_counts(cells.X, ratios[row], layer)
    for kind in dict.fromkeys((layer, "total")):
        row = "NearestNeighbours" + ("" if kind == layer else WRONG_INPUT)
        nearest = baselines.NearestNeighbours(seed=seed)
        nearest.fit(_as_total(train, kind), _as_total(val, kind))
        ratios[row] = nearest.predict(cells)
        pairs[row] = split_counts(cells.X, ratios[row], kind)
    pairs[TRUTH] = [truth.layers[name] for name in SPECIES]

    velocity.embed(cells)
    cells.var[fields.CONCENTRATION] = fields.concentration(train)

    def field(row: str, by: AnnData | None = None) -> AnnData:
        field = cells.copy()
        field.layers["spliced"], field.layers["unspliced"] = pairs[row]
        velocity.fit(field, reference=by, concentration=fields.CONCENTRATION)
        return field

    reference, scale = field(TRUTH), metrics.velocity_scale(train)
    carried = baselines.velocity_baselines(_as_total(train, layer), reference, seed=seed)
    if "velocity_true" in truth.layers:
        reference.layers["spliced_true"] = truth.layers["spliced_true"]
        known, fitted = truth.layers["velocity_true"], reference.var["velocity_genes"]
        velocity.project(reference, known, fitted, xkey="spliced_true", overwrite=True)

    def scores(predicted: AnnData, ending: str = "") -> dict[str, float]:
        report = metrics.velocity_report(reference, predicted, scale)
        return {f"{score}{ending}": report[score] for score in SCORES}

    rows = {row: scores(field(row, train), REFERENCE) for row in pairs}
    for row in pairs:
        try:
            rows[row] |= scores(field(row))
        except ValueError as error:
            if "velocity genes" not in str(error):
                raise  # but an untrained decoder's means may hardly differ between cells
    for row in ("velocity transfer", "constant velocity"):
        rows[row] = scores(fields.from_vectors(cells, carried[row], train.var["velocity_genes"]))
    listed = metrics.within_gene_list(train.layers["total"], truth.layers["total"])
    listed = listed if listed.any() else None  # a thinned run
    for row, ratio in ratios.items():
        report = metrics.ratio_report(*pairs[TRUTH], ratio, mean.mean_, genes=listed)
        rows[row] |= {score: report[score] for score in ("d2", "within_gene_r")}
    return rows


def _as_total(cells: AnnData, layer: str | None = None) -> AnnData:
    """Cells that show the baselines, which read totals, another layer or X in their place."""
    cells = cells.copy()
    cells.layers["total"] = (cells.X if layer is None else cells.layers[layer]).copy()
    return cells
