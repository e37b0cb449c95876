r"""Pseudotime drift: the way that a cell's neighbours lie when only the later ones count.

A pseudotime orders cells. CellRank's ``PseudotimeKernel`` and ``CytoTRACEKernel`` turn the graph of
neighbours towards increasing pseudotime, and the drift of a cell is the step that is expected then,
less the step to its neighbours as they are,

.. math:: v_c = \sum_j (T_{cj} - W_{cj})\, x_j ,

with T the turned and W the plain transition probabilities and x the smoothed expression.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scanpy as sc
from anndata import AnnData
from sklearn.preprocessing import normalize

from ..trajectories import _check_connected, _clusters, _diffusion_pseudotime, _quiet_cellrank
from ._shared import counts_of, expression


def dpt(cells: AnnData, root: str, cluster_key: str = "clusters") -> np.ndarray:
    """Drift along diffusion pseudotime (Haghverdi et al. 2016); it must be told where to begin.

    Parameters
    ----------
    cells
        Cells with raw counts in ``layers["total"]``, a neighbour graph and an embedding.
    root
        The cluster where development begins.
    cluster_key
        Column of ``obs`` with the clusters.

    Returns
    -------
    Velocity (cells, genes), size-normalised counts per step.

    Raises
    ------
    ImportError
        CellRank is not installed.
    KeyError
        The clusters or the root are missing.
    ValueError
        The graph is in pieces, or the root is the only cluster.
    """
    in_root = (_clusters(cells, cluster_key, [root]) == root).to_numpy()

    def kernel(cr, view: AnnData):
        view.obs["dpt_pseudotime"] = _diffusion_pseudotime(view, in_root)[1]
        return cr.kernels.PseudotimeKernel(view, time_key="dpt_pseudotime")

    return _drift(cells, kernel)


def cytotrace(cells: AnnData) -> np.ndarray:
    """Drift from many expressed genes to few (CytoTRACE, Gulati et al. 2020); it is told nothing.

    Parameters
    ----------
    cells
        As for :func:`dpt`, without clusters.

    Returns
    -------
    Velocity (cells, genes), size-normalised counts per step.

    Raises
    ------
    ImportError
        CellRank is not installed.
    ValueError
        The graph is in pieces.
    """

    def kernel(cr, view: AnnData):
        from scvelo.preprocessing.moments import get_moments

        sc.pp.normalize_total(view)
        sc.pp.log1p(view)
        view.layers["Ms"] = get_moments(view)
        return cr.kernels.CytoTRACEKernel(view).compute_cytotrace("Ms")

    return _drift(cells, kernel)


def _drift(cells: AnnData, make: Callable) -> np.ndarray:
    view = AnnData(
        counts_of(cells),
        obs=cells.obs[[]],
        obsp={name: cells.obsp[name] for name in ("connectivities", "distances")},
        uns={"neighbors": cells.uns["neighbors"]},
    )
    _check_connected(view.obsp["connectivities"])
    plain = normalize(view.obsp["connectivities"], norm="l1")
    with _quiet_cellrank() as cr:
        kernel = make(cr, view).compute_transition_matrix("soft", show_progress_bar=False)
        return (kernel.transition_matrix - plain) @ expression(cells)
