"""Files as the tools lay them out, written here by hand, and the counts that are read from them."""

import gzip
import json

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import splicedvae as sv
from splicedvae.atlas.readers import opened
from splicedvae.counts import named_layers

IDS = [
    "ENSMUSG00000000001.5",
    "ENSMUSG00000000002.1",
    "ENSMUSG00000000003.2",
    "ENSMUSG00000000004.9",
]
SYMBOLS = ["Gcg", "Ins1", "Ins1", "Sst"]
UNIQUE = ["Gcg", "Ins1", "Ins1-1", "Sst"]
CELLS = ["AAACCTGAGAAACCAT", "AAACCTGAGAAACCGC", "AAACCTGAGAAACCTA"]
S = np.array([[5, 0, 2, 1], [0, 3, 0, 4], [7, 1, 0, 0]])  # cells × genes
U = np.array([[1, 2, 0, 0], [0, 1, 5, 0], [2, 0, 0, 1]])
A = np.array([[0, 1, 0, 2], [3, 0, 0, 0], [0, 0, 4, 0]])


def write(file, text, ending=""):
    file.parent.mkdir(parents=True, exist_ok=True)
    if ending:
        file.with_name(file.name + ending).write_bytes(gzip.compress(text.encode()))
    else:
        file.write_text(text)


def mtx(counts, field="integer", comment="%"):
    """Matrix Market, as STAR writes it; bustools writes real numbers below a second comment."""
    places = np.argwhere(counts)
    lines = [f"{i + 1} {j + 1} {counts[i, j]}" for i, j in places]
    head = f"%%MatrixMarket matrix coordinate {field} general\n{comment}\n"
    return head + f"{counts.shape[0]} {counts.shape[1]} {len(lines)}\n" + "\n".join(lines) + "\n"


def listed(values):
    return "".join(f"{value}\n" for value in values)


# --- the layouts ----------------------------------------------------------------------------------


def velocyto_loom(file, cells=None, dtype="uint16"):
    """Genes × cells; attributes of the file at its root, as loompy 2 wrote them."""
    cells = cells or [f"day15:{cell}x" for cell in CELLS]
    with h5py.File(file, "w") as loom:
        loom.attrs["velocyto.__version__"] = "0.17.17"
        loom.attrs["velocyto.logic"] = "Permissive10X"
        loom["matrix"] = (S + U + A).T.astype("float32")
        for name, counts in (("spliced", S), ("unspliced", U), ("ambiguous", A)):
            loom[f"layers/{name}"] = counts.T.astype(dtype)
        text = h5py.string_dtype("ascii")
        for name, values in {
            "Gene": SYMBOLS,
            "Accession": IDS,
            "Chromosome": ["2", "19", "7", "16"],
            "Strand": ["+", "-", "-", "+"],
        }.items():
            loom.create_dataset(f"row_attrs/{name}", data=values, dtype=text)
        loom["row_attrs/Start"], loom["row_attrs/End"] = np.arange(4), np.arange(4) + 10
        loom.create_dataset("col_attrs/CellID", data=cells, dtype=text)
        loom.create_group("row_graphs"), loom.create_group("col_graphs")
    return file


KB = {"field": "real", "comment": "%\n%                                    "}


def kb_nac(folder, place="counts_unfiltered", symbols=True):
    prefix = folder / place / "cells_x_genes"
    for name, counts in (("mature", S), ("nascent", U), ("ambiguous", A)):
        write(prefix.with_name(f"cells_x_genes.{name}.mtx"), mtx(counts, **KB))
    write(prefix.with_name("cells_x_genes.barcodes.txt"), listed(CELLS))
    write(prefix.with_name("cells_x_genes.genes.txt"), listed(IDS))
    if symbols:
        write(prefix.with_name("cells_x_genes.genes.names.txt"), listed(SYMBOLS))
    write(folder / "kb_info.json", "{}")
    write(folder / "run_info.json", "{}")
    return folder


def kb_lamanno(folder):
    """Two matrices with barcodes of their own, in orders of their own."""
    place = folder / "counts_unfiltered"
    order = [2, 0, 1]
    for name, counts, cells in (
        ("spliced", np.vstack([S, [1, 0, 0, 0]]), [*CELLS, "TTTTTTTTTTTTTTTT"]),
        ("unspliced", U[order], [CELLS[i] for i in order]),
    ):
        write(place / f"{name}.mtx", mtx(counts, **KB))
        write(place / f"{name}.barcodes.txt", listed(cells))
        write(place / f"{name}.genes.txt", listed(IDS))
    return folder


