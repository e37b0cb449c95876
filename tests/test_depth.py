"""Predicted ratios against shallower counts: the thinning, the crossing and the job's rows."""

import json

import numpy as np
import pytest
from scipy import sparse

import splicedvae as sv
from splicedvae_book import depth
from splicedvae_book.profiles import prepared


def test_thinning_is_binomial(simulated):
    counts = simulated.layers["spliced"]
    kept = depth.thinned(counts, 0.1, np.random.default_rng(0))
    assert kept.shape == counts.shape and kept.dtype == counts.dtype
    assert kept.has_canonical_format and (kept.data > 0).all() and (counts - kept).min() == 0
    variance = counts.data * 0.1 * 0.9  # of a binomial, whose fourth moment is 3 σ⁴ + σ² (1 - 6 pq)
    error = (kept - 0.1 * counts)[counts.nonzero()]
    assert error.sum() == pytest.approx(0, abs=4 * np.sqrt(variance.sum()))
    spread = np.sqrt((2 * variance**2 + variance * (1 - 6 * 0.1 * 0.9)).sum())
    assert np.square(error).sum() == pytest.approx(variance.sum(), abs=4 * spread)


def test_thinning_at_the_ends_keeps_all_or_nothing(simulated):
    counts, rng = simulated.layers["unspliced"], np.random.default_rng(0)
    before = counts.copy()
    assert (depth.thinned(counts, 1.0, rng) != counts).nnz == 0
    assert depth.thinned(counts, 0.0, rng).nnz == 0
    assert (counts != before).nnz == 0
    assert sparse.isspmatrix_csr(depth.thinned(counts, 0.5, rng))


def test_crossing_of_a_line_in_log_depth():
    depths = np.array(depth.DEPTHS)
    scores = 0.4 + 0.08 * np.log(depths)
    for level in (0.1, 0.21, 0.333):
        wanted = np.exp((level - 0.4) / 0.08)
        assert depth.crossing(depths, scores, level) == pytest.approx(wanted, rel=1e-12)
        assert depth.crossing(depths[::-1], scores[::-1], level) == pytest.approx(wanted, rel=1e-12)
    assert depth.crossing(depths, scores, 0.4) == pytest.approx(1)  # reached at the last depth
    assert np.isnan(depth.crossing(depths, scores, 0.41))  # never reached
    assert np.isnan(depth.crossing(depths, scores, 0.0))  # reached by all


def test_crossing_takes_the_deepest():
    scores = [0.0, 0.2, 0.1, 0.3]
    assert depth.crossing([0.01, 0.1, 0.2, 0.8], scores, 0.2) == pytest.approx(0.4)  # √(0.2 · 0.8)


@pytest.mark.slow
def test_smoke_job(tmp_path):
    """All rows with finite scores; those that need no fit are made again from the cells."""
    rows = json.loads(json.dumps(depth.run_job(None, "smoke", 0, *depth.NAMES, tmp_path)))["rows"]
    ratios = ("SplicedVAE", depth.TRUE_RATIO, "NearestNeighbours", "GeneMean")
    thinned = {depth.THINNED.format(d) for d in depth.DEPTHS}
    assert rows.keys() == {
        *ratios,
        *(f"{name}{depth.REFERENCE}" for name in ratios),
        *("constant velocity", "velocity transfer", depth.TRUE_CONSTANT),
        *thinned,
        *(f"{name}{depth.OWN_GRAPH}" for name in thinned),
    }
    for name, row in rows.items():
        assert np.isfinite(list(row.values())).all(), name
        assert ("d2" in row) == name.startswith(ratios)
    assert rows["GeneMean"]["d2"] == 0
    full = depth.THINNED.format(1)
    assert rows[full] == rows[f"{full}{depth.OWN_GRAPH}"] != rows[depth.THINNED.format(0.5)]

    cells, (train, _, test) = prepared(sv.data.simulate(700, 233, 0), "smoke", 0)
    train, test = cells[train].copy(), cells[test].copy()
    for part in (train, test):
        sv.velocity.embed(part)
        sv.velocity.fit(part)
    truth = test.layers["velocity_true"].astype(float)
    mean, square = (train.layers["velocity_true"].astype(float) ** power for power in (1, 2))
    unit = np.sqrt(square.mean(0))
    genes = train.var["velocity_genes"].to_numpy()

    def cosine(v, keep, unit):
        a, b = (truth / unit)[:, keep], (v / unit)[:, keep]
        return ((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).mean()

    every = np.ones_like(genes)
    constant = np.broadcast_to(mean.mean(0), truth.shape)
    for row, v in ((full, test.layers["velocity"]), (depth.TRUE_CONSTANT, constant)):
        for ending, keep in (("", genes), (depth.ALL_GENES, every)):
            assert rows[row][f"cosine{ending}"] == pytest.approx(cosine(v, keep, unit), abs=1e-4)
            raw = cosine(v, keep, np.ones_like(unit))
            assert rows[row][f"cosine_raw{ending}"] == pytest.approx(raw, abs=1e-4)
