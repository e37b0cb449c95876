"""A pretrained scVI's weights in a SplicedVAE on other cells."""

import numpy as np
import pytest
import scvi
import torch
from scipy import sparse

import splicedvae as sv
from splicedvae import census
from splicedvae.training import optimizer

N_GENES, SHARED = 60, 40


def gene_ids(numbers) -> list[str]:
    return [f"ENSMUSG{n:011d}" for n in numbers]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """Make checkpoints of scVI on 300 simulated cells in three batches, genes 0 to 59."""
    made = {}

    def make(**architecture) -> tuple:
        key = tuple(sorted(architecture.items()))
        if key not in made:
            cells = sv.data.prepare(sv.data.simulate(n_obs=300, n_vars=110, seed=0), 0)
            cells = cells[:, :N_GENES].copy()
            cells.var_names = gene_ids(range(N_GENES))
            cells.obs["batch"] = np.resize(["a", "b", "c"], cells.n_obs)
            scvi.settings.seed = 0
            scvi.model.SCVI.setup_anndata(cells, layer="total", batch_key="batch")
            settings = {"n_latent": 6, "n_hidden": 16, "n_layers": 2, "gene_likelihood": "nb"}
            model = scvi.model.SCVI(cells, **(settings | architecture))
            model.train(15, enable_progress_bar=False)
            folder = tmp_path_factory.mktemp("checkpoint")
            model.save(str(folder), overwrite=True)
            made[key] = model, census.read(folder), folder
        return made[key]

    return make


@pytest.fixture
def query():
    """200 other simulated cells; 40 of their 70 genes are those of the checkpoint, in disorder."""
    cells = sv.data.prepare(sv.data.simulate(n_obs=200, n_vars=110, seed=1), 0)[:, :70].copy()
    numbers = np.random.default_rng(0).permutation([*range(SHARED), *range(100, 130)])
    cells.var_names = gene_ids(numbers)
    return cells


def transplanted(cells, checkpoint, batch_key=None, rate=None, **how):
    matched = census.match(cells, checkpoint.genes, **how)
    sv.SplicedVAE.setup_anndata(matched, batch_key=batch_key)
    return census.transplant(matched, checkpoint, rate)


@pytest.mark.parametrize("missing", ["drop", "pad"])
@pytest.mark.parametrize("extra", ["drop", "keep"])
@pytest.mark.parametrize("dispersion", ["gene", "gene-batch"])
def test_weights_of_shared_genes_are_equal_to_the_bit(
    pretrained, query, missing, extra, dispersion
):
    model, checkpoint, _ = pretrained(dispersion=dispersion)
    ours = transplanted(query, checkpoint, missing=missing, extra=extra)
    new, old = ours.module.state_dict(), model.module.state_dict()
    place = ours.adata.var["census"].to_numpy()
    assert (place >= 0).sum() == (N_GENES if missing == "pad" else SHARED)
    assert (place < 0).sum() == (30 if extra == "keep" else 0)
    shared, from_ = np.flatnonzero(place >= 0), place[place >= 0]
    for part in ("px_scale_decoder.0", "px_r_decoder", "px_dropout_decoder"):
        for kind in ("weight", "bias"):
            name = f"decoder.{part}.{kind}"
            assert torch.equal(new[name][shared], old[name][from_]), name
    first = "z_encoder.encoder.fc_layers.Layer 0.0.weight"
    assert torch.equal(new[first][:, shared], old[first][:, from_])
    px_r = old["px_r"] if dispersion == "gene" else old["px_r"].mean(1, keepdim=True)
    assert torch.equal(new["px_r"][shared], px_r[from_])
    rest = [k for k in old if k.startswith("z_encoder") and k != first]
    assert len(rest) > 10 and all(torch.equal(new[k], old[k]) for k in rest)
    assert not ours.module.head.started and not ours.is_trained


def test_latent_is_that_of_scvis_own_query_path(pretrained, query):
    _, checkpoint, folder = pretrained()
    model = transplanted(query, checkpoint)
    model.is_trained_ = True
    latent = model.get_latent_representation()
    theirs = query.copy()
    theirs.obs["batch"] = "unassigned"
    scvi.model.SCVI.prepare_query_anndata(theirs, str(folder))
    scvi_model = scvi.model.SCVI.load_query_data(theirs, str(folder))
    scvi_model.is_trained_ = True
    np.testing.assert_allclose(latent, scvi_model.get_latent_representation(), atol=1e-5)


