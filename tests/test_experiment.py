"""The shared fits: what is kept, what is read again, and how figures are compared."""

import json

import numpy as np
import pandas as pd
import pytest

import splicedvae as sv
from splicedvae import experiment, profiles


@pytest.fixture
def tiny(monkeypatch):
    """A profile of its own, and simulated cells in which every cell type can be split."""
    profile = profiles.Profile(None, 40, 2, (0,))
    monkeypatch.setitem(profiles.PROFILES, "tiny", profile)
    monkeypatch.setattr(experiment, "_n_jobs", lambda: 1)  # the patched profile is this process's
    return sv.data.simulate(n_obs=300, n_vars=100)


def test_jobs_are_computed_once_and_only_what_is_missing(tiny, tmp_path):
    names = (experiment.BASELINES, "SplicedVAE", "scVI, gene subset")
    jobs = experiment.run(tiny, "tiny", tmp_path, names)
    assert [job["name"] for job in jobs] == list(names)
    (folder,) = tmp_path.iterdir()
    files = {f.name: f.stat().st_mtime_ns for f in folder.glob("*.json")}
    assert files.keys() == {"0-baselines.json", "0-splicedvae.json", "0-scvi--gene-subset.json"}
    assert not list(folder.glob("*.part"))

    (folder / "0-splicedvae.json").unlink()
    again = experiment.run(tiny, "tiny", tmp_path, names)
    changed = {f.name for f in folder.glob("*.json") if f.stat().st_mtime_ns != files[f.name]}
    assert changed == {"0-splicedvae.json"}
    assert again[1]["rows"] == jobs[1]["rows"] and again[1]["history"] == jobs[1]["history"]

    loaded = sv.SplicedVAE.load(
        str(folder / "splicedvae"), profiles.prepared(tiny, "tiny", 0)[0]
    )  # the first seed's checkpoint gives the kept latent
    np.testing.assert_allclose(loaded.get_latent_representation(), jobs[1]["latent"], atol=1e-4)


def test_rows_are_the_reports_of_the_test_cells(tiny):
    job = experiment.run_job(tiny, "tiny", 0, "SplicedVAE", None)
    adata, (train, val, test) = profiles.prepared(tiny, "tiny", 0)
    sv.SplicedVAE.setup_anndata(adata)
    model = sv.SplicedVAE(adata)
    import scvi

    scvi.settings.seed = 0
    model = sv.SplicedVAE(adata)
    model.train(2, split=(train, val), enable_progress_bar=False)
    s, u = (adata.layers[k][test] for k in ("spliced", "unspliced"))
    mean = sv.baselines.GeneMean().fit(adata[train], adata[val]).mean_
    ratio = model.get_splicing_ratio(indices=test, return_numpy=True)
    report = sv.metrics.ratio_report(s, u, ratio, mean)
    row = job["rows"]["SplicedVAE"]
    for key in ("d2", "rmse_observed", "r_observed"):
        assert row[key] == pytest.approx(report[key], abs=1e-6), key
    assert row["elbo"] == pytest.approx(float(model.get_elbo(indices=test)), rel=0.01)  # z is drawn
    per_cell = sum(job["reconstruction"].values())
    assert row["elbo"] < per_cell < 0  # the bound is the reconstruction less the KL term


def test_fingerprint_follows_counts_and_settings(tiny, monkeypatch):
    first = experiment.fingerprint(tiny, "tiny")
    assert first == experiment.fingerprint(tiny.copy(), "tiny")
    changed = tiny.copy()
    changed.layers["spliced"] = changed.layers["spliced"].copy()
    changed.layers["spliced"].data[0] += 1
    assert experiment.fingerprint(changed, "tiny") != first
    moved = tiny.copy()
    moved.obs["clusters"] = np.roll(moved.obs["clusters"].astype(str), 1)
    assert experiment.fingerprint(moved, "tiny") != first
    monkeypatch.setitem(profiles.PROFILES, "tiny", profiles.Profile(None, 40, 3, (0,)))
    assert experiment.fingerprint(tiny, "tiny") != first
    # more seeds share what fewer have fitted
    assert experiment.fingerprint(tiny, "standard") == experiment.fingerprint(tiny, "full")


def test_table_and_difference_by_hand():
    jobs = [
        {"seed": seed, "rows": {"a": {"d2": a, "params": {"k": 1}}, "b": {"d2": b}}}
        for seed, a, b in ((0, 0.03, 0.02), (1, 0.05, 0.03), (2, 0.04, 0.01))
    ]
    scores = experiment.table(jobs)
    assert scores.loc[("a", 1), "d2"] == 0.05 and "params" not in scores
    centre, low, high = experiment.difference(scores, "a", "b", "d2")
    margin = 4.302652729696142 * 0.01 / np.sqrt(3)  # t(0.975, 2) and the sd of 0.01, 0.02, 0.03
    assert (centre, low, high) == pytest.approx((0.02, 0.02 - margin, 0.02 + margin))
    one = experiment.difference(experiment.table(jobs[:1]), "a", "b", "d2")
    assert one[0] == pytest.approx(0.01) and np.isnan(one[1:]).all()


def test_profiles_thin_with_every_cell_type(tmp_path, monkeypatch):
    full = sv.data.simulate(n_obs=1500, n_vars=30)
    full.write_h5ad(tmp_path / "cells.h5ad")
    monkeypatch.setenv("SPLICEDVAE_DATA", str(tmp_path / "cells.h5ad"))
    thinned = profiles.load("smoke")
    assert thinned.n_obs == 700 and "thinned to 700" in thinned.uns["provenance"]["name"]
    share = [a.obs["clusters"].value_counts(normalize=True) for a in (full, thinned)]
    pd.testing.assert_series_equal(*share, atol=0.002, check_index_type=False, check_like=True)
    assert profiles.load("standard").n_obs == 1500
    with pytest.raises(ValueError, match="'quick' is not known"):
        profiles.load("quick")


def test_pages_say_what_they_stand_on(capsys):
    adata = sv.data.simulate(n_obs=100, n_vars=30)
    facts = profiles.provenance(adata, "smoke")
    assert json.loads(json.dumps(facts))["simulated"] is True
    assert {"data", "profile", "device", "versions"} <= facts.keys()
    assert {"python", "torch", "scvi-tools"} <= facts["versions"].keys()


def test_smoke_finds_nothing(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda *a, **k: shown.append(a[0].data))
    profiles.finding("D² is 0.03", "smoke")
    profiles.finding("D² is 0.03", "standard")
    assert "not measured in this profile" in shown[0] and "0.03" not in shown[0]
    assert "D² is 0.03" in shown[1]
