"""Doors × faults: whatever people have, a door gives what plain cells give, or says what is wrong.

``TABLE`` says what each door does with each fault: ``=`` is the plain result, ``!`` an error of
ours that names what is wrong, ``~`` a result of its own, of which the fault says what it must be.
After an error the cells are as they were.
"""

import re
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import anndata
import joblib
import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse
from scvi.model import SCVI

import splicedvae as sv
from splicedvae import census
from splicedvae._inherited import REFUSED
from splicedvae.counts import missing_form, named_layers

N, G = 60, 24
SETUP = {"batch_key": "batch", "continuous_covariate_keys": ["age"]}
FAST = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False}
SMALL = {"n_latent": 4, "n_hidden": 8, "n_components": 4}
PACKAGE = Path(sv.__file__).parent
LAYERS = "spliced", "unspliced"


def plain_cells() -> AnnData:
    """Cells whose counts fit into a byte, though their sums do not."""
    adata = sv.data.simulate(n_obs=N, n_vars=200, seed=2)
    best = np.argsort(-np.asarray(adata.layers["unspliced"].sum(0)).ravel())[:G]
    adata = adata[:, np.sort(best)].copy()
    rng = np.random.default_rng(0)
    layers = {k: np.minimum(rng.poisson(3 * adata.layers[k].toarray()), 255) for k in LAYERS}
    obs = pd.DataFrame({"clusters": adata.obs["clusters"].to_numpy()}, index=adata.obs_names)
    obs["batch"] = pd.Categorical(np.resize(["x", "y"], N))
    obs["age"] = np.linspace(0, 1, N)
    var = pd.DataFrame(index=[f"ENSMUSG{i:011d}" for i in range(G)])
    cells = AnnData(
        sparse.csr_matrix(layers["spliced"] + layers["unspliced"], dtype=np.float32),
        obs=obs,
        var=var,
        layers={k: sparse.csr_matrix(v, dtype=np.float32) for k, v in layers.items()},
    )
    cells.layers["total"] = cells.X.copy()
    sv.velocity.embed(cells, n_neighbors=15)
    cells.layers["smooth"] = cells.X.toarray()
    return cells


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """Plain cells, and what has been trained on them."""
    cells = plain_cells()
    folder = tmp_path_factory.mktemp("doors")
    plain = cells.copy()
    SCVI.setup_anndata(plain, layer="total", batch_key="batch")
    scvi_model = SCVI(plain, n_latent=4, n_hidden=8, gene_likelihood="nb")
    scvi_model.train(**FAST)
    scvi_model.save(str(folder / "scvi"))
    model = train_on(cells.copy())
    model.save(str(folder / "model"))
    fitted = cells.copy()
    sv.velocity.fit(fitted, n_draws=2)
    return SimpleNamespace(
        cells=cells,
        folder=folder,
        scvi=scvi_model,
        checkpoint=census.read(folder / "scvi"),
        model=model,
        fitted=fitted,
        baseline=sv.baselines.NearestNeighbours(n_pcs=5, ks=[5], priors=[3]).fit(cells, cells),
        expected={},
    )


def train_on(adata: AnnData):
    scvi.settings.seed = 0
    sv.SplicedVAE.setup_anndata(adata, **SETUP)
    model = sv.SplicedVAE(adata, **SMALL)
    model.train(split=(np.arange(40), np.arange(40, N)), batch_size=40, **FAST)
    return model


def dense(matrix) -> np.ndarray:
    return np.asarray(matrix.toarray() if sparse.issparse(matrix) else matrix, dtype=float)


# doors: what they give of some cells, as an array


def prepare(b, a):
    return dense(sv.data.prepare(a, min_shared_counts=1).layers["total"])


def setup(b, a):
    sv.SplicedVAE.setup_anndata(a, **SETUP)
    return np.column_stack([dense(a.layers["total"]), a.obs["_scvi_batch"]])


def train(b, a):
    return train_on(a).get_splicing_ratio(return_numpy=True)


def load(b, a):
    return sv.SplicedVAE.load(str(b.folder / "model"), a).get_splicing_ratio(return_numpy=True)


def load_query(b, a):
    model = sv.SplicedVAE.load_query_data(a, b.model)
    model.is_trained = True
    return model.get_latent_representation()


def query(b, a):
    cells = sv.SplicedVAE.prepare_query_anndata(a, b.model)
    return b.model.get_splicing_ratio(cells, return_numpy=True)


def ratio(b, a):
    return b.model.get_splicing_ratio(a, return_numpy=True)


def latent(b, a):
    return b.model.get_latent_representation(a)


def expression(b, a):
    torch.manual_seed(0)  # z is drawn
    return b.model.get_normalized_expression(a, return_numpy=True)


def impute(b, a):
    b.model.impute_layers(a)
    return dense(a.layers["spliced_splicedvae"])


def transfer(b, a):
    b.model.transfer_fields(a)
    return np.column_stack([dense(a.layers["total"]), a.obs["_scvi_batch"]])


def from_scvi(b, a):
    a = a.copy() if isinstance(a, AnnData) and not a.isbacked else a
    sv.SplicedVAE.setup_anndata(a, batch_key="batch")
    model = sv.SplicedVAE.from_scvi_model(b.scvi, a)
    model.is_trained = True
    return model.get_latent_representation()


