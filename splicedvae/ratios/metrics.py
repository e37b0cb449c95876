"""How well splicing ratios and latent spaces are predicted."""

from __future__ import annotations

import numpy as np
import scanpy as sc
import scipy.sparse as sp
from anndata import AnnData
from scipy.optimize import brentq
from scipy.special import bdtr, expit, logit, xlog1py, xlogy
from scipy.stats import t as t_distribution
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.neighbors import NearestNeighbors

from ..counts import Counts, checked_counts
from ._entries import (
    MIN_TEST_CELLS,
    Entries,
    checked_genes,
    checked_per_gene,
    checked_ratio,
    clipped,
    deviance_explained,
    log_beta_binomial,
    log_choose,
    pooled_scores,
    within_gene_scores,
)


def within_gene_list(n_train: Counts, n_test: Counts) -> np.ndarray:
    """Genes on which within-gene correlations are read, fixed before any model runs.

    Parameters
    ----------
    n_train, n_test
        Total counts s + u (cells, genes) of training and test cells.

    Returns
    -------
    Boolean array (genes,): seen in at least 200 training and 30 test cells.
    """
    seen_train, seen_test = (np.asarray((n > 0).sum(0)).ravel() for n in (n_train, n_test))
    return (seen_train >= 200) & (seen_test >= MIN_TEST_CELLS)


def ratio_report(
    spliced: Counts,
    unspliced: Counts,
    predicted: np.ndarray,
    baseline: np.ndarray,
    *,
    genes: np.ndarray | None = None,
    concentration: np.ndarray | None = None,
    connectivities: sp.sparray | sp.spmatrix | None = None,
    seed: int = 0,
) -> dict[str, float]:
    r"""Score predicted splicing ratios, with the gene mean's own value beside each pooled score.

    :math:`D^2` is the share of binomial deviance explained over the baseline :math:`m`, summed over
    the observed entries; within-gene r weighs the Pearson correlation of each gene, over the cells
    :math:`C_g` in which it is seen, by their number; and the calibration slope :math:`b` is that of
    a logistic regression:

    .. math::
        D^2 &= 1 - \frac{\sum d(s, n, \hat p)}{\sum d(s, n, m)}, \qquad
            d(s, n, \hat p) = 2 \log \frac{p(s \mid n, r)}{p(s \mid n, \hat p)}, \\
        \bar r &= \frac{\sum_g |C_g|\, \mathrm{cor}_{c \in C_g}(\hat p_{cg}, r_{cg})}
            {\sum_g |C_g|}, \\
        \mathrm{logit}\, \mathrm{E}[r] &= \mathrm{logit}\, m
            + b\, (\mathrm{logit}\, \hat p - \mathrm{logit}\, m).

    Parameters
    ----------
    spliced, unspliced
        Raw counts (cells, genes) of held-out cells, dense or sparse.
    predicted
        Predicted ratios (cells, genes) in [0, 1].
    baseline
        Pooled training ratio (genes,), as ``baselines.GeneMean().mean_``, or (cells, genes).
    genes
        Boolean (genes,): the genes of the within-gene correlations, see `within_gene_list`.
        Without it, the genes seen in at least 30 of these cells.
    concentration
        Beta-binomial concentration (genes,), see `fit_concentration`; adds the beta-binomial
        log-likelihood, and PIT is then read under the beta-binomial instead of the binomial.
    connectivities
        Neighbour graph (cells, cells) among these cells; adds the target ``smoothed``: the ratio
        of counts averaged over each cell and its neighbours.
    seed
        Seed of the randomised PIT.

    Returns
    -------
    Flat dict. For each target (``observed``: n > 0, ``min_counts_5``: n >= 5, ``zero_filled``:
    r = 0 where n = 0, ``smoothed``): ``n_``, ``rmse_`` and ``r_`` + target, the latter two with
    ``_gene_mean`` for the baseline. ``d2``: binomial deviance explained over the baseline.
    ``log_likelihood``, ``beta_binomial_log_likelihood``: per observed entry, also with
    ``_gene_mean``. ``within_gene_r``: mean over genes weighted by observed cells, a constant
    counting as 0, and ``within_gene_r_median``; ``within_gene_r_min_counts_2`` and
    ``within_gene_r_min_counts_2_median``: the same over entries n >= 2.
    ``calibration_slope``: 1 when calibrated within genes, NaN for the baseline itself.
    ``pit_n_1``, ``pit_n_2_to_4``, ``pit_n_5_up``: share of the randomised probability integral
    transform in [0.05, 0.95], 0.9 when calibrated; NaN without entries.

    Raises
    ------
    ValueError
        Shapes disagree, counts are not raw counts, ratios leave [0, 1], or no gene is selected.
    """
    entries = Entries(spliced, unspliced)
    full, full_mean = (
        checked_ratio(name, x, entries.shape)
        for name, x in (("predicted", predicted), ("baseline", baseline))
    )
    genes = checked_genes(genes, entries)
    p, mean = full[entries.seen], full_mean[entries.seen]

    report: dict[str, float] = {}
    deep = entries.n >= 5
    report |= pooled_scores("observed", entries.r, p, mean)
    report |= pooled_scores("min_counts_5", entries.r[deep], p[deep], mean[deep])
    filled = np.zeros(entries.shape)
    filled[entries.seen] = entries.r
    report |= pooled_scores("zero_filled", filled.ravel(), full.ravel(), full_mean.ravel())
    if connectivities is not None:
        target, seen = _smoothed_ratio(spliced, unspliced, connectivities)
        report |= pooled_scores("smoothed", target[seen], full[seen], full_mean[seen])

    report |= within_gene_scores(entries, p, genes)
    report["calibration_slope"] = _calibration_slope(entries, p, mean)
    p, mean = clipped(p), clipped(mean)
    report["d2"] = deviance_explained(entries, p, mean)
    m = None
    if concentration is not None:
        m = checked_per_gene("concentration", concentration, entries.shape[1])[entries.gene]
    coefficient = log_choose(entries.s, entries.u)
    for suffix, ratio in (("", p), ("_gene_mean", mean)):
        values = coefficient + xlogy(entries.s, ratio) + xlog1py(entries.u, -ratio)
        report[f"log_likelihood{suffix}"] = float(values.mean())
        if m is not None:
            values = log_beta_binomial(entries.s, entries.u, ratio * m, (1 - ratio) * m)
            report[f"beta_binomial_log_likelihood{suffix}"] = float(values.mean())
    inside = np.abs(_randomised_pit(entries, p, m, seed) - 0.5) <= 0.45
    for name, low, high in (("1", 1, 1), ("2_to_4", 2, 4), ("5_up", 5, np.inf)):
        stratum = inside[(entries.n >= low) & (entries.n <= high)]
        report[f"pit_n_{name}"] = float(stratum.mean()) if len(stratum) else float("nan")
    return report


