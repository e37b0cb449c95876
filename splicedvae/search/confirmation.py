"""What a search found: every configuration, the best, and the best on test cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import joblib
import numpy as np
import optuna
import pandas as pd
from anndata import AnnData
from optuna.study import StudyDirection
from optuna.trial import TrialState
from tqdm.auto import tqdm

from ..ratios import baselines
from ..training import checked_split
from ._trials import assess, fit, report
from ._workers import quiet


def table(study: optuna.Study) -> pd.DataFrame:
    """How each configuration ended.

    Parameters
    ----------
    study
        From :func:`run`, or from :func:`optuna.load_study`.

    Returns
    -------
    A line per configuration, by number: ``state`` (``COMPLETE``, ``PRUNED`` or ``FAIL``;
    ``RUNNING`` or ``WAITING`` before), ``reason`` of a failure, ``attempts`` (two if it was
    interrupted), ``seconds``, ``watched`` (what the pruner saw last: the RMSE, or the negative
    ratio or total loss), the parameters that vary, and the scores on validation cells: those of
    :func:`splicedvae.metrics.ratio_report`, and ``elbo``, in nats per cell.
    """
    lines: dict[int, dict] = {}
    for trial in study.get_trials(deepcopy=False):
        number = trial.user_attrs.get("configuration")
        if number is None or "surplus" in trial.user_attrs:
            continue  # begun by two processes at once, and left to one of them
        lines[number] = {
            "state": trial.state.name,
            "reason": trial.user_attrs.get("reason", "an interruption"),
            "attempts": lines.get(number, {"attempts": 0})["attempts"] + 1,
            "seconds": trial.duration.total_seconds() if trial.duration else math.nan,
            "watched": next(reversed(trial.intermediate_values.values()), math.nan),
            **trial.params,
            **trial.user_attrs.get("scores", {}),
        }
        if trial.state.name != "FAIL":
            lines[number]["reason"] = ""
    return pd.DataFrame.from_dict(lines, orient="index").rename_axis("configuration").sort_index()


def top(study: optuna.Study, n: int = 5) -> dict[int, dict[str, Any]]:
    """The best complete configurations; of several objectives, those that no other one dominates.

    Parameters
    ----------
    study
        From :func:`run`.
    n
        How many at most.

    Returns
    -------
    By number of the configuration, the best first (of a front, by the first objective): all its
    parameters, for :class:`splicedvae.SplicedVAE` and its ``train``.
    """
    if len(study.directions) > 1:
        trials = study.best_trials
    else:
        trials = study.get_trials(states=(TrialState.COMPLETE,))
    sign = -1 if study.directions[0] == StudyDirection.MAXIMIZE else 1
    trials = sorted(trials, key=lambda trial: sign * trial.values[0])[:n]  # noqa: PD011
    fixed = study.user_attrs["fixed"]
    return {trial.user_attrs["configuration"]: fixed | trial.params for trial in trials}


def confirm(
    study: optuna.Study,
    adata: AnnData,
    split: tuple[Sequence[int], Sequence[int], Sequence[int]],
    *,
    n: int = 5,
    seeds: Sequence[int] = (1000, 1001, 1002),
    max_epochs: int = 50,
    progress: bool = True,
) -> pd.DataFrame:
    """Retrain the best configurations and read the test cells, beside the default and the ridge.

    The test cells must be new to the search, so the split is the search's own and does not change
    with the seed, which is that of weights and minibatches.

    Parameters
    ----------
    study
        From :func:`run`.
    adata
        As given to :func:`run`, with ``layers["total"]``.
    split
        Positions of the train, validation and test cells, the first two as given to :func:`run`.
    n
        How many configurations.
    seeds
        Of the trainings. They should be new too: configuration k was searched with the search's
        seed + k.
    max_epochs
        Of each training, the default's too.
    progress
        Show a bar.

    Returns
    -------
    A line per ``model`` (``"1"`` is the search's first), ``seed`` and ``part`` (``"val"`` or
    ``"test"``): the scores of :func:`splicedvae.metrics.ratio_report`, the ``elbo``, and
    the ``configuration``, -1 for :class:`splicedvae.baselines.RidgeBinomial` and the default.

    Raises
    ------
    ValueError
        The study was made with other train or validation cells, or a test cell is among them.
    """
    *searched, others = checked_split(split[:2], adata.n_obs)
    if joblib.hash(tuple(searched)) != study.user_attrs["fingerprint"]["split"]:
        raise ValueError("The study was made with other train or validation cells; give the same.")
    (train, val), test = searched, np.asarray(split[2])
    if not np.isin(test, others).all():
        raise ValueError("Some test cells are among the train and validation cells of the search.")
    parts = {"val": val, "test": test}
    chosen = {str(rank): item for rank, item in enumerate(top(study, n).items(), start=1)}
    counts = adata.layers["spliced"], adata.layers["unspliced"]
    lines = {}
    with quiet():
        for seed in seeds:
            ridge = baselines.RidgeBinomial(seed=seed).fit(adata[train], adata[val])
            for part, cells in parts.items():
                scores = report(*counts, ridge.predict(adata[cells]), train, cells)
                lines["RidgeBinomial", seed, part] = {"configuration": -1} | scores
            models = {"default": (-1, {})} | chosen
            bar = tqdm(models.items(), desc=f"seed {seed}", disable=not progress)
            for name, (number, parameters) in bar:
                model = fit(adata, parameters, (train, val), max_epochs, seed)
                for part, cells in parts.items():
                    scores = assess(model, train, cells)
                    lines[name, seed, part] = {"configuration": number} | scores
    frame = pd.DataFrame.from_dict(lines, orient="index")
    frame.index = pd.MultiIndex.from_tuples(frame.index, names=["model", "seed", "part"])
    return frame