def baseline_fit(b, a):
    return sv.baselines.GeneByCluster().fit(a, a).predict(a)


def baseline_predict(b, a):
    return b.baseline.predict(a)


def embed(b, a):
    sv.velocity.embed(a, n_neighbors=15, umap=False, overwrite=True)
    return dense(a.obsp["distances"])


def fit(b, a):
    sv.velocity.fit(a, n_draws=2)
    return dense(a.layers["velocity"])


def project(b, a):
    velocity, genes = b.fitted.layers["velocity"], b.fitted.var["velocity_genes"]
    sv.velocity.project(a, velocity, genes, xkey="smooth")
    return dense(a.obsm["velocity_umap"])


def match(b, a):
    return dense(census.match(a, b.checkpoint.genes).X)


def initialise(b, a):
    model = census.initialise(a, checkpoint=b.checkpoint, batch_key="batch")
    model.is_trained = True
    return model.get_latent_representation()


def splits(b, a):
    return np.concatenate(sv.data.split(a, (0.5, 0.2, 0.3)))


DOORS: dict[str, Callable] = {
    f.__name__: f
    for f in (
        *(prepare, setup, train, load, load_query, query, ratio, latent, expression, impute),
        *(transfer, from_scvi, baseline_fit, baseline_predict, embed, fit, project, match),
        *(initialise, splits),
    )
}
READ_ONLY = {
    *("prepare", "query", "ratio", "latent", "expression", "baseline_fit", "baseline_predict"),
    *("match", "initialise", "splits"),
}


# faults: what they do to cells, and what an error must name


def layers_as(convert):
    def spoil(a, folder):
        for name in (*LAYERS, "total"):
            if convert is not small or name != "total":
                a.layers[name] = convert(a.layers[name])
        return a

    return spoil


def small(matrix):
    return sparse.csr_matrix(matrix, dtype=np.uint8)


def twice(matrix):
    """The same counts, of which each is stored in two parts."""
    matrix = matrix.tocoo()
    part = np.floor(matrix.data / 2)
    at = np.tile(matrix.row, 2), np.tile(matrix.col, 2)
    order = np.argsort(at[0], kind="stable")
    values = np.concatenate([part, matrix.data - part])[order].astype(np.float32)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(at[0], minlength=N))])
    return sparse.csr_matrix((values, at[1][order], indptr), shape=matrix.shape)


def set_value(layer, value):
    def spoil(a, folder):
        values = dense(a.layers[layer]).copy()
        values[3, 5] = value
        a.layers[layer] = values
        if layer == "unspliced":
            a.layers.pop("total", None)
        return a

    return spoil


def change(action):
    def spoil(a, folder):
        changed = action(a)
        return a if changed is None else changed

    return spoil


def names(a):
    a.var_names = pd.Index(a.var_names, dtype="string")
    a.obs_names = pd.Index(a.obs_names, dtype="string")


def repeat(axis):
    def action(a):
        new = getattr(a, axis).to_numpy(dtype=object, copy=True)
        new[1] = new[0]
        setattr(a, axis, new)

    return action


def column(key, values):
    def action(a):
        a.obs[key] = values(a.obs[key]) if callable(values) else values

    return action


def without(key):
    def action(a):
        a.obs = a.obs.drop(columns=key)

    return action


def with_missing(old):
    new = pd.Series(old.to_numpy(dtype=object), old.index)
    new.iloc[:3] = np.nan
    return new


def infinite(old):
    return np.where(np.arange(N) < 2, np.inf, old)


def nan_umap(a):
    a.obsm["X_umap"] = np.where(np.arange(N)[:, None] == 3, np.nan, a.obsm["X_umap"])


def nan_graph(a):
    graph = a.obsp["connectivities"].copy()
    graph.data[0] = np.nan
    a.obsp["connectivities"] = graph


def drop(*layers):
    def action(a):
        for name in layers:
            a.layers.pop(name, None)

    return action


def normalised(a):
    for name in (*LAYERS, "total"):
        counts = a.layers[name].toarray()
        a.layers[name] = 50 * counts / np.maximum(counts.sum(1, keepdims=True), 1)


def logged_x(a):
    a.X = a.X.log1p()


def copied(a):
    a.layers["unspliced"] = a.layers["spliced"].copy()
    a.layers.pop("total", None)


def empty_layer(a):
    a.layers["unspliced"] = sparse.csr_matrix(a.shape, dtype=np.float32)
    a.layers.pop("total", None)


def one_form(a):
    """The cells of batch y have no unspliced counts."""
    keep = sparse.diags_array((a.obs["batch"] == "x").to_numpy(dtype=np.float32))
    a.layers["unspliced"] = sparse.csr_matrix(keep @ a.layers["unspliced"])
    a.layers["total"] = a.layers["spliced"] + a.layers["unspliced"]
    a.X = a.layers["total"].copy()


def empty_cell(a):
    for name in (*LAYERS, "total"):
        if name in a.layers:
            values = dense(a.layers[name]).copy()
            values[4] = 0
            a.layers[name] = values


def backed(a, folder):
    path = folder / f"{uuid4()}.h5ad"
    a.write_h5ad(path)
    return anndata.read_h5ad(path, backed="r")


def renamed(rename):
    def action(a):
        a.var_names = [rename(name) for name in a.var_names]

    return action


