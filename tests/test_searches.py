"""The stage of the searches: one study for all seeds, and its best on test cells."""

import numpy as np
import pytest

import splicedvae as sv
from splicedvae_book import experiment, profiles, searches


@pytest.fixture
def tiny(monkeypatch):
    """A profile of two seeds and a search of three trials, on simulated cells."""
    monkeypatch.setitem(profiles.PROFILES, "tiny", profiles.Profile(None, 40, 2, (0, 1)))
    monkeypatch.setitem(searches.SETTINGS, "tiny", {"n_trials": 3, "max_epochs": 2})
    return sv.data.simulate(n_obs=300, n_vars=100)


def test_seeds_share_a_study_and_its_winners_meet_new_cells(tiny, tmp_path):
    jobs = searches.stage.run(tiny, "tiny", tmp_path, ["grid"])
    study = searches.study(tmp_path, tiny, "tiny", "grid")
    trials = sv.search.table(study)
    assert list(trials["state"]) == ["COMPLETE"] * 3 and list(trials["attempts"]) == [1] * 3

    scores = experiment.table(jobs)
    parts = ("val", "test")
    models = ("RidgeBinomial", "default", "1", "2", "3")
    assert set(scores.index) == {
        (f"grid, {model}, {part}", seed) for model in models for part in parts for seed in (0, 1)
    }
    best = trials["rmse_observed"].sort_values().index
    for seed in (0, 1):
        ranked = [scores.loc[(f"grid, {rank}, test", seed), "configuration"] for rank in "123"]
        assert ranked == list(best)

    # one split, whatever the seed: the gene mean of the same cells
    adata, (train, _, test) = profiles.prepared(tiny, "tiny", searches.SPLIT)
    s, u = (adata.layers[layer] for layer in ("spliced", "unspliced"))
    mean = sv.baselines.GeneMean().fit(adata[train], adata[train]).mean_
    observed = (s + u)[test].toarray() > 0
    ratio = s[test].toarray()[observed] / (s + u)[test].toarray()[observed]
    rmse = np.sqrt(np.mean((np.tile(mean, (len(test), 1))[observed] - ratio) ** 2))
    kept = scores.xs("grid, default, test")["rmse_observed_gene_mean"]
    np.testing.assert_allclose(kept, rmse, rtol=1e-6)


def test_settings_of_the_search_are_part_of_its_fingerprint(tiny, monkeypatch):
    first = searches.stage.fingerprint(tiny, "tiny")
    monkeypatch.setitem(searches.SETTINGS, "tiny", {"n_trials": 4, "max_epochs": 2})
    assert searches.stage.fingerprint(tiny, "tiny") != first
    standard, full = (searches.stage.fingerprint(tiny, p) for p in ("standard", "full"))
    assert standard != full  # which for the fits are the same but for the seeds
