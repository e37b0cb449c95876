"""Results that chapters share: made once, kept under a hash of what they depend on, compared."""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import joblib
import numpy as np
import pandas as pd
import torch
from anndata import AnnData
from tqdm.auto import tqdm

from splicedvae import metrics

from .profiles import PROFILES, quiet

#: Libraries whose version a result may depend on.
LIBRARIES = ("optuna", "torch", "scvi-tools", "scanpy", "scikit-learn", "scvelo")


def fingerprint(stage: ModuleType, adata: AnnData, profile: str) -> str:
    """Hash of what a stage depends on: cells, settings, its ``SOURCES``, main libraries.

    Comments and docstrings do not count.

    Parameters
    ----------
    stage
        A module with ``SOURCES``, the modules its results depend on, by package, and perhaps with
        ``SETTINGS`` of its own by profile.
    adata
        From :func:`~splicedvae_book.profiles.load`.
    profile
        A key of ``splicedvae_book.profiles.PROFILES``.

    Returns
    -------
    16 hexadecimal digits.
    """
    settings = asdict(PROFILES[profile])
    settings.pop("seeds")  # a profile with more seeds shares the results of one with fewer
    settings["stage"] = getattr(stage, "SETTINGS", {}).get(profile)
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    parts = [adata.layers[layer] for layer in ("spliced", "unspliced")]
    parts += [list(adata.var_names), list(adata.obs["clusters"].astype(str))]
    parts += [version(library) for library in LIBRARIES]
    for part in parts:  # a worker sees large arrays through a memory map: the same cells
        digest.update(joblib.hash(part, coerce_mmap=True).encode())
    for package, modules in stage.SOURCES.items():
        for module in modules:
            digest.update(_code((files(package) / f"{module}.py").read_text()).encode())
    return digest.hexdigest()[:16]


def _code(source: str) -> str:
    """What a module does: its syntax tree without docstrings; comments are not in it anyway."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
    return ast.dump(tree)


def run(
    stage: ModuleType,
    adata: AnnData,
    profile: str = "standard",
    results: str | os.PathLike = "_build/results",
    names: Iterable[str] | None = None,
) -> list[dict]:
    """All jobs of a stage; those that stand in `results` already are only read.

    Parameters
    ----------
    stage
        A module with ``NAMES`` of jobs, ``SOURCES`` (see :func:`fingerprint`) and
        ``run_job(adata, profile, seed, name, folder)``, which gives a dict that JSON can hold and
        may name under ``files`` what it wrote to the folder. One that has ``SEEDS`` runs for these
        in place of the profile's; one that sets ``ALONE`` measures time, and has no job beside it.
    adata
        From :func:`~splicedvae_book.profiles.load`.
    profile
        A key of ``splicedvae_book.profiles.PROFILES``.
    results
        Folder in which a folder named by the :func:`fingerprint` keeps the jobs' files.
    names
        Which jobs; None for all.

    Returns
    -------
    The jobs' results by seed and name, each with ``seed``, ``name`` and ``seconds``.
    """
    folder = Path(results) / fingerprint(stage, adata, profile)
    folder.mkdir(parents=True, exist_ok=True)
    names = stage.NAMES if names is None else names
    seeds = getattr(stage, "SEEDS", PROFILES[profile].seeds)
    jobs = [(seed, name) for seed in seeds for name in names]
    missing = [job for job in jobs if _read(folder, *job) is None]
    if missing:
        parallel = joblib.Parallel(n_jobs=_n_jobs(stage), return_as="generator_unordered")
        done = parallel(
            joblib.delayed(_work)(stage.__name__, adata, profile, *job, folder) for job in missing
        )
        title = stage.__name__.rpartition(".")[2]
        for _ in tqdm(done, total=len(missing), desc=title, unit="job"):
            pass
    return [_read(folder, *job) for job in jobs]


def _work(stage: str, adata: AnnData, profile: str, seed: int, name: str, folder: Path) -> None:
    """Do one job and write it down, the JSON file last, so that it vouches for the others."""
    module = import_module(stage)
    torch.set_num_threads(max(1, joblib.cpu_count() // _n_jobs(module)))
    quiet()
    logging.getLogger("splicedvae").setLevel(logging.WARNING)  # a worker would repeat each note
    start = time.perf_counter()
    target = folder / f"{stem(seed, name)}.json"
    target.unlink(missing_ok=True)
    job = module.run_job(adata, profile, seed, name, folder)
    job |= {"name": name, "seed": seed, "seconds": time.perf_counter() - start}
    part = target.with_suffix(".part")
    part.write_text(json.dumps(job))
    part.replace(target)  # a killed run leaves no half a file


def _n_jobs(stage: ModuleType) -> int:
    # a GPU is shared badly; on CPUs these small networks gain nothing from a second thread
    alone = torch.cuda.is_available() or getattr(stage, "ALONE", False)
    return 1 if alone else min(joblib.cpu_count(), 4)


def _read(folder: Path, seed: int, name: str) -> dict | None:
    """A job's result, None unless it and all files that belong to it are there."""
    file = folder / f"{stem(seed, name)}.json"
    if not file.exists():
        return None
    job = json.loads(file.read_text())
    return job if all((folder / other).exists() for other in job.get("files", [])) else None


