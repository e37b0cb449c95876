"""Baselines against brute force, scikit-learn and statsmodels, on small simulated cells."""

import numpy as np
import pytest
import scipy.sparse as sp
import statsmodels.api as sm
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from splicedvae import baselines
from splicedvae.ratios._entries import pooled_ratio
from splicedvae.ratios.regression import ridge_binomial


def simulated(n_obs=240, n_vars=12, seed=0):
    """Cells of two clusters that differ in their totals and in their ratios."""
    rng = np.random.default_rng(seed)
    cluster = rng.integers(0, 2, n_obs)
    rate = rng.uniform(1, 6, (2, n_vars))
    ratio = rng.uniform(0.3, 0.95, (2, n_vars))
    s = rng.poisson(rate[cluster] * ratio[cluster])
    u = rng.poisson(rate[cluster] * (1 - ratio[cluster]))
    adata = AnnData(
        sp.csr_matrix(s + u, dtype=np.float32),
        layers={
            name: sp.csr_matrix(x, dtype=np.float32)
            for name, x in (("spliced", s), ("unspliced", u), ("total", s + u))
        },
    )
    adata.obs["clusters"] = np.array(["Alpha", "Beta"])[cluster]
    adata.var_names = [f"gene{g}" for g in range(n_vars)]
    return adata


@pytest.fixture(scope="module")
def cells():
    adata = simulated()
    return adata[:120].copy(), adata[120:180].copy(), adata[180:].copy()


def dense(adata):
    return tuple(adata.layers[name].toarray().astype(float) for name in ("spliced", "unspliced"))


def log_likelihood(adata, ratio):
    s, u = dense(adata)
    return (s * np.log(ratio) + u * np.log(1 - ratio)).sum()


def log_normalised(train, adata):
    depth = np.median(train.layers["total"].toarray().sum(1))
    total = adata.layers["total"].toarray().astype(float)
    return np.log1p(total / total.sum(1, keepdims=True) * depth)


def coordinates(train, adata, n_components):
    """Principal components by singular value decomposition, up to sign."""
    centre = log_normalised(train, train).mean(0)
    axes = np.linalg.svd(log_normalised(train, train) - centre, full_matrices=False)[2]
    return (log_normalised(train, adata) - centre) @ axes[:n_components].T


def test_gene_mean_by_hand():
    s, u = np.array([[3, 0, 0], [1, 0, 2]]), np.array([[1, 0, 1], [0, 0, 0]])
    overall = 6.5 / 9
    expected = [(4 + overall) / 6, overall, (2 + overall) / 4]
    np.testing.assert_allclose(pooled_ratio(s, u), expected)
    layers = {"spliced": s, "unspliced": u, "total": s + u}
    adata = AnnData(sp.csr_matrix(s), layers={k: sp.csr_matrix(x) for k, x in layers.items()})
    model = baselines.GeneMean().fit(adata, adata)
    np.testing.assert_allclose(model.mean_, expected)
    np.testing.assert_allclose(model.predict(adata), [expected] * 2)


def test_gene_by_cluster_by_hand_and_chosen_on_val(cells):
    train, val, query = cells
    model = baselines.GeneByCluster(priors=(1, 30, 3000)).fit(train, val)
    s, u = dense(train)

    def ratio(adata, prior):
        rows = []
        for cluster in adata.obs["clusters"]:
            mine = (train.obs["clusters"] == cluster).to_numpy()
            total = (s + u)[mine].sum(0)
            rows.append((s[mine].sum(0) + prior * model.mean_) / (total + prior))
        return np.array(rows)

    best = max((1, 30, 3000), key=lambda prior: log_likelihood(val, ratio(val, prior)))
    assert model.params_ == {"prior": best}
    np.testing.assert_allclose(model.predict(query), ratio(query, best))
    stranger = query.copy()
    stranger.obs["clusters"] = "Epsilon"
    np.testing.assert_allclose(model.predict(stranger), [model.mean_] * query.n_obs)


