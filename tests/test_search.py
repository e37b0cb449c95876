"""Search: its points, the values of its trials against models trained by hand, what it refuses."""

import math

import numpy as np
import optuna
import pandas as pd
import pytest
import scvi
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState
from scipy import stats

import splicedvae as sv
from splicedvae import search
from splicedvae.search.study import Task, _points

N_EPOCHS = 3
FIXED = {"n_hidden": 16, "n_latent": 4, "head_l2": 1.0, "head_latent": "mean"}
RATES = FIXED | {"lr": [1e-3, 3e-3, 1e-2, 3e-2, 1e-1]}


@pytest.fixture(scope="module")
def cells():
    adata = sv.data.simulate(n_obs=300, n_vars=80)
    split = sv.data.split(adata)
    adata = sv.data.prepare(adata, fit_on=split[0])
    adata.obs["donor"] = np.where(np.arange(adata.n_obs) % 3, "a", "b")
    sv.SplicedVAE.setup_anndata(adata)
    return adata, split


@pytest.fixture
def find(cells, tmp_path):
    """Search these cells in a database of the test's own."""

    def find(space=RATES, of=cells, **kwargs):
        adata, split = of
        kwargs = {"n_trials": 3, "max_epochs": N_EPOCHS, "seed": 5, "progress": False} | kwargs
        kwargs.setdefault("storage", f"sqlite:///{tmp_path}/search.db")
        return search.run(adata, split[:2], space, **kwargs)

    return find


def copy_of(adata):
    """A copy that scvi-tools does not take for the original."""
    adata = adata.copy()
    del adata.uns["_scvi_uuid"]
    return adata


def counts_of(adata, cells):
    return (adata.layers[x][cells].toarray() for x in ("spliced", "unspliced"))


def by_hand(adata, split, parameters, seed, cells, max_epochs=N_EPOCHS):
    """RMSE, D² and ELBO of a model that knows nothing of the search."""
    parameters = dict(parameters)
    of_training = {k: parameters.pop(k) for k in ("lr", "optimizer") if k in parameters}
    scvi.settings.seed = seed
    model = sv.SplicedVAE(adata, **parameters)
    model.train(max_epochs, split[:2], enable_progress_bar=False, **of_training)
    if cells is split[1]:  # the pruner reads it, and it is the same
        with torch.random.fork_rng():  # the ELBO below is drawn
            p = model.get_splicing_ratio(indices=cells, return_numpy=True)
        rmse, _ = scores_by_hand(adata, split[0], cells, p)
        assert model.history["ratio_rmse_validation"].iloc[-1].item() == pytest.approx(rmse, 1e-4)
    p = model.get_splicing_ratio(indices=cells, return_numpy=True)
    rmse, d2 = scores_by_hand(adata, split[0], cells, p)
    return rmse, d2, float(model.get_elbo(indices=cells))


def scores_by_hand(adata, train, cells, p):
    s, u = counts_of(adata, cells)
    seen = s + u > 0
    rmse = np.sqrt(np.mean((p - s / np.maximum(s + u, 1))[seen] ** 2))
    sums = [x.sum(0, dtype=float) for x in counts_of(adata, train)]
    overall = (sums[0].sum() + 0.5) / (sum(sums).sum() + 1)
    mean = (sums[0] + overall) / (sum(sums) + 1)  # one pseudo-count a gene

    def logpmf(q):
        return stats.binom.logpmf(s, s + u, q).sum()

    saturated = logpmf(s / np.maximum(s + u, 1))
    return rmse, 1 - (saturated - logpmf(p)) / (saturated - logpmf(np.broadcast_to(mean, p.shape)))


# --- Points -------------------------------------------------------------------------------------


def points_of(space, n_trials, seed=0, sampler="grid"):
    task = Task(
        adata=None,
        setup={},
        split=(),
        space=space,
        objective=("rmse",),
        sampler=sampler,
        max_epochs=1,
        seed=seed,
        storage="",
        study_name="",
    )
    return _points(task, n_trials)


