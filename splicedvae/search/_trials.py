"""A trial: from Optuna's parameters to scores on validation cells."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, fields
from typing import Any

import joblib
import numpy as np
import optuna
import scvi
from anndata import AnnData
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from scipy import sparse

from ..model import SplicedVAE
from ..module import SPLICED, UNSPLICED
from ..ratios import metrics
from ..ratios._entries import pooled_ratio
from ._workers import RETRY, interruptible

#: Of validation cells: the direction, the name in `assess`, and in the history what is pruned by.
OBJECTIVES = {
    "rmse": ("minimize", "rmse_observed", "ratio_rmse_validation"),
    "d2": ("maximize", "d2", "ratio_nll_validation"),
    "elbo": ("maximize", "elbo", "elbo_validation"),  # the history holds the negative bound
}
TRAINING = ("optimizer", "lr", "batch_size")  # parameters that `train` takes


def fit(
    adata: AnnData,
    parameters: dict[str, Any],
    split: Sequence[np.ndarray],
    max_epochs: int,
    seed: int,
    callbacks: Sequence[Callback] = (),
) -> SplicedVAE:
    """Train a model of these parameters on cells that `setup_anndata` has seen."""
    scvi.settings.seed = seed
    of_training = {k: v for k, v in parameters.items() if k in TRAINING}
    model = SplicedVAE(adata, **{k: v for k, v in parameters.items() if k not in TRAINING})
    with redirect_stdout(io.StringIO()):  # scvi-tools prints a failure, whole tensors included
        model.train(
            max_epochs,
            split=split,
            callbacks=list(callbacks),
            enable_progress_bar=False,
            **of_training,
        )
    return model


def assess(model: SplicedVAE, train: np.ndarray, cells: np.ndarray) -> dict[str, float]:
    """Ratio report of some cells beside the mean of the training cells, and their ELBO."""
    ratio = model.get_splicing_ratio(indices=cells, return_numpy=True)
    counts = [model.adata_manager.get_from_registry(key) for key in (SPLICED, UNSPLICED)]
    elbo = float(model.get_elbo(indices=cells, return_mean=True))
    return report(*counts, ratio, train, cells) | {"elbo": elbo}


def report(spliced, unspliced, ratio, train, cells) -> dict[str, float]:
    """Ratio report of some cells beside the mean of the training cells."""
    mean = pooled_ratio(spliced[train], unspliced[train])
    return metrics.ratio_report(spliced[cells], unspliced[cells], ratio, mean)


@dataclass(frozen=True)
class Task:
    """What every process of a search needs, and all that decides a study but its cells' number."""

    adata: AnnData
    setup: dict[str, Any]
    split: tuple[np.ndarray, np.ndarray]
    space: dict[str, Any]
    objective: tuple[str, ...]
    sampler: str
    max_epochs: int
    seed: int
    storage: str
    study_name: str

    def fingerprint(self) -> dict[str, str]:
        """Hashes, by what a study depends on."""
        layers = [
            self.adata.layers[self.setup[k]] for k in ("layer", "spliced_layer", "unspliced_layer")
        ]
        parts = {f.name: getattr(self, f.name) for f in fields(self)[1:-2]}
        parts |= {"space": sorted((k, repr(v)) for k, v in self.space.items())}
        # pickled as it is, a sparse matrix says whether it was ever asked for its order
        counts = [(x.shape, x.data, x.indices, x.indptr) for x in map(_canonical, layers)]
        names = [name for value in self.setup.values() for name in np.atleast_1d(value)]
        columns = [self.adata.obs[name].tolist() for name in names if name in self.adata.obs]
        names = list(self.adata.obs_names), list(self.adata.var_names)
        parts |= {"cells": [counts, columns, names]}
        return {name: joblib.hash(part) for name, part in parts.items()}

    def setup_anndata(self) -> None:
        """Set the cells up in a new process, as they were in the first."""
        SplicedVAE.setup_anndata(self.adata, **self.setup)

    def parameters(self, trial: optuna.Trial) -> dict[str, Any]:
        """The trial's point of the space, and what is held fixed."""
        return {name: suggest(trial, name, values) for name, values in self.space.items()}

    def __call__(self, trial: optuna.Trial) -> tuple[float, ...]:
        """Train the trial's configuration and judge it on the validation cells."""
        try:
            with interruptible():
                return self._judge(trial)
        except (KeyboardInterrupt, SystemExit) as stop:  # Lightning exits after Ctrl-C
            RETRY(trial.study, trial.study.trials[trial.number])
            raise KeyboardInterrupt from stop
        except optuna.TrialPruned:
            raise
        except Exception as error:
            trial.set_user_attr("reason", f"{type(error).__name__}: {error}".splitlines()[0])
            raise

    def _judge(self, trial: optuna.Trial) -> tuple[float, ...]:
        if _surplus(trial):
            trial.set_user_attr("surplus", True)
            raise ValueError("another process has this configuration")
        seed = self.seed + trial.user_attrs["configuration"]
        if self.sampler == "tpe":  # drawn anew, so that the same history gives the same point
            trial.study.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=False)
        watch = _Watch(trial, self.objective)
        parameters = self.parameters(trial)
        model = fit(self.adata, parameters, self.split, self.max_epochs, seed, [watch])
        scores = assess(model, *self.split)
        values = tuple(scores[OBJECTIVES[name][1]] for name in self.objective)
        if not all(map(math.isfinite, values)):
            raise FloatingPointError(f"the scores are {values}")
        trial.set_user_attr("scores", scores)
        return values


