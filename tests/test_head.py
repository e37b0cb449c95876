"""The head: what it starts from, its weights with a learned prior, and what it makes of them."""

import numpy as np
import pytest
import scvi
import torch
from scipy import optimize, sparse
from scipy.special import expit, logit
from sklearn.decomposition import PCA
from torch.distributions import Normal, kl_divergence

import splicedvae as sv
from splicedvae import start
from splicedvae.head import GeneStatistics, HierarchicalLinear, PenalisedLinear, RatioHead
from splicedvae.head import ratio_loss as loss_of
from splicedvae.training import one_cycle, optimizer

N, G = 240, 40
FAST = {"max_epochs": 3, "accelerator": "cpu", "enable_progress_bar": False}


def trained(cells, parts, setup=None, training=None, **kwargs):
    scvi.settings.seed = 0
    sv.SplicedVAE.setup_anndata(cells, **(setup or {}))
    model = sv.SplicedVAE(cells, **kwargs)
    model.train(split=parts[:2], **FAST | (training or {}))
    return model


def ratios(model, **kwargs):
    return model.get_splicing_ratio(return_numpy=True, **kwargs).astype(float)


def log_normalised(x, depth):
    return np.log1p(depth * x / x.sum(1, keepdims=True))


def statistics_of(x, n_components=0):
    return start.gene_statistics(*[sparse.csr_matrix(x)] * 3, n_components)


def at_random(head):
    """The same head with weights of the size of 1."""
    torch.manual_seed(0)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter)
    return head


def with_counts(cells, **layers):
    """The same cells with other counts, of which setup composes the total."""
    changed = cells.copy()
    del changed.layers["total"]
    for name, values in layers.items():
        changed.layers[name] = sparse.csr_matrix(values)
    return changed


# what it starts from


def test_components_against_scikit_learn():
    rng = np.random.default_rng(0)
    x = rng.poisson(rng.gamma(1, 3, 30), (80, 30)) + 1
    given = statistics_of(x, 5)
    mean, components = given.own_mean.numpy(), given.components.numpy()[:, :5]
    own = log_normalised(x, np.median(x.sum(1)))
    scores = (own - mean) @ components
    np.testing.assert_allclose(scores.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(scores.T), np.eye(5), atol=1e-4)
    gram = components.T @ components
    np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-4)
    expected = PCA(5, svd_solver="full", whiten=True).fit_transform(own)
    expected *= np.sign((expected * scores).sum(0))
    np.testing.assert_allclose(scores, expected, atol=1e-3)
    correlations = [[np.corrcoef(g, s)[0, 1] for s in scores.T] for g in own.T]
    np.testing.assert_allclose(given.loadings[:, :5], correlations, atol=0.01)  # n − 1 and n


@pytest.mark.parametrize(("n_obs", "n_vars"), [(6, 20), (20, 6)])
def test_fewer_cells_or_genes_than_components(n_obs, n_vars):
    given = statistics_of(np.random.default_rng(0).poisson(3, (n_obs, n_vars)) + 1, 30)
    assert given.components.shape == given.loadings.shape == (n_vars, 5)
    head = RatioHead(2, n_vars, n_components=30)
    head.start(given)
    components, loadings = head.features.components, head.output.loadings
    assert components.shape == (n_vars, min(30, n_vars - 1))
    assert torch.equal(components[:, :5], given.components) and (components[:, 5:] == 0).all()
    # one unit for all loadings, a 1 before them; those of components that are not there stay 1
    torch.testing.assert_close(loadings[:, 1:6].std(0), torch.ones(5))
    assert (loadings[:, 0] == 1).all() and bool(head.started)


def test_cells_that_are_alike_have_no_components():
    """Only two of the cells differ, so beyond one direction there is only rounding."""
    x = np.tile(np.arange(1, 9), (30, 1))
    x[0] = x[0, ::-1]
    assert statistics_of(x, 5).components.shape == (8, 1)


