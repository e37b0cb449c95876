"""The model on AnnData: histories, persistence, predictions, queries, and what is refused."""

import anndata
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from scipy import sparse
from scipy.special import logit

import splicedvae as sv
from splicedvae.start import gene_statistics

N, G = 240, 40
FAST = {"max_epochs": 3, "accelerator": "cpu", "enable_progress_bar": False}


def trained(cells, parts, seed=0, setup=None, **kwargs):
    scvi.settings.seed = seed
    sv.SplicedVAE.setup_anndata(cells, **(setup or {}))
    model = sv.SplicedVAE(cells, **kwargs)
    model.train(split=parts[:2], **FAST)
    return model


@pytest.fixture(scope="module")
def model(cells, parts):
    return trained(cells, parts)


def without_su(cells):
    """What a user has: counts in X and nothing else."""
    return anndata.AnnData(cells.layers["total"].copy(), obs=cells.obs, var=cells.var[[]])


def test_history_holds_both_losses_and_the_correlation(model):
    for mode in ("train", "validation"):
        for name in ("elbo", "reconstruction_loss", "ratio_loss", "ratio_pearson_r"):
            values = model.history[f"{name}_{mode}"]
            assert len(values) == 3 and np.isfinite(values.to_numpy(dtype=float)).all()


def test_last_validation_figures_are_those_of_the_predictions(cells, parts):
    """History is read in eval mode on val, so it can be recomputed from outside."""
    model, val = trained(cells, parts, head_latent="mean"), parts[1]
    p = model.get_splicing_ratio(indices=val, return_numpy=True)
    s, u = (cells.layers[k][val].toarray() for k in ("spliced", "unspliced"))
    seen = (s + u) > 0
    r = np.corrcoef(p[seen], (s / np.maximum(s + u, 1))[seen])[0, 1]
    assert model.history["ratio_pearson_r_validation"].iloc[-1, 0] == pytest.approx(r, abs=1e-4)
    nll = -(s * np.log(p) + u * np.log1p(-p)).sum() / len(val)
    assert model.history["ratio_nll_validation"].iloc[-1, 0] == pytest.approx(nll, rel=1e-4)


def test_untrained_head_says_the_training_gene_mean(cells, parts):
    sv.SplicedVAE.setup_anndata(cells)
    model = sv.SplicedVAE(cells)
    model.train(**FAST | {"max_epochs": 1}, split=parts[:2], lr=0.0)
    s, u = (np.asarray(cells.layers[k][parts[0]].sum(0)).ravel() for k in ("spliced", "unspliced"))
    overall = (s.sum() + 0.5) / ((s + u).sum() + 1)
    expected = (s + overall) / (s + u + 1)
    ratio = model.get_splicing_ratio(return_numpy=True)
    np.testing.assert_allclose(ratio, np.tile(expected, (N, 1)), rtol=1e-5)


def test_gene_statistics_by_hand():
    rng = np.random.default_rng(0)
    x = rng.poisson(2, (20, 5)) + 1
    s, u = rng.poisson(3, (20, 5)), rng.poisson(1, (20, 5))
    found = gene_statistics(*(sparse.csr_matrix(m) for m in (x, s, u)))
    assert found.depth == np.median(x.sum(1)) and found.components.shape == (5, 4)
    own = np.log1p(np.median(x.sum(1)) * x / x.sum(1, keepdims=True))
    np.testing.assert_allclose(found.own_mean, own.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.own_std, own.std(0), rtol=1e-4)
    share = (s + u).sum(0) / (s + u).sum(0).mean()
    np.testing.assert_allclose(found.gene_weight, share, rtol=1e-5)
    overall = (s.sum() + 0.5) / ((s + u).sum() + 1)
    np.testing.assert_allclose(
        torch.sigmoid(found.gene_logit), (s.sum(0) + overall) / ((s + u).sum(0) + 1), rtol=1e-5
    )
    pooled = (s.sum(0) + overall) / ((s + u).sum(0) + 1)
    expected = sv.metrics.fit_concentration(s.astype(float), u.astype(float), pooled)
    np.testing.assert_allclose(found.concentration, expected, rtol=1e-5)