FAULTS = {
    "uint8": (layers_as(small), ""),
    "int64": (layers_as(lambda m: m.astype(np.int64)), ""),
    "float64": (layers_as(lambda m: m.astype(np.float64)), ""),
    "object": (layers_as(lambda m: m.toarray().astype(object)), ""),
    "csr_array": (layers_as(sparse.csr_array), ""),
    "csc": (layers_as(sparse.csc_matrix), ""),
    "dense": (layers_as(lambda m: m.toarray()), ""),
    "fortran": (layers_as(lambda m: np.asfortranarray(m.toarray())), ""),
    "in two parts": (layers_as(twice), ""),
    "view": (change(lambda a: a[np.arange(N)]), ""),
    "backed": (backed, ""),
    "string names": (change(names), ""),
    "log X": (change(logged_x), ""),
    "categories": (change(column("batch", lambda b: b.cat.add_categories("z"))), ""),
    "numbers as Int64": (change(column("age", lambda x: pd.array(x, dtype="Float64"))), ""),
    "barcodes twice": (change(repeat("obs_names")), ""),
    "no total": (change(drop("total")), ""),
    "genes twice": (change(repeat("var_names")), "gene"),
    "genes reversed": (change(lambda a: a[:, ::-1].copy()), "order"),
    "gene missing": (change(lambda a: a[:, 1:].copy()), "missing|23"),
    "gene versions": (change(renamed(lambda g: f"{g}.4")), "unknown"),
    "other case": (change(renamed(str.lower)), r"unknown|case|no Ensembl"),
    "missing count": (set_value("spliced", np.nan), r"spliced.*(missing|nan)"),
    "infinite count": (set_value("unspliced", np.inf), r"unspliced.*inf"),
    "negative count": (set_value("unspliced", -1), r"unspliced.*-1"),
    "fraction": (set_value("spliced", 0.5), "spliced.*fractional"),
    "normalised": (change(normalised), "fractional"),
    "text": (layers_as(lambda m: np.full(m.shape, "a", dtype=object)), "no numbers"),
    "no spliced": (change(drop("spliced", "total")), "spliced|total"),
    "empty layer": (change(empty_layer), "unspliced.*(empty|no count)"),
    "copies": (change(copied), "same|copy"),
    "one form": (change(one_form), "total"),
    "empty cell": (change(empty_cell), "1 cells.*no counts"),
    "batch NaN": (change(column("batch", with_missing)), "3 cells.*batch"),
    "no batch": (change(without("batch")), "batch"),
    "new batch": (change(column("batch", "new")), "new"),
    "age NaN": (change(column("age", with_missing)), "3 cells.*age"),
    "age inf": (change(column("age", infinite)), "age.*inf"),
    "age text": (change(column("age", lambda x: x.astype(str))), "age"),
    "no age": (change(without("age")), "age"),
    "clusters NaN": (change(column("clusters", with_missing)), "3 cells"),
    "UMAP NaN": (change(nan_umap), "X_umap.*1 cells"),
    "graph NaN": (change(nan_graph), "connectivities.*1 cells"),
    "no cells": (change(lambda a: a[:0].copy()), "no cells"),
    "a table": (change(lambda a: a.to_df()), "DataFrame"),
}
TABLE = """
uint8             = = = = = = = = = = = = = = = = = = = =
int64             = = = = = = = = = = = = = = = = = = = =
float64           = = = = = = = = = = = = = = = = = = = =
object            = = = = = = = = = = = = = = = = = = = =
csr_array         = = = = = = = = = = = = = = = = = = = =
csc               = = = = = = = = = = = = = = = = = = = =
dense             = = = = = = = = = = = = = = = = = = = =
fortran           = = = = = = = = = = = = = = = = = = = =
in two parts      = = = = = = = = = = = = = = = = = = = =
view              = = = = = = = = = = = = = = = = = = = =
backed            = = = = = = = = = = = = = = = = = = = =
string names      = = = = = = = = = = = = = = = = = = = =
log X             = = = = = = = = = = = = = = = = = ~ = =
categories        = = ~ = = = = = = = = ! = = = = = = = =
numbers as Int64  = = = = = = = = = = = = = = = = = = = =
barcodes twice    = = = = = = = = = = = = = = = = = = = =
no total          = = = = = = = = = = = = = = = = = = = =
genes twice       ! ! ! ! ! ! ! ! ! ! ! ! ! ! = = = ! ! =
genes reversed    ~ ~ ~ ! ! = ! ! ! ! ! ! ~ ! = ~ ~ = = =
gene missing      ~ ~ ~ ! ! ~ ! ! ! ! ! ! ~ ! ~ ~ ! ~ ~ =
gene versions     = = = ! ! = ! ! ! ! ! ! = ! = = = = = =
other case        = = = ! ! ! ! ! ! ! ! ! = ! = = = ! ! =
missing count     ! ! ! ! ! ! ! ! ! ! ! ! ! = = ! = = ! =
infinite count    ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! = = ! =
negative count    ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! = = ! =
fraction          ! ! ! ! ! ! ! ! ! ! ! ! ! = = ~ = = ! =
normalised        ! ! ! ! ! ! ! ! ! ! ! ! ! ! = = = = ! =
text              ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! = ! ! =
no spliced        ! ! ! ! ! = ! ! ! ! ! ! ! ! ! ! = = ! =
empty layer       ! ! ! ! ! ~ ! ! ! ! ! ! ! ! ! ! = = ! =
copies            ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! = = ! =
one form          ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ ~ = ~ ~ =
empty cell        ! ! ! ! ! ! ! ! ! ! ! ! ~ ! ~ ~ = = ! =
batch NaN         = ! ! ! ! = = = ! ~ ! ! = = = = = = ! =
no batch          = ! ! ! ! = = = ! ~ ! ! = = = = = = ! =
new batch         = ~ ~ ! = = = = ! ~ ! ! = = = = = = = =
age NaN           = ! ! ! ! ! ! ! ! ! ! = = = = = = = = =
age inf           = ! ! ! ! ! ! ! ! ! ! = = = = = = = = =
age text          = ! ! ! ! ! ! ! ! ! ! = = = = = = = = =
no age            = ! ! ! ! ! ! ! ! ! ! = = = = = = = = =
clusters NaN      = = = = = = = = = = = = ! = = = = = = !
UMAP NaN          = = = = = = = = = = = = = = = ! ! = = =
graph NaN         = = = = = = = = = = = = = = = ! ! = = =
no cells          ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! !
a table           ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! ! !
"""
ROWS = {line[:18].strip(): line[18:].split() for line in TABLE.strip().splitlines()}