def test_features_are_those_of_training(cells):
    x = cells.layers["total"].toarray()
    head = RatioHead(2, G, n_components=4)
    given = statistics_of(x, 4)
    head.start(given)
    x = np.vstack([np.zeros(G), x]).astype(np.float32)  # a cell without counts is at log(1) = 0
    (own,), components = head.features(torch.tensor(x))
    raw = log_normalised(x[1:].astype(float), float(given.depth))
    assert float(given.depth) == np.median(x[1:].sum(1))
    np.testing.assert_allclose(own[1:], (raw - raw.mean(0)) / raw.std(0), atol=1e-4)
    np.testing.assert_allclose(own[0], -raw.mean(0) / raw.std(0), atol=1e-4)
    expected = (raw - raw.mean(0)) @ given.components.numpy()[:, :4]
    np.testing.assert_allclose(components[1:], expected, atol=1e-3)


# one linear map, by hand


@pytest.mark.parametrize("copies", [1, 2])
def test_logit_of_each_gene_by_hand(copies):
    linear = HierarchicalLinear(3, 5, 2, own=True, n_covariates=1, copies=copies)
    at_random(linear).eval()
    h, own = torch.randn(7, 3), torch.randn(7, 5)
    weights = linear.mean[0] - (linear.mean[1] if copies == 2 else 0)
    for gene in range(5):
        expected = linear.bias[gene] + h[:, :2] @ linear.mixing @ weights[gene, 1:3]
        expected = expected + linear.covariate_width.exp() * h[:, 2] * weights[gene, 3]
        expected = expected + linear.own_width.exp() * own[:, gene] * weights[gene, 0]
        torch.testing.assert_close(linear(h, [own])[:, gene], expected)
    drawn = linear.draw(4)
    several = linear(h.expand(4, 7, 3), [own], drawn)
    for one, w in zip(several, drawn, strict=True):
        expected = linear.bias + h[:, :2] @ linear.mixing @ w[:, 1:3].T
        expected = expected + linear.covariate_width.exp() * h[:, 2:] * w[:, 3]
        torch.testing.assert_close(one, expected + linear.own_width.exp() * own * w[:, 0])


def test_logit_of_the_head():
    head = RatioHead(2, 5, n_components=3, n_cats=(2,), n_continuous_cov=1).eval()
    at_random(head.output)
    ones = torch.ones(5)
    head.start(
        GeneStatistics(
            torch.randn(5),
            torch.tensor(50.0),
            torch.randn(5),
            torch.rand(5) + 1,
            torch.randn(5, 3),
            torch.randn(5, 3),
            ones,
            ones,
            torch.tensor(1.0),
        )
    )
    z, x, cont = torch.randn(7, 2), torch.randint(0, 9, (7, 5)) + 1.0, torch.randn(7, 1)
    cat = torch.arange(7)[:, None] % 2
    own, components = head.features(x)
    expected = head.output(torch.cat([components, z, cont, cat == 0, cat == 1], 1), own)
    torch.testing.assert_close(head(z, x, (cat,), cont), expected)
    bare = at_random(RatioHead(2, 5, own_total=False, l2=0.0)).eval()
    torch.testing.assert_close(bare(z, x), z @ bare.output.mean[0].T + bare.output.bias)


def test_plain_weights_have_a_ridge_penalty():
    linear = at_random(PenalisedLinear(3, 5, own=True, copies=2, l2=30.0))
    norm = linear.mean.square().sum() + linear.own_weight.square().sum()
    torch.testing.assert_close(linear.penalty(), 15.0 * norm)
    assert PenalisedLinear(3, 5, own=False, copies=1, l2=0.0).penalty() == 0
    assert linear.draw(4) is None


# the prior