def test_cells_without_one_form_do_not_start_the_head():
    """Their input is read, their ratios are not: nobody counted what is missing."""
    rng = np.random.default_rng(0)
    s, u = rng.poisson(3, (30, 5)) + 1, rng.poisson(1, (30, 5)) + 1
    alone = gene_statistics(*(sparse.csr_matrix(m) for m in (s + u, s, u)))
    lacking = np.vstack([u, np.zeros_like(u)])
    layers = np.vstack([s + u, s + u]), np.vstack([s, s + u]), lacking
    both = gene_statistics(*map(sparse.csr_matrix, layers))
    for name in ("gene_logit", "gene_weight", "concentration"):
        ours, theirs = getattr(both, name), getattr(alone, name)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_test_cells_are_never_seen(cells, parts, model):
    """Other counts in the test cells, the same training."""
    changed = cells.copy()
    test = parts[2]
    for layer in ("spliced", "unspliced"):
        values = changed.layers[layer].toarray()
        values[test] = np.random.default_rng(3).permutation(values[test])
        changed.layers[layer] = sparse.csr_matrix(values)
    del changed.layers["total"]
    again = trained(changed, parts)
    for key, values in model.history.items():
        np.testing.assert_array_equal(values, again.history[key], err_msg=key)


def test_same_seed_same_history_other_seed_other(cells, parts, model):
    again, other = trained(cells, parts), trained(cells, parts, seed=1)
    for key, values in model.history.items():
        np.testing.assert_array_equal(values, again.history[key], err_msg=key)
    assert (model.history["elbo_train"] != other.history["elbo_train"]).all(axis=None)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {
            "n_latent": 4,
            "n_hidden": 16,
            "n_layers": 2,
            "dropout_rate": 0.2,
            "dispersion": "gene-cell",
            "gene_likelihood": "zinb",
            "latent_distribution": "ln",
            "head": "bottleneck",
            "head_activation": "softmax",
            "own_total": False,
            "ratio_loss": "beta_binomial",
            "ratio_weight": 0.3,
            "head_l2": 5.0,
            "head_latent": "sample",
            "detach_head": True,
        },
        {"head": "mlp3", "ratio_loss": "weighted_mse", "ratio_reduction": "mean"},
        {"gene_likelihood": "poisson", "use_observed_lib_size": False, "ratio_loss": "l1"},
    ],
)
def test_save_and_load_are_exact(cells, parts, tmp_path, kwargs):
    model = trained(cells, parts, **kwargs)
    before = model.get_splicing_ratio()
    model.save(str(tmp_path / "m"))
    loaded = sv.SplicedVAE.load(str(tmp_path / "m"), cells)
    pd.testing.assert_frame_equal(before, loaded.get_splicing_ratio(), check_exact=True)
    for name, value in kwargs.items():
        assert loaded.init_params_["non_kwargs"][name] == value
    assert loaded.module.gene_likelihood == kwargs.get("gene_likelihood", "nb")
    assert loaded.module.ratio_weight == kwargs.get("ratio_weight", 1.0)
    assert loaded.module.detach_head == kwargs.get("detach_head", False)
    for key, value in model.module.state_dict().items():
        assert torch.equal(value, loaded.module.state_dict()[key]), key