def test_nearest_neighbours_by_brute_force(cells):
    train, val, query = cells
    model = baselines.NearestNeighbours(n_pcs=5, ks=(5, 20), priors=(1, 10)).fit(train, val)
    s, u = dense(train)
    reference = coordinates(train, train, 5)

    def ratio(adata, k, prior):
        distance = np.linalg.norm(coordinates(train, adata, 5)[:, None] - reference, axis=2)
        nearest = np.argsort(distance, axis=1)[:, :k]
        spliced, total = s[nearest].sum(1), (s + u)[nearest].sum(1)
        return (spliced + prior * model.mean_) / (total + prior)

    settings_ = [(k, prior) for k in (5, 20) for prior in (1, 10)]
    best = max(settings_, key=lambda setting: log_likelihood(val, ratio(val, *setting)))
    assert tuple(model.params_.values()) == best
    np.testing.assert_allclose(model.predict(query), ratio(query, *best), rtol=1e-6)


@pytest.mark.parametrize("whiten", [False, True])
def test_ridge_matches_logistic_regression(cells, whiten):
    train, val, query = cells
    l2 = 7.0
    model = baselines.RidgeBinomial(n_pcs=(4,), l2=(l2,), whiten=whiten).fit(train, val)
    assert model.params_ == {"n_components": 4, "l2": l2}
    x, x_query = coordinates(train, train, 4), coordinates(train, query, 4)
    if whiten:
        x, x_query = x / x.std(0, ddof=1), x_query / x.std(0, ddof=1)
    s, u = dense(train)
    predicted = model.predict(query)
    for gene in range(train.n_vars):
        logistic = LogisticRegression(C=1 / l2, tol=1e-10, max_iter=10_000)
        logistic.fit(
            np.vstack([x, x]),
            np.repeat([1, 0], len(x)),
            sample_weight=np.concatenate([s[:, gene], u[:, gene]]),
        )
        expected = logistic.predict_proba(x_query)[:, 1]
        np.testing.assert_allclose(predicted[:, gene], expected, atol=1e-4)


def test_ridge_without_penalty_matches_statsmodels(cells):
    x = np.random.default_rng(0).normal(size=(120, 3))
    s, u = dense(cells[0])
    weights = ridge_binomial(x, s, s + u, 0.0, np.zeros((4, s.shape[1])))
    for gene in range(3):
        counts = np.column_stack([s[:, gene], u[:, gene]])
        seen = counts.sum(1) > 0
        design = sm.add_constant(x[seen])
        fit = sm.GLM(counts[seen], design, family=sm.families.Binomial()).fit()
        np.testing.assert_allclose(weights[:, gene], fit.params, atol=1e-6)


def test_ridge_converges_from_afar():
    # From this start a full Newton step overshoots, so that steps have to be halved.
    rng = np.random.default_rng(1)
    x = rng.normal(size=(200, 2))
    total = np.full((200, 1), 50.0)
    spliced = rng.binomial(50, 1 / (1 + np.exp(-3 * x[:, :1]))).astype(float)
    near = ridge_binomial(x, spliced, total, 1.0, np.zeros((3, 1)))
    far = ridge_binomial(x, spliced, total, 1.0, np.array([[4.0], [-4.0], [4.0]]))
    np.testing.assert_allclose(far, near, atol=1e-6)


def test_ridge_keeps_the_gene_mean_where_all_counts_are_spliced(cells):
    train, val, query = (adata.copy() for adata in cells)
    for adata in (train, val):
        unspliced = adata.layers["unspliced"].toarray()
        unspliced[:, 0] = 0
        adata.layers["unspliced"] = sp.csr_matrix(unspliced)
    model = baselines.RidgeBinomial(n_pcs=(4,), l2=(1.0,)).fit(train, val)
    np.testing.assert_allclose(model.predict(query)[:, 0], model.mean_[0])
    assert np.ptp(model.predict(query)[:, 1]) > 0


def test_cells_that_differ_beat_the_gene_mean(cells):
    train, val, query = cells
    null = log_likelihood(query, baselines.GeneMean().fit(train, val).predict(query))
    for model in (
        baselines.GeneByCluster(),
        baselines.NearestNeighbours(n_pcs=5, ks=(10, 30)),
        baselines.RidgeBinomial(n_pcs=(2, 5), l2=(100, 10, 1)),
    ):
        assert log_likelihood(query, model.fit(train, val).predict(query)) > null + 50


