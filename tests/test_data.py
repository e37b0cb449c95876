"""Loading, splitting, filtering; and what is refused, with which words."""

import shutil

import anndata
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse

import splicedvae as sv
from splicedvae.counts import checked_counts, input_layer, total_counts
from splicedvae.data import PANCREAS_BLOB, PANCREAS_FILES, blob_id


def small(n_obs=40, n_vars=12, seed=0):
    rng = np.random.default_rng(seed)
    adata = anndata.AnnData(np.zeros((n_obs, n_vars), dtype=np.float32))
    adata.var_names = [f"gene{i}" for i in range(n_vars)]
    adata.layers["spliced"] = rng.poisson(3, (n_obs, n_vars)).astype(np.float32)
    adata.layers["unspliced"] = sparse.csr_matrix(rng.poisson(1, (n_obs, n_vars)))
    adata.obs["clusters"] = np.repeat(["a", "b"], n_obs // 2)
    return adata


# where the pancreas comes from


def test_blob_id_is_gits(tmp_path):
    file = tmp_path / "f"
    file.write_bytes(b"hello\n")
    assert blob_id(file) == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object


def test_path_then_environment(tmp_path, monkeypatch):
    first, second = tmp_path / "a" / PANCREAS_FILES[1], tmp_path / "b" / "mine.h5ad"
    for file, n_obs in ((first, 40), (second, 20)):
        file.parent.mkdir()
        small(n_obs).write_h5ad(file)
    monkeypatch.setenv("SPLICEDVAE_DATA", str(second))
    found = sv.data.pancreas()
    assert (found.n_obs, found.uns["provenance"]["source"]) == (20, "$SPLICEDVAE_DATA")
    assert not found.uns["provenance"]["simulated"]
    found = sv.data.pancreas(first.parent)  # a folder, and it beats the variable
    assert (found.n_obs, found.uns["provenance"]["source"]) == (40, "path")


def test_saved_simulated_cells_stay_simulated(tmp_path):
    sv.data.simulate(n_obs=60, n_vars=20).write_h5ad(tmp_path / "cells.h5ad")
    facts = sv.data.pancreas(tmp_path / "cells.h5ad").uns["provenance"]
    assert facts["simulated"] is True and "simulated" in facts["name"]
    small().write_h5ad(tmp_path / "other.h5ad")  # nor is any file the mouse pancreas
    assert sv.data.pancreas(tmp_path / "other.h5ad").uns["provenance"]["name"] == "other.h5ad"


@pytest.mark.parametrize("as_variable", [False, True])
def test_a_place_that_was_asked_for_is_never_replaced(tmp_path, monkeypatch, as_variable):
    missing = tmp_path / "nowhere.h5ad"
    if as_variable:
        monkeypatch.setenv("SPLICEDVAE_DATA", str(missing))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.h5ad"):
        sv.data.pancreas(None if as_variable else missing)


def test_half_a_file_is_refused_by_name(tmp_path):
    whole, half = tmp_path / "whole.h5ad", tmp_path / "half.h5ad"
    small().write_h5ad(whole)
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"half\.h5ad.*damaged"):
        sv.data.pancreas(half)


@pytest.mark.parametrize("missing", ["spliced", "unspliced", "clusters"])
def test_file_without_a_layer_or_the_cell_types(tmp_path, missing):
    adata = small()
    del (adata.obs if missing == "clusters" else adata.layers)[missing]
    adata.write_h5ad(tmp_path / "f.h5ad")
    with pytest.raises(KeyError, match=rf"f\.h5ad.*{missing}"):
        sv.data.pancreas(tmp_path / "f.h5ad")


@pytest.fixture
def server(tmp_path, monkeypatch, serve):
    """A local web server in the place of GitHub; serves what a test puts in its folder."""
    folder = tmp_path / "server"
    folder.mkdir()

    monkeypatch.delenv("SPLICEDVAE_DATA", raising=False)
    with serve(folder) as address:
        monkeypatch.setattr("splicedvae.data.PANCREAS_URL", f"{address}/pancreas.h5ad")
        yield folder / "pancreas.h5ad"


def test_download_is_checked_cached_and_whole(tmp_path, server, monkeypatch):
    small().write_h5ad(server)
    monkeypatch.setattr("splicedvae.data.PANCREAS_BLOB", blob_id(server))
    cache = tmp_path / "cache"
    assert sv.data.pancreas(cache_dir=cache).uns["provenance"]["source"] == "download"
    assert [f.name for f in cache.iterdir()] == [PANCREAS_FILES[0]]
    server.unlink()
    assert sv.data.pancreas(cache_dir=cache).uns["provenance"]["source"] == "cache"


def test_wrong_download_leaves_nothing_and_simulates_loudly(tmp_path, server, caplog):
    small().write_h5ad(server)
    assert blob_id(server) != PANCREAS_BLOB
    cache = tmp_path / "cache"
    adata = sv.data.pancreas(cache_dir=cache)
    assert "These cells are SIMULATED" in caplog.text and "git blob id" in caplog.text
    assert adata.uns["provenance"]["simulated"] is True
    assert list(cache.iterdir()) == []


