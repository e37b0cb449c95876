"""The stage that leaves groups of cells out."""

import anndata
import numpy as np
import pytest

import splicedvae as sv
from splicedvae_book import corpus, generalisation, profiles


@pytest.fixture
def tiny(monkeypatch):
    """A short profile."""
    monkeypatch.setitem(profiles.PROFILES, "tiny", profiles.Profile(None, 60, 3, (0,)))
    setting = {"groups": 1, "cells": 1500, "genes": 80, "epochs": 2, "tuned": 60, "updates": 60}
    monkeypatch.setitem(generalisation.SETTINGS, "tiny", setting)
    return sv.data.simulate(n_obs=500, n_vars=100)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """All sound samples of a small corpus."""
    return generalisation._store(tmp_path_factory.mktemp("atlas"), {"cells": 1500, "genes": 80}, 0)


def test_cells_in_memory_are_those_of_the_files(store):
    """What is read back is what the samples' own files hold, in the order that was asked for."""
    rows = np.random.default_rng(0).permutation(store.n_obs)[:50]
    cells = generalisation.in_memory(store, rows)
    assert list(cells.obs_names) == [str(row) for row in rows]
    np.testing.assert_array_equal(cells.obs["sample"], store.samples.index[store.codes[rows]])
    every = generalisation.in_memory(store, np.arange(store.n_obs))
    np.testing.assert_array_equal(
        cells.layers["unspliced"].toarray(), every.layers["unspliced"][rows].toarray()
    )
    # a sample as a whole: its genes' sums are those of its file, where both know the gene
    code = store.codes[0]
    sample = store.samples.iloc[code]
    raw = anndata.read_h5ad(sample["file"])
    own = every[store.codes == code]
    pairs = corpus.orthologues(80)
    human = dict(zip(pairs["Mus musculus"], pairs["Homo sapiens"], strict=True))
    names = raw.var["gene_ids"].map(human).fillna(raw.var["gene_ids"])
    known = names.isin(store.genes).to_numpy()
    for layer in ("spliced", "unspliced"):
        sums = np.asarray(raw.layers[layer].sum(0)).ravel()[known]
        place = store.genes.get_indexer(names[known])
        assert len(own) == len(raw)  # no cell of this sample was dropped
        np.testing.assert_array_equal(np.asarray(own.layers[layer].sum(0)).ravel()[place], sums)


def test_left_out_cells_are_in_no_training(tiny, monkeypatch):
    seen = {}
    compare = generalisation.compare

    def spy(adata, model, parts, seed, updates):
        seen.update(adata=adata, parts=parts, learnt=model.train_indices.copy())
        return compare(adata, model, parts, seed, updates)

    prepare = sv.data.prepare

    def spy_on_genes(adata, **kwargs):
        seen["fit_on"] = kwargs["fit_on"]
        return prepare(adata, **kwargs)

    monkeypatch.setattr(generalisation, "compare", spy)
    monkeypatch.setattr(generalisation.data, "prepare", spy_on_genes)
    rows = generalisation.run_job(tiny, "tiny", 0, "cell type", None)["rows"]
    clusters = seen["adata"].obs["clusters"].to_numpy()
    train, val, new, test = seen["parts"]
    assert set(clusters[new]) == set(clusters[test]) == {"Ductal"}  # the largest
    assert "Ductal" not in set(clusters[np.concatenate([train, val])])
    # nor has the model, or the choice of genes, seen another cell than those
    assert set(seen["learnt"]) == set(train) == set(seen["fit_on"])
    assert not set(new) & set(test) and len(new) == 60
    assert set(np.concatenate([new, test])) == set(np.flatnonzero(clusters == "Ductal"))

    # the reference is the mean from elsewhere; the group's own mean is scored against it by hand
    assert rows["Ductal: gene mean, elsewhere"]["d2"] == pytest.approx(0, abs=1e-12)
    adata = seen["adata"]
    here, there = (
        sv.baselines.GeneMean().fit(adata[part], adata[part]).mean_ for part in (train, new)
    )
    s, u = (adata.layers[layer][test] for layer in ("spliced", "unspliced"))
    by_hand = sv.metrics.ratio_report(s, u, np.tile(there, (len(test), 1)), here)["d2"]
    assert rows["Ductal: gene mean, there"]["d2"] == pytest.approx(by_hand, abs=1e-3)
    assert {row["learnt_from"] for row in rows.values()} == {60}
    assert {row["way"] for row in rows.values()} >= {
        "SplicedVAE, fine-tuned",
        "hierarchical regression, there",
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dataset", "tissue", "organism"])
def test_a_corpus_is_divided_by_what_is_left_out(tiny, name, monkeypatch):
    def check(adata, model, parts, seed, updates):
        train, val, new, test = (adata.obs.iloc[part] for part in parts)
        group = set(test[name])
        assert len(group) == 1 and set(new[name]) == group
        assert not group & (set(train[name]) | set(val[name]))
        # learnt from some samples, tested on others of the same protocol
        assert len(new) and len(test) and not set(new["sample"]) & set(test["sample"])
        assert set(new["tech"]) == set(test["tech"])
        assert len(model.adata) == len(adata) and bool(model.module.head.started)
        return {"way": {"d2": 0.0}}

    monkeypatch.setattr(generalisation, "compare", check)
    rows = generalisation.run_job(tiny, "tiny", 0, name, None)["rows"]
    assert len(rows) == 1


def test_a_training_on_the_new_kind_has_its_number_of_updates(tiny, monkeypatch):
    """Whatever the size of the corpus or of what is learnt from."""
    own = sv.data.prepare(tiny)
    sv.SplicedVAE.setup_anndata(own)
    parts = np.split(np.random.default_rng(0).permutation(own.n_obs), [150, 200, 375])
    steps = []
    train = sv.SplicedVAE.train

    def spy(self, *args, **kwargs):
        train(self, *args, **kwargs)
        steps.append(self.trainer.global_step)

    model = sv.SplicedVAE(own)
    model.train(1, split=parts[:2], enable_progress_bar=False)
    monkeypatch.setattr(sv.SplicedVAE, "train", spy)
    generalisation.compare(own, model, parts, 0, updates=7)
    assert steps == [8, 8]  # 140 cells are two minibatches
