"""What training a SplicedVAE adds to training an SCVI: optimisers, the split, history."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from scvi import REGISTRY_KEYS
from scvi.train import TrainingPlan
from torch import optim

from .head import one_of

# A variance falls by factors of 100, and its gradient with it, so the memory of its size is short.
_ADAM = {"eps": 1e-8, "weight_decay": 0.0, "betas": (0.9, 0.99)}
HEAD_SETTINGS = {"Adam": _ADAM, "AdamW": _ADAM, "RMSprop": {"eps": 1e-8, "weight_decay": 0.0}}
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
    """Make an optimizer in which a parameter may have a learning rate of its own.

    A parameter with an ``lr_scale`` has that multiple of the rate. One that is ``scheduled``, as
    those of a head with a learned prior are, follows :class:`SplicedVAEPlan`'s schedule, has no
    decay, its prior being the only pull, and no damping: its gradient may be tiny.

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
    groups: dict[tuple, list] = {}
    for parameter in parameters:
        key = getattr(parameter, "lr_scale", 1.0), getattr(parameter, "scheduled", False)
        groups.setdefault(key, []).append(parameter)
    return OPTIMIZERS[kind](
        [
            {"params": group, "lr": lr * scale, "scheduled": scheduled}
            | (HEAD_SETTINGS.get(kind, {}) if scheduled else {})
            for (scale, scheduled), group in groups.items()
        ],
        lr=lr,
        **settings,
    )


class SplicedVAEPlan(TrainingPlan):
    """scVI's training plan, in which scheduled parameters rise to their rate and come to rest."""

    def configure_optimizers(self) -> dict:
        config = super().configure_optimizers()
        if "lr_scheduler" in config:  # the user's own
            return config

        def share(step: int) -> float:
            # asked for only now: minibatches must not be made before a stopped training is restored
            steps = self.trainer.max_epochs * self.trainer.num_training_batches
            return one_cycle(step, steps) if math.isfinite(steps) else one_cycle(0, 1)

        groups = config["optimizer"].param_groups
        shapes = [share if group["scheduled"] else lambda step: 1.0 for group in groups]
        scheduler = optim.lr_scheduler.LambdaLR(config["optimizer"], shapes)
        config["lr_scheduler"] = {"scheduler": scheduler, "interval": "step"}
        return config


def one_cycle(step: int, steps: int) -> float:
    """Share of the learning rate: up in the first third, then down to 0, both as a cosine.

    Parameters
    ----------
    step
        From 0.
    steps
        In the whole training.

    Returns
    -------
    A number between 0 and 1.
    """
    done, peak = step / steps, 0.3
    if done < peak:
        return 0.52 - 0.48 * math.cos(math.pi * done / peak)
    return 0.5 + 0.5 * math.cos(math.pi * min((done - peak) / (1 - peak), 1))


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