def averaged(b):
    cells = b.cells.copy()
    b.model.impute_layers(cells, transform_batch=["x", "y"])
    return dense(cells.layers["spliced_splicedvae"])


def partly_averaged(b):
    own, mean = b.expected["impute"].copy(), averaged(b)
    own[:3] = mean[:3]
    return own


#: What ``~`` must be, where it can be said. Else it is a result of other data.
OWN = {
    ("genes reversed", "prepare"): lambda b: b.expected["prepare"][:, ::-1],
    ("genes reversed", "baseline_fit"): lambda b: b.expected["baseline_fit"][:, ::-1],
    ("genes reversed", "fit"): lambda b: b.expected["fit"][:, ::-1],
    ("gene missing", "prepare"): lambda b: b.expected["prepare"][:, 1:],
    ("gene missing", "baseline_fit"): lambda b: b.expected["baseline_fit"][:, 1:],
    ("gene missing", "match"): lambda b: b.expected["match"][:, 1:],
    ("log X", "match"): lambda b: np.log1p(b.expected["match"]),
    ("new batch", "impute"): averaged,
    ("no batch", "impute"): averaged,
    ("batch NaN", "impute"): partly_averaged,
}


def fingerprint(adata) -> str:
    if not isinstance(adata, AnnData):
        return joblib.hash(adata)

    def plain(value):
        if sparse.issparse(value):
            value = value.tocsr()
            return str(value.dtype), value.data, value.indices, value.indptr
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return value

    parts = [adata.obs.to_dict("list"), list(adata.obs_names), list(adata.var_names)]
    parts += [adata.var.to_dict("list"), plain(dict(adata.uns))]
    parts += [plain(dict(getattr(adata, m))) for m in ("obsm", "obsp", "varm")]
    parts += [plain(named_layers(adata))]
    return joblib.hash([*parts, None if adata.isbacked else plain(adata.X)])


def ours(error: BaseException) -> bool:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return Path(frame.filename).is_relative_to(PACKAGE)


def outcome(bench, door: str, fault: str, folder):
    """What a door does with a fault, and what it gives or says."""
    adata = FAULTS[fault][0](bench.cells.copy(), folder)
    before = fingerprint(adata)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if door not in bench.expected:
            bench.expected[door] = DOORS[door](bench, bench.cells.copy())
        try:
            found = DOORS[door](bench, adata)
        except Exception as error:
            assert ours(error), f"{type(error).__name__}: {error}"
            assert fingerprint(adata) == before
            return "!", str(error)
    if door in READ_ONLY:
        assert fingerprint(adata) == before
    expected = bench.expected[door]
    same = found.shape == expected.shape and np.allclose(found, expected, rtol=1e-5, atol=1e-5)
    return "=" if same else "~", found


def test_the_table_has_a_cell_for_each_door_and_fault():
    assert ROWS.keys() == FAULTS.keys()
    assert {len(row) for row in ROWS.values()} == {len(DOORS)}
    assert len(DOORS) >= 15 and len(FAULTS) >= 20


@pytest.mark.parametrize("fault", FAULTS)
def test_doors(bench, fault, tmp_path, caplog):
    for door, expected in zip(DOORS, ROWS[fault], strict=True):
        caplog.clear()
        with caplog.at_level("INFO", logger="splicedvae"):
            found, what = outcome(bench, door, fault, tmp_path)
        assert found == expected, f"{door} with {fault}: {found} {what}"
        if found == "!":
            assert re.search(FAULTS[fault][1], what), f"{door} with {fault}: {what}"
        if found == "~":
            assert np.isfinite(what).all(), f"{door} with {fault}"
            if (fault, door) in OWN:
                np.testing.assert_allclose(what, OWN[fault, door](bench), rtol=1e-4, atol=1e-4)
            if fault == "one form" and door not in ("baseline_predict", "embed", "match"):
                assert "no unspliced counts" in caplog.text, door


# every public method of scVI's model


def call(name, *args, **kwargs):
    return lambda model, adata, folder: getattr(model, name)(*args, **kwargs)


