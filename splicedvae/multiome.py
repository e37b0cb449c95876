"""A second modality, brought to the cells and genes of the counts."""

from __future__ import annotations

import logging
from pathlib import Path

import mudata
import numpy as np
from anndata import AnnData
from scipy import sparse

from .checks import check_cells
from .counts import checked_values, get_layer, named_layers
from .data import file_of_its_kind
from .genes import locate

logger = logging.getLogger("splicedvae")

LEAST_SHARE = 0.5  # of a modality's features that must be genes of the cells
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
        A cell or a gene that `other` does not have is 0 there, which
        :meth:`~splicedvae.SplicedVAE.setup_anndata` takes for missing.
    other
        Cells × genes with the second modality. Cells are found by ``obs_names``, genes by
        ``var_names``, with or without version, among the names or ``var["gene_ids"]`` of `adata`.
    key_added
        Name of the layer, for ``setup_anndata(modality_layer=...)``.
    layer
        Of `other`; None for its X.

    Raises
    ------
    KeyError
        `other` has no such layer.
    ValueError
        Fewer than half of its features are genes of `adata`, no cell is in both, a cell is there
        twice, there is such a layer already, or values are infinite.
    """
    check_cells(adata)
    check_cells(other)
    if key_added in named_layers(adata):
        raise ValueError(f"There is a layer {key_added!r} already; choose another key_added.")
    values = other.X if layer is None else get_layer(other, layer)
    where = "X of the other modality" if layer is None else f"layer {layer!r}"
    values = sparse.coo_matrix(checked_values(where, values))
    if np.isinf(values.data).any():
        raise ValueError(f"{where} is infinite in places; give NaN where a value is missing.")
    if not (adata.obs_names.is_unique and other.obs_names.is_unique):
        raise ValueError("A cell's name is there twice; make obs_names unique, in both alike.")
    cells = adata.obs_names.get_indexer(other.obs_names)
    if (cells < 0).all():
        raise ValueError(
            f"No cell is in both: here {adata.obs_names[0]!r}, there {other.obs_names[0]!r}. Name "
            "the cells of both alike."
        )
    known = [adata.var_names, *(adata.var[c] for c in ("gene_ids",) if c in adata.var)]
    measured = np.bincount(values.col, minlength=other.n_vars)
    genes = max(
        (locate(other.var_names, names, measured)[0] for names in known),
        key=lambda found: (found >= 0).sum(),
    )
    if (genes >= 0).mean() < LEAST_SHARE:
        raise ValueError(
            f"Of {other.n_vars} features such as {other.var_names[0]!r}, {(genes >= 0).sum()} are "
            f"genes of these cells, such as {adata.var_names[0]!r}. Peaks have to be summed over "
            "genes first, as with snapatac2.pp.make_gene_matrix."
        )
    row, column = cells[values.row], genes[values.col]
    kept = (row >= 0) & (column >= 0)
    entries = values.data[kept].astype(np.float32), (row[kept], column[kept])
    adata.layers[key_added] = sparse.csr_matrix(entries, shape=adata.shape)
    logger.info(
        "Layer %r: measured in %d of %d cells and %d of %d genes.",
        key_added,
        (cells >= 0).sum(),
        adata.n_obs,
        (genes >= 0).sum(),
        adata.n_vars,
    )


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
    with file_of_its_kind(file, "h5mu"), mudata.set_options(pull_on_update=False):
        parts = dict(mudata.read_h5mu(file).mod)
    counted = [name for name, part in parts.items() if forms & set(named_layers(part))]
    counted = counted or [name for name in parts if name.lower() in COUNTS]
    if len(counted) != 1:
        raise ValueError(
            f"{file} holds the modalities {sorted(parts)}; one of them must have the layers "
            "spliced and unspliced, or be called rna."
        )
    cells = parts.pop(counted[0])
    for name, part in parts.items():
        try:
            add_modality(cells, part, name)
        except (ValueError, KeyError) as error:
            logger.warning("The modality %r of %s is left out: %s", name, file, error.args[0])
    return cells