def alevin_fry(folder, ending="", settings="quant.json", symbols=True):
    """``alevin-fry quant`` in USA mode: cells × (genes, genes-U, genes-A)."""
    write(folder / "alevin/quants_mat.mtx", mtx(np.hstack([S, U, A]), field="real"), ending)
    write(folder / "alevin/quants_mat_rows.txt", listed(CELLS))
    columns = [*IDS, *(f"{i}-U" for i in IDS), *(f"{i}-A" for i in IDS)]
    write(folder / "alevin/quants_mat_cols.txt", listed(columns))
    write(
        folder / settings,
        json.dumps({"num_genes": 12, "usa_mode": True, "resolution_strategy": "CellRangerLike"}),
    )
    write(folder / "featureDump.txt", "CB\n")
    if symbols:
        pairs = [f"{i}\t{s}" for i, s in zip(IDS[::-1], SYMBOLS[::-1], strict=True)]
        write(folder / "gene_id_to_name.tsv", listed(pairs))
    return folder


def features(kind="Gene Expression"):
    return listed(f"{i}\t{s}\t{kind}" for i, s in zip(IDS, SYMBOLS, strict=True))


def starsolo(folder, ending="", cells="filtered"):
    """Genes × barcodes; raw holds the whole list of barcodes, most of which are no cells."""
    place = folder / "Solo.out/Velocyto" / cells
    empty = ["CCCCCCCCCCCCCCCC", "GGGGGGGGGGGGGGGG"] * (cells == "raw")
    for name, counts in (("spliced", S), ("unspliced", U), ("ambiguous", A)):
        padded = np.vstack([np.zeros((len(empty), 4), int), counts])
        write(place / f"{name}.mtx", mtx(padded.T), ending)
    write(place / "barcodes.tsv", listed([*empty, *CELLS]), ending)
    write(place / "features.tsv", features(), ending)
    return folder


def old_starsolo(folder, ending=""):
    """STAR 2.7.3: one file, spliced, unspliced and ambiguous in three columns."""
    place = folder / "Solo.out/Velocyto/raw"
    lines = [f"{g + 1} {c + 1} {S[c, g]} {U[c, g]} {A[c, g]}" for c, g in np.argwhere(S + U + A)]
    text = f"%%MatrixMarket matrix coordinate integer general\n%\n4 3 {len(lines)}\n{listed(lines)}"
    write(place / "matrix.mtx", text, ending)
    write(place / "barcodes.tsv", listed(CELLS), ending)
    write(
        place / "features.tsv",
        listed(f"{i}\t{s}" for i, s in zip(IDS, SYMBOLS, strict=True)),
        ending,
    )
    return folder


def kb_h5ad(file):
    """What ``kb count --h5ad`` writes: ids as names, and no symbols."""
    layers = {
        n: sparse.csr_matrix(x, dtype=np.float32)
        for n, x in (("mature", S), ("nascent", U), ("ambiguous", A))
    }
    cells = anndata.AnnData(
        sum(layers.values()),
        obs=pd.DataFrame(index=pd.Index(CELLS, name="barcode")),
        var=pd.DataFrame(index=pd.Index(IDS, name="gene_id")),
        layers=layers,
    )
    cells.write_h5ad(file)
    return file


def kb_loom(file):
    """What ``kb count --loom`` writes: attributes of its own names."""
    with h5py.File(file, "w") as loom:
        loom["matrix"] = (S + U + A).T.astype("float32")
        for name, counts in (("mature", S), ("nascent", U), ("ambiguous", A)):
            loom[f"layers/{name}"] = counts.T.astype("float32")
        loom["row_attrs/target_name"], loom["col_attrs/barcode"] = IDS, CELLS
        loom["attrs/LOOM_SPEC_VERSION"] = "3.0.0"
    return file


def simpleaf_h5ad(file):
    """``quants.h5ad``: rows and columns are numbered, names stand in columns."""
    cells = anndata.AnnData(
        sparse.csr_matrix(S.shape),
        obs=pd.DataFrame({"barcodes": CELLS, "num_genes_expressed": [1, 2, 3]}, index=list("012")),
        var=pd.DataFrame({"gene_id": IDS, "gene_symbol": SYMBOLS}, index=list("0123")),
        layers={"spliced": sparse.csr_matrix(S), "unspliced": U, "ambiguous": sparse.csc_matrix(A)},
        uns={"quant_info": json.dumps({"usa_mode": True})},
    )
    cells.write_h5ad(file)
    return file