def decoded(module, z, batch) -> torch.Tensor:
    """Expected share of each gene, (cells, genes)."""
    module.eval()
    library, index = torch.zeros(len(z), 1), torch.full((len(z), 1), batch)
    with torch.inference_mode():
        return module.generative(z, library, index)["px"].scale


@pytest.mark.parametrize("batch_key", [None, "batch"])
def test_new_batches_start_from_the_mean_of_the_old(pretrained, query, batch_key):
    model, checkpoint, _ = pretrained()
    query.obs["batch"] = np.resize(["x", "y"], query.n_obs)
    ours = transplanted(query, checkpoint, batch_key, missing="pad")
    z = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    # by hand: a one-hot of three batches with a third in each place
    reference = scvi.module.VAE(
        N_GENES, 3, n_latent=6, n_hidden=16, n_layers=2, gene_likelihood="nb"
    )
    reference.load_state_dict(model.module.state_dict())
    h = z
    reference.eval()
    with torch.inference_mode():
        for block in reference.decoder.px_decoder.fc_layers.children():
            h = torch.cat([h, torch.full((len(h), 3), 1 / 3)], 1)
            for step in block:
                h = step(h) if step is not None else h
        expected = reference.decoder.px_scale_decoder(h)
    for batch in range(1 if batch_key is None else 2):
        np.testing.assert_allclose(decoded(ours.module, z, batch), expected, atol=1e-6)


def in_batches(cells, n_batches: int, seed: int):
    """Cells of several laboratories: each loses most molecules of a third of its genes."""
    rng = np.random.default_rng(seed)
    batch = np.resize(np.arange(n_batches), cells.n_obs)
    keep = np.where(rng.uniform(size=(n_batches, cells.n_vars)) < 1 / 3, 0.2, 1.0)[batch]
    for layer in ("spliced", "unspliced"):
        dense = cells.layers[layer].toarray().astype(int)
        cells.layers[layer] = sparse.csr_matrix(rng.binomial(dense, keep).astype(np.float32))
    cells.layers["total"] = cells.layers["spliced"] + cells.layers["unspliced"]
    cells.obs["batch"] = batch.astype(str)
    return cells[np.asarray(cells.layers["total"].sum(1)).ravel() > 0].copy()


@pytest.mark.slow
def test_mean_of_batches_reconstructs_better_than_random_columns(tmp_path):
    """For cells of new batches, before any training; scArches leaves their columns random."""
    cells = sv.data.prepare(sv.data.simulate(n_obs=1200, n_vars=110, seed=0), 0)
    cells.var_names = gene_ids(range(cells.n_vars))
    old, new = in_batches(cells[:900].copy(), 6, 0), in_batches(cells[900:].copy(), 3, 1)
    scvi.settings.seed = 0
    scvi.model.SCVI.setup_anndata(old, layer="total", batch_key="batch")
    model = scvi.model.SCVI(old, n_latent=6, n_hidden=16, n_layers=2, gene_likelihood="nb")
    model.train(120, enable_progress_bar=False, plan_kwargs={"n_epochs_kl_warmup": 40})
    model.save(str(tmp_path / "model"))
    ours = transplanted(new, census.read(tmp_path / "model"), "batch")
    ours.is_trained_ = True
    mean, random = float(ours.get_elbo(return_mean=True)), []
    transplanted_state = {k: v.clone() for k, v in ours.module.state_dict().items()}
    for seed in range(5):
        torch.manual_seed(seed)
        fresh = sv.SplicedVAE(ours.adata, n_latent=6, n_hidden=16, n_layers=2).module.state_dict()
        state = {k: v.clone() for k, v in transplanted_state.items()}
        for layer, inputs in ((0, 6), (1, 16)):
            name = f"decoder.px_decoder.fc_layers.Layer {layer}.0.weight"
            state[name][:, inputs:] = fresh[name][:, inputs:]
        ours.module.load_state_dict(state)
        random.append(float(ours.get_elbo(return_mean=True)))
    print(f"ELBO, mean of the old batches {mean:.2f}, random columns {np.round(random, 2)}")
    assert mean > max(random)


def test_older_models_that_encode_the_batch_lose_it_to_its_mean(pretrained, query):
    model, checkpoint, _ = pretrained(encode_covariates=True, n_layers=1)
    ours = transplanted(query, checkpoint, missing="pad")
    name = "z_encoder.encoder.fc_layers.Layer 0.0"
    old, new = model.module.state_dict(), ours.module.state_dict()
    mean = old[f"{name}.weight"][:, N_GENES:].mean(1)
    assert torch.equal(new[f"{name}.weight"], old[f"{name}.weight"][:, :N_GENES])
    assert torch.equal(new[f"{name}.bias"], old[f"{name}.bias"] + mean)


