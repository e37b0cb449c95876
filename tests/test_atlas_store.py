"""Stores of simulated and of made-up samples: what is in them is what was on disk, cell by cell."""

import errno
import gzip
import json
import logging
import os
import subprocess
import tempfile
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.io
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from splicedvae import atlas
from splicedvae.atlas import sampling
from splicedvae.atlas.readers import opened
from splicedvae.atlas.store import Store, build_store
from splicedvae_book import corpus

N_GENES = 30
GENES = pd.Index([f"ENSG{i:011d}" for i in range(0, N_GENES, 2)][::-1], name="gene")
COLUMNS = np.arange(0, N_GENES, 2)[::-1]


def made_up(n_cells=40, seed=0):
    """Cells whose X is the spliced counts, as Velocyto's; genes by symbol, ids beside them."""
    rng = np.random.default_rng(seed)
    s, u = (sparse.csr_matrix(rng.poisson(m, (n_cells, N_GENES)), dtype=np.float32) for m in (2, 1))
    return AnnData(
        s.copy(),
        obs=pd.DataFrame(index=[f"{seed}-{i:04d}" for i in range(n_cells)]),
        var=pd.DataFrame(
            {"gene_ids": [f"ENSG{i:011d}" for i in range(N_GENES)], "feature_types": "Gene"},
            index=[f"GENE{i}" for i in range(N_GENES)],
        ),
        layers={"spliced": s, "unspliced": u, "ambiguous": s.copy()},
    )


def write_starsolo(adata, folder, ending, empty=0):
    """Solo.out as STARsolo writes it: genes × barcodes, most of which may be no cells."""
    raw, called = folder / "Velocyto/raw", folder / "GeneFull/filtered"
    raw.mkdir(parents=True)

    def write(file, text):
        path = file.with_name(file.name + ending)
        path.write_bytes(gzip.compress(text) if ending else text)

    barcodes = [f"empty{i}" for i in range(empty)] + list(adata.obs_names)
    write(raw / "barcodes.tsv", "\n".join(barcodes).encode() + b"\n")
    table = adata.var.reset_index()[["gene_ids", "index", "feature_types"]]
    write(raw / "features.tsv", table.to_csv(sep="\t", index=False, header=False).encode())
    for name in ("spliced", "unspliced", "ambiguous"):
        counts = sparse.vstack([sparse.csr_matrix((empty, N_GENES)), adata.layers[name]]).T
        scipy.io.mmwrite(raw / "x.mtx", counts.astype(int))
        write(raw / f"{name}.mtx", (raw / "x.mtx").read_bytes())
        (raw / "x.mtx").unlink()
    if empty:
        called.mkdir(parents=True)
        write(called / "barcodes.tsv", "\n".join(adata.obs_names).encode() + b"\n")
    return raw


def plan_of(files, n_take=20, **columns):
    plan = pd.DataFrame({"file": [str(f) for f in files], "n_take": n_take, **columns})
    plan["seed"] = np.arange(len(plan), dtype=np.uint32) * 7919 + 1
    return plan.set_axis([f"SRX{i}" for i in range(len(plan))])


@pytest.fixture
def samples(tmp_path):
    """Six samples of 40 cells, and where they are."""
    adatas = [made_up(seed=seed) for seed in range(6)]
    files = [tmp_path / f"{i}.h5ad" for i in range(6)]
    for adata, file in zip(adatas, files, strict=True):
        adata.write_h5ad(file, compression="gzip")
    return adatas, files


def stored(store):
    """Counts by sample and barcode, (cells, 2 genes)."""
    read = anndata.io.read_elem  # pandas 3's strings are written with a mask beside them
    barcodes = np.concatenate([read(group["obs/barcode"]) for group in store._groups()])
    index = pd.MultiIndex.from_arrays([store.samples.index[store.codes], barcodes])
    x = sparse.vstack([matrix[:] for matrix in store.matrices]).toarray()
    return pd.DataFrame(x, index)


