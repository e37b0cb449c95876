"""Census checkpoints: read as they are, and without running what they hold."""

import contextlib
import functools
import os
import subprocess
import tracemalloc
import zipfile

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scvi.model import SCANVI, SCVI

import splicedvae as sv
from splicedvae.census import read

PREFIX = {"homo_sapiens": "ENSG", "mus_musculus": "ENSMUSG", None: "gene"}


def cells(organism="mus_musculus", n_batch=3, n_vars=12):
    """Simulated counts, with batches, labels and covariates."""
    rng = np.random.default_rng(0)
    n_obs = max(60, n_batch)
    adata = anndata.AnnData(rng.poisson(2, (n_obs, n_vars)).astype(np.float32))
    adata.var_names = [f"{PREFIX[organism]}{i:011d}" for i in range(n_vars)]
    for column, n in (("batch", n_batch), ("labels", 2), ("donor", 4), ("sex", 2)):
        adata.obs[column] = [f"{column} {i % n}" for i in range(n_obs)]
    adata.obs["age"] = rng.normal(size=n_obs)
    return adata


def model_of(adata, covariates=False, **architecture):
    extra = {"labels_key": "labels", "categorical_covariate_keys": ["donor", "sex"]}
    extra |= {"continuous_covariate_keys": ["age"]}
    SCVI.setup_anndata(adata, batch_key="batch", **(extra if covariates else {}))
    return SCVI(adata, **architecture)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained scVI, its history included, and the folder where it is saved."""
    model = model_of(cells(), n_hidden=4, n_latent=3, gene_likelihood="nb")
    model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    folder = tmp_path_factory.mktemp("saved") / "model"
    model.save(folder)
    return model, folder


@pytest.fixture(scope="module")
def saved(trained):
    return trained[1] / "model.pt"


def same_weights(checkpoint, module):
    state = module.state_dict()
    assert checkpoint.weights.keys() == state.keys()
    return all(torch.equal(checkpoint.weights[name], state[name]) for name in state)


def rewritten(file, target, records=None, edit=None):
    """Copy an archive, with other `records`, or its pickle edited; the CRCs are right."""
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if edit and name.endswith("data.pkl"):
                data = edit(data)
            new.writestr(name, data)
        for name, data in (records or {}).items():
            new.writestr(name, data)
    return target


@pytest.mark.parametrize("covariates", [False, True])
@pytest.mark.parametrize(
    "architecture",
    [
        {"n_layers": 2, "n_latent": 50, "gene_likelihood": "nb"},  # as in 2025
        {"n_layers": 1, "n_latent": 50, "gene_likelihood": "nb"},
        {"n_layers": 1, "n_latent": 200, "gene_likelihood": "nb", "encode_covariates": True},
        {"n_layers": 2, "encode_covariates": True, "deeply_inject_covariates": False},
        {"n_layers": 3, "dispersion": "gene-batch", "n_hidden": 16, "dropout_rate": 0.3},
        {"dispersion": "gene-label", "latent_distribution": "ln"},
        {"dispersion": "gene-cell", "use_observed_lib_size": False, "use_batch_norm": "none"},
    ],
)
def test_architecture_is_the_models(tmp_path, architecture, covariates):
    model = model_of(cells(n_batch=5), covariates, **architecture)
    model.save(tmp_path / "model")
    checkpoint = read(tmp_path / "model")
    module, found = model.module, checkpoint.architecture
    assert same_weights(checkpoint, module)
    assert list(checkpoint.genes) == list(model.adata.var_names)
    for name in ("n_latent", "n_layers", "n_hidden", "dispersion", "gene_likelihood"):
        assert found[name] == getattr(module, name)
    assert found["encode_covariates"] == module.encode_covariates
    deep = module.decoder.px_decoder.inject_covariates
    assert found.get("deeply_inject_covariates", True) == deep
    assert found | model.init_params_["non_kwargs"] == found
    assert (checkpoint.n_batch, checkpoint.n_labels) == (5, module.n_labels)
    assert checkpoint.n_cats_per_cov == ((4, 2) if covariates else ())
    assert checkpoint.n_continuous_cov == int(covariates)
    first = checkpoint.weights["decoder.px_decoder.fc_layers.Layer 0.0.weight"]
    assert first.shape[1] == found["n_latent"] + 5 + (1 + 4 + 2) * covariates
    rebuilt = SCVI(model.adata, **found)  # the arguments of SCVI, nothing else
    rebuilt.module.load_state_dict(checkpoint.weights)


def test_trained_model_and_its_file_read_alike(trained):
    model, folder = trained
    assert model.history_ and isinstance(model.history_["elbo_train"], pd.DataFrame)
    for path in (folder, str(folder), folder / "model.pt"):
        checkpoint = read(path)
        assert same_weights(checkpoint, model.module)
        assert checkpoint.path == folder / "model.pt"
    assert checkpoint.scvi_version == model.registry_["scvi_version"]
    assert "tensor(" not in repr(checkpoint)


@pytest.mark.parametrize("organism", PREFIX)
def test_organism_is_that_of_the_genes(tmp_path, organism):
    model_of(cells(organism, n_batch=1)).save(tmp_path / "model")
    checkpoint = read(tmp_path / "model")
    assert (checkpoint.organism, checkpoint.n_batch) == (organism, 1)


def test_older_layouts(trained, saved, tmp_path):
    model, _ = trained
    old_numpy = rewritten(saved, tmp_path / "a", edit=lambda d: d.replace(b"py._core", b"py.core"))
    assert b"numpy.core" in old_numpy.read_bytes()
    assert same_weights(read(old_numpy), model.module)
    content = torch.load(saved, weights_only=False)
    parameters = content["attr_dict"]["init_params_"]  # scvi-tools < 0.15
    flat = parameters["non_kwargs"] | {"model_kwargs": {"encode_covariates": False}}
    content["attr_dict"]["init_params_"] = flat
    content["var_names"] = content["var_names"].astype(str)  # not objects: text
    content["attr_dict"]["registry_"]["field_registries"]["batch"]["summary_stats"] = {
        "n_batch": np.int64(3)
    }
    torch.save(content, tmp_path / "b")
    assert same_weights(read(tmp_path / "b"), model.module)
    assert list(read(tmp_path / "b").genes) == list(model.adata.var_names)


def test_thousands_of_batches(tmp_path):
    model = model_of(cells(n_batch=3000), n_layers=2, n_latent=50, gene_likelihood="nb")
    model.save(tmp_path / "model")
    checkpoint = read(tmp_path / "model")
    assert checkpoint.n_batch == 3000
    assert same_weights(checkpoint, model.module)


def test_other_models_are_refused(tmp_path, trained, simulated):
    adata = cells()
    SCANVI.setup_anndata(adata, labels_key="labels", unlabeled_category="?")
    SCANVI(adata).save(tmp_path / "scanvi")
    sv.SplicedVAE.setup_anndata(simulated)
    sv.SplicedVAE(simulated).save(tmp_path / "spliced")
    for folder, name in (("scanvi", "SCANVI"), ("spliced", "SplicedVAE")):
        with pytest.raises(ValueError, match=f"{folder}.*of class {name}"):
            read(tmp_path / folder)
    torch.save({"model_state_dict": trained[0].module.state_dict()}, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"weights\.pt.*not a save of scVI.*attr_dict"):
        read(tmp_path / "weights.pt")
    with pytest.raises(FileNotFoundError, match=r"none"):
        read(tmp_path / "none")


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("var_names", lambda v: v[:-1], "contradict.*11 genes"),
        ("var_names", lambda v: v[[0, 0, *range(2, 12)]], "ENSMUSG00000000000 .* more than once"),
        ("model_state_dict", lambda w: w.pop("px_r"), "contradict.*px_r.*None"),
        ("model_state_dict", lambda w: w.update(px_r=torch.ones(())[None].expand(12)), "stretched"),
        ("model_state_dict", lambda w: w.update(px_r=np.ones(12)), "can't be read"),
        ("attr_dict", lambda a: a.pop("registry_"), "can't be read.*registry_"),
        (
            "attr_dict",
            lambda a: a["init_params_"]["non_kwargs"].update(batch_representation="embedding"),
            "one-hot",
        ),
    ],
)
def test_contradictions_are_named(saved, tmp_path, part, change, message):
    content = torch.load(saved, weights_only=False)
    changed = change(content[part])
    content[part] = changed if part == "var_names" else content[part]
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path / "model.pt")
    assert str(tmp_path / "model.pt") in str(caught.value)


def test_saved_sizes_give_way_to_the_shapes(saved, tmp_path):
    content = torch.load(saved, weights_only=False)
    content["attr_dict"]["init_params_"]["non_kwargs"].update(n_hidden=512, n_latent=9, n_layers=2)
    torch.save(content, tmp_path / "model.pt")
    assert read(tmp_path / "model.pt").architecture == read(saved).architecture
    assert read(saved).architecture["n_hidden"] == 4


few = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@few
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_damage_is_found_or_did_none(trained, tmp_path, where, bit, cut):
    model, folder = trained
    data = bytearray((folder / "model.pt").read_bytes())
    place = int(where * len(data))
    data[place] ^= 1 << bit
    (tmp_path / "model.pt").write_bytes(data[:place] if cut else data)
    try:
        checkpoint = read(tmp_path)
    except ValueError as error:
        assert str(tmp_path / "model.pt") in str(error)
    else:
        assert not cut and same_weights(checkpoint, model.module)


@few
@given(where=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_a_forged_pickle_gives_a_checkpoint_or_a_clear_error(saved, tmp_path, where, byte):
    def forge(data):
        place = int(where * len(data))
        return data[:place] + bytes([byte]) + data[place + 1 :]

    with contextlib.suppress(ValueError):
        checkpoint = read(rewritten(saved, tmp_path / "model.pt", edit=forge))
        assert all(type(w) is torch.Tensor for w in checkpoint.weights.values())


class Calls:
    """Pickled, it is a call of `function`, which may be such a call itself."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments, state) if state else (function, arguments)

    def __reduce__(self):
        return self.reduced

    def __call__(self):  # for pickle, which wants a function that it can call
        raise AssertionError