@pytest.mark.parametrize("copies", [1, 2])
def test_penalty_against_the_closed_forms(copies):
    linear = at_random(HierarchicalLinear(3, 5, 2, copies=copies))
    linear.loadings[:, 1:] = torch.randn(5, 2)
    scale = linear.log_scale.exp()[:, None].expand(5, 4)
    prior = Normal(linear.loadings @ linear.of_loadings, scale)
    posterior = Normal(linear.mean, (linear.log_variance / 2).exp())
    expected = kl_divergence(posterior, prior).sum()
    expected = expected + linear.bias.square().sum() / 2  # the gene means are 0 here
    expected = expected + linear.LOADING_PENALTY / 2 * linear.of_loadings.square().sum()
    apart = linear.mixing[~torch.eye(3, dtype=bool)] / linear.START
    expected = expected + linear.MIXING_PENALTY / 2 * apart.square().sum()
    half = linear.SCALE_DEGREES_OF_FREEDOM / 2
    precision = torch.distributions.Gamma(half, half)  # its density in the log of the precision
    log_precision = -2 * linear.log_scale

    def density(t):
        return precision.log_prob(t.exp()) + t

    at_one = density(torch.zeros(()))  # without its constant: 0 where the scale is 1
    expected = expected - (density(log_precision) - at_one).sum()
    torch.testing.assert_close(linear.penalty(), expected)


def test_logits_are_drawn_as_weights_would_be():
    """Local reparameterisation: mean and variance of the logit, and the loss by quadrature."""
    linear = at_random(HierarchicalLinear(3, 4, 2)).train()
    h, own = torch.randn(6, 3), torch.randn(6, 4)
    with torch.no_grad():
        drawn = torch.stack([linear(h, [own]) for _ in range(20_000)])
        weights = linear.draw(20_000)
        linear.eval()
        by_weights = torch.stack([linear(h, [own], w[None])[0] for w in weights[:4000]])
        mean = linear(h, [own])
    torch.testing.assert_close(drawn.mean(0), mean, atol=0.15, rtol=0.03)
    torch.testing.assert_close(drawn.std(0), by_weights.std(0), rtol=0.06, atol=0.02)
    # E[log(1 + exp(eta))] by Gauss and Hermite
    width = linear.own_width.exp()
    a, v = h @ linear.mixing, linear.log_variance[0].exp()
    variance = a.square() @ v[:, 1:].T + (width * own).square() * v[:, 0]
    nodes, masses = np.polynomial.hermite_e.hermegauss(60)
    points = mean + variance.sqrt() * torch.tensor(nodes, dtype=torch.float32)[:, None, None]
    masses = torch.tensor(masses / masses.sum(), dtype=torch.float32)[:, None, None]
    expected = (masses * torch.nn.functional.softplus(points)).sum(0).detach()
    found = torch.nn.functional.softplus(drawn).mean(0)
    torch.testing.assert_close(found, expected, rtol=0.03, atol=0.02)


def fitted(linear, h, own, spliced, total, steps, lr=1e-3, train=None):
    """Minimise the sum over cells of the expected binomial loss, plus the penalty."""
    linear.train()
    parameters = list(linear.parameters()) if train is None else train
    adam = optimizer("Adam", parameters, lr=lr, eps=1e-8)
    rates = [group["lr"] for group in adam.param_groups]
    for step in range(steps):
        for group, rate in zip(adam.param_groups, rates, strict=True):
            group["lr"] = rate * one_cycle(step, steps)
        adam.zero_grad()
        loss = (
            loss_of(linear(h, [] if own is None else [own]), spliced, total - spliced).sum()
            + linear.penalty()
        )
        loss.backward()
        adam.step()
    return linear.eval()


