"""Trajectories from a latent space, and from a velocity, by CellRank and scanpy."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from scipy import sparse

from ..checks import column, coordinates
from ..ratios._features import count_layer
from .steady_state import quiet_scvelo


@contextmanager
def _quiet_cellrank() -> Iterator:
    """CellRank without its messages and those of the libraries below it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import cellrank
        except ImportError as error:
            raise ImportError(
                "Trajectories need CellRank: pip install 'splicedvae[velocity]'."
            ) from error
        logger = logging.getLogger("cellrank")  # its own from CellRank 2.1 on, before scanpy's
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            with sc.settings.verbosity.override("error"):
                yield cellrank
        finally:
            logger.setLevel(level)


def _clusters(adata: AnnData, cluster_key: str, named: Sequence[str]) -> pd.Series:
    """Clusters of the cells, among them those that are named, and others too."""
    clusters = (
        column(adata, cluster_key, "cluster").astype("category").cat.remove_unused_categories()
    )
    found = list(clusters.cat.categories)
    if missing := [name for name in named if name not in found]:
        raise KeyError(f"obs[{cluster_key!r}] has no cluster {missing}; it has {found}.")
    if set(found) == set(named):
        raise ValueError(f"obs[{cluster_key!r}] has no cluster but {found}: no way leads there.")
    return clusters


def _velocity_graph(adata: AnnData, vkey: str) -> sparse.csr_matrix:
    if f"{vkey}_graph" not in adata.uns:
        raise KeyError(f"There is no uns['{vkey}_graph']; run sv.velocity.fit with vkey={vkey!r}.")
    return sparse.csr_matrix(adata.uns[f"{vkey}_graph"])


def _check_connected(graph: sparse.csr_matrix) -> None:
    pieces = sparse.csgraph.connected_components(graph, directed=False, return_labels=False)
    if pieces > 1:
        raise ValueError(
            f"The neighbour graph is in {pieces} pieces, and nothing leads from one to another; "
            "take more neighbours, or analyse the pieces one by one."
        )


def latent_trajectories(
    adata: AnnData,
    use_rep: str,
    root: str,
    cluster_key: str = "clusters",
    basis: str = "umap",
    layer: str = "total",
    n_neighbors: int = 30,
) -> None:
    r"""Trajectories from a latent space: PAGA, two pseudotimes, and their arrows on an embedding.

    Diffusion pseudotime is the distance to a root cell in diffusion components scaled by
    :math:`\lambda / (1 - \lambda)` (Haghverdi et al. 2016). The root cell is the cell of the
    cluster `root` that is, by this distance, farthest from the mean of all other clusters.
    Arrows are those of CellRank's ``PseudotimeKernel`` and ``CytoTRACEKernel``, which turn the
    graph of neighbours in the latent space towards increasing pseudotime.

    Parameters
    ----------
    adata
        Cells × genes. Added or replaced are ``uns["paga"]``; ``obs`` ``dpt_pseudotime`` and
        ``ct_pseudotime``, both from 0 to 1; ``uns["iroot"]``, the root cell's position; and
        ``obsm`` ``pseudotime_fwd_<basis>`` and ``cytotrace_fwd_<basis>``, which scVelo draws if
        they are named as its `vkey`. Its own neighbour graph stays as it is.
    use_rep
        The latent space ``obsm[use_rep]``.
    root
        The cluster where trajectories begin.
    cluster_key
        Column of ``obs`` with the clusters.
    basis
        The embedding ``obsm["X_<basis>"]``.
    layer
        Raw counts of which CytoTRACE counts the expressed genes.
    n_neighbors
        Neighbours of a cell in the latent space, itself counted.

    Raises
    ------
    ImportError
        CellRank is not installed.
    KeyError
        The latent space, embedding, layer, clusters or root cluster are missing.
    ValueError
        There is one cluster only, the latent space or embedding is not finite, the layer does not
        hold raw counts, or the neighbour graph is in pieces.
    """
    clusters = _clusters(adata, cluster_key, [root])
    for name in (use_rep, f"X_{basis}"):
        coordinates(adata, name)
    cells = AnnData(
        sparse.csr_matrix(count_layer(adata, layer), dtype=np.float32),
        obs=clusters.to_frame(cluster_key),
        obsm={name: np.asarray(adata.obsm[name]) for name in (use_rep, f"X_{basis}")},
    )
    with _quiet_cellrank() as cr:
        from scvelo.preprocessing.moments import get_moments

        sc.pp.normalize_total(cells)
        sc.pp.log1p(cells)
        sc.pp.neighbors(cells, n_neighbors=n_neighbors, use_rep=use_rep)
        _check_connected(cells.obsp["connectivities"])
        sc.tl.paga(cells, groups=cluster_key)
        iroot, cells.obs["dpt_pseudotime"] = _diffusion_pseudotime(cells, clusters == root)
        cells.layers["Ms"] = get_moments(cells)
        pseudotime = cr.kernels.PseudotimeKernel(cells, time_key="dpt_pseudotime")
        cytotrace = cr.kernels.CytoTRACEKernel(cells).compute_cytotrace("Ms")
        for key, kernel in (("pseudotime_fwd", pseudotime), ("cytotrace_fwd", cytotrace)):
            kernel.compute_transition_matrix("soft", show_progress_bar=False)
            cr.kernels.utils.TmatProjection(kernel, basis).project(key_added=key)
            adata.obsm[f"{key}_{basis}"] = cells.obsm[f"{key}_{basis}"]
    adata.uns["paga"], adata.uns["iroot"] = cells.uns["paga"], iroot
    adata.obs[["dpt_pseudotime", "ct_pseudotime"]] = cells.obs[["dpt_pseudotime", "ct_pseudotime"]]


