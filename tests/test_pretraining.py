"""The stage that measures a pretrained start."""

import numpy as np
import pytest

import splicedvae as sv
from splicedvae_book import pretraining, profiles
from splicedvae_book.scorer import Scorer


@pytest.fixture
def tiny(monkeypatch):
    """A short profile, on simulated cells."""
    monkeypatch.setitem(profiles.PROFILES, "tiny", profiles.Profile(None, 40, 3, (0,)))
    monkeypatch.setattr(pretraining, "SIZES", (50, None))
    monkeypatch.setattr(pretraining, "VARIED", 50)
    return sv.data.simulate(n_obs=400, n_vars=100)


def test_no_cell_is_in_two_parts_and_pretraining_sees_no_other():
    cells = sv.data.simulate(n_obs=400, n_vars=100)
    parts = pretraining.split(cells, 0)
    assert sorted(np.concatenate(parts)) == list(range(400))
    train, val, test = sv.data.split(cells, seed=0)
    assert set(parts[0]) | set(parts[1]) == set(train) and len(parts[0]) == len(train) // 2
    np.testing.assert_array_equal(parts[2], val)
    np.testing.assert_array_equal(parts[3], test)


def test_rows_and_curves_are_those_of_the_models(tiny, tmp_path):
    job = pretraining.run_job(tiny, "tiny", 0, "curves", tmp_path)
    starts = [*pretraining.STARTS, *pretraining.VARIANTS]
    most = len(pretraining.split(tiny, 0)[1])
    assert list(job["rows"]) == [
        *(f"{start}, 50" for start in starts),
        *(f"{start}, {most}" for start in starts[:2]),
    ]
    # the checkpoint's own bound is what the frozen model has, and keeps
    _, train, val, test = pretraining.split(tiny, 0)
    own = sv.data.prepare(tiny, n_top_genes=40, fit_on=train)
    checkpoint = sv.census.read(tmp_path / "0-pretrained")
    matched = sv.census.match(own, checkpoint.genes, pretraining.made_up_ids(tiny))
    sv.SplicedVAE.setup_anndata(matched)
    frozen = sv.census.transplant(matched, checkpoint, 0.0)
    frozen.is_trained_ = True
    elbo = float(frozen.get_elbo(indices=test, return_mean=True))
    assert job["rows"]["pretrained, frozen, 50"]["elbo"] == pytest.approx(elbo, rel=0.01)

    # the curve ends where a report of the validation cells does: it is the model that predicts
    model = sv.census.transplant(matched, checkpoint, 0.0, head_latent="mean")
    model.train(6, split=(train[:50], val), enable_progress_bar=False)
    mean = Scorer(matched, train[:50], test, 0).mean
    s, u = (matched.layers[layer][val] for layer in ("spliced", "unspliced"))
    ratio = model.get_splicing_ratio(indices=val, return_numpy=True)
    report = sv.metrics.ratio_report(s, u, ratio, mean)
    curve = pretraining._curves(model, mean, val)
    assert curve["d2"][-1] == pytest.approx(report["d2"], abs=1e-5)
    assert len(job["curves"]["scratch, 50"]["d2"]) == 6  # twice the epochs of the profile
    assert job["overlap"]["shared"] == matched.n_vars
    assert job["checkpoint"] == "the build's own"  # never the Census for simulated cells


def test_census_is_used_where_it_was_fetched(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tiny.uns["provenance"] = {"simulated": False}
    ids = pretraining.made_up_ids(tiny)
    before, train, *_ = pretraining.split(tiny, 0)
    cache = tmp_path / "splicedvae"
    place = cache / "census" / sv.census.DEFAULT_RELEASE / "mus_musculus" / "model.pt"
    pretraining.pretrain(tiny, before, "tiny", 0, place)
    (cache / "nomenclature").mkdir()
    lines = ["\t".join(["MGI:1", name, "", "", "", gene]) for name, gene in ids.items()]
    (cache / "nomenclature" / "MRK_ENSEMBL.rpt").write_text("\n".join(lines))
    job = pretraining.run_job(tiny, "tiny", 0, "curves", tmp_path)
    assert job["checkpoint"] == "Census, 2025-11-08" and job["files"] == []
    assert f"scratch, {len(before) + len(train)}" in job["rows"]  # no cell was spent on pretraining
