"""Minibatches hold each cell once an epoch, whatever holds the cells, and never one cell alone."""

import numpy as np
import pytest
import scvi
import torch
from hypothesis import given
from hypothesis import strategies as st
from scvi.dataloaders import AnnDataLoader

import splicedvae as sv
from splicedvae import minibatches
from splicedvae.minibatches import InMemorySplitter, Minibatches
from splicedvae.training import minibatch


@given(st.integers(1, 60), st.integers(1, 20), st.booleans(), st.booleans())
def test_each_cell_comes_once_and_none_alone(n, size, shuffle, drop_last):
    sampler = Minibatches(n, size, shuffle, drop_last)
    parts = list(sampler)
    assert len(parts) == len(sampler)
    seen = torch.cat(parts).tolist() if parts else []
    assert len(set(seen)) == len(seen) and set(seen) <= set(range(n))
    if drop_last:
        assert len(seen) == n // size * size
        assert all(len(part) == size for part in parts)
    else:
        assert len(seen) == n
        assert all(len(part) > 1 for part in parts) or n == 1 or size == 1
    if not shuffle:
        assert seen == sorted(seen)


def splitter(cells, parts, **kwargs):
    sv.SplicedVAE.setup_anndata(cells, batch_key="donor", continuous_covariate_keys=["age"])
    model = sv.SplicedVAE(cells)
    given = {"external_indexing": list(parts), "batch_size": 32} | kwargs
    made = InMemorySplitter(model.adata_manager, **given)
    made.setup()
    return made, model.adata_manager


@pytest.mark.parametrize("limit", [2**30, 0], ids=["dense", "sparse"])
def test_values_are_those_of_scvis_own_loader(cells, parts, limit, monkeypatch):
    monkeypatch.setattr(minibatches, "DENSE_BYTES", limit)
    made, manager = splitter(cells, parts)
    theirs = AnnDataLoader(manager, indices=parts[1], batch_size=32)
    ours = made.val_dataloader()
    assert isinstance(ours.dataset, minibatches.CellTensors) == (limit > 0)
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            assert a[name].dtype == b[name].dtype
            torch.testing.assert_close(a[name], b[name], rtol=0, atol=0)


def test_workers_are_left_to_scvi(cells, parts):
    made, _ = splitter(cells, parts, num_workers=1)
    assert isinstance(made.train_dataloader(), AnnDataLoader)


def test_a_training_set_that_leaves_one_cell_over_is_trained_on(cells):
    sv.SplicedVAE.setup_anndata(cells)
    model = sv.SplicedVAE(cells)
    split = np.arange(129), np.arange(200, 240)
    model.train(1, split=split, batch_size=32, enable_progress_bar=False)
    assert np.isfinite(model.history["elbo_train"].astype(float)).all().all()


def test_where_the_cells_are_held_changes_no_number(cells, parts, monkeypatch):
    histories = []
    for limit in (2**30, 0):
        monkeypatch.setattr(minibatches, "DENSE_BYTES", limit)
        scvi.settings.seed = 0
        sv.SplicedVAE.setup_anndata(cells)
        model = sv.SplicedVAE(cells)
        model.train(2, split=parts[:2], enable_progress_bar=False)
        histories.append(model.history["elbo_validation"].astype(float).to_numpy())
    np.testing.assert_array_equal(*histories)


def test_few_cells_make_small_minibatches(cells, parts):
    sizes = {40: 16, 320: 16, 400: 20, 723: 36, 2559: 127, 2560: 128, 10**6: 128}
    assert {n: minibatch(n) for n in sizes} == sizes
    sv.SplicedVAE.setup_anndata(adata := cells.copy())
    model = sv.SplicedVAE(adata)
    model.train(1, split=parts[:2], enable_progress_bar=False)
    assert model.trainer.global_step == np.ceil(len(parts[0]) / 16)
