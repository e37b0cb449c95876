"""Scores against hand-made cases, SciPy, statsmodels and ceilings that are known."""

import hypothesis.strategies as st
import numpy as np
import pytest
import scipy.sparse as sp
import statsmodels.api as sm
from hypothesis import given, settings
from scipy.special import logit
from scipy.stats import betabinom, binom, pearsonr
from sklearn.metrics import silhouette_score

from splicedvae import metrics
from splicedvae.ratios.metrics import Entries, _randomised_pit

# A ceiling is an estimate too, carried by the entries with n >= 2. Where they are rare it takes
# more cells to know it: with these, its error has a root mean square over seeds under 0.01.
CELLS_AT_DEPTH = {0.15: 24_000, 0.5: 3000, 1: 1500, 3: 1500}


def simulated(depth=1.0, seed=0, n_obs=400, n_vars=30, concentrations=(1, 10)):
    """Counts of a known p: n is negative binomial, p is beta with a mean and spread per gene."""
    rng = np.random.default_rng(seed)
    mean = rng.uniform(0.5, 0.95, n_vars)
    low, high = np.log(concentrations)
    concentration = np.exp(rng.uniform(low, high, n_vars))
    p = rng.beta(mean * concentration, (1 - mean) * concentration, (n_obs, n_vars))
    n = rng.poisson(depth * rng.gamma(4, 1 / 4, (n_obs, 1)) * np.ones(n_vars))
    s = rng.binomial(n, p)
    return s, n - s, p, mean, concentration


# Two genes, four cells. Gene 0: r = 1, 0.5, 0 (third cell empty). Gene 1: r = 1, 0, 0.75, 1.
S = np.array([[1, 2], [1, 0], [0, 3], [0, 5]])
U = np.array([[0, 0], [1, 1], [0, 1], [2, 0]])
P = np.array([[0.8, 0.9], [0.5, 0.4], [0.6, 0.7], [0.2, 0.7]])
MEAN = np.array([0.4, 0.7])
ALL = np.ones(2, dtype=bool)


def test_scores_computed_by_hand():
    report = metrics.ratio_report(S, U, P, MEAN, genes=ALL)
    assert report["n_observed"] == 7
    squares = [0.2**2, 0, 0.2**2, 0.1**2, 0.4**2, 0.05**2, 0.3**2]
    assert report["rmse_observed"] == pytest.approx(np.sqrt(sum(squares) / 7))
    squares = [0.6**2, 0.1**2, 0.4**2, 0.3**2, 0.7**2, 0.05**2, 0.3**2]
    assert report["rmse_observed_gene_mean"] == pytest.approx(np.sqrt(sum(squares) / 7))
    r, p = [1, 0.5, 0, 1, 0, 0.75, 1], [0.8, 0.5, 0.2, 0.9, 0.4, 0.7, 0.7]
    assert report["r_observed"] == pytest.approx(pearsonr(r, p).statistic)
    assert report["n_min_counts_5"] == 1
    assert report["rmse_min_counts_5"] == pytest.approx(0.3)
    filled = np.array([[1, 1], [0.5, 0], [0, 0.75], [0, 1]])
    assert report["rmse_zero_filled"] == pytest.approx(np.sqrt(np.mean((filled - P) ** 2)))
    assert report["r_zero_filled"] == pytest.approx(pearsonr(filled.ravel(), P.ravel()).statistic)

    first = pearsonr([1, 0.5, 0], [0.8, 0.5, 0.2]).statistic
    second = pearsonr([1, 0, 0.75, 1], [0.9, 0.4, 0.7, 0.7]).statistic
    assert report["within_gene_r"] == pytest.approx((3 * first + 4 * second) / 7)
    assert report["within_gene_r_median"] == pytest.approx((first + second) / 2)
    # Entries n >= 2 leave cells 1 and 3 of gene 0, and cells 0, 2 and 3 of gene 1.
    second = pearsonr([1, 0.75, 1], [0.9, 0.7, 0.7]).statistic
    assert report["within_gene_r_min_counts_2"] == pytest.approx((2 * 1 + 3 * second) / 5)


