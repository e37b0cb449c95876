"""VelOT (2026): optimal transport between windows of a pseudotime, smoothed by a network.

The package is the authors'. The pseudotime begins at a root, which it must be told.
"""

from __future__ import annotations

import numpy as np
from anndata import AnnData

from ...ratios._features import median_depth
from ..trajectories import _clusters
from ._shared import counts_of, expression, foreign


def velocity(
    cells: AnnData, root: str, cluster_key: str = "clusters", n_epochs: int = 200, seed: int = 0
) -> np.ndarray:
    """Velocity in principal components, carried to genes by the loadings.

    Parameters
    ----------
    cells
        Cells with raw counts in ``layers["total"]``, a neighbour graph and clusters.
    root
        The cluster where development begins.
    cluster_key
        Column of ``obs`` with the clusters.
    n_epochs
        Of the network that smooths; the package's default.
    seed
        Seed of the windows and the network.

    Returns
    -------
    Velocity (cells, genes), size-normalised counts per unit of VelOT's time.

    Raises
    ------
    ImportError
        The package ``velot`` is not installed.
    KeyError
        The clusters or the root are missing.
    """
    _clusters(cells, cluster_key, [root])
    counts = counts_of(cells)
    view = AnnData(counts.toarray(), obs=cells.obs[[cluster_key]])
    with foreign("velot", seed) as velot:
        velot.pp.normalize(view, target_sum=median_depth(counts))
        velot.pp.scale(view)
        velot.pp.pca(view, n_pcs=min(30, view.n_obs - 1, view.n_vars - 1))
        velot.pp.neighbors(view)
        velot.pp.pseudotime(view, root_cluster=root, cluster_key=cluster_key)
        velot.tl.velocity(
            view, n_epochs=n_epochs, project_umap=False, random_state=seed, verbose=False
        )
    scaled = view.obsm["velot_velocity_pca"] @ view.varm["PCs"].T
    logged = scaled * view.var["std"].to_numpy()
    return logged * (1 + expression(cells))  # d(log(1 + x)) = dx / (1 + x)
