"""Velo-Predictor on toy cells whose labels can be learned, or cannot."""

import sys

import numpy as np
import pytest
import scipy.sparse as sp
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.model_selection import train_test_split

import splicedvae as sv
from splicedvae.baselines import VeloPredictor

N_GENES = 40


def toy(labels, effect=0.0, marker_layer="spliced", seed=0):
    """Cells in which each class has 5 genes of its own, `effect` counts higher in one layer."""
    rng = np.random.default_rng(seed)
    mean = {name: np.full((len(labels), N_GENES), 3.0) for name in ("spliced", "unspliced")}
    for label in range(4):
        mean[marker_layer][labels == label, 5 * label : 5 * label + 5] += effect
    counts = {name: sp.csr_matrix(rng.poisson(x).astype(np.float32)) for name, x in mean.items()}
    counts["total"] = counts["spliced"] + counts["unspliced"]
    adata = AnnData(counts["total"].copy(), layers=counts)
    adata.var_names = [f"gene{g}" for g in range(N_GENES)]
    return adata


def classes(n_obs, shares=(0.25, 0.25, 0.25, 0.25), seed=0):
    return np.random.default_rng(seed).choice(4, n_obs, p=shares)


@pytest.fixture(scope="module")
def separable():
    labels = classes(240)
    return toy(labels, effect=20), labels


@pytest.mark.parametrize("model", ["xgboost", "stack"])
def test_what_can_be_learned_is_learned(separable, model):
    adata, labels = separable
    predictor = VeloPredictor(model, n_estimators=15).fit(adata[:160], labels[:160])
    assert accuracy_score(labels[160:], predictor.predict(adata[160:])) == 1


@pytest.mark.parametrize("model", ["xgboost", "stack"])
def test_the_published_protocol_learns_noise_and_the_honest_one_does_not(model):
    labels = classes(400, shares=(0.85, 0.05, 0.05, 0.05))
    adata = toy(labels)  # nothing in it depends on the labels
    train, test = train_test_split(np.arange(400), test_size=0.3, stratify=labels, random_state=0)
    predictor = VeloPredictor(model, n_estimators=30)
    predicted = predictor.fit(adata[train], labels[train]).predict(adata[test])
    assert abs(balanced_accuracy_score(labels[test], predicted) - 0.25) < 0.05
    published = predictor.as_published(adata, labels)
    assert min(published.values()) > 0.95


def test_unspliced_counts_are_seen_in_the_total_alone():
    labels = classes(300)
    adata = toy(labels, effect=20, marker_layer="unspliced")
    scores = {}
    for layer in ("spliced", "total"):
        predictor = VeloPredictor(layer=layer, n_estimators=15).fit(adata[:200], labels[:200])
        scores[layer] = accuracy_score(labels[200:], predictor.predict(adata[200:]))
    assert scores["total"] > 0.97
    assert scores["spliced"] < 0.36


def test_a_prediction_depends_on_its_own_cell_and_not_on_its_depth(separable):
    adata, labels = separable
    predictor = VeloPredictor(n_estimators=5).fit(adata[:160], labels[:160])
    expected = predictor.predict(adata[160:])
    np.testing.assert_array_equal(predictor.predict(adata[200:]), expected[40:])
    deeper = adata[160:].copy()
    deeper.layers["spliced"] = deeper.layers["spliced"] * 7
    np.testing.assert_array_equal(predictor.predict(deeper), expected)


def test_a_seed_decides_and_the_published_protocol_leaves_no_trace():
    labels = classes(200)
    adata = toy(labels, effect=1)
    first, second = (VeloPredictor(n_estimators=5).fit(adata[:150], labels[:150]) for _ in range(2))
    expected = first.predict(adata[150:])
    assert second.as_published(adata, labels) == first.as_published(adata, labels)
    np.testing.assert_array_equal(second.predict(adata[150:]), expected)
    other = VeloPredictor(n_estimators=5, seed=1).fit(adata[:150], labels[:150])
    assert (other.predict(adata[150:]) != expected).any()


@pytest.mark.parametrize("model", ["xgboost", "stack"])
def test_labels_of_any_kind_and_small_classes(model):
    labels = np.repeat(["north", "east", "south"], [60, 60, 5])
    adata = toy(np.repeat([0, 1, 2], [60, 60, 5]), effect=20)
    predictor = VeloPredictor(model, n_estimators=15).fit(adata, labels)
    assert list(predictor.classes_) == ["east", "north", "south"]
    assert accuracy_score(labels, predictor.predict(adata)) == 1
    with pytest.raises(ValueError, match=r"5 cells or more.*'south': 4"):
        VeloPredictor(model).fit(adata[:-1], labels[:-1])


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 30), st.integers(0, 3))
def test_labels_that_do_not_fit_are_refused(n_labels, n_missing):
    adata, labels = toy(classes(20)), classes(n_labels).astype(float)
    labels[:n_missing] = np.nan
    for method in (VeloPredictor().fit, VeloPredictor().as_published):
        if n_labels != 20 or n_missing:
            with pytest.raises(ValueError, match=r"20 cells, and labels of shape"):
                method(adata, labels)
        else:
            with pytest.raises(ValueError, match="5 cells or more"):
                method(adata, np.zeros(20))


def test_bad_input(separable):
    adata, labels = separable
    with pytest.raises(ValueError, match="model='forest'"):
        VeloPredictor("forest")
    with pytest.raises(ValueError, match="call fit"):
        VeloPredictor().predict(adata)
    with pytest.raises(KeyError, match="'denoised'"):
        VeloPredictor(layer="denoised").fit(adata, labels)
    predictor = VeloPredictor(n_estimators=2).fit(adata, labels)
    with pytest.raises(ValueError, match="1 missing"):
        predictor.predict(adata[:, 1:])
    logged = adata.copy()
    logged.layers["spliced"] = logged.layers["spliced"].log1p()
    with pytest.raises(ValueError, match=r"layer 'spliced' holds a fractional count"):
        predictor.as_published(logged, labels)


def test_a_missing_library_names_the_extra(separable, monkeypatch):
    monkeypatch.setitem(sys.modules, "xgboost", None)
    with pytest.raises(ImportError, match=r"pip install 'splicedvae\[velocity\]'"):
        VeloPredictor().fit(*separable)


@pytest.mark.slow
def test_on_real_cells_the_published_accuracy_is_leakage(pancreas):
    train, val, test = sv.data.split(pancreas)
    adata = sv.data.prepare(pancreas, fit_on=train)
    labels = adata.obs["velopredictor_direction"].to_numpy()
    known = np.sort(np.concatenate([train, val]))
    predictor = VeloPredictor()
    predicted = predictor.fit(adata[known], labels[known]).predict(adata[test])
    assert 0.72 < accuracy_score(labels[test], predicted) < 0.79
    assert 0.66 < balanced_accuracy_score(labels[test], predicted) < 0.74
    published = predictor.as_published(adata, labels)
    assert 0.86 < published["accuracy"] < 0.91
    assert 0.86 < published["balanced_accuracy"] < 0.91