def test_likelihoods_match_scipy():
    concentration = np.array([2.0, 30.0])
    report = metrics.ratio_report(S, U, P, MEAN, genes=ALL, concentration=concentration)
    n = S + U
    seen = n > 0
    mean = np.broadcast_to(MEAN, P.shape)
    for suffix, ratio in (("", P), ("_gene_mean", mean)):
        expected = binom.logpmf(S, n, ratio)[seen].mean()
        assert report[f"log_likelihood{suffix}"] == pytest.approx(expected)
        a, b = ratio * concentration, (1 - ratio) * concentration
        expected = betabinom.logpmf(S, n, a, b)[seen].mean()
        assert report[f"beta_binomial_log_likelihood{suffix}"] == pytest.approx(expected)
    saturated, model, null = (
        binom.logpmf(S, n, ratio)[seen].sum() for ratio in (S / np.maximum(n, 1), P, mean)
    )
    assert report["d2"] == pytest.approx(1 - (saturated - model) / (saturated - null))


def test_sparse_and_dense_agree_and_a_gene_outside_the_list_has_no_influence():
    s, u, p, mean, _ = simulated()
    genes = np.arange(30) < 20
    dense = metrics.ratio_report(s, u, p, mean, genes=genes)
    assert metrics.ratio_report(sp.csr_matrix(s), sp.coo_array(u), p, mean, genes=genes) == dense
    altered = p.copy()
    altered[:, 20:] = 0.5
    report = metrics.ratio_report(s, u, altered, mean, genes=genes)
    assert report["within_gene_r"] == dense["within_gene_r"]
    assert report["rmse_observed"] != dense["rmse_observed"]


def test_baseline_scores_zero_against_itself():
    s, u, _, mean, _ = simulated()
    report = metrics.ratio_report(s, u, np.tile(mean, (len(s), 1)), mean)
    assert report["d2"] == 0
    assert report["within_gene_r"] == 0
    assert np.isnan(report["calibration_slope"])
    assert report["r_observed"] == report["r_observed_gene_mean"]


def test_smoothed_target_averages_neighbours():
    graph = sp.csr_array(np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0.5], [0, 0, 0.5, 0]]))
    report = metrics.ratio_report(S, U, P, MEAN, genes=ALL, connectivities=graph)
    pair = [2 / 3, 2 / 3]  # gene 0 of cells 0 and 1; gene 1 likewise
    gene_0 = [*pair, 0, 0]
    gene_1 = [*pair, (3 + 0.5 * 5) / (4 + 0.5 * 5), (0.5 * 3 + 5) / (0.5 * 4 + 5)]
    target = np.column_stack([gene_0, gene_1])
    assert report["n_smoothed"] == 8
    assert report["rmse_smoothed"] == pytest.approx(np.sqrt(np.mean((target - P) ** 2)))


@pytest.mark.parametrize("stretch", [0.5, 1, 2])
def test_calibration_slope_matches_statsmodels(stretch):
    s, u, p, mean, _ = simulated(depth=3)
    predicted = 1 / (1 + np.exp(-(logit(mean) + stretch * (logit(p) - logit(mean)))))
    predicted = np.clip(predicted, 0.01, 0.99)
    slope = metrics.ratio_report(s, u, predicted, mean)["calibration_slope"]
    seen = s + u > 0
    offset = np.broadcast_to(logit(mean), p.shape)[seen]
    x = (logit(predicted) - logit(mean))[seen]
    counts = np.column_stack([s[seen], u[seen]])
    fit = sm.GLM(counts, x[:, None], family=sm.families.Binomial(), offset=offset).fit()
    assert slope == pytest.approx(fit.params[0], abs=1e-6)


def test_calibration_slope_of_the_truth_is_one():
    s, u, p, mean, _ = simulated(depth=3, n_obs=3000, concentrations=(5, 20))
    assert metrics.ratio_report(s, u, p, mean)["calibration_slope"] == pytest.approx(1, abs=0.01)