def python(marker):
    return f"open({marker!r}, 'w').close()"


def nested(marker, folder):
    torch.save(Calls(os.system, f"touch {marker}"), folder / "inner.pt")
    return Calls(functools.partial(torch.load, weights_only=False), str(folder / "inner.pt"))


def hub(marker, folder):
    (folder / "hubconf.py").write_text(f"{python(marker)}\ndef model(): return 0\n")
    return Calls(functools.partial(torch.hub.load, source="local"), str(folder), "model")


def objects(marker, folder):
    return np.array([Calls(os.system, f"touch {marker}"), None], dtype=object)


PAYLOADS = {
    "system": lambda marker, _: Calls(os.system, f"touch {marker}"),
    "eval": lambda marker, _: Calls(eval, python(marker)),
    "exec": lambda marker, _: Calls(exec, python(marker)),
    "popen": lambda marker, _: Calls(subprocess.check_output, ["touch", marker]),
    "partial": lambda marker, _: Calls(functools.partial(os.system, f"touch {marker}")),
    "getattr": lambda marker, _: Calls(
        Calls(getattr, Calls(__import__, "os"), "system"), f"touch {marker}"
    ),
    "nested": nested,
    "hub": hub,
    "objects": objects,
}
PLACES = {
    "attr_dict": lambda content, bad: content["attr_dict"].update(history_=bad),
    "registry": lambda content, bad: content["attr_dict"]["registry_"].update(x={"y": [bad]}),
    "state": lambda content, bad: content["model_state_dict"].update(px_r=bad),
    "var_names": lambda content, bad: content.update(var_names=bad),
    "beside": lambda content, bad: content.update(more=bad),
    "key": lambda content, bad: content["attr_dict"].update({("k", bad): 0}),
}
HARMFUL = [(kind, "attr_dict") for kind in PAYLOADS] + [("system", place) for place in PLACES]


