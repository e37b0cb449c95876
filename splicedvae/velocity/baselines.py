"""Velocity fields that no ratio model makes: nulls, and velocity carried over from a reference."""

from __future__ import annotations

import numpy as np
from anndata import AnnData
from scipy import sparse
from sklearn.neighbors import NearestNeighbors

from ..checks import categories, same_genes
from ..counts import checked_layers, get_layer
from ..ratios._features import LogPCA, count_layer


def velocity_baselines(
    train: AnnData,
    test: AnnData,
    cluster_key: str = "clusters",
    vkey: str = "velocity",
    n_neighbors: int = 30,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Fields made from the velocity of training cells, or of nothing, without a ratio model.

    Parameters
    ----------
    train
        Cells with a velocity from true counts.
    test
        Cells of the same genes with ``layers["total"]``, clusters, and a velocity to permute.
    cluster_key
        Column of ``obs`` with the clusters.
    vkey
        Name of the velocity.
    n_neighbors
        Training cells whose velocity a cell gets, the nearest on 30 principal components of
        log-normalised totals.
    seed
        Of what is random.

    Returns
    -------
    Arrays (test cells, genes): ``random vectors`` (each gene in the root mean square of train),
    ``permuted cells`` (the true velocities of other cells), ``constant velocity`` (the mean of
    train), ``cluster-mean velocity``, and ``velocity transfer``.

    Raises
    ------
    KeyError
        The velocity, the totals or the clusters are missing.
    ValueError
        Genes differ, a cell has no cluster, or a cluster of `test` is not in `train`.
    """
    same_genes(test, train.var_names, "train")
    rng = np.random.default_rng(seed)
    velocity, other = (np.asarray(get_layer(x, vkey), dtype=np.float64) for x in (train, test))
    known, labels = (categories(x, cluster_key, "cluster").astype(str) for x in (train, test))
    if absent := set(labels) - set(known):
        raise ValueError(f"train has no cell of the clusters {sorted(absent)}.")
    means = {name: velocity[known == name].mean(0) for name in np.unique(known)}
    space = LogPCA(count_layer(train, "total"), 30, seed)
    index = NearestNeighbors(n_neighbors=n_neighbors).fit(
        space.transform(count_layer(train, "total"))
    )
    neighbours = index.kneighbors(
        space.transform(count_layer(test, "total")), return_distance=False
    )
    scale = np.sqrt((velocity**2).mean(0))
    return {
        "random vectors": rng.normal(size=test.shape) * scale,
        "permuted cells": other[rng.permutation(test.n_obs)],
        "constant velocity": np.broadcast_to(velocity.mean(0), test.shape),
        "cluster-mean velocity": np.stack([means[name] for name in labels]),
        "velocity transfer": velocity[neighbours].mean(1),
    }


def halves(adata: AnnData, seed: int = 0) -> tuple[AnnData, AnnData]:
    """Part each cell's spliced and unspliced molecules at random into two cells of half the depth.

    What one half's velocity says of the other's is what measuring gives at half the depth. It is no
    ceiling: a prediction may be less noisy than a measurement.

    Parameters
    ----------
    adata
        Cells with raw counts in the layers ``spliced`` and ``unspliced``.
    seed
        Of the draw.

    Returns
    -------
    Two copies of the cells, whose layers ``spliced`` and ``unspliced`` add up to the cells' own.
    """
    rng = np.random.default_rng(seed)
    first, second = adata.copy(), adata.copy()
    for name, counts in zip(("spliced", "unspliced"), checked_layers(adata), strict=True):
        half = counts.copy()
        half.data = rng.binomial(counts.data.astype(int), 0.5).astype(np.float64)
        first.layers[name] = sparse.csr_matrix(half, dtype=np.float32)
        second.layers[name] = sparse.csr_matrix(counts - half, dtype=np.float32)
    return first, second
