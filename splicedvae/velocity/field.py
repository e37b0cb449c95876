"""A velocity field: embed cells, fit it on two count layers, or project vectors to arrows."""

from __future__ import annotations

import logging

import numpy as np
import scanpy as sc
from anndata import AnnData
from scipy import sparse
from tqdm.auto import tqdm

from ..checks import check_anndata, check_cells, coordinates, same_genes, shown, unchanged_on_error
from ..counts import (
    checked_values,
    get_layer,
    named_layers,
    tell_missing_form,
    total_counts,
    unnormalised,
)
from .steady_state import DELAY, MIN_GAMMA, MIN_R2, PERCENTILE, quiet_scvelo, slopes, smoothed

logger = logging.getLogger("splicedvae")

MAX_LOGGED = 20  # above it, nothing is the logarithm of a count


def _tell_empty_cells(counts: sparse.csr_array, where: str) -> None:
    if n := int((np.asarray(counts.sum(axis=1)).ravel() == 0).sum()):
        logger.warning(
            "%d cells have no counts in %s: where they lie, and where they go, says nothing.",
            n,
            where,
        )


def _new_names(slot: str, held, names: list[str], overwrite: bool) -> None:
    taken = [name for name in names if name in held]
    if taken and not overwrite:
        raise ValueError(
            f"{slot} already holds {', '.join(taken)}; give overwrite=True, or work on a copy."
        )


def embed(
    adata: AnnData,
    layer: str = "total",
    n_pcs: int = 30,
    n_neighbors: int = 30,
    seed: int = 0,
    umap: bool = True,
    overwrite: bool = False,
    progress: bool = True,
) -> None:
    """Principal components, neighbour graph and UMAP of log-normalised counts, by scanpy.

    Parameters
    ----------
    adata
        Cells × genes; ``obsm["X_pca"]``, ``obsm["X_umap"]``, ``uns["neighbors"]`` and its graphs
        in ``obsp`` are added.
    layer
        Raw counts to embed; ``"total"`` is composed of the layers ``spliced`` and ``unspliced`` if
        it is missing, and not written.
    n_pcs, n_neighbors
        Components, and neighbours of a cell, itself counted.
    seed
        Of components, graph and UMAP.
    umap
        False leaves an embedding that is there as it is.
    overwrite
        Replace an embedding or a graph that is there.
    progress
        Show a bar, if it takes long.

    Raises
    ------
    KeyError
        There is no such layer.
    ValueError
        It holds what no count can be, or there is an embedding or a graph already and `overwrite`
        is False.
    """
    check_cells(adata)
    held = named_layers(adata)
    if layer == "total" and layer not in held and {"spliced", "unspliced"} <= set(held):
        counts = total_counts(adata)
    else:
        counts = _abundance(adata, layer)
    embeddings = ["X_pca", "X_umap"] if umap else ["X_pca"]
    _new_names("obsm", adata.obsm, embeddings, overwrite)
    _new_names("uns", adata.uns, ["neighbors"], overwrite)
    _new_names("obsp", adata.obsp, ["connectivities", "distances"], overwrite)
    if not counts.sum():
        raise ValueError(f"Layer {layer!r} holds no count; name the one that does with layer=.")
    _tell_empty_cells(counts, f"layer {layer!r}")
    if adata.n_obs < 3 or adata.n_vars < 3:
        raise ValueError(f"{adata.n_obs} cells of {adata.n_vars} genes are too few to embed.")
    cells = AnnData(counts, obs=adata.obs[[]], var=adata.var[[]])
    sc.pp.normalize_total(cells)
    sc.pp.log1p(cells)
    n_pcs = min(n_pcs, cells.n_obs - 1, cells.n_vars - 1)
    steps = {
        "components": lambda: sc.pp.pca(cells, n_comps=n_pcs, random_state=seed),
        "graph": lambda: sc.pp.neighbors(cells, n_neighbors=n_neighbors, random_state=seed),
    }
    if umap:
        steps["UMAP"] = lambda: sc.tl.umap(cells, random_state=seed)
    with tqdm(total=len(steps), delay=DELAY, disable=not progress) as bar:
        for name, step in steps.items():
            bar.set_description(name, refresh=False)
            step()
            bar.update()
    with unchanged_on_error(adata):
        for name in embeddings:
            adata.obsm[name] = cells.obsm[name]
        adata.uns["neighbors"] = cells.uns["neighbors"]
        for name in ("connectivities", "distances"):
            adata.obsp[name] = cells.obsp[name]


