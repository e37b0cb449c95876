"""Queries without spliced and unspliced counts: what a user has, and how the jobs score it."""

import json

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse
from scipy.stats import norm

import splicedvae as sv
from splicedvae_book import fits, profiles, queries
from splicedvae_book.stages.queries import DENOISED, NO_OWN, REFERENCE, SCORES, TRUTH, WRONG_INPUT

RATIOS = {"SplicedVAE", "GeneMean", "NearestNeighbours"}
LAYERS = {name: RATIOS | {TRUTH, "HierarchicalBinomial"} for name in queries.NAMES}
LAYERS[queries.SPLICED] = RATIOS | {
    TRUTH,  # and no regression that would read the numerator
    NO_OWN,
    f"SplicedVAE{DENOISED}",
    f"{NO_OWN}{DENOISED}",
    f"SplicedVAE{WRONG_INPUT}",
    f"NearestNeighbours{WRONG_INPUT}",
}
TRANSFER = {"velocity transfer", "constant velocity"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Simulated cells that stand for real ones, whose velocity nobody knows; the jobs' results."""
    cells = sv.data.simulate(n_obs=400, n_vars=150, seed=1)
    for name in ("spliced_true", "unspliced_true", "velocity_true"):
        del cells.layers[name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(profiles.PROFILES, "tiny", profiles.Profile(400, 90, 4, (0,)))
        folder = tmp_path_factory.mktemp("results")
        fits.stage.run(cells, "tiny", folder, ["SplicedVAE"])
        jobs = {job["name"]: job for job in queries.stage.run(cells, "tiny", folder)}
        yield cells, folder, jobs


@pytest.mark.slow
@pytest.mark.parametrize("name", queries.NAMES)
def test_each_job_has_its_rows_with_finite_scores(bench, name):
    rows = json.loads(json.dumps(bench[2][name]))["rows"]
    tissues = queries.SAME_TISSUE, queries.OTHER_TISSUE
    asked = tissues if name == queries.TISSUES else (name,)
    assert rows.keys() == {f"{query}: {row}" for query in asked for row in LAYERS[name] | TRANSFER}
    for key, row in rows.items():
        query, of = key.split(": ")
        wanted = set(SCORES)
        if of in LAYERS[name]:
            wanted |= {f"{score}{REFERENCE}" for score in SCORES}
        if of in LAYERS[name] - {TRUTH} and not of.endswith(DENOISED):
            wanted |= {"d2", "within_gene_r"}
        if of.endswith(DENOISED):  # of a decoder that has learned for a few epochs
            row = dict.fromkeys(SCORES, 0.0) | row
        assert row.keys() == wanted, key
        assert np.isfinite(list(row.values())).all(), key
        if of == "GeneMean":
            assert (row["d2"], row["within_gene_r"]) == (0, 0)
        if of == TRUTH:  # the reference itself, but where the velocity is known
            exact = row["cosine"] == pytest.approx(1, abs=1e-6) and row["angular_error"] < 0.1
            assert exact == (query not in tissues)


@pytest.mark.slow
def test_a_job_scores_what_a_user_gets_from_five_lines(bench):
    cells, folder, jobs = bench
    whole, (train, val, test) = profiles.prepared(cells, "tiny", 0)
    sv.SplicedVAE.setup_anndata(whole)
    kept = fits.checkpoint(folder, cells, "tiny", 0, "SplicedVAE")
    model = sv.SplicedVAE.load(str(kept), whole)

    query = sv.SplicedVAE.prepare_query_anndata(queries.stripped(whole[test]), model)
    model.impute_layers(query)
    sv.velocity.embed(query)
    truth = query.copy()
    layers = "spliced_splicedvae", "unspliced_splicedvae"
    sv.velocity.fit(query, *layers, concentration="concentration_splicedvae")

    assert truth.layers["spliced"].nnz == truth.layers["unspliced"].nnz == 0
    for name in ("spliced", "unspliced"):
        truth.layers[name] = whole[test].layers[name]
    sv.velocity.fit(truth)
    known = whole[train].copy()
    sv.velocity.embed(known)
    sv.velocity.fit(known)
    report = sv.metrics.velocity_report(truth, query, sv.metrics.velocity_scale(known))
    row = jobs[queries.TOTALS]["rows"][f"{queries.TOTALS}: SplicedVAE"]
    for score in SCORES:
        assert row[score] == pytest.approx(report[score], abs=1e-5), score
    mean = sv.baselines.GeneMean().fit(whole[train], whole[val]).mean_
    counts = truth.layers["spliced"], truth.layers["unspliced"]
    report = sv.metrics.ratio_report(*counts, model.get_splicing_ratio(query).to_numpy(), mean)
    assert row["d2"] == pytest.approx(report["d2"], abs=1e-6)


@pytest.mark.parametrize("layer", ["total", "spliced", "unspliced"])
def test_stripped_cells_hold_one_matrix_and_the_clusters(simulated, layer):
    cells = sv.data.prepare(simulated)
    cells.obsm["X_umap"], cells.uns["told"] = np.ones((cells.n_obs, 2)), 1
    user = queries.stripped(cells, layer)
    assert (cells.layers[layer] != user.X).nnz == 0 and user.X is not cells.layers[layer]
    assert not (user.layers or user.obsm or user.obsp or user.uns) and user.raw is None
    assert list(user.obs) == ["clusters"] and not list(user.var)
    assert user.obs_names.equals(cells.obs_names) and user.var_names.equals(cells.var_names)


def test_second_batch_has_the_depth_and_the_factors_that_it_says():
    n_obs, n_vars = 20, 4000
    counts = np.random.default_rng(1).integers(0, 200, (2, n_obs, n_vars))
    cells = AnnData(
        layers={
            name: sparse.csr_matrix(layer)
            for name, layer in zip(queries.SPECIES, counts, strict=True)
        }
    )
    batch = queries.second_batch(cells, seed=3)
    logs = []
    for name, layer in zip(queries.SPECIES, counts, strict=True):
        kept = batch.var[f"kept_{name}"].to_numpy()
        expected, variance = layer * kept, layer * kept * (1 - kept)
        error = batch.layers[name].toarray() - expected
        sums = error.sum(0)[variance.sum(0) > 0] / np.sqrt(variance.sum(0)[variance.sum(0) > 0])
        assert np.abs(sums).max() < 5  # each gene has its own probability
        assert sums.std() == pytest.approx(1, abs=4 / np.sqrt(2 * n_vars))
        assert (cells.layers[name].toarray() == layer).all()

        # log-normal of mean 1 times 0.5, cut at 1: half of it, less what the cut takes away
        sd, mean = 0.3, -(0.3**2) / 2
        cut = (np.log(2) - mean) / sd
        depth = 0.5 * norm.cdf(cut - sd) + norm.sf(cut)
        assert depth == pytest.approx(0.5, abs=0.001)
        assert kept.mean() == pytest.approx(depth, abs=4 * 0.5 * 0.31 / np.sqrt(n_vars))
        assert (kept == 1).mean() == pytest.approx(norm.sf(cut), abs=0.006)
        logs.append(np.log(kept / 0.5))
        assert np.median(logs[-1]) == pytest.approx(mean, abs=5 * sd / np.sqrt(n_vars))
        assert np.diff(np.quantile(logs[-1], [0.25, 0.75])) / 2 == pytest.approx(
            sd * norm.ppf(0.75), rel=0.06
        )
    assert abs(np.corrcoef(logs)[0, 1]) < 4 / np.sqrt(n_vars)
    total = batch.layers["spliced"] + batch.layers["unspliced"]
    assert abs(batch.layers["total"] - total).max() == 0
    assert set(batch.layers) == {"spliced", "unspliced", "total"}
    again = queries.second_batch(cells, seed=3)
    assert (again.layers["total"] != batch.layers["total"]).nnz == 0