def test_pit_is_calibrated_only_under_the_right_distribution():
    s, u, p, mean, concentration = simulated(depth=4, n_obs=2000)
    strata = ("pit_n_1", "pit_n_2_to_4", "pit_n_5_up")
    truth = metrics.ratio_report(s, u, p, mean)
    null = np.tile(mean, (len(s), 1))
    spread = metrics.ratio_report(s, u, null, mean, concentration=concentration)
    for name in strata:
        assert truth[name] == pytest.approx(0.9, abs=0.01)
        assert spread[name] == pytest.approx(0.9, abs=0.01)
    assert metrics.ratio_report(s, u, null, mean)["pit_n_5_up"] < 0.8


@pytest.mark.parametrize("concentration", [None, 3.0])
def test_pit_matches_scipy(concentration):
    s, u, p, _, _ = simulated(depth=3, n_obs=40, n_vars=4)
    entries = Entries(s, u)
    p = p[entries.seen]
    m = None if concentration is None else np.full(len(p), concentration)
    law = binom(entries.n, p) if m is None else betabinom(entries.n, p * m, (1 - p) * m)
    v = np.random.default_rng(1).uniform(size=len(p))
    expected = law.cdf(entries.s - 1) + v * law.pmf(entries.s)
    np.testing.assert_allclose(_randomised_pit(entries, p, m, 1), expected, atol=1e-9)


def test_concentration_is_recovered_and_rare_genes_borrow():
    s, u, _, mean, concentration = simulated(depth=3, n_obs=3000)
    fitted = metrics.fit_concentration(s, u, mean)
    np.testing.assert_allclose(np.log(fitted), np.log(concentration), atol=0.35)
    s[2:, 0], u[2:, 0] = 0, 0
    alone = metrics.fit_concentration(s, u, mean)[0]
    assert fitted[1:].min() < alone < fitted[1:].max()
    s[:, 0], u[:, 1] = s[:, 0] > 0, 0
    dense = metrics.fit_concentration(s, u, mean)
    np.testing.assert_array_equal(
        metrics.fit_concentration(sp.csr_array(s), sp.csr_array(u), mean), dense
    )
    shallow = metrics.fit_concentration(np.eye(3), np.zeros((3, 3)), np.full(3, 0.5))
    assert (shallow == shallow[0]).all() and np.isfinite(shallow).all()  # n = 1 tells nothing


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("depth", CELLS_AT_DEPTH)
def test_ceilings_are_recovered(depth, seed):
    s, u, p, _, _ = simulated(depth, seed, n_obs=CELLS_AT_DEPTH[depth], n_vars=200)
    mean = (s.sum(0) + 0.5) / ((s + u).sum(0) + 1)
    known = metrics.ratio_report(s, u, p, mean)
    bootstrap = metrics.bootstrap_ceiling(s, u, mean, n_draws=2)
    for name in ("rmse_observed", "r_observed", "d2", "within_gene_r"):
        assert bootstrap[name] == pytest.approx(known[name], abs=0.02), name
    name = "within_gene_r_min_counts_2"
    assert bootstrap[name] == pytest.approx(known[name], abs=0.02)
    assert metrics.thinning_ceiling(s, u)[name] == pytest.approx(known[name], abs=0.02)


def test_thinning_does_not_assume_a_beta_distribution():
    rng = np.random.default_rng(0)
    p = np.where(rng.uniform(size=(1500, 200)) < 0.2, 0.3, 0.9)  # two states
    n = rng.poisson(1, p.shape)
    s = rng.binomial(n, p)
    known = metrics.ratio_report(s, n - s, p, np.full(200, 0.78))["within_gene_r_min_counts_2"]
    ceiling = metrics.thinning_ceiling(s, n - s)["within_gene_r_min_counts_2"]
    assert ceiling == pytest.approx(known, abs=0.02)


def test_within_gene_list_counts_cells():
    train, test = np.zeros((300, 3)), np.zeros((40, 3))
    train[:200] = 5
    train[199, 1] = 0
    test[:30] = 1
    test[29, 2] = 0
    assert metrics.within_gene_list(train, sp.csr_array(test)).tolist() == [True, False, False]


def test_paired_interval_by_hand():
    difference, low, high = metrics.paired_interval([3, 5, 7], [2, 3, 4])
    assert difference == 2
    margin = 4.302652729911275 / np.sqrt(3)  # the 97.5 % point of t with 2 degrees of freedom
    assert (low, high) == pytest.approx((2 - margin, 2 + margin))


