"""What the head starts from, and its refit by empirical Bayes, on simulated cells."""

import numpy as np
import pytest
import scvi
import torch
from scipy import sparse
from scipy.special import expit, logit
from sklearn.decomposition import PCA

import splicedvae as sv
from splicedvae import refit
from splicedvae._regression import hierarchical_binomial
from splicedvae.head import RatioHead

N, G = 240, 40
FAST = {"max_epochs": 3, "accelerator": "cpu", "enable_progress_bar": False}
REFIT = tuple(
    f"head.{n}" for n in ("output.weight", "output.bias", "own_weight", "component_weight")
)


@pytest.fixture(scope="module")
def cells():
    adata = sv.data.prepare(sv.data.simulate(n_obs=N, n_vars=120), n_top_genes=G)
    adata.obs["donor"] = np.where(np.arange(N) % 2, "a", "b")
    adata.obs["age"] = np.linspace(0, 1, N)
    return adata


@pytest.fixture(scope="module")
def parts(cells):
    return sv.data.split(cells)


def trained(cells, parts, setup=None, refit_head=False, lr=1e-3, **kwargs):
    scvi.settings.seed = 0
    sv.SplicedVAE.setup_anndata(cells, **(setup or {}))
    model = sv.SplicedVAE(cells, **kwargs)
    model.train(split=parts[:2], refit_head=refit_head, lr=lr, **FAST)
    return model


def ratios(model, **kwargs):
    return model.get_splicing_ratio(return_numpy=True, **kwargs).astype(float)


def weights(model):
    return {key: model.module.state_dict()[key].clone() for key in REFIT}


def log_normalised(x, depth):
    return np.log1p(depth * x / x.sum(1, keepdims=True))


def with_counts(cells, **layers):
    """The same cells with other counts, of which setup composes the total."""
    changed = cells.copy()
    del changed.layers["total"]
    for name, values in layers.items():
        changed.layers[name] = sparse.csr_matrix(values)
    return changed


# the start


def test_components_against_scikit_learn():
    rng = np.random.default_rng(0)
    x = rng.poisson(rng.gamma(1, 3, 30), (80, 30)) + 1
    layers = [sparse.csr_matrix(counts) for counts in (x, x, rng.poisson(1, (80, 30)))]
    _, _, mean, _, components, *_ = refit.starting_values(*layers, 5)
    own = log_normalised(x, np.median(x.sum(1)))
    scores = (own - mean.numpy()) @ components.numpy()
    np.testing.assert_allclose(scores.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(scores.T), np.eye(5), atol=1e-4)
    gram = components.numpy().T @ components.numpy()
    np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-4)
    expected = PCA(5, svd_solver="full", whiten=True).fit_transform(own)
    expected *= np.sign((expected * scores).sum(0))
    np.testing.assert_allclose(scores, expected, atol=1e-3)


@pytest.mark.parametrize(("n_obs", "n_vars"), [(6, 20), (20, 6)])
def test_fewer_cells_or_genes_than_components(n_obs, n_vars):
    x = np.random.default_rng(0).poisson(3, (n_obs, n_vars)) + 1
    values = refit.starting_values(*[sparse.csr_matrix(x)] * 3, 30)
    assert values[4].shape == (n_vars, 5)
    head = RatioHead(2, n_vars, n_components=30)
    assert head.component_weight.shape == (n_vars, min(30, n_vars - 1))
    head.initialise(*values)
    assert torch.equal(head.components[:, :5], values[4]) and (head.components[:, 5:] == 0).all()


def test_cells_that_are_alike_have_no_components():
    """Only two of the cells differ, so beyond one direction there is only rounding."""
    x = np.tile(np.arange(1, 9), (30, 1))
    x[0] = x[0, ::-1]
    values = refit.starting_values(*[sparse.csr_matrix(x)] * 3, 5)
    assert values[4].shape == (8, 1)


def test_logit_of_the_head():
    torch.manual_seed(0)
    head = RatioHead(2, 5, n_components=3, n_cats=(2,), n_continuous_cov=1)
    directions, mean, std = torch.randn(5, 3), torch.randn(5), torch.rand(5) + 1
    ones = torch.ones(5)
    head.initialise(torch.randn(5), torch.tensor(50.0), mean, std, directions, ones, ones)
    for weight in (head.output.weight, head.own_weight, head.component_weight):
        torch.nn.init.normal_(weight)
    z, own, cont = torch.randn(7, 2), torch.randn(7, 5), torch.randn(7, 1)
    cat = torch.arange(7)[:, None] % 2
    expected = head.output(torch.cat([z, cont, cat == 0, cat == 1], 1))
    expected = expected + (own - mean) @ directions @ head.component_weight.T
    expected = expected + (own - mean) / std * head.own_weight
    torch.testing.assert_close(head(z, own, (cat,), cont), expected)
    assert not head.component_weight.requires_grad
    none = RatioHead(2, 5, own_total=False)
    assert none.components.shape == (5, 0)
    torch.testing.assert_close(none(z, own), none.output(z))


