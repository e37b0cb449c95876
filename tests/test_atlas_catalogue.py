"""The catalogue of an atlas: both schemas, a folder or a bucket, filters, tissues, cells."""

import logging
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splicedvae.atlas import tissues
from splicedvae.atlas.catalogue import Catalogue
from splicedvae.atlas.tissues import map_tissues, tissue_mapping

COLUMNS = {
    2025: "entrez_id srx_accession file_path obs_count lib_prep tech_10x cell_prep organism tissue "
    "disease purturbation cell_line czi_collection_id czi_collection_name",
    2026: "entrez_id srx_accession file_path obs_count lib_prep tech_10x cell_prep organism tissue "
    "tissue_ontology_term_id disease disease_ontology_term_id perturbation cell_line "
    "antibody_derived_tag czi_collection_id czi_collection_name",
}
COUNTS = {2025: ("gene_count", "umi_count"), 2026: ("gene_count_Unique", "umi_count_Unique")}
MAPPING = tissue_mapping()
USUAL = {"file_path": "gs://bucket/nowhere.h5ad", "obs_count": 5000, "tissue": "liver"}
USUAL |= {"tech_10x": "3_prime_gex", "cell_prep": "single_cell", "lib_prep": "10x_Genomics"}


def metadata(*rows: dict, release: int = 2026) -> pd.DataFrame:
    """Metadata of samples A, B, … in a release's columns; a row says what is not as usual."""
    rows = [{"srx_accession": chr(65 + i)} | USUAL | row for i, row in enumerate(rows)]
    return pd.DataFrame(rows).reindex(columns=COLUMNS[release].split())


def write(root, name: str = "sample", release: int = 2026, **tables: pd.DataFrame) -> str:
    """Write the metadata of samples or, with name "obs", of cells of each organism."""
    fs, base = fsspec.core.url_to_fs(str(root))
    for organism, table in tables.items():
        fs.makedirs(f"{base}/metadata/Velocyto/{organism}", exist_ok=True)
        with fs.open(f"{base}/metadata/Velocyto/{organism}/{name}_metadata.parquet", "wb") as file:
            table.to_parquet(file, row_group_size=1000)
    return str(root)


def cells(release: int = 2026, **sizes: int) -> pd.DataFrame:
    """Metadata of cells in no order; barcodes repeat, and half of each sample has 500 UMIs."""
    sample = np.repeat(list(sizes), list(sizes.values()))
    within = np.concatenate([np.arange(n) for n in sizes.values()])
    genes, umis = COUNTS[release]
    table = pd.DataFrame(
        {"cell_barcode": within.astype(str), "SRX_accession": sample, genes: within % 100}
    )
    table[umis] = np.where(within % 2, 500, 499).astype(np.float32)
    if release == 2026:
        table["cell_type"] = ""
    return table.sample(frac=1, random_state=0)


@pytest.mark.parametrize("release", [2025, 2026])
@pytest.mark.parametrize("where", ["folder", "memory"])
def test_both_releases_are_read_from_a_folder_and_from_a_bucket(release, where, tmp_path):
    root = tmp_path / "an [odd] name" if where == "folder" else f"memory://{tmp_path.name}"
    people = metadata(
        {}, {"tissue": "PBMC", "perturbation": "a", "purturbation": "a"}, release=release
    )
    mice = metadata({"srx_accession": "M", "obs_count": 9}, release=release)
    write(root, Homo_sapiens=people, Mus_musculus=mice)
    found = Catalogue.read(root)
    samples = found.samples
    assert list(samples.index) == ["A", "B", "M"] and samples.index.name == "sample"
    assert list(samples["organism"]) == ["Homo sapiens"] * 2 + ["Mus musculus"]
    assert list(samples["n_cells"]) == [5000, 5000, 9] and samples["n_cells"].dtype == np.int64
    assert list(samples["tissue"]) == ["liver", "blood", "liver"]
    assert list(samples["tissue_text"]) == ["liver", "PBMC", "liver"]
    assert samples["tech"].eq("3_prime_gex").all() and samples.loc["B", "perturbation"] == "a"
    start = str(root) if where == "folder" else f"memory:///{tmp_path.name}"
    assert samples.loc["M", "file"] == f"{start}/h5ad/Velocyto/Mus_musculus/M.h5ad"
    assert samples.loc["M", "url"] == "gs://bucket/nowhere.h5ad"
    write(root, "obs", Homo_sapiens=cells(release, A=5000, B=5000), Mus_musculus=cells(M=9))
    assert found.count_cells().equals(samples["n_cells"])
    only = Catalogue.read(root, "Mus musculus")
    same = found.select("Mus musculus", min_cells=0).samples
    pd.testing.assert_frame_equal(only.samples, same, check_dtype=False)
    if where == "memory":
        fsspec.filesystem("memory").rm(f"/{tmp_path.name}", recursive=True)


