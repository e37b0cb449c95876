"""Count layers: what may stand in them, their total, and what an encoder may see."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from anndata import AnnData
from scipy import sparse

from .checks import check_cells, shown, unique_genes
from .checks import same_genes as same_genes  # its name here is older

logger = logging.getLogger("splicedvae")

Counts = np.ndarray | sparse.sparray | sparse.spmatrix
INPUTS = ("total", "spliced")  # what an encoder may see
NAME_THEM = "Name the right ones with spliced_layer= and unspliced_layer=."
#: A cell lacks a form if it has none where so many molecules are expected: chance, e⁻¹⁰, is out.
EXPECTED = 10
ROWS = 4096  # cells at a time
MIN_COPIED = 10  # molecules of a cell; with fewer, both forms may be alike by chance


class NotCounts(ValueError):
    """Values that no count can have, such as normalised or logged ones."""


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


def in_memory(matrix: Any) -> Any:
    """A matrix that is in memory, where it was on disk or not yet computed.

    Parameters
    ----------
    matrix
        Of anndata's backed kinds, of dask, or any other, which is returned as it is.

    Returns
    -------
    The matrix, sparse as it was.
    """
    if hasattr(matrix, "to_memory"):
        return matrix.to_memory()
    if hasattr(matrix, "compute"):
        return matrix.compute()
    return matrix


def checked_values(name: str, counts: Any) -> sparse.csr_array:
    """Values of any dtype and layout as sparse float64: where counts enter and are cast.

    Small integers would overflow in a sum, booleans and objects can't be added at all, and entries
    that a sparse matrix holds twice would be checked one by one.

    Parameters
    ----------
    name
        How to call them in the message, for example ``"layer 'spliced'"``.
    counts
        Cells × genes: dense, a table, sparse of any format, on disk, masked.

    Returns
    -------
    CSR, (cells, genes), which may share memory with `counts`.

    Raises
    ------
    ValueError
        There is something that is no number.
    """
    counts = in_memory(counts)
    if counts is None:
        raise ValueError(f"{name} is empty: it holds no matrix.")
    try:
        if not sparse.issparse(counts):
            masked = isinstance(counts, np.ma.MaskedArray)
            counts = counts.astype(np.float64).filled(np.nan) if masked else np.asarray(counts)
        if np.iscomplexobj(counts):
            raise TypeError("complex numbers")
        values = sparse.csr_array(counts.astype(np.float64, copy=False))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} holds values that are no numbers ({error}); give raw counts of a numeric type."
        ) from error
    if not values.has_canonical_format:
        values = values.copy()
        values.sum_duplicates()
    return values


def checked_counts(
    name: str, counts: Counts, genes: Sequence[str] | None = None, advice: str = ""
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
    advice
        Where counts may be, a sentence that ends the message.

    Returns
    -------
    CSR, (cells, genes).

    Raises
    ------
    NotCounts
        There is a missing, infinite, negative or fractional value, or something that is no number.
    """
    counts = checked_values(name, counts)
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
            message = (
                f"{name} holds a {kind} count ({values[first]}) in gene "
                f"{gene if genes is None else genes[gene]}; give raw counts: whole numbers, not "
                f"negative, none missing, neither normalised nor logged. {advice}"
            )
            raise NotCounts(message.rstrip())
    return counts


def modality_values(
    adata: AnnData, name: str, teaches: bool = False, counted: bool = False
) -> sparse.csr_array:
    """Values of a second modality.

    Parameters
    ----------
    adata
        Cells × genes.
    name
        Of the layer.
    teaches
        Whether something is to be learnt from them, so that they may not all be missing.
    counted
        Whether they must be counts, as those that a model has learnt from.

    Returns
    -------
    CSR float64, (cells, genes); not a number where a value is missing.

    Raises
    ------
    KeyError
        There is no such layer.
    ValueError
        It holds something that is no number or infinite, or no counts where they must be, or all
        are missing and must not be.
    """
    values = checked_values(f"layer {name!r}", get_layer(adata, name))
    if (infinite := np.isinf(values.data)).any():
        gene = adata.var_names[values.indices[np.argmax(infinite)]]
        raise ValueError(
            f"layer {name!r} is infinite in gene {gene}; give NaN where a value is missing."
        )
    known = values.data[np.isfinite(values.data)]
    if counted and not ((known >= 0) & (known == np.rint(known))).all():
        raise ValueError(
            f"The model has learnt from counts of the second modality, and layer {name!r} holds "
            "other values; give counts."
        )
    if teaches and not (np.isfinite(values.data) & (values.data != 0)).any():
        raise ValueError(
            f"layer {name!r} is missing, or 0, in all cells: there is no second modality. Leave "
            "modality_layer out."
        )
    return values