def test_damaged_cache_is_not_taken_for_a_whole_file(tmp_path, server, monkeypatch, caplog):
    small().write_h5ad(server)
    monkeypatch.setattr("splicedvae.data.PANCREAS_BLOB", blob_id(server))
    cache = tmp_path / "cache"
    cache.mkdir()
    shutil.copy(server, cache / PANCREAS_FILES[0])
    with (cache / PANCREAS_FILES[0]).open("r+b") as file:
        file.truncate(1000)
    assert sv.data.pancreas(cache_dir=cache).uns["provenance"]["source"] == "download"
    assert "is damaged and will be replaced" in caplog.text
    assert blob_id(cache / PANCREAS_FILES[0]) == blob_id(server)


def test_no_network_costs_seconds(tmp_path, monkeypatch, caplog):
    import time

    monkeypatch.delenv("SPLICEDVAE_DATA", raising=False)
    monkeypatch.setattr("splicedvae.data.PANCREAS_URL", "http://192.0.2.1/none")  # RFC 5737
    start = time.perf_counter()
    sv.data.pancreas(cache_dir=tmp_path, timeout=2.0)
    assert "SIMULATED" in caplog.text
    assert time.perf_counter() - start < 15  # 2 s, and the simulation


# splits


def test_split_is_a_stratified_seeded_partition():
    adata = small(400)
    parts = sv.data.split(adata, seed=1)
    assert [len(p) for p in parts] == [240, 40, 120]
    assert sorted(np.concatenate(parts)) == list(range(400))
    for part in parts:
        assert (adata.obs["clusters"].iloc[part] == "a").mean() == 0.5
    again, other = sv.data.split(adata, seed=1), sv.data.split(adata, seed=2)
    assert all((a == b).all() for a, b in zip(parts, again, strict=True))
    assert any(len(a) != len(b) or (a != b).any() for a, b in zip(parts, other, strict=True))


@given(st.tuples(*[st.floats(-0.5, 1.5)] * 3))
@settings(max_examples=50, deadline=None)
def test_sizes_that_are_no_shares_are_refused(sizes):
    assume(min(sizes) <= 0 or not np.isclose(sum(sizes), 1))
    with pytest.raises(ValueError, match="sizes"):
        sv.data.split(small(100), sizes)


@given(st.floats(0.1, 0.45), st.floats(0.1, 0.45))
@settings(max_examples=50, deadline=None)
def test_shares_become_parts_of_that_size(val, test):
    parts = sv.data.split(small(200), (1 - val - test, val, test))
    assert sorted(np.concatenate(parts)) == list(range(200))
    assert (len(parts[1]), len(parts[2])) == (round(200 * val), round(200 * test))


def test_empty_split_and_unknown_column_are_named():
    with pytest.raises(ValueError, match="can't be split"):
        sv.data.split(small(4), (0.98, 0.01, 0.01))
    with pytest.raises(KeyError, match="celltype"):
        sv.data.split(small(), stratify_by="celltype")


def test_cells_without_clusters_are_split_at_random_and_it_is_said(caplog):
    adata = small()
    plain = sv.data.split(adata, stratify_by=None)
    del adata.obs["clusters"]
    with caplog.at_level("INFO", logger="splicedvae"):
        parts = sv.data.split(adata)
    assert "no obs['clusters']" in caplog.text
    assert all((a == b).all() for a, b in zip(parts, plain, strict=True))


# genes


def test_shared_counts_are_those_of_scvelo():
    scv = pytest.importorskip("scvelo")
    adata = small(60, 30)
    adata.layers["spliced"] *= np.random.default_rng(1).random((60, 30)) < 0.2
    theirs = adata.copy()
    theirs.layers["spliced"] = sparse.csr_matrix(theirs.layers["spliced"])
    theirs.X = theirs.layers["spliced"].copy()
    scv.pp.filter_genes(theirs, min_shared_counts=30)
    ours = sv.data.prepare(adata, min_shared_counts=30)
    assert 0 < ours.n_vars < 30
    assert list(ours.var_names) == list(theirs.var_names)


def test_genes_are_chosen_on_the_given_cells_only():
    adata = small()
    chosen = sv.data.prepare(adata, 60, fit_on=np.arange(20)).var_names
    changed = adata.copy()
    changed.layers["spliced"][20:] = np.random.default_rng(5).poisson(9, (20, 12))
    assert list(sv.data.prepare(changed, 60, fit_on=np.arange(20)).var_names) == list(chosen)
    assert list(sv.data.prepare(changed, 60).var_names) != list(chosen)