def test_loading_checks_class_genes_and_file(cells, model, tmp_path):
    folder = str(tmp_path / "ours")
    model.save(folder)
    with pytest.raises(ValueError, match="exists"):  # nothing is overwritten
        model.save(folder)
    with pytest.raises(ValueError, match="different class"):
        scvi.model.SCVI.load(folder, cells)
    renamed = cells.copy()
    renamed.var_names = ["Ins1", *cells.var_names[1:]]
    with pytest.raises(ValueError, match=rf"{cells.var_names[0]}.*Ins1"):
        sv.SplicedVAE.load(folder, renamed)
    with pytest.raises(ValueError, match="in its order"):
        sv.SplicedVAE.load(folder, cells[:, ::-1].copy())

    plain = cells.copy()
    scvi.model.SCVI.setup_anndata(plain, layer="total")
    other = scvi.model.SCVI(plain)
    other.train(**FAST)
    other.save(str(tmp_path / "scvi"))
    with pytest.raises(ValueError, match="different class"):
        sv.SplicedVAE.load(str(tmp_path / "scvi"), cells)

    file = tmp_path / "ours" / "model.pt"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"ours can't be read .*damaged"):
        sv.SplicedVAE.load(folder, cells)
    with pytest.raises(ValueError, match="nowhere"):
        sv.SplicedVAE.load(str(tmp_path / "nowhere"), cells)


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "RMSprop"])
def test_optimizers(cells, parts, optimizer):
    sv.SplicedVAE.setup_anndata(cells)
    model = sv.SplicedVAE(cells)
    model.train(split=parts[:2], optimizer=optimizer, lr=2e-3, **FAST | {"max_epochs": 8})
    used = model.trainer.optimizers[0]
    assert type(used).__name__ == optimizer and used.param_groups[0]["lr"] == 2e-3
    losses = model.history["train_loss"].iloc[:, 0].astype(float)
    assert losses.iloc[-1] < losses.iloc[0]


def test_training_without_a_split_draws_one(cells):
    sv.SplicedVAE.setup_anndata(cells)
    model = sv.SplicedVAE(cells)
    model.train(train_size=0.75, **FAST)
    assert len(model.train_indices) == 180 and len(model.validation_indices) == 60


def test_splits_that_cannot_be(cells, parts):
    sv.SplicedVAE.setup_anndata(cells)
    model = sv.SplicedVAE(cells)
    with pytest.raises(ValueError, match="train part"):
        model.train(split=([], parts[1]), **FAST)
    with pytest.raises(ValueError, match="val part"):
        model.train(split=(parts[0], []), **FAST)
    with pytest.raises(ValueError, match="3 cells are both"):
        model.train(split=(parts[0], parts[0][:3]), **FAST)
    with pytest.raises(ValueError, match="optimizer='SGD'"):
        model.train(split=parts[:2], optimizer="SGD", **FAST)
    with pytest.raises(ValueError, match="3 parts"):
        model.train(split=parts, **FAST)
    with pytest.raises(ValueError, match=f"train part must hold positions from 0 to {N - 1}"):
        model.train(split=(parts[0] + N, parts[1]), **FAST)
    with pytest.raises(ValueError, match="val part must hold positions"):
        model.train(split=(parts[0], np.ones(N, dtype=bool)), **FAST)
    with pytest.raises(ValueError, match="twice"):
        model.train(split=(np.repeat(parts[0], 2), parts[1]), **FAST)
    with pytest.raises(ValueError, match="instead of external_indexing"):
        model.train(datasplitter_kwargs={"external_indexing": list(parts)}, **FAST)
    with pytest.raises(ValueError, match="optimizer="):
        model.train(split=parts[:2], plan_kwargs={"optimizer": "AdamW"}, **FAST)


def test_plan_kwargs_reach_the_optimizer(cells, parts):
    sv.SplicedVAE.setup_anndata(cells)
    model = sv.SplicedVAE(cells)
    given = {"lr": 5e-3, "eps": 1e-8, "weight_decay": 0.1}
    model.train(split=parts[:2], plan_kwargs=given, **FAST)
    group = model.trainer.optimizers[0].param_groups[0]
    assert {key: group[key] for key in given} == given


def test_training_goes_on_after_training(cells, parts):
    model = trained(cells, parts)
    before = model.module.head.output.bias.clone()
    model.train(split=parts[:2], **FAST)
    history = model.history["ratio_loss_train"].astype(float)
    assert (history > 0).all(axis=None) and model.module.training is False
    assert not torch.equal(before, model.module.head.output.bias)  # and was not set back


def test_nothing_to_learn_from(cells, parts):
    query = sv.SplicedVAE.prepare_query_anndata(without_su(cells), trained(cells, parts))
    sv.SplicedVAE.setup_anndata(query, layer="total")
    with pytest.raises(ValueError, match="nothing to learn"):
        sv.SplicedVAE(query).train(split=parts[:2], **FAST)


# predictions


