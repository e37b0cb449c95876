"""Panels draw the numbers they are given."""

from xml.etree import ElementTree

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from matplotlib.colors import to_hex
from matplotlib.patches import FancyArrowPatch
from scipy.special import i0
from scipy.stats import t as t_distribution

from splicedvae.simulate import STAGES
from splicedvae_book import plots

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
    scores = pd.DataFrame({"sd": [0.3], "R": [0.8], "rmse": [0.2]}, index=["observed"])
    ax = plots.error_bound(scores, (0.67, 0.1271))
    x, y = ax.lines[0].get_data()
    np.testing.assert_allclose(y, 0.3 * np.sqrt(1 - np.asarray(x) ** 2), atol=1e-9)


def test_scores_over_seeds_draws_intervals_and_roles():
    index = pd.MultiIndex.from_product([["SplicedVAE", "noise"], range(3)])
    scores = pd.DataFrame({"cosine": [0.5, 0.6, 0.7, 0.0, 0.1, -0.1]}, index=index)
    models = ["SplicedVAE", "noise"]
    ax = plots.scores_over_seeds(scores, "cosine", models, {"noise": "null"}, intervals=True)
    half = t_distribution.ppf(0.975, 2) * 0.1 / np.sqrt(3)
    for bar, mean, role in zip(ax.patches, (0.6, 0.0), ("ours", "null"), strict=True):
        assert bar.get_x() == pytest.approx(mean - half)
        assert bar.get_width() == pytest.approx(2 * half)
        assert to_hex(bar.get_facecolor()) == plots.ROLES[role].lower()
    one = plots.scores_over_seeds(scores.xs(0, level=1, drop_level=False), "cosine", models)
    assert len(one.patches) == 0  # one seed has no interval


# velocity


@pytest.fixture
def cells():
    """20 × 20 cells in a square, Alpha on the left and Beta on the right, all drifting east."""
    points = np.stack(np.meshgrid(np.arange(20.0), np.arange(20.0)), axis=-1).reshape(-1, 2)
    rng = np.random.default_rng(0)
    cells = AnnData(
        obs=pd.DataFrame(
            {"clusters": np.where(points[:, 0] < 10, "Alpha", "Beta")}, index=map(str, range(400))
        ),
        var=pd.DataFrame({"velocity_gamma": [0.5, 2.0]}, index=["Cpe", "Ins1"]),
        layers={name: rng.normal(size=(400, 2)) for name in ("Ms", "Mu", "velocity")},
    )
    cells.obsm["X_umap"], cells.obsm["velocity_umap"] = points, np.tile([0.3, 0.0], (400, 1))
    return cells


def test_stream_follows_the_arrows_and_leaves_the_cells_alone(cells, capsys, recwarn):
    before = cells.copy()
    ax = plots.stream(cells)
    assert capsys.readouterr() == ("", "") and len(recwarn) == 0
    steps = np.diff([s for s in ax.collections[2].get_segments() if len(s) == 2], axis=1)[:, 0]
    assert len(steps) > 100 and steps[:, 0].mean() > 0.1
    assert (steps[:, 0] >= 0).all() and np.abs(steps[:, 1]).max() < 1e-6
    for dots, name in zip(ax.collections[:2], ("Beta", "Alpha"), strict=True):
        here = cells.obsm["X_umap"][cells.obs["clusters"] == name]
        np.testing.assert_array_equal(dots.get_offsets(), here)
        assert to_hex(dots.get_facecolor()[0]) == plots.COLOURS[name].lower()
    assert ax.get_aspect() == 1 and len(ax.figure.axes) == 1
    assert dict(cells.uns) == {} and list(cells.obs) == ["clusters"]
    assert set(cells.obsm) == set(before.obsm)
    assert cells.obs["clusters"].dtype == before.obs["clusters"].dtype


def test_field_angles_are_densities_whose_area_is_one():
    angles = {"even": np.arange(0, 360, 0.5), "east": np.full(9, 90.0)}
    ax = plots.field_angles(angles, {"even": "null"})
    even, east, circle = (line.get_ydata() for line in ax.lines)
    np.testing.assert_allclose(even, 1, atol=1e-6)
    np.testing.assert_array_equal(circle, 1)
    theta = ax.lines[1].get_xdata()
    np.testing.assert_allclose(east**2, np.exp(30 * np.cos(theta - np.pi / 2)) / i0(30))
    assert (east[:-1] ** 2).mean() == pytest.approx(1)  # area over that of the dashed circle
    assert ax.get_theta_offset() == np.pi / 2 and ax.get_theta_direction() == -1  # a compass
    assert to_hex(ax.lines[0].get_color()) == plots.ROLES["null"]


