"""A simulated corpus on disk, in the files and the schema of scBaseCount.

Tissues are programmes of one set of simulated genes (:func:`splicedvae.data.simulate`), so a gene
has its kinetics everywhere and its switches in each tissue. A sample is a part of its tissue's
cells, thinned: each molecule is kept with a probability of its gene, spliced or unspliced, and of
the sample's organism, protocol, dataset and accession. So samples differ as batches do.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from tqdm.auto import tqdm

from splicedvae.simulate import simulate

#: Organisms: prefix of their gene ids, share of the cells.
ORGANISMS = {"Homo sapiens": ("ENSG", 0.65), "Mus musculus": ("ENSMUSG", 0.35)}
#: Tissues, the largest first, as samples write them.
TISSUES = {
    "blood": ("blood", "PBMC", "peripheral blood"),
    "brain": ("brain", "Brain"),
    "lung": ("lung", "Lung tissue"),
    "liver": ("liver", "Liver"),
    "kidney": ("kidney",),
    "pancreas": ("pancreas", "pancreatic islets"),
    "skin": ("skin", "Skin"),
    "heart": ("heart",),
}
SHRINKAGE = 0.75  # cells of a tissue over those of the one before it
#: Protocols (`tech_10x`, `cell_prep`): share of samples, molecules kept (spliced, unspliced).
PROTOCOLS = {
    "3_prime_gex single_cell": (0.5, (0.7, 0.7)),
    "5_prime_gex single_cell": (0.25, (0.6, 0.4)),
    "3_prime_gex single_nucleus": (0.15, (0.2, 0.8)),
    "multiome single_nucleus": (0.1, (0.2, 0.7)),
}
#: Standard deviation over genes, spliced and unspliced apart, of the log probability to be kept.
SPREAD = {"organism": 0.4, "protocol": 0.3, "dataset": 0.2, "sample": 0.1}
AMBIGUOUS = 0.1  # share of the spliced molecules: so many more are ambiguous
#: What is wrong with the bad samples.
FLAWS = ("no unspliced layer", "truncated", "duplicate barcodes", "fractional", "missing file")
BUCKET = "gs://arc-institute-virtual-cell-atlas/scbasecount"
#: Columns of the metadata of samples that the release of 2025 does not have.
NEW = ["tissue_ontology_term_id", "disease_ontology_term_id", "antibody_derived_tag"]
#: Endings of the columns of a cell's gene and UMI counts.
ENDINGS = {2025: ("",), 2026: ("_Unique", "_UniqueAndMult-EM", "_UniqueAndMult-Uniform")}


def orthologues(n_genes: int) -> pd.DataFrame:
    """Pairs of orthologous genes of the simulated organisms.

    Parameters
    ----------
    n_genes
        Genes of an organism.

    Returns
    -------
    A column of gene ids per organism. Every twentieth gene is in no pair, every thirtieth in two.
    """
    gene = np.arange(n_genes)
    gene = gene[gene % 20 != 7]
    partner = np.concatenate([gene, gene[gene % 30 == 11] - 1])
    gene = np.concatenate([gene, gene[gene % 30 == 11]])
    human, mouse = ORGANISMS
    return pd.DataFrame({human: _ids(human, gene), mouse: _ids(mouse, partner)})


def corpus(
    path: str | os.PathLike,
    n_cells: int = 20_000,
    n_genes: int = 400,
    *,
    n_tissues: int = 6,
    sample_cells: int = 500,
    release: int = 2026,
    copies: int = 1,
    flawed: bool = True,
    seed: int = 0,
) -> pd.DataFrame:
    """Write a simulated corpus: metadata of samples and cells, and an h5ad file per sample.

    Parameters
    ----------
    path
        Folder of the release: ``metadata/Velocyto/<Organism>/{sample,obs}_metadata.parquet`` and
        ``h5ad/Velocyto/<Organism>/<accession>.h5ad``.
    n_cells
        Cells in all, about, without those of copies and flawed samples.
    n_genes
        Genes of each organism.
    n_tissues
        How many of ``TISSUES``.
    sample_cells
        Cells of a sample, on average.
    release
        2025 or 2026, whose columns the metadata have.
    copies
        How often each sample is there. Further ones are links to the same file under accessions
        and in datasets of their own: a corpus of many cells that is made at once.
    flawed
        Whether to add a sample with each of ``FLAWS``, of the first organism and tissue.
    seed
        Of everything.

    Returns
    -------
    Indexed by accession: ``organism``, ``tissue``, ``dataset``, ``protocol``, ``n_cells``, and
    ``flaw`` or "".

    Raises
    ------
    ValueError
        There is no such release, or there are not so many tissues.
    """
    if release not in ENDINGS or not 1 <= n_tissues <= len(TISSUES):
        raise ValueError(f"release is one of {[*ENDINGS]}, n_tissues one to {len(TISSUES)}.")
    root, rng = Path(path), np.random.default_rng(seed)
    share = SHRINKAGE ** np.arange(n_tissues)
    sizes = np.maximum(n_cells * share / share.sum(), 100).astype(int)
    shares = [p for p, _ in PROTOCOLS.values()]
    rows, cells, protocols = [], {}, {}
    for number, (tissue, size) in enumerate(zip(TISSUES, tqdm(sizes, unit="tissue"), strict=False)):
        # the genes are the same in all tissues only if all are simulated with as many cells
        pool = simulate(int(sizes.max()), n_genes, seed, programme_seed=number)[:size]
        parts = [(*part, "") for part in _divided(pool, sample_cells, rng)]
        if flawed and not number:
            parts += [(*parts[0][:3], flaw) for flaw in FLAWS]
        for organism, collection, part, flaw in parts:
            name = _accession(len(rows), 0)
            row = {
                "sample": name,
                "organism": organism,
                "tissue": tissue,
                "dataset": f"{tissue} {collection}" if collection else name,
                "protocol": list(PROTOCOLS)[rng.choice(len(PROTOCOLS), p=shares)],
                "n_cells": part.n_obs,
                "flaw": flaw,
            }
            # a dataset has one protocol, that of its first sample
            row["protocol"] = protocols.setdefault(row["dataset"], row["protocol"])
            adata = _thinned(part, row, seed, rng)
            cells[name] = _cells(adata, release)
            _write(adata, root / _file(row), flaw)
            rows.append(row)
    first = pd.DataFrame(rows)
    table = pd.concat([_copy(root, first, cells, copy) for copy in range(copies)])
    _write_metadata(root, table, cells, release, rng)
    return table.set_index("sample")


def _divided(pool: AnnData, sample_cells: int, rng) -> Iterator[tuple[str, str, AnnData]]:
    """A tissue's samples: organism, collection and cells; every third is in no collection."""
    start = 0
    for organism, (_, share) in ORGANISMS.items():
        size = int(pool.n_obs * share)
        n = max(4, round(size / sample_cells))
        ends = start + np.ceil(rng.dirichlet(np.full(n, 5.0)).cumsum() * size - 1e-6).astype(int)
        for i, end in enumerate(ends):
            collection = f"of {organism}, {i // 3}" if i % 3 else ""
            if end > start:
                yield organism, collection, pool[start:end]
            start = max(start, end)