def usa_h5ad(file):
    """The matrix of ``quants_mat.mtx`` as it is, genes × 3."""
    columns = [*IDS, *(f"{i}-U" for i in IDS), *(f"{i}-A" for i in IDS)]
    cells = anndata.AnnData(
        np.hstack([S, U, A]).astype("f4"), pd.DataFrame(index=CELLS), pd.DataFrame(index=columns)
    )
    cells.write_h5ad(file)
    return file


def zarr_folder(folder):
    kb_h5ad(folder.with_suffix(".h5ad"))
    anndata.read_h5ad(folder.with_suffix(".h5ad")).write_zarr(folder)
    return folder


LAYOUTS = {
    "velocyto": lambda path: velocyto_loom(path / "day15.loom"),
    "velocyto in the folder of Cell Ranger": lambda path: (path / "velocyto").mkdir()
    or velocyto_loom(path / "velocyto/day15.loom").parents[1],
    "kb nac": lambda path: kb_nac(path / "kb"),
    "kb nac, the inner folder": lambda path: kb_nac(path / "kb") / "counts_unfiltered",
    "kb nac, filtered": lambda path: kb_nac(path / "kb", "counts_filtered"),
    "kb nac without symbols": lambda path: kb_nac(path / "kb", symbols=False),
    "kb lamanno": lambda path: kb_lamanno(path / "kb"),
    "kb h5ad": lambda path: kb_h5ad(path / "adata.h5ad"),
    "kb loom": lambda path: kb_loom(path / "adata.loom"),
    "kb with nothing but its h5ad": lambda path: kb_h5ad(path / "adata.h5ad").parent,
    "alevin-fry": lambda path: alevin_fry(path / "af"),
    "alevin-fry, the inner folder": lambda path: alevin_fry(path / "af") / "alevin",
    "alevin-fry before 0.4.1, compressed": lambda path: alevin_fry(
        path / "af", ".gz", "meta_info.json", symbols=False
    ),
    "simpleaf": lambda path: alevin_fry(path / "out/af_quant").parent,
    "simpleaf h5ad": lambda path: simpleaf_h5ad(path / "quants.h5ad"),
    "USA mode as h5ad": lambda path: usa_h5ad(path / "usa.h5ad"),
    "STARsolo": starsolo,
    "STARsolo, compressed": lambda path: starsolo(path, ".gz") / "Solo.out",
    "STARsolo, raw": lambda path: starsolo(path, cells="raw") / "Solo.out/Velocyto",
    "STARsolo 2.7.3": old_starsolo,
    "STARsolo 2.7.3, compressed": lambda path: old_starsolo(path, ".gz") / "Solo.out/Velocyto/raw",
    "zarr": lambda path: zarr_folder(path / "cells.zarr"),
}  # fmt: skip
NO_AMBIGUOUS = {"kb lamanno"}
NO_SYMBOLS = {
    "kb nac without symbols", "kb lamanno", "kb h5ad", "kb loom", "kb with nothing but its h5ad",
    "zarr", "alevin-fry before 0.4.1, compressed", "USA mode as h5ad",
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_counts_and_names_of_each_layout(layout, tmp_path):
    cells = sv.data.read(LAYOUTS[layout](tmp_path))
    spliced = S if layout in NO_AMBIGUOUS else S + A
    for counts, truth in (
        (cells.layers["spliced"], spliced),
        (cells.layers["unspliced"], U),
        (cells.X, spliced + U),
    ):
        assert isinstance(counts, sparse.csr_matrix) and counts.dtype == np.float32
        np.testing.assert_array_equal(counts.toarray(), truth)
    assert set(named_layers(cells)) == {"spliced", "unspliced"}
    assert list(cells.obs_names) == CELLS
    assert list(cells.var["gene_ids"]) == IDS
    if layout in NO_SYMBOLS:
        assert "gene_symbols" not in cells.var and list(cells.var_names) == IDS
    else:
        assert list(cells.var["gene_symbols"]) == SYMBOLS and list(cells.var_names) == UNIQUE
    facts = cells.uns["provenance"]
    assert (facts["source"], facts["simulated"], facts["n_obs"], facts["n_vars"]) == (
        "path",
        False,
        3,
        4,
    )
    if layout not in NO_AMBIGUOUS:
        assert facts["ambiguous"] == "spliced"
        assert facts["ambiguous_share"] == pytest.approx(A.sum() / (S + U + A).sum())


@pytest.mark.parametrize("layout", ["velocyto", "simpleaf h5ad", "STARsolo"])
def test_what_is_read_is_written_and_read_as_it_was(layout, tmp_path):
    cells = sv.data.read(LAYOUTS[layout](tmp_path), ambiguous="split")
    cells.write_h5ad(tmp_path / "again.h5ad")
    cells.write_zarr(tmp_path / "again.zarr")
    for file in ("again.h5ad", "again.zarr"):
        again = sv.data.read(tmp_path / file)  # nothing ambiguous is left to count as spliced
        for name in ("spliced", "unspliced"):
            np.testing.assert_array_equal(
                again.layers[name].toarray(), cells.layers[name].toarray()
            )
        for one, other in ((again.var, cells.var), (again.obs, cells.obs)):
            pd.testing.assert_frame_equal(one.astype(str), other.astype(str))
        facts = {k: v for k, v in again.uns["provenance"].items() if k not in ("file", "format")}
        assert facts == {k: v for k, v in cells.uns["provenance"].items() if k in facts}
        assert facts["ambiguous"] == "split"


# --- ambiguous counts -----------------------------------------------------------------------------


def test_dropped_counts_are_in_no_layer(tmp_path):
    cells = sv.data.read(kb_nac(tmp_path), ambiguous="drop")
    np.testing.assert_array_equal(cells.layers["spliced"].toarray(), S)
    np.testing.assert_array_equal(cells.X.toarray(), S + U)
    assert cells.uns["provenance"]["ambiguous"] == "drop"


def test_split_counts_are_whole_and_follow_the_genes_other_molecules(tmp_path):
    n = 2000
    cells = anndata.AnnData(
        layers={
            "spliced": np.tile([3.0, 0.0, 0.0, 1.0], (n, 1)),
            "unspliced": np.tile([1.0, 2.0, 0.0, 1.0], (n, 1)),
            "ambiguous": np.tile([2.0, 1.0, 1.0, 0.0], (n, 1)),
        },
        shape=(n, 4),
    )
    cells.write_h5ad(tmp_path / "x.h5ad")
    first, again = (sv.data.read(tmp_path / "x.h5ad", ambiguous="split") for _ in range(2))
    s, u = (first.layers[name].toarray() for name in ("spliced", "unspliced"))
    np.testing.assert_array_equal(s, again.layers["spliced"].toarray())
    np.testing.assert_array_equal(s + u, np.tile([6, 3, 1, 2], (n, 1)))
    assert (s == np.rint(s)).all()
    assert (s[:, 0] - 3).mean() / 2 == pytest.approx(0.75, abs=3 * np.sqrt(0.1875 / 2 / n))
    assert (s[:, 1] == 0).all() and (s[:, 2] == 1).all() and (s[:, 3] == 1).all()


def test_fractional_ambiguous_counts_are_divided_and_warned_of(tmp_path, caplog):
    layers = {"spliced": [[3.0]], "unspliced": [[1.0]], "ambiguous": [[0.5]]}
    cells = anndata.AnnData(layers={k: np.array(x) for k, x in layers.items()}, shape=(1, 1))
    cells.write_h5ad(tmp_path / "x.h5ad")
    cells = sv.data.read(tmp_path / "x.h5ad", ambiguous="split")
    assert (
        cells.layers["spliced"].toarray() == 3.375 and cells.layers["unspliced"].toarray() == 1.125
    )
    assert "fractional counts" in caplog.text and "--em" in caplog.text


def test_unknown_rule_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"ambiguous='all'.*spliced.*split.*drop"):
        sv.data.read(kb_nac(tmp_path), ambiguous="all")


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "names", "samples"),
    [
        ([f"a:{c}x" for c in CELLS], CELLS, ["a"] * 3),
        ([f"{c}-1" for c in CELLS], CELLS, None),
        (
            ["a:AAACCTGAx", "b:AAACCTGAx", "b:AAACCTGCx"],
            ["a:AAACCTGA", "b:AAACCTGA", "b:AAACCTGC"],
            ["a", "b", "b"],
        ),
        (["AAACCTGA-1", "AAACCTGA-2", "AAACCTGC-1"], None, None),
        (["AAACCTGA-1", "AAACCTGA-1", "AAACCTGC-1"], ["AAACCTGA", "AAACCTGA-1", "AAACCTGC"], None),
        (["AAACCTGA-1", "cell 2", "AAACCTGC-1"], None, None),
        (["s:A1.bam", "s:A2.bam", "s:A3.bam"], None, None),
    ],
)
def test_barcodes(given, names, samples, tmp_path):
    names = names or given
    cells = sv.data.read(velocyto_loom(tmp_path / "x.loom", given))
    assert list(cells.obs_names) == names
    if given != names:
        assert list(cells.obs["original_barcode"]) == given
    else:
        assert "original_barcode" not in cells.obs
    assert list(cells.obs.get("sample", [])) == (samples or [])