def test_cell_scores_show_quartiles_and_mean():
    rng = np.random.default_rng(0)
    values = {"SplicedVAE": rng.normal(0.5, 0.1, 300), "noise": rng.normal(0, 0.1, 300)}
    ax = plots.cell_scores(values, {"noise": "null"})
    for row, (value, role) in enumerate(zip(values.values(), ("ours", "null"), strict=True)):
        box, dot = ax.lines[2 * row : 2 * row + 2]
        np.testing.assert_allclose(box.get_xdata(), np.quantile(value, [0.25, 0.75]))
        assert dot.get_xydata() == pytest.approx(np.array([[value.mean(), row]]))
        density = ax.collections[row]
        assert to_hex(density.get_facecolor()[0]) == plots.ROLES[role].lower()
        x = density.get_paths()[0].vertices[:, 0]
        assert (x.min(), x.max()) == pytest.approx((value.min(), value.max()))
    assert [t.get_text() for t in ax.get_yticklabels()] == list(values)


def test_phase_portrait_has_moments_and_slope(cells):
    ax = plots.phase_portrait(cells, "Ins1")
    beta = cells.obs["clusters"] == "Beta"
    moments = np.column_stack([cells.layers[name][beta, 1] for name in ("Ms", "Mu")])
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), moments)
    assert ax.lines[0].get_slope() == 2
    with pytest.raises(KeyError, match="Gcg"):
        plots.phase_portrait(cells, "Gcg")


def test_gene_velocity_has_colours_even_around_0(cells):
    dots = plots.gene_velocity(cells, "Cpe").collections[0]
    values = cells.layers["velocity"][:, 0]
    np.testing.assert_array_equal(dots.get_array(), values[np.argsort(np.abs(values))])
    limit = np.quantile(np.abs(values), 0.98)
    assert dots.get_clim() == pytest.approx((-limit, limit))


def test_transitions_have_the_width_of_their_confidence(cells):
    names = ["Beta", "Alpha"]
    confidence = pd.DataFrame([[0, 0.2], [0.8, 0]], index=names, columns=names)
    ax = plots.transitions(cells.obsm["X_umap"], cells.obs["clusters"], confidence)
    centres = {dots.get_label(): dots.get_offsets()[0] for dots in ax.collections[2:]}
    assert {name: tuple(xy) for name, xy in centres.items()} == {
        "Alpha": (4.5, 9.5),
        "Beta": (14.5, 9.5),
    }
    ways = [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]
    assert [way.get_linewidth() for way in ways] == [1.5, 4.5]
    ends = [tuple(map(tuple, way._posA_posB)) for way in ways]  # from Beta, then from Alpha
    assert ends == [((14.5, 9.5), (4.5, 9.5)), ((4.5, 9.5), (14.5, 9.5))]
    assert ax.get_legend_handles_labels()[1] == ["Beta", "Alpha"]  # as in COLOURS


def test_uncertainty_marks_the_worst(cells):
    spread = np.linspace(0, 0.9, 400)
    ax = plots.uncertainty(cells.obsm["X_umap"], spread, worst=0.05)
    dots, rings = ax.collections
    np.testing.assert_array_equal(dots.get_array(), spread)
    np.testing.assert_array_equal(rings.get_offsets(), cells.obsm["X_umap"][-20:])
    assert dots.get_clim() == pytest.approx((0, 0.9))


def test_search_history_draws_every_trial_and_the_best_so_far():
    gain = pd.Series({0: 0.1, 2: -0.2, 3: 0.3})
    ax = plots.search_history(gain, pd.Series({1: -0.1}), {"ridge": 0.9, "gene mean": 0.0})
    drawn = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert drawn["pruned"] == [[1, -0.1]]
    assert drawn["complete"] == [[0, 0.1], [2, -0.2], [3, 0.3]]
    assert drawn["best so far"] == [[0, 0.1], [2, 0.1], [3, 0.3]]
    assert drawn["ridge"] == [[0, 0.9], [1, 0.9]]


@pytest.fixture
def trials():
    """Parameters of four configurations, and their gains."""
    numbers = [4, 7, 8, 9]
    frame = {"head": ["mlp3", "mlp2", "mlp2", "mlp3"], "lr": [1e-4, 1e-2, 1e-3, 1e-3]}
    return pd.DataFrame(frame, index=numbers), pd.Series([0.4, 0.1, 0.3, 0.2], numbers)


def test_parallel_coordinates_place_values_on_their_axes(trials):
    parameters, gain = trials
    ax = plots.parallel_coordinates(parameters, gain, best=[4, 7, 8, 9])
    lines = [line.get_ydata() for line in ax.lines if len(line.get_xdata()) == 3]
    # mlp2 at 0 and mlp3 at 1; the learning rate on a log scale; the rank from 1 / 4 to 1
    np.testing.assert_allclose(
        lines, [[1, 0, 1], [0, 1, 0], [0, 0.5, 2 / 3], [1, 0.5, 1 / 3]], atol=1e-12
    )
    written = [text.get_text() for text in ax.texts]
    assert written == ["mlp2", "mlp3", "0.0001", "0.001", "0.01"]


def test_slices_have_the_median_of_each_value(trials):
    parameters, gain = trials
    _, axes = plt.subplots(1, 2)
    plots.slices(parameters, gain, axes)
    medians = [ax.lines[1].get_xydata() for ax in axes]
    np.testing.assert_allclose(medians[0], [[0, 0.2], [1, 0.3]])
    np.testing.assert_allclose(medians[1], [[0, 0.4], [0.5, 0.25], [1, 0.1]], atol=1e-12)


