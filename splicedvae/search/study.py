"""A search: its space, its points, its study."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import Sequence
from inspect import signature
from itertools import product
from typing import Any, Literal

import numpy as np
import optuna
from anndata import AnnData
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from tqdm.auto import tqdm

from ..head import one_of
from ..model import SplicedVAE
from ..training import checked_split
from ._trials import OBJECTIVES, TRAINING, Task
from ._workers import interruptible, open_storage, quiet, spread, work
from .confirmation import table

#: Section 2.3 of the paper says what was varied, and the range of two of them; all steps, and the
#: ranges of the learning rate and of the weight, are ours. A value that stands alone is held
#: fixed: the paper's model, read literally.
PAPER_GRID = {
    "head": ["mlp2", "mlp3", "bottleneck"],
    "head_activation": ["sigmoid", "softmax"],
    "n_latent": [8, 16, 32, 64, 128],
    "dropout_rate": [0.0, 0.1, 0.2, 0.3, 0.4, 0.5],
    "ratio_loss": ["mse", "weighted_mse", "binomial", "l1"],
    "optimizer": ["Adam", "AdamW", "RMSprop"],
    "lr": [1e-4, 3e-4, 1e-3, 3e-3, 1e-2],
    "ratio_weight": [0.1, 1.0, 10.0, 100.0, 1000.0],
    "own_total": False,
    "n_components": 0,
    "ratio_reduction": "mean",
    "head_l2": 0.0,
    "head_latent": "sample",
}
#: The same, with every number free within its range.
PAPER_CONTINUOUS = PAPER_GRID | {
    "n_latent": IntDistribution(8, 128, log=True),
    "dropout_rate": FloatDistribution(0.0, 0.5),
    "lr": FloatDistribution(1e-4, 1e-2, log=True),
    "ratio_weight": FloatDistribution(0.1, 1000.0, log=True),
}
ENDED = ("COMPLETE", "PRUNED", "FAIL")

logger = logging.getLogger("splicedvae")


def run(
    adata: AnnData,
    split: tuple[Sequence[int], Sequence[int]],
    space: dict[str, Any] | None = None,
    *,
    objective: str | Sequence[str] = "rmse",
    sampler: Literal["grid", "tpe"] = "grid",
    n_trials: int = 90,
    max_epochs: int = 50,
    seed: int = 0,
    storage: str = "sqlite:///search.db",
    study_name: str = "splicedvae",
    n_workers: int = 1,
    progress: bool = True,
) -> optuna.Study:
    """Search, or go on with a search that was interrupted or that another machine has begun.

    Each trial trains one configuration on the training cells and is judged on the validation
    cells; no other cell is looked at. A trial that falls behind the median of the others is
    pruned, unless there are several objectives. However its processes end, each configuration
    ends complete, pruned or failed; none that has ended is run again, and one that was
    interrupted is run once more.

    Parameters
    ----------
    adata
        Set up by :meth:`splicedvae.SplicedVAE.setup_anndata`.
    split
        Positions of the train and validation cells.
    space
        By argument of :class:`splicedvae.SplicedVAE` or of its ``train`` (``optimizer``, ``lr``,
        ``batch_size``): a list of values, an Optuna distribution, or one value that is held fixed.
        None takes ``PAPER_GRID``, or ``PAPER_CONTINUOUS`` for TPE.
    objective
        ``"rmse"`` (of observed entries, as in the paper), ``"d2"``, ``"elbo"``, or several for the
        Pareto front, such as ``("elbo", "d2")``.
    sampler
        ``"grid"`` draws points of the grid by `seed`; ``"tpe"`` learns from earlier trials.
    n_trials
        Configurations in the study. A larger number than before adds to them.
    max_epochs
        Of each trial.
    seed
        Of the points that are drawn, and, with a configuration's number added, of its trial.
    storage
        URL of a database. For several machines ``postgresql://user@host/name``, and the same call
        on each of them.
    study_name
        Several studies can share a database.
    n_workers
        Processes on this machine, which share its cores. With more than one, a script needs
        ``if __name__ == "__main__":`` around the call, as always with Python's processes.
    progress
        Show a bar.

    Returns
    -------
    The study, for Optuna's own figures and for :func:`table`, :func:`top` and :func:`confirm`.

    Raises
    ------
    ValueError
        An unknown parameter or objective; a space that is empty, smaller than `n_trials`, or no
        grid; a split that is none; a study that was made with other settings or other cells.
    ConnectionError
        The storage can't be reached.
    RuntimeError
        All workers died before the study was done (the same call goes on), or no trial succeeded.
    """
    if space is None:
        space = PAPER_GRID if sampler == "grid" else PAPER_CONTINUOUS
    manager = SplicedVAE._get_most_recent_anndata_manager(adata, required=True)
    task = Task(
        adata=adata,
        setup=manager.registry["setup_args"],
        split=checked_split(split, adata.n_obs)[:2],
        space=dict(space),
        objective=(objective,) if isinstance(objective, str) else tuple(objective),
        sampler=one_of("sampler", sampler, ("grid", "tpe")),
        max_epochs=max_epochs,
        seed=seed,
        storage=storage,
        study_name=study_name,
    )
    points = _points(task, n_trials, n_workers)
    with quiet(), interruptible():
        study = _study(task)
        _enqueue(study, points)
        with tqdm(total=n_trials, desc="search", unit="trial", disable=not progress) as bar:

            def show() -> None:
                states = Counter(table(study)["state"])
                bar.n = sum(states[state] for state in ENDED)
                bar.set_postfix({state.lower(): n for state, n in states.items()})

            if n_workers == 1:
                work(task, show)
            else:
                spread(task, n_workers, show)
            show()
    trials = table(study)
    if waiting := int((~trials["state"].isin(ENDED)).sum()):
        raise RuntimeError(
            f"All workers died with {waiting} configurations to do. What is done stands in the "
            f"study {study_name!r}, and the same call goes on."
        )
    failed = trials[trials["state"] == "FAIL"]
    if len(failed):
        logger.warning("%d trials failed, the first with %s", len(failed), failed["reason"].iloc[0])
    if len(failed) == len(trials):
        raise RuntimeError(f"No trial succeeded; the first failed with {failed['reason'].iloc[0]}")
    return study


def _free(space: dict[str, Any]) -> dict[str, Any]:
    """What a space leaves to the search."""
    return {k: v for k, v in space.items() if isinstance(v, list | tuple | BaseDistribution)}


def _points(task: Task, n_trials: int, n_workers: int = 1) -> list[dict[str, Any]]:
    """Check the space; the parameters that are fixed beforehand, for each configuration."""
    for name in task.objective:
        one_of("objective", name, tuple(OBJECTIVES))
    if not task.objective or min(n_trials, n_workers, task.max_epochs) < 1:
        raise ValueError("A search needs an objective, a trial, a worker and an epoch at least.")
    known = {*signature(SplicedVAE.__init__).parameters, *TRAINING} - {"self", "adata", "registry"}
    if unknown := sorted(task.space.keys() - known):
        raise ValueError(
            f"The space varies {', '.join(unknown)}, which SplicedVAE does not have; it has "
            f"{', '.join(sorted(known))}."
        )
    try:
        json.dumps([v for v in task.space.values() if not isinstance(v, BaseDistribution)])
    except TypeError as error:
        raise ValueError(
            f"A space holds lists of Python's numbers, strings and None ({error}); an array's "
            "tolist() gives one."
        ) from error
    free = _free(task.space)
    if not free:
        raise ValueError("The space is empty: give at least one parameter a list of values.")
    if empty := [k for k, v in free.items() if isinstance(v, list | tuple) and not v]:
        raise ValueError(f"The space has no value for {', '.join(empty)}.")
    if task.sampler == "tpe":
        return [{}] * n_trials
    if ranges := [k for k, v in free.items() if isinstance(v, BaseDistribution)]:
        raise ValueError(f"A grid needs lists; give {', '.join(ranges)} one, or use sampler='tpe'.")
    size = math.prod(map(len, free.values()))
    if size < n_trials:
        raise ValueError(f"The grid has {size} points; ask for at most so many trials.")
    grid = list(product(*free.values()))
    drawn = np.random.default_rng(task.seed).permutation(size)[:n_trials]
    return [dict(zip(free, grid[i], strict=True)) for i in drawn]


def _enqueue(study: optuna.Study, points: list[dict[str, Any]]) -> None:
    """Let those configurations wait for a worker that the study does not have yet."""
    trials = study.get_trials(deepcopy=False)
    known = {trial.user_attrs.get("configuration") for trial in trials}
    for number, point in enumerate(points):
        if number not in known:
            study.enqueue_trial(point, user_attrs={"configuration": number})


def _study(task: Task) -> optuna.Study:
    """Make the study, or join one that was made for the same task."""
    where = open_storage(task.storage)
    mine = task.fingerprint()
    study = optuna.create_study(
        storage=where,
        study_name=task.study_name,
        directions=[OBJECTIVES[name][0] for name in task.objective],
        load_if_exists=True,
    )
    # new, or its maker has just begun, or died
    if "fingerprint" not in study.user_attrs and not study.get_trials(deepcopy=False):
        free = _free(task.space)
        study.set_user_attr("fixed", {k: v for k, v in task.space.items() if k not in free})
        study.set_user_attr("fingerprint", mine)
    theirs = study.user_attrs.get("fingerprint", {})
    if other := [name for name, digest in mine.items() if theirs.get(name) != digest]:
        raise ValueError(
            f"The study {task.study_name!r} was made with other {', '.join(other)}. Give a new "
            "study_name, or what it was made with."
        )
    return study
