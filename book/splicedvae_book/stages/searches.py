"""The searches of chapter 4: two studies over the paper's space, and their best on test cells."""

from __future__ import annotations

import os
from pathlib import Path

import optuna
from anndata import AnnData

from splicedvae import search
from splicedvae.model import SplicedVAE

from ..profiles import prepared
from ..stage import Stage

#: Configurations of each study and epochs of each training; the paper has 90 and 50.
SETTINGS = {
    "smoke": {"n_trials": 6, "max_epochs": 4},
    "standard": {"n_trials": 10, "max_epochs": 10},
    "full": {"n_trials": 90, "max_epochs": 50},
}
NAMES = ("grid", "tpe")  # the study of each sampler
NEW = 1000  # no trial has a seed as high, so that no winner is retrained with its own
SPLIT = 0  # one for all: cells that were the search's validation must not test its winners


def run_job(adata: AnnData, profile: str, seed: int, name: str, folder: Path) -> dict:
    """Help to finish a study, then retrain its best with one seed and read the test cells.

    Parameters
    ----------
    adata
        From :func:`~splicedvae_book.profiles.load`.
    profile
        A key of ``splicedvae_book.profiles.PROFILES``.
    seed
        Of the retrained weights and minibatches; split and study are the same for all seeds.
    name
        One of ``NAMES``.
    folder
        For ``<name>.db``, the study, which jobs of other seeds may work on at the same time.

    Returns
    -------
    JSON-ready: ``files``, and ``rows`` of scores by study, model and part, such as
    ``"grid, 1, test"``.
    """
    adata, split = prepared(adata, profile, SPLIT)
    SplicedVAE.setup_anndata(adata)
    study = search.run(
        adata,
        split[:2],
        sampler=name,
        storage=f"sqlite:///{folder / name}.db",
        progress=False,
        **SETTINGS[profile],
    )
    epochs = SETTINGS[profile]["max_epochs"]
    scores = search.confirm(
        study, adata, split, seeds=(NEW + seed,), max_epochs=epochs, progress=False
    )
    rows = {f"{name}, {m}, {part}": row.to_dict() for (m, _, part), row in scores.iterrows()}
    return {"files": [f"{name}.db"], "rows": rows}


stage = Stage(
    run_job,
    NAMES,
    ("rmse_observed", "d2", "within_gene_r", "elbo"),
    settings=SETTINGS,
    libraries=("optuna",),
)


def study(results: str | os.PathLike, adata: AnnData, profile: str, name: str) -> optuna.Study:
    """A study that :meth:`~splicedvae_book.stage.Stage.run` has kept.

    Parameters
    ----------
    results, adata, profile
        As given to :meth:`~splicedvae_book.stage.Stage.run`.
    name
        One of ``NAMES``.

    Returns
    -------
    The study, for :mod:`splicedvae.search` and Optuna's own figures.
    """
    folder = stage.folder(results, adata, profile)
    return optuna.load_study(study_name="splicedvae", storage=f"sqlite:///{folder / name}.db")
