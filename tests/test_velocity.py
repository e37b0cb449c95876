"""Velocity from layers of counts: scVelo's numbers, draws, what reads them, what is refused."""

import hypothesis.strategies as st
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from scipy import sparse

import splicedvae as sv
from splicedvae import velocity
from splicedvae.counts import split_counts
from splicedvae.velocity.steady_state import (
    PERCENTILE,
    draws,
    quiet_scvelo,
    slopes,
    stochastic_gamma,
)

mpl.use("Agg")


@pytest.fixture(scope="module")
def _cells():
    cells = sv.data.prepare(sv.data.simulate(n_obs=400, n_vars=120, seed=0))
    velocity.embed(cells)
    return cells


@pytest.fixture
def cells(_cells):
    """400 simulated cells of 82 genes with a graph and a UMAP."""
    return _cells.copy()


@pytest.fixture(scope="module")
def _fitted(_cells):
    fitted = _cells.copy()
    velocity.fit(fitted)
    return fitted


@pytest.fixture
def fitted(_fitted):
    """The same cells with a velocity from their counts."""
    return _fitted.copy()


@pytest.fixture
def real(pancreas):
    """Every third real cell, its 1,126 genes and a graph and UMAP of its own."""
    del pancreas.obsm
    cells = sv.data.prepare(pancreas)[::3].copy()
    velocity.embed(cells)
    return cells


def expected(cells: AnnData) -> AnnData:
    """Cells whose layers are the counts expected of their totals, by the true ratios."""
    cells = cells.copy()
    s, u = cells.layers["spliced_true"], cells.layers["unspliced_true"]
    parts = split_counts(cells.layers["total"], s / (s + u))
    cells.layers["spliced"], cells.layers["unspliced"] = parts
    return cells


beside_scvelo = pytest.mark.skipif(
    tuple(map(int, np.__version__.split(".")[:2])) >= (2, 4),
    reason="scVelo's own loop over genes fails with numpy 2.4",
)


def scvelos(cells: AnnData) -> AnnData:
    """scVelo's stochastic model, start to end."""
    cells = cells.copy()
    with quiet_scvelo() as scv:
        scv.pp.normalize_per_cell(cells, enforce=True)
        scv.pp.moments(cells, n_pcs=None, n_neighbors=None)
        scv.tl.velocity(cells, mode="stochastic")
        scv.tl.velocity_graph(cells, n_jobs=1, show_progress_bar=False)
        scv.tl.velocity_embedding(cells, basis="umap")
    return cells


# scVelo's numbers


@beside_scvelo
@pytest.mark.parametrize("kind", ["real counts", "simulated counts", "expectations"])
def test_fit_is_scvelos_stochastic_model(kind, request):
    cells = request.getfixturevalue("real" if kind == "real counts" else "cells")
    cells = expected(cells) if kind == "expectations" else cells
    theirs = scvelos(cells)
    velocity.fit(cells, n_draws=0)
    # scVelo regresses in single precision, and 2 Mss - Ms cancels more without noise of counting
    rtol = 3e-6 if kind == "expectations" else 1e-6
    gamma = "velocity_gamma"
    np.testing.assert_allclose(cells.var[gamma], theirs.var[gamma], rtol=rtol)
    for name in ("velocity_qreg_ratio", "velocity_r2", "velocity_genes"):
        np.testing.assert_array_equal(cells.var[name], theirs.var[name])
    for name in ("Ms", "Mu"):
        np.testing.assert_array_equal(cells.layers[name], theirs.layers[name])
    ours, other = cells.layers["velocity"], theirs.layers["velocity"]
    assert (np.abs(ours - other) <= rtol * np.abs(other).max(0)).all()
    graphs = ("velocity_graph", "velocity_graph_neg")
    for name in graphs:
        assert theirs.uns[name].nnz > 10 * cells.n_obs
        assert abs(cells.uns[name] - theirs.uns[name]).max() < 1e-5  # square roots: rounding grows
    # an arrow sums exp(10 × graph) - 1, where it grows tenfold
    ours, other = cells.obsm["velocity_umap"], theirs.obsm["velocity_umap"]
    np.testing.assert_allclose(ours, other, rtol=0, atol=1e-5 * np.abs(other).max())
    # from the very same velocity there is no difference at all
    velocity.project(cells, theirs.layers["velocity"], theirs.var["velocity_genes"], overwrite=True)
    for name in graphs:
        assert (cells.uns[name] != theirs.uns[name]).nnz == 0
    np.testing.assert_array_equal(cells.obsm["velocity_umap"], other)