def with_cells(name, *args, **kwargs):
    return lambda model, adata, folder: getattr(model, name)(adata, *args, **kwargs)


def saved(model, adata, folder) -> str:
    model.save(str(folder / "m"), overwrite=True)
    return str(folder / "m")


def set_cells(model, adata, folder):
    model.adata = adata
    assert model.adata is adata
    return model.get_splicing_ratio(return_numpy=True)


WORKS = {
    "adata": set_cells,
    "adata_manager": lambda m, a, f: m.adata_manager.adata is m.adata,
    "data_registry": call("data_registry", "spliced"),
    "deregister_manager": call("deregister_manager"),
    "device": lambda m, a, f: str(m.device),
    "differential_abundance": with_cells("differential_abundance", sample_key="clusters"),
    "differential_expression": with_cells("differential_expression", "batch", silent=True),
    "get_aggregated_posterior": with_cells("get_aggregated_posterior"),
    "get_anndata_manager": lambda m, a, f: m.get_anndata_manager(m.adata, required=True),
    "get_elbo": with_cells("get_elbo"),
    "get_feature_correlation_matrix": with_cells("get_feature_correlation_matrix", n_samples=2),
    "get_from_registry": with_cells("get_from_registry", "unspliced"),
    "get_importance_weights": lambda m, a, f: m.get_normalized_expression(
        a, n_samples_overall=20, weights="importance", return_numpy=True
    ),
    "get_latent_library_size": with_cells("get_latent_library_size"),
    "get_latent_representation": with_cells("get_latent_representation"),
    "get_likelihood_parameters": with_cells("get_likelihood_parameters"),
    "get_marginal_ll": with_cells("get_marginal_ll", n_mc_samples=4, n_mc_samples_per_pass=2),
    "get_normalized_expression": with_cells("get_normalized_expression", return_numpy=True),
    "get_normalized_function_name": lambda m, a, f: m.get_normalized_function_name,
    "get_reconstruction_error": with_cells("get_reconstruction_error"),
    "get_setup_arg": call("get_setup_arg", "spliced_layer"),
    "get_state_registry": call("get_state_registry", "batch"),
    "get_var_names": call("get_var_names"),
    "history": lambda m, a, f: m.history,
    "is_trained": lambda m, a, f: m.is_trained,
    "load": lambda m, a, f: sv.SplicedVAE.load(saved(m, a, f), a),
    "load_query_data": lambda m, a, f: sv.SplicedVAE.load_query_data(a, m),
    "load_registry": lambda m, a, f: sv.SplicedVAE.load_registry(saved(m, a, f)),
    "minified_data_type": lambda m, a, f: m.minified_data_type is None,
    "posterior_predictive_sample": with_cells("posterior_predictive_sample"),
    "prepare_query_anndata": lambda m, a, f: sv.SplicedVAE.prepare_query_anndata(a, m),
    "register_manager": lambda m, a, f: m.register_manager(m.adata_manager),
    "registry": lambda m, a, f: m.registry,
    "run_id": lambda m, a, f: m.run_id,
    "run_name": lambda m, a, f: m.run_name,
    "save": saved,
    "setup_anndata": lambda m, a, f: sv.SplicedVAE.setup_anndata(a, **SETUP),
    "summary_string": lambda m, a, f: m.summary_string,
    "test_indices": lambda m, a, f: m.test_indices,
    "to_device": call("to_device", "cpu"),
    "train": lambda m, a, f: m.train(split=(np.arange(40), np.arange(40, N)), **FAST),
    "train_indices": lambda m, a, f: m.train_indices,
    "transfer_fields": with_cells("transfer_fields"),
    "validation_indices": lambda m, a, f: m.validation_indices,
    "view_anndata_setup": call("view_anndata_setup"),
    "view_registry": call("view_registry"),
    "view_setup_args": lambda m, a, f: sv.SplicedVAE.view_setup_args(saved(m, a, f)),
    "view_setup_method_args": call("view_setup_method_args"),
}


def test_each_public_method_of_scvi_is_on_one_list():
    public = {name for name in dir(SCVI) if not name.startswith("_")}
    assert public <= WORKS.keys() | REFUSED.keys()
    assert not WORKS.keys() & REFUSED.keys()


@pytest.mark.parametrize("name", WORKS)
def test_what_is_inherited_works(bench, name, tmp_path):
    if not hasattr(sv.SplicedVAE, name):
        pytest.skip("this version of scvi-tools does not have it")
    model = sv.SplicedVAE.load(str(bench.folder / "model"), bench.cells.copy())
    other = bench.cells[::-1].copy()
    found = WORKS[name](model, other, tmp_path)
    if isinstance(found, np.ndarray) and found.dtype.kind == "f":
        assert np.isfinite(found).all()


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_head_rules_out_is_refused_with_the_reason(bench, name):
    with pytest.raises(NotImplementedError, match=re.escape(REFUSED[name])):
        getattr(bench.model, name)()