def assert_runs_only_in_torch(file, marker):
    with pytest.raises(ValueError, match="can't be used") as caught:
        read(file)
    assert str(file) in str(caught.value)
    assert not marker.exists()
    with contextlib.suppress(Exception):  # the control: the file does harm where it can
        torch.load(file, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize(("kind", "place"), HARMFUL)
@pytest.mark.parametrize("protocol", [2, 4])
def test_planted_code_does_not_run(saved, tmp_path, kind, place, protocol):
    content, marker = torch.load(saved, weights_only=False), tmp_path / "marker"
    PLACES[place](content, PAYLOADS[kind](str(marker), tmp_path))
    torch.save(content, tmp_path / "model.pt", pickle_protocol=protocol)
    assert_runs_only_in_torch(tmp_path / "model.pt", marker)


RAW = {
    "global": b"cos\nsystem\n(Vtouch %s\ntR.",
    "inst": b"(Vtouch %s\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nVtouch %s\no.",
    "stack_global": b"\x80\x04Vos\nVsystem\n\x93Vtouch %s\n\x85R.",
    "import": b"cplanted_module\nname\n.",  # to look a name up is to run its module
}


@pytest.mark.parametrize("raw", RAW)
def test_planted_opcodes_do_not_run(saved, tmp_path, monkeypatch, raw):
    marker = tmp_path / "marker"
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "planted_module.py").write_text(python(str(marker)))
    opcodes = RAW[raw].replace(b"%s", os.fsencode(marker))
    file = rewritten(saved, tmp_path / "model.pt", edit=lambda _: opcodes)
    assert_runs_only_in_torch(file, marker)