def test_prepare_composes_the_total_and_leaves_the_input_alone(caplog):
    adata = small()
    adata.layers["spliced"][:, 3] = 0
    adata.layers["unspliced"] = adata.layers["unspliced"].toarray()
    adata.layers["unspliced"][:, 3] = 0
    before = adata.copy()
    with caplog.at_level("INFO", logger="splicedvae"):
        result = sv.data.prepare(adata)
    assert "Dropped 1 genes" in caplog.text and "gene3" not in result.var_names
    total = adata[:, result.var_names]
    expected = total.layers["spliced"] + total.layers["unspliced"]
    np.testing.assert_array_equal(result.layers["total"].toarray(), expected)
    np.testing.assert_array_equal(result.X.toarray(), expected)
    assert "total" not in adata.layers
    np.testing.assert_array_equal(adata.X, before.X)


def test_prepare_keeps_the_most_variable_genes():
    adata = small(200, 400)
    strong = np.random.default_rng(0).choice(400, 5, replace=False)
    adata.layers["spliced"][:100, strong] *= 2  # the same mean, spread wider
    adata.layers["spliced"][100:, strong] = 0
    chosen = sv.data.prepare(adata, n_top_genes=5)
    assert set(chosen.var_names) == {f"gene{i}" for i in strong}


def test_prepare_names_what_is_wrong():
    with pytest.raises(ValueError, match="min_shared_counts"):
        sv.data.prepare(small(), min_shared_counts=10**6)
    with pytest.raises(ValueError, match="fit_on is empty"):
        sv.data.prepare(small(), fit_on=[])
    empty = small()
    empty.layers["spliced"][7] = 0
    empty.layers["unspliced"] = empty.layers["unspliced"].toarray()
    empty.layers["unspliced"][7] = 0
    with pytest.raises(ValueError, match=r"1 cells have no counts.*\(7"):
        sv.data.prepare(empty)


# counts

BAD = {
    "negative": -1.0,
    "fractional": 0.5,
    "missing": np.nan,
    "infinite": np.inf,
}


@given(
    kind=st.sampled_from(sorted(BAD)),
    layer=st.sampled_from(["spliced", "unspliced"]),
    row=st.integers(0, 39),
    column=st.integers(0, 11),
    as_sparse=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_one_bad_count_anywhere_is_found_and_its_layer_named(kind, layer, row, column, as_sparse):
    adata = small()
    values = sparse.csr_matrix(adata.layers[layer]).toarray().astype(float)
    values[row, column] = BAD[kind]
    adata.layers[layer] = sparse.csr_matrix(values) if as_sparse else values
    with pytest.raises(ValueError, match=f"layer '{layer}' holds a {kind} count"):
        total_counts(adata)
    assert "total" not in adata.layers


def test_good_counts_of_any_kind_pass():
    for values in (np.ones((2, 2), int), np.ones((2, 2), bool), sparse.csr_matrix((2, 2))):
        checked = checked_counts("X", values)
        np.testing.assert_array_equal(checked.toarray(), sparse.csr_matrix(values).toarray())


def test_missing_layer_and_repeated_genes_are_named():
    with pytest.raises(KeyError, match=r"no layer 'splicd'.*spliced"):
        total_counts(small(), "splicd")
    adata = small()
    adata.var_names = ["Ins1", "Ins1", *adata.var_names[2:]]
    with pytest.raises(ValueError, match="Ins1"):
        total_counts(adata)


def test_layers_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="shape"):
        small().layers["unspliced"] = np.ones((3, 4))


def test_input_layer_composes_checks_and_never_overwrites():
    adata = small()
    assert input_layer(adata, None, "spliced", "unspliced", "total") == "total"
    expected = adata.layers["spliced"] + adata.layers["unspliced"]
    np.testing.assert_array_equal(adata.layers["total"].toarray(), expected)
    assert input_layer(adata, None, "spliced", "unspliced", "spliced") == "spliced"

    for layer, kind in (("spliced", "total"), ("total", "spliced"), ("unspliced", "total")):
        with pytest.raises(ValueError, match=f"layer '{layer}' is not"):
            input_layer(adata, layer, "spliced", "unspliced", kind)
    mine = small()
    mine.layers["total"] = np.ones(mine.shape)
    with pytest.raises(ValueError, match="layer 'total' is not"):
        input_layer(mine, None, "spliced", "unspliced", "total")
    assert (mine.layers["total"] == 1).all()
    with pytest.raises(ValueError, match="'nuclear'"):
        input_layer(adata, None, "spliced", "unspliced", "nuclear")
    with pytest.raises(KeyError, match="nowhere"):
        input_layer(adata, "nowhere", "spliced", "unspliced", "total")


def test_empty_cells_are_named():
    adata = small()
    adata.layers["unspliced"] = adata.layers["unspliced"].toarray()
    for layer in ("spliced", "unspliced"):
        adata.layers[layer][5] = 0
    with pytest.raises(ValueError, match=r"1 cells have no counts in layer 'total' \(5"):
        input_layer(adata, None, "spliced", "unspliced", "total")


def test_real_pancreas_keeps_the_known_number_of_genes(pancreas):
    if pancreas.n_vars != 2000:
        pytest.skip(f"1,126 of the 2,000-gene file; this one has {pancreas.n_vars} genes")
    assert sv.data.prepare(pancreas).n_vars == 1126