def checked_layers(
    adata: AnnData,
    spliced_layer: str = "spliced",
    unspliced_layer: str = "unspliced",
    teaches: bool = False,
) -> tuple[sparse.csr_array, sparse.csr_array]:
    """Spliced and unspliced counts, once both are checked.

    Parameters
    ----------
    adata
        Cells × genes.
    spliced_layer, unspliced_layer
        Names of the layers.
    teaches
        Whether ratios are to be learnt from them, so that neither may be empty.

    Returns
    -------
    Both, CSR float64, (cells, genes).

    Raises
    ------
    KeyError
        A layer is missing.
    ValueError
        Gene names repeat, a layer holds something that is not counts, the two are one name or hold
        the same counts, or one is empty and must not be.
    """
    check_cells(adata)
    unique_genes(adata)
    names = spliced_layer, unspliced_layer
    if spliced_layer == unspliced_layer:
        raise ValueError(f"spliced_layer and unspliced_layer are both {spliced_layer!r}.")
    layers = [get_layer(adata, name, NAME_THEM) for name in names]  # both, before they are read
    pair = tuple(
        checked_counts(f"layer {name!r}", layer, adata.var_names)
        for name, layer in zip(names, layers, strict=True)
    )
    sums = [_row_sums(layer) for layer in pair]
    alike = (_row_sums(abs(pair[0] - pair[1])) == 0) & (sums[0] > 0)
    copied = alike & ((sums[0] >= MIN_COPIED) | (alike.sum() == (sums[0] + sums[1] > 0).sum()))
    if copied.any() and sums[0][copied].sum() >= MIN_COPIED:
        raise ValueError(
            f"Layers {spliced_layer!r} and {unspliced_layer!r} hold the same counts in "
            f"{copied.sum()} cells ({shown(adata.obs_names[copied])}): one is a copy. Give the "
            "layers that were counted; a form that was not counted is all zero."
        )
    for name, own in zip(names, sums, strict=True):
        if teaches and not own.any():
            raise ValueError(
                f"Layer {name!r} is empty: it holds no count at all, so there is nothing to "
                "learn ratios from. Quantify both forms, or name another layer."
            )
    return pair


def _expected(
    spliced: sparse.csr_array, unspliced: sparse.csr_array, share: np.ndarray
) -> np.ndarray:
    """Molecules of a form that each cell should have, some cells at a time to spare memory."""
    expected = np.zeros(spliced.shape[0])
    for first in range(0, len(expected), ROWS):
        rows = slice(first, first + ROWS)
        here = share if share.ndim == 1 else share[rows]
        entries = sparse.csr_array((spliced[rows] + unspliced[rows]).multiply(here))
        entries.data = np.minimum(entries.data, 1)  # a gene may be all of one form
        expected[rows] = _row_sums(entries)
    return expected