def suggest(trial: optuna.Trial, name: str, values: Any) -> Any:
    """Ask Optuna for a value: from a list, from a distribution, or the one there is."""
    if isinstance(values, list | tuple):
        return trial.suggest_categorical(name, values)
    if isinstance(values, CategoricalDistribution):
        return trial.suggest_categorical(name, values.choices)
    if not isinstance(values, BaseDistribution):
        return values
    ask = trial.suggest_int if isinstance(values, IntDistribution) else trial.suggest_float
    return ask(name, values.low, values.high, step=values.step, log=values.log)


def _surplus(trial: optuna.Trial) -> bool:
    """Whether it is another's: two processes that begin or end a study at once may both take it.

    A configuration has two trials at the most: its first, and the first retry of that.
    """
    root, mine = RETRY.retried_trial_number, trial.user_attrs.get("configuration")
    trials = trial.study.get_trials(deepcopy=False)
    same = [t for t in trials if t.user_attrs.get("configuration") == mine]
    retried = root(trials[trial.number])
    first = next(t.number for t in same if root(t) == retried)
    return mine is None or retried not in (None, same[0].number) or first != trial.number


def _canonical(counts: Any) -> sparse.csr_matrix:
    """The one way to write these counts as a sparse matrix."""
    counts = sparse.csr_matrix(counts, copy=True)
    counts.sum_duplicates()
    counts.eliminate_zeros()
    return counts


class _Watch(Callback):
    """Stops a trial that diverged, and one that is hopeless."""

    def __init__(self, trial: optuna.Trial, objective: tuple[str, ...]):
        self.trial, self.names = trial, [OBJECTIVES[name][2] for name in objective]
        # what is watched is a loss, whatever the objective
        self.sign = 1 if OBJECTIVES[objective[0]][0] == "minimize" else -1

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Read the epoch's validation scores; Lightning calls it."""
        epoch = trainer.current_epoch + 1
        values = [float(trainer.callback_metrics[name]) for name in self.names]
        if not all(map(math.isfinite, values)):
            raise FloatingPointError(f"the validation loss is {values} after epoch {epoch}")
        # ten reports, since each is written to the database; a front has no order to prune by
        if len(values) == 1 and epoch % max(1, trainer.max_epochs // 10) == 0:
            self.trial.report(self.sign * values[0], epoch)
            if self.trial.should_prune():
                raise optuna.TrialPruned(f"behind the median after epoch {epoch}")