def _diffusion_pseudotime(cells: AnnData, in_root: np.ndarray) -> tuple[int, np.ndarray]:
    """Root cell, and distance to it over the largest.

    scanpy's own distance leaves out components with an eigenvalue of 0.9994 or more, the slowest
    ones, along which a long trajectory runs: on simulated cells its rank correlation with time
    is then 0.32 to 0.40 instead of 0.97 to 0.99. On cells without such components they agree.
    """
    sc.tl.diffmap(cells)
    values = cells.uns["diffmap_evals"][1:].astype(np.float64)  # the first one is stationary
    x = cells.obsm["X_diffmap"][:, 1:] * (values / (1 - values))
    from_rest = np.linalg.norm(x - x[~in_root].mean(0), axis=1)
    iroot = int(np.argmax(np.where(in_root, from_rest, -1)))
    time = np.linalg.norm(x - x[iroot], axis=1)
    return iroot, time / time.max()


def fate_probabilities(
    adata: AnnData,
    vkey: str = "velocity",
    terminal: Sequence[str] = ("Alpha", "Beta", "Delta", "Epsilon"),
    cluster_key: str = "clusters",
    weight: float = 0.8,
) -> None:
    """Probability that a cell, led by a velocity, ends in each terminal cluster, by CellRank.

    A random walk takes a step along the velocity graph, with scVelo's transition probabilities,
    with probability `weight`, else one of CellRank's ``ConnectivityKernel``; it ends in the first
    terminal cluster that it meets. Terminal clusters are given and not predicted from the walk,
    so that the probabilities of several velocities can be compared.

    Parameters
    ----------
    adata
        Cells with a velocity graph, see :func:`splicedvae.velocity.fit`, and the neighbour graph
        below it. CellRank adds, or replaces, ``obsm["lineages_fwd"]`` (cells, terminal clusters),
        whose rows sum to 1, and ``obs["term_states_fwd"]``.
    vkey
        Name of the velocity.
    terminal
        Clusters in which trajectories end.
    cluster_key
        Column of ``obs`` with the clusters.
    weight
        Share of the velocity's steps, above 0 and below 1.

    Raises
    ------
    ImportError
        CellRank is not installed.
    KeyError
        The velocity graph, the neighbour graph, the clusters or a terminal cluster is missing.
    ValueError
        There is no cluster but the terminal ones, the velocity graph is not finite or of other
        cells, `weight` is not a share, or the neighbour graph is in pieces.
    """
    clusters = _clusters(adata, cluster_key, terminal)
    graph = _velocity_graph(adata, vkey)
    if "connectivities" not in adata.obsp:
        raise KeyError("There is no neighbour graph in obsp; run sv.velocity.embed.")
    if graph.shape[0] != adata.n_obs or not np.isfinite(graph.data).all():
        raise ValueError(
            f"uns['{vkey}_graph'] joins {graph.shape[0]} cells, here are {adata.n_obs}, and "
            f"{(~np.isfinite(graph.data)).sum()} of its values are not finite; run "
            "sv.velocity.fit on these cells, and look for missing velocities."
        )
    if not 0 < weight < 1:
        raise ValueError(f"weight={weight} is not above 0 and below 1.")
    _check_connected(adata.obsp["connectivities"])
    with _quiet_cellrank() as cr, quiet_scvelo() as scv:
        # not CellRank's VelocityKernel: that of 2.0.7 fails with numpy 2.3 (CellRank issue 1272)
        velocity = cr.kernels.PrecomputedKernel(scv.utils.get_transition_matrix(adata, vkey), adata)
        neighbours = cr.kernels.ConnectivityKernel(adata).compute_transition_matrix()
        estimator = cr.estimators.GPCCA(weight * velocity + (1 - weight) * neighbours)
        estimator.set_terminal_states(clusters.cat.set_categories(terminal))
        estimator.compute_fate_probabilities(use_petsc=False, tol=1e-8, show_progress_bar=False)


def transition_confidence(
    adata: AnnData, vkey: str = "velocity", cluster_key: str = "clusters"
) -> pd.DataFrame:
    """Directed transitions between clusters that a velocity supports, by scVelo's PAGA.

    Parameters
    ----------
    adata
        Cells with a velocity graph, see :func:`splicedvae.velocity.fit`; they stay as they are.
    vkey
        Name of the velocity.
    cluster_key
        Column of ``obs`` with the clusters.

    Returns
    -------
    Confidence of the way from a row's cluster to a column's; 0 for none.

    Raises
    ------
    KeyError
        The velocity graph or the clusters are missing.
    ValueError
        There is one cluster only.
    """
    clusters = _clusters(adata, cluster_key, [])
    if len(clusters.cat.categories) < 2:
        raise ValueError(f"obs[{cluster_key!r}] has one cluster only; a transition needs two.")
    _velocity_graph(adata, vkey)
    cells = adata.copy()
    with quiet_scvelo() as scv:
        scv.tl.paga(cells, groups=cluster_key, vkey=vkey)
        return scv.get_df(cells, "paga/transitions_confidence").T
