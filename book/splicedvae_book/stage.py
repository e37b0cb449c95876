"""A stage of `make results`: jobs that are done once for each seed, and kept until they change."""

from __future__ import annotations

import ast
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path
from unittest.mock import patch

import joblib
import torch
from anndata import AnnData
from scipy import sparse
from tqdm.auto import tqdm

from .profiles import PROFILES, quiet

#: Libraries whose version a result may depend on.
LIBRARIES = ("torch", "scvi-tools", "scanpy", "scikit-learn", "scvelo")
#: The packages whose source is part of a result's hash; this module only runs jobs.
OURS, RUNNER = ("splicedvae", "splicedvae_book"), __name__
#: What jobs import only when they come to it, and workers should have from the beginning.
PRELOADED = ("scvelo", "umap")

#: Stages with one seed in a profile: they take long, and no headline is theirs.
ONCE = {
    "standard": (
        "queries",
        "depth",
        "pretraining",
        "searches",
        "generalisation",
        "modality",
        "peers",
        "futures",
        "tissues",
    )
}


@dataclass(frozen=True)
class Stage:
    """Results of one kind, by job and seed.

    Attributes
    ----------
    job
        Called as ``job(adata, profile, seed, name, folder)``. It returns a dict that JSON can hold,
        which names under ``files`` what the job wrote to the folder.
    names
        Of the jobs.
    shown
        Scores that `make results` prints.
    settings
        What the jobs read beside the profile, by profile.
    libraries
        Whose version the results may depend on too.
    seeds
        In place of the profile's.
    after
        Titles of the stages whose results the jobs read.
    alone
        Profiles in which no other job runs beside these, since they measure time.
    """

    job: Callable[[AnnData, str, int, str, Path], dict]
    names: tuple[str, ...]
    shown: tuple[str, ...]
    settings: Mapping[str, dict] = field(default_factory=dict)
    libraries: tuple[str, ...] = ()
    seeds: tuple[int, ...] | None = None
    after: tuple[str, ...] = ()
    alone: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Name of the stage: that of its file."""
        return self.job.__module__.rpartition(".")[2]

    def fingerprint(self, adata: AnnData, profile: str) -> str:
        """Hash of what the results depend on: cells, settings, source and main libraries.

        The source is that of all modules of ours that the job's imports, see :func:`sources`;
        comments and docstrings do not count.

        Parameters
        ----------
        adata
            From :func:`~splicedvae_book.profiles.load`.
        profile
            A key of ``splicedvae_book.profiles.PROFILES``.

        Returns
        -------
        16 hexadecimal digits.
        """
        digest = self._digest(profile)
        parts = [adata.layers[layer] for layer in ("spliced", "unspliced")]
        parts += [list(adata.var_names), list(adata.obs["clusters"].astype(str))]
        parts += [version(library) for library in (*LIBRARIES, *self.libraries)]
        for part in parts:
            digest.update(joblib.hash(part).encode())
        for name, (code, _) in sorted(sources(self.job.__module__).items()):
            digest.update(f"{name}\0{code}\0".encode())
        return digest.hexdigest()[:16]

    def key(self, adata: AnnData, profile: str) -> str:
        """Hash of cells, settings and source, the same whatever versions of libraries are there.

        Parameters
        ----------
        adata, profile
            As for :meth:`fingerprint`.

        Returns
        -------
        16 hexadecimal digits. Here comments and docstrings count: how Python writes out a syntax
        tree depends on its version.
        """
        digest = self._digest(profile)
        for layer in ("spliced", "unspliced"):
            counts = sparse.csr_array(adata.layers[layer])
            for part, kind in (
                (counts.indptr, "<i8"),
                (counts.indices, "<i8"),
                (counts.data, "<f4"),
            ):
                digest.update(part.astype(kind).tobytes())
        for names in (adata.var_names, adata.obs["clusters"].astype(str)):
            digest.update("\0".join(names).encode())
        for name, (_, text) in sorted(sources(self.job.__module__).items()):
            digest.update(f"{name}\0{text}\0".encode())
        return digest.hexdigest()[:16]

    def _digest(self, profile: str):
        """A hash that has read the settings."""
        settings = asdict(PROFILES[profile])
        settings.pop("seeds")  # a profile with more seeds shares the results of one with fewer
        settings["stage"] = self.settings.get(profile)
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode())

    def complete(self, adata: AnnData, profile: str, results: str | os.PathLike) -> bool:
        """Whether the results of all jobs are there.

        Parameters
        ----------
        adata, profile, results
            As given to :meth:`run`.

        Returns
        -------
        False if one is missing.
        """
        return not self._missing(self.folder(results, adata, profile), profile, self.names)

    def folder(self, results: str | os.PathLike, adata: AnnData, profile: str) -> Path:
        """Where the jobs' files are.

        Parameters
        ----------
        results, adata, profile
            As given to :meth:`run`.

        Returns
        -------
        The folder in `results` that is named by the :meth:`fingerprint`.
        """
        return Path(results) / self.fingerprint(adata, profile)

    def run(
        self,
        adata: AnnData,
        profile: str = "standard",
        results: str | os.PathLike = "_build/results",
        names: Iterable[str] | None = None,
    ) -> list[dict]:
        """Do the jobs; those whose results are there already are only read.

        Parameters
        ----------
        adata
            From :func:`~splicedvae_book.profiles.load`.
        profile
            A key of ``splicedvae_book.profiles.PROFILES``.
        results
            Folder of all results.
        names
            Which jobs; None for all.

        Returns
        -------
        The jobs' results by seed and name, each with ``seed``, ``name`` and ``seconds``.
        """
        names = self.names if names is None else tuple(names)
        folder = self.folder(results, adata, profile)
        missing = [(self, folder, self._missing(folder, profile, names))]
        _do(missing, adata, profile, profile in self.alone)
        return [_read(folder, *job) for job in self._jobs(profile, names)]

    def _missing(self, folder: Path, profile: str, names: Iterable[str]) -> list[tuple[int, str]]:
        """Seed and name of each job whose results are not in the folder."""
        return [job for job in self._jobs(profile, names) if _read(folder, *job) is None]

    def _jobs(self, profile: str, names: Iterable[str]) -> list[tuple[int, str]]:
        seeds = PROFILES[profile].seeds if self.seeds is None else self.seeds
        if self.title in ONCE.get(profile, ()):
            seeds = seeds[:1]
        return [(seed, name) for seed in seeds for name in names]

    def _work(self, adata: AnnData, profile: str, seed: int, name: str, folder: Path) -> None:
        """Do one job and write it down, the JSON file last, so that it vouches for the others."""
        quiet()
        logging.getLogger("splicedvae").setLevel(logging.WARNING)  # each worker would repeat notes
        start = time.perf_counter()
        target = folder / f"{stem(seed, name)}.json"
        target.unlink(missing_ok=True)
        result = self.job(adata, profile, seed, name, folder)
        result |= {"name": name, "seed": seed, "seconds": time.perf_counter() - start}
        part = target.with_suffix(".part")
        part.write_text(json.dumps(result))
        part.replace(target)  # a killed run leaves no half a file


def run_all(
    stages: Iterable[Stage], adata: AnnData, profile: str, results: str | os.PathLike
) -> None:
    """Do the jobs of several stages, side by side where none reads what another writes.

    Parameters
    ----------
    stages
        In an order in which each comes after those that it reads.
    adata, profile, results
        As given to :meth:`Stage.run`.
    """
    left = list(stages)
    while left:
        ahead = {stage.title for stage in left}
        ready = [stage for stage in left if not ahead & set(stage.after)]
        left = [stage for stage in left if stage not in ready]
        for alone in (False, True):
            wave = [s for s in ready if (profile in s.alone) == alone]
            wave = [(s, s.folder(results, adata, profile)) for s in wave]
            _do([(s, f, s._missing(f, profile, s.names)) for s, f in wave], adata, profile, alone)


def _do(
    missing: Iterable[tuple[Stage, Path, list[tuple[int, str]]]],
    adata: AnnData,
    profile: str,
    alone: bool,
) -> None:
    """Do jobs in as many processes as fill the machine; one at a time if they measure time."""
    missing = [(stage, folder, jobs) for stage, folder, jobs in missing if jobs]
    calls = []
    for stage, folder, jobs in missing:
        folder.mkdir(parents=True, exist_ok=True)
        calls += [(stage, profile, *job, folder) for job in jobs]
    title = ", ".join(stage.title for stage, *_ in missing)
    with tqdm(total=len(calls), desc=title, unit="job", disable=not calls) as bar:
        for _ in _done(calls, adata, alone):
            bar.update()


def _done(calls: list[tuple], adata: AnnData, alone: bool) -> Iterator[None]:
    """Make calls of :meth:`Stage._work`, less the cells, and yield as each is done."""
    cores = joblib.cpu_count()
    # a GPU is shared badly; on CPUs these small networks gain nothing from a second thread
    n_jobs = 1 if alone or torch.cuda.is_available() else min(cores, 4, len(calls))
    if n_jobs <= 1:
        for stage, *call in calls:
            yield stage._work(adata, *call)
        return
    # One process imports the libraries, and the workers are its copies: see PRELOADED.
    context = get_context("forkserver" if "forkserver" in get_all_start_methods() else "spawn")
    context.set_forkserver_preload([*PRELOADED, *sorted({c[0].job.__module__ for c in calls})])
    threads = dict.fromkeys(("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"), str(cores // n_jobs))
    pool = ProcessPoolExecutor(n_jobs, context, _keep, (adata,))
    with patch.dict(os.environ, threads), pool:
        try:
            for future in as_completed([pool.submit(_work, *call) for call in calls]):
                yield future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _keep(adata: AnnData) -> None:
    """Keep the cells for all jobs of this process."""
    global _cells
    _cells = adata


def _work(stage: Stage, *call) -> None:
    stage._work(_cells, *call)


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


def _read(folder: Path, seed: int, name: str) -> dict | None:
    """A job's result, None unless it and all files that belong to it are there."""
    file = folder / f"{stem(seed, name)}.json"
    if not file.exists():
        return None
    job = json.loads(file.read_text())
    return job if all((folder / other).exists() for other in job.get("files", [])) else None