def missing_form(
    spliced: Counts,
    unspliced: Counts,
    groups: np.ndarray | None = None,
    ratio: np.ndarray | None = None,
) -> np.ndarray:
    """Which form of mRNA a cell lacks because nobody counted it.

    A cell without a molecule of one form lacks it if 10 or more are expected, of each gene one at
    most: in a cell where a gene is just being switched on or off, all of its mRNA is of one form.
    If many more cells are without it than chance explains, fewer will do, down to where chance is
    as likely.

    Parameters
    ----------
    spliced, unspliced
        Counts (cells, genes).
    groups
        Batch of each cell (cells,): a batch may say what a shallow cell can't.
    ratio
        Splicing ratios, (cells, genes) or (genes,), by which they are expected; None takes those
        of each gene in the cells that have both forms, or one half if no cell has.

    Returns
    -------
    Array (cells,): ``"spliced"``, ``"unspliced"``, or an empty string, also for a cell that has
    counts in neither layer.
    """
    spliced, unspliced = (sparse.csr_array(layer) for layer in (spliced, unspliced))
    s, u = _row_sums(spliced), _row_sums(unspliced)
    both = (s > 0) & (u > 0)
    if ratio is None:
        per_gene = [np.asarray(x[both].sum(axis=0)).ravel() for x in (spliced, unspliced)]
        overall = s[both].sum() / (s + u)[both].sum() if both.any() else 0.5
        ratio = (per_gene[0] + overall) / (sum(per_gene) + 1)  # (genes,)
    lacks = np.full(len(s), "", dtype=object)
    for form, own, other, share in (("unspliced", u, s, 1 - ratio), ("spliced", s, u, ratio)):
        without = (own == 0) & (other > 0)
        if not without.any():
            continue
        expected = _expected(spliced, unspliced, np.asarray(share))
        enough = EXPECTED
        if without.sum() >= 10 + 10 * np.exp(-expected).sum():
            enough = min(EXPECTED, -np.log(without.mean()))
        deep = expected >= enough
        if groups is not None:
            for group in np.unique(groups):
                inside = groups == group
                if not own[inside].any() and expected[inside].sum() >= EXPECTED:
                    deep = deep | inside
        lacks[without & deep] = form
    return lacks


def measured(pair: Sequence[sparse.csr_array], groups: np.ndarray | None = None) -> tuple:
    """Counts from which ratios may be learnt: none of cells in which a form was not counted.

    Parameters
    ----------
    pair
        Spliced and unspliced counts (cells, genes).
    groups
        As in :func:`missing_form`.

    Returns
    -------
    Both, with zeros in such cells.
    """
    lacks = missing_form(*pair, groups) != ""
    if not lacks.any():
        return tuple(pair)
    keep = sparse.diags_array((~lacks).astype(np.float64))
    return tuple(sparse.csr_array(keep @ layer) for layer in pair)


def tell_missing_form(
    adata: AnnData,
    pair: Sequence[Counts],
    consequence: str,
    groups: np.ndarray | None = None,
) -> None:
    """Say in one line which cells lack a form.

    Parameters
    ----------
    adata
        The cells.
    pair
        Their spliced and unspliced counts (cells, genes).
    consequence
        What follows for them, a sentence.
    groups
        Batch of each cell (cells,).
    """
    lacks = missing_form(*pair, groups)
    for form in ("spliced", "unspliced"):
        if not (n := int((lacks == form).sum())):
            continue
        where = f"({shown(adata.obs_names[lacks == form])})"
        if groups is not None:
            sizes = {g: (groups == g).sum() for g in np.unique(groups)}
            counted = {g: ((groups == g) & (lacks == form)).sum() for g in sizes}
            where = "(" + ", ".join(
                f"{k} of {sizes[g]} in batch {g}" for g, k in counted.items() if k
            )
            where += ")"
        logger.warning(
            "%d cells have no %s counts %s: that form was not counted there. %s",
            *(n, form, where, consequence),
        )


def no_empty_cell(adata: AnnData, counts: Counts, where: str) -> None:
    """Refuse cells without any count.

    Parameters
    ----------
    adata
        Cells × genes.
    counts
        Of these cells.
    where
        How to call the counts in the message.

    Raises
    ------
    ValueError
        A cell has none.
    """
    empty = adata.obs_names[_row_sums(counts) == 0]
    if len(empty):
        raise ValueError(
            f"{len(empty)} cells have no counts in {where} ({shown(empty)}); remove them."
        )


def _row_sums(counts: Counts) -> np.ndarray:
    return np.asarray(counts.sum(axis=1)).ravel()


