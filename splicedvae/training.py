"""What training a SplicedVAE adds to training an SCVI: optimisers, starting values, history."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from scipy import sparse
from scvi import REGISTRY_KEYS
from scvi.model import SCVI
from sklearn.decomposition import PCA
from torch import optim

from ._regression import hierarchical_binomial
from .head import one_of
from .module import SPLICED, UNSPLICED, SplicedVAEModule

OPTIMIZERS = {"Adam": optim.Adam, "AdamW": optim.AdamW, "RMSprop": optim.RMSprop}


def categories(registry: dict) -> dict[str, list]:
    """Categories of the batch and of each categorical covariate, in the order of their codes.

    Parameters
    ----------
    registry
        Of a model or of an AnnData manager.

    Returns
    -------
    Lists of categories by covariate.
    """
    fields = registry["field_registries"]
    batch = fields[REGISTRY_KEYS.BATCH_KEY]["state_registry"]["categorical_mapping"]
    covariates = fields.get(REGISTRY_KEYS.CAT_COVS_KEY, {}).get("state_registry", {})
    mappings = {"batch": batch, **covariates.get("mappings", {})}
    return {name: list(values) for name, values in mappings.items()}


def optimizer(
    kind: str, parameters: Iterable[torch.nn.Parameter], lr: float, **settings
) -> optim.Optimizer:
    """Make an optimizer in which a parameter with an ``lr_scale`` has its own learning rate.

    Parameters
    ----------
    kind
        A key of ``OPTIMIZERS``.
    parameters
        What is trained.
    lr
        Learning rate where the scale is 1, as it is for parameters without one.
    **settings
        What else the optimizer takes.

    Returns
    -------
    The optimizer.
    """
    groups: dict[float, list] = {}
    for parameter in parameters:
        groups.setdefault(getattr(parameter, "lr_scale", 1.0), []).append(parameter)
    return OPTIMIZERS[kind](
        [{"params": group, "lr": lr * scale} for scale, group in groups.items()], lr=lr, **settings
    )


def kl_warmup(max_epochs: int) -> dict[str, int]:
    """Warm the KL term up over the first third of the epochs, for every model that is compared.

    scVI's own 400 epochs are more than there are here: the weight would never reach 1.

    Parameters
    ----------
    max_epochs
        Of the run.

    Returns
    -------
    For ``plan_kwargs``.
    """
    return {"n_epochs_kl_warmup": max(1, max_epochs // 3)}


def plan(optimizer_name: str, lr: float, max_epochs: int, given: dict | None) -> dict:
    """What the training plan is given.

    Parameters
    ----------
    optimizer_name
        A key of ``OPTIMIZERS``.
    lr
        Learning rate.
    max_epochs
        Of the run.
    given
        The user's ``plan_kwargs``, which come before the defaults.

    Returns
    -------
    ``plan_kwargs`` for scvi-tools.

    Raises
    ------
    ValueError
        The optimizer is unknown, or named in `given`.
    """
    one_of("optimizer", optimizer_name, tuple(OPTIMIZERS))
    # scVI's eps; the head does no better with a smaller one
    defaults = {"lr": lr, "eps": 0.01, "weight_decay": 1e-6} | kl_warmup(max_epochs)
    settings = defaults | (given or {})
    if "optimizer" in settings:
        raise ValueError("Name the optimizer with optimizer=, not in plan_kwargs.")
    own = {key: settings.pop(key) for key in ("lr", "eps", "weight_decay")}
    creator = partial(optimizer, optimizer_name, **own)
    return settings | {"optimizer": "Custom", "optimizer_creator": creator}


def checked_split(
    split: Sequence[Sequence[int]], n_obs: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Train and val positions, and the rest.

    Parameters
    ----------
    split
        Train and val positions.
    n_obs
        Number of cells.

    Returns
    -------
    Positions of train, val and all other cells.

    Raises
    ------
    ValueError
        These are not two non-empty parts of distinct integers below `n_obs`.
    """
    if len(split) != 2:
        raise ValueError(f"split has {len(split)} parts; give two, train and val.")
    parts = [np.asarray(part) for part in split]
    for name, part in zip(("train", "val"), parts, strict=True):
        if len(part) == 0:
            raise ValueError(f"The {name} part of the split is empty.")
        if not np.issubdtype(part.dtype, np.integer) or part.min() < 0 or part.max() >= n_obs:
            raise ValueError(f"The {name} part must hold positions from 0 to {n_obs - 1}.")
        if len(np.unique(part)) < len(part):
            raise ValueError(f"The {name} part names a cell twice.")
    if shared := len(np.intersect1d(*parts)):
        raise ValueError(f"{shared} cells are both in train and in val.")
    return *parts, np.setdiff1d(np.arange(n_obs), np.concatenate(parts))


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
    keys = REGISTRY_KEYS.X_KEY, SPLICED, UNSPLICED
    registry = model.adata_manager
    return tuple(sparse.csr_matrix(registry.get_from_registry(key))[cells] for key in keys)


