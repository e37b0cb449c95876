"""The study of other tissues: its scores on known ratios; and counts of other protocols."""

import numpy as np
import pytest
from scipy import sparse
from scipy.special import expit, logit

import splicedvae as sv
from splicedvae_book import chemistries
from splicedvae_book.stages import tissues

FORMS = "spliced", "unspliced"


@pytest.fixture(scope="module")
def drawn():
    """Cells whose ratios are known: a gene's mean, and a state that all genes follow."""
    rng = np.random.default_rng(0)
    ratio = expit(rng.normal(0, 1, 30) + rng.normal(0, 1, (600, 1)) * rng.normal(0, 0.6, 30))
    total = rng.poisson(8, ratio.shape)
    spliced = rng.binomial(total, ratio)
    layers = {"spliced": spliced, "unspliced": total - spliced, "total": total}
    layers = {k: sparse.csr_matrix(v, dtype=np.float32) for k, v in layers.items()}
    cells = sv.data.simulate(600, 30)
    for name in list(cells.layers):
        if name is not None:
            del cells.layers[name]
    cells.layers.update(layers)
    cells.obs["row"] = np.arange(600)
    return cells, ratio


def test_scores_tell_means_from_differences_between_cells(drawn):
    cells, ratio = drawn
    target = tissues.Target(cells, seed=0)
    assert len(set(target.test.obs["row"]) & set(target.rest.obs["row"])) == 0
    rows = [part.obs["row"].to_numpy() for part in (target.test, target.fifth)]
    true = target.scores(*(ratio[r] for r in rows), target.own_mean)
    assert true["d2"] == true["d2_own_mean"] > 0.2 and true["within_gene_r"] > 0.4
    means = target.scores(*(np.tile(target.own_mean, (len(r), 1)) for r in rows), target.own_mean)
    assert means["d2_own_mean"] == pytest.approx(0, abs=1e-9) and means["within_gene_r"] == 0
    shift = np.random.default_rng(1).normal(0.5, 1, 30)  # other means, the same differences
    moved = target.scores(*(expit(logit(ratio[r]) + shift) for r in rows), target.own_mean)
    assert moved["d2_own_mean"] < true["d2_own_mean"] - 0.2
    assert moved["within_gene_r"] > 0.9 * true["within_gene_r"]
    assert moved["d2_offset_free"] > 0.9 * true["d2_offset_free"]


def test_offsets_are_those_that_ratios_were_moved_by(drawn):
    cells, ratio = drawn
    shift = np.random.default_rng(2).normal(-0.3, 0.7, 30)
    found, width = tissues.offsets(cells, expit(logit(ratio) - shift))
    assert np.corrcoef(found, shift)[0, 1] > 0.99 and width == pytest.approx(shift.std(), rel=0.3)


def test_every_job_has_a_name_and_a_source():
    assert len(set(tissues.NAMES)) == len(tissues.NAMES)
    for sources in tissues.SOURCES:
        assert set(sources) < set(tissues.SETS)


def test_what_other_protocols_count(drawn):
    cells, _ = drawn
    s, u = (cells.layers[form].toarray() for form in FORMS)
    sums = {}
    for name in chemistries.CHEMISTRIES:
        found = chemistries.as_counted_by(cells, name)
        assert found.n_obs <= cells.n_obs and (np.asarray(found.X.sum(1)) > 0).all()
        again = chemistries.as_counted_by(cells, name).X
        assert abs(found.X - again).max() == 0
        sums[name] = found.X.sum()
    whole, third, thirtieth, exons, nuclei, probes, _ = sums.values()
    assert whole == (s + u).sum() and exons == s.sum()
    assert third == pytest.approx(0.33 * whole, rel=0.03)
    assert thirtieth == pytest.approx(0.03 * whole, rel=0.1)
    assert nuclei == pytest.approx(0.15 * s.sum() + u.sum(), rel=0.03)
    assert 0.3 * exons < probes < 0.7 * exons