def embed_parts(adata: AnnData, *parts: np.ndarray) -> list[AnnData]:
    """Parts of the cells, each with a graph of its own, on one UMAP: their arrows share a compass.

    Parameters
    ----------
    adata
        Cells × genes with counts, as :func:`embed` reads them; an embedding of theirs is not read.
    *parts
        Positions of cells.

    Returns
    -------
    A copy of each part, with ``layers["total"]``.
    """
    total, layers = total_counts(adata), named_layers(adata)
    whole = AnnData(total, obs=adata.obs, var=adata.var, layers=layers | {"total": total.copy()})
    embed(whole)
    cells = [whole[positions].copy() for positions in parts]
    for part in cells:
        embed(part, umap=False, overwrite=True)
    return cells


def check_graph(adata: AnnData, basis: str = "umap") -> None:
    """Refuse cells without an embedding, or without a neighbour graph of these very cells.

    Parameters
    ----------
    adata
        The cells.
    basis
        The embedding ``obsm["X_<basis>"]``.

    Raises
    ------
    KeyError
        The embedding or the graph is missing.
    ValueError
        Many neighbours are missing, as in a subset of the cells that the graph was built on, or the
        embedding or the graph is missing or infinite in a cell.
    """
    check_cells(adata)
    coordinates(adata, f"X_{basis}", "; run sv.velocity.embed or name a basis.")
    again = "Run sv.velocity.embed(adata, overwrite=True) on these cells."
    if "neighbors" not in adata.uns or "distances" not in adata.obsp:
        raise KeyError("There is no neighbour graph in uns['neighbors']; run sv.velocity.embed.")
    for name in ("connectivities", "distances"):
        if name not in adata.obsp:
            continue
        graph = sparse.csr_matrix(adata.obsp[name])
        if not (finite := np.isfinite(graph.data)).all():
            rows = np.repeat(np.arange(adata.n_obs), np.diff(graph.indptr))
            bad = adata.obs_names[np.unique(rows[~finite])]
            raise ValueError(
                f"obsp[{name!r}] holds values that are missing or infinite, in {len(bad)} cells "
                f"({shown(bad)}). {again}"
            )
    try:
        wanted = adata.uns["neighbors"]["params"]["n_neighbors"]
    except (KeyError, TypeError, IndexError):  # a graph of another tool
        message = f"uns['neighbors']['params'] does not say n_neighbors. {again}"
        raise ValueError(message) from None
    wanted = int(wanted) - 1
    found = sparse.csr_matrix(adata.obsp["distances"]).getnnz() / adata.n_obs
    if found < 0.95 * wanted:  # a cell may lose a neighbour at distance 0, not many
        raise ValueError(
            f"The neighbour graph was built on other cells: it has {found:.1f} neighbours a cell "
            f"and should have {wanted}. Run sv.velocity.embed(adata, overwrite=True) on these."
        )


def _abundance(adata: AnnData, name: str) -> sparse.csr_matrix:
    """A layer of counts, or of expected counts: finite and not negative.

    A layer that was size-normalised or logged is turned back into the counts it came from: taken
    for expected counts, it would have the noise of counting added a second time.
    """
    layer = sparse.csr_matrix(
        checked_values(f"layer {name!r}", get_layer(adata, name)), dtype=np.float32, copy=True
    )
    bad = ~(np.isfinite(layer.data) & (layer.data >= 0))
    if bad.any():
        gene = adata.var_names[layer.indices[np.argmax(bad)]]
        raise ValueError(
            f"Layer {name!r} holds {layer.data[bad][0]} in gene {gene}; give counts: finite, >= 0."
        )
    if not layer.nnz or not layer.data.any():
        raise ValueError(f"Layer {name!r} holds no count at all; name one that does.")
    if layer.data.max() < MAX_LOGGED and (counts := unnormalised(layer.expm1())) is not None:
        how = "logged and size-normalised"
    elif (counts := unnormalised(layer)) is not None:
        how = "size-normalised"
    else:
        return layer
    logger.info(
        "Layer %r is %s: each cell's values are multiples of one number. The counts are read.",
        name,
        how,
    )
    return counts.astype(np.float32)