def test_shrinkage_follows_each_configuration_and_their_mean():
    stages = pd.DataFrame({"when chosen": [0.5, 0.4], "new cells": [0.1, 0.2]}, index=[12, 3])
    ax = plots.shrinkage(stages)
    lines = [line.get_ydata().tolist() for line in ax.lines[:3]]
    assert lines == [[0.5, 0.1], [0.4, 0.2], pytest.approx([0.45, 0.15])]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["when chosen", "new cells"]


def test_gene_overlap_shows_the_three_shares():
    table = {
        "share of the checkpoint": 5706 / 8000,
        "share of the cells' genes": 0.5,
        "share of the counts": 0.9,
    }
    ax = plots.gene_overlap(table)
    np.testing.assert_allclose([bar.get_width() for bar in ax.containers[0]], [0.71325, 0.5, 0.9])
    assert [text.get_text() for text in ax.texts] == ["71.3%", "50.0%", "90.0%"]


def test_by_epoch_and_by_cells_draw_every_seed():
    ax = plots.by_epoch({"scratch": [[1, 2], [2, 3]], "pretrained": [[3, 4]]})
    assert [line.get_ydata().tolist() for line in ax.lines] == [[1, 2], [2, 3], [3, 4]]
    assert ax.lines[0].get_xdata().tolist() == [1, 2]
    frame = pd.DataFrame(
        {
            "start": ["scratch"] * 4 + ["pretrained"] * 2,
            "cells": [100, 100, 200, 200, 100, 200],
            "d2": [0.0, 0.2, 0.3, 0.5, 0.4, 0.6],
        }
    )
    ax = plots.by_cells(frame, "d2")
    np.testing.assert_allclose(ax.lines[1].get_xydata(), [[100, 0.1], [200, 0.4]])
    np.testing.assert_allclose(ax.lines[3].get_xydata(), [[100, 0.4], [200, 0.6]])
    assert {line.get_label() for line in ax.lines[1::2]} == {"scratch", "pretrained"}


def test_shares_by_rank_follow_the_first_column():
    shares = pd.DataFrame(
        {"α = 1": [0.1, 0.7, 0.2], "α = 0": [0.3, 0.4, 0.3]}, index=["skin", "blood", "brain"]
    )
    ax = plots.shares_by_rank(shares, named=1)
    assert [line.get_label() for line in ax.lines] == ["α = 1", "α = 0"]
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[1, 70], [2, 20], [3, 10]])
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [40, 30, 30])
    assert [text.get_text() for text in ax.texts] == ["blood"]


def test_mixing_stands_beside_the_ideal():
    ax = plots.mixing(pd.DataFrame({"blocks": [0.4, 1.1]}, index=[1, 8]), ideal=1.2)
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[1, 0.4], [8, 1.1]])
    assert set(ax.lines[1].get_ydata()) == {1.2} and ax.get_ylim()[0] == 0


def test_extrapolation_tells_what_the_line_has_seen():
    measured = pd.Series({10: 1.0, 100: 2.0, 1000: 30.0})
    ax = plots.extrapolation(measured, pd.Series({10: 1, 1000: 25, 10_000: 250}), fitted=2)
    drawn = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert drawn["measured, fitted"] == [[10, 1], [100, 2]]
    assert drawn["measured, not fitted"] == [[1000, 30]]
    assert drawn["cost model"] == [[10, 1], [1000, 25], [10_000, 250]]


def test_drawings_to_play_with():
    """A group per choice, of which one shows; well-formed, and nothing that runs or is fetched."""
    rng = np.random.default_rng(0)
    points, cells = rng.normal(size=(30, 2)) * [3, 1], pd.Series(["Beta", "Alpha & <co>"] * 15)
    fields = {name: rng.normal(size=(30, 2)) for name in ("true counts", "null")}
    drawing = plots.switched_fields(points, cells, fields, {"null": rng.random(30)}).data
    frame = pd.DataFrame({"head": ["mlp2", "mlp3"] * 3, "ratio_loss": ["mse", "weighted_mse"] * 3})
    study = frame, pd.Series(rng.random(6)), [1, 4]
    lines = plots.switched_lines({"the grid": study, "TPE": study}).data
    for text, marks in ((drawing, "circle"), (lines, "text")):
        svg = ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
        assert [group.get("class") for group in svg.findall("g")] == ["g0", "g1"]
        assert text.count('type="radio"') == 2 and text.count(" checked>") == 1
        assert svg.findall(f".//{marks}")
        assert not any(word in text for word in ("<script", "http", "javascript"))
    dots = ElementTree.fromstring(drawing[drawing.index("<svg") : -6]).findall("circle")
    wide, high = (np.ptp([float(dot.get(k)) for dot in dots]) for k in ("cx", "cy"))
    assert wide / high == pytest.approx(np.divide(*np.ptp(points, axis=0)), rel=0.03)