def test_the_learned_prior_is_that_of_the_simulation():
    """Slopes of 5,000 genes on four features and on their own count."""
    rng = np.random.default_rng(0)
    n_obs, n_genes, width = 100, 5000, np.array([0.4, 0.3, 0.2, 0.3])
    h, own = rng.normal(size=(n_obs, 4)), rng.normal(size=(n_obs, n_genes))
    slopes, own_slopes = rng.normal(size=(n_genes, 4)) * width, 0.3 * rng.normal(size=n_genes)
    total = rng.poisson(0.3, (n_obs, n_genes))  # few, as most genes of a cell have
    spliced = rng.binomial(total, expit(h @ slopes.T + own * own_slopes))
    h, own, s, n = (torch.tensor(x, dtype=torch.float32) for x in (h, own, spliced, total))
    torch.manual_seed(0)
    linear = fitted(HierarchicalLinear(4, n_genes, 0), h, own, s, n, 600)
    with torch.no_grad():
        variance = (2 * linear.log_scale).exp().mean()
        found = (linear.mixing @ linear.mixing.T * variance).diagonal().sqrt()
        found_own = linear.own_width.exp() * variance.sqrt()
    # which width belongs to which feature is found slowly, how wide the prior is altogether soon
    np.testing.assert_allclose(np.sqrt((found**2).mean()), np.sqrt((width**2).mean()), rtol=0.1)
    np.testing.assert_allclose(found, width, rtol=0.2)
    np.testing.assert_allclose(found_own, 0.3, rtol=0.1)
    mixed = (linear.mixing @ linear.mean[0, :, 1:].T).T.detach().numpy()
    assert np.corrcoef(mixed.ravel(), slopes.ravel())[0, 1] > 0.5


def test_a_known_prior_gives_laplace_posteriors():
    """40 genes, prior held fixed: mean and variance of each weight as Laplace has them."""
    rng = np.random.default_rng(1)
    n_obs, n_genes, width = 400, 40, 0.5
    h = rng.normal(size=(n_obs, 2))
    slopes = width * rng.normal(size=(n_genes, 2))
    total = rng.poisson(6, (n_obs, n_genes))
    spliced = rng.binomial(total, expit(h @ slopes.T))
    linear = HierarchicalLinear(2, n_genes, 0, own=False)
    linear.mixing.data = width * torch.eye(2)
    x, s, n = (torch.tensor(a, dtype=torch.float32) for a in (h, spliced, total))
    torch.manual_seed(0)
    free = [linear.bias, linear.mean, linear.log_variance]
    fitted(linear, x, None, s, n, 3000, lr=5e-4, train=free)
    design = np.column_stack([np.ones(n_obs), h * width])
    for gene in range(n_genes):

        def minus_log_posterior(w, gene=gene):
            eta = design @ w
            fit = (total[:, gene] * np.logaddexp(0, eta) - spliced[:, gene] * eta).sum()
            return fit + w @ w / 2

        mode = optimize.minimize(minus_log_posterior, np.zeros(3), method="BFGS", tol=1e-8).x
        p = expit(design @ mode)
        hessian = (design * (total[:, gene] * p * (1 - p))[:, None]).T @ design + np.eye(3)
        np.testing.assert_allclose(linear.mean[0, gene].detach(), mode[1:], atol=0.05)
        np.testing.assert_allclose(linear.bias[gene].item(), mode[0], atol=0.05)
        variance = linear.log_variance[0, gene].exp().detach()
        np.testing.assert_allclose(variance, 1 / np.diag(hessian)[1:], rtol=0.15)


def test_every_part_has_a_gradient(cells, parts):
    model = trained(cells, parts, {"batch_key": "donor"}, n_components=4)
    module = model.module.train()
    tensors = next(iter(model._make_data_loader(cells, batch_size=64)))
    module.zero_grad()
    module(tensors, loss_kwargs={"n_obs": 200})[2].loss.backward()
    for name, parameter in module.head.named_parameters():
        if name != "log_concentration":  # measured, and trained by one of the losses alone
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


# how much a count says


def test_a_quasi_binomial_count_says_as_much_as_its_variance_allows():
    """The variance of s / n with p drawn from a beta is that of n (c + 1) / (c + n) molecules."""
    c = np.array([5.0, 20.0, 100.0])
    p, n = 0.3, np.array([1, 2, 10, 100, 10_000])
    log_c = torch.tensor(np.log(c))
    for total in n:
        s = torch.full((1, 3), float(total))
        weight = loss_of(torch.zeros(1, 3), s, s * 0, "quasi_binomial", log_concentration=log_c)
        weight = (weight / loss_of(torch.zeros(1, 3), s, s * 0)).numpy()[0]
        variance = p * (1 - p) / total * (c + total) / (c + 1)  # of a beta-binomial ratio
        np.testing.assert_allclose(p * (1 - p) / (total * weight), variance, rtol=1e-5)
        assert (total * weight <= c + 1 + 1e-4).all()


