"""Coordinates of cells that are read from their total counts."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from sklearn.decomposition import PCA

from .counts import checked_counts, get_layer


def count_layer(adata: AnnData, name: str) -> sp.csr_array:
    """A layer of raw counts, checked."""
    advice = "splicedvae.data.prepare adds 'total' beside 'spliced' and 'unspliced'."
    return checked_counts(f"layer {name!r}", get_layer(adata, name, advice), adata.var_names)


def median_depth(counts: sp.csr_array) -> float:
    """Middle of the cells' sums."""
    return float(np.median(counts.sum(1)))


def log_normalised(counts: sp.csr_array, depth: float) -> np.ndarray:
    """Counts scaled to one depth in every cell, plus one, logged: dense (cells, genes)."""
    scale = depth / np.maximum(counts.sum(1), 1)
    return (sp.diags_array(scale) @ counts).log1p().toarray()


class LogPCA:
    """Principal components of totals, scaled to the median training depth, logged and centred.

    Parameters
    ----------
    train
        The cells that fix depth, centre and components; with ``layers["total"]``.
    n_components
        How many, at most.
    seed
        Of the decomposition.
    whiten
        Scale each component to variance 1 in `train`.
    """

    def __init__(self, train: AnnData, n_components: int, seed: int = 0, whiten: bool = False):
        self._depth = median_depth(count_layer(train, "total"))
        limit = min(n_components, train.n_vars, train.n_obs)
        self._pca = PCA(limit, whiten=whiten, random_state=seed).fit(self._log_normalise(train))

    def _log_normalise(self, adata: AnnData) -> np.ndarray:
        return log_normalised(count_layer(adata, "total"), self._depth)

    def transform(self, adata: AnnData) -> np.ndarray:
        """Coordinates of cells.

        Parameters
        ----------
        adata
            Cells with the training cells' genes and ``layers["total"]``.

        Returns
        -------
        Array (cells, components).
        """
        return self._pca.transform(self._log_normalise(adata))
