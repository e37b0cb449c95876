"""The command line, the files that it leaves, and the README's lines on files of the tools."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from test_read import KB, listed, mtx, tenx_h5, write

import splicedvae as sv
from splicedvae.__main__ import main
from splicedvae.files import finish
from splicedvae.search.__main__ import main as search

ROOT = Path(__file__).parents[1]
PAGES = {"README": ROOT / "README.md", "quick start": ROOT / "book" / "quickstart.md"}
BASES = np.array(list("ACGT"))
N_CELLS = 440  # so many that a tenth of them can say how far to believe a model


@pytest.fixture(scope="module")
def counts():
    """Simulated counts, named as the tools do: (spliced, unspliced), barcodes, ids, symbols."""
    cells = sv.data.simulate(n_obs=N_CELLS, n_vars=300)
    rng = np.random.default_rng(0)
    barcodes = ["".join(BASES[rng.integers(0, 4, 16)]) for _ in range(N_CELLS)]
    ids = [f"ENSMUSG{i:011d}" for i in range(300)]
    layers = [cells.layers[name].toarray() for name in ("spliced", "unspliced")]
    return layers, barcodes, ids, [f"Gene{i}" for i in range(300)]


@pytest.fixture(scope="module")
def loom(counts, tmp_path_factory):
    (spliced, unspliced), barcodes, ids, symbols = counts
    file = tmp_path_factory.mktemp("loom") / "sample.loom"
    with h5py.File(file, "w") as out:
        out["matrix"] = (spliced + unspliced).T.astype("float32")
        for name, layer in (("spliced", spliced), ("unspliced", unspliced)):
            out[f"layers/{name}"] = layer.T.astype("uint16")
        out["layers/ambiguous"] = np.zeros_like(spliced.T, "uint16")
        out["row_attrs/Gene"], out["row_attrs/Accession"] = symbols, ids
        out["col_attrs/CellID"] = [f"day15:{barcode}x" for barcode in barcodes]
    return file


@pytest.fixture(scope="module")
def kb(counts, tmp_path_factory):
    (spliced, unspliced), barcodes, ids, symbols = counts
    folder = tmp_path_factory.mktemp("kb")
    start = folder / "counts_unfiltered/cells_x_genes"
    for name, layer in (("mature", spliced), ("nascent", unspliced), ("ambiguous", 0 * spliced)):
        write(start.with_suffix(f".{name}.mtx"), mtx(layer, **KB))
    for name, values in (("barcodes", barcodes), ("genes", ids), ("genes.names", symbols)):
        write(start.with_suffix(f".{name}.txt"), listed(values))
    return folder


@pytest.fixture(scope="module")
def totals(counts, tmp_path_factory):
    (spliced, unspliced), *names = counts
    file = tmp_path_factory.mktemp("totals") / "filtered_feature_bc_matrix.h5"
    return tenx_h5(file, spliced + unspliced, *names)


@pytest.fixture(scope="module")
def trained(loom, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "model"
    assert main(["train", str(loom), "-o", str(folder), "--epochs", "3"]) == 0
    return folder


@pytest.fixture(scope="module")
def predicted(trained, totals, tmp_path_factory):
    file = tmp_path_factory.mktemp("out") / "out.h5ad"
    assert main(["predict", str(trained), str(totals), "-o", str(file), "--velocity"]) == 0
    return file


def stops(*arguments):
    """Give the one line with which a command ends."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert "\n" not in end.value.code
    return end.value.code


# --- the commands ---------------------------------------------------------------------------------