# in training and after it


def test_ratios_follow_state_batch_and_depth_of_the_draws(cells, parts):
    model = trained(cells, parts, n_components=4, training={"max_epochs": 20})
    one, many = ratios(model, n_samples=1), ratios(model, n_samples=200, return_mean=False)
    assert one.shape == (N, G) and many.shape == (200, N, G)
    spread = logit(many).std(0)
    linear = model.module.head.output
    torch.manual_seed(0)
    bias_only = logit(many).mean(0) - logit(ratios(model))
    assert np.abs(bias_only).mean() < 0.3 * spread.mean() and spread.min() > 0
    with torch.no_grad():
        linear.log_variance.fill_(-30.0)  # weights that are known leave the latent's spread
    latent_alone = logit(ratios(model, n_samples=200, return_mean=False)).std(0)
    assert latent_alone.mean() < spread.mean()


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
    model = trained(adata, parts, setup, training={"max_epochs": 60})
    a, b = (logit(ratios(model, transform_batch=batch)[:, known]) for batch in "ab")
    found = (b - a).mean(0)
    np.testing.assert_allclose(found.mean(), shift.mean(), rtol=0.1)
    assert np.corrcoef(found, shift)[0, 1] > 0.5


@pytest.mark.parametrize("own_total", [True, False])
def test_a_batch_and_components_without_training_cells(cells, parts, own_total):
    """Features that are constant in training: nothing is learnt of them, and all stays finite."""
    adata = cells.copy()
    train, val = parts[0][:20], parts[0][20:]
    adata.obs["donor"] = np.where(np.isin(np.arange(N), train), "seen", "unseen")
    model = trained(
        adata, (train, val), {"batch_key": "donor"}, {"max_epochs": 50}, own_total=own_total
    )
    assert (model.module.head.features.components[:, 19:] == 0).all()
    assert np.isfinite(ratios(model)).all()


@pytest.mark.parametrize(
    "kwargs",
    [
        {"head": "mlp2"},
        {"head": "bottleneck", "head_l2": 0.0},
        {"ratio_loss": "mse"},
        {"ratio_loss": "beta_binomial"},
        {"head_activation": "softmax"},
        {"head": "mlp2", "head_activation": "softmax", "own_total": False, "head_l2": 3.0},
        {"ratio_reduction": "mean", "n_components": 0},
    ],
)
def test_every_head_and_loss_learns(cells, parts, kwargs):
    model = trained(cells, parts, training={"lr": 1e-2}, **kwargs)
    assert np.isfinite(ratios(model)).all() and ratios(model).std(0).max() > 1e-3


def test_without_weight_nothing_is_learnt_of_ratios(cells, parts):
    model = trained(cells, parts, ratio_weight=0.0)
    assert (ratios(model) == ratios(model)[0]).all()


@pytest.mark.parametrize("n_genes", [2, 12])
def test_few_genes(cells, parts, n_genes):
    counts = np.asarray(cells.layers["total"].sum(0)).ravel()
    few = cells[:, np.argsort(-counts)[:n_genes]].copy()
    few = few[np.ravel(few.layers["total"].sum(1)) > 0].copy()
    model = trained(few, sv.data.split(few), training={"max_epochs": 20})
    assert np.isfinite(ratios(model)).all()


def test_cells_of_one_form_alone_are_refused_and_do_not_teach(cells, parts):
    none = np.zeros((N, G))
    for lacking in ("spliced", "unspliced"):
        with pytest.raises(ValueError, match="nothing to learn ratios from"):
            trained(with_counts(cells, **{lacking: none}), parts)
    u = cells.layers["unspliced"].toarray()
    u[parts[0][:30]] = 0
    changed = with_counts(cells, unspliced=u)
    model = trained(changed, parts)
    assert model.module.head.measured.item() == pytest.approx(1 - 30 / len(parts[0]))
    (tensors,) = model._make_data_loader(changed, indices=parts[0][:30])
    model.module.train()
    model.module(tensors, loss_kwargs={"n_obs": 200})[2].loss.backward()
    for name, parameter in model.module.head.named_parameters():
        assert parameter.grad is None or not parameter.grad.any(), name


