"""Matching the genes of cells with those of a checkpoint."""

import numpy as np
import pandas as pd
import pytest
import scvi
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import splicedvae as sv
from splicedvae import census
from splicedvae.census.__main__ import main


def cells(names, counts=None, **var) -> AnnData:
    """Two cells of the given genes; by default gene i is counted i + 1 times in each."""
    counts = np.arange(1, len(names) + 1) if counts is None else np.asarray(counts)
    x = sparse.csr_matrix(np.tile(counts, (2, 1)).astype(np.float32))
    adata = AnnData(x, var=pd.DataFrame(var, index=list(names)))
    adata.layers.update(spliced=x.copy(), unspliced=x * 2, total=x * 3)
    return adata


def mouse(*numbers) -> list[str]:
    return [f"ENSMUSG{n:011d}" for n in numbers]


def test_ids_versions_case_and_duplicates_find_their_place():
    genes = [*mouse(1, 2), f"{mouse(3)[0]}.4", *mouse(5)]
    ids = {"Ins1": mouse(1)[0], "Ins2": f"{mouse(2)[0]}.7", "Gcg": mouse(3)[0], "Sst": mouse(9)[0]}
    ids |= {"Neurog3": mouse(5)[0]}
    adata = cells(["Gcg", "INS2", "Ins1", "Sst", "Neurog3", "NEUROG3", "Nobody"])
    found = census.overlap(adata, genes, ids, markers=["Ins1", "Sst"])
    assert list(found.position) == [2, 1, 0, -1, 3, -1, -1]
    assert list(found.how) == [
        "version",
        "case",
        "exact",
        "absent",
        "exact",
        "duplicate",
        "absent",
    ]
    report = found.table
    assert report["shared"] == 4 and report["share of the checkpoint"] == 1.0
    assert report["share of the counts"] == pytest.approx((1 + 2 + 3 + 5) / 28)
    assert report["by case"] == 1 and report["duplicates"] == 1
    assert report["missing markers"] == "Sst"


def test_of_two_genes_with_one_id_the_better_counted_stays():
    adata = cells([f"{mouse(1)[0]}.2", f"{mouse(1)[0]}.3"], counts=[4, 9])
    assert list(census.overlap(adata, mouse(1)).how) == ["duplicate", "version"]


def test_symbols_that_differ_only_in_case_are_not_guessed():
    ids = {"Abc": mouse(1)[0], "ABC": mouse(2)[0]}
    found = census.overlap(cells(["abc", "ABC"]), mouse(1, 2), ids)
    assert list(found.how) == ["absent", "exact"]


@pytest.mark.parametrize("column", [None, "gene_ids"])
def test_ids_are_found_where_they_usually_stand(column):
    if column is None:
        adata, ids = cells(mouse(2, 1)), None
    else:
        adata, ids = cells(["b", "a"], gene_ids=mouse(2, 1)), None
    assert list(census.overlap(adata, mouse(1, 2), ids).position) == [1, 0]
    if column:
        assert list(census.overlap(adata, mouse(1, 2), column).position) == [1, 0]


def test_match_orders_pads_and_keeps():
    ids = dict(zip(["a", "b", "x"], mouse(1, 3, 9), strict=True))
    adata = cells(["x", "b", "a"], counts=[7, 5, 3])
    adata.obs["batch"], adata.uns["note"] = ["p", "q"], "kept"
    genes = mouse(1, 2, 3)

    lean = census.match(adata, genes, ids)
    assert list(lean.var_names) == ["a", "b"] and list(lean.var["census"]) == [0, 2]
    padded = census.match(adata, genes, ids, missing="pad", extra="keep")
    assert list(padded.var_names) == ["a", mouse(2)[0], "b", "x"]
    assert list(padded.var["census"]) == [0, 1, 2, -1]
    for layer, factor in (("spliced", 1), ("unspliced", 2), ("total", 3)):
        row = padded.layers[layer].toarray()[0]
        np.testing.assert_array_equal(row, factor * np.array([3, 0, 5, 7]))
    assert list(padded.obs["batch"]) == ["p", "q"] and padded.uns["note"] == "kept"
    assert "census" not in adata.var  # the given cells stay as they are


