"""Methods that claim a velocity without the two counts, on the cells of chapter 5 and on others."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from anndata import AnnData, read_h5ad
from sklearn.metrics import balanced_accuracy_score

from splicedvae import data, velocity
from splicedvae.velocity.metrics import EDGES
from splicedvae.velocity.peers.cascade_forest import CascadePredictor
from splicedvae.velocity.peers.table import METHODS, Task, held_out, pooled, score

from ..directions import TURNS
from ..profiles import prepared
from ..stage import Stage
from . import fields, fits

ROOT = "Ductal"
OURS = "SplicedVAE"
#: What the stage needs of ``fits``.
FITS = (OURS,)
NAMES = ("query", "pooled", "directions", "simulated", "dyngen")
#: What ends the name of a row, so that one table can hold all jobs.
ENDINGS = {name: f", {name}" for name in ("pooled", "simulated", "dyngen")}
HONEST, LEAKY = "cascade forest, honest", "cascade forest, as published"
#: Cells and genes that are simulated, epochs of a method that trains, and trees of a forest.
SETTINGS = {
    "smoke": {"n_obs": 400, "n_vars": 150, "epochs": 5, "n_trees": 10},
    "standard": {"n_obs": 1500, "n_vars": 400, "epochs": 150, "n_trees": 30},
    "full": {"n_obs": 1500, "n_vars": 400, "epochs": 150, "n_trees": 30},
}
DYNGEN = "simulated_dyngen_bifurcating_1000x250.h5ad"
DYNGEN_EDGES = (("sA", "sB"), ("sB", "sBmid"), ("sBmid", "sC"), ("sBmid", "sD"))


def run_job(adata: AnnData, profile: str, seed: int, name: str, folder: Path) -> dict:
    """Score all methods on one seed's test cells, by one protocol or on simulated cells.

    Parameters
    ----------
    adata
        From :func:`~splicedvae_book.profiles.load`.
    profile
        A key of ``splicedvae_book.profiles.PROFILES``.
    seed
        Of the split.
    name
        One of ``NAMES``.
    folder
        Of these results; the fits are kept beside it.

    Returns
    -------
    JSON-ready: ``rows``, scores per method; none where the cells can't be had.
    """
    rows = _rows(adata, profile, seed, name, folder)
    return {"rows": {row + ENDINGS.get(name, ""): scores for row, scores in rows.items()}}


def _rows(adata: AnnData, profile: str, seed: int, name: str, folder: Path) -> dict[str, dict]:
    epochs = SETTINGS[profile]["epochs"]
    if name == "simulated":
        sizes = {key: SETTINGS[profile][key] for key in ("n_obs", "n_vars")}
        return _known(data.simulate(**sizes, seed=seed), seed, epochs)
    if name == "dyngen":
        cells = dyngen()
        return {} if cells is None else _known(cells, seed, epochs, "sA", DYNGEN_EDGES)
    whole, (train, _, test) = prepared(adata, profile, seed)
    cells = held_out(whole, train, test)
    if name == "directions":
        return _directions(cells.train, cells.reference, profile, seed)
    ratio = fits.ratios(folder.parent, adata, profile, seed, OURS)
    cells.test.var[fields.CONCENTRATION] = fields.concentration(cells.train)
    slopes = {"reference": cells.train} if name == "pooled" else {}
    methods = METHODS | {OURS: lambda _: fields.from_ratio(cells.test, ratio, **slopes)}
    task = Task(cells.test, cells.train, ROOT, "clusters", epochs, seed)
    if name == "pooled":
        task = pooled(task)
    return score(cells, task, methods, EDGES, progress=False)


stage = Stage(
    run_job,
    NAMES,
    ("cosine", "cosine_raw", "accuracy", "balanced_accuracy", "cbdir", "minutes"),
    settings=SETTINGS,
    after=(fits.stage.title,),
)


def dyngen() -> AnnData | None:
    """Cells that dyngen has simulated: genes regulate genes, and the velocity is known.

    Returns
    -------
    1,000 cells × 250 genes with ``layers["velocity_true"]``, from the folder that the environment
    variable ``SPLICEDVAE_DATA`` names; None if they are not there.
    """
    path = Path(os.environ.get("SPLICEDVAE_DATA", "")) / "futures" / DYNGEN
    if not path.is_file():
        return None
    held = read_h5ad(path)
    cells = AnnData(
        held.layers["spliced"],
        obs=held.obs[["from"]].rename(columns={"from": "clusters"}),
        var=held.var[[]],
        layers={x: held.layers[x] for x in ("spliced", "unspliced")},
    )
    known = held.uns["gt_velocities"].toarray().astype(np.float32)
    cells.layers["velocity_true"] = np.nan_to_num(known)  # missing in a few cells
    return cells


def _known(adata: AnnData, seed: int, epochs: int, root: str = ROOT, edges=EDGES) -> dict:
    """Scores against a known velocity."""
    train, _, test = data.split(adata, seed=seed)
    whole = data.prepare(adata, fit_on=train)
    cells = held_out(whole, train, test, "velocity_true")
    task = Task(cells.test, cells.train, root, "clusters", epochs, seed)
    return score(cells, task, METHODS, edges, progress=False)


def _directions(train: AnnData, test: AnnData, profile: str, seed: int) -> dict[str, dict]:
    """The cascade forest by both protocols; honest also with the compass turned."""
    model = CascadePredictor(n_trees=SETTINGS[profile]["n_trees"], seed=seed)
    found = []
    for turn in TURNS:
        known, true = (
            velocity.direction_classes(part.obsm["velocity_umap"], turn) for part in (train, test)
        )
        said = model.fit(train, known).predict(test)
        found.append((float((said == true).mean()), float(balanced_accuracy_score(true, said))))
        if turn == 0:
            leaky = model.as_published(train, known)
    keys = ("accuracy", "balanced_accuracy")
    mean = dict(zip(keys, np.mean(found, axis=0).tolist(), strict=True))
    first = {f"{key}_unrotated": x for key, x in zip(keys, found[0], strict=True)}
    return {
        HONEST: mean | first | {"note": ""},
        LEAKY: {f"{key}_unrotated": leaky[key] for key in keys} | {"note": ""},
    }
