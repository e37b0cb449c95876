"""Offsets of genes in another tissue: against SciPy, on known offsets, and through a file."""

import numpy as np
import pandas as pd
import pytest
import scvi
from scipy import integrate, optimize, sparse, stats
from scipy.special import expit, logit

import splicedvae as sv
from splicedvae.ratios.regression import gene_offsets


def counts(rng, logits, mean_total):
    total = rng.poisson(mean_total, logits.shape).astype(float)
    return rng.binomial(total.astype(int), expit(logits)).astype(float), total


def test_the_mode_is_scipys():
    rng = np.random.default_rng(0)
    f = rng.normal(0.5, 0.6, (30, 12))
    spliced, total = counts(rng, f + rng.normal(-0.4, 0.7, 12), 0.8)
    offset, sd, mean, width = gene_offsets(f, spliced, total)
    for g in range(12):

        def minus_log_posterior(d, g=g):
            eta = f[:, g] + d
            likelihood = spliced[:, g] @ eta - total[:, g] @ np.logaddexp(0, eta)
            return -likelihood + (d - mean) ** 2 / (2 * width**2)

        found = optimize.minimize_scalar(minus_log_posterior, (-3, 3), tol=1e-12)
        assert offset[g] == pytest.approx(found.x, abs=1e-5)
        h = 1e-3
        at = [minus_log_posterior(found.x + x) for x in (-h, 0, h)]
        assert sd[g] == pytest.approx(((at[0] - 2 * at[1] + at[2]) / h**2) ** -0.5, rel=1e-3)


def test_the_prior_maximises_the_marginal_likelihood():
    rng = np.random.default_rng(1)
    f = rng.normal(0, 0.5, (40, 60))
    spliced, total = counts(rng, f + rng.normal(0.3, 0.8, 60), 1.5)
    _, _, mean, width = gene_offsets(f, spliced, total)
    grid = np.linspace(-5, 5, 2001)
    eta = f[..., None] + grid
    each = (spliced[..., None] * eta - total[..., None] * np.logaddexp(0, eta)).sum(0)

    def minus_log_evidence(given):
        prior = stats.norm(given[0], np.exp(given[1])).logpdf(grid)
        top = (each + prior).max(1, keepdims=True)
        area = integrate.simpson(np.exp(each + prior - top), x=grid)
        return -(np.log(area) + top[:, 0]).sum()

    best = optimize.minimize(minus_log_evidence, (0.0, 0.0), method="Nelder-Mead").x
    # Laplace's approximation of each gene's posterior costs a little
    assert mean == pytest.approx(best[0], abs=0.03) and width == pytest.approx(
        np.exp(best[1]), rel=0.05
    )


def test_genes_without_counts_get_the_mean_and_alike_ones_no_width():
    rng = np.random.default_rng(2)
    f = np.zeros((200, 30))
    spliced, total = counts(rng, f + 0.5, 5.0)
    spliced[:, 0] = total[:, 0] = 0
    offset, sd, mean, width = gene_offsets(f, spliced, total)
    assert mean == pytest.approx(0.5, abs=0.05) and width < 0.06
    assert offset[0] == pytest.approx(mean, abs=1e-6) and sd[0] == pytest.approx(width, rel=1e-6)


def test_few_counts_are_drawn_to_the_mean_more_than_many():
    f = np.zeros((50, 40))
    truth = np.tile([-1.0, 1.0], 20)
    total = np.ones((50, 40)) * np.where(np.arange(40) < 20, 40.0, 0.04)
    offset, *_ = gene_offsets(f, total * expit(truth), total)
    many, few = np.abs(offset[:20]).mean(), np.abs(offset[20:]).mean()
    assert many > 0.95 and few < 0.5


@pytest.fixture(scope="module")
def model(cells, parts):
    cells = cells.copy()
    scvi.settings.seed = 0
    sv.SplicedVAE.setup_anndata(cells)
    model = sv.SplicedVAE(cells, n_latent=5, n_hidden=16)
    model.train(20, split=parts[:2], batch_size=128, enable_progress_bar=False)
    return model


@pytest.fixture
def fresh(model):
    """The model, whose intercepts are put back."""
    before = model.module.head.output.bias.detach().clone()
    yield model
    model.module.head.output.bias.data.copy_(before)