@settings(max_examples=30, deadline=None)
@given(
    own=st.lists(st.integers(1, 60), min_size=1, max_size=40, unique=True),
    theirs=st.lists(st.integers(1, 60), min_size=1, max_size=40, unique=True),
    missing=st.sampled_from(["drop", "pad"]),
    extra=st.sampled_from(["drop", "keep"]),
)
def test_no_count_of_a_shared_gene_is_lost(own, theirs, missing, extra):
    adata, genes = cells(mouse(*own)), mouse(*theirs)
    shared = set(own) & set(theirs)
    if len(shared) < 0.05 * min(len(own), len(theirs)) or not shared:
        with pytest.raises(ValueError, match="another organism"):
            census.match(adata, genes, None, missing, extra)
        return
    matched = census.match(adata, genes, None, missing, extra)
    expected = shared | (set(theirs) if missing == "pad" else set())
    expected |= set(own) if extra == "keep" else set()
    assert set(matched.var_names) == set(mouse(*expected))
    for name in mouse(*(set(own) & expected)):
        assert matched[:, name].layers["total"].sum() == adata[:, name].layers["total"].sum()
    known = matched.var["census"][matched.var["census"] >= 0]
    assert [genes[i] for i in known] == list(known.index)


def test_another_organism_is_refused():
    human = [f"ENSG{n:011d}" for n in range(50)]
    with pytest.raises(ValueError, match=r"share 0 of 50 genes.*ENSG0.*ENSMUSG0.*another organism"):
        census.match(cells(mouse(*range(1, 60))), human)


def test_what_is_no_id_is_named():
    with pytest.raises(ValueError, match=r"Ins1.*have no Ensembl ids.*symbols"):
        census.overlap(cells(["Ins1", "Gcg"]), mouse(1))
    with pytest.raises(KeyError, match=r"no column 'ensembl'; it has gene_ids"):
        census.overlap(cells(["a"], gene_ids=mouse(1)), mouse(1), "ensembl")
    with pytest.raises(KeyError, match="no gene Ghrl"):
        census.overlap(cells(mouse(1)), mouse(1), markers=["Ghrl"])
    with pytest.raises(ValueError, match="missing='fill' is not known"):
        census.match(cells(mouse(1)), mouse(1), missing="fill")


def test_nomenclature_tables_are_read(tmp_path):
    mgi = tmp_path / "MRK_ENSEMBL.rpt"
    mgi.write_text(
        "MGI:96572\tIns1\tinsulin I\t46\t19\tENSMUSG00000035804\tENSMUST1\tENSMUSP1\n"
        "MGI:95674\tGcg\tglucagon\t33\t2\tENSMUSG00000000394\tENSMUST2\tENSMUSP2\n"
    )
    table = census.symbols("mus_musculus", path=mgi)
    assert table.to_dict() == {"Ins1": "ENSMUSG00000035804", "Gcg": "ENSMUSG00000000394"}
    hgnc = tmp_path / "hgnc_complete_set.txt"
    hgnc.write_text(
        "hgnc_id\tsymbol\tname\tensembl_gene_id\n"
        "HGNC:6081\tINS\tinsulin\tENSG00000254647\n"
        "HGNC:1\tNOID\tno id\t\n"
    )
    assert census.symbols("homo_sapiens", path=hgnc).to_dict() == {"INS": "ENSG00000254647"}
    with pytest.raises(ValueError, match="not a table of mus_musculus"):
        census.symbols("mus_musculus", path=hgnc)
    with pytest.raises(ValueError, match="organism='danio'"):
        census.symbols("danio", path=mgi)


def test_check_compares_cells_that_call_genes_by_symbol(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    table = tmp_path / "splicedvae" / "nomenclature" / "MRK_ENSEMBL.rpt"
    table.parent.mkdir(parents=True)
    rows = (f"MGI:{i}\tGene{i}\t\t\t\t{mouse(i)[0]}" for i in range(40))
    table.write_text("\n".join(rows))
    pretrained = sv.data.prepare(sv.data.simulate(n_obs=100, n_vars=60), 0)[:, :30].copy()
    pretrained.var_names = mouse(*range(30))
    scvi.model.SCVI.setup_anndata(pretrained, layer="total")
    scvi.model.SCVI(pretrained).save(str(tmp_path / "model"))
    own = cells([f"Gene{i}" for i in range(10, 40)])
    own.write_h5ad(tmp_path / "own.h5ad")
    main(["check", str(tmp_path / "model"), "--data", str(tmp_path / "own.h5ad")])
    printed = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line)
    assert printed["shared"] == "20" and printed["organism"] == "mus_musculus"
    counts = np.arange(1, 31)
    assert float(printed["share of the counts"]) == pytest.approx(
        counts[:20].sum() / counts.sum(), abs=1e-5
    )


def test_a_gene_that_is_there_twice_is_named():
    with pytest.raises(ValueError, match=r"gene names repeat \(ENSMUSG00000000001\)"):
        census.match(cells(mouse(1, 1)), mouse(1))