def test_only_the_zip_format_is_read(saved, tmp_path):
    marker, content = tmp_path / "marker", torch.load(saved, weights_only=False)
    content["more"] = Calls(os.system, f"touch {marker}")
    torch.save(content, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
    assert_runs_only_in_torch(tmp_path / "legacy.pt", marker)
    (tmp_path / "page.pt").write_text("<html>Please log in</html>")
    (tmp_path / "empty.pt").touch()
    for name in ("page.pt", "empty.pt"):
        with pytest.raises(ValueError, match=f"{name}.*not in the zip format"):
            read(tmp_path / name)


def test_programs_and_packed_archives_are_refused(saved, tmp_path):
    program = rewritten(saved, tmp_path / "a", records={"model/constants.pkl": b"\x80\x02]."})
    with pytest.warns(UserWarning, match="torch.jit.load"), pytest.raises(RuntimeError):
        torch.load(program, weights_only=False)  # the control: it is taken for a program
    with pytest.raises(ValueError, match="TorchScript"):
        read(program)
    with zipfile.ZipFile(tmp_path / "b", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("model/data.pkl", bytes(1 << 20))
    with pytest.raises(ValueError, match=r"not one that torch\.save wrote"):
        read(tmp_path / "b")


def test_an_array_can_not_bring_its_own_pointers(saved, tmp_path):
    """NumPy lets a pickle clear the flag that says an array's bytes are pointers to objects."""
    dtype = Calls(np.dtype, "O8", False, True, state=(3, "|", None, None, None, -1, -1, 0))
    content = torch.load(saved, weights_only=False)
    rebuild = np.empty(0).__reduce__()[0]
    pointers = Calls(rebuild, np.ndarray, (0,), b"b", state=(1, (2,), dtype, False, b"A" * 16))
    content["var_names"] = pointers
    torch.save(content, tmp_path / "model.pt")
    array = torch.load(tmp_path / "model.pt", weights_only=False)["var_names"]
    assert array.dtype == object  # the control: to look at an element would crash
    assert array.tobytes() == b"A" * 16
    with pytest.raises(ValueError, match="can't be"):
        read(tmp_path / "model.pt")


def test_a_memo_takes_no_memory_in_advance(saved, tmp_path):
    """The unpickler in C takes 1 GiB for a file that gives one object the number 2²⁶."""
    file = rewritten(saved, tmp_path / "a", edit=lambda data: data[:-1] + b"r\0\0\0\x04.")
    tracemalloc.start()
    try:
        read(file)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