def test_gamma_is_generalised_least_squares_gene_by_gene():
    """Both equations, each over the standard deviation of its residual, in one numpy.lstsq."""
    rng = np.random.default_rng(0)
    ms, mu, mss, mus = rng.gamma(2, 1, (4, 200, 5))
    residual = mu - 0.4 * ms
    found = stochastic_gamma(ms, mu, mss, mus, residual)
    for g in range(5):
        x, y = ms[:, g], mu[:, g]
        sizes = (x / x.max() + y / y.max(), x)
        top = np.any([size >= np.percentile(size, PERCENTILE) for size in sizes], axis=0)
        x2, y2 = 2 * mss[:, g] - x, 2 * mus[:, g] + y
        spread = (y2 - np.linalg.lstsq(x2[:, None], y2)[0] * x2).std()
        parts = [(a / residual[:, g].std(), b / spread) for a, b in ((x[top], x2), (y[top], y2))]
        a, b = map(np.concatenate, parts)
        assert found[g] == pytest.approx(np.linalg.lstsq(a[:, None], b)[0][0], rel=1e-9)
    assert stochastic_gamma(*np.zeros((5, 4, 1))) == 0  # nothing decides it


def test_velocity_is_the_residual_of_the_references_line(cells, fitted):
    reference = AnnData(var=pd.DataFrame(index=cells.var_names))
    reference.var["velocity_gamma"] = cells.var["gamma_true"]
    reference.var["velocity_genes"] = np.arange(cells.n_vars) % 2 == 0
    velocity.fit(cells, reference=reference)
    line = np.float32(cells.var["gamma_true"]) * cells.layers["Ms"]
    np.testing.assert_array_equal(cells.layers["velocity"], cells.layers["Mu"] - line)
    np.testing.assert_array_equal(cells.var["velocity_genes"], reference.var["velocity_genes"])
    np.testing.assert_array_equal(cells.layers["Ms"], fitted.layers["Ms"])
    assert np.abs(cells.layers["velocity"] - fitted.layers["velocity"]).max() > 0.1


@pytest.mark.parametrize("how", ["counts", "expectations", "dense"])
def test_layers_stay_as_they_are(cells, how):
    cells = expected(cells) if how == "expectations" else cells
    if how == "dense":
        for name in ("spliced", "unspliced"):
            cells.layers[name] = cells.layers[name].toarray()
    before = cells.copy()
    velocity.fit(cells, n_draws=2)
    for name in before.layers:
        assert type(cells.layers[name]) is type(before.layers[name])
        assert abs(cells.layers[name] - before.layers[name]).max() == 0, name
    assert abs(cells.X - before.X).max() == 0
    assert abs(cells.obsp["distances"] - before.obsp["distances"]).max() == 0
    assert set(cells.layers) - set(before.layers) == {"Ms", "Mu", "velocity"}
    assert set(cells.obs) - set(before.obs) == {"velocity_self_transition"}


# draws


@pytest.fixture
def few():
    """Expected counts of totals 0 to 6, 30 × 4, and the totals."""
    rng = np.random.default_rng(0)
    total = sparse.csr_matrix(rng.integers(0, 7, (30, 4)), dtype=np.float32)
    return *split_counts(total, rng.random((30, 4))), total


def test_binomial_draws_add_up_to_the_total(few):
    spliced, unspliced, total = few
    drawn = [(s.toarray(), u.toarray()) for s, u in draws(spliced, unspliced, 2000, seed=0)]
    s, u = np.stack(drawn, axis=1)
    assert (s + u == total.toarray()).all()
    assert (s == np.rint(s)).all() and s.min() == 0 and u.min() == 0
    n = np.maximum(total.toarray(), 1)
    p = spliced.toarray() / n
    variance = n * p * (1 - p)
    z = (s.mean(0) - spliced.toarray()) / np.sqrt(np.maximum(variance, 1e-9) / 2000)
    assert np.abs(z).max() < 4.5  # of 120
    assert s.var(0).sum() == pytest.approx(variance[total.toarray() > 0].sum(), rel=0.02)