def test_the_dataset_is_the_collection_or_the_sample_itself(tmp_path):
    people = metadata({"czi_collection_id": "c"}, {}, {"czi_collection_id": "c"})
    people.loc[1, "czi_collection_id"] = ""
    samples = Catalogue.read(write(tmp_path, Homo_sapiens=people)).samples
    assert list(samples["dataset"]) == ["c", "B", "c"]


def test_a_file_that_is_here_is_taken(tmp_path):
    here = tmp_path / "elsewhere.h5ad"
    here.touch()
    people = metadata({"file_path": str(here)}, {"file_path": None}, {"file_path": "/no/where"})
    files = Catalogue.read(write(tmp_path, Homo_sapiens=people)).samples["file"]
    beside = tmp_path / "h5ad" / "Velocyto" / "Homo_sapiens"
    assert list(files) == [str(here), str(beside / "B.h5ad"), str(beside / "C.h5ad")]


def test_samples_that_can_not_be_used_are_skipped_counted_and_named(tmp_path, caplog):
    rows = [{"obs_count": n} for n in (5000, 0, -1, None, 2.5)]
    people = metadata(*rows, {"srx_accession": "A"}, {"srx_accession": None}, {"obs_count": 1})
    with caplog.at_level(logging.INFO, "splicedvae"):
        samples = Catalogue.read(write(tmp_path, Homo_sapiens=people)).samples
    assert list(samples.index) == ["A", "H"] and list(samples["n_cells"]) == [5000, 1]
    told = caplog.text
    assert "Skipped 1 samples that have no accession" in told
    assert "Skipped 1 samples that come a second time: A" in told
    assert "Skipped 3 samples that say no number of cells: C, D, E" in told
    assert "Skipped 1 samples that have no cells: B" in told
    with pytest.raises(ValueError, match="No sample has an accession and a positive number"):
        Catalogue.read(write(tmp_path / "none", Homo_sapiens=people[1:5]))
    with pytest.raises(ValueError, match="No sample has"):
        Catalogue.read(write(tmp_path / "empty", Homo_sapiens=people[:0]))


def test_what_is_not_a_release(tmp_path):
    with pytest.raises(FileNotFoundError, match="metadata/Velocyto has no "):
        Catalogue.read(tmp_path)
    root = write(tmp_path, Homo_sapiens=metadata({}).drop(columns=["tissue", "obs_count"]))
    with pytest.raises(ValueError, match=r"sample_metadata.parquet lacks obs_count, tissue"):
        Catalogue.read(root)
    with pytest.raises(FileNotFoundError, match="metadata/GeneFull has no "):
        Catalogue.read(root, feature="GeneFull")
    write(root, Homo_sapiens=metadata({}))
    with pytest.raises(KeyError, match="no 'Mus musculus'; it has Homo sapiens"):
        Catalogue.read(root, ["Homo sapiens", "Mus musculus"])
    catalogue = Catalogue.read(root)
    with pytest.raises(FileNotFoundError, match=r"Homo_sapiens/obs_metadata.parquet"):
        catalogue.count_cells()
    for name in ("sample", "obs"):
        file = Path(root, "metadata", "Velocyto", "Homo_sapiens", f"{name}_metadata.parquet")
        write(root, name, Homo_sapiens=metadata(*[{}] * 26))
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"Homo_sapiens/sample_metadata.parquet"):
        Catalogue.read(root)
    with pytest.raises(ValueError, match=r"Homo_sapiens/obs_metadata.parquet"):
        catalogue.count_cells()


def test_a_bucket_that_wants_a_project_gets_it():
    asked = {}

    class Bucket(fsspec.get_filesystem_class("memory")):
        protocol = "bucket"

        def __init__(self, **options):
            asked.update(options)
            super().__init__()

        @classmethod
        def _strip_protocol(cls, path):
            return super()._strip_protocol(path.removeprefix("bucket:/"))

    fsspec.register_implementation("bucket", Bucket, clobber=True)
    write("memory://b", Homo_sapiens=metadata({}), Mus_musculus=metadata({}))
    found = Catalogue.read("bucket://b", "Homo sapiens", project="lab-42")
    assert list(found.samples["file"]) == ["bucket:///b/h5ad/Velocyto/Homo_sapiens/A.h5ad"]
    assert asked == {"requester_pays": "lab-42"}