def total_counts(
    adata: AnnData, spliced_layer: str = "spliced", unspliced_layer: str = "unspliced"
) -> sparse.csr_matrix:
    """Spliced plus unspliced counts, once both are checked: what "total" means everywhere.

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
        As in :func:`checked_layers`, or one of both is empty.
    """
    pair = checked_layers(adata, spliced_layer, unspliced_layer)
    for name, own, other in zip((spliced_layer, unspliced_layer), pair, pair[::-1], strict=True):
        if not own.sum() and other.sum():
            raise ValueError(
                f"Layer {name!r} is empty: that form was not counted, so there is no total to "
                "compose. Give the total as a layer, or let SplicedVAE.prepare_query_anndata say "
                "what these counts are."
            )
    return sparse.csr_matrix(pair[0] + pair[1], dtype=np.float32)


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
    spliced, unspliced = checked_layers(adata, spliced_layer, unspliced_layer)
    total = sparse.csr_matrix(spliced + unspliced, dtype=np.float32)
    if layer is None:
        layer = "total" if input == "total" else spliced_layer
    composed = layer == "total" and input == "total" and layer not in named_layers(adata)
    counts = total_counts(adata, spliced_layer, unspliced_layer) if composed else total
    if not composed:
        counts = checked_counts(f"layer {layer!r}", get_layer(adata, layer), adata.var_names)
    expected = total if input == "total" else spliced
    # a query without S/U has zeros there, which say nothing about its input
    if total.nnz and abs(counts - expected).max() > 0:
        what = "spliced + unspliced" if input == "total" else f"layer {spliced_layer!r}"
        raise ValueError(
            f"layer {layer!r} is not {what}, which input={input!r} means. Name the right "
            "layer, or delete or rename this one and let layer=None compose the total."
        )
    if total.nnz and (silent := np.flatnonzero(np.asarray(counts.sum(axis=0)).ravel() == 0)).size:
        logger.info(
            "%d genes have no counts in layer %r (%s); splicedvae.data.prepare drops such genes.",
            silent.size,
            layer,
            shown(adata.var_names[silent]),
        )
    no_empty_cell(adata, counts, f"layer {layer!r}")
    if composed:
        adata.layers[layer] = total
    for name in {layer, spliced_layer, unspliced_layer}:
        if not _readable(adata.layers[name]):
            adata.layers[name] = sparse.csr_matrix(
                checked_values(f"layer {name!r}", adata.layers[name]), dtype=np.float32
            )
    return layer


def _readable(matrix: Any) -> bool:
    """Whether scvi-tools reads a matrix as it is, quickly and without a word."""
    plain = type(matrix) is np.ndarray or (
        isinstance(matrix, sparse.csr_matrix) and matrix.has_canonical_format
    )
    return plain and matrix.dtype.kind in "iuf"


def unnormalised(values: sparse.csr_matrix) -> sparse.csr_matrix | None:
    """The counts of cells that were each divided by one number, as scVelo's normalisation leaves.

    Parameters
    ----------
    values
        Cells × genes, not negative.

    Returns
    -------
    Whole counts; None if most cells do not hold the multiples of one number, or all hold whole
    numbers already.
    """
    values = sparse.csr_matrix(values, dtype=np.float64, copy=True)
    values.eliminate_zeros()
    filled = np.diff(values.indptr) > 0
    if (values.data == np.rint(values.data)).all():
        return None
    smallest = np.ones(len(filled))
    smallest[filled] = np.minimum.reduceat(values.data, values.indptr[:-1][filled])
    cell = np.repeat(np.arange(len(filled)), np.diff(values.indptr))
    counts, fits = np.zeros_like(values.data), np.zeros(len(filled), dtype=bool)
    for unit in range(1, 11):  # the smallest count of a cell is hardly ever larger
        multiple = unit * values.data / smallest[cell]
        off = np.abs(multiple - np.rint(multiple)) > 1e-4 * np.maximum(multiple, 1)
        new = filled & ~fits & (np.bincount(cell, off, minlength=len(filled)) == 0)
        counts[new[cell]] = np.rint(multiple[new[cell]])
        fits |= new
    # a cell whose values are all alike fits anyway, and says nothing
    largest = np.zeros(len(filled))
    largest[filled] = np.maximum.reduceat(values.data, values.indptr[:-1][filled])
    telling = filled & (largest > 1.001 * smallest)
    if not telling.any() or fits[telling].mean() < 0.95 or not fits[filled].all():
        return None
    return sparse.csr_matrix((counts, values.indices, values.indptr), values.shape)


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
    counts = sparse.csr_matrix(checked_values("counts", counts), dtype=np.float32)
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
