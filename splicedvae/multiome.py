"""A second modality, brought to the cells and genes of the counts."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import mudata
import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from .checks import CELL, as_text, check_cells
from .counts import checked_values, get_layer, named_layers
from .data import file_of_its_kind
from .genes import ID_COLUMNS, SYMBOL_COLUMNS, locate

logger = logging.getLogger("splicedvae")

LEAST_SHARE = 0.5  # of a modality's features, or of the genes, that must be in both
COUNTS = ("rna", "gex", "gene expression")  # what the modality of counts is called


def add_modality(
    adata: AnnData, other: AnnData, key_added: str = "chromatin", layer: str | None = None
) -> None:
    """Bring a modality that was measured in the same cells into a layer, by names.

    Accessibility comes as peaks. Sum them over each gene's region first, as with
    ``snapatac2.pp.make_gene_matrix`` or ``muon.atac.tl.count_fragments_features``.

    Parameters
    ----------
    adata
        Cells × genes with counts; ``layers[key_added]`` is added, CSR (cells, genes) of float32.
        Cells that `other` does not have are 0 there, which
        :meth:`~splicedvae.SplicedVAE.setup_anndata` takes for missing, and its cells are NaN in
        genes that it does not have.
    other
        Cells × genes with the second modality. Cells are found by ``obs_names``, or by their
        barcodes alone, as long as each is there once; genes by ``var_names``, with or without
        version, among the names of `adata` or in a column of its ``var`` that is usual for ids or
        symbols.
    key_added
        Name of the layer, for ``setup_anndata(modality_layer=...)``.
    layer
        Of `other`; None for its X.

    Raises
    ------
    KeyError
        `other` has no such layer.
    ValueError
        Neither half of its features are genes of `adata` nor half of these genes are among them,
        no cell is in both, a cell is there twice, there is such a layer already, or values are
        infinite.
    """
    check_cells(adata)
    check_cells(other)
    if key_added in named_layers(adata):
        raise ValueError(f"There is a layer {key_added!r} already; choose another key_added.")
    values = other.X if layer is None else get_layer(other, layer)
    where = "X of the other modality" if layer is None else f"layer {layer!r}"
    if values is None:
        raise ValueError("The other modality has no X; name the layer with its values with layer=.")
    values = sparse.coo_matrix(checked_values(where, values))
    if np.isinf(values.data).any():
        raise ValueError(f"{where} is infinite in places; give NaN where a value is missing.")
    cells = _places_of_cells(other, adata)
    genes = _places_of_genes(other, adata, np.bincount(values.col, minlength=other.n_vars))
    row, column = cells[values.row], genes[values.col]
    kept = (row >= 0) & (column >= 0)
    absent = np.setdiff1d(np.arange(adata.n_vars), genes)
    measured = cells[cells >= 0]
    entries = np.concatenate(
        [values.data[kept].astype(np.float32), np.full(len(measured) * len(absent), np.nan, "f4")]
    )
    rows = np.concatenate([row[kept], np.repeat(measured, len(absent))])
    columns = np.concatenate([column[kept], np.tile(absent, len(measured))])
    adata.layers[key_added] = sparse.csr_matrix((entries, (rows, columns)), shape=adata.shape)
    logger.info(
        "Layer %r: measured in %d of %d cells and %d of %d genes.",
        key_added,
        len(measured),
        adata.n_obs,
        adata.n_vars - len(absent),
        adata.n_vars,
    )


def _places_of_cells(other: AnnData, adata: AnnData) -> np.ndarray:
    """Position of each of the other's cells, -1 for one that is not here."""
    tried = []
    for names in (as_text, _barcodes):
        here, there = (names(cells.obs_names) for cells in (adata, other))
        if len(set(here)) < len(here) or len(set(there)) < len(there):
            tried.append("a name is there twice")
            continue
        if ((found := pd.Index(here).get_indexer(there)) >= 0).any():
            return found
        tried.append(f"here {here[0]!r}, there {there[0]!r}")
    raise ValueError(
        f"No cell is in both, by its name ({tried[0]}) or its barcode ({tried[1]}). Name the cells "
        "of both alike, each once."
    )


def _barcodes(names: pd.Index) -> np.ndarray:
    parts = ((name, CELL.fullmatch(name)) for name in as_text(names))
    return np.array([part["barcode"] if part else name for name, part in parts], dtype=object)


def _places_of_genes(other: AnnData, adata: AnnData, measured: np.ndarray) -> np.ndarray:
    """Position of each of the other's features among the genes, -1 for one that is none."""
    columns = [c for c in (*ID_COLUMNS, *SYMBOL_COLUMNS) if c in adata.var]
    known = [adata.var_names, *(adata.var[c] for c in columns)]
    found = [locate(other.var_names, names, measured)[0] for names in known]
    genes = max(found, key=lambda places: (places >= 0).sum())
    if not other.n_vars or (genes >= 0).sum() < LEAST_SHARE * min(other.n_vars, adata.n_vars):
        raise ValueError(
            f"Of {other.n_vars} features such as {', '.join(map(repr, other.var_names[:1]))}, "
            f"{(genes >= 0).sum()} are genes of these cells, such as {adata.var_names[0]!r}. Genes "
            "must be named alike, in the same case; peaks have to be summed over genes first, as "
            "with snapatac2.pp.make_gene_matrix."
        )
    return genes


def read_h5mu(file: Path, forms: set[str]) -> AnnData:
    """Read the counts of a MuData file, with its other modalities as layers.

    Parameters
    ----------
    file
        Of the kind h5mu.
    forms
        Names of layers by which the modality of counts is known; one that is called ``rna`` or
        ``gex`` will do.

    Returns
    -------
    Cells × genes. A modality of genes is a layer of that name; of another, such as peaks, the log
    says why it was left out.

    Raises
    ------
    ValueError
        It can't be read, or not one of its modalities alone has such layers.
    """
    with file_of_its_kind(file, "h5mu"), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of what mudata will pull from modalities
        held = mudata.read_h5mu(file)
    parts = dict(held.mod)
    counted = [name for name, part in parts.items() if forms & set(named_layers(part))]
    counted = counted or [name for name in parts if name.lower() in COUNTS]
    if len(counted) != 1:
        raise ValueError(
            f"{file} holds the modalities {sorted(parts)}; one of them must have the layers "
            "spliced and unspliced, or be called rna."
        )
    cells = parts.pop(counted[0])
    shared = held.obs.loc[held.obs_names.isin(cells.obs_names)].reindex(cells.obs_names)
    for column in shared.columns.difference(cells.obs.columns):
        if ":" not in column:  # those with one are columns of a modality
            cells.obs[column] = shared[column]
    for name, part in parts.items():
        try:
            add_modality(cells, part, name)
        except (ValueError, KeyError) as error:
            logger.warning("The modality %r of %s is left out: %s", name, file, error.args[0])
    return cells