def stem(seed: int, name: str) -> str:
    """The name, less its ending, of the files of a job or of one model in it.

    Parameters
    ----------
    seed
        Of the split.
    name
        Of the job or model.

    Returns
    -------
    The seed and the name in lower case, with hyphens for all but letters and digits.
    """
    return f"{seed}-" + "".join(c if c.isalnum() else "-" for c in name.lower())


def table(jobs: list[dict]) -> pd.DataFrame:
    """One line per model and seed.

    Parameters
    ----------
    jobs
        From :func:`run`.

    Returns
    -------
    Index (model, seed), a column per score.
    """
    lines = {
        (model, job["seed"]): {k: v for k, v in row.items() if k != "params"}
        for job in jobs
        for model, row in job["rows"].items()
    }
    frame = pd.DataFrame.from_dict(lines, orient="index")
    frame.index = pd.MultiIndex.from_tuples(frame.index, names=["model", "seed"])
    return frame


def difference(scores: pd.DataFrame, a: str, b: str, score: str) -> tuple[float, float, float]:
    """Mean of a - b over seeds and its 95 % interval, paired by seed.

    Parameters
    ----------
    scores
        From :func:`table`.
    a, b
        Two models.
    score
        A column.

    Returns
    -------
    Mean, lower and upper end; the ends are NaN with one seed.
    """
    left, right = scores.loc[a, score], scores.loc[b, score]
    if len(left) < 2:
        return float((left - right).mean()), float("nan"), float("nan")
    return metrics.paired_interval(left.to_numpy(), right.loc[left.index].to_numpy())


def told(scores: pd.DataFrame, a: str, b: str, score: str, digits: int = 3) -> str:
    """The :func:`difference` as text, with its interval if there is more than one seed.

    Parameters
    ----------
    scores, a, b, score
        As in :func:`difference`.
    digits
        After the point.

    Returns
    -------
    Such as ``+0.012 [+0.008, +0.016]``.
    """
    centre, low, high = difference(scores, a, b, score)
    interval = f"[{low:+.{digits}f}, {high:+.{digits}f}]" if np.isfinite(low) else "(one seed)"
    return f"{centre:+.{digits}f} {interval}"


def measured(values: pd.Series, form: str = "{:.3f}") -> dict:
    """A score's mean over seeds with its 95 % interval.

    Parameters
    ----------
    values
        One for each seed.
    form
        How the text shows a number.

    Returns
    -------
    ``mean``, ``low``, ``high`` (NaN if there is one seed), ``n_seeds`` and ``text``.
    """
    centre, low, high = float(values.mean()), np.nan, np.nan
    text = form.format(centre)
    if len(values) > 1:
        _, low, high = metrics.paired_interval(values.to_numpy(), np.zeros(len(values)))
        text += f" [{form.format(low)}, {form.format(high)}]"
    return {"mean": centre, "low": low, "high": high, "n_seeds": len(values), "text": text}
