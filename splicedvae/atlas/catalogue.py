"""What an atlas holds: its samples, filtered and with tidy tissues, and its cells, streamed.

An atlas lies as Arc's scBaseCount does, in a folder or a bucket, a folder for each feature and
organism: ``metadata/<feature>/<Organism>/{sample,obs}_metadata.parquet`` and
``h5ad/<feature>/<Organism>/<sample>.h5ad``. The releases of 2025 and 2026 are told apart by their
columns. https://github.com/ArcInstitute/arc-virtual-cell-atlas
"""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
from fsspec.implementations.local import LocalFileSystem
from tqdm.auto import tqdm

from .readers import located
from .tissues import map_tissues, tissue_mapping

logger = logging.getLogger(__name__)

# what the columns of samples are called here; "purturbation" is how 2025 spells it
SAMPLE_COLUMNS = {"srx_accession": "sample", "file_path": "url", "obs_count": "n_cells"}
SAMPLE_COLUMNS |= {"tissue": "tissue_text", "tech_10x": "tech", "czi_collection_id": "dataset"}
SAMPLE_COLUMNS |= {name: name for name in ("cell_prep", "disease")}
OPTIONAL_COLUMNS = {"purturbation": "perturbation", "czi_collection_name": "dataset_name"}
# those of cells, and how 2026 and 2025 call them
CELL_COLUMNS = {
    "barcode": ("cell_barcode",),
    "sample": ("SRX_accession", "srx_accession"),
    "n_umis": ("umi_count_Unique", "umi_count"),
    "n_genes": ("gene_count_Unique", "gene_count"),
    "cell_type": ("cell_type",),
}
TECHS = ("3_prime_gex", "5_prime_gex")  # what the paper takes: 10x, 3' or 5'