def test_head_normalises_as_training_does(cells):
    counts = sparse.csr_matrix(cells.layers["total"])
    head = RatioHead(2, G)
    head.depth.fill_(321.0)
    x = counts.toarray()
    x[0] = 0  # a cell without counts stays zero
    sparse_one = refit._log_normalised(sparse.csr_matrix(x), 321.0)
    dense = head.log_normalise(torch.tensor(x, dtype=torch.float32))
    np.testing.assert_allclose(dense, sparse_one.toarray(), rtol=1e-5)
    np.testing.assert_allclose(dense[1:], log_normalised(x[1:], 321.0), rtol=1e-5)


# the refit


def test_training_ends_with_a_refit_that_leaves_the_rest(cells, parts):
    model = trained(cells, parts)
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    torch.manual_seed(0)
    elbo = model.get_elbo()
    refit.refit_head(model, parts[0])
    for key, value in model.module.state_dict().items():
        assert torch.equal(value, before[key]) is (key not in REFIT), key
    torch.manual_seed(0)
    assert model.get_elbo() == elbo
    first = weights(model)
    refit.refit_head(model, parts[0])  # the features are as they were: so is all else
    default = weights(trained(cells, parts, refit_head=None))
    for key, value in weights(model).items():
        assert torch.equal(value, first[key]) and torch.equal(value, default[key]), key


@pytest.mark.parametrize("reads", [None, ("latent",), ("components",)])
def test_ratios_are_those_of_the_hierarchical_regressions(cells, parts, reads):
    setup = {"continuous_covariate_keys": ["age"]}
    model, train = trained(cells, parts, setup, refit_head=None, n_components=4), parts[0]
    if reads:
        refit.refit_head(model, train, reads)
    head = model.module.head
    own = log_normalised(cells.layers["total"].toarray(), head.depth.item())
    assert head.depth.item() == np.median(cells.layers["total"][train].toarray().sum(1))
    own = (own - own[train].mean(0)) / own[train].std(0)
    scores = (own * head.own_std.numpy()) @ head.components.numpy()
    s, u = (sparse.csc_matrix(cells.layers[key])[train] for key in ("spliced", "unspliced"))
    mean = refit.starting_values(*[s + u, s, u])[0].numpy()
    standardised = sparse.csc_matrix(own[train]), np.zeros(G), np.ones(G)
    features = {"latent": model.get_latent_representation(), "components": scores}
    logits = []
    for name in reads or features:
        x = np.column_stack([features[name], cells.obs["age"]])
        x = (x - x[train].mean(0)) / x[train].std(0)
        loadings = own[train].T @ x[train] / len(train)
        fitted = hierarchical_binomial(x[train], standardised, s, s + u, mean, loadings)
        logits.append(fitted[:, 0] + x @ fitted[:, 1:-1].T + own * fitted[:, -1])
    expected = np.mean(logits, axis=0)
    np.testing.assert_allclose(ratios(model), expit(expected), atol=1e-5)
    assert expected.std(0).max() > 0.1


def test_unknown_regression_is_refused(cells, parts):
    model = trained(cells, parts)
    before = weights(model)
    with pytest.raises(ValueError, match="latent, components"):
        refit.refit_head(model, parts[0], ("latent", "umap"))
    for key, value in weights(model).items():
        assert torch.equal(value, before[key]), key


def test_cells_without_spliced_or_unspliced_counts_do_not_matter(cells, parts):
    u = cells.layers["unspliced"].toarray()
    u[parts[0][:20]] = 0
    s = cells.layers["spliced"].toarray()
    s[parts[0][20:30]] = 0
    model = trained(with_counts(cells, spliced=s, unspliced=u), parts)
    refit.refit_head(model, parts[0])
    all_cells = weights(model)
    refit.refit_head(model, parts[0][30:])
    for key, value in weights(model).items():
        assert torch.equal(value, all_cells[key]), key
    with pytest.raises(ValueError, match="No training cell has both"):
        refit.refit_head(model, parts[0][:30])


def test_many_cells_are_drawn_from(cells, parts):
    model = trained(cells, parts)
    drawn = []
    for seed in (0, 0, 1):
        refit.refit_head(model, parts[0], n_cells=100, seed=seed)
        drawn.append(weights(model)["head.output.weight"])
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    cells_of_seed_1 = np.random.default_rng(1).choice(parts[0], 100, replace=False)
    refit.refit_head(model, np.sort(cells_of_seed_1))
    torch.testing.assert_close(weights(model)["head.output.weight"], drawn[2])