def test_inherited_methods_check_genes_batches_and_positions(bench):
    model = bench.model
    for wrong, error, message in (
        ({"gene_list": "ENSMUSG00000000001"}, ValueError, "gene_list='ENSMUSG00000000001' is one"),
        ({"gene_list": ["Nope"]}, KeyError, "Nope"),
        ({"transform_batch": "z"}, ValueError, "transform_batch='z'.*x, y"),
        ({"indices": list(bench.cells.obs_names[:2])}, ValueError, "indices holds"),
        ({"indices": [N]}, ValueError, "indices names a cell that is not there"),
        ({"indices": [True, False]}, ValueError, "2 entries for 60 cells"),
    ):
        for method in ("get_normalized_expression", "get_splicing_ratio"):
            with pytest.raises(error, match=message):
                getattr(model, method)(**wrong)


# the kinds of fault that need other cells than the bench's


def queried(adata, genes, **kwargs):
    """Cells of named genes, prepared for a model of other names."""
    cells = adata.copy()
    sv.SplicedVAE.setup_anndata(cells)
    model = sv.SplicedVAE(cells, **SMALL)
    totals = AnnData(adata.layers["total"].copy(), obs=adata.obs[[]].copy(), var=genes)
    return sv.SplicedVAE.prepare_query_anndata(totals, model, **kwargs)


def test_genes_are_found_by_id_version_symbol_and_case(bench, caplog):
    symbols = [f"Gene{i}" for i in range(G)]
    ids = list(bench.cells.var_names)
    versions = pd.DataFrame(index=[f"{i}.{n}" for n, i in enumerate(ids)])
    of_symbols = bench.cells.copy()
    of_symbols.var_names = symbols
    for reference, var in (
        (bench.cells, versions),
        (bench.cells, pd.DataFrame({"gene_ids": ids}, index=symbols)),
        (of_symbols, pd.DataFrame({"gene_name": symbols}, index=ids)),
        (of_symbols, pd.DataFrame(index=[*symbols[:-2], *map(str.upper, symbols[-2:])])),
    ):
        order = np.random.default_rng(0).permutation(G)
        query = queried(reference[:, order].copy(), var.iloc[order])
        assert list(query.var_names) == list(reference.var_names[order])
        np.testing.assert_array_equal(
            dense(query.layers["total"]), dense(reference.layers["total"])[:, order]
        )
    with caplog.at_level("INFO", logger="splicedvae"):
        queried(of_symbols, pd.DataFrame(index=[*symbols[:-4], *map(str.upper, symbols[-4:])]))
    assert "24 of the model's 24 genes (100 %)" in caplog.text and "4 by case" in caplog.text


def test_too_few_genes_are_refused_with_a_hint(bench):
    symbols = [f"Gene{i}" for i in range(G)]
    mouse = bench.cells.copy()
    mouse.var_names = symbols
    human = [*symbols[:2], *map(str.upper, symbols[2:])]
    with pytest.raises(ValueError, match=r"Only 2 of the 24.*20%.*22 would match.*another species"):
        queried(mouse, pd.DataFrame(index=human))
    assert queried(mouse, pd.DataFrame(index=human), min_shared=0.05).n_vars == G
    with pytest.raises(ValueError, match="by symbols and these are ids"):
        queried(mouse, pd.DataFrame(index=bench.cells.var_names))


def test_a_query_keeps_what_it_has(bench):
    cells = bench.cells.copy()
    cells.uns["note"], cells.obsm["X_latent"] = {"a": 1}, np.ones((N, 2))
    cells.var["highly_variable"], cells.var["mean"] = True, 1.0
    cells.layers["kept"] = cells.layers["total"].toarray().astype(np.int16)
    cells.raw = cells.copy()
    query = sv.SplicedVAE.prepare_query_anndata(cells[:, 1:].copy(), bench.model)
    assert query.uns["note"] == {"a": 1} and "neighbors" in query.uns
    assert abs(query.obsp["distances"] - cells.obsp["distances"]).max() == 0
    assert query.layers["kept"].dtype == np.int16 and query.var["highly_variable"].dtype == bool
    assert set(query.obsm) == set(cells.obsm) and query.raw.n_vars == G
    np.testing.assert_array_equal(query.layers["kept"][:, 1:], cells.layers["kept"][:, 1:])
    del query.obsm["X_pca"]
    with pytest.raises(ValueError, match="uns already holds neighbors"):
        sv.velocity.embed(query, umap=False)
    del query.uns["neighbors"]
    with pytest.raises(ValueError, match="obsp already holds connectivities"):
        sv.velocity.embed(query, umap=False)


def test_what_a_query_is_taken_for_is_said_and_doubted(caplog):
    cells = sv.data.simulate(400, 100, seed=1)
    sv.SplicedVAE.setup_anndata(cells)
    model = sv.SplicedVAE(cells)
    model.train(**FAST | {"max_epochs": 2})
    for layer, looks in (("spliced", True), ("total", False)):
        query = AnnData(cells.layers[layer].copy(), obs=cells.obs[[]], var=cells.var[[]])
        with caplog.at_level("INFO", logger="splicedvae"), warnings.catch_warnings():
            warnings.simplefilter("error")
            if looks:
                with pytest.raises(UserWarning, match="X looks like spliced counts"):
                    sv.SplicedVAE.prepare_query_anndata(query, model)
                sv.SplicedVAE.prepare_query_anndata(query, model, input="total")
            else:
                sv.SplicedVAE.prepare_query_anndata(query, model)
        assert "X is taken for total counts" in caplog.text