def _listed(names: str | Iterable[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _told(samples: pd.DataFrame) -> str:
    return f"{len(samples):,} samples with {int(samples['n_cells'].sum()):,} cells"


def _read(fs: fsspec.AbstractFileSystem, path: str) -> pd.DataFrame:
    """Read the metadata of samples of one organism, by the names they have here."""
    table = ds.dataset(path, filesystem=fs).to_table().to_pandas(ignore_metadata=True)
    if missing := [column for column in SAMPLE_COLUMNS if column not in table]:
        raise ValueError(f"{path} lacks {', '.join(missing)}, which every release has.")
    return table.rename(columns=SAMPLE_COLUMNS | OPTIONAL_COLUMNS)


def _sound(samples: pd.DataFrame) -> pd.DataFrame:
    """Index by accession, without the samples that can't be used, which the log names."""
    n_cells = pd.to_numeric(samples["n_cells"], errors="coerce")
    reasons = {
        "have no accession": samples["sample"].isna(),
        "come a second time": samples["sample"].duplicated(),
        "say no number of cells": n_cells.isna() | (n_cells % 1 != 0) | (n_cells < 0),
        "have no cells": n_cells == 0,
    }
    sound = np.ones(len(samples), bool)
    for reason, rows in reasons.items():
        if (rows & sound).any():
            names = ", ".join(map(str, samples["sample"][rows & sound][:5]))
            logger.info("Skipped %d samples that %s: %s …", (rows & sound).sum(), reason, names)
        sound &= ~rows.to_numpy()
    if not sound.any():
        raise ValueError("No sample has an accession and a positive number of cells.")
    samples = samples.assign(n_cells=n_cells)[sound].set_index("sample")
    dataset = samples["dataset"].astype(object)
    return samples.assign(
        n_cells=samples["n_cells"].astype(np.int64),
        dataset=dataset.where(dataset.notna() & (dataset != ""), samples.index.to_series()),
    )


@dataclass(frozen=True, eq=False)
class Catalogue:
    """Samples of an atlas, and the way to their cells. Get one by :meth:`read`.

    Attributes
    ----------
    samples
        One row for each sample, indexed by its accession: file, dataset (its CZI collection, or
        else the accession itself: nothing else in the metadata groups samples), organism, tissue,
        tissue_text, tech, cell_prep, disease, n_cells and the release's other columns; url is the
        file's place in the release.
    root
        Folder or address of the release.
    feature
        Of STARsolo, by which the release is divided.
    project
        That a bucket's owner bills for what is read.
    """

    samples: pd.DataFrame
    root: str
    feature: str = "Velocyto"
    project: str | None = None

    @classmethod
    def read(
        cls,
        root: str | os.PathLike,
        organisms: str | Sequence[str] | None = None,
        feature: str = "Velocyto",
        project: str | None = None,
    ) -> Catalogue:
        """Read the metadata of samples.

        A sample's file is what ``file_path`` says if that is on this machine, or else the h5ad
        that belongs beside the metadata. Samples that come twice, or whose number of cells is not
        a positive one, are skipped, counted and named in the log.

        Parameters
        ----------
        root
            Folder or address (such as ``gs://arc-institute-virtual-cell-atlas/scbasecount/…``) of
            one release.
        organisms
            To read, such as ``"Homo sapiens"``; None reads all.
        feature
            Of STARsolo; only ``"Velocyto"`` has spliced and unspliced counts.
        project
            To bill, where a bucket's owner wants the reader to pay (Arc does).

        Returns
        -------
        The catalogue, its tissues mapped as by :meth:`with_tissues`.

        Raises
        ------
        FileNotFoundError
            There is no such metadata.
        KeyError
            An organism is not there.
        ValueError
            A file is damaged or lacks columns, or no sample has cells.
        ImportError
            The address needs a package, which the message names.
        """
        fs, base = located(str(root), project)
        paths = fs.glob(f"{glob.escape(base)}/metadata/{feature}/*/sample_metadata.parquet")
        there = {path.split("/")[-2].replace("_", " "): path for path in paths}
        if not there:
            raise FileNotFoundError(f"{root}/metadata/{feature} has no */sample_metadata.parquet.")
        tables = []
        for organism in _listed(organisms or there):
            if organism not in there:
                raise KeyError(f"{root} has no {organism!r}; it has {', '.join(there)}.")
            table = _read(fs, there[organism]).assign(organism=organism)
            beside = f"{base}/h5ad/{feature}/{organism.replace(' ', '_')}"
            beside = beside if isinstance(fs, LocalFileSystem) else fs.unstrip_protocol(beside)
            here = [isinstance(url, str) and os.path.exists(url) for url in table["url"]]
            table["file"] = table["url"].where(here, beside + "/" + table["sample"] + ".h5ad")
            tables.append(table)
        samples = _sound(pd.concat(tables, ignore_index=True))
        return cls(samples, str(root), feature, project).with_tissues()

    def select(
        self,
        organism: str | Sequence[str] | None = None,
        tech: str | Sequence[str] | None = TECHS,
        min_cells: int = 3000,
        cell_prep: str | Sequence[str] | None = None,
    ) -> Catalogue:
        """Keep the samples that pass the paper's filters; the log counts what each rule costs.

        Parameters
        ----------
        organism, tech, cell_prep
            Names to keep; None keeps all.
        min_cells
            A sample stays if it has more than so many.

        Returns
        -------
        The catalogue of those samples.

        Raises
        ------
        ValueError
            No sample is left.
        """
        kept = self.samples
        rules = {"organism": organism, "tech": tech, "cell_prep": cell_prep, "n_cells": min_cells}
        for column, rule in rules.items():
            if rule is None:
                continue
            values = kept[column]
            passes = values > rule if column == "n_cells" else values.isin(_listed(rule))
            rule = f"{column} {'over ' if column == 'n_cells' else ''}{rule}"
            if not passes.any():
                known = ", ".join(map(str, sorted(values.dropna().unique())[-30:]))
                raise ValueError(f"No sample has {rule}; {_told(kept)} are left, with {known}.")
            logger.info("%s: %s stay, %s go.", rule, _told(kept[passes]), _told(kept[~passes]))
            kept = kept[passes]
        return replace(self, samples=kept)

    def with_tissues(
        self, mapping: Mapping[str, str] | str | os.PathLike | None = None
    ) -> Catalogue:
        """Map the tissues' free text anew; :meth:`tissues` shows what comes of it.

        Parameters
        ----------
        mapping
            Tissue by text, or the path of a CSV: see
            :func:`splicedvae.atlas.tissues.tissue_mapping`, whose own one None takes.

        Returns
        -------
        The catalogue with that column tissue.

        Raises
        ------
        ValueError
            The CSV is not such a table.
        """
        mapping = mapping if isinstance(mapping, Mapping) else tissue_mapping(mapping)
        tissues = map_tissues(self.samples["tissue_text"], mapping)
        return replace(self, samples=self.samples.assign(tissue=tissues))

    def tissues(self) -> pd.DataFrame:
        """What became of every text.

        Returns
        -------
        A row for each text, those of most cells first: tissue, n_samples, n_cells.
        """
        groups = self.samples.groupby("tissue_text", dropna=False)
        table = groups.agg(
            tissue=("tissue", "first"), n_samples=("tissue", "size"), n_cells=("n_cells", "sum")
        )
        return table.sort_values("n_cells", ascending=False, kind="stable")

    def _cells(self, organism: str, asked: Iterable[str]) -> tuple[ds.Dataset, dict[str, str]]:
        """Open the metadata of cells of an organism; the columns there, by their names here."""
        fs, base = located(self.root, self.project)
        folder = organism.replace(" ", "_")
        path = f"{base}/metadata/{self.feature}/{folder}/obs_metadata.parquet"
        # accessions as codes and few strings: a string for each of 10⁸ cells would take the time
        form = ds.ParquetFileFormat(dictionary_columns=CELL_COLUMNS["sample"])
        cells = ds.dataset(path, filesystem=fs, format=form)
        there = cells.schema.names
        names = {name: c for name, cs in CELL_COLUMNS.items() for c in cs if c in there}
        if missing := {"sample", *asked} - set(names):
            raise KeyError(f"{path} has no {', '.join(missing)} among {', '.join(there)}.")
        return cells, names

    def cells(
        self, columns: Sequence[str] | None = None, samples: Sequence[str] | None = None
    ) -> Iterator[pd.DataFrame]:
        """Stream the metadata of cells, of which only a part is ever in memory.

        Parameters
        ----------
        columns
            Of barcode, sample, n_umis, n_genes and cell_type; None takes those that are there.
            Barcodes repeat across samples.
        samples
            Accessions; None takes the catalogue's.

        Yields
        ------
        Some of the cells: a row for each.

        Raises
        ------
        KeyError
            The metadata have no such column, or the catalogue no such sample.
        FileNotFoundError, ValueError
            The metadata of cells are missing or damaged.
        """
        wanted = self.samples if samples is None else self.samples.loc[list(samples)]
        for organism, rows in wanted.groupby("organism", sort=False):
            cells, names = self._cells(organism, columns or ())
            fields = {name: ds.field(names[name]) for name in columns or names}
            if "sample" in fields:
                fields["sample"] = fields["sample"].cast(pa.string())
            ours = ds.field(names["sample"]).isin(pa.array(rows.index, pa.string()))
            batches = cells.to_batches(columns=fields, filter=ours)
            yield from (batch.to_pandas() for batch in batches if batch.num_rows)

    def count_cells(
        self, min_umis: float = 0, min_genes: float = 0, progress: bool = True
    ) -> pd.Series:
        """Count the cells of each sample that have enough counts and genes.

        Parameters
        ----------
        min_umis, min_genes
            What a cell needs at least.
        progress
            Whether to show a bar.

        Returns
        -------
        Cells of each sample of the catalogue, as ``samples["n_cells"]``.

        Raises
        ------
        KeyError
            The metadata lack a column that is asked for.
        FileNotFoundError, ValueError
            The metadata of cells are missing or damaged.
        """
        least = {"n_umis": min_umis, "n_genes": min_genes}
        least = {name: value for name, value in least.items() if value > 0}
        parts = []
        for organism, rows in self.samples.groupby("organism"):
            cells, names = self._cells(organism, least)
            columns = [names[name] for name in ("sample", *least)]
            counts = np.zeros(len(rows) + 1, np.int64)  # the last place is for other samples
            n_rows = cells.count_rows()
            with tqdm(total=n_rows, desc=organism, unit_scale=True, disable=not progress) as bar:
                for batch in cells.to_batches(columns=columns):
                    sample, *values = batch.columns
                    enough = np.ones(batch.num_rows, bool)
                    for column, value in zip(values, least.values(), strict=True):
                        enough &= column.to_numpy(zero_copy_only=False) >= value
                    known = sample.dictionary
                    codes = sample.indices.fill_null(len(known)).to_numpy()[enough]
                    n = np.bincount(codes, minlength=len(known) + 1)[:-1]
                    np.add.at(counts, rows.index.get_indexer(known.to_pylist()), n)
                    bar.update(batch.num_rows)
            parts.append(pd.Series(counts[:-1], rows.index, name="n_cells"))
        return pd.concat(parts).reindex(self.samples.index)