def _concentration(adata: AnnData, name: str) -> np.ndarray:
    """A column of ``var`` that holds positive numbers."""
    if name not in adata.var:
        raise KeyError(f"There is no column {name!r} in var; there are {sorted(adata.var)}.")
    values = adata.var[name].to_numpy(dtype=float)
    if (bad := ~(np.isfinite(values) & (values > 0))).any():
        raise ValueError(
            f"var[{name!r}] holds {values[bad][0]} for gene {adata.var_names[np.argmax(bad)]}; "
            "give concentrations: finite, > 0."
        )
    return values


def fit(
    adata: AnnData,
    spliced: str = "spliced",
    unspliced: str = "unspliced",
    vkey: str = "velocity",
    basis: str = "umap",
    reference: AnnData | None = None,
    concentration: str | None = None,
    n_draws: int = 20,
    seed: int = 0,
    overwrite: bool = False,
    progress: bool = True,
) -> None:
    r"""Velocity of cells from two layers of counts, by scVelo's stochastic model.

    .. math:: v = M_u - \gamma M_s

    Layers are size-normalised, one by one, and averaged over the neighbour graph that is there
    (:math:`M_s` and :math:`M_u`, scVelo's first moments); they themselves stay as they are.

    The slope :math:`\gamma` is read from the cells with the most counts and from second
    moments, both of which expect the noise of counting. Expected counts, such as ratio × total,
    have less of it and bias the slope, so it is then the mean over draws of counts with these
    expectations, while the moments remain those of the expectations.

    Parameters
    ----------
    adata
        Cells × genes with a neighbour graph and an embedding, see :func:`embed`. Added are
        ``layers`` ``Ms``, ``Mu`` and `vkey`; ``var`` ``<vkey>_gamma``, ``<vkey>_qreg_ratio``,
        ``<vkey>_r2`` and ``<vkey>_genes``; and what :func:`project` adds.
    spliced, unspliced
        Layers of counts, or of expected counts such as those of
        :meth:`splicedvae.SplicedVAE.impute_layers`. Counts that scVelo or scanpy have
        size-normalised or logged are turned back into counts, and the log says so.
    vkey
        Name of the velocity.
    basis
        The embedding ``obsm["X_<basis>"]`` to project on.
    reference
        Cells of the same genes with a fit of their own under `vkey`: its slopes and velocity
        genes are used in place of new ones.
    concentration
        Column of ``var`` with each gene's beta-binomial concentration, such as
        ``"concentration_splicedvae"``: draws then vary as real counts do. None takes them for
        binomial, which makes slopes too steep.
    n_draws
        Draws of counts for the slopes, if a layer holds fractions: spliced is (beta-)binomial
        given the total, which is Poisson if it is not whole; a fraction beside counts, as from
        spliced counts alone, is Poisson. 0 uses the layers as they are, which is what scVelo
        would do.
    seed
        Of the draws.
    overwrite
        Replace layers of these names.
    progress
        Show a bar, if it takes long.

    Raises
    ------
    KeyError
        A layer, the column, the embedding, the graph or the reference's fit is missing.
    ValueError
        A layer holds what no count, or the column what no concentration can be; the graph is of
        other cells; genes differ from the reference's; there are not two velocity genes; or a
        layer would be overwritten.
    """
    check_graph(adata, basis)
    if "connectivities" not in adata.obsp:
        raise KeyError("There is no obsp['connectivities']; run sv.velocity.embed.")
    if spliced == unspliced:
        raise ValueError(f"spliced and unspliced are both layer {spliced!r}.")
    _new_names("layers", adata.layers, ["Ms", "Mu", vkey], overwrite)
    s, u = _abundance(adata, spliced), _abundance(adata, unspliced)
    if abs(s - u).max() == 0:
        raise ValueError(
            f"Layers {spliced!r} and {unspliced!r} hold the same values: one is a copy of the "
            "other. Name the layers that were counted."
        )
    tell_missing_form(adata, (s, u), "Their velocity says nothing.")
    _tell_empty_cells(s + u, f"layers {spliced!r} and {unspliced!r}")
    spread = None if concentration is None else _concentration(adata, concentration)
    if reference is not None:
        check_anndata(reference, "reference")
        same_genes(adata, reference.var_names, "the reference")
        if missing := {f"{vkey}_gamma", f"{vkey}_genes"} - set(reference.var):
            raise KeyError(f"The reference has no fit: var {sorted(missing)} is missing.")
    if reference is None:
        gamma, top, r2 = slopes(adata, s, u, n_draws, seed, spread, progress)
        genes = (r2 > MIN_R2) & (top > MIN_GAMMA)
        gamma = np.where(genes, gamma, top)
    else:
        gamma = reference.var[f"{vkey}_gamma"].to_numpy()
        genes = reference.var[f"{vkey}_genes"].to_numpy()
    if genes.sum() < 2:
        raise ValueError(
            f"There are {genes.sum()} velocity genes (r² above {MIN_R2} and slope above "
            f"{MIN_GAMMA}) in layers {spliced!r} and {unspliced!r}; velocity needs two. "
            "Are these the spliced and unspliced counts of the same cells?"
        )
    cells = smoothed(adata, s, u)
    velocity = cells.layers["Mu"] - gamma.astype(np.float32) * cells.layers["Ms"]
    with unchanged_on_error(adata):
        if reference is None:
            adata.var[f"{vkey}_qreg_ratio"], adata.var[f"{vkey}_r2"] = top, r2
        adata.layers["Ms"], adata.layers["Mu"] = cells.layers["Ms"], cells.layers["Mu"]
        adata.var[f"{vkey}_gamma"] = gamma
        project(adata, velocity, genes, vkey=vkey, basis=basis, overwrite=True)
        adata.uns[f"{vkey}_params"]["perc"] = [5, PERCENTILE]


