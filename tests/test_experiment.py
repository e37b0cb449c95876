"""The shared fits: what is kept, what is read again, and how figures are compared."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scvi
import torch

import splicedvae as sv
import splicedvae_book
from splicedvae_book import (
    depth,
    experiment,
    fields,
    fits,
    generalisation,
    pretraining,
    profiles,
    scale,
    searches,
)
from splicedvae_book import stage as stage_module
from splicedvae_book.stage import Stage, sources


@pytest.fixture
def tiny(monkeypatch):
    """A profile of its own, and simulated cells in which every cell type can be split."""
    profile = profiles.Profile(None, 40, 2, (0,))
    monkeypatch.setitem(profiles.PROFILES, "tiny", profile)
    return sv.data.simulate(n_obs=300, n_vars=100)


def test_jobs_are_computed_once_and_only_what_is_missing(tiny, tmp_path):
    names = (fits.BASELINES, "SplicedVAE", "scVI, gene subset")
    jobs = fits.stage.run(tiny, "tiny", tmp_path, names)
    assert [job["name"] for job in jobs] == list(names)
    (folder,) = tmp_path.iterdir()
    files = {f.name: f.stat().st_mtime_ns for f in folder.glob("*.json")}
    assert files.keys() == {"0-baselines.json", "0-splicedvae.json", "0-scvi--gene-subset.json"}
    assert not list(folder.glob("*.part"))

    # a result is done when all its files are there: any that is not makes its job anew, no other
    for lost in ("0-splicedvae.json", "0-splicedvae.npy", "0-splicedvae/model.pt"):
        (folder / lost).unlink()
        again = fits.stage.run(tiny, "tiny", tmp_path, names)
        changed = {f.name for f in folder.glob("*.json") if f.stat().st_mtime_ns != files[f.name]}
        assert changed == {"0-splicedvae.json"} and (folder / lost).exists()
        assert again[1]["rows"] == jobs[1]["rows"] and again[1]["history"] == jobs[1]["history"]
        files = {f.name: f.stat().st_mtime_ns for f in folder.glob("*.json")}


def test_a_job_that_stops_half_way_is_not_done(tiny, tmp_path, monkeypatch):
    (job,) = fits.stage.run(tiny, "tiny", tmp_path, [fits.BASELINES])
    (folder,) = tmp_path.iterdir()
    (folder / job["files"][0]).unlink()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(sv.baselines.RidgeBinomial, "fit", _interrupted)
        fits.stage.run(tiny, "tiny", tmp_path, [fits.BASELINES])
    assert not list(folder.glob("*.json"))


def _interrupted(*args):
    raise KeyboardInterrupt


def test_later_stages_find_ratios_and_checkpoints_by_name(tiny, tmp_path):
    names = (fits.BASELINES, "SplicedVAE", "scVI", "SplicedVAE, gene subset")
    jobs = {job["name"]: job for job in fits.stage.run(tiny, "tiny", tmp_path, names)}
    adata, (train, val, test) = profiles.prepared(tiny, "tiny", 0)
    s, u = (adata.layers[layer][test] for layer in ("spliced", "unspliced"))
    mean = sv.baselines.GeneMean().fit(adata[train], adata[val]).mean_
    regressions = ("RidgeBinomial", "RidgeBinomial, whitened", "HierarchicalBinomial")
    given = ("GeneMean", "GeneByCluster", "NearestNeighbours", *regressions)
    sources = dict.fromkeys(given, fits.BASELINES) | {"ScviLatentRidge": "scVI"}
    sources["SplicedVAE"] = "SplicedVAE"
    for name, job in sources.items():
        kept = fits.ratios(tmp_path, tiny, "tiny", 0, name)
        assert kept.dtype == np.float32 and kept.shape == (len(test), adata.n_vars)
        report = sv.metrics.ratio_report(s, u, kept, mean)
        assert jobs[job]["rows"][name]["d2"] == pytest.approx(report["d2"], abs=1e-6), name
    assert len(list(tmp_path.glob("*/*.npy"))) == len(sources)

    for name, model in (("SplicedVAE", sv.SplicedVAE), ("scVI", scvi.model.SCVI)):
        folder = fits.checkpoint(tmp_path, tiny, "tiny", 0, name)
        model.setup_anndata(adata, **({} if name == "SplicedVAE" else {"layer": "total"}))
        loaded = model.load(str(folder), adata)
        latent = loaded.get_latent_representation()
        np.testing.assert_allclose(latent, jobs[name]["latent"], atol=1e-4)

    with pytest.raises(FileNotFoundError, match=r"0-scvi\.npy is missing.*0-scvilatentridge\.npy"):
        fits.ratios(tmp_path, tiny, "tiny", 0, "scVI")
    with pytest.raises(FileNotFoundError, match="0-splicedvae--gene-subset is missing"):
        fits.checkpoint(tmp_path, tiny, "tiny", 0, "SplicedVAE, gene subset")
    with pytest.raises(FileNotFoundError, match="not prepared"):
        fits.ratios(tmp_path, adata, "tiny", 0, "SplicedVAE")


def test_rows_are_the_reports_of_the_test_cells(tiny, tmp_path):
    job = fits.run_job(tiny, "tiny", 0, "SplicedVAE", tmp_path)
    adata, (train, val, test) = profiles.prepared(tiny, "tiny", 0)
    sv.SplicedVAE.setup_anndata(adata)
    model = sv.SplicedVAE(adata)
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
    first = fits.stage.fingerprint(tiny, "tiny")
    assert first == fits.stage.fingerprint(tiny.copy(), "tiny")
    changed = tiny.copy()
    changed.layers["spliced"] = changed.layers["spliced"].copy()
    changed.layers["spliced"].data[0] += 1
    assert fits.stage.fingerprint(changed, "tiny") != first
    moved = tiny.copy()
    moved.obs["clusters"] = np.roll(moved.obs["clusters"].astype(str), 1)
    assert fits.stage.fingerprint(moved, "tiny") != first
    monkeypatch.setitem(profiles.PROFILES, "tiny", profiles.Profile(None, 40, 3, (0,)))
    assert fits.stage.fingerprint(tiny, "tiny") != first
    more = replace(profiles.PROFILES["full"], seeds=tuple(range(9)))
    monkeypatch.setitem(profiles.PROFILES, "more", more)  # seeds share what fewer have fitted
    assert fits.stage.fingerprint(tiny, "more") == fits.stage.fingerprint(tiny, "full")


def reached(stage: Stage) -> set[str]:
    return sources(stage.job.__module__).keys()


def test_a_result_depends_on_what_its_job_imports_and_on_no_more():
    network = {f"splicedvae.{name}" for name in ("model", "module", "head", "training", "start")}
    ratios = {f"splicedvae.ratios.{name}" for name in ("baselines", "regression", "metrics")}
    assert network | ratios | {"splicedvae_book.scorer"} <= reached(fits.stage)
    assert not [name for name in reached(fits.stage) if "velocity" in name or "atlas" in name]
    assert {"splicedvae.velocity.field", "splicedvae_book.directions"} <= reached(fields.stage)
    assert reached(fits.stage) < reached(fields.stage) < reached(depth.stage)
    assert {"splicedvae.census.transplant", "splicedvae.model"} <= reached(pretraining.stage)
    assert {"splicedvae.search._workers", "splicedvae.model"} <= reached(searches.stage)
    assert {"splicedvae.atlas.loader", "splicedvae_book.corpus"} <= reached(scale.stage)
    assert reached(scale.stage) - reached(generalisation.stage) == {scale.__name__}


def test_imports_are_followed_wherever_they_stand(tmp_path, monkeypatch):
    for file, text in {
        "__init__.py": "from . import never",
        "never.py": "",
        "a.py": "import numpy\nfrom . import b\nimport splicedvae.room.d",
        "b.py": '"""Words."""\n\n\ndef f():\n    from .room import NAME  # late',
        "room/__init__.py": "from .c import NAME",
        "room/c.py": "from ..b import f\nfrom .... import nowhere\nNAME = 1",
        "room/d.py": "",
    }.items():
        (tmp_path / "splicedvae" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "splicedvae" / file).write_text(text)
    monkeypatch.setattr(stage_module, "files", lambda package: tmp_path / package)
    found = sources("splicedvae.a")
    names = ("a", "b", "room", "room.c", "room.d")
    assert found.keys() == {f"splicedvae.{name}" for name in names}
    tree, text = found["splicedvae.b"]
    assert "Words" not in tree and "late" not in tree
    assert text == (tmp_path / "splicedvae" / "b.py").read_text()


def test_fingerprint_follows_the_source_of_a_fit(tiny, tmp_path, monkeypatch):
    for name, module in (("splicedvae", sv), ("splicedvae_book", splicedvae_book)):
        shutil.copytree(Path(module.__file__).parent, tmp_path / name)
    monkeypatch.setattr(stage_module, "files", lambda package: tmp_path / package)
    first = fits.stage.fingerprint(tiny, "tiny")
    for file, counts in (
        ("splicedvae/velocity/field.py", False),
        ("splicedvae_book/stages/fits.py", True),
    ):
        with (tmp_path / file).open("a") as source:
            source.write('# a comment\n\n\ndef _unused():\n    """Docstring."""\n')
        assert (fits.stage.fingerprint(tiny, "tiny") != first) == counts, file
    told = fits.stage.fingerprint(tiny, "tiny")
    text = (tmp_path / file).read_text()
    (tmp_path / file).write_text(text.replace('"""Docstring."""', '"""Another."""  # and more'))
    assert fits.stage.fingerprint(tiny, "tiny") == told  # only what the code does counts


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
    assert thinned.n_obs == 700 and "a random 700 of its cells" in thinned.uns["provenance"]["name"]
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
    with pytest.raises(ValueError, match="number"):  # D² of nothing
        profiles.finding("D² over the gene means:\n\n", "smoke")


def test_one_thread_is_left_after_scanpy_has_run(tiny):
    """Numba hands its number of threads on to torch; conftest sees to it that it has one."""
    profiles.prepared(tiny, "tiny", 0)
    assert torch.get_num_threads() == 1