def test_kb_of_several_samples_keeps_cells_of_one_barcode_apart(tmp_path):
    kb_nac(tmp_path)
    place = tmp_path / "counts_unfiltered"
    write(place / "cells_x_genes.barcodes.txt", listed([CELLS[0], CELLS[0], CELLS[1]]))
    write(place / "cells_x_genes.barcodes.prefix.txt", listed(["A" * 16, "C" * 16, "C" * 16]))
    cells = sv.data.read(tmp_path)
    assert list(cells.obs["sample"]) == ["A" * 16, "C" * 16, "C" * 16]
    assert list(cells.obs_names) == [
        f"{'A' * 16}:{CELLS[0]}",
        f"{'C' * 16}:{CELLS[0]}",
        f"{'C' * 16}:{CELLS[1]}",
    ]


def test_gene_without_symbol_is_called_by_its_id(tmp_path):
    alevin_fry(tmp_path)
    write(tmp_path / "gene_id_to_name.tsv", f"{IDS[0]}\tNA\n{IDS[1]}\tIns1\n")
    cells = sv.data.read(tmp_path)
    assert list(cells.var["gene_symbols"]) == ["NA", "Ins1", "", ""]  # a gene may be called so
    assert list(cells.var_names) == ["NA", "Ins1", *IDS[2:]]


