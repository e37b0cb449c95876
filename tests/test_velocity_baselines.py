"""Fields without a ratio model, against what they are by definition."""

import numpy as np
import pytest

import splicedvae as sv


@pytest.fixture(scope="module")
def parts():
    """Simulated training and test cells with velocities from their counts."""
    cells = sv.data.simulate(n_obs=500, n_vars=120, seed=1)
    train, _, test = sv.data.split(cells, seed=0)
    cells = sv.data.prepare(cells, fit_on=train)
    parts = cells[train].copy(), cells[test].copy()
    for part in parts:
        sv.velocity.embed(part, umap=True)
        sv.velocity.fit(part)
    return parts


def test_fields_are_what_their_names_say(parts):
    train, test = parts
    fields = sv.baselines.velocity_baselines(train, test, n_neighbors=7, seed=3)
    known, true = (part.layers["velocity"].astype(float) for part in parts)
    assert {field.shape for field in fields.values()} == {test.shape}
    np.testing.assert_allclose(fields["constant velocity"], np.tile(known.mean(0), (len(true), 1)))
    for name in test.obs["clusters"].unique():
        rows = fields["cluster-mean velocity"][(test.obs["clusters"] == name).to_numpy()]
        mean = known[(train.obs["clusters"] == name).to_numpy()].mean(0)
        np.testing.assert_allclose(rows, np.tile(mean, (len(rows), 1)), rtol=1e-4, atol=1e-6)
    permuted = fields["permuted cells"]
    assert not np.array_equal(permuted, true)
    np.testing.assert_array_equal(np.sort(permuted, axis=0), np.sort(true, axis=0))
    random = fields["random vectors"]
    scale = sv.metrics.velocity_scale(train)
    moving = scale > 0
    ratio = np.sqrt((random[:, moving] ** 2).mean(0)) / scale[moving]
    assert ratio.mean() == pytest.approx(1, abs=0.02)


def test_transfer_is_the_mean_of_the_nearest_training_cells(parts):
    train, test = parts
    # a test cell that is a training cell has itself for its nearest neighbour
    own = train[:20].copy()
    moved = sv.baselines.velocity_baselines(train, own, n_neighbors=1)["velocity transfer"]
    np.testing.assert_allclose(moved, train.layers["velocity"][:20], rtol=1e-5, atol=1e-6)
    several = sv.baselines.velocity_baselines(train, test, n_neighbors=train.n_obs)
    np.testing.assert_allclose(several["velocity transfer"], several["constant velocity"])


def test_a_cluster_that_training_lacks_is_named(parts):
    train, test = parts
    fewer = train[train.obs["clusters"] != "Beta"].copy()
    with pytest.raises(ValueError, match="Beta"):
        sv.baselines.velocity_baselines(fewer, test)


def test_halves_share_the_molecules(parts):
    _, test = parts
    first, second = sv.baselines.halves(test, seed=5)
    for name in ("spliced", "unspliced"):
        a, b, whole = (cells.layers[name].toarray() for cells in (first, second, test))
        np.testing.assert_array_equal(a + b, whole)
        assert a.sum() == pytest.approx(whole.sum() / 2, rel=0.02)
        assert a.min() >= 0 and b.min() >= 0
    again, _ = sv.baselines.halves(test, seed=5)
    np.testing.assert_array_equal(
        again.layers["spliced"].toarray(), first.layers["spliced"].toarray()
    )
