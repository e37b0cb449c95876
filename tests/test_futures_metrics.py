"""Scores of futures against closed forms, brute force and what is known of proper scores."""

import numpy as np
import pytest
from scipy.stats import norm, wasserstein_distance

import splicedvae as sv

metrics = sv.metrics


def crps_of_normal(y):
    """Closed form of the continuous ranked probability score of a standard normal."""
    return y * (2 * norm.cdf(y) - 1) + 2 * norm.pdf(y) - 1 / np.sqrt(np.pi)


def test_energy_score_in_one_dimension_is_the_crps():
    drawn = np.random.default_rng(0).normal(size=(4000, 3, 1))
    true = np.array([0.0, 0.7, -2.0]).reshape(1, 3, 1)
    found = metrics.energy_score(drawn, true)
    np.testing.assert_allclose(found, crps_of_normal(true.ravel()), atol=0.03)


def test_energy_score_is_what_loops_give_and_of_one_draw_the_distance():
    rng = np.random.default_rng(1)
    drawn, true = rng.normal(size=(4, 2, 3)), rng.normal(size=(3, 2, 3))
    for cell in range(2):
        x, y = drawn[:, cell], true[:, cell]
        near = np.mean([np.linalg.norm(a - b) for a in x for b in y])
        pairs = [np.linalg.norm(x[i] - x[j]) for i in range(4) for j in range(4) if i != j]
        assert metrics.energy_score(drawn, true)[cell] == pytest.approx(near - np.mean(pairs) / 2)
    one = metrics.energy_score(drawn[:1], true[:1])
    np.testing.assert_allclose(one, np.linalg.norm(drawn[0] - true[0], axis=1))


def test_energy_score_is_best_for_the_true_distribution():
    rng = np.random.default_rng(2)
    true = rng.normal(size=(200, 1, 2))
    score = {
        spread: metrics.energy_score(spread * rng.normal(size=(200, 1, 2)), true)[0]
        for spread in (0.3, 1.0, 3.0)
    }
    assert score[1.0] < min(score[0.3], score[3.0])


def test_log_loss_and_brier_are_their_closed_forms():
    p = np.array([[0.5, 0.5], [0.2, 0.8], [1.0, 0.0]])
    fate = np.array([0, 1, 1])
    floor = 1e-3
    last = floor / (1 + floor)
    expected = -np.mean([np.log(0.5), np.log(0.8), np.log(last)])
    assert metrics.fate_log_loss(p, fate, floor) == pytest.approx(expected)
    assert metrics.brier(p, fate) == pytest.approx(np.mean([0.25, 0.04, 1.0]))
    # shares of descendants: the mean over descendants
    shares = np.array([[0.25, 0.75]])
    q = np.array([[0.4, 0.6]])
    by_hand = -0.25 * np.log(0.4) - 0.75 * np.log(0.6)
    assert metrics.fate_log_loss(q, shares) == pytest.approx(by_hand)


@pytest.mark.parametrize("temper", [1.0, 3.0])
def test_calibration_error_is_near_zero_only_for_true_probabilities(temper):
    rng = np.random.default_rng(3)
    p = rng.dirichlet([1, 1, 1], size=6000)
    fate = np.array([rng.choice(3, p=row) for row in p])
    told = p**temper / (p**temper).sum(1, keepdims=True)  # overconfident if above 1
    error = metrics.calibration_error(told, fate)
    assert error < 0.015 if temper == 1 else error > 0.08


def test_reliability_counts_every_cell_once_for_each_fate():
    p = np.array([[0.05, 0.95], [0.05, 0.95], [0.45, 0.55], [1.0, 0.0]])
    probability, frequency, share = metrics.reliability(p, np.array([1, 0, 1, 0]), n_bins=10)
    np.testing.assert_allclose(probability, [0.1 / 3, 0.45, 0.55, (0.95 * 2 + 1) / 3])
    np.testing.assert_allclose(frequency, [1 / 3, 0, 1, 2 / 3])
    np.testing.assert_allclose(share, [3 / 8, 1 / 8, 1 / 8, 3 / 8])


@pytest.mark.parametrize("size", [40, 25])
def test_sliced_distance_in_one_dimension_is_the_integral_over_quantiles(size):
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(40, 1)), 1 + 2 * rng.normal(size=(size, 1))
    grid = (np.arange(200_000) + 0.5) / 200_000
    x, y = (np.sort(v[:, 0])[(grid * len(v)).astype(int)] for v in (a, b))
    expected = np.sqrt(np.mean((x - y) ** 2))
    assert metrics.sliced_wasserstein(a, b) == pytest.approx(expected, rel=1e-3)
    assert np.mean(np.abs(x - y)) == pytest.approx(wasserstein_distance(a[:, 0], b[:, 0]), rel=1e-3)


def test_sliced_distance_of_a_shift_is_its_length_over_root_dimensions():
    a = np.random.default_rng(5).normal(size=(50, 4))
    shift = np.array([3.0, 0, 0, 4.0])
    found = metrics.sliced_wasserstein(a, a + shift, n_directions=20_000)
    assert found == pytest.approx(5 / np.sqrt(4), rel=0.02)


def test_mmd_is_what_loops_give_and_the_closed_form_of_two_normals():
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(5, 2)), rng.normal(size=(4, 2))

    def kernel(x, y):
        return np.exp(-((x - y) ** 2).sum() / (2 * 1.3**2))

    within_a = np.mean([kernel(a[i], a[j]) for i in range(5) for j in range(5) if i != j])
    within_b = np.mean([kernel(b[i], b[j]) for i in range(4) for j in range(4) if i != j])
    across = np.mean([kernel(x, y) for x in a for y in b])
    assert metrics.mmd(a, b, 1.3) == pytest.approx(within_a + within_b - 2 * across)
    # N(0, 1) and N(d, 1), bandwidth 1: 2 / sqrt(3) (1 - exp(-d² / 6))
    x, y = rng.normal(size=(2000, 1)), 2 + rng.normal(size=(2000, 1))
    closed = 2 / np.sqrt(3) * (1 - np.exp(-4 / 6))
    assert metrics.mmd(x, y, 1.0) == pytest.approx(closed, abs=0.04)
    assert abs(metrics.mmd(x[:1000], x[1000:], 1.0)) < 0.01


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.energy_score(np.zeros((2, 3)), np.zeros((1, 3, 1))), "draws × cells"),
        (lambda: metrics.energy_score(np.zeros((2, 3, 1)), np.zeros((1, 4, 1))), "other cells"),
        (lambda: metrics.brier(np.array([[0.2, 0.2]]), np.array([0])), "sum to 1"),
        (lambda: metrics.brier(np.array([[0.5, 0.5]]), np.array([2])), "fates 0 to 1"),
        (lambda: metrics.brier(np.array([[0.5, 0.5]]), np.zeros((1, 3))), "fate has shape"),
        (lambda: metrics.sliced_wasserstein(np.zeros((3, 2)), np.zeros((3, 1))), "dimensions"),
        (lambda: metrics.mmd(np.zeros((1, 2)), np.zeros((3, 2))), "two points"),
    ],
)
def test_what_is_no_score_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