def test_a_sample_without_unspliced_counts_keeps_its_spliced_ones(caplog):
    cells = sv.data.simulate(300, 60, seed=1)
    cells.obs["sample"] = np.where(np.arange(300) < 200, "a", "b")
    true = cells.layers["unspliced"][200:].sum()
    keep = sparse.diags_array((np.arange(300) < 200).astype(np.float32))
    cells.layers["unspliced"] = sparse.csr_matrix(keep @ cells.layers["unspliced"])
    sv.SplicedVAE.setup_anndata(cells, batch_key="sample")
    assert "(100 of 100 in batch b)" in caplog.text
    model = sv.SplicedVAE(cells)
    model.train(**FAST | {"max_epochs": 20})
    model.impute_layers(cells)
    spliced, unspliced = (cells.layers[f"{k}_splicedvae"][200:] for k in LAYERS)
    assert abs(spliced - cells.layers["spliced"][200:]).max() < 1e-5
    assert 0.5 < unspliced.sum() / true < 2
    both = cells.layers["total"][:200]
    parts = [cells.layers[f"{k}_splicedvae"][:200] for k in LAYERS]
    np.testing.assert_allclose(dense(sum(parts)), dense(both), rtol=1e-5)


@pytest.mark.parametrize(("n_vars", "seed"), [(60, 1), (100, 1), (200, 2)])
def test_a_form_that_was_not_counted_is_told_from_chance(n_vars, seed):
    cells = sv.data.simulate(400, n_vars, seed=seed)
    s, u = (cells.layers[k].toarray() for k in LAYERS)
    assert not (missing_form(s, u) != "").any()
    few = np.argsort(-u.sum(0))[:5]  # a gene may be all of one form in a cell
    assert (missing_form(s[:, few], u[:, few]) == "unspliced").mean() < 0.01
    u[250:] = 0
    assert list(np.flatnonzero(missing_form(s, u) == "unspliced")) == list(range(250, 400))
    assert not (missing_form(s, u) == "spliced").any()


def test_a_lone_cell_in_the_last_minibatch_sits_out(bench):
    cells = bench.cells.copy()
    sv.SplicedVAE.setup_anndata(cells)
    model = sv.SplicedVAE(cells, **SMALL)
    split = np.arange(41), np.arange(41, N)
    model.train(split=split, batch_size=20, **FAST)
    assert np.isfinite(model.get_splicing_ratio(return_numpy=True)).all()
    for wrong in ({"batch_size": 1}, {"split": ([0], [1])}):
        with pytest.raises(ValueError, match="Minibatches of one cell"):
            model.train(**{"split": split, **wrong}, **FAST)


def test_other_layer_names(bench):
    cells = bench.cells.copy()
    expected = sv.data.prepare(cells, 1)
    names = {"spliced_layer": "mature", "unspliced_layer": "nascent"}
    for old, new in zip(LAYERS, names.values(), strict=True):
        cells.layers[new] = cells.layers.pop(old)
    del cells.layers["total"]
    prepared = sv.data.prepare(cells, 1, **names)
    np.testing.assert_array_equal(dense(prepared.X), dense(expected.X))
    assert {"mature", "nascent", "total"} <= set(prepared.layers)
    plain = sv.baselines.RidgeBinomial([3], [10]).fit(expected, expected).predict(expected)
    other = sv.baselines.RidgeBinomial([3], [10]).fit(prepared, prepared, **names)
    np.testing.assert_allclose(other.predict(prepared), plain)
    model = census.initialise(cells, checkpoint=bench.checkpoint, **names)
    assert model.registry["setup_args"]["spliced_layer"] == "mature"
    query = sv.SplicedVAE.prepare_query_anndata(cells, bench.model, **names)
    np.testing.assert_allclose(
        bench.model.get_splicing_ratio(query, return_numpy=True),
        bench.model.get_splicing_ratio(return_numpy=True),
        rtol=1e-5,
    )


def test_models_of_other_classes_and_places(bench):
    for door in (
        lambda: sv.SplicedVAE.load(str(bench.folder / "scvi"), bench.cells.copy()),
        lambda: sv.SplicedVAE.prepare_query_anndata(bench.cells, bench.scvi),
        lambda: sv.SplicedVAE.load_query_data(bench.cells.copy(), bench.scvi),
    ):
        with pytest.raises(ValueError, match=r"different class, SCVI.*from_scvi_model"):
            door()
    with pytest.raises(ValueError, match="No cells were saved along"):
        sv.SplicedVAE.load(bench.folder / "model")
    with pytest.raises(ValueError, match="is a file; give the folder"):
        sv.SplicedVAE.load(str(bench.folder / "model" / "model.pt"), bench.cells.copy())
    with pytest.raises(ValueError, match=r"Call SplicedVAE.setup_anndata\(adata, …\) first"):
        sv.SplicedVAE(bench.cells.copy())


def test_new_categories_beside_covariates_are_refused(bench):
    cells = bench.cells.copy()
    sv.SplicedVAE.setup_anndata(cells, batch_key="batch", categorical_covariate_keys=["clusters"])
    model = sv.SplicedVAE(cells, **SMALL)
    other = bench.cells.copy()
    other.obs["batch"] = "new"
    before = fingerprint(other)
    with pytest.raises(ValueError, match=r"obs\['batch'\] has new categories \(new\)"):
        sv.SplicedVAE.load_query_data(other, model)
    assert fingerprint(other) == before


# whatever comes


