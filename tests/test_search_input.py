"""What a search refuses, with nothing lost: spaces, storages, studies of other tasks."""

import subprocess
import sys

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution

import splicedvae as sv
from splicedvae import search

RATES = {"n_hidden": 16, "n_latent": 4, "lr": [1e-3, 3e-3, 1e-2]}


@pytest.fixture(scope="module")
def cells():
    adata = sv.data.simulate(n_obs=300, n_vars=60)
    split = sv.data.split(adata)
    adata = sv.data.prepare(adata, fit_on=split[0])
    sv.SplicedVAE.setup_anndata(adata)
    return adata, split


@pytest.fixture
def find(cells, tmp_path):
    """Search these cells in a database of the test's own."""

    def find(space=RATES, of=cells, **kwargs):
        adata, split = of
        kwargs = {"n_trials": 2, "max_epochs": 1, "progress": False} | kwargs
        kwargs.setdefault("storage", f"sqlite:///{tmp_path}/search.db")
        return search.run(adata, split[:2], space, **kwargs)

    return find


@pytest.mark.parametrize(
    ("space", "kwargs", "message"),
    [
        ({"n_layer": [1, 2]}, {}, r"n_layer, which SplicedVAE does not have; .*n_layers"),
        ({}, {}, "space is empty"),
        ({"n_latent": 4}, {}, "space is empty"),
        ({"n_latent": []}, {}, "no value for n_latent"),
        ({"n_latent": [], "lr": [1]}, {"sampler": "tpe"}, "no value for n_latent"),
        ({"lr": FloatDistribution(0, 1)}, {}, "give lr one, or use sampler='tpe'"),
        ({"lr": [0.1, 0.2]}, {"n_trials": 3}, "The grid has 2 points"),
        ({"lr": np.array([0.1, 0.2])}, {}, "ndarray"),
        ({"n_latent": list(np.arange(3, 9))}, {}, "int64"),
        (RATES, {"objective": "mse"}, "objective='mse'.*rmse.*d2.*elbo"),
        (RATES, {"objective": ()}, "an objective"),
        (RATES, {"sampler": "random"}, "sampler='random'"),
        (RATES, {"n_trials": 0}, "a trial"),
        (RATES, {"n_workers": 0}, "a worker"),
        (RATES, {"max_epochs": 0}, "an epoch"),
    ],
)
def test_bad_search_is_refused_and_leaves_nothing(space, kwargs, message, find, tmp_path):
    with pytest.raises(ValueError, match=message):
        find(space, **kwargs)
    assert not (tmp_path / "search.db").exists()


@pytest.mark.parametrize(
    ("storage", "message"),
    [
        ("sqlite:////no/such/folder/search.db", "unable to open"),
        ("sqlite://", "memory"),
        ("postgresql://me:hunter2@127.0.0.1:1/search", "me:.*@127.0.0.1:1"),
        ("postgresql+nodriver://me:hunter2@127.0.0.1/search", "nodriver"),
        ("postgresql://127.0.0.1:1/search?user=me&password=hunter2", "127.0.0.1:1/search can't"),
        ("postgresql//me:hunter2@host/search", "parse"),
        ("nonsense", "parse"),
    ],
)
def test_unreachable_storage_is_named_without_its_password(storage, message, find):
    with pytest.raises(ConnectionError, match=message) as caught:
        find(storage=storage)
    assert "hunter2" not in str(caught.value) and "sqlite:///search.db" in str(caught.value)


def test_file_that_is_no_database_is_named(find, tmp_path):
    (tmp_path / "search.db").write_text("cells and genes " * 100)
    with pytest.raises(ConnectionError, match=r"search\.db can't be reached .*not a database"):
        find()


@pytest.mark.parametrize(
    ("space", "kwargs", "name"),
    [
        (RATES | {"lr": [1e-3, 1e-2]}, {}, "space"),
        (RATES | {"n_latent": 5}, {}, "space"),
        (RATES, {"objective": "d2"}, "objective"),
        (RATES, {"max_epochs": 2}, "max_epochs"),
        (RATES, {"seed": 1}, "seed"),
        (RATES, {"sampler": "tpe"}, "sampler"),
    ],
)
def test_study_of_another_task_is_left_alone(space, kwargs, name, find):
    study = find(n_trials=1)
    before = study.trials, study.user_attrs
    with pytest.raises(ValueError, match=f"made with other {name}. Give a new study_name"):
        find(space, **kwargs)
    assert (study.trials, study.user_attrs) == before


def test_cells_are_known_by_their_counts_and_names_alone(find, cells):
    """Not by how a sparse matrix is stored, nor by whether it was asked for its order."""
    adata, split = cells
    find()
    same = adata.copy()
    del same.uns["_scvi_uuid"]  # or scvi-tools takes it for the original
    for name in ("spliced", "unspliced"):
        layer = same.layers[name].tocsc().tocsr()
        assert layer.has_sorted_indices
        same.layers[name] = layer
    sv.SplicedVAE.setup_anndata(same)
    assert len(find(of=(same, split)).trials) == 2
    with pytest.raises(ValueError, match="made with other split"):
        find(of=(adata, (split[0], split[2])))
    same.obs_names = [f"{name}-1" for name in same.obs_names]
    sv.SplicedVAE.setup_anndata(same)
    with pytest.raises(ValueError, match="made with other cells"):
        find(of=(same, split))


def test_study_of_another_program_is_left_alone(find, tmp_path):
    theirs = optuna.create_study(storage=f"sqlite:///{tmp_path}/search.db", study_name="splicedvae")
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(ValueError, match="made with other"):
        find()
    assert len(theirs.trials) == 1 and theirs.user_attrs == {}


def test_cells_must_be_set_up_and_split(find, cells):
    adata, split = cells
    with pytest.raises(ValueError, match="setup_anndata"):
        find(of=(sv.data.simulate(n_obs=60, n_vars=20), split))
    with pytest.raises(ValueError, match="both in train and in val"):
        find(of=(adata, (split[0], split[0])))


@pytest.mark.slow
def test_package_without_optuna_names_the_extra():
    program = """
import sys
class Without:
    def find_spec(self, name, *_):
        if name.partition(".")[0] == "optuna":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Without())
import splicedvae as sv
try:
    sv.search
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and "optuna: pip install 'splicedvae[search]'" in done.stdout