def test_the_papers_filters_count_what_they_cost(tmp_path, caplog):
    people = metadata(
        {"obs_count": 3000},
        {"obs_count": 3001, "tech_10x": "5_prime_gex"},
        {"tech_10x": "multiome"},
        {"cell_prep": "single_nucleus", "obs_count": 10_000},
        {"tech_10x": None},
    )
    catalogue = Catalogue.read(write(tmp_path, Homo_sapiens=people, Mus_musculus=metadata({}, {})))
    assert list(catalogue.samples["organism"]).count("Mus musculus") == 0  # the accessions repeat
    with caplog.at_level(logging.INFO, "splicedvae"):
        kept = catalogue.select(organism="Homo sapiens")
    assert list(kept.samples.index) == ["B", "D"]
    assert (
        "n_cells over 3000: 2 samples with 13,001 cells stay, 1 samples with 3,000" in caplog.text
    )
    assert "2 samples with 10,000 cells go" in caplog.text  # by their tech
    assert list(catalogue.select(cell_prep="single_nucleus").samples.index) == ["D"]
    assert list(catalogue.select(tech=None, min_cells=0).samples.index) == list("ABCDE")
    assert len(catalogue.samples) == 5  # the catalogue itself stays as it was
    with pytest.raises(ValueError, match=r"organism Danio rerio; .* with Homo sapiens"):
        catalogue.select("Danio rerio")
    with pytest.raises(ValueError, match=r"n_cells over 10000; .* 3001, 10000\."):
        catalogue.select(min_cells=10_000)


def test_cells_are_streamed(tmp_path):
    people = metadata({"obs_count": 3000}, {"obs_count": 700}, {"obs_count": 40})
    root = write(tmp_path, Homo_sapiens=people, Mus_musculus=metadata({"srx_accession": "M"}))
    table = cells(A=3000, B=700, C=40, Z=99)  # Z is in no metadata of samples
    write(root, "obs", Homo_sapiens=table, Mus_musculus=cells(2025, M=60))
    catalogue = Catalogue.read(root, "Homo sapiens")
    batches = list(catalogue.cells())
    assert len(batches) > 1 and max(map(len, batches)) <= 1000
    assert list(batches[0]) == ["barcode", "sample", "n_umis", "n_genes", "cell_type"]
    every = pd.concat(batches)
    assert every["sample"].value_counts().to_dict() == {"A": 3000, "B": 700, "C": 40}
    assert every["n_genes"].sum() == table.query("SRX_accession != 'Z'")["gene_count_Unique"].sum()
    some = pd.concat(catalogue.cells(["barcode"], samples=["C"]))
    assert list(some) == ["barcode"] and sorted(map(int, some["barcode"])) == list(range(40))
    both = pd.concat(Catalogue.read(root).cells(["sample", "n_umis"]))  # of both releases
    assert both["sample"].eq("M").sum() == 60 and len(both) == 3800
    with pytest.raises(KeyError, match="NOBODY"):
        next(catalogue.cells(samples=["NOBODY"]))
    with pytest.raises(KeyError, match="has no umis among cell_barcode"):
        next(catalogue.cells(["umis"]))


def test_cells_are_counted_by_what_they_have(tmp_path):
    people = metadata({"obs_count": 3000}, {"obs_count": 700}, {"obs_count": 40}, {})
    table = cells(A=3000, B=700, C=40, Z=99).astype(object)  # which takes None, as strings don't
    table.iloc[:2] = pd.DataFrame({"SRX_accession": [None, "A"]}).reindex(columns=list(table))
    root = write(tmp_path, Homo_sapiens=people)
    write(root, "obs", Homo_sapiens=table)
    catalogue = Catalogue.read(root)
    enough = {
        (0, 0): table,
        (500, 0): table.query("umi_count_Unique >= 500"),
        (0, 50): table.query("gene_count_Unique >= 50"),
        (500, 98): table.query("umi_count_Unique >= 500 and gene_count_Unique >= 98"),
    }
    for least, kept in enough.items():
        expected = kept["SRX_accession"].value_counts().reindex(list("ABCD"), fill_value=0)
        found = catalogue.count_cells(*least)
        assert list(found) == list(expected), least
        assert found.index.equals(catalogue.samples.index) and found.dtype == np.int64
    backwards = catalogue.samples[::-1]
    again = Catalogue(backwards, root).count_cells()
    assert (
        again.index.equals(backwards.index) and list(again) == list(catalogue.count_cells())[::-1]
    )
    write(root, "obs", Homo_sapiens=table.drop(columns="umi_count_Unique"))
    with pytest.raises(KeyError, match="has no n_umis"):
        catalogue.count_cells(min_umis=1)