def test_grid_is_the_papers():
    grid = search.PAPER_GRID
    assert grid["head"] == ["mlp2", "mlp3", "bottleneck"]
    assert set(grid["head_activation"]) == {"sigmoid", "softmax"}
    assert (min(grid["n_latent"]), max(grid["n_latent"])) == (8, 128)
    assert (min(grid["dropout_rate"]), max(grid["dropout_rate"])) == (0.0, 0.5)
    assert set(grid["optimizer"]) == {"Adam", "AdamW", "RMSprop"}
    assert all(len(grid[name]) > 1 for name in ("ratio_loss", "lr", "ratio_weight"))
    for name, values in search.PAPER_CONTINUOUS.items():
        if isinstance(values, FloatDistribution | IntDistribution):
            assert (values.low, values.high) == (min(grid[name]), max(grid[name]))
        else:
            assert values == grid[name]


def test_ninety_points_are_drawn_by_seed():
    points = points_of(search.PAPER_GRID, 90)
    assert points == points_of(search.PAPER_GRID, 90) != points_of(search.PAPER_GRID, 90, seed=1)
    assert len({tuple(p.items()) for p in points}) == 90
    assert points[:30] == points_of(search.PAPER_GRID, 30)
    for name in ("head", "n_latent", "dropout_rate", "ratio_loss", "optimizer", "lr"):
        assert {p[name] for p in points} == set(search.PAPER_GRID[name])


numbers = st.lists(st.integers() | st.floats(allow_nan=False), min_size=1, max_size=4, unique=True)


@settings(deadline=None, max_examples=60)
@given(st.data(), st.lists(numbers, min_size=1, max_size=4), st.integers(0, 2**32))
def test_points_are_distinct_members_of_any_grid(data, lists, seed):
    space = dict(zip(("lr", "n_latent", "ratio_weight", "dropout_rate"), lists, strict=False))
    size = math.prod(map(len, lists))
    n = data.draw(st.integers(1, size))
    points = points_of(space | {"head": "mlp2"}, n, seed)
    assert len({tuple(p.items()) for p in points}) == len(points) == n
    assert all(p.keys() == space.keys() and all(p[k] in space[k] for k in p) for p in points)
    with pytest.raises(ValueError, match=f"The grid has {size} points"):
        points_of(space, size + 1, seed)


def test_more_trials_keep_the_first(find):
    first = search.table(find(n_trials=3))
    more = search.table(find(n_trials=5))
    assert more.index.tolist() == list(range(5)) and (more["state"] == "COMPLETE").all()
    pd.testing.assert_frame_equal(more.loc[first.index], first)
    assert sorted(more["lr"]) == RATES["lr"]


@pytest.mark.slow
def test_tpe_draws_within_ranges_and_can_be_interrupted(find):
    """More trials than TPE draws at random before it begins to learn, which is ten."""
    space = FIXED | {
        "n_latent": IntDistribution(2, 9, log=True),
        "lr": FloatDistribution(1e-4, 1e-2, log=True),
        "dropout_rate": FloatDistribution(0.0, 0.5),
        "optimizer": ["Adam", "RMSprop"],
    }
    kwargs = {"space": space, "sampler": "tpe", "max_epochs": 1}
    columns = ["n_latent", "lr", "dropout_rate", "optimizer", "rmse_observed"]
    whole = search.table(find(n_trials=13, study_name="whole", **kwargs))[columns]
    for n in (4, 13):
        parts = search.table(find(n_trials=n, study_name="parts", **kwargs))[columns]
    pd.testing.assert_frame_equal(whole, parts)
    assert whole["lr"].between(1e-4, 1e-2).all() and whole["dropout_rate"].between(0, 0.5).all()
    assert whole["n_latent"].isin(range(2, 10)).all() and whole["lr"].nunique() == 13


# --- Values -------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", ["rmse", "d2", "elbo"])
def test_value_is_that_of_a_model_trained_outside(objective, find, cells):
    adata, split = cells
    space = FIXED | {"lr": [1e-3, 1e-2], "optimizer": ["RMSprop"]}
    study = find(space, objective=objective, n_trials=2)
    assert (study.direction.name == "MINIMIZE") is (objective == "rmse")
    best = list(search.top(study))
    for trial in study.trials:
        number = trial.user_attrs["configuration"]
        parameters = search.top(study)[number]
        scores = by_hand(adata, split, parameters, 5 + number, split[1])
        values = dict(zip(("rmse", "d2", "elbo"), scores, strict=True))
        assert trial.value == pytest.approx(values[objective], rel=1e-5, abs=1e-6)
        stored = search.table(study).loc[number, ["rmse_observed", "d2", "elbo"]]
        np.testing.assert_allclose(stored.to_numpy(float), scores, rtol=1e-5, atol=1e-6)
        assert values["elbo"] < 0
    sign = 1 if objective == "rmse" else -1
    assert best == sorted(best, key=lambda n: sign * study.trials[n].value)


