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
from torch import optim

from .head import OWN_SCALE

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


def starting_values(
    counts: sparse.csr_matrix, spliced: sparse.csr_matrix, unspliced: sparse.csr_matrix
) -> tuple[torch.Tensor, ...]:
    """What :meth:`splicedvae.head.RatioHead.initialise` takes, from the training cells.

    Parameters
    ----------
    counts, spliced, unspliced
        Input, spliced and unspliced counts of the training cells, (cells, genes).

    Returns
    -------
    Per gene: logit of the pooled ratio; mean and standard deviation of the log-normalised input;
    its share of the counts, mean 1.

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
    own = sparse.csr_matrix(sparse.diags(OWN_SCALE / np.asarray(counts.sum(1)).ravel()) @ counts)
    own.data = np.log1p(own.data)
    mean = np.asarray(own.mean(0)).ravel()
    variance = np.asarray(own.multiply(own).mean(0)).ravel() - mean**2
    values = (
        # one count at the overall ratio keeps genes without counts finite
        np.log((s + overall) / (u + 1 - overall)),
        mean,
        np.sqrt(np.maximum(variance, 1e-4)),
        (s + u) / (s + u).mean(),
    )
    return tuple(torch.as_tensor(v, dtype=torch.float32) for v in values)


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
