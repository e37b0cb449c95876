"""Velocity fields of the book: what noise leaves of a field whose ratios are true."""

import numpy as np
import pytest
from scipy.special import expit, logit

import splicedvae as sv
import splicedvae_book as lab
from splicedvae import metrics, velocity

CONCENTRATION = 5.0


@pytest.fixture(scope="module")
def known():
    """1,000 simulated cells whose counts have, given totals, known ratios; and these ratios."""
    cells = sv.data.prepare(sv.data.simulate(n_obs=1000, n_vars=200, seed=2))
    velocity.embed(cells)
    s, u = cells.layers["spliced_true"], cells.layers["unspliced_true"]
    cells.var[lab.fields.CONCENTRATION] = CONCENTRATION
    return cells, s / (s + u)


def test_no_other_ratios_reach_the_ceiling(known):
    """The ratios that were drawn from, against the same ones blunted, sharpened or constant."""
    cells, ratio = known
    mean, stretch = logit(ratio).mean(0), {"true": 1.0, "blunt": 0.4, "sharp": 2.5, "constant": 0.0}
    drawn = [lab.fields.if_true(cells, ratio, seed) for seed in range(1, 5)]
    scale, scores = metrics.velocity_scale(drawn.pop()), {}
    for name, by in stretch.items():
        other = expit(mean + by * (logit(ratio) - mean))
        field = lab.fields.from_ratio(cells, lab.fields.with_noise(other, 0))
        scores[name] = np.mean([metrics.cell_cosine(truth, field, scale) for truth in drawn])
    assert max(scores, key=scores.get) == "true" and scores["true"] < 0.9
    assert scores["constant"] < scores["true"] - 0.03


def test_what_is_drawn_has_the_totals_and_the_ratios(known):
    cells, ratio = known
    drawn = lab.fields.if_true(cells, ratio, seed=3)
    total, spliced = (np.asarray(drawn.layers[x].todense()) for x in ("total", "spliced"))
    np.testing.assert_array_equal(spliced + drawn.layers["unspliced"], total)
    n, mean = total.astype(float), (total * ratio).sum(0)
    variance = (n * ratio * (1 - ratio) * (1 + np.maximum(n - 1, 0) / (1 + CONCENTRATION))).sum(0)
    z = (spliced.sum(0) - mean) / np.sqrt(variance)
    assert np.abs(z).max() < 4.5 and 0.8 < z.std() < 1.2