def test_own_h5ad_keeps_the_rest(tmp_path):
    cells = sv.data.simulate(n_obs=60, n_vars=20)
    cells.obsm["X_umap"] = np.zeros((60, 2))
    cells.write_h5ad(tmp_path / "own.h5ad")
    again = sv.data.read(tmp_path / "own.h5ad")
    assert again.uns["provenance"]["simulated"] and list(again.obs_names) == list(cells.obs_names)
    assert "X_umap" in again.obsm and "velocity_true" in again.layers
    assert again.obs["clusters"].equals(cells.obs["clusters"])
    total = cells.layers["spliced"] + cells.layers["unspliced"]
    np.testing.assert_array_equal(again.X.toarray(), total.toarray())


# --- barcodes that are no cells -------------------------------------------------------------------


def test_called_cells_come_before_all_barcodes(tmp_path, caplog):
    kb_nac(tmp_path, "counts_unfiltered")
    place = tmp_path / "counts_filtered"
    for name, counts in (("mature", S), ("nascent", U), ("ambiguous", A)):
        write(place / f"cells_x_genes.{name}.mtx", mtx(counts[:2], **KB))
    write(place / "cells_x_genes.barcodes.txt", listed(CELLS[:2]))
    write(place / "cells_x_genes.genes.txt", listed(IDS))
    with caplog.at_level("INFO", logger="splicedvae"):
        assert list(sv.data.read(tmp_path).obs_names) == CELLS[:2]
    assert "counts_filtered" in caplog.text
    assert sv.data.read(tmp_path / "counts_unfiltered").n_obs == 3


def test_raw_barcodes_of_starsolo_are_those_that_were_called(tmp_path, caplog):
    starsolo(tmp_path, cells="raw")
    with caplog.at_level("INFO", logger="splicedvae"):
        assert list(sv.data.read(tmp_path).obs_names) == CELLS
    assert "2 of 5 barcodes have no counts" in caplog.text
    write(tmp_path / "Solo.out/GeneFull/filtered/barcodes.tsv", listed(CELLS[1:]))
    assert list(sv.data.read(tmp_path).obs_names) == CELLS[1:]
    with opened(str(tmp_path / "Solo.out/Velocyto/raw")) as sample:  # the atlas reads the same
        assert list(sample.barcodes) == CELLS[1:]
        np.testing.assert_array_equal(sample.layers[1].toarray(), U[1:])
        assert list(sample.names["symbol"]) == SYMBOLS