@pytest.mark.slow
def test_scvi_latent_ridge_trains_or_takes_a_model(cells):
    train, val, query = cells
    own = baselines.ScviLatentRidge(max_epochs=2, seed=3).fit(train, val)
    again = baselines.ScviLatentRidge(max_epochs=2, seed=3).fit(train, val)
    np.testing.assert_array_equal(own.predict(query), again.predict(query))
    assert own.model is None  # a second fit trains anew instead of reading other cells' model
    given_ = baselines.ScviLatentRidge(model=own._scvi).fit(train, val)
    np.testing.assert_array_equal(given_.predict(query), own.predict(query))
    assert own.params_["n_components"] == 50
    other_x = query.copy()
    other_x.X = other_x.layers["spliced"]
    np.testing.assert_array_equal(own.predict(other_x), own.predict(query))
    latent = own._scvi.get_latent_representation(query.copy())
    weights = own._state
    expected = 1 / (1 + np.exp(-(weights[0] + latent @ weights[1:])))
    np.testing.assert_allclose(own.predict(query), expected, rtol=1e-5)


ALL = [
    baselines.GeneMean,
    baselines.GeneByCluster,
    baselines.NearestNeighbours,
    baselines.RidgeBinomial,
    baselines.ScviLatentRidge,
]


@pytest.mark.parametrize("baseline", ALL)
@pytest.mark.parametrize("layer", ["spliced", "unspliced"])
def test_missing_layer_is_named(cells, baseline, layer):
    for position in (0, 1):
        parts = [adata.copy() for adata in cells[:2]]
        del parts[position].layers[layer]
        with pytest.raises(KeyError, match=f"no layer '{layer}'"):
            baseline().fit(*parts)


@pytest.mark.parametrize("baseline", ALL[2:4])
def test_missing_totals_are_composed_or_named(cells, baseline):
    train, val, query = (adata.copy() for adata in cells)
    ratio = baseline().fit(train, val).predict(query)
    del query.layers["total"], train.layers["total"], val.layers["total"]
    model = baseline().fit(train, val)
    np.testing.assert_array_equal(model.predict(query), ratio)  # composed
    del query.layers["spliced"]
    with pytest.raises(KeyError, match="no layer 'total'"):
        model.predict(query)


@pytest.mark.parametrize("baseline", ALL[:4])
def test_other_genes_are_named(cells, baseline):
    train, val, query = cells
    model = baseline().fit(train, val)
    with pytest.raises(ValueError, match=r"2 missing \['gene0', 'gene1'\], 0 unknown"):
        model.predict(query[:, 2:])
    with pytest.raises(ValueError, match="number or order: 0 missing"):
        model.predict(query[:, ::-1])
    with pytest.raises(ValueError, match=r"1 missing \['gene11'\]"):
        baseline().fit(train, val[:, :-1])
    with pytest.raises(ValueError, match="not fitted"):
        baseline().predict(query)


def test_empty_parts_and_clusters_are_named(cells):
    train, val, query = cells
    with pytest.raises(ValueError, match="train has no cells"):
        baselines.GeneMean().fit(train[:0], val)
    with pytest.raises(ValueError, match="val has no cells"):
        baselines.GeneMean().fit(train, val[:0])
    with pytest.raises(KeyError, match=r"'louvain'.*is missing"):
        baselines.GeneByCluster("louvain").fit(train, val)
    model = baselines.GeneByCluster().fit(train, val)
    query = query.copy()
    del query.obs["clusters"]
    with pytest.raises(KeyError, match=r"'clusters'.*is missing"):
        model.predict(query)


@settings(max_examples=20, deadline=None)
@given(
    part=st.sampled_from([0, 1]),
    layer=st.sampled_from(["spliced", "unspliced"]),
    gene=st.integers(0, 11),
    value=st.one_of(st.just(np.nan), st.just(np.inf), st.floats(-9, -0.1), st.floats(0.1, 0.9)),
)
def test_bad_counts_are_named(part, layer, gene, value):
    parts = [simulated(30), simulated(20, seed=1)]
    counts = parts[part].layers[layer].toarray()
    counts[3, gene] = value
    parts[part].layers[layer] = sp.csr_matrix(counts)
    with pytest.raises(ValueError, match=f"layer '{layer}' holds .* in gene gene{gene}; give raw"):
        baselines.GeneMean().fit(*parts)
