"""Methods that name the quadrant of a cell's arrow, and give no velocity."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData, concat
from sklearn.metrics import recall_score

from splicedvae import baselines, velocity

TURNS = (0, 45)  # of the compass, in degrees: Velo-Predictor is fitted anew for each


def directions(
    train: AnnData, test: AnnData, seed: int, rounds: int = 60
) -> dict[str, dict[str, float]]:
    """How often such methods name the right quadrant, averaged over turns of the compass.

    Parameters
    ----------
    train, test
        Cells of the same genes with a velocity from true counts, on one UMAP.
    seed
        Of the resampling and of the trees.
    rounds
        Of the boosting.

    Returns
    -------
    For each method ``accuracy`` and ``balanced_accuracy`` on the test cells, and both with
    ``_unrotated``.
    """
    parts = train, test
    both = concat(parts)
    clusters = [part.obs["clusters"].astype(str).to_numpy() for part in parts]
    scores: dict[str, list[tuple[float, float]]] = {}
    for turn in TURNS:
        known, true = (
            velocity.direction_classes(part.obsm["velocity_umap"], turn) for part in parts
        )
        majority = pd.Series(known).groupby(clusters[0]).agg(lambda x: x.mode()[0])
        named = {"cluster majority": majority[clusters[1]].to_numpy()}
        for layer in ("spliced", "total"):
            model = baselines.VeloPredictor(layer=layer, n_estimators=rounds, seed=seed)
            named[f"Velo-Predictor, honest, {layer} counts"] = model.fit(train, known).predict(test)
        for name, classes in named.items():
            recall = recall_score(true, classes, labels=np.unique(true), average="macro")
            scores.setdefault(name, []).append(((classes == true).mean(), recall))
        model = baselines.VeloPredictor(n_estimators=rounds, seed=seed)
        leaky = model.as_published(both, np.append(known, true))
        scores.setdefault("Velo-Predictor, as published", []).append(tuple(leaky.values()))
    keys = ("accuracy", "balanced_accuracy")
    return {
        name: dict(zip(keys, np.mean(values, axis=0).tolist(), strict=True))
        | {f"{key}_unrotated": float(x) for key, x in zip(keys, values[0], strict=True)}
        for name, values in scores.items()
    }