def test_no_test_cell_is_looked_at(find, cells):
    adata, split = cells
    other = copy_of(adata)
    rng = np.random.default_rng(0)
    for name in ("spliced", "unspliced"):
        counts = other.layers[name].toarray()
        counts[split[2]] = rng.poisson(50, (len(split[2]), adata.n_vars))
        other.layers[name] = type(adata.layers[name])(counts)
    other.layers["total"] = other.layers["spliced"] + other.layers["unspliced"]
    sv.SplicedVAE.setup_anndata(other)
    study = find(study_name="one"), find(study_name="two", of=(other, split))
    assert [t.value for t in study[0].trials] == [t.value for t in study[1].trials]
    with pytest.raises(ValueError, match="made with other cells"):
        find(study_name="one", of=(other, split))


def test_confirmation_is_that_of_models_trained_outside(find, cells):
    adata, split = cells
    study = find()
    before = search.table(study)
    frame = search.confirm(
        study, adata, split, n=2, seeds=(3, 4), max_epochs=N_EPOCHS, progress=False
    )
    models = ["RidgeBinomial", "default", "1", "2"]
    expected = pd.MultiIndex.from_product([models, (3, 4), ("val", "test")])
    assert frame.index.names == ["model", "seed", "part"] and set(frame.index) == set(expected)
    assert len(frame) == len(expected)
    best = list(search.top(study, 2))
    numbers = dict(zip(models, [-1, -1, *best], strict=True))
    assert all(frame.loc[m, "configuration"].eq(n).all() for m, n in numbers.items())
    parameters = {"default": {}, "1": search.top(study)[best[0]]}
    for model, of in parameters.items():
        # val is read first, which does not draw for a ratio but does for an ELBO
        rmse, d2, _ = by_hand(adata, split, of, 4, split[2])
        assert frame.loc[(model, 4, "test"), "rmse_observed"] == pytest.approx(rmse, rel=1e-5)
        assert frame.loc[(model, 4, "test"), "d2"] == pytest.approx(d2, abs=1e-5)
    ridge = sv.baselines.RidgeBinomial(seed=3).fit(adata[split[0]], adata[split[1]])
    p = ridge.predict(adata[split[2]])
    row = frame.loc[("RidgeBinomial", 3, "test")]
    np.testing.assert_allclose(
        row[["rmse_observed", "d2"]].to_numpy(float),
        scores_by_hand(adata, split[0], split[2], p),
        rtol=1e-6,
    )
    assert np.isnan(row["elbo"])
    pd.testing.assert_frame_equal(search.table(study), before)


def test_other_batches_are_another_study(find, cells):
    adata = copy_of(cells[0])
    sv.SplicedVAE.setup_anndata(adata, batch_key="donor")
    find(of=(adata, cells[1]), n_trials=1, max_epochs=1)
    other = copy_of(adata)
    other.obs["donor"] = other.obs["donor"].to_numpy()[::-1]
    sv.SplicedVAE.setup_anndata(other, batch_key="donor")
    with pytest.raises(ValueError, match="made with other cells"):
        find(of=(other, cells[1]), n_trials=1, max_epochs=1)


def test_confirmation_refuses_cells_that_the_search_has_seen(find, cells):
    adata, (train, val, test) = cells
    study = find()
    with pytest.raises(ValueError, match="other train or validation cells"):
        search.confirm(study, adata, (train[1:], val, test))
    with pytest.raises(ValueError, match="test cells are among"):
        search.confirm(study, adata, (train, val, np.append(test, val[0])))


