"""Futures on fields whose answer is known: a drift, a fork, two days; and what must be refused."""

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse

import splicedvae as sv
from splicedvae.futures import Futures, baselines
from splicedvae.futures.pairs import Days, Transitions, next_cells, transition_matrix


def velocity_graph(adata, graph):
    """What scVelo's transition matrix reads."""
    adata.uns["velocity_graph"] = sparse.csr_matrix(graph)
    adata.uns["velocity_graph_neg"] = sparse.csr_matrix(graph.shape)
    adata.uns["velocity_params"] = {}
    adata.obs["velocity_self_transition"] = 0.0
    return adata


def line(n=200):
    """Cells along a line, of which velocity points to those one to three places ahead."""
    x = np.column_stack([np.linspace(0, 10, n), np.zeros(n)])
    graph = sparse.lil_matrix((n, n))
    for ahead in (1, 2, 3):
        graph.setdiag(0.9, ahead)
    adata = AnnData(np.ones((n, 1), dtype=np.float32), obsm={"X_z": x})
    return velocity_graph(adata, graph.tocsr())


def fork():
    """Two days: one cloud becomes two, the upper with three cells of four."""
    rng = np.random.default_rng(0)
    early = rng.normal(0, 0.2, (400, 2))
    late = np.concatenate([rng.normal([4, 2], 0.2, (300, 2)), rng.normal([4, -2], 0.2, (100, 2))])
    obs = pd.DataFrame(
        {
            "day": np.repeat([2.0, 4.0], 400),
            "state": pd.Categorical([None] * 400 + ["up"] * 300 + ["down"] * 100),
        },
        index=[f"c{k}" for k in range(800)],
    )
    return AnnData(obs=obs, obsm={"X_z": np.concatenate([early, late])})


@pytest.fixture(scope="module")
def forked():
    return Futures(fork(), "X_z", time_key="day").fit(400, batch_size=64, progress=False)


@pytest.mark.parametrize("kind", ["flow", "diffusion"])
def test_a_drift_is_learnt_and_time_is_counted_in_steps(kind):
    cells = line()
    step = (transition_matrix(cells, "velocity") @ cells.obsm["X_z"] - cells.obsm["X_z"])[50, 0]
    model = Futures(cells, "X_z", kind=kind, n_neighbors=1).fit(
        300, batch_size=128, learning_rate=5e-3, progress=False
    )
    found = model.sample([50], horizon=10, n=400)[:, 0, 0] - cells.obsm["X_z"][50, 0]
    assert found.mean() == pytest.approx(10 * step, rel=0.15)
    one = model.sample([50], horizon=10, n=2, noise=0)
    np.testing.assert_allclose(one[0], one[1], rtol=1e-5)  # no noise, no spread


def test_flow_scatters_as_its_pairs_do():
    """One step of a flow has the mean and the variance of the steps that it learnt from."""
    cells = line()
    model = Futures(cells, "X_z", n_neighbors=1).fit(
        300, batch_size=128, learning_rate=5e-3, progress=False
    )
    matrix, x = transition_matrix(cells, "velocity"), cells.obsm["X_z"][:, 0]
    variance = (matrix @ x**2 - (matrix @ x) ** 2)[50]
    found = model.sample([50], horizon=1, n=4000)[:, 0, 0]
    assert found.std() == pytest.approx(np.sqrt(variance), rel=0.25)


def test_optimal_transport_splits_a_cloud_in_the_right_shares(forked):
    early = np.arange(400)
    fates = forked.fates(early, ["up", "down"], "state", n=20)
    assert fates["up"].mean() == pytest.approx(0.75, abs=0.08)
    assert fates["elsewhere"].mean() == 0
    high = forked.adata.obsm["X_z"][early, 1] > 0.15
    assert fates["up"][high].mean() > fates["up"][~high].mean()
    np.testing.assert_allclose(fates.sum(axis=1), 1)