def expected(adata, columns=COLUMNS):
    return np.hstack([adata.layers[n].toarray()[:, columns] for n in ("spliced", "unspliced")])


def build(plan, path, genes=GENES, **options):
    return build_store(plan, path, genes, **{"progress": False, "shard_cells": 50} | options)


def content(path):
    """Every file of a store but the lock."""
    files = (p for p in path.rglob("*") if p.is_file() and p.name != "lock")
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in files}


# --- what is in it ------------------------------------------------------------------------------


def test_every_cell_has_its_counts(samples, tmp_path):
    adatas, files = samples
    cells = stored(build(plan_of(files), tmp_path / "store"))
    assert cells.index.is_unique and len(cells) == 6 * 20
    for i, adata in enumerate(adatas):
        own = cells.loc[f"SRX{i}"]
        np.testing.assert_array_equal(own, expected(adata[own.index]))


def test_cells_are_the_first_of_the_samples_order_that_pass(samples, tmp_path):
    adatas, files = samples
    total = expected(adatas[0]).sum(1)
    least = int(np.median(total))  # half of them fall out
    plan = plan_of(files[:1], n_take=15)
    store = build(plan, tmp_path / "store", min_counts=least)
    order = sampling.order(plan["seed"].iloc[0], 40)
    first = [i for i in order if total[i] >= least][:15]
    assert set(stored(store).loc["SRX0"].index) == set(adatas[0].obs_names[first])
    row = store.manifest.iloc[0]
    assert (row["read"], row["low"], row["taken"]) == (40, (total < least).sum(), 15)
    assert row["unspliced"] == pytest.approx(
        expected(adatas[0])[:, len(GENES) :].sum() / total.sum(), abs=1e-4
    )


def test_shortfall_is_told(samples, tmp_path):
    store = build(plan_of(samples[1][:1], n_take=100), tmp_path / "store")
    row = store.manifest.set_index("shard")
    assert row["wanted"].tolist() == [50, 50] and row["taken"].tolist() == [40, 0]
    assert store.samples["n_stored"].tolist() == [40] and store.n_obs == 40


def layouts(adata, folder):
    """The same cells as they may lie on disk: name, file and genes to ask for."""
    names = dict(zip(adata.var["gene_ids"], adata.var_names, strict=True))
    symbols = pd.DataFrame({"symbol": [names[gene] for gene in GENES]}, GENES)
    ids = adata.copy()
    ids.var_names = adata.var["gene_ids"].to_numpy() + ".3"
    yield "ids with versions", ids, pd.Index([f"{gene}.12" for gene in GENES])
    yield "other order", adata[:, ::-1].copy(), GENES
    bare = adata.copy()
    del bare.var["gene_ids"]
    yield "symbols alone", bare, symbols
    yield "symbols asked for", adata, pd.Index(symbols["symbol"])
    for name, change in (
        ("csc", sparse.csc_matrix),
        ("dense", lambda x: x.toarray()),
        ("int64", lambda x: x.astype(np.int64)),
        ("float64", lambda x: x.astype(np.float64)),
    ):
        other = adata.copy()
        other.layers = {key: change(layer) for key, layer in adata.layers.items()}
        yield name, other, GENES


@pytest.mark.parametrize("number", range(8))
def test_layouts_of_h5ad(number, tmp_path):
    adata = made_up()
    name, other, genes = list(layouts(adata, tmp_path))[number]
    other.write_h5ad(tmp_path / "x.h5ad")
    cells = stored(build(plan_of([tmp_path / "x.h5ad"]), tmp_path / "store", genes)).loc["SRX0"]
    np.testing.assert_array_equal(cells, expected(adata[cells.index]), name)


@pytest.mark.parametrize(("ending", "empty"), [("", 0), (".gz", 0), (".gz", 500)])
def test_starsolo(ending, empty, tmp_path):
    adata = made_up()
    raw = write_starsolo(adata, tmp_path / "Solo.out", ending, empty)
    store = build(plan_of([raw], n_take=40), tmp_path / "store")
    cells = stored(store).loc["SRX0"]
    assert set(cells.index) == set(adata.obs_names)  # and no empty droplet
    np.testing.assert_array_equal(cells, expected(adata[cells.index]))