def parameters_after(model) -> dict[str, torch.Tensor]:
    model.train(3, split=(np.arange(150), np.arange(150, 200)), enable_progress_bar=False)
    return {name: p.detach().clone() for name, p in model.module.named_parameters()}


def test_frozen_weights_stay_and_the_head_learns(pretrained, query):
    _, checkpoint, _ = pretrained()
    model = transplanted(query, checkpoint, rate=0.0)
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    parameters_after(model)
    after = model.module.state_dict()
    moved = {k for k in after if not torch.equal(before[k], after[k])}
    assert {k.split(".")[0] for k in moved} == {"head"}
    assert {"head.output.mean", "head.output.mixing"} <= moved


def test_frozen_batch_norms_show_the_head_what_it_will_see(pretrained, query):
    _, checkpoint, _ = pretrained(dropout_rate=0.0)
    module = transplanted(query, checkpoint, rate=0.0).module
    x = torch.poisson(torch.full((50, SHARED), 9.0))  # far from what was pretrained on
    with torch.no_grad():
        shown = module.train().inference(x, torch.zeros(len(x), 1))["qz"].loc
        seen = module.eval().inference(x, torch.zeros(len(x), 1))["qz"].loc
    torch.testing.assert_close(shown, seen)


def test_a_slower_rate_moves_pretrained_weights_less(pretrained, query):
    _, checkpoint, _ = pretrained()
    distance = {}
    for rate in (1.0, None):
        scvi.settings.seed = 0
        model = transplanted(query, checkpoint, rate=rate)
        before = {n: p.detach().clone() for n, p in model.module.named_parameters()}
        after = parameters_after(model)
        moved = {n: (after[n] - before[n]).square().sum() for n in after}
        distance[rate] = {
            part: sum(moved[n] for n in moved if n.startswith(part)) ** 0.5
            for part in ("z_encoder", "head")
        }
    assert distance[None]["z_encoder"] < 0.2 * distance[1.0]["z_encoder"]
    assert distance[None]["head"] > 0.5 * distance[1.0]["head"]


def test_learning_rates_by_parameter():
    fast, slow = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    slow.lr_scale = 0.1
    made = optimizer("Adam", [fast, slow], lr=0.5, eps=0.01)
    rates = {id(p): group["lr"] for group in made.param_groups for p in group["params"]}
    assert rates == {id(fast): 0.5, id(slow): pytest.approx(0.05)}
    assert all(group["eps"] == 0.01 for group in made.param_groups)


def test_initialise_does_it_in_one_call_and_the_model_trains_and_loads(pretrained, query, tmp_path):
    _, _, folder = pretrained()
    model = census.initialise(query, checkpoint=folder, pretrained_lr=0.1, head_l2=10.0)
    assert model.adata.n_vars == SHARED and model.module.head.output.l2 == 10.0
    model.train(2, split=(np.arange(150), np.arange(150, 200)), enable_progress_bar=False)
    ratio = model.get_splicing_ratio(return_numpy=True)
    model.save(str(tmp_path / "model"))
    again = sv.SplicedVAE.load(str(tmp_path / "model"), model.adata)
    np.testing.assert_array_equal(again.get_splicing_ratio(return_numpy=True), ratio)


def test_contradictions_are_refused(pretrained, query):
    _, checkpoint, _ = pretrained()
    matched = census.match(query, checkpoint.genes, extra="keep")
    sv.SplicedVAE.setup_anndata(matched)
    with pytest.raises(ValueError, match="n_latent are fixed by the checkpoint"):
        census.transplant(matched, checkpoint, n_latent=7)
    with pytest.raises(ValueError, match="extra='keep', pretrained_lr must be 1"):
        census.transplant(matched, checkpoint, 0.1)
    with pytest.raises(ValueError, match="pretrained_lr=-1"):
        census.transplant(matched, checkpoint, -1)
    plain = query.copy()
    sv.SplicedVAE.setup_anndata(plain)
    with pytest.raises(KeyError, match="match the genes first"):
        census.transplant(plain, checkpoint)
    matched = census.match(query, checkpoint.genes)
    matched.obs["age"] = np.resize([1.0, 2.0], matched.n_obs)
    sv.SplicedVAE.setup_anndata(matched, continuous_covariate_keys=["age"])
    with pytest.raises(ValueError, match="batches only"):
        census.transplant(matched, checkpoint)
