"""Count layers: what may stand in them, their total, and what an encoder may see."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

logger = logging.getLogger("splicedvae")

Counts = np.ndarray | sparse.sparray | sparse.spmatrix
INPUTS = ("total", "spliced")  # what an encoder may see


def named_layers(adata: AnnData) -> dict[str, Counts]:
    """The layers that have a name.

    From version 0.13 on, anndata lists X among the layers, as ``layers[None]``.

    Parameters
    ----------
    adata
        Cells × genes.

    Returns
    -------
    Matrices (cells, genes) by name.
    """
    return {name: matrix for name, matrix in adata.layers.items() if name is not None}


def get_layer(adata: AnnData, name: str, advice: str = "") -> Counts:
    """A layer, or an error that says which ones there are.

    Parameters
    ----------
    adata
        Cells × genes.
    name
        Of the layer.
    advice
        What to do without it, a sentence that ends the message.

    Returns
    -------
    The matrix (cells, genes).

    Raises
    ------
    KeyError
        There is no layer of that name.
    """
    if name not in (layers := named_layers(adata)):
        message = f"There is no layer {name!r}; there are {sorted(layers)}. {advice}"
        raise KeyError(message.rstrip())
    return layers[name]


def checked_counts(
    name: str, counts: Counts, genes: Sequence[str] | None = None
) -> sparse.csr_array:
    """Counts as sparse float64, or an error that says which gene holds what can't be a count.

    Parameters
    ----------
    name
        How to call them in the message, for example ``"layer 'spliced'"``.
    counts
        Cells × genes, dense or sparse.
    genes
        Names of the genes; without them the message gives the position.

    Returns
    -------
    CSR, (cells, genes).

    Raises
    ------
    ValueError
        There is a missing, infinite, negative or fractional value.
    """
    counts = sparse.csr_array(counts, dtype=np.float64)
    values = counts.data
    for kind, bad in (
        ("missing", np.isnan(values)),
        ("infinite", np.isinf(values)),
        ("negative", values < 0),
        ("fractional", values != np.floor(values)),
    ):
        if bad.any():
            first = np.argmax(bad)
            gene = counts.indices[first]
            raise ValueError(
                f"{name} holds a {kind} count ({values[first]}) in gene "
                f"{gene if genes is None else genes[gene]}; give raw counts: whole numbers, not "
                "negative, none missing, neither normalised nor logged."
            )
    return counts


def unique_genes(adata: AnnData) -> None:
    """Refuse cells in which two genes have the same name.

    Parameters
    ----------
    adata
        Cells × genes.

    Raises
    ------
    ValueError
        Gene names repeat.
    """
    if not adata.var_names.is_unique:
        repeated = adata.var_names[adata.var_names.duplicated()].unique()
        raise ValueError(
            f"{len(repeated)} gene names repeat ({', '.join(repeated[:5])}…); call "
            "adata.var_names_make_unique() or merge them."
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
    unique_genes(adata)
    advice = "Name the right ones with spliced_layer= and unspliced_layer=."
    names = spliced_layer, unspliced_layer
    layers = [get_layer(adata, name, advice) for name in names]  # both, before they are read
    spliced, unspliced = (
        checked_counts(f"layer {name!r}", layer, adata.var_names)
        for name, layer in zip(names, layers, strict=True)
    )
    return sparse.csr_matrix(spliced + unspliced, dtype=np.float32)


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
    counts = checked_counts(f"layer {layer!r}", get_layer(adata, layer), adata.var_names)
    expected = total if input == "total" else sparse.csr_array(adata.layers[spliced_layer])
    # a query without S/U has zeros there, which say nothing about its input
    if total.nnz and abs(counts - expected).max() > 0:
        what = "spliced + unspliced" if input == "total" else f"layer {spliced_layer!r}"
        raise ValueError(
            f"layer {layer!r} is not {what}, which input={input!r} means. Pass layer=None to "
            "have it composed, name the right layer, or rename this one."
        )
    if total.nnz and (silent := np.flatnonzero(np.asarray(counts.sum(axis=0)).ravel() == 0)).size:
        logger.info(
            "%d genes have no counts in layer %r (%s…); splicedvae.data.prepare drops such genes.",
            silent.size,
            layer,
            ", ".join(adata.var_names[silent[:5]]),
        )
    empty = adata.obs_names[np.asarray(counts.sum(axis=1)).ravel() == 0]
    if len(empty):
        raise ValueError(
            f"{len(empty)} cells have no counts in layer {layer!r} "
            f"({', '.join(empty[:5])}…); remove them."
        )
    return layer


def split_counts(
    counts: Counts,
    ratio: np.ndarray,
    input: Literal["total", "spliced"] = "total",
    floor: float = 0.05,
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    r"""Spliced and unspliced counts that ratios imply, in expectation.

    From totals :math:`x`, and from spliced counts :math:`s`,

    .. math:: S' = \hat p\, x, \quad U' = (1 - \hat p)\, x \qquad \text{and} \qquad
              S' = s, \quad U' = s\, \frac{1 - \hat p}{\max(\hat p, p_\mathrm{min})}.

    Parameters
    ----------
    counts
        Cells × genes: what `input` says, observed or expected.
    ratio
        Splicing ratios (cells, genes).
    input
        The kind of `counts`.
    floor
        :math:`p_\mathrm{min}`, the smallest ratio that may divide, with ``input="spliced"``.

    Returns
    -------
    Spliced and unspliced, CSR of float32 (cells, genes), with the stored entries of `counts`.

    Raises
    ------
    ValueError
        Shapes disagree, a ratio is not in [0, 1], or `floor` is not between 0 and 1.
    """
    ratio = np.asarray(ratio)
    if ratio.shape != counts.shape:
        raise ValueError(f"ratio has shape {ratio.shape}; the counts have {counts.shape}.")
    bad = ~((ratio >= 0) & (ratio <= 1))
    if bad.any():
        gene = np.argmax(bad.any(0))
        raise ValueError(
            f"ratio holds {ratio[bad][0]}, first in gene {gene}; give splicing ratios in [0, 1]."
        )
    if not 0 < floor < 1:
        raise ValueError(f"floor={floor} must lie between 0 and 1.")
    counts = sparse.csr_matrix(counts, dtype=np.float32)
    cell = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    p, x = ratio[cell, counts.indices], counts.data
    if input == "total":
        pair = p * x, x - p * x
    else:
        p = np.maximum(p, floor)
        pair = x, x * (1 - p) / p

    def layer(values: np.ndarray) -> sparse.csr_matrix:
        whole = counts.copy()
        whole.data = values.astype(np.float32, copy=False)
        return whole

    return layer(pair[0]), layer(pair[1])


def same_genes(adata: AnnData, genes: pd.Index, owner: str) -> None:
    """Refuse cells whose genes are not those that a model or baseline was fitted on, in order.

    Parameters
    ----------
    adata
        Cells × genes.
    genes
        The genes it was fitted on.
    owner
        How to call it in the message.

    Raises
    ------
    ValueError
        The genes differ in number, name or order.
    """
    # as objects: a file that pandas 3 wrote has names of another type, and they are not equal to it
    if np.array_equal(adata.var_names.astype(object), genes.astype(object)):
        return
    missing, extra = genes.difference(adata.var_names), adata.var_names.difference(genes)
    raise ValueError(
        f"These {adata.n_vars} genes are not the {len(genes)} genes of {owner}, in its order; they "
        f"differ in name, number or order: {len(missing)} missing {list(missing[:5])}, "
        f"{len(extra)} unknown {list(extra[:5])}. Select them by name, or let "
        "SplicedVAE.prepare_query_anndata bring the cells into a model's order."
    )
