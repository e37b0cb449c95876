"""Coordinates of cells that are read from their counts."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from anndata import AnnData
from sklearn.decomposition import PCA

from ..checks import check_cells
from ..counts import checked_counts, get_layer, named_layers, total_counts

MIN_VARIANCE = 1e-6  # of a component: cells that are alike leave the others to rounding


def count_layer(
    adata: AnnData, name: str, forms: tuple[str, str] = ("spliced", "unspliced")
) -> sp.csr_array:
    """A layer of raw counts, checked; the total is composed where only its two forms are there."""
    check_cells(adata)
    if name == "total" and name not in (held := named_layers(adata)) and set(forms) <= set(held):
        return sp.csr_array(total_counts(adata, *forms), dtype=np.float64)
    advice = "splicedvae.data.prepare adds 'total' beside spliced and unspliced counts."
    return checked_counts(f"layer {name!r}", get_layer(adata, name, advice), adata.var_names)


def median_depth(counts: sp.csr_array) -> float:
    """Middle of the cells' sums."""
    return float(np.median(np.asarray(counts.sum(1))))


def log_normalised(counts: sp.csr_array, depth: float) -> sp.csr_array:
    """Counts scaled to one depth in every cell, plus one, logged, (cells, genes)."""
    scale = depth / np.maximum(np.asarray(counts.sum(1)).ravel(), 1)
    return sp.csr_array(sp.diags_array(scale) @ counts).log1p()


class LogPCA:
    """Principal components of counts, scaled to the median training depth, logged and centred.

    Parameters
    ----------
    train
        Raw counts of the training cells (cells, genes), which fix depth, centre and components.
    n_components
        How many, at most.
    seed
        Of the decomposition.
    whiten
        Scale each component to variance 1 in `train`.

    Attributes
    ----------
    depth
        Median sum of a training cell's counts.
    mean, std
        Of each gene's log-normalised count over the training cells, (genes,).
    directions
        By which centred log-normalised counts become coordinates, (genes, components).
    loadings
        Correlation of each gene's log-normalised count with each component, (genes, components).
    """

    def __init__(self, train: sp.csr_array, n_components: int, seed: int = 0, whiten: bool = False):
        self.depth = median_depth(train)
        own = log_normalised(train, self.depth).astype(np.float64)
        self.mean = np.asarray(own.mean(0)).ravel()
        variance = np.asarray(own.multiply(own).mean(0)).ravel() - self.mean**2
        self.std = np.sqrt(np.maximum(variance, 1e-4))
        self.directions = self.loadings = np.zeros((len(self.mean), 0))
        if k := min(n_components, min(own.shape) - 1):
            pca = PCA(k, svd_solver="arpack", random_state=seed).fit(own)
            kept = pca.explained_variance_ > MIN_VARIANCE
            axes, size = pca.components_[kept].T, np.sqrt(pca.explained_variance_[kept])
            self.directions = axes / size if whiten else axes
            self.loadings = axes * size / self.std[:, None]

    def transform(self, counts: sp.csr_array) -> np.ndarray:
        """Coordinates of cells.

        Parameters
        ----------
        counts
            Raw counts of cells with the training cells' genes, (cells, genes).

        Returns
        -------
        Array (cells, components).
        """
        own = log_normalised(counts, self.depth)
        return own @ self.directions - self.mean @ self.directions
