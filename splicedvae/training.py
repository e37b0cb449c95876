"""What training a SplicedVAE adds to training an SCVI: optimisers, the split, history."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import partial

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from scvi.train import TrainingPlan
from torch import optim

from .head import one_of

# A variance falls by factors of 100, and its gradient with it, so the memory of its size is short.
_ADAM = {"eps": 1e-8, "weight_decay": 0.0, "betas": (0.9, 0.99)}
HEAD_SETTINGS = {"Adam": _ADAM, "AdamW": _ADAM, "RMSprop": {"eps": 1e-8, "weight_decay": 0.0}}
OPTIMIZERS = {"Adam": optim.Adam, "AdamW": optim.AdamW, "RMSprop": optim.RMSprop}
#: Updates that an epoch should have, and the least and most cells in a minibatch.
PER_EPOCH, MINIBATCH = 20, (16, 128)


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
    if kind != "RMSprop":
        settings = {"fused": True} | settings  # one pass over all parameters
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
    """scVI's training plan, with scores that are summed on the device and logged once an epoch.

    To log them at every step, as scVI's plan does, takes a fifth of the training's time. Scheduled
    parameters rise to their rate and come to rest, see :func:`one_cycle`.
    """

    def on_fit_start(self) -> None:
        self.sums: dict[str, torch.Tensor] = {}

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.loss_kwargs["kl_weight"] = self.kl_weight
        return self._step(batch, "train")

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        self._step(batch, "validation")

    def on_train_epoch_end(self) -> None:
        self.log("kl_weight", self.loss_kwargs["kl_weight"])
        self._log("train")

    def on_validation_epoch_end(self) -> None:
        self._log("validation")

    def _step(self, batch: dict[str, torch.Tensor], mode: str) -> torch.Tensor:
        _, _, output = self.forward(batch, loss_kwargs=self.loss_kwargs)
        with torch.no_grad():
            reconstruction, kl = output.reconstruction_loss_sum, output.kl_local_sum
            cells = torch.full_like(kl, output.n_obs_minibatch)
            of_elbo = torch.stack([cells, cells * output.loss, reconstruction, kl])
            sums = torch.cat([of_elbo, output.extra_metrics["ratio"]])
            sums = sums if sums.device.type == "mps" else sums.double()
            self.sums[mode] = sums + self.sums[mode] if mode in self.sums else sums
        return output.loss

    def _log(self, mode: str) -> None:
        sums = self.trainer.strategy.reduce(self.sums.pop(mode), reduce_op="sum")  # over devices
        scores = scores_of_epoch(sums.tolist(), self.module.ratio_reduction)
        loss = scores.pop("loss")
        self.log(f"{mode}_loss", loss, prog_bar=mode == "train", sync_dist=self.use_sync_dist)
        scores = {f"{name}_{mode}": value for name, value in scores.items()}
        self.log_dict(scores, sync_dist=self.use_sync_dist)

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


def scores_of_epoch(sums: Sequence[float], ratio_reduction: str) -> dict[str, float]:
    """What ``history`` says of an epoch, exact over minibatches of any size.

    Parameters
    ----------
    sums
        Over all minibatches: cells, loss, reconstruction loss and KL divergence of z, each summed
        over cells; then over counted entries their number, predicted and observed ratios, the
        squares and the product of the two, the ratio loss, and the binomial one.
    ratio_reduction
        As in :class:`splicedvae.module.SplicedVAEModule`.

    Returns
    -------
    ``loss``, ``elbo`` (negative), ``reconstruction_loss``, ``kl_local`` and ``kl_global`` (0), each
    per cell; ``ratio_loss``, as reduced in training; ``ratio_nll``, binomial, in nats per cell;
    ``ratio_rmse`` and ``ratio_pearson_r`` over all counted entries.
    """
    cells, loss, reconstruction, kl, n, x, y, xx, yy, xy, entries, nll = sums
    n = max(n, 1.0)
    variance = (xx / n - (x / n) ** 2) * (yy / n - (y / n) ** 2)
    return {
        "loss": loss / cells,
        "elbo": (reconstruction + kl) / cells,
        "reconstruction_loss": reconstruction / cells,
        "kl_local": kl / cells,
        "kl_global": 0.0,
        "ratio_loss": entries / (cells if ratio_reduction == "sum" else n),
        "ratio_nll": nll / cells,
        "ratio_rmse": math.sqrt(max(xx - 2 * xy + yy, 0.0) / n),
        "ratio_pearson_r": (xy / n - x * y / n**2) / math.sqrt(max(variance, 1e-12)),
    }


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


def minibatch(n_cells: int) -> int:
    """Cells in a minibatch, so that an epoch of few cells has as many updates as it may.

    Parameters
    ----------
    n_cells
        That teach.

    Returns
    -------
    As many as make ``PER_EPOCH`` minibatches, within ``MINIBATCH``.
    """
    return int(np.clip(n_cells // PER_EPOCH, *MINIBATCH))


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