def test_two_genes_of_one_id_are_one(tmp_path):
    adata = made_up()
    ids = adata.var["gene_ids"].to_numpy(copy=True)
    ids[1] = f"{ids[0]}_PAR_Y"
    ids[0], ids[1] = f"{ids[0]}.2", f"{ids[0]}.2"
    adata.var["gene_ids"] = ids
    adata.write_h5ad(tmp_path / "x.h5ad")
    cells = stored(build(plan_of([tmp_path / "x.h5ad"]), tmp_path / "store")).loc["SRX0"]
    both = expected(adata[cells.index]) + 0
    both[:, [len(GENES) - 1, -1]] += expected(adata[cells.index], [1])
    np.testing.assert_array_equal(cells, both)


def test_organisms_have_their_own_ids(tmp_path):
    human, mouse = made_up(seed=0), made_up(seed=1)
    mouse.var["gene_ids"] = [f"ENSMUSG{N_GENES - i:011d}" for i in range(N_GENES)]
    files = [tmp_path / "human.h5ad", tmp_path / "mouse.h5ad"]
    human.write_h5ad(files[0])
    mouse.write_h5ad(files[1])
    table = pd.DataFrame({"Mus musculus": [f"ENSMUSG{i + 1:011d}" for i in range(15)]}, GENES)
    table.iloc[3, 0] = None  # has no partner
    plan = plan_of(files, organism=["Homo sapiens", "Mus musculus"])
    store = build(plan, tmp_path / "store", table)
    cells = stored(store)
    own = cells.loc["SRX0"]
    np.testing.assert_array_equal(own, expected(human[own.index]))
    own = cells.loc["SRX1"]
    partner = N_GENES - 1 - np.arange(15)
    truth = expected(mouse[own.index], partner)
    truth[:, [3, 18]] = 0
    np.testing.assert_array_equal(own, truth)
    assert store.samples["missing_genes"].tolist() == [0, 1]