def test_pairs_between_days_are_an_optimal_assignment():
    cells = fork()
    days = Days(cells, cells.obsm["X_z"], "day")
    now, following, day, gap = days.draw(60, np.random.default_rng(1))
    assert (day == 2).all() and (gap == 2).all()
    cost = ((now - following) ** 2).sum()
    for _ in range(20):  # no swap of two partners is cheaper
        i, j = np.random.default_rng(_).choice(60, 2, replace=False)
        swapped = following.copy()
        swapped[[i, j]] = swapped[[j, i]]
        assert ((now - swapped) ** 2).sum() >= cost - 1e-9


def test_random_steps_follow_the_matrix():
    matrix = sparse.csr_matrix([[0, 0.25, 0.75], [1, 0, 0], [0.5, 0, 0.5]])
    rng = np.random.default_rng(0)
    steps = next_cells(matrix, np.repeat([0, 1, 2], 4000), rng).reshape(3, -1)
    for row, found in zip(matrix.toarray(), steps, strict=True):
        np.testing.assert_allclose(np.bincount(found, minlength=3) / 4000, row, atol=0.03)


def test_several_velocities_are_mixed():
    cells = line()
    back = AnnData(cells.X, obsm={"X_z": cells.obsm["X_z"]})
    velocity_graph(back, cells.uns["velocity_graph"].T.tocsr())
    for name in ("graph", "graph_neg", "params"):
        cells.uns[f"other_{name}"] = back.uns[f"velocity_{name}"]
    cells.obs["other_self_transition"] = 0.0
    pairs = Transitions(cells, cells.obsm["X_z"], ["velocity", "other"])
    now, following, *_ = pairs.draw(4000, np.random.default_rng(0))
    assert (following[:, 0] > now[:, 0]).mean() == pytest.approx(0.5, abs=0.03)


def test_baselines_are_what_they_say():
    cells = line(50)
    places, matrix = cells.obsm["X_z"], transition_matrix(cells, "velocity")
    at = np.array([3, 10])
    np.testing.assert_array_equal(baselines.stay_put(places, at)[0], places[at])
    arrow = (matrix @ places - places)[at]
    found = baselines.carried_on(matrix, places, at, 4)[0]
    np.testing.assert_allclose(found, places[at] + 4 * arrow)
    walked = baselines.random_walk(matrix, places, at, 3, n=2000, seed=0)
    expected = (matrix @ matrix @ matrix @ places)[at]
    np.testing.assert_allclose(walked.mean(0), expected, atol=0.03)
    lent = baselines.transfer(places, (places + 7)[None], places[at] + 0.01, n_neighbors=1)
    np.testing.assert_allclose(lent[0], places[at] + 7)


def test_draws_are_seeded_and_saved_models_draw_the_same(forked, tmp_path):
    first = forked.sample([0, 5], horizon=2, n=3, seed=4)
    np.testing.assert_array_equal(first, forked.sample([0, 5], horizon=2, n=3, seed=4))
    assert not np.array_equal(first, forked.sample([0, 5], horizon=2, n=3, seed=5))
    forked.save(tmp_path / "futures.pt")
    again = Futures.load(tmp_path / "futures.pt", fork())
    np.testing.assert_array_equal(first, again.sample([0, 5], horizon=2, n=3, seed=4))
    state = torch.random.get_rng_state()
    Futures(fork(), "X_z", time_key="day").fit(2, progress=False)
    assert torch.equal(state, torch.random.get_rng_state())


def test_paths_start_where_cells_are_and_end_where_samples_do(forked):
    paths = forked.paths([1, 2, 3], horizon=2, n=4, n_times=5)
    assert paths.shape == (4, 6, 3, 2)
    start = np.broadcast_to(forked.adata.obsm["X_z"][[1, 2, 3]], (4, 3, 2))
    np.testing.assert_allclose(paths[:, 0], start, atol=1e-5)