def test_shapes_of_predictions(cells, model):
    few, genes = np.arange(7), list(cells.var_names[[5, 2, 9]])
    ratio = model.get_splicing_ratio(indices=few, gene_list=genes)
    assert ratio.shape == (7, 3) and list(ratio.columns) == genes
    assert list(ratio.index) == list(cells.obs_names[:7])
    full = model.get_splicing_ratio(return_numpy=True)
    assert full.shape == cells.shape and (full > 0).all() and (full < 1).all()
    np.testing.assert_allclose(ratio, full[:7][:, [5, 2, 9]], rtol=1e-6)
    sampled = model.get_splicing_ratio(indices=few, n_samples=5, return_mean=False)
    assert sampled.shape == (5, 7, cells.n_vars) and (sampled.std(0) > 0).all()
    assert model.get_splicing_ratio(indices=few, n_samples=5).shape == (7, cells.n_vars)
    assert model.get_splicing_ratio(n_samples_overall=500).shape == (500, cells.n_vars)
    loader = model._make_data_loader(cells, indices=few)
    np.testing.assert_allclose(model.get_splicing_ratio(dataloader=loader), full[:7], rtol=1e-6)


def test_samples_scatter_around_the_posterior_mean(cells, model):
    """A linear head is linear in z: on the logit scale the draws' mean is the head of the mean."""
    torch.manual_seed(0)
    few = np.arange(5)
    draws = model.get_splicing_ratio(indices=few, n_samples=2000, return_mean=False)
    draws = logit(draws.astype(float))
    centre = logit(model.get_splicing_ratio(indices=few, return_numpy=True).astype(float))
    standard_error = draws.std(0) / np.sqrt(len(draws))
    assert (abs(draws.mean(0) - centre) < 5 * standard_error + 1e-6).all()


def test_arguments_that_contradict(model):
    with pytest.raises(KeyError, match="Nope"):
        model.get_splicing_ratio(gene_list=["Nope"])
    with pytest.raises(ValueError, match="not both"):
        model.get_splicing_ratio(n_samples=2, n_samples_overall=3)
    with pytest.raises(ValueError, match="no cell"):
        model.get_splicing_ratio(indices=[])
    with pytest.raises(ValueError, match="indices, n_samples_overall can't go with a dataloader"):
        model.get_splicing_ratio(dataloader=iter([]), indices=[1], n_samples_overall=3)
    for kwargs in ({"n_samples": 0}, {"n_samples_overall": -1}):
        with pytest.raises(ValueError, match="1 or more"):
            model.get_splicing_ratio(**kwargs)


def test_masks_are_indices_too(cells, model):
    mask = np.arange(N) < 5
    expected = model.get_splicing_ratio(indices=np.arange(5))
    pd.testing.assert_frame_equal(model.get_splicing_ratio(indices=mask), expected)
    assert model.get_splicing_ratio(indices=mask, n_samples_overall=12).shape == (12, G)


def test_cells_with_genes_in_another_order_are_refused(cells, model):
    for method in ("get_splicing_ratio", "get_latent_representation", "impute_layers"):
        with pytest.raises(ValueError, match="in its order"):
            getattr(model, method)(cells[:, ::-1].copy())


def test_batches_and_covariates(cells, parts):
    setup = {
        "batch_key": "donor",
        "categorical_covariate_keys": ["plate"],
        "continuous_covariate_keys": ["age"],
    }
    model = trained(cells, parts, setup=setup)
    linear = model.module.head.output
    assert linear.mixing.shape == (20 + 30, 20 + 30) and len(linear.covariate_width) == 1 + 3 + 2
    with torch.no_grad():  # a visible effect of the second batch
        linear.mean[:, :, -1] = 1 / linear.covariate_width[-1].exp()
        linear.mean[:, :, -2] = 0.0
    of = {
        b: model.get_splicing_ratio(transform_batch=b, return_numpy=True).astype(float)
        for b in ("a", "b")
    }
    np.testing.assert_allclose(logit(of["b"]) - logit(of["a"]), 1.0, atol=1e-2)
    own = model.get_splicing_ratio(return_numpy=True)
    is_a = (cells.obs["donor"] == "a").to_numpy()
    np.testing.assert_allclose(own[is_a], of["a"][is_a], rtol=1e-5)
    both = model.get_splicing_ratio(transform_batch=["a", "b"], return_numpy=True)
    np.testing.assert_allclose(both, (of["a"] + of["b"]) / 2, rtol=1e-5)


