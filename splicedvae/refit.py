"""The head's weights from statistics of the training cells: before the training, and after it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from scipy import sparse
from scipy.special import expit
from scvi import REGISTRY_KEYS
from scvi.model import SCVI
from sklearn.decomposition import PCA

from ._regression import hierarchical_binomial
from .ceilings import fit_concentration
from .head import one_of
from .module import SPLICED, UNSPLICED, SplicedVAEModule

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


def _log_normalised(counts: sparse.csr_matrix, depth: float) -> sparse.csr_matrix:
    """What :meth:`splicedvae.head.RatioHead.log_normalise` gives, sparse."""
    scale = depth / np.maximum(np.asarray(counts.sum(1)).ravel(), 1)
    return sparse.csr_matrix(sparse.diags(scale) @ counts).log1p()


def _known(spliced: sparse.csr_matrix, unspliced: sparse.csr_matrix) -> np.ndarray:
    """Cells in which both forms were counted: others lack a layer, and their ratios are unknown."""
    spliced, unspliced = (np.asarray(layer.sum(1)).ravel() for layer in (spliced, unspliced))
    return (spliced > 0) & (unspliced > 0)


def _gene_logit(spliced: sparse.csr_matrix, unspliced: sparse.csr_matrix) -> np.ndarray:
    """Logit of each gene's pooled ratio, with one count more at the ratio of all genes, (G,)."""
    s, u = (np.asarray(layer.sum(0)).ravel() for layer in (spliced, unspliced))
    overall = s.sum() / (s.sum() + u.sum())
    return np.log((s + overall) / (u + 1 - overall))


def starting_values(
    counts: sparse.csr_matrix,
    spliced: sparse.csr_matrix,
    unspliced: sparse.csr_matrix,
    n_components: int = 0,
) -> tuple[torch.Tensor, ...]:
    """What :meth:`splicedvae.head.RatioHead.initialise` takes, from the training cells.

    Parameters
    ----------
    counts, spliced, unspliced
        Input, spliced and unspliced counts of the training cells, (cells, genes).
    n_components
        Principal components of the log-normalised input; there are fewer if the cells are.

    Returns
    -------
    Per gene: logit of the pooled ratio. The median depth. Per gene: mean and standard deviation of
    the log-normalised input; direction of each component, scaled to variance 1; share of the
    counts, mean 1; concentration, see :func:`splicedvae.metrics.fit_concentration`.

    Raises
    ------
    ValueError
        There are no spliced, or no unspliced counts.
    """
    known = _known(spliced, unspliced)
    if not known.any():
        raise ValueError(
            f"The {counts.shape[0]} training cells have no counts in one of the spliced and "
            "unspliced layers, so there is nothing to learn ratios from."
        )
    spliced, unspliced = spliced[known], unspliced[known]
    logit, n = _gene_logit(spliced, unspliced), np.asarray((spliced + unspliced).sum(0)).ravel()
    depth = np.median(np.asarray(counts.sum(1)))
    own = _log_normalised(counts, depth).astype(np.float64)
    mean = np.asarray(own.mean(0)).ravel()
    variance = np.asarray(own.multiply(own).mean(0)).ravel() - mean**2
    components = np.zeros((len(n), 0))
    if k := min(n_components, min(own.shape) - 1):
        pca = PCA(k, svd_solver="arpack", random_state=0).fit(own)
        kept = pca.explained_variance_ > 1e-6  # cells that are alike leave the others to rounding
        scale = np.sqrt(pca.explained_variance_[kept])
        components = (pca.components_[kept] / scale[:, None]).T  # (G, k)
    values = (
        logit,
        depth,
        mean,
        np.sqrt(np.maximum(variance, 1e-4)),
        components,
        n / n.mean(),
        fit_concentration(spliced, unspliced, expit(logit)),
    )
    return tuple(torch.as_tensor(v, dtype=torch.float32) for v in values)


def refittable(module: SplicedVAEModule) -> bool:
    """Whether :func:`refit_head` should end a training.

    Parameters
    ----------
    module
        Before the training.

    Returns
    -------
    True for a linear head that is to be trained with the binomial loss for the first time.
    """
    linear = len(module.head.trunk) == 0 and module.ratio_loss_kind == "binomial"
    return linear and not module.head.initialised and module.ratio_weight > 0