def test_decoded_futures_are_cells_with_both_counts(trained):
    adata, model = trained
    adata.obsm["X_l"] = model.get_latent_representation()
    adata.obs["day"] = np.arange(adata.n_obs) % 2
    futures = Futures(adata, "X_l", time_key="day").fit(5, progress=False)
    drawn = futures.sample([0, 1, 2, 3], horizon=1, n=3)
    cells = futures.decode(drawn, model)
    assert cells.shape == (12, adata.n_vars)
    s, u, n = (cells.layers[name].toarray() for name in ("spliced", "unspliced", "total"))
    np.testing.assert_array_equal(s + u, n)
    assert (n == n.round()).all() and s.min() >= 0 and u.sum() > 0
    with pytest.raises(ValueError, match="latent space"):
        futures.decode(drawn[..., :2], model)


@pytest.fixture(scope="module")
def trained():
    """A small model of 240 simulated cells."""
    adata = sv.data.prepare(sv.data.simulate(n_obs=240, n_vars=120), n_top_genes=40)
    sv.SplicedVAE.setup_anndata(adata)
    model = sv.SplicedVAE(adata, n_latent=4)
    model.train(2, split=sv.data.split(adata)[:2], enable_progress_bar=False)
    return adata, model


# --- bad input ------------------------------------------------------------------------------------


def test_missing_velocity_and_latent_are_named():
    cells = line(30)
    with pytest.raises(KeyError, match="fast_graph"):
        Futures(cells, "X_z", vkey="fast")
    with pytest.raises(KeyError, match="X_other"):
        Futures(cells, "X_other")
    with pytest.raises(ValueError, match="kind='walk'"):
        Futures(cells, "X_z", kind="walk")
    with pytest.raises(ValueError, match="call fit"):
        Futures(cells, "X_z").sample()


def test_latent_of_other_cells_is_refused():
    cells = line()
    cells.obsm["X_z"] = np.random.default_rng(0).permutation(cells.obsm["X_z"])
    with pytest.raises(ValueError, match="coordinates of other cells"):
        Futures(cells, "X_z")
    part = line()[:50].copy()
    part.uns["velocity_graph"] = line().uns["velocity_graph"]
    with pytest.raises(ValueError, match="joins 200 cells, here are 50"):
        Futures(part, "X_z")


def test_other_cells_need_the_same_space(forked):
    others = AnnData(obs=pd.DataFrame({"day": [2.0]}, index=["a"]), obsm={"X_z": np.zeros((1, 3))})
    with pytest.raises(ValueError, match="3 dimensions"):
        forked.sample(others, horizon=1)


def test_one_day_and_one_terminal_state_are_refused(forked):
    cells = fork()
    cells.obs["day"] = 2.0
    with pytest.raises(ValueError, match="one day only"):
        Futures(cells, "X_z", time_key="day")
    with pytest.raises(ValueError, match="fewer than two states"):
        forked.fates([0], ["up"], "state")
    with pytest.raises(KeyError, match="sideways"):
        forked.fates([0], ["up", "sideways"], "state")
    with pytest.raises(KeyError, match="nothing"):
        forked.fates([0], ["up", "down"], "nothing")


def test_horizon_beyond_the_data_is_warned_of(forked, caplog):
    with caplog.at_level("WARNING", logger="splicedvae"):
        forked.sample([0], horizon=2, n=20)
        assert "ends after" not in caplog.text
        far = forked.sample([0], horizon=20, n=20)
    text = caplog.text
    assert "ends after day 4" in text and "Support is" in text
    assert forked.support(far.reshape(-1, 2)).mean() < 0.5
    assert forked.support(forked.adata.obsm["X_z"]).mean() > 0.95


@pytest.mark.parametrize("given", [{"horizon": 0}, {"horizon": np.nan}, {"n": 0}, {"noise": -1}])
def test_draws_that_make_no_sense_are_refused(forked, given):
    with pytest.raises(ValueError, match="give a horizon above"):
        forked.sample([0], **{"horizon": 1, **given})