def project(
    adata: AnnData,
    velocity: np.ndarray,
    genes: np.ndarray | None = None,
    vkey: str = "velocity",
    basis: str = "umap",
    xkey: str = "Ms",
    overwrite: bool = False,
) -> None:
    r"""Write a velocity, its graph of transitions and its arrows on an embedding, by scVelo.

    As for its stochastic model, transitions from cell i to its neighbour j follow from cosines of
    signed square roots, :math:`\cos\big(\sqrt{\pm\,x_j - x_i},\, \sqrt{\pm\,v_i}\big)`.

    Parameters
    ----------
    adata
        Cells × genes with a neighbour graph, an embedding and the layer `xkey`. Added are
        ``layers[vkey]``, ``var["<vkey>_genes"]``, ``uns["<vkey>_graph"]``,
        ``uns["<vkey>_graph_neg"]``, ``uns["<vkey>_params"]``, ``obs["<vkey>_self_transition"]``
        and ``obsm["<vkey>_<basis>"]``.
    velocity
        (cells, genes); a gene may be NaN in all cells, as where scVelo has not fitted it.
    genes
        Boolean (genes,): those that decide on transitions; None for all without NaN.
    vkey
        Name of the velocity.
    basis
        The embedding ``obsm["X_<basis>"]``.
    xkey
        The layer in which cells lie where velocity points from.
    overwrite
        Replace a layer of that name.

    Raises
    ------
    KeyError
        The embedding, the graph or the layer `xkey` is missing.
    ValueError
        Shapes disagree, a gene is NaN in some cells only, velocity points nowhere, the graph is of
        other cells, or a layer would be overwritten.
    """
    check_graph(adata, basis)
    _new_names("layers", adata.layers, [vkey], overwrite)
    where = checked_values(f"layer {xkey!r}", get_layer(adata, xkey))
    if not np.isfinite(where.data).all():
        gene = adata.var_names[where.indices[np.argmin(np.isfinite(where.data))]]
        raise ValueError(f"Layer {xkey!r} is missing or infinite in gene {gene}; compute it again.")
    velocity = velocity.toarray() if sparse.issparse(velocity) else np.asarray(velocity)
    if velocity.dtype.kind not in "iuf":
        raise ValueError(f"velocity holds values of type {velocity.dtype}; give numbers.")
    fitted = finite_genes(velocity, adata)
    if genes is not None and (
        np.shape(genes) != (adata.n_vars,) or np.asarray(genes).dtype.kind != "b"
    ):
        raise ValueError(
            f"genes has shape {np.shape(genes)} and type {np.asarray(genes).dtype}; give True or "
            f"False for each of the {adata.n_vars} genes, such as adata.var_names.isin(names)."
        )
    genes = fitted if genes is None else fitted & np.asarray(genes, dtype=bool)
    if not genes.any() or not np.ptp(velocity[:, genes], axis=1).any():
        raise ValueError(
            f"Velocity {vkey!r} points nowhere: no gene has values, or in no cell do they differ."
        )
    with unchanged_on_error(adata):
        adata.layers[vkey] = velocity.astype(np.float32)
        adata.var[f"{vkey}_genes"] = genes
        adata.uns[f"{vkey}_params"] = {"mode": "stochastic"}  # the graph reads it: square roots
        held = adata.obsm[f"X_{basis}"]
        adata.obsm[f"X_{basis}"] = np.asarray(held)  # scVelo reads no table
        with quiet_scvelo() as scv:
            scv.tl.velocity_graph(adata, vkey=vkey, xkey=xkey, n_jobs=1, show_progress_bar=False)
            scv.tl.velocity_embedding(adata, basis=basis, vkey=vkey)
        adata.obsm[f"X_{basis}"] = held
        arrows = f"{vkey}_{basis}"  # NaN where a cell has no way to go
        adata.obsm[arrows] = np.nan_to_num(adata.obsm[arrows])