def test_poisson_draws_where_totals_are_not_whole(few):
    spliced, unspliced, _ = few
    spliced, unspliced = 1.37 * spliced, 1.37 * unspliced
    drawn = [(s.toarray(), u.toarray()) for s, u in draws(spliced, unspliced, 2000, seed=0)]
    for layer, wanted in zip(np.stack(drawn, axis=1), (spliced, unspliced), strict=True):
        assert (layer == np.rint(layer)).all()
        z = (layer.mean(0) - wanted.toarray()) / np.sqrt(np.maximum(wanted.toarray(), 1e-9) / 2000)
        assert np.abs(z).max() < 4.5
        assert layer.var(0).sum() == pytest.approx(wanted.sum(), rel=0.02)


@pytest.mark.parametrize("depth", [1.0, 1.37])
def test_overdispersed_draws(few, depth):
    r"""Mean and variance of a beta-binomial with concentration c, given n or a Poisson total t.

    Given n, :math:`n p (1 - p) (1 + (n - 1) / (1 + c))`; given t, :math:`t p + t^2 p (1 - p) /
    (1 + c)`. Of the sum :math:`s + u`, the total itself, or its Poisson variance.
    """
    spliced, unspliced, _ = few
    c = np.array([0.5, 2.0, 8.0, 50.0])
    pair = depth * spliced, depth * unspliced
    drawn = [(s.toarray(), u.toarray()) for s, u in draws(*pair, 4000, 0, concentration=c)]
    s, u = np.stack(drawn, axis=1)
    t = (pair[0] + pair[1]).toarray()
    p = pair[0].toarray() / np.maximum(t, 1)
    if depth == 1:
        assert (s + u == t).all()
        variance = t * p * (1 - p) * (1 + (t - 1) / (1 + c))
    else:
        assert (s + u).var(0).sum() == pytest.approx(t.sum(), rel=0.02)
        p = pair[0].toarray() / np.where(t > 0, t, 1)
        variance = t * p + t**2 * p * (1 - p) / (1 + c)
    z = (s.mean(0) - pair[0].toarray()) / np.sqrt(np.maximum(variance, 1e-9) / 4000)
    assert np.abs(z).max() < 4.5  # of 120
    np.testing.assert_allclose(s.var(0).sum(0), variance.sum(0), rtol=0.03)  # each gene's own c


def test_what_was_counted_is_never_drawn(few, cells):
    _, _, total = few
    expectation = 0.3 * total  # as from spliced counts: whole spliced, fractions unspliced
    for s, u in draws(spliced=total, unspliced=expectation, n_draws=5, seed=0):
        assert (s != total).nnz == 0
        assert (u.data == np.rint(u.data)).all()
    counts = cells.layers["spliced"], cells.layers["unspliced"]
    several, none = (slopes(cells, *counts, n_draws=n) for n in (20, 0))
    np.testing.assert_array_equal(several, none)


