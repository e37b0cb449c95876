"""The book's stage of futures: known futures score best, and LARRY is read as published."""

import os
from pathlib import Path

import numpy as np
import pytest

import splicedvae as sv
import splicedvae_book as lab


@pytest.mark.slow
def test_rows_of_the_simulator_are_ordered_as_they_must_be():
    rows = lab.futures.simulator(
        0, n_obs=500, n_vars=150, max_epochs=5, max_steps=150, kinds=("flow",)
    )
    known, stay = rows[lab.futures.TRANSFER], rows[lab.futures.STAY]
    for score in ("energy_score", "log_loss"):
        assert known[score] < stay[score]
    for source in lab.futures.SOURCES:
        many, one = rows[f"flow, {source}"], rows[f"flow, one path, {source}"]
        assert many["energy_score"] < one["energy_score"] < stay["energy_score"]
        assert many["log_loss"] < one["log_loss"]


def test_shares_are_scored_as_published():
    """The scores of the published predictions, as others have found them in the same file."""
    folder = os.environ.get("SPLICEDVAE_DATA")
    if not folder or not (Path(folder) / "futures").exists():
        pytest.skip("needs LARRY: set SPLICEDVAE_DATA to a folder with it")
    obs = sv.data.larry().obs
    test = obs[obs["test_set"]]
    assert len(test) == 335 and not (obs["test_set"] & obs["validation_set"]).any()
    found = {
        name: np.corrcoef(test[f"{name}_predictions"], test["neutrophil_share"])[0, 1]
        for name in ("WOT", "PBA", "FateID")
    }
    assert {k: round(v, 3) for k, v in found.items()} == {
        "WOT": 0.15,
        "PBA": 0.162,
        "FateID": 0.225,
    }
    assert obs["state"].notna().sum() == 781


def test_paired_differences_are_over_seeds():
    rows = {seed: {"a": {"x": 1.0 + seed}, "b": {"x": 3.0 + seed}} for seed in range(3)}
    assert lab.futures.paired(rows, "a", "b", "x") == [-2.0, -2.0, -2.0]


def test_panels_of_futures_show_what_they_are_given():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, 2))
    labels = sv.data.simulate(60, 5).obs["clusters"].iloc[:40]
    paths = np.repeat(points[None, None, :2], 3, axis=0).repeat(4, axis=1)
    ax = lab.plots.fans(points, labels, points, paths, n_neighbors=1)
    lines = [line.get_xydata() for line in ax.lines]
    assert len(lines) == 2 * (3 + 1)
    np.testing.assert_allclose(lines[0], np.repeat(points[:1], 4, axis=0))
    curve = sv.metrics.reliability(np.array([[0.2, 0.8]]), np.array([1]))
    ax = lab.plots.reliability_curve({"one": curve})
    np.testing.assert_allclose(ax.lines[1].get_xydata(), [[0.2, 0.0], [0.8, 1.0]])
    import pandas as pd

    fates = pd.DataFrame([[1.0, 0, 0], [0, 0, 2.0]], columns=["A", "B", "C"])
    ax = lab.plots.fate_triangle(fates, labels.iloc[:2])
    dots = np.concatenate([c.get_offsets() for c in ax.collections])
    assert {tuple(np.round(dot, 3)) for dot in dots} == {(0.0, 0.0), (0.5, 0.866)}