def test_imputed_layers_sum_to_the_total(cells, parts, model):
    adata = cells.copy()
    model.impute_layers(adata, key_added="mine")
    s, u = adata.layers["spliced_mine"], adata.layers["unspliced_mine"]
    np.testing.assert_allclose((s + u).toarray(), cells.layers["total"].toarray(), rtol=1e-5)
    ratio = model.get_splicing_ratio(return_numpy=True)
    np.testing.assert_allclose(s.toarray(), cells.layers["total"].toarray() * ratio, rtol=1e-5)
    train = cells[parts[0]]
    counts = train.layers["spliced"], train.layers["unspliced"]
    mean = sv.baselines.GeneMean().fit(train, train).mean_
    spread = sv.metrics.fit_concentration(*counts, mean)
    np.testing.assert_allclose(adata.var["concentration_mine"], spread, rtol=1e-2)
    with pytest.raises(ValueError, match=r"layer spliced_mine, .*column concentration_mine exist"):
        model.impute_layers(adata, key_added="mine")
    model.impute_layers(adata, key_added="mine", overwrite=True)
    with pytest.raises(ValueError, match="floor=2"):
        model.impute_layers(adata, key_added="other", floor=2.0)


def test_denoised_layers_part_the_means_of_the_decoder(cells, model):
    adata = cells.copy()
    model.impute_layers(adata, key_added="mine", counts="denoised")
    ratio = model.get_splicing_ratio(return_numpy=True)
    torch.manual_seed(scvi.settings.seed or 0)  # z is drawn, always the same
    means = model.get_normalized_expression(library_size="latent", return_numpy=True)
    s, u = (adata.layers[f"{name}_mine"].toarray() for name in ("spliced", "unspliced"))
    np.testing.assert_allclose(s + u, means, rtol=1e-4)
    np.testing.assert_allclose(s, means * ratio, rtol=1e-4)
    with pytest.raises(ValueError, match="counts='smoothed'"):
        model.impute_layers(adata, key_added="other", counts="smoothed")


def test_spliced_input(cells, parts):
    adata = cells.copy()
    model = trained(adata, parts, setup={"input": "spliced"})
    assert model.input == "spliced"
    model.impute_layers(adata, floor=0.2)
    ratio = np.maximum(model.get_splicing_ratio(return_numpy=True), 0.2)
    s = cells.layers["spliced"].toarray()
    np.testing.assert_array_equal(adata.layers["spliced_splicedvae"].toarray(), s)
    np.testing.assert_allclose(
        adata.layers["unspliced_splicedvae"].toarray(), s * (1 - ratio) / ratio, rtol=1e-5
    )
    # unspliced molecules where no spliced one was seen, from the means of the decoder
    model.impute_layers(adata, counts="denoised", floor=0.2, overwrite=True)
    torch.manual_seed(scvi.settings.seed or 0)
    means = model.get_normalized_expression(library_size="latent", return_numpy=True)
    np.testing.assert_allclose(adata.layers["spliced_splicedvae"].toarray(), means, rtol=1e-4)
    np.testing.assert_allclose(
        adata.layers["unspliced_splicedvae"].toarray(), means * (1 - ratio) / ratio, rtol=1e-4
    )
    # only spliced counts were seen: other unspliced counts in a query change nothing
    other = cells.copy()
    other.layers["unspliced"] = other.layers["unspliced"] * 3
    query = sv.SplicedVAE.prepare_query_anndata(other, model)
    np.testing.assert_array_equal(
        model.get_splicing_ratio(query, return_numpy=True),
        model.get_splicing_ratio(return_numpy=True),
    )


# queries