def _accession(number: int, copy: int) -> str:
    return f"SRX{copy:03d}{number:05d}"


def _ids(organism: str, gene: np.ndarray) -> list[str]:
    return [f"{ORGANISMS[organism][0]}{i:011d}" for i in gene + 1]


def _file(row: dict | pd.Series) -> str:
    return f"h5ad/Velocyto/{row['organism'].replace(' ', '_')}/{row['sample']}.h5ad"


def _thinned(part: AnnData, row: dict, seed: int, rng: np.random.Generator) -> AnnData:
    """The sample as Velocyto's h5ad has it: X is the spliced counts, genes go by symbol."""
    n_genes = part.n_vars
    log_kept = np.zeros((2, n_genes))
    for kind, sd in SPREAD.items():
        own = np.random.default_rng([seed, zlib.crc32(f"{kind} {row[kind]}".encode())])
        log_kept += own.normal(0, sd, (2, n_genes))
    kept = np.minimum(np.array(PROTOCOLS[row["protocol"]][1])[:, None] * np.exp(log_kept), 1)
    layers = {}
    for name, share in zip(("spliced", "unspliced"), kept, strict=True):
        counts = part.layers[name].astype(np.float32)
        counts.data[:] = rng.binomial(counts.data.astype(int), share[counts.indices])
        counts.eliminate_zeros()
        layers[name] = counts
    layers["ambiguous"] = layers["spliced"].copy()
    layers["ambiguous"].data[:] = rng.poisson(AMBIGUOUS * layers["spliced"].data)
    layers["ambiguous"].eliminate_zeros()
    order = rng.permutation(n_genes)  # nothing says that all samples have their genes in one order
    var = pd.DataFrame(
        {"gene_ids": _ids(row["organism"], np.arange(n_genes)), "feature_types": "Gene Expression"},
        index=[f"Sim{i}" for i in range(1, n_genes + 1)],
    )
    number = rng.choice(4**16, part.n_obs, replace=False)
    letters = np.array(list("ACGT"))[number[:, None] // 4 ** np.arange(16) % 4]
    obs = part.obs[["clusters"]].set_axis(["".join(barcode) for barcode in letters])
    return AnnData(layers["spliced"].copy(), obs=obs, var=var, layers=layers)[:, order].copy()


def _write(adata: AnnData, file: Path, flaw: str) -> None:
    if flaw == "no unspliced layer":
        del adata.layers["unspliced"]
    elif flaw == "duplicate barcodes":
        names = adata.obs_names.to_numpy()
        adata.obs_names = np.resize(names[: -(-len(names) // 2)], len(names))
    elif flaw == "fractional":
        adata.layers["spliced"].data /= 2
    file.parent.mkdir(parents=True, exist_ok=True)
    if flaw != "missing file":
        adata.write_h5ad(file, compression="gzip")
    if flaw == "truncated":
        os.truncate(file, file.stat().st_size // 2)


def _copy(root: Path, first: pd.DataFrame, cells: dict, copy: int) -> pd.DataFrame:
    """The samples once more, under other names."""
    if not copy:
        return first
    table = first.copy()
    table["sample"] = [_accession(number, copy) for number in range(len(first))]
    alone = first["dataset"] == first["sample"]
    table["dataset"] = table["sample"].where(alone, first["dataset"] + f", copy {copy}")
    for (_, old), (_, new) in zip(first.iterrows(), table.iterrows(), strict=True):
        cells[new["sample"]] = cells[old["sample"]]
        if old["flaw"] != "missing file":
            (root / _file(new)).unlink(missing_ok=True)
            (root / _file(new)).hardlink_to(root / _file(old))
    return table


def _cells(adata: AnnData, release: int) -> pd.DataFrame:
    """Metadata of a sample's cells, but for its accession."""
    total = adata.layers["spliced"] + adata.layers["unspliced"]
    table = pd.DataFrame({"cell_barcode": adata.obs_names, "SRX_accession": ""})
    for ending in ENDINGS[release]:
        table[f"gene_count{ending}"] = total.getnnz(axis=1)
        table[f"umi_count{ending}"] = np.asarray(total.sum(axis=1)).ravel().astype(int)
    if release > 2025:
        table["cell_type"], table["cell_ontology_term_id"] = adata.obs["clusters"].to_numpy(), ""
    return table


def _write_metadata(root, table, cells, release, rng) -> None:
    for organism, own in table.groupby("organism"):
        folder = root / "metadata/Velocyto" / organism.replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        collections = own["dataset"].where(own["dataset"] != own["sample"])
        known = {
            "entrez_id": np.arange(1, len(own) + 1),
            "srx_accession": own["sample"],
            "file_path": [f"{BUCKET}/{_file(row)}" for _, row in own.iterrows()],
            "obs_count": own["n_cells"],
            "lib_prep": "10x_Genomics",
            "tech_10x": own["protocol"].str.split().str[0],
            "cell_prep": own["protocol"].str.split().str[1],
            "organism": organism,
            "tissue": [rng.choice(TISSUES[tissue]) for tissue in own["tissue"]],
            "tissue_ontology_term_id": "",
            "disease": "unsure",
            "disease_ontology_term_id": "",
            "perturbation": "unsure",
            "cell_line": "unsure",
            "antibody_derived_tag": "no",
            "czi_collection_id": collections,
            "czi_collection_name": collections,
        }
        samples = pd.DataFrame(known, index=own.index)
        if release == 2025:
            samples = samples.drop(columns=NEW).rename(columns={"perturbation": "purturbation"})
        samples.to_parquet(folder / "sample_metadata.parquet", index=False)
        obs = [cells[name].assign(SRX_accession=name) for name in own["sample"]]
        pd.concat(obs, ignore_index=True).to_parquet(folder / "obs_metadata.parquet", index=False)