def test_a_file_that_is_no_model_is_refused(tmp_path, forked):
    (tmp_path / "text").write_text("no model")
    with pytest.raises(ValueError, match="no saved Futures"):
        Futures.load(tmp_path / "text", fork())
    torch.save({"a": 1}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="no saved Futures"):
        Futures.load(tmp_path / "other.pt", fork())
    forked.save(tmp_path / "futures.pt")
    moved = fork()
    moved.obsm["X_z"] = moved.obsm["X_z"] + 5
    with pytest.raises(ValueError, match="not the space"):
        Futures.load(tmp_path / "futures.pt", moved)


# --- what is known --------------------------------------------------------------------------------


def test_true_futures_are_the_simulated_trajectories():
    """After no time a cell is where it was; on the way its velocity is ds/dt."""
    cells = sv.data.simulate(200, 30, seed=1)
    same = sv.data.futures_true(cells, 0)
    for name in ("spliced_true", "unspliced_true", "velocity_true"):
        np.testing.assert_allclose(same.layers[name], cells.layers[name], rtol=1e-4, atol=1e-5)
    assert list(same.obs["clusters"]) == list(cells.obs["clusters"])
    step = 1e-3
    ahead = sv.data.futures_true(cells, step)
    change = (ahead.layers["spliced_true"].astype(float) - same.layers["spliced_true"]) / step
    w, e = (cells.var[name].to_numpy() for name in ("capture", "capture_ratio"))
    expected = cells.layers["velocity_true"] / e  # counts per 1/beta
    close = np.isclose(change, expected, rtol=0.02, atol=0.02 * np.abs(expected).max(0) + 0.02 * w)
    assert close.mean() > 0.98  # but for genes that switch at this moment


def test_true_futures_take_branches_as_often_as_cells_do():
    cells = sv.data.simulate(300, 5, seed=2)
    early = cells[(cells.obs["clusters"] == "Pre-endocrine").to_numpy()].copy()
    drawn = sv.data.futures_true(early, 12.5, n=200, seed=3)
    found = drawn.obs["clusters"].value_counts(normalize=True)
    shares = pd.Series({"Beta": 0.160, "Alpha": 0.130, "Delta": 0.019, "Epsilon": 0.038})
    np.testing.assert_allclose(found[shares.index], shares / shares.sum(), atol=0.02)
    assert drawn.shape == (200 * early.n_obs, 5) and drawn.obs_names.is_unique
    spliced = drawn.layers["spliced"].toarray()
    np.testing.assert_allclose(spliced.mean(0), drawn.layers["spliced_true"].mean(0), rtol=0.1)


def test_only_simulated_cells_have_true_futures(simulated):
    with pytest.raises(KeyError, match="rate_before"):
        del simulated.varm["rate_before"]
        sv.data.futures_true(simulated, 1)
    with pytest.raises(ValueError, match="horizon=-1"):
        sv.data.futures_true(sv.data.simulate(60, 5), -1)


def test_larry_says_where_it_looked(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"larry_fig5.*LARRY-dataset"):
        sv.data.larry(tmp_path, cache_dir=tmp_path)


def test_fates_with_days_follow_each_day_to_the_last(forked):
    fates = forked.fates(terminal=["up", "down"], cluster_key="state", n=30)
    late = fates.iloc[400:]
    assert ((late == 0) | (late == 1)).all(axis=None)  # of the last day: they are where they are
    assert late["up"].mean() == pytest.approx(0.75, abs=0.02)
    early = fates.iloc[:400]
    alone = forked.fates(np.arange(400), ["up", "down"], "state", n=30)
    pd.testing.assert_frame_equal(early, alone)
    assert early["up"].mean() == pytest.approx(0.75, abs=0.1)


def test_a_model_without_cells_can_not_decode(trained, tmp_path):
    adata, model = trained
    adata.obsm["X_l"] = model.get_latent_representation()
    adata.obs["day"] = np.arange(adata.n_obs) % 2
    futures = Futures(adata, "X_l", time_key="day").fit(5, progress=False)
    model.save(str(tmp_path / "model"))
    with pytest.raises(ValueError, match="no cells of its own"):
        futures.decode(adata.obsm["X_l"][:3], sv.SplicedVAE.load(str(tmp_path / "model"), False))
