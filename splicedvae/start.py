"""What the head is told of the training cells before it starts."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from scipy import sparse
from scipy.special import logit
from scvi import REGISTRY_KEYS
from scvi.model import SCVI

from .counts import checked_values
from .head import N_LOADINGS, GeneStatistics, ModalityStatistics, measured_modality
from .module import MODALITY, SPLICED, UNSPLICED
from .ratios._entries import pooled_ratio
from .ratios._features import LogPCA
from .ratios.ceilings import fit_concentration

KEYS = REGISTRY_KEYS.X_KEY, SPLICED, UNSPLICED


def counts(model: SCVI, cells: np.ndarray) -> tuple[sparse.csr_matrix, ...]:
    """Counts of some of a model's cells.

    Parameters
    ----------
    model
        A :class:`splicedvae.SplicedVAE` with its cells.
    cells
        Positions.

    Returns
    -------
    Input, spliced and unspliced counts, CSR (cells, genes).
    """
    registry = model.adata_manager
    return tuple(sparse.csr_matrix(registry.get_from_registry(key))[cells] for key in KEYS)


def modality(model: SCVI, cells: np.ndarray) -> ModalityStatistics | None:
    """What the head is told of the second modality of some of a model's cells.

    Whole numbers, none negative, are counts, and log-normalised; other values are taken as they
    are. Each gene is then standardised over the cells in which it was measured.

    Parameters
    ----------
    model
        A :class:`splicedvae.SplicedVAE` with its cells.
    cells
        Positions.

    Returns
    -------
    Statistics of each gene; None if the model has no second modality.

    Raises
    ------
    ValueError
        It was measured in none of the cells.
    """
    if not model.module.head.features.modality:
        return None
    values = checked_values("The modality", model.adata_manager.get_from_registry(MODALITY))[cells]
    dense = torch.as_tensor(values.toarray(), dtype=torch.float32)
    known = values.data[np.isfinite(values.data)]
    counts = (known >= 0).all() and (known == np.rint(known)).all()
    there = measured_modality(dense, torch.tensor(0.0))[1]
    if not (measured := there.any(-1)).any():
        raise ValueError("The modality was measured in none of the training cells.")
    sums = torch.where(there, dense, 0.0).sum(-1)[measured]
    depth = sums.median() if counts else torch.tensor(0.0)
    values, _ = measured_modality(dense, depth)
    n = there.sum(0).clamp_min(1)
    mean = values.sum(0) / n
    variance = torch.where(there, values - mean, 0.0).square().sum(0) / n
    return ModalityStatistics(depth, mean, variance.clamp_min(1e-4).sqrt())


def stacked(batches: Iterable[dict[str, torch.Tensor]]) -> tuple[sparse.csr_matrix, ...]:
    """Counts of minibatches.

    Parameters
    ----------
    batches
        Minibatches with input, spliced and unspliced counts, dense (cells, genes).

    Returns
    -------
    Input, spliced and unspliced counts, CSR (cells of all of them, genes).
    """
    parts = [[sparse.csr_matrix(batch[key].numpy()) for key in KEYS] for batch in batches]
    return tuple(sparse.vstack(part, format="csr") for part in zip(*parts, strict=True))


def _measured_both(spliced: sparse.csr_matrix, unspliced: sparse.csr_matrix) -> np.ndarray:
    """Cells in which both forms were counted: others lack a layer, and their ratios are unknown."""
    spliced, unspliced = (np.asarray(layer.sum(1)).ravel() for layer in (spliced, unspliced))
    return (spliced > 0) & (unspliced > 0)


def gene_statistics(
    counts: sparse.csr_matrix,
    spliced: sparse.csr_matrix,
    unspliced: sparse.csr_matrix,
    n_components: int = 0,
    modality: ModalityStatistics | None = None,
) -> GeneStatistics:
    """What :meth:`splicedvae.head.RatioHead.start` takes, from the training cells.

    Parameters
    ----------
    counts, spliced, unspliced
        Input, spliced and unspliced counts of the training cells, (cells, genes).
    n_components
        Number of principal components of the log-normalised input, at least as many as loadings
        are read of; there are fewer if the cells are few or alike.
    modality
        From :func:`modality`.

    Returns
    -------
    Statistics of each gene.

    Raises
    ------
    ValueError
        There are no spliced, or no unspliced counts.
    """
    known = _measured_both(spliced, unspliced)
    if not known.any():
        raise ValueError(
            f"The {counts.shape[0]} training cells have no counts in one of the spliced and "
            "unspliced layers, so there is nothing to learn ratios from."
        )
    spliced, unspliced = spliced[known], unspliced[known]
    ratio, n = pooled_ratio(spliced, unspliced), np.asarray((spliced + unspliced).sum(0)).ravel()
    space = LogPCA(counts, max(n_components, N_LOADINGS), whiten=True)
    values = (
        logit(ratio),
        space.depth,
        space.mean,
        space.std,
        space.directions,
        space.loadings,
        n / n.mean(),
        fit_concentration(spliced, unspliced, ratio),
        known.mean(),
    )
    tensors = (torch.as_tensor(v, dtype=torch.float32) for v in values)
    return GeneStatistics(*tensors, modality=modality)
