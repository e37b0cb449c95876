"""Count layers: what may stand in them, their total, and what an encoder may see."""

from __future__ import annotations

from typing import Literal

import numpy as np
from anndata import AnnData
from scipy import sparse

INPUTS = ("total", "spliced")  # what an encoder may see


def check_counts(counts: np.ndarray | sparse.spmatrix, name: str) -> None:
    """Refuse what can't be counts.

    Parameters
    ----------
    counts
        Cells × genes, dense or sparse.
    name
        How to call them in the message, for example ``"layer 'spliced'"``.

    Raises
    ------
    ValueError
        There is a missing, infinite, negative or fractional value.
    """
    values = counts.data if sparse.issparse(counts) else np.asarray(counts)
    if not np.isfinite(values).all():
        raise ValueError(f"{name} has missing or infinite values; give raw counts.")
    if (values < 0).any():
        raise ValueError(f"{name} has negative values; give raw counts.")
    if np.issubdtype(values.dtype, np.floating) and (values != np.rint(values)).any():
        raise ValueError(
            f"{name} has fractional values; give raw counts, neither normalised nor logged."
        )


def total_counts(
    adata: AnnData, spliced_layer: str = "spliced", unspliced_layer: str = "unspliced"
) -> sparse.csr_matrix:
    """Spliced plus unspliced counts, once both are checked.

    Parameters
    ----------
    adata
        Cells × genes.
    spliced_layer, unspliced_layer
        Names of the layers.

    Returns
    -------
    CSR, float32, (cells, genes).

    Raises
    ------
    KeyError
        A layer is missing.
    ValueError
        Gene names repeat, or a layer holds something that is not counts.
    """
    if not adata.var_names.is_unique:
        repeated = adata.var_names[adata.var_names.duplicated()].unique()
        raise ValueError(
            f"{len(repeated)} gene names repeat ({', '.join(repeated[:5])}…); call "
            "adata.var_names_make_unique() or merge them."
        )
    for layer in (spliced_layer, unspliced_layer):
        if layer not in adata.layers:
            raise KeyError(
                f"There is no layer {layer!r}; adata.layers has {sorted(adata.layers)}. Name the "
                "right ones with spliced_layer= and unspliced_layer=."
            )
        check_counts(adata.layers[layer], f"layer {layer!r}")
    return sparse.csr_matrix(
        adata.layers[spliced_layer] + adata.layers[unspliced_layer], dtype=np.float32
    )


def input_layer(
    adata: AnnData,
    layer: str | None,
    spliced_layer: str,
    unspliced_layer: str,
    input: Literal["total", "spliced"],
) -> str:
    """Name of the layer that the encoder sees; composes ``layers["total"]`` if it must.

    Parameters
    ----------
    adata
        Cells × genes.
    layer
        The layer asked for, or None.
    spliced_layer, unspliced_layer
        Names of the layers.
    input
        ``"total"`` or ``"spliced"``.

    Returns
    -------
    A name in ``adata.layers``.

    Raises
    ------
    KeyError
        A layer is missing.
    ValueError
        Counts are not counts, gene names repeat, a cell is empty, `input` is neither, or `layer`
        contradicts it.
    """
    if input not in INPUTS:
        raise ValueError(f"input={input!r} is not known; choose one of {', '.join(INPUTS)}.")
    total = total_counts(adata, spliced_layer, unspliced_layer)
    if layer is None and input == "spliced":
        layer = spliced_layer
    elif layer is None:
        layer = "total"
        if layer not in adata.layers:
            adata.layers[layer] = total
    if layer not in adata.layers:
        raise KeyError(f"There is no layer {layer!r}; adata.layers has {sorted(adata.layers)}.")
    counts = sparse.csr_matrix(adata.layers[layer])
    check_counts(counts, f"layer {layer!r}")
    expected = total if input == "total" else sparse.csr_matrix(adata.layers[spliced_layer])
    # a query without S/U has zeros there, which say nothing about its input
    if total.nnz and abs(counts - expected).max() > 0:
        what = "spliced + unspliced" if input == "total" else f"layer {spliced_layer!r}"
        raise ValueError(
            f"layer {layer!r} is not {what}, which input={input!r} means. Pass layer=None to "
            "have it composed, name the right layer, or rename this one."
        )
    empty = adata.obs_names[np.asarray(counts.sum(axis=1)).ravel() == 0]
    if len(empty):
        raise ValueError(
            f"{len(empty)} cells have no counts in layer {layer!r} "
            f"({', '.join(empty[:5])}…); remove them."
        )
    return layer