def test_softmax_and_sigmoid_say_the_same(cells, parts):
    sigmoid = trained(cells, parts)
    softmax = sv.SplicedVAE(cells, head_activation="softmax")
    state = sigmoid.module.state_dict()
    shared = {key: value for key, value in state.items() if not key.startswith("head.output")}
    softmax.module.load_state_dict(shared, strict=False)
    softmax.is_trained = True
    softmax.module.eval()
    for model in (sigmoid, softmax):
        refit.refit_head(model, parts[0])
    np.testing.assert_allclose(ratios(softmax), ratios(sigmoid), atol=1e-5)


def test_an_effect_of_the_batch_is_found():
    """In one batch 60 % of the unspliced molecules count as spliced; the totals do not tell."""
    adata = sv.data.simulate(n_obs=600, n_vars=400)
    parts = sv.data.split(adata)
    s, u = (adata.layers[key].toarray().astype(int) for key in ("spliced", "unspliced"))
    is_b = np.arange(600) % 2 == 1
    moved = np.random.default_rng(0).binomial(u, 0.6 * is_b[:, None])
    known = (u.sum(0) > 20) & (s.sum(0) > 20)
    pooled_s, pooled_u = s.sum(0)[known], u.sum(0)[known]
    shift = np.log((pooled_s + 0.6 * pooled_u) / (0.4 * pooled_u)) - np.log(pooled_s / pooled_u)
    adata.obs["donor"], adata.obs["age"] = np.where(is_b, "b", "a"), np.linspace(0, 1, 600)
    for name, counts in (("spliced", s + moved), ("unspliced", u - moved)):
        adata.layers[name] = sparse.csr_matrix(counts)
    setup = {"batch_key": "donor", "continuous_covariate_keys": ["age"]}
    model = trained(adata, parts, setup, refit_head=None)
    a, b = (logit(ratios(model, transform_batch=batch)[:, known]) for batch in "ab")
    found = (b - a).mean(0)
    np.testing.assert_allclose(found.mean(), shift.mean(), rtol=0.05)
    assert np.corrcoef(found, shift)[0, 1] > 0.7


@pytest.mark.parametrize("own_total", [True, False])
def test_a_batch_and_components_without_training_cells(cells, parts, own_total):
    """Features that are constant in training: nothing is learnt of them, and all stays finite."""
    adata = cells.copy()
    train, val = parts[0][:20], parts[0][20:]
    adata.obs["donor"] = np.where(np.isin(np.arange(N), train), "seen", "unseen")
    setup = {"batch_key": "donor"}
    model = trained(adata, (train, val), setup, refit_head=None, own_total=own_total)
    assert (model.module.head.components[:, 19:] == 0).all()
    assert np.isfinite(ratios(model)).all() and ratios(model)[train].std(0).max() > 0.01
    seen, unseen = (ratios(model, transform_batch=batch) for batch in ("seen", "unseen"))
    np.testing.assert_allclose(seen, unseen, atol=1e-4)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"head": "mlp2"},
        {"ratio_loss": "mse"},
        {"ratio_loss": "beta_binomial"},
        {"ratio_weight": 0.0},
        {"head": "mlp2", "head_activation": "softmax", "own_total": False},
    ],
)
def test_other_heads_and_losses_are_refit_only_when_asked(cells, parts, kwargs):
    """Without a learning rate the output layer stays zero unless it is refit."""
    model = trained(cells, parts, refit_head=None, lr=0.0, **kwargs)
    assert (model.module.head.output.weight == 0).all()
    asked = trained(cells, parts, refit_head=True, lr=0.0, **kwargs)
    assert (asked.module.head.output.weight != 0).any() and np.isfinite(ratios(asked)).all()


def test_only_the_first_training_ends_with_a_refit(cells, parts, tmp_path):
    model = trained(cells, parts, refit_head=None)
    model.save(str(tmp_path / "m"))
    loaded = sv.SplicedVAE.load(str(tmp_path / "m"), cells)
    np.testing.assert_array_equal(ratios(loaded), ratios(model))
    for again in (model, loaded):
        with torch.no_grad():
            again.module.head.output.weight.zero_()
        again.train(split=parts[:2], lr=0.0, **FAST)
        assert (again.module.head.output.weight == 0).all()
        again.train(split=parts[:2], lr=0.0, refit_head=True, **FAST)
        assert (again.module.head.output.weight != 0).any()


def test_refit_predicts_unseen_cells_better():
    adata = sv.data.prepare(sv.data.simulate(n_obs=600, n_vars=400))
    parts = sv.data.split(adata)
    scvi.settings.seed = 0
    sv.SplicedVAE.setup_anndata(adata)
    model = sv.SplicedVAE(adata)
    model.train(split=parts[:2], refit_head=False, **FAST | {"max_epochs": 10})
    mean = sv.baselines.GeneMean().fit(adata[parts[0]], adata[parts[1]]).mean_
    s, u = (adata.layers[key][parts[2]] for key in ("spliced", "unspliced"))

    def d2():
        return sv.metrics.ratio_report(s, u, ratios(model, indices=parts[2]), mean)["d2"]

    before = d2()
    refit.refit_head(model, parts[0])
    assert d2() > before + 0.01
