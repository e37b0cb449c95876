"""When to believe a model: verdicts on simulated cells whose truth is known; what is refused."""

import sys

import numpy as np
import pytest
import scvi
from scipy import sparse

import splicedvae as sv
from splicedvae.trust import CAUTION, DO_NOT_TRUST, TRUST, calibration, unspliced_capture

FORMS = "spliced", "unspliced"


@pytest.fixture(scope="module")
def everything():
    """A calibrated model of simulated cells, and cells that it has not seen."""
    adata = sv.data.prepare(sv.data.simulate(n_obs=700, n_vars=200, seed=1))
    known, test = adata[:500].copy(), adata[500:].copy()
    scvi.settings.seed = 0
    sv.SplicedVAE.setup_anndata(known)
    model = sv.SplicedVAE(known, n_latent=8, n_hidden=64)
    split = np.arange(400), np.arange(400, 500)
    model.train(120, split=split, batch_size=64, enable_progress_bar=False)
    calibration(model)
    return model, test


@pytest.fixture
def model(everything):
    return everything[0]


@pytest.fixture
def query(everything):
    """Held-out cells with totals alone."""
    cells = everything[1]
    shown = cells.copy()
    for name in list(shown.layers):
        if name is not None and name != "total":
            del shown.layers[name]
    return shown


def with_counts(query, counts):
    other = query.copy()
    other.layers["total"] = sparse.csr_matrix(counts, dtype=np.float32)
    other.X = other.layers["total"].copy()
    return other


def test_held_out_cells_are_trusted(model, query):
    found = sv.trust(query, model)
    assert found.verdict == TRUST, str(found)
    assert found.scores["structure"] == pytest.approx(found.scores["held_out"], rel=0.3)
    support = query.obs["splicedvae_support"]
    assert support.between(0, 1).all() and support.mean() > 0.5
    assert all(reason.endswith(".") for reason in found.reasons)
    assert str(found).splitlines()[0] == "trust"
    again = query.copy()
    assert sv.trust(again, model).expected_angle == found.expected_angle
    np.testing.assert_array_equal(again.obs["splicedvae_support"], support)


def test_of_many_cells_some_are_asked(model, query, monkeypatch):
    """Memory is bounded by those that are asked; the others take their neighbours' spread."""
    whole = sv.trust(query, model)
    support = query.obs["splicedvae_support"].to_numpy()
    monkeypatch.setattr(sys.modules["splicedvae.trust"], "ASKED_CELLS", 120)
    some = sv.trust(query, model)
    assert some.verdict == whole.verdict and some.scores["cells"] == query.n_obs
    # a velocity of fewer cells is no better
    assert whole.expected_angle - 5 < some.expected_angle <= 90
    np.testing.assert_allclose(query.obs["splicedvae_support"], support, atol=0.2)


def test_arrows_that_disagree_are_expected_to_be_wrong(model):
    known = calibration(model)
    assert (np.diff(known["curve_error"]) >= 0).all() and np.ptp(known["curve_error"]) > 5
    assert (np.diff(known["curve_kept"]) >= 0).all() and known["curve_kept"][0] == 0
    assert ((known["kept"] > 0) & (known["kept"] <= 1)).all()


def test_noise_of_the_same_means_is_not(model, query):
    rng, x = np.random.default_rng(0), query.layers["total"].toarray()
    noise = with_counts(query, rng.poisson(x.sum(1, keepdims=True) * x.sum(0) / x.sum()))
    found = sv.trust(noise, model)
    assert found.verdict == DO_NOT_TRUST and found.expected_angle > 60
    assert "do not differ in the ways" in found.reasons[0]
    held_out = sv.trust(query, model)
    assert noise.obs["splicedvae_support"].mean() < query.obs["splicedvae_support"].mean() / 2
    assert found.scores["structure"] < held_out.scores["structure"] / 4


def test_genes_under_other_names_are_not(model, query):
    order = np.random.default_rng(0).permutation(query.n_vars)
    found = sv.trust(with_counts(query, query.layers["total"].toarray()[:, order]), model)
    assert found.verdict == DO_NOT_TRUST, str(found)


def test_spliced_counts_for_totals_are_not(everything):
    model, test = everything
    shown = with_counts(test, test.layers["spliced"])
    for form in FORMS:
        del shown.layers[form]
    found = sv.trust(shown, model)
    assert found.verdict == DO_NOT_TRUST, str(found)
    assert "spliced counts alone" in found.reasons[0]