def test_alone_it_lists_what_there_is(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    for name in ("check", "train", "predict", ".search", ".atlas", ".census", ".velocity.peers"):
        assert name in out


def test_check_says_it_and_its_exit_code(loom, kb, tmp_path, capsys):
    assert main(["check", str(loom)]) == 0
    assert capsys.readouterr().out.startswith("ok    Nothing found")
    cells = sv.data.read(kb)
    cells.layers["unspliced"] *= 0
    cells.write_h5ad(tmp_path / "x.h5ad")
    assert main(["check", str(tmp_path / "x.h5ad")]) == 1
    assert "stop" in capsys.readouterr().out


def test_trained_model_knows_the_prepared_genes_and_nothing_is_left(trained, loom):
    assert [file.name for file in trained.parent.iterdir()] == ["model"]
    wanted = sv.data.prepare(sv.data.read(loom))
    model = sv.SplicedVAE.load(str(trained), wanted)
    assert list(model.genes) == list(wanted.var_names) and len(model.history["elbo_train"]) == 3


def test_predicted_file_holds_what_the_model_says(predicted, trained, totals):
    out = anndata.read_h5ad(predicted)
    query = sv.SplicedVAE.prepare_query_anndata(sv.data.read(totals), str(trained))
    ratio = sv.SplicedVAE.load(str(trained), query).get_splicing_ratio(query)
    total = query.layers["total"].toarray()
    s, u = (out.layers[f"{name}_splicedvae"].toarray() for name in ("spliced", "unspliced"))
    np.testing.assert_allclose(s, ratio.to_numpy() * total, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(s + u, total, rtol=1e-5)
    assert out.obsm["velocity_umap"].shape == (N_CELLS, 2) and out.layers["velocity"].any()
    assert [file.name for file in predicted.parent.iterdir()] == ["out.h5ad"]


def test_cells_of_a_new_batch_are_predicted_over_all_or_as_one(kb, tmp_path):
    cells = sv.data.read(kb)
    cells.obs["plate"] = np.where(np.arange(cells.n_obs) % 2, "a", "b")
    cells.write_h5ad(tmp_path / "known.h5ad")
    cells.obs["plate"] = "c"
    cells.write_h5ad(tmp_path / "new.h5ad")
    model, new = str(tmp_path / "model"), str(tmp_path / "new.h5ad")
    train = ["train", str(tmp_path / "known.h5ad"), "-o", model, "--batch-key", "plate"]
    assert main([*train, "--epochs", "2"]) == 0
    ratios = []
    for options, batches in (([], ["a", "b"]), (["--batch", "a"], "a")):
        file = tmp_path / f"{len(ratios)}.h5ad"
        assert main(["predict", model, new, "-o", str(file), *options]) == 0
        out = anndata.read_h5ad(file)
        query = sv.SplicedVAE.prepare_query_anndata(cells, model)
        loaded = sv.SplicedVAE.load(model, False)
        ratio = loaded.get_splicing_ratio(query, transform_batch=batches, return_numpy=True)
        spliced = out.layers["spliced_splicedvae"].toarray()
        total = query.layers["total"].toarray()
        np.testing.assert_allclose(spliced, ratio * total, rtol=1e-5, atol=1e-6)
        ratios.append(ratio)
    assert abs(ratios[0] - ratios[1]).max() > 0
    wrong = stops("predict", model, new, "-o", file, "--overwrite", "--batch", "d")
    assert "transform_batch='d' is no batch" in wrong


def test_what_is_there_is_kept_unless_told_otherwise(trained, totals, predicted, tmp_path):
    before = predicted.read_bytes()
    assert "out.h5ad exists; give --overwrite" in stops("predict", trained, totals, "-o", predicted)
    assert "model exists; give --overwrite" in stops("train", totals, "-o", trained)
    assert "no folder" in stops("train", totals, "-o", tmp_path / "a" / "model")
    assert predicted.read_bytes() == before
    copy = tmp_path / "out.h5ad"
    copy.write_text("old")
    assert main(["predict", str(trained), str(totals), "-o", str(copy), "--overwrite"]) == 0
    assert "spliced_splicedvae" in anndata.read_h5ad(copy).layers


@pytest.mark.parametrize("folder", [False, True])
def test_nothing_is_half_written(folder, tmp_path):
    target = tmp_path / "model"

    def half(path):
        path.mkdir() if folder else path.write_text("half")
        raise OSError("no space left")

    def whole(path):
        path.mkdir() if folder else None
        (path / "weights" if folder else path).write_text("new")

    with pytest.raises(OSError, match="no space left"):
        finish(target, half)
    assert not list(tmp_path.iterdir())
    finish(target, whole)
    with pytest.raises(OSError, match="no space left"):
        finish(target, half)
    finish(target, whole)
    assert (target / "weights" if folder else target).read_text() == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_empty_droplets_are_left_out(counts, trained, totals, tmp_path):
    depth = sum(counts[0]).sum(1)
    floor = int(np.median(depth))
    out = tmp_path / "out.h5ad"
    call = ["predict", trained, totals, "-o", out, "--min-counts"]
    assert main([*map(str, call), str(floor)]) == 0
    kept = np.array(counts[1])[depth >= floor]
    assert N_CELLS / 4 < len(kept) < 3 * N_CELLS / 4
    assert list(anndata.read_h5ad(out).obs_names) == list(kept)
    assert "has 1000000 counts; lower --min-counts" in stops(*call, 10**6, "--overwrite")


def test_errors_are_one_line(trained, totals, tmp_path):
    out = tmp_path / "out.h5ad"
    assert "no.loom; give a velocyto loom" in stops("check", tmp_path / "no.loom")
    assert "KeyError: There is no layer 'spliced'" in stops("train", totals, "-o", tmp_path / "m")
    assert stops("predict", tmp_path / "no", totals, "-o", out)
    assert "must end in .h5ad" in stops("predict", trained, totals, "-o", tmp_path / "out.loom")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [["predict", "model"], ["train", "cells"], ["show"], ["check", "x", "--ambiguous", "all"]],
)
def test_wrong_call_has_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2 and "usage" in capsys.readouterr().err


@pytest.mark.slow
def test_in_a_process_of_its_own(tmp_path):
    call = [sys.executable, "-m", "splicedvae"]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0 and "splicedvae.search" in done.stdout
    done = subprocess.run([*call, "check", tmp_path / "no.loom"], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("FileNotFoundError: There is no ")


def test_search_does_not_start_on_simulated_cells_unasked(monkeypatch, tmp_path):
    monkeypatch.delenv("SPLICEDVAE_DATA", raising=False)
    monkeypatch.setattr("splicedvae.data.pooch.os_cache", lambda name: str(tmp_path))
    monkeypatch.setattr("splicedvae.data.PANCREAS_URL", "http://127.0.0.1:9/none")
    asked = []
    monkeypatch.setattr(
        "splicedvae.search.__main__.run", lambda adata, *_, **__: asked.append(adata)
    )
    with pytest.raises(SystemExit) as end:
        search([])
    assert "--data, or ask for simulated ones with --simulated" in end.value.code and not asked
    small = sv.data.simulate(200, 150)
    monkeypatch.setattr("splicedvae.data.simulate", lambda: small)
    with pytest.raises(SystemExit, match="2"):
        search(["--simulated", "--data", "x.h5ad"])
    with pytest.raises(AttributeError):  # the study that our `run` does not give
        search(["--simulated"])
    assert asked[0].uns["provenance"]["simulated"]


# --- the next session -----------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["h5ad", "zarr"])
def test_results_are_the_same_in_the_next_session(ending, predicted, trained, tmp_path):
    first = anndata.read_h5ad(predicted)
    if ending == "zarr":
        first.write_zarr(tmp_path / "out.zarr")
        again = anndata.read_zarr(tmp_path / "out.zarr")
    else:
        again = first.copy()
    query = sv.SplicedVAE.prepare_query_anndata(again, str(trained))
    sv.SplicedVAE.load(str(trained), query).impute_layers(query, overwrite=True)
    for name in ("spliced_splicedvae", "unspliced_splicedvae"):
        assert abs(query.layers[name] - first.layers[name]).max() == 0
    sv.velocity.fit(
        query, "spliced_splicedvae", "unspliced_splicedvae",
        concentration="concentration_splicedvae", overwrite=True,
    )  # fmt: skip
    np.testing.assert_allclose(query.layers["velocity"], first.layers["velocity"], atol=1e-5)


def test_results_can_be_read_as_cells_again(predicted, totals):
    """Layers that a query has for form's sake are no counts of either form."""
    again = sv.data.read(predicted)
    assert not {"spliced", "unspliced"} & set(again.layers)
    truth = sv.data.read(totals)[:, again.var_names]
    np.testing.assert_array_equal(again.X.toarray(), truth.X.toarray())


def test_results_keep_to_what_converters_to_seurat_read(predicted):
    """Float layers, dense or CSR; columns that are not nullable; names that are text."""
    out = anndata.read_h5ad(predicted)
    for name, layer in {**out.layers, "X": out.X}.items():
        assert isinstance(layer, np.ndarray) or layer.format == "csr", name
        assert layer.dtype in (np.float32, np.float64), name
    for table in (out.obs, out.var):
        assert all(isinstance(name, str) for name in [*table.index, *table.columns])
        assert table.index.is_unique
        for column, kind in table.dtypes.items():
            # pandas 3 reads text as a type of its own; in the file it is plain text, see below
            assert isinstance(kind, np.dtype | pd.CategoricalDtype | pd.StringDtype), column
    with h5py.File(predicted) as file:
        kinds = {}
        file.visititems(
            lambda name, item: kinds.setdefault(name, item.attrs.get("encoding-type", ""))
        )
    assert not [name for name, kind in kinds.items() if kind.startswith("nullable")]


# --- the README -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("page", "given"), [("README", "loom"), ("quick start", "kb")])
def test_lines_run_on_files_of_the_tools(page, given, loom, kb, totals, tmp_path, monkeypatch):
    """As they stand there, in a folder with the two files that they name, or on a kb folder.

    Only the filter of empty droplets is lowered: cells of 300 genes hold few molecules.
    """
    start, query = re.findall(r"```python\n(.*?)```", PAGES[page].read_text(), re.DOTALL)[:2]
    for file in (loom, totals):
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    if given == "kb":
        assert '"sample.loom"' in start
        start = start.replace('"sample.loom"', repr(str(kb)))
    names = {}
    exec(start.replace("min_counts=500", "min_counts=50"), names)
    n_genes = names["adata"].n_vars
    assert 20 < n_genes < 300
    assert names["model"].history["elbo_train"].shape[0] == 150
    exec(query, names)
    assert names["query"].shape == (N_CELLS, n_genes)
    assert np.isfinite(names["query"].layers["velocity"]).any()
    assert names["query"].obs["splicedvae_support"].between(0, 1).all()


def test_only_a_model_is_replaced_by_a_model(trained, loom, totals, tmp_path):
    folder, file = tmp_path / "results", tmp_path / "file"
    folder.mkdir()
    (folder / "precious.csv").write_text("1")
    file.write_text("1")
    for target in (folder, file, tmp_path):
        call = ["train", loom, "-o", target, "--overwrite", "--epochs", 1]
        with pytest.raises(SystemExit, match="FileExistsError"):
            main([*map(str, call)])
    call = ["predict", trained, totals, "-o", folder.with_suffix(".h5ad"), "--overwrite"]
    folder.with_suffix(".h5ad").mkdir()
    with pytest.raises(SystemExit, match="is a folder"):
        main([*map(str, call)])
    assert (folder / "precious.csv").read_text() == file.read_text() == "1"


def test_its_own_output_can_be_predicted_again(predicted, trained, tmp_path):
    out = tmp_path / "again.h5ad"
    assert main(["predict", str(trained), str(predicted), "-o", str(out)]) == 0
    first, again = (anndata.read_h5ad(file) for file in (predicted, out))
    name = "unspliced_splicedvae"
    np.testing.assert_allclose(
        again.layers[name].toarray(), first.layers[name].toarray(), rtol=1e-4, atol=1e-5
    )