# --- totals ---------------------------------------------------------------------------------------


def tenx_h5(file, counts, cells, ids, symbols):
    """As Cell Ranger writes it since version 3: genes × cells, CSC; one feature is an antibody."""
    matrix = sparse.csr_matrix(np.hstack([counts, np.full((len(counts), 1), 9)]))
    kinds = ["Gene Expression"] * len(ids) + ["Antibody Capture"]
    with h5py.File(file, "w") as out:
        for name, values in {
            "barcodes": np.array([f"{cell}-1" for cell in cells], "S"),
            "data": matrix.data.astype("int32"),
            "indices": matrix.indices.astype("int64"),
            "indptr": matrix.indptr.astype("int64"),
            "shape": np.array(matrix.shape[::-1], "int32"),
            "features/id": np.array([*ids, "CD3"], "S"),
            "features/name": np.array([*symbols, "CD3"], "S"),
            "features/feature_type": np.array(kinds, "S"),
            "features/genome": np.array(["mm10"] * len(kinds), "S"),
            "features/_all_tag_keys": np.array(["genome"], "S"),
        }.items():
            out[f"matrix/{name}"] = values
    return file


def test_features_that_are_no_genes_are_named(tmp_path, caplog):
    file = tenx_h5(tmp_path / "counts.h5", S + U, CELLS, IDS, SYMBOLS)
    with caplog.at_level("INFO", logger="splicedvae"):
        assert sv.data.read(file).n_vars == len(IDS)
    assert "1 features that are no genes are left out (Antibody Capture)" in caplog.text


def kb_standard(folder):
    place = folder / "counts_unfiltered"
    write(place / "cells_x_genes.mtx", mtx(S + U, **KB))
    for name, values in (("barcodes", CELLS), ("genes", IDS), ("genes.names", SYMBOLS)):
        write(place / f"cells_x_genes.{name}.txt", listed(values))
    return folder


def alevin_fry_of_one_form(folder):
    alevin_fry(folder)
    write(folder / "alevin/quants_mat.mtx", mtx(S + U, field="real"))
    write(folder / "alevin/quants_mat_cols.txt", listed(IDS))
    write(folder / "quant.json", json.dumps({"num_genes": 4, "usa_mode": False}))
    return folder


def tenx_mtx(folder, ending=".gz", table="features.tsv"):
    write(
        folder / "matrix.mtx",
        mtx((S + U).T, comment='%metadata_json: {"format_version": 2}'),
        ending,
    )
    write(folder / "barcodes.tsv", listed(f"{c}-1" for c in CELLS), ending)
    write(folder / table, features(), ending)
    return folder


@pytest.mark.parametrize(
    "write_it",
    [
        lambda path: tenx_h5(path / "filtered_feature_bc_matrix.h5", S + U, CELLS, IDS, SYMBOLS),
        kb_standard,
        alevin_fry_of_one_form,
        lambda path: tenx_mtx(path / "outs/filtered_feature_bc_matrix").parents[1],
        lambda path: tenx_mtx(path, ending="", table="genes.tsv"),  # Cell Ranger 2
        lambda path: tenx_mtx(path / "Solo.out/Gene/filtered", ending="").parents[1],
    ],
)
def test_totals_are_said_to_be_totals(write_it, tmp_path, caplog):
    with caplog.at_level("INFO", logger="splicedvae"):
        cells = sv.data.read(write_it(tmp_path))
    assert "totals only" in caplog.text and not cells.layers
    np.testing.assert_array_equal(cells.X.toarray(), S + U)
    assert cells.X.dtype == np.float32 and list(cells.obs_names) == CELLS
    assert list(cells.var_names) == UNIQUE and list(cells.var["gene_ids"]) == IDS


@pytest.mark.parametrize("place", ["counts", "raw"])
def test_counts_beside_a_logged_x_are_found(place, tmp_path, caplog):
    cells = anndata.AnnData((S + U).astype("f4"))
    if place == "raw":
        cells.raw = cells.copy()
    else:
        cells.layers["counts"] = cells.X.copy()
    cells.X = np.log1p(cells.X)
    cells.write_h5ad(tmp_path / "x.h5ad")
    with caplog.at_level("INFO", logger="splicedvae"):
        np.testing.assert_array_equal(sv.data.read(tmp_path / "x.h5ad").X.toarray(), S + U)
    assert "X holds no counts" in caplog.text