@pytest.mark.slow
def test_setup_of_the_user_reaches_every_worker(find, cells):
    """A model with a batch has other weights, so other values, than one without."""
    adata, split = copy_of(cells[0]), cells[1]
    sv.SplicedVAE.setup_anndata(adata, batch_key="donor")
    space = RATES | {"own_total": [False]}
    study = find(space, of=(adata, split), n_workers=2)
    for trial in study.trials:
        number = trial.user_attrs["configuration"]
        parameters = search.top(study)[number]
        rmse = by_hand(adata, split, parameters, 5 + number, split[1])[0]
        assert trial.value == pytest.approx(rmse, rel=1e-5)
        assert trial.value != pytest.approx(
            by_hand(*cells, parameters, 5 + number, split[1])[0], rel=1e-5
        )


# --- Pruning, fronts, failures ------------------------------------------------------------------


@pytest.mark.slow
def test_hopeless_configuration_is_pruned(find):
    """The pruner wants ten others first, so the hopeless one stands where it is drawn last."""
    last = np.random.default_rng(0).permutation(12)[-1]
    rates = [1e-3 * (1 + i) for i in range(12)]
    rates[last] = 1.0
    study = find(FIXED | {"lr": rates, "ratio_weight": 10.0}, n_trials=12, max_epochs=5, seed=0)
    trials = search.table(study)
    assert trials.loc[11, "lr"] == 1.0 and trials.loc[11, "state"] == "PRUNED"
    assert trials.loc[:9, "state"].eq("COMPLETE").all()
    assert np.isnan(trials.loc[11, "rmse_observed"]) and trials.loc[11, "reason"] == ""
    assert len(study.trials[11].intermediate_values) < len(study.trials[0].intermediate_values)
    assert 11 not in search.top(study, 12)


@pytest.mark.slow
def test_front_is_what_nothing_dominates_and_is_never_pruned(find):
    lr = [1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 2.0, 3.0, 5.0, 10.0]
    kwargs = {"objective": ("elbo", "d2"), "n_trials": 12, "max_epochs": 5}
    study = find(FIXED | {"lr": lr, "ratio_weight": [100.0]}, **kwargs)
    done = search.table(study).query("state == 'COMPLETE'")
    assert "PRUNED" not in {t.state.name for t in study.trials} and len(done) >= 6
    values = done[["elbo", "d2"]].to_numpy()
    front = {
        number
        for number, mine in zip(done.index, values, strict=True)
        if not any((other >= mine).all() and (other > mine).any() for other in values)
    }
    chosen = list(search.top(study, n=12))
    assert set(chosen) == front
    assert chosen == sorted(chosen, key=lambda number: -done.loc[number, "elbo"])
    assert search.top(study, n=1).keys() == {chosen[0]}


@pytest.mark.slow
def test_divergence_fails_and_is_never_pruned(find, capfd):
    """Were NaN reported, the pruner would call it pruned: it comes after ten that were not."""
    last = np.random.default_rng(0).permutation(12)[-1]
    rates = [1e-3 * (1 + i) for i in range(12)]
    rates[last] = 1e20
    study = find(FIXED | {"lr": rates}, n_trials=12, max_epochs=2, seed=0)
    trials = search.table(study)
    assert trials.loc[11, "state"] == "FAIL" and trials.loc[11, "lr"] == 1e20
    assert "Error: " in trials.loc[11, "reason"] and "\n" not in trials.loc[11, "reason"]
    assert trials.loc[:9, "state"].eq("COMPLETE").all() and (trials["attempts"] == 1).all()
    assert capfd.readouterr().out == ""
    with pytest.raises(RuntimeError, match=r"No trial succeeded; .*Error: "):
        find(FIXED | {"lr": [1e20, 1e19]}, n_trials=2, study_name="hopeless")
    states = {
        t.state for t in optuna.load_study(study_name="hopeless", storage=study._storage).trials
    }
    assert states == {TrialState.FAIL}


def test_loss_that_is_no_number_fails(find):
    """Without any error of PyTorch's: the ELBO is NaN after the first epoch."""
    space = FIXED | {"lr": [0.3, 1e-3], "optimizer": "RMSprop", "n_components": 0}
    space["batch_size"] = 128
    trials = search.table(find(space, objective="elbo", n_trials=2, max_epochs=10))
    trials = trials.set_index("lr")
    assert trials["state"].to_dict() == {0.3: "FAIL", 1e-3: "COMPLETE"}
    assert trials.loc[0.3, "reason"].startswith("FloatingPointError: the validation loss is [nan]")