def _log_normalised(counts: sparse.csr_matrix, depth: float) -> sparse.csr_matrix:
    """What :meth:`splicedvae.head.RatioHead.log_normalise` gives, sparse."""
    scale = depth / np.maximum(np.asarray(counts.sum(1)).ravel(), 1)
    return sparse.csr_matrix(sparse.diags(scale) @ counts).log1p()


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
    counts, mean 1.

    Raises
    ------
    ValueError
        There are no spliced, or no unspliced counts.
    """
    s, u = (np.asarray(layer.sum(0)).ravel() for layer in (spliced, unspliced))  # (G,)
    if s.sum() == 0 or u.sum() == 0:
        raise ValueError(
            f"The {counts.shape[0]} training cells have no counts in one of the spliced and "
            "unspliced layers, so there is nothing to learn ratios from."
        )
    overall = s.sum() / (s.sum() + u.sum())
    depth = np.median(np.asarray(counts.sum(1)))
    own = _log_normalised(counts, depth).astype(np.float64)
    mean = np.asarray(own.mean(0)).ravel()
    variance = np.asarray(own.multiply(own).mean(0)).ravel() - mean**2
    components = np.zeros((len(s), 0))
    if k := min(n_components, min(own.shape) - 1):
        pca = PCA(k, svd_solver="arpack", random_state=0).fit(own)
        kept = pca.explained_variance_ > 1e-6  # cells that are alike leave the others to rounding
        scale = np.sqrt(pca.explained_variance_[kept])
        components = (pca.components_[kept] / scale[:, None]).T  # (G, k)
    values = (
        # one count at the overall ratio keeps genes without counts finite
        np.log((s + overall) / (u + 1 - overall)),
        depth,
        mean,
        np.sqrt(np.maximum(variance, 1e-4)),
        components,
        (s + u) / (s + u).mean(),
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
    cells: np.ndarray,
    reads: Sequence[str] | None = None,
    n_cells: int = 20_000,
    seed: int = 0,
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
        A :class:`splicedvae.SplicedVAE` with its cells.
    cells
        Positions of the training cells.
    reads
        Which regressions, of ``"latent"`` and ``"components"``; None for both, if the head has
        components.
    n_cells
        Cells to fit on, at most; they are drawn at random.
    seed
        Of the draw.

    Raises
    ------
    ValueError
        No cell has both spliced and unspliced counts, or `reads` names something else.
    """
    known = [np.asarray(layer.sum(1)).ravel() > 0 for layer in counts(model, cells)[1:]]
    cells = np.asarray(cells)[known[0] & known[1]]  # others teach the head nothing
    if not len(cells):
        raise ValueError("No training cell has both spliced and unspliced counts.")
    if len(cells) > n_cells:
        cells = np.sort(np.random.default_rng(seed).choice(cells, n_cells, replace=False))
    x_counts, spliced, unspliced = counts(model, cells)
    head, seen = model.module.head, []
    hook = head.output.register_forward_pre_hook(lambda _, args: seen.append(args[0].cpu()))
    try:
        model.get_splicing_ratio(indices=cells)
    finally:
        hook.remove()
    h = torch.cat(seen).numpy()  # (cells, features): the latent, or hidden units, and covariates
    own, mean, std = _log_normalised(x_counts, float(head.depth)), head.own_mean, head.own_std
    mean, std, directions = (v.cpu().numpy() for v in (mean, std, head.components))
    x = np.hstack([h, own @ directions - mean @ directions]).astype(np.float64)
    centre, spread = x.mean(0), x.std(0)
    spread[spread < 1e-6] = 1  # such as the column of a batch that has no cell here
    x = (x - centre) / spread
    loadings = (own.T @ x) / len(x) / std[:, None]  # x has mean 0, so own needs none
    logit = starting_values(x_counts, spliced, unspliced)[0].numpy()
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


class RatioHistory(Callback):
    """Writes how the head fares to ``history``, once per epoch."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.module.reset_moments(pl_module.device)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log(trainer, pl_module, "train")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log(trainer, pl_module, "validation")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.module.moments = None

    def _log(self, trainer: Trainer, pl_module: LightningModule, mode: str) -> None:
        reduce = partial(trainer.strategy.reduce, reduce_op="sum")  # over devices
        for name, value in pl_module.module.pop_moments(mode == "train", reduce).items():
            pl_module.log(f"{name}_{mode}", value, sync_dist=True)
