"""Trajectories and fates against simulated time, scanpy's pseudotime and a dense linear system."""

import sys

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
import scvelo as scv
from anndata import AnnData
from scipy import sparse

import splicedvae as sv
from splicedvae.simulate import STAGES
from splicedvae.trajectories import fate_probabilities, latent_trajectories

TERMINAL = ["Alpha", "Beta", "Delta", "Epsilon"]


@pytest.fixture(scope="module")
def _cells():
    adata = sv.data.prepare(sv.data.simulate(n_obs=1000, n_vars=300, seed=0))
    sv.velocity.embed(adata)
    sv.velocity.fit(adata)
    latent_trajectories(adata, "X_pca", "Ductal")
    fate_probabilities(adata)
    return adata


@pytest.fixture
def cells(_cells):
    """Simulated cells with velocity, trajectories and fates, a copy for each test."""
    return _cells.copy()


def latent_graph(adata, n_neighbors):
    """Log-normalised totals and the neighbour graph of the latent space, by scanpy alone."""
    copy = AnnData(adata.layers["total"].copy(), obs=adata.obs[["clusters"]], obsm=adata.obsm)
    sc.pp.normalize_total(copy)
    sc.pp.log1p(copy)
    sc.pp.neighbors(copy, n_neighbors=n_neighbors, use_rep="X_pca")
    return copy


def towards_later(adata):
    """Gradient of true time on the embedding: a least-squares plane through 30 neighbours."""
    xy, time = adata.obsm["X_umap"].astype(float), adata.obs["time_true"].to_numpy()
    distance = np.linalg.norm(xy[:, None] - xy, axis=2)
    near = np.argsort(distance, axis=1)[:, :30]
    plane = [np.linalg.lstsq(np.c_[xy[n], np.ones(30)], time[n], rcond=None)[0] for n in near]
    return np.array(plane)[:, :2]


def test_pseudotime_orders_true_time(cells):
    pseudotime = cells.obs["dpt_pseudotime"]
    assert pseudotime.corr(cells.obs["time_true"], "spearman") > 0.95
    assert (pseudotime.min(), pseudotime.max()) == (0, 1)
    root = cells.uns["iroot"]
    assert pseudotime.iloc[root] == 0
    ductal = cells.obs["time_true"][cells.obs["clusters"] == "Ductal"]
    assert cells.obs["clusters"].iloc[root] == "Ductal"
    assert cells.obs["time_true"].iloc[root] < ductal.quantile(0.05)


def test_pseudotime_is_scanpys_where_scanpy_leaves_no_component_out(cells):
    latent_trajectories(cells, "X_pca", "Ductal", n_neighbors=100)
    other = latent_graph(cells, 100)
    sc.tl.diffmap(other)
    assert other.uns["diffmap_evals"][1] < 0.9994
    other.uns["iroot"] = cells.uns["iroot"]
    sc.tl.dpt(other, n_dcs=15)
    ours = cells.obs["dpt_pseudotime"]
    np.testing.assert_allclose(ours, other.obs["dpt_pseudotime"], atol=1e-5)


def test_pseudotime_keeps_the_slowest_component_that_scanpy_leaves_out():
    rng = np.random.default_rng(0)
    place = np.sort(rng.random(600))
    line = np.c_[place, 0.01 * rng.random(600)]
    counts = sparse.csr_matrix(rng.poisson(2, (600, 20)).astype(np.float32))
    adata = AnnData(counts, layers={"total": counts}, obsm={"X_pca": line, "X_umap": line})
    adata.obs["clusters"] = np.repeat(["first", "second", "third"], 200)
    latent_trajectories(adata, "X_pca", "first", n_neighbors=20)
    assert adata.obs["dpt_pseudotime"].corr(pd.Series(place, adata.obs_names), "spearman") > 0.99
    other = latent_graph(adata, 20)
    sc.tl.diffmap(other)
    assert other.uns["diffmap_evals"][1] > 0.9994  # so the test is of this case