def test_the_shipped_tissues():
    names = set(MAPPING.values()) - {""}
    assert {"blood", "brain", "lung", "bone marrow", "liver"} <= names and 70 <= len(names) <= 100
    assert all(MAPPING[name] == name for name in names)  # a tissue's name stands for itself
    assert all(text == text.lower().strip() for text in MAPPING)


@pytest.mark.parametrize(
    ("text", "tissue"),
    [
        ("PBMC", "blood"),
        ("Peripheral blood mononuclear cells (PBMCs)", "blood"),
        ("skin of body", "skin"),
        ("fetal liver", "liver"),
        ("Left_lung  biopsy.", "lung"),
        ("foetal liver, foetal bone marrow", "multiple"),
        ("lungs, lung-associated lymph nodes", "multiple"),
        ("frontal cortex, BA9", "brain"),
        ("hippocampus, Prefrontal Cortex", "brain"),
        ("heart and lung", "multiple"),
        ("liver; stage IV", "liver"),
        ("head and neck", "mouth"),
        ("Brown adipose tissue (BAT)", "adipose tissue"),
        ("cerebral cortex (frontal)", "brain"),
        ("cord blood", "umbilical cord blood"),
        ("Peyer’s patches", "ileum"),
        ("Retina superior region", "retina"),
        ("Oligodendrocyte Progenitor Cells", "brain"),
        ("unsure", "unmapped"),
        ("tissue", "unmapped"),
        ("not applicable", "unmapped"),
        ("", "unmapped"),
        (None, "unmapped"),
    ],
)
def test_free_text_is_mapped(text, tissue):
    assert list(map_tissues(pd.Series(["liver", text]), MAPPING)) == ["liver", tissue]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text() | st.none(), max_size=30))
def test_any_text_gets_a_tissue(texts):
    found = map_tissues(pd.Series(texts, dtype=object), MAPPING)
    assert set(found) <= {*MAPPING.values(), "unmapped", "multiple"} - {""}


def test_a_mapping_of_ones_own(tmp_path):
    rows = [{"tissue": t, "obs_count": n} for t, n in (("Foo", 10), ("big bar", 30), ("PBMC", 20))]
    catalogue = Catalogue.read(write(tmp_path, Homo_sapiens=metadata(*rows, {"tissue": None})))
    assert list(catalogue.samples["tissue"]) == ["unmapped", "unmapped", "blood", "unmapped"]
    own = catalogue.with_tissues({"FOO": "x", "bar": "y", "big": ""})
    assert list(own.samples["tissue"]) == ["x", "y", "unmapped", "unmapped"]
    more = catalogue.with_tissues(MAPPING | {"foo": "x"})
    assert list(more.samples["tissue"]) == ["x", "unmapped", "blood", "unmapped"]
    report = more.tissues().dropna().query("n_cells < 5000")
    assert list(report.index) == ["big bar", "PBMC", "Foo"]
    assert list(report["n_cells"]) == [30, 20, 10] and list(report["n_samples"]) == [1, 1, 1]
    assert list(report["tissue"]) == ["unmapped", "blood", "x"]
    assert more.tissues()["n_samples"].sum() == 4  # none is forgotten, not even one without text
    file = tmp_path / "own.csv"
    file.write_text("text,tissue,note\nfoo,x,\nbar,y,why\nbig,,\n")
    assert catalogue.with_tissues(file).samples.equals(own.samples)
    file.write_text("text,tissue\nfoo,x\nfoo,y\n")
    with pytest.raises(ValueError, match=r"own.csv gives more than one tissue to foo"):
        catalogue.with_tissues(file)
    file.write_text("text;tissue\nfoo;x\n")
    with pytest.raises(
        ValueError, match=r"own.csv needs the columns text and tissue; it has text;"
    ):
        catalogue.with_tissues(file)


def test_the_table_of_tissues_comes_with_the_package():
    assert Path(tissues.__file__).with_name("tissues.csv").is_file()