def sources(module: str) -> dict[str, tuple[str, str]]:
    """What a module runs through, as far as it is ours: itself and all that it imports, and so on.

    Parameters
    ----------
    module
        Its whole name.

    Returns
    -------
    By module, its syntax tree as text, without docstrings and so without comments; and its text.
    """
    found: dict[str, tuple[str, str]] = {}
    ahead = {module}
    while ahead:
        name = ahead.pop()
        path = _path(name)
        text = path.read_text()
        tree, imported = _source(name, path, text)
        found[name] = tree, text
        ahead |= imported - found.keys() - {RUNNER}
    return found


@cache
def _source(module: str, path: Path, text: str) -> tuple[str, frozenset[str]]:
    """A module's syntax tree, written out without docstrings, and the modules that it imports."""
    tree = ast.parse(text)
    imported = frozenset(_imports(module, path, tree))
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        if documented and ast.get_docstring(node):
            node.body = node.body[1:]
    return ast.dump(tree), imported


def _path(module: str) -> Path | None:
    """File of a module of ours."""
    package, *parts = module.split(".")
    if package not in OURS:
        return None
    base = Path(files(package)).joinpath(*parts)
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.exists()), None)


def _imports(module: str, path: Path, tree: ast.Module) -> Iterator[str]:
    """Modules of ours that a module imports, in functions too.

    ``from package import module`` counts for that module, not for all that the package imports.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _path(alias.name))
        elif isinstance(node, ast.ImportFrom):
            here = module.split(".") + ["__init__"] * (path.name == "__init__.py")
            parts = here[: -node.level] if node.level else []
            origin = ".".join([*parts, *filter(None, [node.module])])
            for alias in node.names:
                inner = f"{origin}.{alias.name}"
                if found := next(filter(_path, (inner, origin)), None):
                    yield found