def test_cytotrace_by_hand(cells):
    graph = latent_graph(cells, 30)
    x, expressed = graph.X.toarray(), (graph.X > 0).sum(1).A1
    correlation = np.nan_to_num([np.corrcoef(gene, expressed)[0, 1] for gene in x.T])
    near = (graph.obsp["connectivities"] > 0).toarray() + np.eye(len(x))
    score = (near @ x / near.sum(1, keepdims=True))[:, np.argsort(-correlation)[:200]].mean(1)
    expected = 1 - (score - score.min()) / np.ptp(score)
    np.testing.assert_allclose(cells.obs["ct_pseudotime"], expected, atol=1e-4)


def test_arrows_of_pseudotime_point_forward_in_time(cells):
    near = (cells.obsp["connectivities"] > 0).astype(float)
    arrow = near @ cells.obsm["pseudotime_fwd_umap"]  # streamlines average over neighbours too
    forward = towards_later(cells)
    length = np.linalg.norm(arrow, axis=1) * np.linalg.norm(forward, axis=1)
    cosine = (arrow * forward).sum(1) / length
    assert cosine.mean() > 0.8
    assert (cosine > 0).mean() > 0.95
    assert cells.obsm["cytotrace_fwd_umap"].shape == (1000, 2)
    assert np.isfinite(cells.obsm["cytotrace_fwd_umap"]).all()


def test_paga_joins_each_stage_to_its_parent_and_the_first_to_nothing_later(cells):
    names = list(cells.obs["clusters"].cat.categories)
    joined = cells.uns["paga"]["connectivities"].toarray()
    for stage, (parent, *_) in STAGES.items():
        if parent is not None:
            assert joined[names.index(stage), names.index(parent)] > 0.1
    ductal = joined[names.index("Ductal")]
    assert ductal[[names.index(name) for name in ["Pre-endocrine", *TERMINAL]]].max() < 0.02


def test_the_cells_own_graph_and_counts_stay(cells):
    expected = cells.copy()
    latent_trajectories(cells, "X_pca", "Ductal", n_neighbors=10)
    for name in ("connectivities", "distances"):
        assert (cells.obsp[name] != expected.obsp[name]).nnz == 0
    assert (cells.layers["total"] != expected.layers["total"]).nnz == 0
    assert cells.uns["neighbors"] == expected.uns["neighbors"]
    assert (cells.obsm["pseudotime_fwd_umap"] != expected.obsm["pseudotime_fwd_umap"]).any()


@pytest.mark.parametrize("weight", [0.8, 0.3])
def test_fates_solve_the_linear_system(cells, weight):
    fate_probabilities(cells, weight=weight)
    fates = np.asarray(cells.obsm["lineages_fwd"])
    neighbours = cells.obsp["connectivities"].toarray().astype(float)
    degree = neighbours.sum(0)
    neighbours = neighbours / degree / degree[:, None]
    neighbours /= neighbours.sum(1, keepdims=True)
    velocity = scv.utils.get_transition_matrix(cells).toarray()
    step = weight * velocity + (1 - weight) * neighbours
    ends = np.array([(cells.obs["clusters"] == name) for name in TERMINAL]).T
    way = ~ends.any(1)
    expected = ends.astype(float)
    expected[way] = np.linalg.solve(
        np.eye(way.sum()) - step[way][:, way], step[way][:, ~way] @ ends[~way]
    )
    np.testing.assert_allclose(fates, expected, atol=1e-5)
    np.testing.assert_allclose(fates.sum(1), 1, atol=1e-6)
    assert list(cells.obsm["lineages_fwd"].names) == TERMINAL


def test_nothing_is_printed(cells, capfd):
    latent_trajectories(cells, "X_pca", "Ductal")
    fate_probabilities(cells)
    assert capfd.readouterr() == ("", "")


def spoil(adata, what):
    match what:
        case "one cluster":
            adata.obs["clusters"] = "Ductal"
        case "latent":
            adata.obsm["X_pca"][3, 0] = np.nan
        case "layer":
            del adata.layers["total"], adata.layers["spliced"]  # or it would be composed
        case "pieces":
            far = adata.obs["clusters"] == "Alpha"
            adata.obsm["X_pca"][far] += 1000
            sc.pp.neighbors(adata, n_neighbors=10)
        case "velocity":
            adata.uns["velocity_graph"].data[5] = np.nan
        case "other cells":
            adata.uns["velocity_graph"] = sparse.eye_array(7, format="csr")
        case "graph":
            del adata.obsp["connectivities"]


