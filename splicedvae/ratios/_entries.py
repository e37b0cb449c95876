"""Counts as flat arrays of observed entries, their checks, and the scores read from them.

Entry (c, g) has s spliced and u unspliced counts, n = s + u and r = s / n, undefined where
n = 0; given the true ratio p, s is Binomial(n, p).
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.special import betaln, xlog1py, xlogy

from ..counts import Counts, checked_counts

EDGE = 1e-6  # likelihoods read ratios clipped to [EDGE, 1 - EDGE]
MIN_TEST_CELLS = 30  # a gene needs as many observed cells for a within-gene correlation


def clipped(ratio: np.ndarray) -> np.ndarray:
    """Ratios kept off 0 and 1, where a log-likelihood may be infinite."""
    return np.clip(ratio, EDGE, 1 - EDGE)


def log_likelihood(spliced: np.ndarray, unspliced: np.ndarray, ratio: np.ndarray) -> float:
    """Binomial log-likelihood of counts, without the coefficient, summed over entries."""
    return float((xlogy(spliced, ratio) + xlog1py(unspliced, -ratio)).sum())


def checked_ratio(name: str, ratio: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Ratios (cells, genes), a row (genes,) standing for every cell."""
    ratio = np.asarray(ratio, dtype=np.float64)
    if ratio.shape not in (shape, shape[1:]):
        raise ValueError(f"{name} has shape {ratio.shape}; give {shape} as the counts have")
    bad = ~((ratio >= 0) & (ratio <= 1))
    if bad.any():
        where = np.unravel_index(np.argmax(bad), ratio.shape)
        raise ValueError(
            f"{name} holds {ratio[where]} in gene {where[-1]}; give splicing ratios in [0, 1]"
        )
    return np.broadcast_to(ratio, shape)


def checked_per_gene(name: str, values: np.ndarray, n_genes: int) -> np.ndarray:
    """Positive numbers (genes,)."""
    values = np.asarray(values, dtype=np.float64)
    if values.shape != (n_genes,):
        raise ValueError(f"{name} has shape {values.shape}; give one number per gene, ({n_genes},)")
    bad = ~((values > 0) & np.isfinite(values))
    if bad.any():
        gene = np.argmax(bad)
        raise ValueError(f"{name} holds {values[gene]} in gene {gene}; give positive numbers")
    return values


def checked_genes(genes: np.ndarray | None, entries: Entries) -> np.ndarray:
    """Boolean (genes,) with a gene in it; None takes those seen in enough of these cells."""
    if genes is None:
        return np.bincount(entries.gene, minlength=entries.shape[1]) >= MIN_TEST_CELLS
    genes = np.asarray(genes)
    if genes.dtype != bool or genes.shape != entries.shape[1:]:
        raise ValueError(
            f"genes must be a boolean array of shape {entries.shape[1:]}, got {genes.dtype} "
            f"{genes.shape}; see within_gene_list"
        )
    if not genes.any():
        raise ValueError("genes selects no gene; within-gene scores need at least one")
    return genes


