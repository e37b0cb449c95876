"""What other protocols would have counted of the same cells: simulated from real molecules."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from anndata import AnnData
from scipy import sparse

Counts = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]


def _thinned(s: np.ndarray, u: np.ndarray, rng: np.random.Generator, *shares: float) -> np.ndarray:
    return sum(rng.binomial(x, share) for x, share in zip((s, u), shares, strict=True))


def _half_the_genes(s: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Whole numbers of a random half of the genes; 0 for the others."""
    return s * (rng.permutation(s.shape[1]) < s.shape[1] / 2)


def _spots(s: np.ndarray, u: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Five random cells share a spot, and a tenth of their molecules is caught."""
    cells = rng.integers(len(s), size=(len(s), 5))
    return rng.binomial((s + u)[cells].sum(1), 0.1)


#: Counts that a user has, from spliced and unspliced counts (cells, genes), by protocol.
CHEMISTRIES: dict[str, Counts] = {
    "whole cells, 3′, introns counted": lambda s, u, rng: s + u,
    "the same, a third as deep": lambda s, u, rng: _thinned(s, u, rng, 0.33, 0.33),
    "the same, one molecule in thirty": lambda s, u, rng: _thinned(s, u, rng, 0.03, 0.03),
    "exons alone (spliced counts)": lambda s, u, rng: s,
    "nuclei, also of a multiome": lambda s, u, rng: _thinned(s, u, rng, 0.15, 1.0),
    "probes for half of the genes, on exons (Flex)": lambda s, u, rng: _half_the_genes(s, rng),
    "spots of five cells (spatial)": _spots,
}


def as_counted_by(cells: AnnData, name: str, seed: int = 0) -> AnnData:
    """Give cells the counts that another protocol would have found, and nothing else.

    Parameters
    ----------
    cells
        With spliced and unspliced counts.
    name
        A key of ``CHEMISTRIES``.
    seed
        Of all draws.

    Returns
    -------
    Cells with at least one count, which are in X.
    """
    s, u = (cells.layers[form].toarray().astype(int) for form in ("spliced", "unspliced"))
    counts = CHEMISTRIES[name](s, u, np.random.default_rng(seed))
    counted = counts.sum(1) > 0
    counts = sparse.csr_matrix(counts[counted], dtype=np.float32)
    return AnnData(counts, obs=cells.obs.loc[counted, []], var=cells.var[[]])