# --- what can't be read ---------------------------------------------------------------------------


def spoiled(change):
    def make(path):
        kb_nac(path)
        change(path / "counts_unfiltered/cells_x_genes.nascent.mtx")
        return path

    return make


def one_form(path):
    cells = anndata.read_h5ad(kb_h5ad(path / "x.h5ad"))
    del cells.layers["mature"], cells.layers["ambiguous"]
    cells.write_h5ad(path / "x.h5ad")
    return path / "x.h5ad"


def half(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file


def no_counts(path):
    starsolo(path)
    for name in ("spliced", "unspliced", "ambiguous"):
        write(path / f"Solo.out/Velocyto/filtered/{name}.mtx", mtx(np.zeros((4, 3), int)))
    return path


def lost(path):
    starsolo(path)
    (path / "Solo.out/Velocyto/filtered/features.tsv").unlink()
    return path


def plain(path, name, text="1 2 3\n"):
    write(path / name, text)
    return path / name


def other_h5(path):
    with h5py.File(path / "x.h5", "w") as file:
        file["model_weights"] = 1
    return path / "x.h5"


def short_five(path):
    file = old_starsolo(path) / "Solo.out/Velocyto/raw/matrix.mtx"
    file.write_text(file.read_text().rsplit("\n", 2)[0])
    return path


def wrong_usa(path):
    alevin_fry(path)
    write(path / "alevin/quants_mat_cols.txt", listed(f"g{i}" for i in range(12)))
    return path


FAULTS = {
    "nothing there": (lambda path: path / "none.loom", r"no .*none\.loom; give a velocyto"),
    "empty folder": (lambda path: path, "holds no file, and nothing known; give a velocyto loom"),
    "other folder": (lambda path: plain(path, "x.csv").parent, r"holds x\.csv, and nothing known"),
    "other file": (lambda path: plain(path, "counts.rds"), r"counts\.rds is no HDF5 file"),
    "one matrix": (lambda path: plain(path, "x.mtx"), r"x\.mtx is no .*give the folder"),
    "other HDF5": (other_h5, r"x\.h5 holds model_weights; give"),
    "half h5ad": (lambda path: half(kb_h5ad(path / "x.h5ad")), r"x\.h5ad .*half"),
    "half loom": (lambda path: half(velocyto_loom(path / "x.loom")), r"x\.loom .*half"),
    "half mtx": (spoiled(half), r"nascent\.mtx can't be read as mtx .*half there"),
    "transposed": (
        spoiled(lambda file: write(file, mtx(U.T, **KB))),
        r"nascent\.mtx is \(4, 3\), barcodes by genes are \(3, 4\)",
    ),
    "no nascent": (spoiled(lambda file: file.unlink()), r"lacks cells_x_genes\.nascent\.mtx"),
    "one form": (one_form, r"x\.h5ad has unspliced counts \(layer 'nascent'\) and no others"),
    "no counts": (no_counts, r"holds no count at all.*--soloFeatures Gene Velocyto"),
    "no features": (lost, r"lacks features\.tsv .or features\.tsv\.gz.; it holds ambiguous"),
    "half of five columns": (short_five, r"matrix\.mtx can't be read .*header says \d+ lines"),
    "names of another mode": (wrong_usa, r"USA mode, but the 12 names in quants_mat_cols\.txt"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_read_is_named(fault, tmp_path):
    make, message = FAULTS[fault]
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        sv.data.read(make(tmp_path))


@pytest.mark.parametrize("version", [2, 3])
def test_pickles_in_zarr_are_refused_unread(version, tmp_path):
    folder = zarr_folder(tmp_path / "cells.zarr")
    if version == 2:
        settings = {"zarr_format": 2, "filters": [{"id": "\u0070ickle"}], "dtype": "|O"}
        (folder / "obs" / ".zarray").write_text(json.dumps(settings))
    else:
        codecs = [{"name": "numcodecs.pickle", "configuration": {}}]
        (folder / "zarr.json").write_text(json.dumps({"zarr_format": 3, "codecs": codecs}))
    with pytest.raises(ValueError, match="codec pickle, which runs code"):
        sv.data.read(folder)