def test_latent_report_on_blobs():
    rng = np.random.default_rng(0)
    labels = np.repeat(["Alpha", "Beta", "Delta"], 60)
    latent = rng.normal(size=(180, 5)) * 0.1 + np.repeat(np.eye(3, 5) * 4, 60, axis=0)
    report = metrics.latent_report(latent, labels)
    assert report["silhouette"] == pytest.approx(silhouette_score(latent, labels))
    assert report["knn_purity"] == 1
    assert report["leiden_ari"] == 1
    shuffled = metrics.latent_report(latent, rng.permutation(labels))
    assert shuffled["knn_purity"] == pytest.approx(1 / 3, abs=0.05)
    assert abs(shuffled["leiden_ari"]) < 0.05


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(["spliced", "unspliced"]),
    value=st.one_of(
        st.just(np.nan),
        st.just(np.inf),
        st.floats(-1e6, -0.01),
        st.floats(0.01, 0.99),
    ),
    gene=st.integers(0, 1),
    dense=st.booleans(),
)
def test_bad_counts_are_named(name, value, gene, dense):
    counts = {"spliced": S.astype(float), "unspliced": U.astype(float)}
    counts[name] = counts[name].copy()
    counts[name][1, gene] = value
    if not dense:
        counts[name] = sp.csr_array(counts[name])
    with pytest.raises(ValueError, match=rf"^{name} holds .* in gene {gene}; give raw counts"):
        metrics.ratio_report(counts["spliced"], counts["unspliced"], P, MEAN)


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(["predicted", "baseline"]),
    value=st.one_of(st.just(np.nan), st.floats(max_value=-1e-9), st.floats(min_value=1.001)),
    gene=st.integers(0, 1),
)
def test_bad_ratios_are_named(name, value, gene):
    ratios = {"predicted": P.copy(), "baseline": MEAN.copy()}
    ratios[name][..., gene] = value
    with pytest.raises(ValueError, match=rf"^{name} holds .* in gene {gene}; give splicing"):
        metrics.ratio_report(S, U, ratios["predicted"], ratios["baseline"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unspliced": U[:, :1]}, r"spliced \(4, 2\) and unspliced \(4, 1\)"),
        ({"spliced": 0 * S, "unspliced": 0 * U}, "no counts at all"),
        ({"predicted": P.T}, r"predicted has shape \(2, 4\)"),
        ({"baseline": MEAN[:1]}, r"baseline has shape \(1,\)"),
        ({"genes": ~ALL}, "genes selects no gene"),
        ({"genes": np.array([0, 1])}, "genes must be a boolean array"),
        ({"concentration": np.ones(3)}, r"concentration has shape \(3,\)"),
        ({"concentration": np.array([1, -1])}, "concentration holds -1.0 in gene 1"),
        ({"connectivities": np.eye(3)}, r"connectivities has shape \(3, 3\)"),
        ({"connectivities": -np.ones((4, 4))}, "connectivities holds a negative"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    given_ = {"spliced": S, "unspliced": U, "predicted": P, "baseline": MEAN, "genes": ALL}
    with pytest.raises(ValueError, match=message):
        metrics.ratio_report(**(given_ | arguments))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.fit_concentration(S, U, MEAN[:1]), r"mean has shape \(1,\)"),
        (lambda: metrics.bootstrap_ceiling(S, U, MEAN, ~ALL), "genes selects no gene"),
        (lambda: metrics.thinning_ceiling(S > 0, 0 * U, ALL), "no entry with n >= 2"),
        (lambda: metrics.paired_interval([1], [2]), "two scores or more"),
        (lambda: metrics.paired_interval([1, np.nan], [2, 2]), "missing score"),
        (lambda: metrics.latent_report(P, ["a", "b"]), "latent .* and labels"),
        (lambda: metrics.latent_report(P * np.nan, list("aabb"), 2), "latent holds missing"),
        (lambda: metrics.latent_report(P, list("aaaa"), 2), "labels names 1 clusters"),
        (lambda: metrics.latent_report(P, list("aabb"), 4), "n_neighbors=4"),
    ],
)
def test_other_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
