"""The network: every term of the loss against a closed form, and where gradients go."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import betaln, expit, gammaln

from splicedvae.head import (
    ACTIVATIONS,
    HEADS,
    GeneStatistics,
    HierarchicalLinear,
    PenalisedLinear,
    RatioHead,
    ratio_loss,
)
from splicedvae.module import SplicedVAEModule
from splicedvae.training import scores_of_epoch

B, G, L = 16, 7, 3


@pytest.fixture
def counts():
    rng = np.random.default_rng(0)
    spliced = rng.poisson(2.0, (B, G))
    unspliced = rng.poisson(0.7, (B, G))
    spliced[0], unspliced[0] = 0, 0  # a cell in which no gene was counted
    return spliced, unspliced


def tensors_of(spliced, unspliced):
    zeros = torch.zeros(B, 1, dtype=torch.long)
    spliced, unspliced = (torch.tensor(c, dtype=torch.float32) for c in (spliced, unspliced))
    x = spliced + unspliced
    x[0, 0] = 1  # scVI takes the log of the library size
    return {"X": x, "spliced": spliced, "unspliced": unspliced, "batch": zeros, "labels": zeros}


def run(module, tensors, seed=0, **loss_kwargs):
    torch.manual_seed(seed)
    return module(tensors, loss_kwargs=loss_kwargs)


def test_kl_and_negative_binomial_against_closed_forms(counts):
    torch.manual_seed(0)
    tensors = tensors_of(*counts)
    module = SplicedVAEModule(G, n_batch=1, n_latent=L, ratio_weight=0.0, dropout_rate=0.0)
    inference, generative, losses = run(module, tensors, kl_weight=1.0)
    mu, sigma = (getattr(inference["qz"], k).detach().numpy() for k in ("loc", "scale"))
    kl = (0.5 * (mu**2 + sigma**2 - 1) - np.log(sigma)).sum(1)
    np.testing.assert_allclose(losses.kl_local["kl_divergence_z"].detach(), kl, rtol=1e-4)

    px = generative["px"]
    mean, theta = px.mu.detach().numpy().astype(float), px.theta.detach().numpy().astype(float)
    x = tensors["X"].numpy()
    expected = -stats.nbinom.logpmf(x, theta, theta / (theta + mean)).sum(1)
    np.testing.assert_allclose(
        losses.reconstruction_loss["reconstruction_loss"].detach(), expected, rtol=1e-3
    )
    assert losses.loss.item() == pytest.approx((expected + kl).mean(), rel=1e-3)


@pytest.mark.parametrize(
    "kind", ["quasi_binomial", "binomial", "beta_binomial", "mse", "weighted_mse", "l1"]
)
def test_ratio_losses_by_hand(kind, counts):
    rng = np.random.default_rng(1)
    s, u = counts
    n = s + u
    logit, weight = rng.normal(size=(B, G)), rng.uniform(0.5, 2, G)
    log_c = rng.normal(2, 0.5, G)
    p, c = expit(logit), np.exp(log_c)
    r = s / np.maximum(n, 1)
    choose = gammaln(n + 1) - gammaln(s + 1) - gammaln(u + 1)
    binomial = -(stats.binom.logpmf(s, n, p) - choose)
    expected = {
        "quasi_binomial": (c + 1) / (c + n) * binomial,
        "binomial": binomial,
        "beta_binomial": -(stats.betabinom.logpmf(s, n, p * c, (1 - p) * c) - choose),
        "mse": (p - r) ** 2 * (n > 0),
        "weighted_mse": weight * (p - r) ** 2 * (n > 0),
        "l1": abs(p - r) * (n > 0),
    }[kind]
    result = ratio_loss(
        *(torch.tensor(v, dtype=torch.float64) for v in (logit, s, u)),
        kind,
        gene_weight=torch.tensor(weight),
        log_concentration=torch.tensor(log_c),
    )
    np.testing.assert_allclose(result, expected, atol=1e-9)


def test_beta_binomial_with_large_concentration_is_binomial(counts):
    logit = torch.randn(B, G, dtype=torch.float64)
    s, u = (torch.tensor(c, dtype=torch.float64) for c in counts)
    beta = ratio_loss(logit, s, u, "beta_binomial", log_concentration=torch.full((G,), 18.0))
    np.testing.assert_allclose(beta, ratio_loss(logit, s, u, "binomial"), atol=1e-4)


@pytest.mark.parametrize(
    "kind", ["quasi_binomial", "binomial", "beta_binomial", "mse", "weighted_mse", "l1"]
)
def test_entries_without_counts_have_no_influence(kind, counts):
    s, u = (torch.tensor(c, dtype=torch.float64) for c in counts)
    logit = torch.randn(B, G, dtype=torch.float64, requires_grad=True)
    extra = {"gene_weight": torch.ones(G), "log_concentration": torch.zeros(G)}
    loss = ratio_loss(logit, s, u, kind, **extra)
    loss.sum().backward()
    empty = (s + u) == 0
    assert empty.sum() >= G
    assert (loss[empty] == 0).all() and (logit.grad[empty] == 0).all()
    assert (logit.grad[~empty] != 0).all()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_head_starts_at_the_gene_mean(head, activation):
    module = RatioHead(L, G, head=head, activation=activation, n_components=2).eval()
    gene_logit, ones = torch.randn(G), torch.ones(G)
    made_with = (torch.tensor(1e4), torch.zeros(G), ones, torch.randn(G, 2), torch.randn(G, 2))
    module.start(GeneStatistics(gene_logit, *made_with, ones, ones, torch.tensor(1.0)))
    for shape in ((B, L), (4, B, L)):
        out = module(torch.randn(shape), torch.rand(B, G))
        torch.testing.assert_close(out, gene_logit.expand(*shape[:-1], G))


def test_softmax_of_two_is_a_sigmoid_of_the_difference():
    torch.manual_seed(0)
    two, one = (PenalisedLinear(L, G, False, copies, 0.0) for copies in (2, 1))
    torch.nn.init.normal_(two.mean)
    one.mean.data[0] = two.mean.data[0] - two.mean.data[1]
    z = torch.randn(B, L)
    pair = torch.stack([z @ weight.T for weight in two.mean], 1)  # (B, 2, G)
    torch.testing.assert_close(torch.softmax(pair, 1)[:, 0], torch.sigmoid(one(z, [])))
    torch.testing.assert_close(two(z, []), one(z, []))


def test_own_total_moves_only_its_own_gene():
    linear = HierarchicalLinear(L, G, 0).eval()
    torch.nn.init.normal_(linear.mean)
    z, own = torch.randn(B, L), torch.zeros(B, G)
    moved = own.clone()
    moved[:, 2] += 1
    change = (linear(z, [moved]) - linear(z, [own])).detach()
    weight = (linear.own_width.exp() * linear.mean[0, 2, 0]).detach()
    torch.testing.assert_close(change[:, 2], weight.expand(B))
    assert (np.delete(change.numpy(), 2, axis=1) == 0).all()


def test_covariates_get_columns_and_a_single_category_none():
    assert RatioHead(L, G, n_cats=(1,), l2=0.0).output.mean.shape == (1, G, L)
    head = RatioHead(L, G, n_cats=(3, 2), n_continuous_cov=1, l2=0.0)
    assert head.output.mean.shape == (1, G, L + 1 + 3 + 2)
    torch.nn.init.normal_(head.output.mean)
    z, x, cont = torch.zeros(B, L), torch.zeros(B, G), torch.zeros(B, 1)
    first = torch.zeros(B, 1)
    a = head(z, x, (first, first), cont)
    b = head(z, x, (first, first + 1), cont)
    weight = head.output.mean[0]
    torch.testing.assert_close(b - a, (weight[:, -1] - weight[:, -2]).expand(B, G))


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("latent", ["mean", "sample"])
def test_gradients_reach_head_and_if_coupled_the_encoder(detach, latent, counts):
    torch.manual_seed(0)
    module = SplicedVAEModule(G, n_batch=1, n_latent=L, detach_head=detach, head_latent=latent)
    torch.nn.init.normal_(module.head.output.mean)
    tensors = tensors_of(*counts)
    inference = module.inference(**module._get_inference_input(tensors))
    z = inference["z"] if latent == "sample" else inference["qz"].loc
    logit = module.splicing_logit(tensors, z.detach() if detach else z)
    ratio_loss(logit, tensors["spliced"], tensors["unspliced"]).sum().backward()
    assert module.head.output.mean.grad.abs().sum() > 0
    reached = any(
        p.grad is not None and p.grad.abs().sum() > 0 for p in module.z_encoder.parameters()
    )
    assert reached is not detach

    # and in the module's own loss: the encoder's gradient depends on the weight iff coupled
    gradients = []
    for weight in (0.0, 5.0):
        module.zero_grad()
        module.ratio_weight = weight
        run(module, tensors, kl_weight=1.0)[2].loss.backward()
        gradients.append(module.z_encoder.mean_encoder.weight.grad.clone())
    assert torch.allclose(*gradients) is detach


def test_scale_of_the_ratio_term(counts):
    """Sum over genes is larger than the mean over entries by the counted genes per cell."""
    tensors = tensors_of(*counts)
    module = SplicedVAEModule(G, n_batch=1, n_latent=L, ratio_loss="mse", head_l2=0.0).eval()
    losses = {}
    for weight, reduction in ((0.0, "sum"), (1.0, "sum"), (1.0, "mean")):
        module.ratio_weight, module.ratio_reduction = weight, reduction
        losses[weight, reduction] = run(module, tensors, kl_weight=1.0)[2].loss.item()
    base = losses[0.0, "sum"]
    per_cell = ((counts[0] + counts[1]) > 0).sum() / B
    ratio = (losses[1.0, "sum"] - base) / (losses[1.0, "mean"] - base)
    assert ratio == pytest.approx(per_cell, rel=1e-3)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("l2", [None, 30.0])
def test_all_training_cells_bear_the_penalty_together(l2, reduction, counts):
    tensors = tensors_of(*counts)
    kinds = {"ratio_weight": 2.0, "ratio_reduction": reduction}
    module = SplicedVAEModule(G, n_batch=1, n_latent=L, head_l2=l2, **kinds).eval()
    torch.nn.init.normal_(module.head.output.mean)
    penalty = module.head.output.penalty().item()
    with_prior = run(module, tensors, kl_weight=1.0, n_obs=10)[2].loss.item()
    without = run(module, tensors, kl_weight=1.0, n_obs=10**12)[2].loss.item()
    seen = ((counts[0] + counts[1]) > 0).sum()
    known = (counts[0].sum(1) > 0) & (counts[1].sum(1) > 0)  # the others teach nothing
    share = known.mean() / 10 * (1 if reduction == "sum" else B / seen)  # as the ratio loss
    assert with_prior - without == pytest.approx(2.0 * share * penalty, rel=1e-3)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_sums_give_the_exact_scores_over_minibatches(reduction, counts):
    tensors = tensors_of(*counts)
    kinds = {"ratio_loss": "l1", "ratio_reduction": reduction, "head_latent": "mean"}
    module = SplicedVAEModule(G, n_batch=1, n_latent=L, **kinds).eval()
    torch.nn.init.normal_(module.head.output.mean)
    predicted, total = [], 0

    for rows in (slice(0, 5), slice(5, B)):  # minibatches of different size
        part = {k: v[rows] for k, v in tensors.items()}
        inference, _, output = run(module, part, kl_weight=1.0)
        total = total + output.extra_metrics["ratio"]
        predicted.append(torch.sigmoid(module.splicing_logit(part, inference["qz"].loc)))
    p = torch.cat(predicted).detach().numpy()
    s, u = counts
    seen = (s + u) > 0
    r = s / np.maximum(s + u, 1)
    summary = scores_of_epoch([B, 0.0, 0.0, 0.0, *total.tolist()], reduction)
    assert summary["ratio_pearson_r"] == pytest.approx(
        stats.pearsonr(p[seen], r[seen])[0], abs=1e-4
    )
    assert summary["ratio_rmse"] == pytest.approx(np.sqrt(np.mean((p - r)[seen] ** 2)), rel=1e-4)
    nll = -(s * np.log(p) + u * np.log1p(-p)).sum() / B
    assert summary["ratio_nll"] == pytest.approx(nll, rel=1e-4)  # whatever the loss
    loss = np.abs(p - r)[seen].sum() / (B if reduction == "sum" else seen.sum())
    assert summary["ratio_loss"] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("head", "transformer"),
        ("head_activation", "relu"),
        ("ratio_loss", "huber"),
        ("ratio_reduction", "max"),
        ("head_latent", "mode"),
        ("ratio_weight", -1.0),
        ("head_l2", math.nan),
    ],
)
def test_unknown_settings_are_named(argument, value):
    with pytest.raises(ValueError, match=argument):
        SplicedVAEModule(G, n_batch=1, **{argument: value})


def test_beta_function_identity():
    """The loss's log-beta terms agree with SciPy's betaln at extreme logits."""
    logit = torch.tensor([[-12.0, 12.0]], dtype=torch.float64)
    s = torch.tensor([[3.0, 0.0]], dtype=torch.float64)
    u = torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    c = 5.0
    log_c = torch.full((2,), math.log(c))
    result = ratio_loss(logit, s, u, "beta_binomial", log_concentration=log_c)
    a, b = expit(logit.numpy()) * c, expit(-logit.numpy()) * c
    expected = betaln(a, b) - betaln(a + s.numpy(), b + u.numpy())
    np.testing.assert_allclose(result, expected, rtol=1e-6)
