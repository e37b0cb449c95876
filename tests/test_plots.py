"""Panels draw the numbers they are given."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from splicedvae import plots
from splicedvae.simulate import STAGES

mpl.use("Agg")


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_every_cell_type_has_a_colour_of_its_own():
    assert set(plots.COLOURS) == set(STAGES)
    assert len(set(plots.COLOURS.values())) == len(STAGES)


def test_embedding_puts_each_cell_in_its_place_and_colour():
    points = np.arange(12.0).reshape(6, 2)
    labels = pd.Series(["Beta", "Alpha", "Beta", "mystery", "Alpha", "Beta"])
    ax = plots.embedding(points, labels)
    drawn = {c.get_label(): c for c in ax.collections}
    assert set(drawn) == {"Beta", "Alpha", "mystery"}
    for name, collection in drawn.items():
        np.testing.assert_array_equal(collection.get_offsets(), points[labels == name])
    assert to_hex(drawn["Beta"].get_facecolor()[0]) == plots.COLOURS["Beta"].lower()


def test_scores_over_seeds_draws_each_seed_and_the_mean():
    index = pd.MultiIndex.from_product([["SplicedVAE", "ridge"], [0, 1]])
    scores = pd.DataFrame({"d2": [0.02, 0.04, 0.01, 0.03]}, index=index)
    ax = plots.scores_over_seeds(scores, "d2", ["ridge", "SplicedVAE"])
    dots, means = ax.lines[0:4:2], ax.lines[1:4:2]
    np.testing.assert_allclose([line.get_xdata() for line in dots], [[0.01, 0.03], [0.02, 0.04]])
    np.testing.assert_allclose([line.get_xdata()[0] for line in means], [0.02, 0.03])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["ridge", "SplicedVAE"]


def test_gene_differences_and_their_mean():
    difference = pd.Series({"a": 0.1, "b": -0.3})
    ax = plots.gene_differences(difference, pd.Series({"b": 2.0, "c": 9.0, "a": 1.0}))
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[1.0, 0.1], [2.0, -0.3]])
    assert ax.lines[-1].get_ydata()[0] == pytest.approx(-0.1)


def test_history_starts_at_epoch_one():
    ax = plots.history({"elbo_train": [3, 2], "elbo_validation": [4, 3]}, "elbo")
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[1, 3], [2, 2]])
    np.testing.assert_array_equal(ax.lines[1].get_xydata(), [[1, 4], [2, 3]])


def test_ratio_against_depth_shows_every_counted_cell():
    s, n = np.array([0.0, 1.0, 3.0]), np.array([0.0, 2.0, 4.0])
    ax = plots.ratio_against_depth(s, n, 0.6)
    drawn = np.vstack([np.asarray(c.get_offsets()) for c in ax.collections if len(c.get_offsets())])
    assert {0.5, 0.75} <= set(drawn[:, 1].round(6))


def test_error_bound_is_the_bound():
    """RMSE >= SD sqrt(1 - r^2): the curve of each target starts at its SD and ends at 0."""
    scores = pd.DataFrame({"sd": [0.3], "r": [0.8], "rmse": [0.2]}, index=["observed"])
    ax = plots.error_bound(scores, (0.67, 0.1271))
    x, y = ax.lines[0].get_data()
    np.testing.assert_allclose(y, 0.3 * np.sqrt(1 - np.asarray(x) ** 2), atol=1e-9)
