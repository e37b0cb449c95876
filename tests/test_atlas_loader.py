"""Every cell once, in one process, in the same order for the same seed, with its own counts."""

import json
import logging
import shutil
import warnings
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import splicedvae as sv
from splicedvae.atlas import AtlasDataModule, Store, build_store, minibatch_entropy
from splicedvae.atlas.blocks import BlockSampler, by_anndata, chosen_engine
from splicedvae.atlas.loader import _Minibatches
from splicedvae.start import stacked

GENES = 30
ANNBATCH = find_spec("annbatch") is not None


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A store of seven samples of two tissues, in shards of 200 cells that hold one part each."""
    folder = tmp_path_factory.mktemp("atlas")
    rng = np.random.default_rng(0)
    rows = []
    for k, n in enumerate((150, 250, 90, 310, 120, 130, 60)):
        s, u = (sparse.csr_matrix(rng.poisson(1.0, (n, GENES)).astype(np.float32)) for _ in "su")
        cells = AnnData(
            s,
            obs=pd.DataFrame(index=[f"{k}-{i}" for i in range(n)]),
            var=pd.DataFrame(index=[f"gene{i}" for i in range(GENES)]),
            layers={"spliced": s, "unspliced": u},
        )
        cells.write_h5ad(folder / f"{k}.h5ad")
        row = {"sample": f"SRX{k}", "file": str(folder / f"{k}.h5ad"), "n_take": n, "seed": k}
        row |= {"tissue": ("blood", "liver")[k % 2], "dataset": f"set {k // 2}"}
        rows.append(row | {"part": {5: "val", 6: "test"}.get(k, "train")})
    plan = pd.DataFrame(rows).set_index("sample")
    build_store(plan, folder / "store", cells.var_names, shard_cells=200, progress=False)
    return folder / "store"


@pytest.fixture
def store(path):
    return Store(path)


def everything(store) -> np.ndarray:
    """Counts of all cells, dense (cells, 2 genes), not by way of the loader."""
    return sparse.vstack([matrix[:] for matrix in store.matrices]).toarray()


def drawn(sampler) -> list[np.ndarray]:
    return [r["requests"][split] for r in sampler.sample() for split in r["splits"]]


sizes = st.fixed_dictionaries(
    {
        "batch_size": st.integers(2, 40),
        "block": st.integers(1, 30),
        "preload": st.integers(1, 6),
        "seed": st.integers(0, 3),
        "shuffle": st.booleans(),
    }
)


@settings(max_examples=150, deadline=None)
@given(st.integers(12, 400), sizes, st.integers(1, 4), st.integers(0, 2))
def test_every_row_comes_once_in_one_process(n, sizes, world, epoch):
    rows = np.flatnonzero(np.random.default_rng(n).random(3 * n) < 0.4)  # with gaps
    try:
        ranks = [BlockSampler(rows, **sizes, rank=r, world=world) for r in range(world)]
    except ValueError:
        batches = -(-len(rows) // (world * sizes["batch_size"]))
        assert len(rows) < world * batches
        return
    for sampler in ranks:
        sampler.set_epoch(epoch)
    batches = [drawn(sampler) for sampler in ranks]
    assert {len(own) for own in batches} == {ranks[0].n_batches}
    together = np.concatenate([batch for own in batches for batch in own])
    np.testing.assert_array_equal(np.sort(together), rows)
    for same_step in zip(*batches, strict=True):
        lengths = [len(batch) for batch in same_step]
        assert min(lengths) >= 1
        assert max(lengths) <= sizes["batch_size"]
        assert max(lengths) - min(lengths) <= 1


@settings(max_examples=100, deadline=None)
@given(sizes, st.integers(0, 3), st.data())
def test_it_goes_on_where_it_stopped(sizes, epoch, data):
    sampler = BlockSampler(np.arange(300), **sizes)
    sampler.set_epoch(epoch)
    whole = drawn(sampler)
    sampler.start = data.draw(st.integers(0, len(whole)))
    rest = whole[sampler.start :]
    sampler.set_epoch(epoch)  # as Lightning does before the rest of the epoch
    for got, expected in zip(drawn(sampler), rest, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert len(drawn(sampler)) == len(whole)


def test_the_order_is_the_seeds_and_the_epochs():
    def order(seed, epoch):
        sampler = BlockSampler(np.arange(1000), 32, block=8, preload=8, seed=seed, epoch=epoch)
        return np.concatenate(drawn(sampler))

    np.testing.assert_array_equal(order(0, 0), order(0, 0))
    assert (order(0, 0) != order(0, 1)).any()
    assert (order(0, 0) != order(1, 0)).any()


@pytest.mark.parametrize("world", [1, 2, 4])
def test_blocks_are_read_whole(world):
    rows = np.arange(64 * 100)
    for rank in range(world):
        sampler = BlockSampler(rows, 256, block=64, preload=8, rank=rank, world=world)
        for request in sampler.sample():
            blocks = np.unique(request["requests"] // 64)
            # a share that begins and ends inside a block touches one more
            assert len(blocks) <= len(request["requests"]) / 64 + 2


def test_all_processes_read_what_one_would():
    rows = np.arange(1000)
    one = BlockSampler(rows, 64, block=8, preload=16)
    two = [BlockSampler(rows, 32, block=8, preload=8, rank=r, world=2) for r in (0, 1)]
    for whole, *halves in zip(one.sample(), *(sampler.sample() for sampler in two), strict=True):
        both = np.concatenate([half["requests"] for half in halves])
        np.testing.assert_array_equal(both, whole["requests"])


@pytest.mark.parametrize(
    ("n", "arguments", "message"),
    [
        (0, {"batch_size": 8}, "0 cells are too few"),
        (7, {"batch_size": 1, "world": 3}, "too few for minibatches of 1 in 3 processes"),
        (9, {"batch_size": 0}, "must be 1 or more"),
        (9, {"batch_size": 8, "block": 0}, "must be 1 or more"),
    ],
)
def test_it_refuses_empty_minibatches(n, arguments, message):
    with pytest.raises(ValueError, match=message):
        BlockSampler(np.arange(n), **arguments)


ENGINES = [
    "anndata",
    pytest.param(
        "annbatch",
        marks=pytest.mark.skipif(not ANNBATCH, reason="needs annbatch, which needs Python 3.12"),
    ),
]


@pytest.mark.parametrize("engine", ENGINES)
def test_minibatches_hold_the_counts_of_their_cells(store, engine):
    module = AtlasDataModule(store, None, "dataset", 50, engine, block=7, preload=11)
    sampler = BlockSampler(module.rows["train"], **module.sampling)
    expected = everything(store)
    names = np.array(["set 0", "set 1", "set 2", "set 3"])
    batches = list(_Minibatches(module, sampler))
    assert len(batches) == len(list(_Minibatches(module, sampler))) == sampler.n_batches == 19
    for batch, rows in zip(batches, drawn(sampler), strict=True):
        s, u = expected[rows, :GENES], expected[rows, GENES:]
        for key, counts in {"X": s + u, "spliced": s, "unspliced": u}.items():
            np.testing.assert_array_equal(batch[key].numpy(), counts)
            assert batch[key].dtype == torch.float32
        samples = store.samples.iloc[store.codes[rows]]
        np.testing.assert_array_equal(names[batch["batch"].numpy().ravel()], samples["dataset"])
        tissues = np.array(module.tissues)[batch["tissue"].numpy().ravel()]
        np.testing.assert_array_equal(tissues, samples["tissue"])
        assert not batch["labels"].any()
        assert batch["labels"].shape == batch["batch"].shape == (len(rows), 1)


@pytest.mark.parametrize("engine", ENGINES)
def test_inference_has_every_cell_in_the_stores_order(store, engine):
    module = AtlasDataModule(store, batch_size=32, engine=engine, block=8, preload=4)
    for part in ("train", "val", "test"):
        x = np.concatenate([batch["spliced"] for batch in module.inference_dataloader(part)])
        inside = (store.samples["part"] == part).to_numpy()[store.codes]
        np.testing.assert_array_equal(x, everything(store)[inside, :GENES])


def test_counts_that_travel_sparse_arrive_dense(store):
    module = AtlasDataModule(store, batch_size=64)
    sampler = BlockSampler(module.rows["val"], **module.sampling)
    dense, travelling = (_Minibatches(module, sampler, on_device=on) for on in (False, True))
    for expected, batch in zip(dense, travelling, strict=True):
        assert "X" not in batch
        arrived = module.on_after_batch_transfer(batch, 0)
        assert arrived.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(arrived[key], value)
            assert arrived[key].dtype == value.dtype


def test_the_registry_is_that_of_all_cells(store):
    module = AtlasDataModule(store, batch_key="dataset")
    counts = everything(store)
    layers = {"spliced": counts[:, :GENES], "unspliced": counts[:, GENES:]}
    cells = AnnData(counts[:, :GENES], var=pd.DataFrame(index=store.genes), layers=layers)
    cells.obs["dataset"] = store.samples["dataset"].to_numpy()[store.codes]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sv.SplicedVAE.setup_anndata(cells, batch_key="dataset")
    manager = sv.SplicedVAE._get_most_recent_anndata_manager(cells, required=True)
    ours, theirs = (
        json.loads(json.dumps(registry, default=lambda a: np.asarray(a).tolist()))
        for registry in (module.registry, manager.registry)
    )
    for registry in (ours, theirs):
        del registry["_scvi_uuid"]
        for field in registry["field_registries"].values():  # all but the number of cells
            field["summary_stats"].pop("n_cells", None)
            field["state_registry"].pop("n_obs", None)
    assert ours == theirs


def test_parts_may_be_given(store):
    parts = pd.Series({"SRX0": "val", "SRX3": "train"})
    module = AtlasDataModule(store, parts)
    assert (module.n_train, module.n_val, len(module.rows["test"])) == (310, 150, 0)
    with pytest.raises(ValueError, match="0 cells are too few"):
        module.inference_dataloader("test")
    with pytest.raises(ValueError, match="part='dev'"):
        module.inference_dataloader("dev")


def test_samples_without_tissues_are_of_one(path, tmp_path):
    shutil.copytree(path, tmp_path / "store")
    plan = pd.read_parquet(tmp_path / "store/plan.parquet").drop(columns="tissue")
    plan.to_parquet(tmp_path / "store/plan.parquet")
    module = AtlasDataModule(Store(tmp_path / "store"))
    assert module.tissues == ["unmapped"]
    for part in ("train", "val", "test"):
        assert not any(batch["tissue"].any() for batch in module.inference_dataloader(part))


def test_a_scattered_part_is_not_read_cell_by_cell(store):
    """Every third row of a shard is one reading with what lies between, not one per row."""

    class Counting:
        """Counts the readings of a matrix."""

        def __init__(self, matrix):
            self.matrix, self.shape, self.n = matrix, matrix.shape, 0

        def __getitem__(self, rows):
            self.n += 1
            return self.matrix[rows]

    counted = SimpleNamespace(matrices=[Counting(matrix) for matrix in store.matrices])
    rows = np.arange(0, store.n_obs, 3)
    sampler = BlockSampler(rows, len(rows), shuffle=False)
    counts, found = next(by_anndata(counted, sampler))
    assert [matrix.n for matrix in counted.matrices] == [1] * len(store.matrices)
    np.testing.assert_array_equal(found, rows)
    every = sparse.vstack([matrix[:] for matrix in store.matrices], format="csr")
    np.testing.assert_array_equal(counts.toarray(), every[rows].toarray())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"parts": pd.Series({"SRX9": "train"})}, KeyError, "The store has no SRX9"),
        ({"parts": pd.Series({"SRX1": "dev"})}, ValueError, r"not \['dev'\]"),
        ({"parts": pd.Series({"SRX1": "test"})}, ValueError, "No cell of the store is for train"),
        ({"batch_key": "donor"}, KeyError, "The store has no donor"),
        ({"engine": "tiledb"}, ValueError, "engine='tiledb'"),
    ],
)
def test_it_says_what_is_wrong(store, arguments, error, message):
    with pytest.raises(error, match=message):
        AtlasDataModule(store, **arguments)


def test_the_engine_is_chosen_and_told_once(caplog):
    with caplog.at_level(logging.INFO, "splicedvae"):
        assert chosen_engine("auto") == ("annbatch" if ANNBATCH else "anndata")
    assert len(caplog.records) == 1
    if not ANNBATCH:
        with pytest.raises(ModuleNotFoundError, match="needs Python 3"):
            chosen_engine("annbatch")


def test_a_store_that_breaks_in_mid_epoch_is_no_short_epoch(path, tmp_path):
    shutil.copytree(path, tmp_path / "store")
    store = Store(tmp_path / "store")
    module = AtlasDataModule(store, batch_size=16, engine="anndata", block=16, preload=1)
    batches = iter(module.inference_dataloader("train"))
    next(batches)
    for data in (tmp_path / "store" / "shards").glob("*/X/data"):
        shutil.rmtree(data)
    with pytest.raises((OSError, KeyError, ValueError)):
        list(batches)


def test_the_head_starts_from_training_cells(store):
    module = AtlasDataModule(store, batch_size=64, block=16, preload=2)
    known = {row.tobytes() for row in everything(store)[module.rows["train"]]}
    for n in (50, 20_000):
        x, s, u = (counts.toarray() for counts in stacked(module.sample_dataloader(n)))
        np.testing.assert_array_equal(x, s + u)
        rows = np.hstack([s, u]).astype(np.float32)
        assert all(row.tobytes() in known for row in rows)
        assert n / 2 < len(rows) <= n or len(rows) == module.n_train
    assert len(rows) == module.n_train == 920


@pytest.mark.parametrize("batch_size", [90, 500, 4000])
def test_a_sample_is_whole_and_always_the_same(store, batch_size):
    module = AtlasDataModule(store, batch_size=batch_size, engine="anndata", block=16, preload=2)
    for n, expected in ((919, range(840, 920)), (920, [920]), (2000, [920])):
        once = torch.cat([batch["X"] for batch in module.sample_dataloader(n)])
        module.trainer = SimpleNamespace(global_rank=1, world_size=2)
        again = torch.cat([batch["X"] for batch in module.sample_dataloader(n)])
        module.trainer = None
        assert torch.equal(once, again) and len(once) in expected


def test_a_checkpoint_of_another_order_is_refused(store):
    def batches(**settings):
        module = AtlasDataModule(store, **({"batch_size": 64, "block": 16} | settings))
        return _Minibatches(module, BlockSampler(module.rows["train"], **module.sampling))

    first = batches()
    steps = iter(first)
    seen = [next(steps)["X"].numpy() for _ in range(4)]
    later = batches()
    later.load_state_dict(first.state_dict())
    rest = [batch["X"].numpy() for batch in later]
    whole = [batch["X"].numpy() for batch in batches()]
    np.testing.assert_array_equal(np.concatenate([*seen, *rest]), np.concatenate(whole))
    with pytest.raises(ValueError, match=r"other batch_size, seed \(64, 0\)"):
        batches(batch_size=32, seed=1).load_state_dict(first.state_dict())


def test_entropy_of_minibatches(store):
    module = AtlasDataModule(store, batch_size=50, block=5, preload=40)
    entropy = minibatch_entropy(module)
    blood = 150 + 90 + 120
    p = np.array([blood, 920 - blood]) / 920
    # of a sample of B cells it is short of the whole's by (tissues - 1) / 2B (Miller, 1955)
    ideal = -(p * np.log(p)).sum() - 1 / (2 * 48.4)
    assert entropy["ideal"] == pytest.approx(ideal, abs=0.01)
    assert entropy["unshuffled"] < entropy["minibatches"] <= entropy["ideal"] + 0.01
    by_cell = AtlasDataModule(store, batch_size=50, block=1, preload=2000)  # a full shuffle
    assert minibatch_entropy(by_cell)["minibatches"] == pytest.approx(ideal, abs=0.01)
    pure = AtlasDataModule(store, pd.Series({"SRX1": "train", "SRX3": "train"}))
    assert set(minibatch_entropy(pure).values()) == {0.0}