def refit_head(
    model: SCVI,
    cells: np.ndarray | None = None,
    reads: Sequence[str] | None = None,
    n_cells: int = 20_000,
    seed: int = 0,
    datamodule: LightningDataModule | None = None,
) -> None:
    """Fit the output layer of a trained model's head anew, by empirical Bayes.

    The features that the head reads stay as they are. The weights of all genes get a common prior
    that is itself estimated, see :func:`splicedvae._regression.hierarchical_binomial`: how far
    ratios follow each feature, and in which direction, is learnt from all genes together. One such
    regression reads the latent, another the principal components, both the gene's own count and the
    covariates, and the head's logit becomes their mean: the encoder has seen these very ratios, and
    in one regression its features would be trusted too much.

    Parameters
    ----------
    model
        A :class:`splicedvae.SplicedVAE`.
    cells
        Positions of the training cells, of those the model was made with.
    reads
        Which regressions, of ``"latent"`` and ``"components"``; None for both, if the head has
        components.
    n_cells
        Cells to fit on, at most; they are drawn at random, in memory from those with both forms,
        from a data module before the others are left out.
    seed
        Of the draw.
    datamodule
        Gives the cells to a model that was made without, such as
        :class:`splicedvae.atlas.loader.AtlasDataModule`: its ``sample_dataloader(n)`` gives the
        same minibatches each time. `seed` is then not read.

    Raises
    ------
    ValueError
        There are both `cells` and a datamodule, or neither; no cell has both spliced and unspliced
        counts; or `reads` names something else.
    """
    if (cells is None) == (datamodule is None):
        raise ValueError("Give the positions of cells, or a datamodule that gives cells.")
    if datamodule is None:
        cells = np.asarray(cells)[_known(*counts(model, cells)[1:])]  # others teach nothing
        if len(cells) > n_cells:
            cells = np.sort(np.random.default_rng(seed).choice(cells, n_cells, replace=False))
        taken = counts(model, cells)
    else:
        taken = stacked(datamodule.sample_dataloader(n_cells))
    known = _known(*taken[1:])
    if not known.any():
        raise ValueError("No training cell has both spliced and unspliced counts.")
    x_counts, spliced, unspliced = (layer[known] for layer in taken)
    head, seen = model.module.head, []
    hook = head.output.register_forward_pre_hook(lambda _, args: seen.append(args[0].cpu()))
    try:
        loader = None if datamodule is None else datamodule.sample_dataloader(n_cells)
        model.get_splicing_ratio(indices=cells, dataloader=loader, gene_list=model.genes[:1])
    finally:
        hook.remove()
    # (cells, features): the latent, or hidden units, and covariates
    h = torch.cat(seen).numpy()[known]
    own, mean, std = _log_normalised(x_counts, float(head.depth)), head.own_mean, head.own_std
    mean, std, directions = (v.cpu().numpy() for v in (mean, std, head.components))
    x = np.hstack([h, own @ directions - mean @ directions]).astype(np.float64)
    centre, spread = x.mean(0), x.std(0)
    spread[spread < 1e-6] = 1  # such as the column of a batch that has no cell here
    x = (x - centre) / spread
    loadings = (own.T @ x) / len(x) / std[:, None]  # x has mean 0, so own needs none
    logit = _gene_logit(spliced, unspliced)
    own = None if head.own_weight is None else (own.tocsc(), mean, std)
    s, n = spliced.tocsc(), (spliced + unspliced).tocsc()
    first = h.shape[1]  # component
    n_latent = first if len(head.trunk) else model.module.n_latent
    views = {"latent": np.arange(first), "components": np.arange(n_latent, x.shape[1])}
    reads = reads or (("latent", "components") if directions.size else ("latent",))
    weights = np.zeros((len(logit), 1 + x.shape[1] + (own is not None)), np.float32)
    for columns in (views[one_of("reads", name, tuple(views))] for name in reads):
        fitted = hierarchical_binomial(x[:, columns], own, s, n, logit, loadings[:, columns])
        weights[:, [0, *(1 + columns), *range(1 + x.shape[1], weights.shape[1])]] += fitted
    weights /= len(reads)
    slopes = weights[:, 1 : 1 + x.shape[1]] / spread
    values = weights[:, 0] - slopes @ centre, slopes[:, :first], weights[:, -1], slopes[:, first:]
    values = [torch.as_tensor(value, dtype=torch.float32) for value in values]
    values[2] = None if own is None else values[2]
    head.set_weights(*values)