def _smoothed_ratio(
    spliced: Counts, unspliced: Counts, connectivities: sp.sparray | sp.spmatrix
) -> tuple[np.ndarray, np.ndarray]:
    """Ratio of neighbourhood averages (scVelo's first moments), and where it is defined."""
    graph = sp.csr_array(connectivities, dtype=np.float64)
    n_obs = spliced.shape[0]
    if graph.shape != (n_obs, n_obs):
        raise ValueError(
            f"connectivities has shape {graph.shape}; give the graph among these {n_obs} cells"
        )
    if not np.isfinite(graph.data).all() or (graph.data < 0).any():
        raise ValueError("connectivities holds a negative or missing weight; give a graph of >= 0")
    graph = graph - sp.diags_array(graph.diagonal()) + sp.eye_array(n_obs)  # each cell counts as 1
    graph = sp.diags_array(1 / graph.sum(1)) @ graph
    s = (graph @ checked_counts("spliced", spliced)).toarray()
    n = s + (graph @ checked_counts("unspliced", unspliced)).toarray()
    return np.divide(s, n, out=np.zeros_like(s), where=n > 0), n > 0


def _calibration_slope(entries: Entries, p: np.ndarray, mean: np.ndarray) -> float:
    """Maximum-likelihood beta of logit E[r] = logit mean + beta (logit p - logit mean).

    The score falls in beta, so its root is bracketed; NaN if p is the mean or no root is there.
    """
    p, mean = logit(clipped(p)), logit(clipped(mean))
    moved = np.abs(p - mean) > 1e-9
    x, offset, s, n = (p - mean)[moved], mean[moved], entries.s[moved], entries.n[moved]

    def score(slope: float) -> float:
        return float(x @ (s - n * expit(offset + slope * x)))

    if not moved.any() or score(-50) <= 0 or score(50) >= 0:
        return float("nan")
    return float(brentq(score, -50, 50, xtol=1e-10))