def test_draws_follow_their_seed(cells):
    layers = expected(cells).layers
    pair = layers["spliced"], layers["unspliced"]
    first, again, other = (slopes(cells, *pair, n_draws=2, seed=seed)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_draws_undo_the_bias_of_expectations():
    """Known ratios × totals of 1,000 simulated cells: what draws are for.

    Median distance |log slope ratio| to the slopes of the true counts: 0.08 from draws, 0.30 from
    expectations, all of it upwards. Expectations also pass as velocity genes where counts do not.
    """
    cells = sv.data.prepare(sv.data.simulate(n_obs=1000, n_vars=200, seed=2))
    velocity.embed(cells, umap=False)
    counted = slopes(cells, cells.layers["spliced"], cells.layers["unspliced"])
    layers = expected(cells).layers
    drawn, plain = (
        slopes(cells, layers["spliced"], layers["unspliced"], n_draws=n) for n in (5, 0)
    )
    genes, of_draws, of_plain = ((x[2] > 0.01) & (x[1] > 0.01) for x in (counted, drawn, plain))
    both = genes & of_draws & of_plain
    assert both.sum() > 50
    from_draws, from_plain = (np.log(x[0][both] / counted[0][both]) for x in (drawn, plain))
    assert np.median(np.abs(from_draws)) < 0.1 < 0.25 < np.median(np.abs(from_plain))
    assert abs(np.median(from_draws)) < 0.03 < 0.25 < np.median(from_plain)
    true = cells.var["gamma_true"].to_numpy()[both]
    errors = [np.median(np.abs(np.log(x[0][both] / true))) for x in (counted, drawn, plain)]
    assert max(errors[:2]) < 0.11 and errors[2] > 0.15
    assert abs(of_draws.sum() - genes.sum()) < 10 < 60 < of_plain.sum() - genes.sum()


def test_overdispersed_counts_want_overdispersed_draws():
    """Simulated cells whose counts are drawn about known expectations with concentration 5.

    Median log slope ratio to the slopes of these counts: −0.02 from draws like them, 0.21 from
    binomial draws.
    """
    cells = sv.data.prepare(sv.data.simulate(n_obs=1000, n_vars=200, seed=2))
    velocity.embed(cells, umap=False)
    layers = expected(cells).layers
    pair, c = (layers["spliced"], layers["unspliced"]), np.full(cells.n_vars, 5.0)
    counted = slopes(cells, *next(draws(*pair, 1, seed=1, concentration=c)))
    alike, binomial = (slopes(cells, *pair, n_draws=5, concentration=x) for x in (c, None))
    genes = np.logical_and.reduce([(x[2] > 0.01) & (x[1] > 0.01) for x in (counted, binomial)])
    assert genes.sum() > 50
    from_alike, from_binomial = (np.log(x[0] / counted[0])[genes] for x in (alike, binomial))
    assert abs(np.median(from_alike)) < 0.04 < 0.15 < np.median(from_binomial)
    assert np.median(np.abs(from_alike)) < 0.6 * np.median(np.abs(from_binomial))


# what reads it


@pytest.mark.slow
@beside_scvelo
def test_scvelo_says_of_it_what_it_says_of_its_own(fitted):
    theirs = scvelos(fitted)
    with quiet_scvelo() as scv:
        for cells in (fitted, theirs):
            scv.tl.velocity_confidence(cells)
            scv.tl.velocity_pseudotime(cells)
        for name in ("velocity_length", "velocity_confidence", "velocity_pseudotime"):
            np.testing.assert_allclose(fitted.obs[name], theirs.obs[name], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_scvelo_reads_and_draws_it(fitted):
    with quiet_scvelo() as scv:
        scv.tl.velocity_confidence(fitted)
        scv.tl.velocity_pseudotime(fitted)
        assert fitted.obs["velocity_confidence"].between(-1, 1).all()
        assert fitted.obs["velocity_pseudotime"].between(0, 1).all()

        arrows = scv.pl.velocity_embedding(fitted, basis="umap", show=False).collections[0]
        drawn = np.column_stack([arrows.U, arrows.V])
        cosine = (drawn * fitted.obsm["velocity_umap"]).sum(1)
        norms = np.linalg.norm(drawn, axis=1) * np.linalg.norm(fitted.obsm["velocity_umap"], axis=1)
        np.testing.assert_allclose(cosine, norms, rtol=1e-5)
        grid = scv.pl.velocity_embedding_grid(fitted, basis="umap", show=False).collections[0]
        assert np.isfinite(grid.U).all() and len(grid.U) > 100
        lines = scv.pl.velocity_embedding_stream(fitted, basis="umap", show=False).collections[0]
        assert len(lines.get_segments()) > 100


@pytest.mark.slow
@pytest.mark.skipif(
    int(pd.__version__.split(".")[0]) >= 3, reason="scVelo's own portraits fail with pandas 3"
)
def test_scvelo_draws_its_steady_state(fitted):
    with quiet_scvelo() as scv:
        gene = fitted.var_names[fitted.var["velocity_genes"]][0]
        portrait = scv.pl.velocity(fitted, [gene], show=False).figure.axes[0]
        x, y = portrait.lines[0].get_xydata().T
        np.testing.assert_allclose(y, fitted.var.loc[gene, "velocity_gamma"] * x, rtol=1e-5)


@pytest.mark.slow
def test_cellrank_reads_it(cells, monkeypatch):
    cellrank = pytest.importorskip("cellrank")
    # CellRank 2.0.7 names arguments as numpy before 2.3 did (its issue 1272)
    equal = np.testing.assert_array_equal
    monkeypatch.setattr(np.testing, "assert_array_equal", lambda x, y, **kw: equal(x, y, **kw))
    velocity.fit(cells, vkey="v")
    kernel = cellrank.kernels.VelocityKernel(cells, attr="layers", xkey="Ms", vkey="v")
    kernel.compute_transition_matrix(show_progress_bar=False)
    transitions = kernel.transition_matrix.toarray()
    np.testing.assert_allclose(transitions.sum(1), 1)
    assert ((transitions > 0) <= (cells.obsp["connectivities"].toarray() > 0)).all()
    # it steps where velocity points
    genes = cells.var["v_genes"].to_numpy()
    here, way = cells.layers["Ms"][:, genes], cells.layers["v"][:, genes]
    step = transitions @ here - here
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(step, way, strict=True)]
    assert np.mean(r) > 0.3 and np.mean(np.array(r) > 0) > 0.9


def test_nothing_is_said(cells, capsys, recwarn):
    velocity.embed(cells, overwrite=True)
    velocity.fit(expected(cells), n_draws=1)
    assert capsys.readouterr() == ("", "")
    assert [str(w.message) for w in recwarn if w.category is not DeprecationWarning] == []


# graph and embedding


def test_embed_changes_only_what_it_adds(cells):
    bare = AnnData(obs=cells.obs, var=cells.var, layers=cells.layers)
    velocity.embed(bare)
    np.testing.assert_array_equal(bare.obsm["X_umap"], cells.obsm["X_umap"])  # the seed decides
    assert (bare.layers["total"] != cells.layers["total"]).nnz == 0
    umap, pca = cells.obsm["X_umap"].copy(), cells.obsm["X_pca"].copy()
    velocity.embed(cells, layer="spliced", umap=False, overwrite=True)
    np.testing.assert_array_equal(cells.obsm["X_umap"], umap)
    assert np.abs(cells.obsm["X_pca"] - pca).max() > 0.1


def test_arrows_are_the_expected_step(cells, fitted):
    """By hand for one cell: Σ (p_j - mean p) × unit vector to j, p = scVelo's transitions."""
    with quiet_scvelo() as scv:
        p = scv.utils.get_transition_matrix(fitted, use_negative_cosines=True).tolil()
    p.setdiag(0)
    row = p.tocsr()[7]
    ways = fitted.obsm["X_umap"][row.indices] - fitted.obsm["X_umap"][7]
    unit = ways / np.linalg.norm(ways, axis=1, keepdims=True)
    step = (row.data - row.data.mean()) @ unit
    arrow = fitted.obsm["velocity_umap"][7]
    cosine = step @ arrow / np.linalg.norm(step) / np.linalg.norm(arrow)
    assert cosine == pytest.approx(1, abs=1e-5)
    velocity.project(cells, fitted.layers["velocity"], xkey="spliced_true")  # all genes
    assert cells.var["velocity_genes"].all()


def test_a_cell_that_goes_nowhere_has_no_arrow(cells):
    vectors = cells.layers["velocity_true"].copy()
    vectors[3] = 0
    velocity.project(cells, vectors, xkey="spliced_true")
    assert (cells.obsm["velocity_umap"][3] == 0).all()
    assert np.isfinite(cells.obsm["velocity_umap"]).all()


# directions


def test_directions_of_the_compass():
    north, east, south, west = arrows = np.array([[0, 1], [1, 0], [0, -1], [-1, 0]])
    np.testing.assert_array_equal(velocity.direction_classes(arrows), [0, 1, 2, 3])
    between = np.array([north + east, east + south, south + west, west + north])
    np.testing.assert_array_equal(velocity.direction_classes(between), [0, 1, 2, 3])
    np.testing.assert_array_equal(velocity.direction_classes(between, rotation=44), [0, 1, 2, 3])
    np.testing.assert_array_equal(velocity.direction_classes(between, rotation=46), [1, 2, 3, 0])


# whole numbers: a direction closer to an axis than rounding sees may fall to either side of it
plane = arrays(np.float64, (5, 2), elements=st.integers(-(10**6), 10**6).map(float))


@given(plane)
def test_a_quarter_turn_is_the_next_class(vectors):
    """Clockwise (x, y) → (y, -x), which is exact; at the seam, 360° must not become class 4."""
    vectors = np.where(vectors == 0, 0.0, vectors)  # -0.0 is another angle
    moving = vectors.any(axis=1)
    first = velocity.direction_classes(vectors)
    turned = np.column_stack([vectors[:, 1], -vectors[:, 0]])
    second = velocity.direction_classes(np.where(turned == 0, 0.0, turned))
    assert set(first) <= {0, 1, 2, 3}
    np.testing.assert_array_equal(second[moving], (first[moving] + 1) % 4)


@given(st.floats(-1e-9, 1e-9), st.floats(0, 360))
def test_there_is_no_fifth_class(x, rotation):
    assert velocity.direction_classes(np.array([[x, 1.0]]), rotation)[0] in range(4)


@settings(deadline=None)
@given(
    arrays(np.int64, (4, 3), elements=st.integers(0, 10_000)),
    arrays(np.float64, (4, 3), elements=st.floats(0, 1)),
)
def test_split_counts_sum_to_the_total(total, ratio):
    s, u = (x.toarray() for x in split_counts(total, ratio))
    np.testing.assert_allclose(s + u, total, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(s, ratio * total, rtol=1e-6, atol=1e-6)
    assert s.min() >= 0 and u.min() >= 0
    kept, implied = (x.toarray() for x in split_counts(total, ratio, input="spliced", floor=0.1))
    np.testing.assert_array_equal(kept, total)
    r = np.maximum(ratio, 0.1)
    np.testing.assert_allclose(implied, total * (1 - r) / r, rtol=1e-5, atol=1e-6)


# what is refused


def test_velocity_genes_are_needed(cells):
    """Unspliced counts that have nothing to do with the spliced ones, the same in all cells."""
    cells.layers["unspliced"] = sparse.csr_matrix(np.ones(cells.shape, dtype=np.float32))
    with pytest.raises(
        ValueError, match=r"There are \d velocity genes .*'unspliced'; velocity nee"
    ):
        velocity.fit(cells)
    assert "velocity" not in cells.layers and "Ms" not in cells.layers


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
@pytest.mark.parametrize("layer", ["spliced", "unspliced"])
def test_what_no_count_can_be(cells, layer, value):
    counts = cells.layers[layer].tolil()
    counts[5, 4] = value
    cells.layers[layer] = counts.tocsr()
    gene = cells.var_names[4]
    with pytest.raises(ValueError, match=rf"Layer '{layer}' holds {value} in gene {gene}; give c"):
        velocity.fit(cells)
    with pytest.raises(ValueError, match=rf"Layer '{layer}' holds {value}"):
        velocity.embed(cells, layer, overwrite=True)


def test_empty_and_missing_layers(cells):
    cells.layers["nothing"] = sparse.csr_matrix(cells.shape, dtype=np.float32)
    with pytest.raises(ValueError, match="Layer 'nothing' holds no count at all"):
        velocity.fit(cells, unspliced="nothing")
    with pytest.raises(KeyError, match=r"no layer 'elsewhere'; there are \['nothing', 'spliced'"):
        velocity.fit(cells, spliced="elsewhere")
    with pytest.raises(KeyError, match="no layer 'elsewhere'"):
        velocity.embed(cells, "elsewhere", overwrite=True)
    with pytest.raises(KeyError, match="no layer 'Ms'"):
        velocity.project(cells, np.ones(cells.shape))


def test_concentrations(cells):
    predicted = expected(cells)
    with pytest.raises(KeyError, match=r"no column 'spread' in var; there are \["):
        velocity.fit(predicted, concentration="spread")
    for value in (0.0, -1.0, np.nan, np.inf):
        predicted.var["spread"] = np.where(np.arange(cells.n_vars) == 7, value, 9.0)
        with pytest.raises(
            ValueError, match=rf"'spread'\] holds {value} for gene {cells.var_names[7]}; g"
        ):
            velocity.fit(predicted, concentration="spread")
    assert "velocity" not in predicted.layers and "Ms" not in predicted.layers
    predicted.var["spread"] = 1e9  # no spread is left: binomial
    other = predicted.copy()
    velocity.fit(predicted, n_draws=3, concentration="spread")
    velocity.fit(other, n_draws=30)
    genes = other.var["velocity_genes"]
    close = predicted.var["velocity_gamma"] / other.var["velocity_gamma"]
    assert close[genes].sub(1).abs().median() < 0.05
    predicted.var["spread"] = 1.0
    velocity.fit(predicted, n_draws=3, concentration="spread", overwrite=True)
    far = predicted.var["velocity_gamma"] / other.var["velocity_gamma"]
    assert far[genes].median() < 0.9
    counts = cells.copy()
    counts.var["spread"] = 1.0
    velocity.fit(counts, concentration="spread")  # what was counted is taken as it is
    velocity.fit(cells)
    np.testing.assert_array_equal(counts.layers["velocity"], cells.layers["velocity"])


def test_missing_embedding_and_graph(cells):
    with pytest.raises(KeyError, match=r"no obsm\['X_tsne'\]; run sv.velocity.embed or name a"):
        velocity.fit(cells, basis="tsne")
    bare = AnnData(obs=cells.obs, var=cells.var, layers=cells.layers, obsm=dict(cells.obsm))
    with pytest.raises(KeyError, match="no neighbour graph"):
        velocity.fit(bare)


def test_graph_of_other_cells(cells):
    with pytest.raises(
        ValueError, match=r"on other cells: it has \d+\.\d neighbours a cell and .* 29"
    ):
        velocity.fit(cells[::2].copy())
    velocity.embed(half := cells[::2].copy(), umap=False, overwrite=True)
    velocity.fit(half)
    assert half.layers["velocity"].shape == (200, cells.n_vars)


def test_names_that_are_taken(fitted):
    with pytest.raises(ValueError, match="layers already holds Ms, Mu, velocity; give overwrite"):
        velocity.fit(fitted)
    with pytest.raises(ValueError, match="layers already holds Ms, Mu; give"):
        velocity.fit(fitted, vkey="other")
    with pytest.raises(ValueError, match="layers already holds velocity"):
        velocity.project(fitted, fitted.layers["velocity"])
    with pytest.raises(ValueError, match="obsm already holds X_pca, X_umap"):
        velocity.embed(fitted)
    del fitted.obsm["X_pca"], fitted.obsm["X_umap"]
    with pytest.raises(ValueError, match="uns already holds neighbors"):
        velocity.embed(fitted)


def test_overwriting_is_as_fitting_anew(cells, fitted):
    before = fitted.copy()
    velocity.project(fitted, fitted.layers["velocity_true"], overwrite=True)
    velocity.fit(fitted, overwrite=True)
    np.testing.assert_array_equal(fitted.obsm["velocity_umap"], before.obsm["velocity_umap"])
    assert (fitted.uns["velocity_graph"] != before.uns["velocity_graph"]).nnz == 0
    assert fitted.uns["velocity_params"] == before.uns["velocity_params"]


def test_other_genes_than_the_reference(cells, fitted):
    with pytest.raises(ValueError, match=r"genes of the reference.*1 missing"):
        velocity.fit(cells[:, 1:].copy(), reference=fitted)
    with pytest.raises(KeyError, match=r"no fit: var \['v_gamma', 'v_genes'\]"):
        velocity.fit(cells, vkey="v", reference=fitted)


def test_missing_velocities(cells):
    vectors = cells.layers["velocity_true"].copy()
    vectors[:, 2] = np.nan
    velocity.project(cells, vectors, xkey="spliced_true")
    assert not cells.var["velocity_genes"].iloc[2] and cells.var["velocity_genes"].sum() > 2
    vectors[3, 5] = np.nan
    name = cells.var_names[5]
    with pytest.raises(ValueError, match=f"infinite in 1 of 400 cells of gene {name}"):
        velocity.project(cells, vectors, xkey="spliced_true", overwrite=True)
    vectors[:, 5] = np.inf
    with pytest.raises(ValueError, match=f"infinite in 400 of 400 cells of gene {name}"):
        velocity.project(cells, vectors, xkey="spliced_true", overwrite=True)
    for value in (np.nan, 0.0, 1.0):
        with pytest.raises(ValueError, match=r"Velocity 'v' points nowhere: no gene has"):
            velocity.project(cells, np.full(cells.shape, value), vkey="v", xkey="spliced_true")
    with pytest.raises(ValueError, match=r"shape \(400, 3\); the cells have \(400, "):
        velocity.project(cells, vectors[:, :3], vkey="v", xkey="spliced_true")


@pytest.mark.parametrize("value", [-0.01, 1.01, np.nan])
def test_ratios_outside_0_and_1(value):
    ratio = np.full((2, 3), 0.5)
    ratio[1, 2] = value
    with pytest.raises(ValueError, match=rf"ratio holds {value}, first in gene 2; .* in \[0, 1\]"):
        split_counts(np.ones((2, 3)), ratio)


@pytest.mark.parametrize("vectors", [np.ones((3, 3)), np.ones(2), [[np.nan, 1]], [[np.inf, 1]]])
def test_arrows_that_are_none(vectors):
    with pytest.raises(ValueError, match="vectors must be finite and"):
        velocity.direction_classes(vectors)