def elsewhere(model, cells, shift, seed=0):
    """The cells with counts drawn from the model's ratios, whose logits are moved gene by gene."""
    rng, other = np.random.default_rng(seed), cells.copy()
    truth = expit(logit(model.get_splicing_ratio(cells, return_numpy=True)) + shift)
    total = cells.layers["total"].toarray()
    spliced = rng.binomial(total.astype(int), truth).astype(np.float32)
    other.layers["spliced"] = sparse.csr_matrix(spliced)
    other.layers["unspliced"] = sparse.csr_matrix(total - spliced)
    return other, truth


def test_known_offsets_are_found_and_kept_in_a_file(fresh, cells, tmp_path):
    shift = np.random.default_rng(1).normal(-0.5, 0.6, cells.n_vars)
    other, truth = elsewhere(fresh, cells, shift)
    before = fresh.get_splicing_ratio(other, return_numpy=True)
    table = fresh.calibrate(other)
    assert isinstance(table, pd.DataFrame) and list(table.index) == list(cells.var_names)
    counted = table["sd"] < 0.2
    assert counted.mean() > 0.5
    assert np.corrcoef(table["offset"][counted], shift[counted])[0, 1] > 0.97
    assert abs(table.attrs["mean"] + 0.5) < 0.3 and 0.4 < table.attrs["width"] < 0.8
    z = (table["offset"] - shift) / table["sd"]
    assert 0.6 < z.std() < 1.5
    after = fresh.get_splicing_ratio(other, return_numpy=True)
    assert np.abs(after - truth).mean() < np.abs(before - truth).mean() / 3
    moved = logit(after) - logit(before)
    np.testing.assert_allclose(moved, np.tile(table["offset"], (len(moved), 1)), atol=1e-3)
    fresh.save(str(tmp_path / "m"), overwrite=True)
    loaded = sv.SplicedVAE.load(str(tmp_path / "m"), other.copy())
    np.testing.assert_array_equal(loaded.get_splicing_ratio(return_numpy=True), after)
    again = fresh.calibrate(other)  # the same cells have nothing more to say
    assert np.abs(again["offset"]).max() < 0.1


def test_a_pseudobulk_says_the_same(fresh, cells):
    shift = np.random.default_rng(3).normal(0.4, 0.5, cells.n_vars)
    other, _ = elsewhere(fresh, cells, shift)
    sums = [np.asarray(other.layers[form].sum(0)).ravel() for form in ("spliced", "unspliced")]
    plain = cells.copy()  # totals alone
    for form in ("spliced", "unspliced"):
        del plain.layers[form]
    table = fresh.calibrate(plain, pseudobulk=sums)
    assert np.corrcoef(table["offset"], shift)[0, 1] > 0.95
    ratio = fresh.get_splicing_ratio(plain, return_numpy=True)
    expected = (ratio * cells.layers["total"].toarray()).sum(0)
    counted = np.minimum(*sums) > 50  # where the prior has little to say
    np.testing.assert_allclose(expected[counted], sums[0][counted], rtol=0.05)


def test_what_can_not_be_calibrated_on(fresh, cells):
    bias = fresh.module.head.output.bias.detach().clone()
    plain = cells.copy()
    for form in ("spliced", "unspliced"):
        plain.layers[form] = sparse.csr_matrix(plain.shape, dtype=np.float32)
    with pytest.raises(ValueError, match="no cells with spliced and unspliced counts"):
        fresh.calibrate(plain)
    with pytest.raises(ValueError, match="give one for each of the model's 40 genes"):
        fresh.calibrate(cells, pseudobulk=(np.ones(3), np.ones(40)))
    with pytest.raises(ValueError, match="not all finite"):
        fresh.calibrate(cells, pseudobulk=(np.full(40, np.nan), np.ones(40)))
    with pytest.raises(ValueError, match="has 1 parts"):
        fresh.calibrate(cells, pseudobulk=[np.ones(40)])
    with pytest.raises(ValueError, match="indices"):
        fresh.calibrate(cells, indices=[500])
    with pytest.raises(ValueError, match="the model"):
        fresh.calibrate(cells[:, ::-1].copy())
    assert (fresh.module.head.output.bias == bias).all()


def test_an_untrained_model_is_not_calibrated(cells):
    other = cells.copy()
    sv.SplicedVAE.setup_anndata(other)
    with pytest.raises(RuntimeError, match="not trained"):
        sv.SplicedVAE(other, n_latent=5, n_hidden=16).calibrate(other)