def log_choose(s: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Log of the binomial coefficient (s + u choose s)."""
    return -np.log1p(s + u) - betaln(s + 1, u + 1)


def log_beta_binomial(s: np.ndarray, u: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Log-probability of s spliced and u unspliced counts for p ~ Beta(a, b)."""
    return log_choose(s, u) + betaln(s + a, u + b) - betaln(a, b)


def pooled_ratio(spliced: Counts, unspliced: Counts) -> np.ndarray:
    """Pooled ratio of each gene, sum(s) / sum(s + u), with one pseudo-count at the overall ratio.

    Parameters
    ----------
    spliced, unspliced
        Counts (cells, genes).

    Returns
    -------
    Array (genes,) in (0, 1); a gene without counts gets the overall ratio.
    """
    s = np.asarray(spliced.sum(0), dtype=np.float64).ravel()
    u = np.asarray(unspliced.sum(0), dtype=np.float64).ravel()
    overall = (s.sum() + 0.5) / (s.sum() + u.sum() + 1)
    return (s + overall) / (s + u + 1)


def checked_pair(spliced: Counts, unspliced: Counts) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Raw counts of the same cells and genes."""
    if len(spliced.shape) != 2 or tuple(unspliced.shape) != tuple(spliced.shape):
        raise ValueError(
            f"spliced {tuple(spliced.shape)} and unspliced {tuple(unspliced.shape)} must both be "
            "(cells, genes); give the two layers of the same cells and genes"
        )
    return checked_counts("spliced", spliced), checked_counts("unspliced", unspliced)


class Entries:
    """The entries with n > 0 as flat arrays: gene, s, u, n, r; ``seen`` marks them."""

    def __init__(self, spliced: Counts, unspliced: Counts):
        self.shape = tuple(spliced.shape)
        s, u = (counts.toarray() for counts in checked_pair(spliced, unspliced))
        self.seen = s + u > 0
        if not self.seen.any():
            raise ValueError("spliced and unspliced hold no counts at all; give cells with counts")
        self.gene = np.nonzero(self.seen)[1]
        self.s, self.u = s[self.seen], u[self.seen]
        self.n = self.s + self.u
        self.r = self.s / self.n

    def per_gene(self, values: np.ndarray, where: np.ndarray) -> np.ndarray:
        """Sums (genes,) of an array over entries."""
        return np.bincount(self.gene[where], values[where], minlength=self.shape[1])

    def correlations(self, predicted: np.ndarray, where: np.ndarray):
        """Pearson r of each gene over the entries ``where`` (0 if constant), and their number."""
        count = self.per_gene(np.ones_like(self.n), where)
        safe = np.maximum(count, 1)

        def centred(x: np.ndarray) -> np.ndarray:
            return x - (self.per_gene(x, where) / safe)[self.gene]

        x, y = centred(predicted), centred(self.r)
        xx, yy, xy = (self.per_gene(v, where) for v in (x * x, y * y, x * y))
        # Rounding leaves a constant a variance of the order of 1e-33.
        varies = (xx > 1e-18 * safe) & (yy > 1e-18 * safe)
        return np.where(varies, xy / np.sqrt(np.where(varies, xx * yy, 1)), 0.0), count


def pooled_scores(name: str, r: np.ndarray, predicted: np.ndarray, baseline: np.ndarray) -> dict:
    """RMSE and Pearson r (0 for a constant) of a prediction and of its baseline."""
    report: dict[str, float] = {f"n_{name}": len(r)}
    for suffix, p in (("", predicted), ("_gene_mean", baseline)):
        rmse = np.sqrt(np.mean((p - r) ** 2)) if len(r) else np.nan
        report[f"rmse_{name}{suffix}"] = float(rmse)
        varies = len(r) > 1 and np.ptp(p) > 0 and np.ptp(r) > 0
        report[f"r_{name}{suffix}"] = float(np.corrcoef(p, r)[0, 1]) if varies else 0.0
    return report


def within_gene_scores(entries: Entries, p: np.ndarray, genes: np.ndarray) -> dict[str, float]:
    """Within-gene correlations, over n >= 1 and over n >= 2: weighted mean and median."""
    report = {"n_within_genes": int(genes.sum())}
    for suffix, low in (("", 1), ("_min_counts_2", 2)):
        r, count = entries.correlations(p, entries.n >= low)
        r, count = r[genes], count[genes]
        report[f"within_gene_r{suffix}"] = float(r @ count / max(count.sum(), 1))
        report[f"within_gene_r{suffix}_median"] = float(np.median(r))
    return report


def deviance_explained(entries: Entries, p: np.ndarray, mean: np.ndarray) -> float:
    """D2 = 1 - (l_sat - l_model) / (l_sat - l_mean), binomial; NaN where nothing is to explain."""
    saturated, model, null = (
        log_likelihood(entries.s, entries.u, ratio) for ratio in (entries.r, p, mean)
    )
    return 1 - (saturated - model) / (saturated - null) if saturated > null else float("nan")