@st.composite
def inputs(draw):
    """A list of changes, and which of the cells' genes are there in which order."""
    kinds = ("uint8", "int64", "float64", "object", "csr_array", "csc", "dense", "in two parts")
    some = ("string names", "log X", "numbers as Int64", "barcodes twice", "no total", "view")
    bad = ("missing count", "negative count", "fraction", "batch NaN", "no batch", "new batch")
    bad += ("age NaN", "no age", "copies", "empty layer", "empty cell")
    return {
        "faults": [
            draw(st.sampled_from(kinds)),
            *draw(st.lists(st.sampled_from(some), unique=True, max_size=3)),
            *draw(st.lists(st.sampled_from(bad), unique=True, max_size=1)),
        ],
        "genes": draw(st.permutations(range(G))),
        "n_genes": draw(st.integers(2, G)),
        "cells": draw(st.lists(st.integers(0, N - 1), min_size=2, max_size=N, unique=True)),
    }


@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(inputs())
def test_any_input_gives_what_plain_cells_give_or_an_error_of_ours(bench, tmp_path, case):
    adata = bench.cells.copy()
    for fault in case["faults"]:
        adata = FAULTS[fault][0](adata, tmp_path)
    genes, cells = np.array(case["genes"][: case["n_genes"]]), np.array(case["cells"])
    adata = adata[cells][:, genes]
    before = fingerprint(adata.copy())
    plain = bench.cells[cells].copy()
    absent = np.setdiff1d(np.arange(G), genes)
    for name in (*LAYERS, "total"):
        values = plain.layers[name].toarray()
        values[:, absent] = 0
        plain.layers[name] = sparse.csr_matrix(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            query = sv.SplicedVAE.prepare_query_anndata(adata, bench.model)
            assert list(query.obs_names) == list(adata.obs_names)
            bench.model.impute_layers(query)
        except Exception as error:
            assert ours(error), f"{type(error).__name__}: {error}"
            assert len(str(error)) < 700
            assert fingerprint(adata.copy()) == before
            return
        unknown = np.zeros(N, dtype=bool)
        unknown[: 3 if "batch NaN" in case["faults"] else 0] = True
        unknown |= bool({"no batch", "new batch"} & set(case["faults"]))
        own, mean = (
            bench.model.get_splicing_ratio(plain, None, batch, return_numpy=True)
            for batch in (None, ["x", "y"])
        )
    expected = np.where(unknown[cells, None], mean, own)
    if not {"missing count", "negative count", "fraction", "copies", "empty layer"} & {
        *case["faults"]
    }:
        counts = plain.layers["total"].toarray()
        np.testing.assert_allclose(
            dense(query.layers["spliced_splicedvae"]), expected * counts, rtol=1e-5, atol=1e-4
        )
    assert fingerprint(adata.copy()) == before


def test_a_training_that_was_refused_leaves_no_trace(cells, parts):
    def trained(before):
        scvi.settings.seed = 0
        sv.SplicedVAE.setup_anndata(adata := cells.copy())
        model = sv.SplicedVAE(adata)
        if before:
            with pytest.raises((TypeError, ValueError)):
                model.train(1, nonsense=3)
        torch.manual_seed(0)
        model.train(2, split=parts[:2], enable_progress_bar=False)
        return model

    plain, after = trained(False), trained(True)
    assert not after.module.head.output.remembers
    for name, value in plain.module.head.state_dict().items():
        torch.testing.assert_close(after.module.head.state_dict()[name], value, msg=name)


@pytest.mark.parametrize("given", [{"max_epochs": None}, {"max_epochs": 0}, {"train_size": -0.5}])
def test_a_training_of_no_length_is_refused(cells, given):
    sv.SplicedVAE.setup_anndata(adata := cells.copy())
    with pytest.raises(ValueError, match=next(iter(given))):
        sv.SplicedVAE(adata).train(**given)


def test_cells_stay_whole_where_a_query_is_refused(cells, parts):
    sv.SplicedVAE.setup_anndata(adata := cells.copy())
    model = sv.SplicedVAE(adata)
    model.train(1, split=parts[:2], enable_progress_bar=False)
    extra = anndata.concat([cells, cells[:, :3].copy()], axis=1, merge="same")
    extra.var_names = [*cells.var_names, "x", "y", "z"]
    del extra.layers["spliced"]
    before = fingerprint(extra.copy())
    with pytest.raises(KeyError, match="spliced"):
        sv.SplicedVAE.load_query_data(extra, model, inplace_subset_query_vars=True)
    assert fingerprint(extra.copy()) == before


def test_layers_of_zeros_beside_totals_stand_for_nothing(cells, parts):
    sv.SplicedVAE.setup_anndata(adata := cells.copy())
    model = sv.SplicedVAE(adata)
    model.train(1, split=parts[:2], enable_progress_bar=False)
    query = AnnData(cells.layers["total"].copy(), obs=cells.obs[[]], var=cells.var[[]])
    ready = sv.SplicedVAE.prepare_query_anndata(query, model)
    empty = query.copy()
    for form in ("spliced", "unspliced"):
        empty.layers[form] = sparse.csr_matrix(empty.shape, dtype=np.float32)
    again = sv.SplicedVAE.prepare_query_anndata(empty, model)
    assert (again.layers["total"] != ready.layers["total"]).nnz == 0