@pytest.mark.parametrize(
    ("what", "options", "error", "message"),
    [
        (None, {"root": "Acinar"}, KeyError, r"no cluster \['Acinar'\]"),
        (None, {"use_rep": "X_scvi"}, KeyError, r"no obsm\['X_scvi'\]"),
        (None, {"basis": "tsne"}, KeyError, r"no obsm\['X_tsne'\]"),
        (None, {"cluster_key": "types"}, KeyError, r"no obs\['types'\]"),
        ("one cluster", {}, ValueError, r"no cluster but \['Ductal'\]"),
        ("latent", {}, ValueError, r"obsm\['X_pca'\] holds values that are missing"),
        ("layer", {}, KeyError, "no layer 'total'"),
        ("pieces", {}, ValueError, "neighbour graph is in 2 pieces"),
    ],
)
def test_bad_input_for_trajectories(cells, what, options, error, message):
    spoil(cells, what)
    with pytest.raises(error, match=message):
        latent_trajectories(cells, **({"use_rep": "X_pca", "root": "Ductal"} | options))


@pytest.mark.parametrize(
    ("what", "options", "error", "message"),
    [
        (None, {"terminal": ["Beta", "Gamma"]}, KeyError, r"no cluster \['Gamma'\]"),
        (None, {"terminal": list(STAGES)}, ValueError, "no cluster but"),
        (None, {"vkey": "predicted"}, KeyError, r"no uns\['predicted_graph'\]"),
        (None, {"weight": 1.0}, ValueError, "weight=1.0"),
        ("velocity", {}, ValueError, "1 of its values are not finite"),
        ("other cells", {}, ValueError, "joins 7 cells, here are 1000"),
        ("graph", {}, KeyError, "no neighbour graph"),
        ("pieces", {}, ValueError, "neighbour graph is in 2 pieces"),
    ],
)
def test_bad_input_for_fates(cells, what, options, error, message):
    spoil(cells, what)
    with pytest.raises(error, match=message):
        fate_probabilities(cells, **options)


def test_a_missing_library_names_the_extra(cells, monkeypatch):
    monkeypatch.setitem(sys.modules, "cellrank", None)
    with pytest.raises(ImportError, match=r"pip install 'splicedvae\[velocity\]'"):
        latent_trajectories(cells, "X_pca", "Ductal")
    with pytest.raises(ImportError, match=r"pip install 'splicedvae\[velocity\]'"):
        fate_probabilities(cells)


def test_on_real_cells_pseudotime_follows_the_known_stages(pancreas):
    _, _, test = sv.data.split(pancreas)
    adata = sv.data.prepare(pancreas[test])
    sv.velocity.embed(adata, overwrite=True)
    latent_trajectories(adata, "X_pca", "Ductal")
    mean = adata.obs.groupby("clusters", observed=True)["dpt_pseudotime"].mean()
    for stage, (parent, *_) in STAGES.items():
        if parent is not None:
            assert mean[stage] > mean[parent] + 0.02


def test_transitions_follow_the_known_stages(cells, capfd, recwarn):
    before = set(cells.uns), set(cells.obs)
    sv.velocity.project(
        cells, cells.layers["velocity_true"], cells.var["velocity_genes"], overwrite=True
    )
    confidence = sv.trajectories.transition_confidence(cells)
    assert list(confidence.index) == list(confidence.columns) == list(STAGES)
    assert (confidence.to_numpy() >= 0).all() and confidence.to_numpy().sum() > 0
    known = [(parent, stage) for stage, (parent, *_) in STAGES.items() if parent]
    forward = sum(confidence.loc[edge] for edge in known)
    backward = sum(confidence.loc[b, a] for a, b in known)
    assert forward > backward  # the true velocity leads from parents to children
    assert before == (set(cells.uns), set(cells.obs))
    assert capfd.readouterr() == ("", "") and not recwarn.list

    cells.obs["one"] = "all"
    with pytest.raises(ValueError, match="one cluster only"):
        sv.trajectories.transition_confidence(cells, cluster_key="one")
    with pytest.raises(KeyError, match="other_graph"):
        sv.trajectories.transition_confidence(cells, vkey="other")


def test_cellrank_says_nothing(cells, capfd):
    fate_probabilities(cells)
    latent_trajectories(cells, "X_pca", "Ductal")
    assert capfd.readouterr().out == ""