def test_query_without_su_predicts_the_same(cells, parts, model, tmp_path):
    model.save(str(tmp_path / "m"))
    shuffled = without_su(cells)[:, ::-1].copy()
    for reference in (model, str(tmp_path / "m")):
        query = sv.SplicedVAE.prepare_query_anndata(shuffled, reference)
        pd.testing.assert_frame_equal(
            model.get_splicing_ratio(query), model.get_splicing_ratio(), check_exact=True
        )
    assert not shuffled.layers and shuffled.var_names[0] == cells.var_names[-1]  # untouched
    latent = model.get_latent_representation(query)
    np.testing.assert_array_equal(latent, model.get_latent_representation())
    surgery = sv.SplicedVAE.load_query_data(query, model)
    surgery.is_trained = True
    np.testing.assert_allclose(surgery.get_splicing_ratio(), model.get_splicing_ratio(), atol=1e-6)


def test_query_may_lack_genes_and_have_others(cells, model):
    extra = anndata.concat([without_su(cells)[:, 4:], without_su(cells)[:, :3]], axis=1)
    extra.obs = cells.obs
    extra.var_names = [*cells.var_names[4:], "newA", "newB", "newC"]
    query = sv.SplicedVAE.prepare_query_anndata(extra, model)
    assert list(query.var_names) == list(cells.var_names)
    assert query.layers["total"][:, :4].nnz == 0
    assert model.get_splicing_ratio(query).shape == cells.shape


def test_query_of_the_other_kind_warns(cells, model):
    with pytest.warns(UserWarning, match="trained on total counts and these are spliced"):
        sv.SplicedVAE.prepare_query_anndata(without_su(cells), model, input="spliced")
    like_scvelo = cells.copy()
    like_scvelo.X = like_scvelo.layers["spliced"].copy()
    del like_scvelo.layers["total"], like_scvelo.layers["unspliced"]
    with pytest.warns(UserWarning, match="biased"):
        sv.SplicedVAE.prepare_query_anndata(like_scvelo, model)


def test_totals_for_a_spliced_model_warn_and_spliced_only_cells_teach_nothing(cells, parts):
    model = trained(cells.copy(), parts, setup={"input": "spliced"})
    with (
        pytest.warns(UserWarning, match="trained on spliced counts and these are total"),
        pytest.raises(ValueError, match=r"layer 'spliced'.*rename"),
    ):
        sv.SplicedVAE.prepare_query_anndata(cells, model, layer="total", inplace=True)
    only = anndata.AnnData(cells.layers["spliced"].copy(), obs=cells.obs, var=cells.var[[]])
    query = sv.SplicedVAE.prepare_query_anndata(only, model)
    surgery = sv.SplicedVAE.load_query_data(query, model, unfrozen=True)
    surgery.train(split=parts[:2], plan_kwargs={"weight_decay": 0.0}, **FAST)
    assert (surgery.history["ratio_loss_train"].astype(float) == 0).all(axis=None)