def finite_genes(velocity: np.ndarray, adata: AnnData) -> np.ndarray:
    """Genes that have a velocity in every cell.

    Parameters
    ----------
    velocity
        (cells, genes).
    adata
        The cells, for their shape and the genes' names.

    Returns
    -------
    Boolean (genes,); False where a gene is NaN in all cells.

    Raises
    ------
    ValueError
        Shapes disagree, or a gene is missing or infinite in some cells only.
    """
    if np.shape(velocity) != adata.shape:
        raise ValueError(f"velocity has shape {np.shape(velocity)}; the cells have {adata.shape}.")
    finite = np.isfinite(velocity)
    partly = finite.any(0) != finite.all(0)
    if partly.any() or np.isinf(velocity).any():
        gene = np.argmax(partly | np.isinf(velocity).any(0))
        raise ValueError(
            f"velocity is missing or infinite in {(~finite[:, gene]).sum()} of {len(finite)} cells "
            f"of gene {adata.var_names[gene]}; a gene has a velocity in all cells or in none."
        )
    return finite.all(0)


def direction_classes(vectors: np.ndarray, rotation: float = 0.0) -> np.ndarray:
    """Quadrant of the compass that each arrow points to (Wang & Zheng 2021).

    Parameters
    ----------
    vectors
        Arrows on an embedding (cells, 2).
    rotation
        Degrees by which to turn the compass.

    Returns
    -------
    Integers (cells,): angle clockwise from north, ``atan2(dx, dy)`` mod 360, over 90, floored.

    Raises
    ------
    ValueError
        An arrow is not two finite numbers.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    if vectors.ndim != 2 or vectors.shape[1] != 2 or not np.isfinite(vectors).all():
        raise ValueError(f"vectors must be finite and (cells, 2); they are {vectors.shape}.")
    angle = np.degrees(np.arctan2(vectors[:, 0], vectors[:, 1])) + rotation
    return (angle % 360 // 90).astype(int) % 4
