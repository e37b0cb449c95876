"""How deep spliced and unspliced counts must be to beat predicted ratios, on simulated cells.

The true velocity of simulated cells is known. On the same test cells it is compared with the
velocity of ratios predicted from totals, and with scVelo's on the true spliced and unspliced
counts, both thinned alike. What the comparison means hangs on two choices.

**Graph.** All rows average over one neighbour graph, that of the test cells' totals at full depth,
so they differ in spliced and unspliced counts alone. Only rows that end in ``OWN_GRAPH`` find
neighbours in the thinned totals: what one has who sequenced no deeper.

**Genes.** ``cosine`` and ``cosine_raw`` are over the velocity genes of the training cells' true
counts, the same for all rows. Those that end in ``ALL_GENES`` are over every gene whose true
velocity is not 0 throughout. Many of these hardly change their rate; in units of their true
velocity they are nearly all noise, and the cosine says little of any field.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import scvi
from anndata import AnnData
from scipy import sparse

from splicedvae import baselines, metrics, velocity
from splicedvae.model import SplicedVAE
from splicedvae.simulate import simulate

from ..profiles import PROFILES, prepared
from ..stage import Stage
from . import fields

NAMES = ("simulated depths",)
DEPTHS = (1.0, 0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01)
THINNED = "scVelo, depth {:g}"
OWN_GRAPH = ", own graph"
REFERENCE = ", reference γ"
ALL_GENES = "_all_genes"
TRUE_RATIO = "true ratio"  # what a perfect model of expected counts would predict
TRUE_CONSTANT = "constant true velocity"  # nobody has it: what a field must beat to tell cells


def run_job(adata: AnnData | None, profile: str, seed: int, name: str, folder: Path) -> dict:
    """Score velocity fields of a seed's simulated test cells against their true velocity.

    Parameters
    ----------
    adata, folder
        Not read: the job simulates and fits for itself.
    profile
        A key of ``splicedvae_book.profiles.PROFILES``.
    seed
        Of simulation, split, fit and thinning.
    name
        One of ``NAMES``.

    Returns
    -------
    ``rows``: by field, what :func:`splicedvae.metrics.velocity_report` gives and the two cosines
    over ``ALL_GENES``; for ratios also ``d2``, and a second row, ending in ``REFERENCE``, with
    slopes and velocity genes of the training cells.
    """
    n_obs = PROFILES[profile].n_obs or 3000
    cells, (train, val, test) = prepared(simulate(n_obs, n_obs // 3, seed), profile, seed)
    scvi.settings.seed = seed
    SplicedVAE.setup_anndata(cells)
    model = SplicedVAE(cells)
    model.train(**PROFILES[profile].training, split=(train, val))
    ratio = model.get_splicing_ratio(indices=test, return_numpy=True)
    return {"rows": _rows(ratio, *(cells[part].copy() for part in (train, val, test)), seed)}


stage = Stage(run_job, NAMES, ("cosine", "cosine_raw", "accuracy", "d2"))


def _rows(ratio: np.ndarray, train: AnnData, val: AnnData, test: AnnData, seed: int) -> dict:
    for part in (train, test):
        velocity.embed(part, seed=seed)
    velocity.fit(train)
    test.var[fields.CONCENTRATION] = fields.concentration(train)
    genes, scale = train.var["velocity_genes"], metrics.velocity_scale(train, "velocity_true")
    every = test.copy()
    velocity.project(every, test.layers["velocity_true"], scale > 0, xkey="spliced_true")
    truth = every.copy()  # its arrows follow from all genes
    truth.var["velocity_genes"] &= genes

    def report(field: AnnData) -> dict[str, float]:
        return metrics.velocity_report(truth, field, scale, seed=seed) | {
            f"{name}{ALL_GENES}": float(metrics.cell_cosine(every, field, unit).mean())
            for name, unit in (("cosine", scale), ("cosine_raw", None))
        }

    mean = baselines.GeneMean().fit(train, val)
    nearest = baselines.NearestNeighbours(seed=seed).fit(train, val)
    s, u = (test.layers[name] for name in ("spliced_true", "unspliced_true"))
    ratios = {
        "SplicedVAE": ratio,
        TRUE_RATIO: s / (s + u),
        "NearestNeighbours": nearest.predict(test),
        "GeneMean": mean.predict(test),
    }
    rows, counts = {}, [test.layers[name] for name in ("spliced", "unspliced")]
    for name, ratio in ratios.items():
        d2 = metrics.ratio_report(*counts, ratio, mean.mean_, seed=seed)["d2"]
        for ending, reference in (("", None), (REFERENCE, train)):
            field = fields.from_ratio(test, ratio, reference=reference, seed=seed)
            rows[f"{name}{ending}"] = report(field) | {"d2": d2}
    vectors = baselines.velocity_baselines(train, truth, seed=seed)
    vectors[TRUE_CONSTANT] = np.broadcast_to(train.layers["velocity_true"].mean(0), test.shape)
    for name in ("constant velocity", "velocity transfer", TRUE_CONSTANT):
        rows[name] = report(fields.from_vectors(test, vectors[name], genes))

    rng = np.random.default_rng(seed)
    for depth in DEPTHS:
        field = test.copy()
        for name, layer in zip(("spliced", "unspliced"), counts, strict=True):
            field.layers[name] = thinned(layer, depth, rng)
        velocity.fit(field)
        rows[THINNED.format(depth)] = report(field)
        field.layers["total"] = field.layers["spliced"] + field.layers["unspliced"]
        velocity.embed(field, seed=seed, umap=False, overwrite=True)  # arrows lie on one UMAP
        velocity.fit(field, overwrite=True)
        rows[THINNED.format(depth) + OWN_GRAPH] = report(field)
    return rows


def thinned(counts: sparse.csr_matrix, depth: float, rng: np.random.Generator) -> sparse.csr_matrix:
    """Counts of a shallower sequencing, which keeps each molecule with the same probability.

    Parameters
    ----------
    counts
        Whole numbers (cells, genes).
    depth
        The probability.
    rng
        Draws the molecules that are kept.

    Returns
    -------
    CSR of the same shape and type.
    """
    kept = counts.copy()
    kept.data = rng.binomial(counts.data.astype(int), depth).astype(counts.dtype)
    kept.eliminate_zeros()
    return kept


def crossing(depths: Sequence[float], scores: Sequence[float], level: float) -> float:
    """Depth at which a score that grows with depth reaches a level.

    Parameters
    ----------
    depths
        Shares of the full depth, in any order.
    scores
        At these depths, for example means over seeds.
    level
        The score to reach, such as that of predicted ratios.

    Returns
    -------
    The depth, by linear interpolation in its logarithm; the deepest if there are several; NaN if
    the score nowhere rises from below the level to it.
    """
    order = np.argsort(depths)
    x, y = np.log(np.asarray(depths)[order]), np.asarray(scores)[order] - level
    if not (rises := np.flatnonzero((y[:-1] < 0) & (y[1:] >= 0))).size:
        return float("nan")
    i = rises[-1]
    return float(np.exp(x[i] - y[i] * (x[i + 1] - x[i]) / (y[i + 1] - y[i])))