def test_remote_file_is_fetched_and_removed(samples, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    adatas, files = samples
    with opened(f"file://{files[0]}") as sample:
        assert list((tmp_path / "temporary").rglob("*.h5ad"))
        assert list(sample.barcodes) == list(adatas[0].obs_names)
    assert not list((tmp_path / "temporary").iterdir())
    store = build(plan_of([f"file://{files[0]}", f"file://{tmp_path}/none"]), tmp_path / "store")
    assert store.samples["n_stored"].tolist() == [20, 0]
    assert store.samples.loc["SRX1", "skipped"].startswith("FileNotFoundError")


@pytest.mark.parametrize("release", corpus.ENDINGS)
def test_simulated_corpus_from_end_to_end(release, tmp_path):
    truth = corpus.corpus(tmp_path, 1200, 120, n_tissues=2, sample_cells=100, release=release)
    folder = tmp_path / "metadata/Velocyto/Homo_sapiens"
    table = pd.read_parquet(folder / "sample_metadata.parquet")
    assert len(table.columns) == {2025: 14, 2026: 17}[release]
    cells = pd.read_parquet(folder / "obs_metadata.parquet").groupby("SRX_accession").size()
    assert cells.to_dict() == dict(zip(table["srx_accession"], table["obs_count"], strict=True))
    catalogue = atlas.Catalogue.read(tmp_path).with_tissues()
    assert catalogue.samples["tissue"].to_dict() == truth["tissue"].to_dict()

    plan = atlas.sampling_plan(catalogue.samples, int(truth["n_cells"].sum()))
    pairs = atlas.one_to_one(corpus.orthologues(120))
    store = build(plan, tmp_path / "store", pairs, shard_cells=500)
    told, flaw = store.samples, truth["flaw"].reindex(store.samples.index)
    assert flaw[told["skipped"] != ""].tolist() == [f for f in corpus.FLAWS if f[:3] != "dup"]
    assert (told["n_stored"] == told["n_take"])[flaw == ""].all() and (flaw == "").sum() > 10
    assert told.loc[flaw == "duplicate barcodes", "duplicates"].item() == told["read"].iloc[0] // 2

    cells = stored(store)
    for name, column in (("SRX00000001", "Homo sapiens"), (told.index[-1], "Mus musculus")):
        adata = anndata.read_h5ad(told.loc[name, "file"])
        adata.var_names = adata.var["gene_ids"].to_numpy()
        own = cells.loc[name]
        np.testing.assert_array_equal(
            own, expected(adata[own.index][:, pairs[column]], slice(None))
        )
    assert told.loc[name, "organism"] == "Mus musculus"


def test_simulated_corpus_is_the_same_again_and_copies_are_links(tmp_path):
    small = {"n_cells": 400, "n_genes": 60, "n_tissues": 2, "sample_cells": 50}
    one, two = (corpus.corpus(tmp_path / n, **small, copies=c) for n, c in (("a", 1), ("b", 2)))
    pd.testing.assert_frame_equal(one, two[: len(one)])
    assert two.index.is_unique and len(two) == 2 * len(one)
    files = "h5ad/Velocyto/Homo_sapiens/{}.h5ad"
    first, again = (tmp_path / "b" / files.format(two.index[i]) for i in (0, len(one)))
    assert first.samefile(again)
    a, b = (anndata.read_h5ad(tmp_path / n / files.format(two.index[0])) for n in "ab")
    assert (a.X != b.X).nnz == 0 == (a.layers["spliced"] != a.X).nnz and a.obs_names.is_unique
    np.testing.assert_array_equal(a.var_names, b.var_names)


# --- shards -------------------------------------------------------------------------------------


def test_shards_are_full_of_whole_samples_of_one_part(samples, tmp_path):
    parts = ["train", "test", "train", "test", "train", "train"]
    plan = plan_of(samples[1], n_take=[20, 20, 20, 20, 40, 30], part=parts)
    store = build(plan, tmp_path / "store")
    by_shard = store.manifest.groupby("shard")
    assert by_shard["taken"].sum().max() <= 50
    assert store.manifest["sample"].is_unique  # none is larger than a shard
    part = store.samples["part"]
    assert by_shard["sample"].apply(lambda names: part[names].nunique()).eq(1).all()
    assert [m.shape[0] for m in store.matrices] == by_shard["taken"].sum().tolist()


def test_cells_are_shuffled_in_their_shard(samples, tmp_path):
    store = build(plan_of(samples[1]), tmp_path / "store", shard_cells=200)
    changes = np.mean(store.codes[1:] != store.codes[:-1])
    assert len(store.matrices) == 1 and abs(changes - 5 / 6) < 0.15


def test_large_sample_is_cut_and_no_cell_comes_twice(samples, tmp_path):
    store = build(plan_of(samples[1][:2], n_take=37), tmp_path / "store", shard_cells=10)
    cells = stored(store)
    assert cells.index.is_unique and len(cells) == 74
    assert store.manifest["wanted"].max() == 10


@pytest.mark.slow
def test_bytes_depend_on_neither_processes_nor_machines(samples, tmp_path):
    plan = plan_of(samples[1])
    one = build(plan, tmp_path / "one")
    two = build(plan, tmp_path / "two", n_jobs=2)
    assert build(plan, tmp_path / "three", shard=(1, 2)) is None
    with pytest.raises(FileNotFoundError, match="1 of 3 shards; run the build again"):
        Store(tmp_path / "three")
    three = build(plan, tmp_path / "three", shard=(0, 2))
    whole = content(one.path)
    assert whole == content(two.path) == content(three.path)
    assert one.n_obs == 120


def test_lost_shard_is_made_again_and_no_other(samples, tmp_path):
    plan = plan_of(samples[1])
    store = build(plan, tmp_path / "store")
    before, file = content(store.path), store.path / "shards/0000/X/data"
    (store.path / "shards/0001.json").unlink()
    kept = {p: p.stat().st_ino for p in file.rglob("*")}
    assert build(plan, tmp_path / "store").n_obs == 120
    assert content(store.path) == before
    assert {p: p.stat().st_ino for p in file.rglob("*")} == kept


def test_part_without_any_cell(samples, tmp_path):
    plan = plan_of([*samples[1][:2], tmp_path / "none"], part=["train", "train", "test"])
    store = build(plan, tmp_path / "store")
    assert store.n_obs == 40 == len(store.codes) and len(store.matrices) == 1
    store.verify()
    assert build(plan, tmp_path / "store").n_obs == 40


# --- bad input ----------------------------------------------------------------------------------


def flawed(kind, adata, file):
    """Write a sample that has something wrong with it."""
    if kind == "no layer":
        del adata.layers["unspliced"]
    elif kind == "negative":
        adata.layers["unspliced"].data[0] = -1
    elif kind == "fractional":
        adata.layers["spliced"].data[-1] = 0.5
    elif kind == "missing":
        adata.layers["spliced"].data[3] = np.nan
    elif kind == "infinite":
        adata.layers["spliced"].data[3] = np.inf
    elif kind == "other genes":
        adata.var_names = [f"OTHER{i}" for i in range(N_GENES)]
        adata.var["gene_ids"] = adata.var_names.to_numpy()
    elif kind == "few genes":
        adata = adata[:, : N_GENES // 2].copy()
    elif kind == "nothing unspliced":
        adata.layers["unspliced"] = sparse.csr_matrix(adata.shape, dtype=np.float32)
    elif kind == "no cells":
        adata = adata[:0].copy()
    adata.write_h5ad(file)
    if kind == "truncated":
        os.truncate(file, file.stat().st_size // 2)
    elif kind == "text":
        file.write_text("not an h5ad file")
    elif kind == "absent":
        file.unlink()
    elif kind == "empty folder":
        file.unlink()
        file.mkdir()


FLAWS = {
    "no layer": "no layer 'unspliced'",
    "negative": "'unspliced' holds negative",
    "fractional": "'spliced' holds negative, fractional",
    "missing": "missing counts",
    "infinite": "holds negative",
    "other genes": "15 of 15 genes are missing",
    "few genes": "7 of 15 genes are missing",
    "nothing unspliced": "not one unspliced",
    "no cells": "not one unspliced",
    "truncated": "truncated file",
    "text": "file signature not found",
    "absent": "FileNotFoundError",
    "empty folder": "FileNotFoundError",
}


@pytest.mark.parametrize("kind", FLAWS)
def test_bad_sample_is_left_out_and_told(kind, samples, tmp_path, caplog):
    flawed(kind, made_up(seed=9), tmp_path / "bad.h5ad")
    plan = plan_of([samples[1][0], tmp_path / "bad.h5ad", samples[1][1]])
    with caplog.at_level(logging.INFO, "splicedvae"):
        store = build(plan, tmp_path / "store")
    assert store.samples["n_stored"].tolist() == [20, 0, 20]
    assert FLAWS[kind] in store.samples.loc["SRX1", "skipped"]
    assert FLAWS[kind] in caplog.text and "Left out SRX1" in caplog.text
    assert "Stored 40 of 60 cells, 2 of 3 samples." in caplog.text


def test_barcodes_that_repeat_are_taken_once(tmp_path):
    adata = made_up()
    adata.obs_names = np.resize(adata.obs_names[:25], 40)
    adata.write_h5ad(tmp_path / "x.h5ad")
    store = build(plan_of([tmp_path / "x.h5ad"], n_take=40), tmp_path / "store")
    cells = stored(store).loc["SRX0"]
    assert len(cells) == 25 and store.manifest["duplicates"].tolist() == [15]
    first = adata[:25]
    np.testing.assert_array_equal(cells, expected(first[cells.index]))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    file = tmp_path_factory.mktemp("whole") / "x.h5ad"
    made_up().write_h5ad(file, compression="gzip")
    return file


@settings(max_examples=25, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_file_cut_anywhere_is_left_out(share, whole):
    with tempfile.TemporaryDirectory() as folder:
        cut = Path(folder) / "cut.h5ad"
        cut.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
        store = build(plan_of([whole, cut]), Path(folder) / "store")
        assert store.samples["n_stored"].tolist() == [20, 0]
        assert store.samples["skipped"].iloc[1]


def test_network_that_fails_is_no_fault_of_the_sample(samples, tmp_path):
    pytest.importorskip("aiohttp")
    plan = plan_of([samples[1][0], "http://127.0.0.1:1/x.h5ad"])
    with pytest.raises(ConnectionError, match=r"127.0.0.1:1/x.h5ad can't be fetched: .* Try again"):
        build(plan, tmp_path / "store")
    assert not list((tmp_path / "store/shards").iterdir())


@pytest.mark.parametrize("wrong", ["files", "genes", "min_counts"])
def test_nothing_but_bad_samples_can_be_corrected(wrong, samples, tmp_path):
    plan, path, away = plan_of(samples[1]), tmp_path / "store", tmp_path / "away"
    whole, call = content(build(plan, tmp_path / "whole").path), {"genes": GENES}
    if wrong == "files":
        away.mkdir()
        for file in samples[1]:
            file.rename(away / file.name)
        reason = "FileNotFoundError"
    elif wrong == "genes":
        call["genes"], reason = "OTHER" + GENES, "ValueError: 15 of 15 genes are missing"
    else:
        call["min_counts"], reason = 10**6, "too few counts"
    with pytest.raises(ValueError, match=f"first reason: {reason}.*correct the genes, the plan's"):
        build(plan, path, **call)
    assert content(path) == {}
    for file in away.glob("*"):
        file.rename(tmp_path / file.name)
    assert build(plan, path).n_obs == 120 and content(path) == whole


def test_fault_of_the_machine_is_no_fault_of_the_sample(samples, tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    plan = plan_of([samples[1][0], tmp_path / "loop"])
    with pytest.raises(OSError, match="symbolic links") as caught:
        build(plan, tmp_path / "store")
    assert caught.value.errno == errno.ELOOP
    assert not list((tmp_path / "store/shards").iterdir())


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"plan": lambda p: p.drop(columns="seed")}, KeyError, "no column seed"),
        ({"plan": lambda p: p.assign(n_take=0)}, ValueError, "at least one cell"),
        ({"plan": lambda p: p.set_axis(["a"] * len(p))}, ValueError, "each sample once"),
        ({"plan": lambda p: p[:0]}, ValueError, "at least one cell"),
        ({"shard": (2, 2)}, ValueError, r"shard=\(2, 2\) must be"),
        ({"shard_cells": 0}, ValueError, "shard_cells=0 at least 1"),
        ({"max_missing": 1.5}, ValueError, "max_missing=1.5 a share"),
        ({"genes": GENES[[0, 1, 0]]}, ValueError, f"{GENES[0]} repeat"),
        ({"genes": pd.Index([f"{GENES[0]}.1", f"{GENES[0]}.2"])}, ValueError, "repeat"),
        ({"genes": GENES[:0]}, ValueError, r"genes \(index\): none"),
        ({"genes": pd.DataFrame({"Mus musculus": "a"}, GENES)}, ValueError, "musculus.: a repeat"),
    ],
)
def test_wrong_arguments(change, error, match, samples, tmp_path):
    plan, genes = plan_of(samples[1]), change.pop("genes", GENES)
    if "plan" in change:
        plan = change.pop("plan")(plan)
    with pytest.raises(error, match=match):
        build(plan, tmp_path / "store", genes, **change)
    assert not (tmp_path / "store").exists()


def test_store_of_something_else(samples, tmp_path):
    plan, path = plan_of(samples[1], tissue="lung"), tmp_path / "store"
    build(plan, path)
    before = content(path)
    for other, genes, options, what in (
        (plan.assign(seed=0), GENES, {}, "plan"),
        (plan.assign(tissue="blood"), GENES, {}, "plan"),
        (plan, GENES[1:], {}, "genes"),
        (plan, GENES, {"min_counts": 2}, "min_counts"),
        (plan, GENES, {"shard_cells": 60}, "shard_cells, n_shards"),
    ):
        with pytest.raises(ValueError, match=f"was begun with other {what}. Give the same"):
            build(other, path, genes, **options)
    moved = plan.assign(file="elsewhere/" + plan["file"])  # the same samples, on another machine
    assert build(moved, path).n_obs == 120 and content(path) == before


def test_store_of_another_version(samples, tmp_path):
    plan, path = plan_of(samples[1]), tmp_path / "store"
    build(plan, path)
    told = json.loads((path / "store.json").read_text()) | {"format": 2, "splicedvae": "9.1"}
    (path / "store.json").write_text(json.dumps(told))
    for call in (lambda: Store(path), lambda: build(plan, path)):
        with pytest.raises(ValueError, match=r"has format 2, written by splicedvae 9.1; this one"):
            call()


def test_no_store(tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a store; build_store makes one"):
        Store(tmp_path)


@pytest.mark.parametrize("damage", ["byte", "gone", "new"])
def test_verify_finds_damage(damage, samples, tmp_path):
    plan = plan_of(samples[1])
    store = build(plan, tmp_path / "store")
    store.verify()
    before = content(store.path)
    file = store.path / "shards/0001/X/indices/c/0"
    if damage == "byte":
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    elif damage == "gone":
        file.unlink()
    else:
        file.with_name("other").write_text("")
    with pytest.raises(ValueError, match=r"Shard 1 .* is damaged: remove shards/0001.json and run"):
        Store(store.path).verify()
    (store.path / "shards/0001.json").unlink()
    build(plan, store.path).verify()
    assert content(store.path) == before


@pytest.mark.parametrize("name", ["plan.parquet", "genes.csv"])
def test_verify_finds_damage_beside_the_shards(name, samples, tmp_path):
    plan = plan_of(samples[1])
    store = build(plan, tmp_path / "store")
    before, shard = content(store.path), (store.path / "shards/0000.json").stat().st_ino
    data = bytearray(before[name])
    data[len(data) // 2] ^= 1
    for damaged in (bytes(data), before[name] + b"\n"):
        (store.path / name).write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{name} of .* is damaged: remove store.json and run"):
            store.verify()
    (store.path / name).unlink()
    with pytest.raises(ValueError, match=f"{name} of .* is damaged"):
        store.verify()
    (store.path / "store.json").unlink()
    build(plan, store.path).verify()
    assert content(store.path) == before
    assert (store.path / "shards/0000.json").stat().st_ino == shard  # it is not written again


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 1.5 MB."""
    if os.getuid():
        pytest.skip("needs root, to mount a small disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs a disk that can be mounted: {done.stderr}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("n_jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_disk_full(n_jobs, samples, small_disk, tmp_path):
    plan = plan_of(samples[1])
    ballast = small_disk / "ballast"
    whole = build(plan, tmp_path / "whole")
    pages = [sum(-(-len(x) // 4096) for x in content(p).values()) for p in whole.path.glob("**/")]
    needed, free = pages[0], os.statvfs(small_disk).f_bavail  # of the store, on the disk
    ballast.write_bytes(bytes(4096 * (free - round(0.7 * needed))))
    path = small_disk / "store"
    with pytest.raises(OSError, match=r"disk is full: shard \d .* Complete ones are") as caught:
        build(plan, path, n_jobs=n_jobs)
    assert caught.value.errno == errno.ENOSPC
    left = {p.name for p in (path / "shards").iterdir()}
    complete = {name for name in left if f"{name}.json" in left}
    assert left == complete | {f"{name}.json" for name in complete}
    kept = content(path)
    ballast.unlink()
    store = build(plan, path, n_jobs=n_jobs)
    assert content(path) == content(whole.path) and kept.items() <= content(path).items()
    store.verify()