def _randomised_pit(
    entries: Entries, p: np.ndarray, concentration: np.ndarray | None, seed: int
) -> np.ndarray:
    """P(S < s) + V P(S = s), V uniform, under the beta-binomial or else the binomial."""
    # The rarer of spliced and unspliced has the shorter tail to sum.
    flip = entries.s > entries.u
    k, q = np.where(flip, entries.u, entries.s), np.where(flip, 1 - p, p)
    if concentration is None:
        n = entries.n.astype(int)
        below = np.where(k > 0, bdtr(np.maximum(k - 1, 0), n, q), 0)
        equal = bdtr(k, n, q) - below
    else:
        size = k.astype(int) + 1
        start = np.cumsum(size) - size
        entry = np.repeat(np.arange(len(k)), size)
        term = np.arange(size.sum()) - start[entry]
        a, b = (q * concentration)[entry], ((1 - q) * concentration)[entry]
        mass = np.exp(log_beta_binomial(term, entries.n[entry] - term, a, b))
        equal = mass[start + size - 1]
        below = np.add.reduceat(mass, start) - equal
    lower = np.where(flip, 1 - below - equal, below)
    return lower + np.random.default_rng(seed).uniform(size=len(p)) * equal


def latent_report(
    latent: np.ndarray,
    labels: np.ndarray,
    n_neighbors: int = 15,
    resolutions: tuple[float, ...] = (0.25, 0.5, 1.0),
    seed: int = 0,
) -> dict[str, float]:
    """How well known clusters separate in a latent space.

    Parameters
    ----------
    latent
        Coordinates (cells, dimensions), compared by Euclidean distance.
    labels
        Cluster of each cell (cells,).
    n_neighbors
        Neighbours of a cell, itself not counted, for the purity; also of scanpy's graph.
    resolutions
        Resolutions of Leiden; the best adjusted Rand index counts, so that a method is not
        punished for the density of its graph.
    seed
        Seed of the graph and of Leiden.

    Returns
    -------
    Dict of ``silhouette``, ``knn_purity`` (mean share of neighbours with the cell's own label),
    ``leiden_ari`` and its ``leiden_resolution``.

    Raises
    ------
    ValueError
        Shapes disagree, the latent is not finite, there are fewer than two clusters, or too few
        cells for the neighbours.
    """
    latent, labels = np.asarray(latent, dtype=np.float64), np.asarray(labels).astype(str)
    if latent.ndim != 2 or labels.shape != latent.shape[:1]:
        raise ValueError(
            f"latent {latent.shape} and labels {labels.shape} must be (cells, dimensions) and "
            "(cells,) of the same cells"
        )
    if not np.isfinite(latent).all():
        raise ValueError("latent holds missing or infinite values; leave out such cells")
    if not 2 <= len(np.unique(labels)) < len(labels) or n_neighbors >= len(labels):
        raise ValueError(
            f"labels names {len(np.unique(labels))} clusters in {len(labels)} cells; give two "
            f"clusters or more, and more than n_neighbors={n_neighbors} cells"
        )
    neighbours = NearestNeighbors(n_neighbors=n_neighbors).fit(latent)
    neighbours = neighbours.kneighbors(return_distance=False)  # without X: a cell is not its own
    adata = AnnData(obsm={"latent": latent})
    sc.pp.neighbors(adata, n_neighbors=n_neighbors, use_rep="latent", random_state=seed)
    ari = {}
    for resolution in resolutions:
        sc.tl.leiden(
            adata,
            resolution=resolution,
            flavor="igraph",
            n_iterations=2,
            directed=False,
            random_state=seed,
        )
        ari[resolution] = adjusted_rand_score(labels, adata.obs["leiden"])
    best = max(ari, key=ari.__getitem__)
    return {
        "silhouette": float(silhouette_score(latent, labels)),
        "knn_purity": float((labels[neighbours] == labels[:, None]).mean()),
        "leiden_ari": float(ari[best]),
        "leiden_resolution": float(best),
    }


def paired_interval(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    r"""Mean of the paired differences a - b with its 95 % t-interval.

    .. math:: \bar\delta \pm t_{k-1,\,0.975}\, \frac{\mathrm{SD}(\delta)}{\sqrt k}, \qquad
              \delta_i = a_i - b_i, \quad i = 1, \dots, k

    Parameters
    ----------
    a, b
        Scores of two methods, paired by seed (seeds,).

    Returns
    -------
    Difference, lower and upper end.

    Raises
    ------
    ValueError
        There are fewer than two pairs, or a score is missing.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 2:
        raise ValueError(f"a {a.shape} and b {b.shape} must be two scores or more, paired by seed")
    difference = a - b
    if not np.isfinite(difference).all():
        raise ValueError("a and b hold a missing score; leave out that seed in both")
    margin = t_distribution.ppf(0.975, len(a) - 1) * difference.std(ddof=1) / np.sqrt(len(a))
    mean = float(difference.mean())
    return mean, float(mean - margin), float(mean + margin)