def test_surgery_with_a_new_batch_keeps_the_known_one(cells, parts):
    model = trained(cells, parts, setup={"batch_key": "donor"})
    query = cells.copy()
    query.obs["donor"] = np.where(np.arange(N) < N // 2, "a", "new")
    surgery = sv.SplicedVAE.load_query_data(query, model)
    surgery.is_trained = True
    assert surgery.module.head.n_cats == (3,)
    is_a = (cells.obs["donor"] == "a").to_numpy() & (np.arange(N) < N // 2)
    np.testing.assert_allclose(
        surgery.get_splicing_ratio(return_numpy=True)[is_a],
        model.get_splicing_ratio(return_numpy=True)[is_a],
        rtol=1e-5,
    )


def test_queries_that_cannot_be(cells, model):
    foreign = without_su(cells)
    foreign.var_names = [f"ENSMUSG{i:011d}" for i in range(cells.n_vars)]
    with pytest.raises(ValueError, match="ENSMUSG00000000000"):
        sv.SplicedVAE.prepare_query_anndata(foreign, model)
    logged = without_su(cells)
    logged.X = logged.X.log1p()
    with pytest.raises(ValueError, match="X holds a fractional"):
        sv.SplicedVAE.prepare_query_anndata(logged, model)
    repeated = without_su(cells)
    repeated.var_names = [cells.var_names[1], *cells.var_names[1:]]
    with pytest.raises(ValueError, match="gene names repeat"):
        sv.SplicedVAE.prepare_query_anndata(repeated, model)
    empty = without_su(cells).to_df()
    empty.iloc[3] = 0
    with pytest.raises(ValueError, match=rf"1 cells have no counts.*{cells.obs_names[3]}"):
        sv.SplicedVAE.prepare_query_anndata(anndata.AnnData(empty), model)
    with pytest.raises(ValueError, match="no X"):
        sv.SplicedVAE.prepare_query_anndata(anndata.AnnData(obs=cells.obs, var=cells.var), model)
    with pytest.raises(ValueError, match=r"layer 'total'.*rename"):
        other = without_su(cells)
        other.layers["total"], other.layers["raw"] = other.X * 2, other.X
        sv.SplicedVAE.prepare_query_anndata(other, model, layer="raw")
    with pytest.raises(KeyError, match="raw"):
        sv.SplicedVAE.prepare_query_anndata(without_su(cells), model, layer="raw")


# from scVI


def test_from_scvi_model_keeps_every_weight(cells, parts):
    adata = cells.copy()
    scvi.model.SCVI.setup_anndata(adata, layer="total")
    plain = scvi.model.SCVI(adata, n_latent=5, n_hidden=32, gene_likelihood="nb")
    plain.train(**FAST)
    sv.SplicedVAE.setup_anndata(adata)
    model = sv.SplicedVAE.from_scvi_model(plain, adata, ratio_weight=0.5)
    ours = {key: value.clone() for key, value in model.module.state_dict().items()}
    for key, value in plain.module.state_dict().items():
        assert torch.equal(value, ours[key]), key
    model.is_trained = True
    np.testing.assert_array_equal(
        plain.get_latent_representation(adata), model.get_latent_representation()
    )
    model.is_trained = False
    model.train(split=parts[:2], **FAST)
    assert model.module.ratio_weight == 0.5 and model.module.n_latent == 5
    # it was in eval mode, and trained all the same: running means move, the history is of train
    running = "z_encoder.encoder.fc_layers.Layer 0.1.running_mean"
    assert not torch.equal(model.module.state_dict()[running], ours[running])
    assert (model.history["ratio_loss_train"].astype(float) > 0).all(axis=None)

    with pytest.raises(ValueError, match="n_latent"):
        sv.SplicedVAE.from_scvi_model(plain, adata, n_latent=7)
    other = adata[:, 1:].copy()
    sv.SplicedVAE.setup_anndata(other, layer=None)
    with pytest.raises(ValueError, match="genes of the scVI model"):
        sv.SplicedVAE.from_scvi_model(plain, other)
    with pytest.raises(ValueError, match="not a plain"):
        sv.SplicedVAE.from_scvi_model(model, adata)
    sv.SplicedVAE.setup_anndata(adata, batch_key="donor")
    with pytest.raises(ValueError, match=r"\['a', 'b'\].*scVI model's"):
        sv.SplicedVAE.from_scvi_model(plain, adata)
    sv.SplicedVAE.setup_anndata(adata)
    scvi.model.SCVI.setup_anndata(adata, layer="total")
    wide = scvi.model.SCVI(adata, encode_covariates=True)
    with pytest.raises(RuntimeError, match="trained"):
        sv.SplicedVAE.from_scvi_model(wide, adata)
    wide.is_trained = True
    with pytest.raises(ValueError, match="no encode_covariates"):
        sv.SplicedVAE.from_scvi_model(wide, adata)


def test_a_dead_gene_is_named_and_stays_finite(cells, parts, caplog):
    adata = cells.copy()
    for layer in ("spliced", "unspliced", "total"):
        values = adata.layers[layer].toarray()
        values[:, 0] = 0
        adata.layers[layer] = sparse.csr_matrix(values)
    with caplog.at_level("INFO", logger="splicedvae"):
        ratio = trained(adata, parts).get_splicing_ratio(return_numpy=True)
    assert f"1 genes have no counts in layer 'total' ({adata.var_names[0]}" in caplog.text
    assert np.isfinite(ratio).all()
