"""Results that a release of the book holds, so that a chapter alone need not compute them.

A build of the main branch packs what its stages have made, one archive each, named by a key of all
that decides the results but the libraries' versions (:meth:`splicedvae_book.stage.Stage.key`): a
notebook in Colab runs on other versions than the build did, and says on which its findings were
computed. An archive is there only if the notebook's own code and cells made it.
"""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import metadata, version
from pathlib import Path

import pooch
from anndata import AnnData

from .profiles import load
from .stage import LIBRARIES, Stage

AUTO = "auto"  # the profile of a notebook that nobody has given one
PROFILE, FALLBACK = "standard", "smoke"
#: Where the archives are; the environment variable names another place.
ENVIRONMENT_VARIABLE = "SPLICEDVAE_RESULTS_URL"
ABOUT = "about.json"  # what an archive says of itself
TIMEOUT = 10.0  # seconds until a server must answer


def address() -> str:
    """Where the archives are.

    Returns
    -------
    The address that the environment variable ``SPLICEDVAE_RESULTS_URL`` names, or that of the
    release ``results`` of the project's repository.
    """
    if given := os.environ.get(ENVIRONMENT_VARIABLE):
        return given
    links = dict(link.split(", ") for link in metadata("splicedvae").get_all("Project-URL"))
    return f"{links['Repository']}/releases/download/results"


def choose(profile: str, results: str | os.PathLike, *names: str) -> str:
    """Decide on a chapter's profile, and fetch the published results that it needs.

    Parameters
    ----------
    profile
        ``"auto"``, or a key of ``splicedvae_book.profiles.PROFILES``, which is kept; results are
        fetched for ``"auto"`` and ``"standard"``.
    results
        Folder of all results.
    *names
        Of the stages that the chapter reads.

    Returns
    -------
    For ``"auto"``: ``"standard"`` if all results are at hand or could be fetched, else ``"smoke"``.
    What was read, and why not, is printed.
    """
    if profile not in (AUTO, PROFILE):
        return profile
    adata, found = load(PROFILE), {}
    for name in names:
        stage = import_module(f".stages.{name}", __package__).stage
        if stage.complete(adata, PROFILE, results):
            continue
        try:
            found[name] = _fetch(stage, adata, results)
        except (OSError, zipfile.BadZipFile) as error:
            print(f"No published results of {name} can be had ({_first_line(error)}).")
            if profile == AUTO:
                print(f"This notebook computes its own, on few cells: profile {FALLBACK!r}.")
                return FALLBACK
            print("They are computed here, which takes long.")
    for name, versions in found.items():
        print(f"Results of {name}: published, computed with {versions}.")
    return PROFILE


def _fetch(stage: Stage, adata: AnnData, results: str | os.PathLike) -> str:
    """Download a stage's archive and unpack it; return the versions that it was computed with."""
    target = stage.folder(results, adata, PROFILE)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        archive, unpacked = Path(scratch, "archive.zip"), Path(scratch, "unpacked")
        download = pooch.HTTPDownloader(timeout=TIMEOUT)
        download(f"{address()}/{_name(stage, adata)}", str(archive), None)
        with zipfile.ZipFile(archive) as held:
            held.extractall(unpacked)
        about = json.loads((unpacked / ABOUT).read_text())
        for file in sorted(unpacked.rglob("*"), key=lambda f: (f.suffix == ".json", f)):
            if file.is_file():  # JSON last: it vouches for the files that belong to it
                place = target / file.relative_to(unpacked)
                place.parent.mkdir(parents=True, exist_ok=True)
                file.replace(place)
    return ", ".join(f"{name} {number}" for name, number in about["versions"].items())


def pack(stages: Iterable[Stage], results: str | os.PathLike, target: Path) -> list[Path]:
    """Write an archive of each stage's results, for the release.

    Parameters
    ----------
    stages
        All of their results in the profile ``"standard"`` must be there.
    results
        Folder of all results.
    target
        Folder of the archives.

    Returns
    -------
    The archives.

    Raises
    ------
    FileNotFoundError
        Results of a stage are missing; the message says what makes them.
    """
    adata, written = load(PROFILE), []
    target.mkdir(parents=True, exist_ok=True)
    about = {"versions": {name: version(name) for name in LIBRARIES}}
    for stage in stages:
        if not stage.complete(adata, PROFILE, results):
            raise FileNotFoundError(
                f"Results of {stage.title} are missing; run make results PROFILE={PROFILE}."
            )
        folder, file = stage.folder(results, adata, PROFILE), target / _name(stage, adata)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for kept in sorted(f for f in folder.rglob("*") if f.is_file() and f.name != ABOUT):
                archive.write(kept, kept.relative_to(folder))
            archive.writestr(ABOUT, json.dumps(about))
        written.append(file)
    return written


def _name(stage: Stage, adata: AnnData) -> str:
    return f"{stage.title}-{stage.key(adata, PROFILE)}.zip"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