def test_normalised_values_are_not(model, query):
    x = query.layers["total"].toarray()
    found = sv.trust(with_counts(query, np.log1p(1e4 * x / x.sum(1, keepdims=True))), model)
    assert (found.verdict, found.expected_angle) == (DO_NOT_TRUST, 90)
    assert "no counts" in found.reasons[0] and "fractional" in found.reasons[0]


def test_few_molecules_are_less_than_many(model, query):
    rng, x = np.random.default_rng(0), query.layers["total"].toarray().astype(int)
    structure, support = [], []
    for depth in (1, 0.1, 0.02):
        thin = rng.binomial(x, depth)
        keep = thin.sum(1) > 0
        shown = with_counts(query[keep].copy(), thin[keep])
        structure.append(sv.trust(shown, model).scores["structure"])
        support.append(shown.obs["splicedvae_support"].mean())
    assert structure[0] > structure[1] > structure[2]
    assert support[0] > support[1] > support[2]


def test_missing_genes_are_told_of_and_others_are_matched(model, query):
    found = sv.trust(query[:, ::-1][:, :100].copy(), model)  # in another order, and fewer
    assert any("lack genes" in reason for reason in found.reasons)
    assert found.scores["genes"] < 1


def test_few_cells_get_caution(model, query):
    found = sv.trust(query[:20].copy(), model)
    assert found.verdict == CAUTION and "20 cells are too few to tell." in found.reasons


@pytest.mark.parametrize("k", [0.02, 0.5, 1.0, 4.0])
def test_capture_of_unspliced_molecules_is_found(k):
    rng = np.random.default_rng(0)
    ratio = rng.beta(3, 1, 500)
    expected = rng.lognormal(5, 1, 500)
    counts = rng.poisson(expected * (ratio + k * (1 - ratio)) * rng.lognormal(0, 0.15, 500))
    found, low, high = unspliced_capture(counts, expected, ratio)
    assert low <= found <= high
    assert found == pytest.approx(k, rel=0.25, abs=0.04)
    spliced = expected * ratio  # of a model that reads these
    found, *_ = unspliced_capture(counts, spliced, ratio, of_spliced=True)
    assert found == pytest.approx(k, rel=0.25, abs=0.04)


def test_a_tissue_with_other_means_widens_the_interval():
    widths, covered = {0.1: [], 1.0: []}, []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        ratio, expected = rng.beta(3, 1, 300), rng.lognormal(5, 1, 300)
        for spread, width in widths.items():
            counts = rng.poisson(expected * rng.lognormal(0, spread, 300))
            _, low, high = unspliced_capture(counts, expected, ratio)
            covered.append(low <= 1 <= high)
            width.append(np.log(high / low))
    assert np.mean(covered) >= 0.7
    assert np.mean(widths[1.0]) > 3 * np.mean(widths[0.1])
    assert unspliced_capture(np.zeros(300), expected, ratio) == (1.0, 0.0, np.inf)


def test_it_is_saved_with_the_model(model, query, tmp_path):
    found = sv.trust(query, model)
    model.save(str(tmp_path / "m"))
    cells = sv.SplicedVAE.prepare_query_anndata(query, str(tmp_path / "m"))
    loaded = sv.SplicedVAE.load(str(tmp_path / "m"), cells)
    again = sv.trust(cells, loaded)
    assert (again.verdict, again.expected_angle) == (found.verdict, found.expected_angle)


def test_what_is_refused(everything, query, tmp_path):
    model, _ = everything
    before = list(query.obs)
    with pytest.raises(ValueError, match="one cell"):
        sv.trust(query[:1].copy(), model)
    strangers = query.copy()
    strangers.var_names = [f"other{i}" for i in range(query.n_vars)]
    with pytest.raises(ValueError, match="None of the"):
        sv.trust(strangers, model)
    with pytest.raises(ValueError, match="no counts"):
        sv.trust(with_counts(query, np.zeros(query.shape)), model)
    with pytest.raises(TypeError, match="query"):
        sv.trust("cells.h5ad", model)
    assert list(query.obs) == before


def test_a_model_without_calibration_says_what_to_do(everything, query, tmp_path):
    model, test = everything
    kept, model.trust_ = model.trust_, None
    try:
        model.save(str(tmp_path / "m"))
    finally:
        model.trust_ = kept
    # other cells than those that it was trained on, though they have both forms
    loaded = sv.SplicedVAE.load(str(tmp_path / "m"), test.copy())
    with pytest.raises(RuntimeError, match=r"without a calibration.*training cells"):
        sv.trust(query, loaded)
    fresh = test.copy()
    sv.SplicedVAE.setup_anndata(fresh)
    with pytest.raises(RuntimeError, match="not trained"):
        sv.trust(query, sv.SplicedVAE(fresh))
