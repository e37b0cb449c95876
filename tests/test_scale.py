"""The stage that measures what a corpus costs."""

import numpy as np
import pandas as pd
import pytest

import splicedvae as sv
from splicedvae_book import scale


def test_cost_model_is_the_line_through_the_smaller_sizes():
    rows = pd.DataFrame(
        {"cells": [10, 100, 1000], "build_s": [3.0, 12.0, 500.0], "disk": [1.0, 10.0, 100.0]}
    )
    model = scale.cost_model(rows, [1000, 10_000])
    np.testing.assert_allclose(model["build_s"], [2 + 0.1 * 1000, 2 + 0.1 * 10_000])
    np.testing.assert_allclose(model["disk"], [100, 1000])


def test_metadata_have_the_size_that_is_asked_for():
    samples = scale.metadata(5000, 40_000_000)
    assert len(samples) == 5000 and samples.index.is_unique
    assert samples["n_cells"].sum() == pytest.approx(40_000_000, rel=1e-3)
    assert samples["n_cells"].min() > 3000 and samples["tissue"].nunique() == 78
    plan = sv.atlas.sampling_plan(samples, 1_000_000)
    assert plan["n_take"].sum() == 1_000_000


@pytest.mark.slow
def test_each_size_is_built_streamed_and_trained_on(tmp_path, monkeypatch):
    sizes = {"sizes": (300, 600), "own": 600, "genes": 40}
    monkeypatch.setitem(scale.SETTINGS, "tiny", sizes)
    rows = pd.DataFrame(scale.run_job(None, "tiny", 0, "sizes", tmp_path)["rows"]).T
    assert list(rows["cells"]) == [300, 600]
    costs = [*(f"{step}_s" for step in scale.STEPS), "gib", "disk", "egress", "samples"]
    assert (rows[costs] > 0).all(axis=None)
    assert rows["disk"].iloc[1] > rows["disk"].iloc[0]
