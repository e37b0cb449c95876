"""Checkpoints of scVI models trained on CELLxGENE Census: listed, fetched once, read safely.

They are written by ``SCVI.save`` and lie in a public bucket, one for each release and organism.
"""

from __future__ import annotations

import logging
import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pooch
import requests
import torch
from scvi.module import VAE

from .._unpickle import Refused, load
from ..head import one_of

logger = logging.getLogger("splicedvae")

BASE_URL = "https://cellxgene-contrib-public.s3.us-west-2.amazonaws.com/models/scvi"
#: Names a mirror that is used instead of ``BASE_URL``.
ENVIRONMENT_VARIABLE = "SPLICEDVAE_CENSUS"
#: Ensembl prefix of each organism's gene ids.
ORGANISMS = {"homo_sapiens": "ENSG", "mus_musculus": "ENSMUSG"}
RELEASES = {date: tuple(ORGANISMS) for date in ("2024-02-12", "2024-07-01", "2025-11-08")}
DEFAULT_RELEASE = "2025-11-08"
FILE = "model.pt"  # as in every folder that `SCVI.save` writes


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A trained scVI: weights, genes, and what it takes to build it again.

    The inputs of a layer are, in this order: genes (encoder) or latent dimensions (decoder),
    continuous covariates, a column for each batch, columns for each categorical covariate. The
    encoder has covariates only with ``encode_covariates``, layers after the first have only
    categorical ones and only with ``deeply_inject_covariates``, and what has a single category
    has no column.

    Attributes
    ----------
    path
        The file.
    genes
        Names of the genes, in Census Ensembl ids.
    weights
        State dict of the module :class:`scvi.module.VAE`.
    architecture
        Arguments of :class:`scvi.model.SCVI`, as the weights' shapes say or, where these can't,
        as they were saved.
    n_batch, n_labels
        Numbers of batches and labels.
    n_continuous_cov
        Number of continuous covariates.
    n_cats_per_cov
        Number of categories of each categorical covariate.
    organism
        ``"homo_sapiens"``, ``"mus_musculus"``, or None if the gene ids are of neither.
    scvi_version
        That saved it; None if it does not say.
    """

    path: Path
    genes: pd.Index
    weights: dict[str, torch.Tensor] = field(repr=False)
    architecture: dict
    n_batch: int
    n_labels: int
    n_continuous_cov: int
    n_cats_per_cov: tuple[int, ...]
    organism: str | None
    scvi_version: str | None


def _place(organism: str, release: str, cache_dir, base_url) -> tuple[str, Path]:
    one_of("release", release, tuple(RELEASES))
    one_of("organism", organism, RELEASES[release])
    base = (base_url or os.environ.get(ENVIRONMENT_VARIABLE) or BASE_URL).rstrip("/")
    cache = Path(cache_dir or pooch.os_cache("splicedvae") / "census")
    return f"{base}/{release}/{organism}/{FILE}", cache / release / organism / FILE


def releases(*, cache_dir: str | os.PathLike | None = None) -> pd.DataFrame:
    """List the checkpoints that there are.

    Parameters
    ----------
    cache_dir
        Where downloads are kept; by default the user's cache folder.

    Returns
    -------
    A row for each, with columns ``release``, ``organism``, ``url`` and ``cached``.
    """
    rows = []
    for release, organisms in RELEASES.items():
        for organism in organisms:
            url, target = _place(organism, release, cache_dir, None)
            rows.append((release, organism, url, target.is_file()))
    return pd.DataFrame(rows, columns=["release", "organism", "url", "cached"])


def fetch(
    organism: str,
    release: str = DEFAULT_RELEASE,
    *,
    cache_dir: str | os.PathLike | None = None,
    base_url: str | None = None,
    timeout: float = 30.0,
    progress: bool = True,
) -> Path:
    """Download a checkpoint, once.

    No one publishes hashes of these files, so the first download is trusted: its SHA-256 is kept
    beside the file, and both the file and any later download are compared with it.

    Parameters
    ----------
    organism
        ``"homo_sapiens"`` or ``"mus_musculus"``.
    release
        See :func:`releases`.
    cache_dir
        Where downloads are kept; by default the user's cache folder.
    base_url
        Of a mirror; by default the environment variable ``SPLICEDVAE_CENSUS``, or else the bucket.
    timeout
        Seconds to wait for the server before giving up.
    progress
        Whether to show a progress bar.

    Returns
    -------
    The file, in a folder such as ``SCVI.save`` writes.

    Raises
    ------
    ValueError
        There is no such release or organism, or the file is not the one that was first fetched.
    ConnectionError
        The file can't be had whole.
    OSError
        The cache can't be written.
    """
    url, target = _place(organism, release, cache_dir, base_url)
    record = target.with_name(f"{FILE}.sha256")

    def download(url: str, part: str, _) -> None:
        get = pooch.HTTPDownloader(progressbar=progress, timeout=timeout, chunk_size=1 << 16)
        get(url, part, None)
        with zipfile.ZipFile(part) as archive:  # its end, and the CRC of all that is in it
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"its record {damaged} is damaged")

    try:
        known = record.read_text().strip() if record.exists() else None
        if not target.exists():
            # pooch writes to another name first, and gives the file its own only when it is whole
            pooch.retrieve(url, None, FILE, target.parent, downloader=download)
        found = pooch.file_hash(str(target))
        if known is None:
            record.write_text(f"{found}\n")
            logger.info("%s has SHA-256 %s, which is kept.", target, found)
    except (requests.RequestException, zipfile.BadZipFile) as error:
        raise ConnectionError(
            f"{url} can't be had whole ({type(error).__name__}: {error}). Try again, set "
            f"${ENVIRONMENT_VARIABLE} to a mirror, or download it elsewhere and save it as "
            f"{target}."
        ) from error
    except OSError as error:
        raise OSError(
            f"The cache {target.parent} can't be used ({type(error).__name__}: {error}). Name "
            "another folder with cache_dir=."
        ) from error
    if known not in (None, found):
        raise ValueError(
            f"{target} has SHA-256 {found}, not {known} as when it was first fetched; it is not "
            f"used. Remove it to fetch it again; if {url} itself is new, remove {record.name} too."
        )
    return target


def read(path: str | os.PathLike) -> Checkpoint:
    """Read what ``SCVI.save`` wrote, without running code that a file from elsewhere may hold.

    Parameters
    ----------
    path
        The file ``model.pt``, or its folder.

    Returns
    -------
    The checkpoint; its tensors are on the CPU.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is damaged, not of a :class:`scvi.model.SCVI`, asks for code to be run, or its weights
        contradict each other.
    """
    path = Path(path)
    path = path / FILE if path.is_dir() else path
    with path.open("rb") as file:
        try:
            return _checkpoint(load(file), path)
        except Refused as error:
            raise ValueError(f"{path} can't be used: {error}.") from error
        except Exception as error:  # a damaged pickle can raise anything
            raise ValueError(
                f"{path} can't be read ({type(error).__name__}: {error}). It is damaged, only half "
                "there, or not a save of scVI; remove it and fetch it again."
            ) from error


def _checkpoint(saved: dict, path: Path) -> Checkpoint:
    parts = ("model_state_dict", "var_names", "attr_dict")
    if not isinstance(saved, dict) or not saved.keys() >= set(parts):
        raise Refused(f"it is not a save of scVI, which holds {', '.join(parts)}")
    state, names, attributes = (saved[part] for part in parts)
    registry = attributes["registry_"]
    if (model := registry.get("model_name")) not in (None, "SCVI"):
        raise Refused(f"it is of class {model}; only a plain scvi.model.SCVI can be started from")

    weights = {k: v.value for k, v in state.items() if k != "pyro_param_store"}
    genes = pd.Index(np.asarray(getattr(names, "value", names)).astype(str))
    if not genes.is_unique:
        raise Refused(f"its gene {genes[genes.duplicated()][0]} is there more than once")
    fields = registry["field_registries"]

    def count(field: str, name: str) -> int:
        return int(fields.get(field, {}).get("summary_stats", {}).get(name, 0))

    covariates = fields.get("extra_categorical_covs", {}).get("state_registry", {})
    sizes = {
        "n_batch": count("batch", "n_batch"),
        "n_labels": count("labels", "n_labels"),
        "n_continuous_cov": count("extra_continuous_covs", "n_extra_continuous_covs"),
        "n_cats_per_cov": tuple(int(n) for n in covariates.get("n_cats_per_key", ())),
    }
    architecture = _architecture(weights, attributes["init_params_"], sizes, genes)
    prefixes = genes.str.extract(r"^(ENS[A-Z]*G)\d", expand=False).value_counts(normalize=True)
    organism = next((o for o, p in ORGANISMS.items() if prefixes.get(p, 0) > 0.5), None)
    version = registry.get("scvi_version")
    return Checkpoint(
        path, genes, weights, architecture, **sizes, organism=organism, scvi_version=version
    )


def _architecture(
    weights: dict[str, torch.Tensor], saved: dict, sizes: dict, genes: pd.Index
) -> dict:
    """Take what was saved, with what the shapes say in its place, and see that it fits them all."""
    own = saved.get("non_kwargs", saved)  # before scvi-tools 0.15 both were in one dictionary
    others = [d for d in saved.get("kwargs", saved).values() if isinstance(d, dict)]
    architecture = {k: v for k, v in own.items() if not isinstance(v, dict)}
    architecture |= {k: v for d in others for k, v in d.items()}
    for not_of_the_module in ("adata", "registry"):
        architecture.pop(not_of_the_module, None)
    if architecture.get("batch_representation", "one-hot") != "one-hot":
        raise Refused("its batches are embedded; only one-hot batches can be started from")

    encoder, decoder = "z_encoder.encoder.fc_layers.Layer ", "decoder.px_decoder.fc_layers.Layer "
    needed = (f"{encoder}0.0.weight", f"{decoder}0.0.weight", "z_encoder.mean_encoder.weight")
    if missing := [name for name in needed if name not in weights]:
        raise Refused(f"it has no weights {missing[0]!r}, which every scVI has")
    (n_hidden, encoded), (_, decoded), (n_latent, _) = (weights[name].shape for name in needed)
    n_layers = sum(name.startswith(encoder) and name.endswith(".0.weight") for name in weights)
    architecture |= {"n_hidden": n_hidden, "n_latent": n_latent, "n_layers": n_layers}
    columns = decoded - n_latent - sizes["n_continuous_cov"]  # of categorical covariates
    if decoded > n_latent:
        architecture["encode_covariates"] = encoded > len(genes)
    if columns and n_layers > 1:
        deeper = weights[f"{decoder}1.0.weight"].shape[1]
        architecture["deeply_inject_covariates"] = deeper > n_hidden

    library = dict.fromkeys(
        ("library_log_means", "library_log_vars"), np.zeros((1, sizes["n_batch"]))
    )
    with torch.device("meta"):  # shapes alone
        module = VAE(len(genes), **sizes, **architecture, **library)
    expected, found = (
        {k: tuple(w.size()) for k, w in of.items() if k.startswith(("z_enc", "decoder.", "px_r"))}
        for of in (module.state_dict(), weights)
    )
    if wrong := [k for k in expected | found if expected.get(k) != found.get(k)]:
        raise Refused(
            f"its weights contradict each other: {wrong[0]!r} has shape {found.get(wrong[0])}, "
            f"where {len(genes)} genes, {sizes['n_batch']} batches and the other weights need "
            f"{expected.get(wrong[0])}"
        )
    return architecture
