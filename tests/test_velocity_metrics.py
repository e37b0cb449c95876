"""Scores of velocity fields against closed forms, brute force and simulated truth."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.spatial.distance import cosine as cosine_distance

import splicedvae as sv
from splicedvae import metrics, velocity
from splicedvae.velocity import metrics as velocity_metrics
from splicedvae.velocity.steady_state import quiet_scvelo


@pytest.fixture(scope="module")
def _truth():
    """600 simulated cells whose graph and UMAP know no noise, with their true velocity."""
    cells = sv.data.prepare(sv.data.simulate(n_obs=600, n_vars=200, seed=1))
    cells.layers["expected"] = cells.layers["spliced_true"] + cells.layers["unspliced_true"]
    velocity.embed(cells, "expected", n_neighbors=15)
    velocity.project(cells, cells.layers["velocity_true"], xkey="spliced_true")
    return cells


@pytest.fixture
def truth(_truth):
    return _truth.copy()


def turned(arrows: np.ndarray, degrees: float) -> np.ndarray:
    """Clockwise."""
    t = np.radians(degrees)
    return arrows @ np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])


def report(reference, predicted):
    return metrics.velocity_report(reference, predicted, metrics.velocity_scale(reference))


# closed forms


def test_a_field_against_itself(truth):
    scores = report(truth, truth.copy())
    for name in ("cosine", "cosine_raw", "accuracy", "balanced_accuracy", "accuracy_unrotated"):
        assert scores[name] == pytest.approx(1), name
    assert scores["angular_error"] == pytest.approx(0, abs=1e-5)


def test_a_field_against_its_negative(truth):
    against = truth.copy()
    against.layers["velocity"] = -truth.layers["velocity"]
    against.obsm["velocity_umap"] = -truth.obsm["velocity_umap"]
    scores, own = report(truth, against), report(truth, truth)
    assert scores["cosine"] == scores["cosine_raw"] == pytest.approx(-1)
    assert scores["angular_error"] == pytest.approx(180, abs=1e-5)
    assert scores["accuracy"] == scores["balanced_accuracy"] == 0
    assert scores["cbdir"] == pytest.approx(-own["cbdir"])
    assert scores["coherence"] == pytest.approx(own["coherence"])


@pytest.mark.parametrize("degrees", [90, -90])
def test_a_field_turned_by_a_right_angle(truth, degrees):
    turn = truth.copy()
    turn.obsm["velocity_umap"] = turned(truth.obsm["velocity_umap"], degrees)
    scores = report(truth, turn)
    assert scores["angular_error"] == pytest.approx(90)
    assert scores["accuracy"] == scores["accuracy_unrotated"] == 0


def test_a_turn_of_30_degrees_misses_a_third():
    """Of directions spread evenly, whichever way the compass lies."""
    angles = np.radians(np.arange(0, 360, 0.25) + 0.1)
    arrows = np.column_stack([np.sin(angles), np.cos(angles)])
    scores = metrics.direction_accuracy(arrows, turned(arrows, 30))
    assert scores == {name: pytest.approx(2 / 3, abs=1e-3) for name in scores}


def test_angles_are_those_of_arctan(truth):
    other = truth.copy()
    rng = np.random.default_rng(0)
    other.obsm["velocity_umap"] = rng.normal(size=(truth.n_obs, 2))
    angle = [np.arctan2(*x.obsm["velocity_umap"].T) for x in (truth, other)]
    gap = np.abs((np.degrees(angle[0] - angle[1]) + 180) % 360 - 180)
    assert report(truth, other)["angular_error"] == pytest.approx(gap.mean())


def test_cosines_cell_by_cell(truth):
    rng = np.random.default_rng(0)
    other = truth.copy()
    other.layers["velocity"] = rng.normal(size=truth.shape)
    other.layers["velocity"][:, 4] = np.nan  # not fitted: no velocity
    other.layers["velocity"][7] = np.where(np.isnan(other.layers["velocity"][7]), np.nan, 0)
    truth.var["velocity_genes"] = np.arange(truth.n_vars) % 2 == 0
    scale = rng.uniform(0.5, 2, truth.n_vars)
    scale[:3] = 0  # left out
    a, b = truth.layers["velocity"], np.nan_to_num(other.layers["velocity"])
    for unit in (None, scale):
        genes = truth.var["velocity_genes"].to_numpy() & (True if unit is None else unit > 0)
        size = 1 if unit is None else unit[genes]
        found = metrics.cell_cosine(truth, other, unit)
        assert found[7] == 0
        for cell in (0, 5, 8, 400):
            expected = 1 - cosine_distance(a[cell, genes] / size, b[cell, genes] / size)
            assert found[cell] == pytest.approx(expected, abs=1e-6)


def test_scale_is_the_root_mean_square():
    cells = AnnData(layers={"v": np.array([[3.0, np.nan], [-4.0, np.nan]])})
    np.testing.assert_allclose(metrics.velocity_scale(cells, "v"), [np.sqrt(12.5), 0])


def test_direction_accuracy_by_brute_force():
    rng = np.random.default_rng(0)
    a, b = rng.normal([0.8, 0.3], 1, size=(2, 60, 2))
    rows = []
    for rotation in range(0, 90, 5):
        classes = [
            [int((np.degrees(np.arctan2(x, y)) + rotation) % 360 // 90) for x, y in arrows]
            for arrows in (a, b)
        ]
        hits = [first == second for first, second in zip(*classes, strict=True)]
        recall = [
            np.mean([hit for hit, own in zip(hits, classes[0], strict=True) if own == c])
            for c in set(classes[0])
        ]
        rows.append((np.mean(hits), np.mean(recall)))
    scores = metrics.direction_accuracy(a, b)
    mean = np.mean(rows, axis=0)
    assert (scores["accuracy"], scores["balanced_accuracy"]) == pytest.approx(tuple(mean))
    first = scores["accuracy_unrotated"], scores["balanced_accuracy_unrotated"]
    assert first == pytest.approx(rows[0])


@pytest.mark.slow
def test_turns_of_the_compass_are_turns_of_the_umap(truth):
    """The mean over rotations is the mean over UMAPs that are turned and projected on again."""
    other = truth.copy()
    velocity.fit(other, overwrite=True)
    scores = report(truth, other)
    accuracy = []
    with quiet_scvelo() as scv:
        for degrees in range(0, 90, 5):
            classes = []
            for field in (truth, other):
                again = AnnData(obs=field.obs[[]], var=field.var, layers=field.layers)
                again.uns["velocity_graph"] = field.uns["velocity_graph"]
                again.uns["velocity_graph_neg"] = field.uns["velocity_graph_neg"]
                again.obs["velocity_self_transition"] = field.obs["velocity_self_transition"]
                again.obsm["X_umap"] = turned(field.obsm["X_umap"].astype(float), degrees)
                scv.tl.velocity_embedding(again, basis="umap", vkey="velocity")
                classes.append(velocity.direction_classes(again.obsm["velocity_umap"]))
            accuracy.append((classes[0] == classes[1]).mean())
    assert np.ptp(accuracy) > 0.02  # it matters which way the UMAP lies
    assert scores["accuracy_unrotated"] == accuracy[0]
    assert scores["accuracy"] == pytest.approx(np.mean(accuracy), abs=1e-3)


# invariances


@given(st.integers(0, 17), st.integers(0, 10**6))
def test_where_the_compass_starts_does_not_matter(step, seed):
    """Turning both fields by a multiple of 5° only permutes the rotations."""
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 40, 2))
    first = metrics.direction_accuracy(a, b)["accuracy"]
    again = metrics.direction_accuracy(turned(a, 5 * step), turned(b, 5 * step))["accuracy"]
    assert again == pytest.approx(first, abs=1e-9)


def test_lengths_and_order_of_genes_do_not_matter(truth):
    other = truth.copy()
    velocity.fit(other, overwrite=True)
    scores = report(truth, other)
    longer = other.copy()
    size = np.random.default_rng(0).uniform(0.1, 10, (truth.n_obs, 1))
    longer.layers["velocity"] = size * other.layers["velocity"]
    longer.obsm["velocity_umap"] = size * other.obsm["velocity_umap"]
    assert report(truth, longer) == pytest.approx(scores)
    order = np.random.default_rng(1).permutation(truth.n_vars)
    assert report(truth[:, order], other[:, order]) == pytest.approx(scores)


# along edges


def points(cells_of, arrow_of, neighbours_of, n_neighbors=2):
    """Cells on a line at x = 0, 1, 2, …, with clusters, arrows and neighbours by hand."""
    n = len(cells_of)
    graph = sparse.lil_matrix((n, n))
    for cell, neighbours in enumerate(neighbours_of):
        graph[cell, list(neighbours)] = 1
    cells = AnnData(obs=pd.DataFrame({"clusters": list(cells_of)}, index=map(str, range(n))))
    cells.obsm["X_umap"] = np.column_stack([np.arange(n), np.zeros(n)])
    cells.obsm["velocity_umap"] = np.asarray(arrow_of, dtype=float)
    cells.obsp["distances"] = graph.tocsr()
    cells.uns["neighbors"] = {"params": {"n_neighbors": n_neighbors + 1}}
    return cells


ARROWS = [(1, 0), (1, 1), (-1, 0), (0, 1), (1, 0), (0, 0)]
NEIGHBOURS = [(1, 2), (3, 4), (1, 3), (2, 4), (2, 5), (3, 4)]


def test_cbdir_by_hand(monkeypatch):
    """Clusters A A B B C C. From A, cell 0 → 2: cos 1; cell 1 → 3 and 4: cos 45°, twice.

    From B, cell 3 → 4 with an arrow to the side: 0. From C, cell 4 → 2 is behind it: -1, and cell
    5, which does not move, → 3: 0. Within clusters: 0-1 cos 45°, 2-3, 3-2 and 4-5, 5-4 all 0.
    """
    monkeypatch.setattr(velocity_metrics, "MIN_EDGE_CELLS", 1)
    edges = [("A", "B"), ("B", "C"), ("C", "B")]
    cells = points("AABBCC", ARROWS, NEIGHBOURS)
    scores = metrics.cross_boundary(cells, edges)
    to_b = (1 + np.sqrt(0.5)) / 2
    for (a, b), value, n in zip(edges, (to_b, 0, -0.5), (2, 1, 2), strict=True):
        assert scores[f"cbdir {a} → {b}"] == pytest.approx(value), (a, b)
        assert scores[f"cbdir {a} → {b}_n"] == n
    assert scores["cbdir"] == pytest.approx((to_b + 0 - 0.5) / 3)
    assert scores["coherence"] == pytest.approx(np.sqrt(0.5) / 5)


def test_small_edges_are_pooled():
    scores = metrics.cross_boundary(
        points("AABBCC", ARROWS, NEIGHBOURS), [("A", "B"), ("B", "C"), ("C", "B")]
    )
    pooled = (1 + np.sqrt(0.5) + 0 - 1 + 0) / 5
    assert scores["cbdir pooled"] == scores["cbdir"] == pytest.approx(pooled)
    assert scores["cbdir pooled_n"] == 5
    assert not any("→" in name for name in scores)


def test_clusters_may_be_named_like_a_column(monkeypatch):
    monkeypatch.setattr(velocity_metrics, "MIN_EDGE_CELLS", 1)
    cells = points("AABBCC", ARROWS, NEIGHBOURS)
    cells.obs["clusters"] = cells.obs["clusters"].replace("B", "B_n")
    scores = metrics.cross_boundary(cells, [("A", "B_n"), ("B_n", "C")])
    assert scores["cbdir"] == pytest.approx((1 + np.sqrt(0.5)) / 4)


def test_bootstrap_interval():
    """The interval of a mean of 200 cosines: 1.96 standard errors to either side."""
    rng = np.random.default_rng(0)
    angles = rng.normal(0, 1, 200)
    arrows = np.vstack([np.column_stack([np.cos(angles), np.sin(angles)]), np.zeros((200, 2))])
    across = [(c + 200, (c + 1) % 200) for c in range(200)]
    back = [(c, 200 + (c + 1) % 200) for c in range(200)]
    cells = points("A" * 200 + "B" * 200, arrows, across + back)
    cells.obsm["X_umap"][:200, 0] -= 200  # all of B lies to the right
    scores = metrics.cross_boundary(cells, [("A", "B")])
    name = "cbdir A → B"
    assert scores[name] == pytest.approx(np.cos(angles).mean())
    error = np.cos(angles).std() / np.sqrt(200)
    assert scores[f"{name}_low"] == pytest.approx(scores[name] - 1.96 * error, abs=0.2 * error)
    assert scores[f"{name}_high"] == pytest.approx(scores[name] + 1.96 * error, abs=0.2 * error)
    assert metrics.cross_boundary(cells, [("A", "B")], seed=0) == scores


# simulated truth


def test_expected_counts_find_the_true_direction(truth):
    """Counts without noise, drawn anew for their slopes alone.

    Measured: cosine 0.38, angular error 12°, accuracy 0.89; averaging over neighbours and slopes
    from quantiles take the rest. Without draws the cosine is 0.15 and the error 34°.
    """
    fits = []
    for n_draws in (3, 0):
        cells = truth.copy()
        velocity.fit(cells, "spliced_true", "unspliced_true", n_draws=n_draws, overwrite=True)
        reference = truth.copy()
        genes = cells.var["velocity_genes"].to_numpy()
        vectors = truth.layers["velocity_true"]
        velocity.project(reference, vectors, genes, xkey="spliced_true", overwrite=True)
        fits.append(report(reference, cells))
    drawn, plain = fits
    assert drawn["cosine"] > 0.35 and drawn["angular_error"] < 15 and drawn["accuracy"] > 0.87
    assert plain["cosine"] < 0.2 and plain["angular_error"] > 25


def test_vectors_without_direction_score_nothing(truth):
    """Random vectors: cosine 0 ± 1/√genes a cell, and quadrants as often as chance has it."""
    rng = np.random.default_rng(0)
    null = truth.copy()
    null.layers["velocity"] = rng.normal(size=truth.shape)
    null.obsm["velocity_umap"] = rng.normal(size=(truth.n_obs, 2))
    scores = report(truth, null)
    assert abs(scores["cosine"]) < 0.01
    assert scores["angular_error"] == pytest.approx(90, abs=4 * 52 / np.sqrt(600))
    assert scores["accuracy"] == pytest.approx(0.25, abs=0.05)
    assert abs(scores["coherence"]) < 0.05


# what is refused


def test_one_cluster_only(truth):
    truth.obs["clusters"] = "Beta"
    with pytest.raises(ValueError, match=r"obs\['clusters'\] has one cluster only"):
        report(truth, truth)


def test_absent_clusters(truth):
    with pytest.raises(ValueError, match=r"Edges name clusters that no cell has: \['Gamma'\]"):
        metrics.cross_boundary(truth, [("Beta", "Gamma")])
    with pytest.raises(KeyError, match=r"no obs\['louvain'\]; there are \['clusters'"):
        metrics.cross_boundary(truth, cluster_key="louvain")
    with pytest.raises(ValueError, match="the clusters do not touch"):
        metrics.cross_boundary(truth, [("Ductal", "Beta")])


def test_missing_velocity_and_embedding(truth):
    with pytest.raises(KeyError, match="no layer 'v'"):
        metrics.velocity_scale(truth, "v")
    with pytest.raises(KeyError, match=r"no obsm\['X_tsne'\]"):
        metrics.cross_boundary(truth, basis="tsne")
    bare = truth.copy()
    del bare.obsm["velocity_umap"]
    with pytest.raises(KeyError, match=r"no obsm\['velocity_umap'\]; run sv.velocity.fit"):
        report(truth, bare)


def test_fields_of_other_cells_genes_or_embeddings(truth):
    with pytest.raises(ValueError, match="differ in obs_names"):
        metrics.cell_cosine(truth, truth[::-1])
    with pytest.raises(ValueError, match="differ in var_names"):
        metrics.cell_cosine(truth, truth[:, ::-1])
    with pytest.raises(ValueError, match="scale has shape"):
        metrics.cell_cosine(truth, truth, np.ones(3))
    moved = truth.copy()
    moved.obsm["X_umap"] = moved.obsm["X_umap"] + 1
    with pytest.raises(ValueError, match=r"differ in obsm\['X_umap'\]; project both on one"):
        report(truth, moved)


def test_graph_of_other_cells(truth):
    half = truth[::2].copy()
    with pytest.raises(ValueError, match="graph was built on other cells"):
        report(half, half)


def test_velocity_missing_in_some_cells(truth):
    broken = truth.copy()
    broken.layers["velocity"][3, 5] = np.nan
    with pytest.raises(ValueError, match=f"1 of 600 cells of gene {truth.var_names[5]}"):
        report(truth, broken)