def test_a_second_training_goes_on(cells, parts, tmp_path):
    model = trained(cells, parts, training={"max_epochs": 10})
    model.save(str(tmp_path / "m"))
    loaded = sv.SplicedVAE.load(str(tmp_path / "m"), cells)
    np.testing.assert_array_equal(ratios(loaded), ratios(model))
    for again in (model, loaded):
        before = again.module.head.output.mean.clone()
        again.train(split=parts[:2], lr=0.0, **FAST)
        assert torch.equal(again.module.head.output.mean, before)
        again.train(split=parts[:2], **FAST)
        assert not torch.equal(again.module.head.output.mean, before)


def test_other_cells_add_to_what_is_known():
    """Few cells of one kind more: nothing is forgotten, and an offset of theirs is learnt."""
    adata = sv.data.prepare(sv.data.simulate(n_obs=900, n_vars=400))
    parts = sv.data.split(adata)
    s, u = (adata.layers[key].toarray().astype(int) for key in ("spliced", "unspliced"))
    moved = np.random.default_rng(0).binomial(u, 0.4)
    other = with_counts(adata, spliced=s + moved, unspliced=u - moved)
    sv.SplicedVAE.setup_anndata(other)  # composes the total
    mean = sv.baselines.GeneMean().fit(adata[parts[0]], adata[parts[1]]).mean_
    model = trained(adata, parts, training={"max_epochs": 60})

    def d2(cells, again=model):
        kept = {key: cells.layers[key][parts[2]] for key in ("spliced", "unspliced")}
        predicted = ratios(again, adata=cells, indices=parts[2])
        return sv.metrics.ratio_report(**kept, predicted=predicted, baseline=mean)["d2"]

    before, before_other = d2(adata), d2(other)
    linear = model.module.head.output
    model.train(split=parts[:2], **FAST)
    assert not linear.remembers  # the same cells: it goes on
    model.train(split=(parts[0][:40], parts[1]), **FAST | {"max_epochs": 60})
    assert linear.remembers and d2(adata) > 0.6 * before > 0
    again = sv.SplicedVAE(other)
    again.module.load_state_dict(model.module.state_dict())
    assert again.module.head.output.mean.lr_scale == linear.mean.lr_scale == 3.0
    again.train(split=(parts[0][:200], parts[1]), **FAST | {"max_epochs": 60})
    assert d2(other, again) > before_other + 0.02


def test_a_model_of_an_earlier_version_is_named(cells, parts, tmp_path):
    model = trained(cells, parts)
    model.save(str(tmp_path / "m"))
    file = tmp_path / "m" / "model.pt"
    saved = torch.load(file, weights_only=False)
    state = saved["model_state_dict"]
    saved["model_state_dict"] = {k: v for k, v in state.items() if "head.output" not in k}
    saved["model_state_dict"]["head.component_weight"] = torch.zeros(G, 30)
    torch.save(saved, file)
    with pytest.raises(ValueError, match=r"earlier version.*Train it again"):
        sv.SplicedVAE.load(str(tmp_path / "m"), cells)


def test_it_predicts_unseen_cells_better_than_a_fixed_prior():
    adata = sv.data.prepare(sv.data.simulate(n_obs=600, n_vars=400))
    parts = sv.data.split(adata)
    mean = sv.baselines.GeneMean().fit(adata[parts[0]], adata[parts[1]]).mean_
    s, u = (adata.layers[key][parts[2]] for key in ("spliced", "unspliced"))
    d2 = {}
    for l2 in (None, 1.0):
        model = trained(adata, parts, training={"max_epochs": 60}, head_l2=l2)
        report = sv.metrics.ratio_report(s, u, ratios(model, indices=parts[2]), mean)
        d2[l2] = report["d2"]
    assert d2[None] > max(d2[1.0], 0) + 0.005
