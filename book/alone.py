"""Run chapters alone, as on Colab: fresh environment, empty folder, set-up cell and all.

    python book/alone.py [CHAPTER ...] [--profile smoke] [--record] [--here]

The environment holds what Colab's runtime holds (.ci/colab.txt), and google.colab as a stub. The
set-up cells run as they are; git finds this tree's package under the address that they name. With
--here, in Colab or in its image, this interpreter's environment is used as it is. --record writes
the seconds into book/run_times.json, which the notebooks show (`make notebooks`).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import nbformat
from packaging.utils import canonicalize_name

from build import CELL_TIMEOUT, BuildError, chapters, execute
from colab import EXTRAS, REPOSITORY, ROOT, RUN_TIMES, TAG, TAGGED

PACKAGE = ("pyproject.toml", "README.md", "LICENSE", "splicedvae", "book/splicedvae_book")
# Tells what a process of the environment opens to write, outside its own places.
WATCH = """\
import os, sys
def watch(event, args, places=tuple(os.environ.get("PLACES", "/").split(":"))):
    if event == "open" and isinstance(args[0], str) and args[2] & (os.O_WRONLY | os.O_RDWR):
        path = os.path.abspath(args[0])
        if not path.startswith(places) and "__pycache__" not in path:
            with open(os.environ["PLACES"].split(":")[0] + "/outside.txt", "a") as file:
                print(path, file=file)
sys.addaudithook(watch)
"""


def serve(folder: Path) -> dict[str, str]:
    """Put this tree's package into a repository; return what makes git find it there."""
    for name in PACKAGE:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    git = ["git", "-C", str(folder), "-c", "user.name=book", "-c", "user.email=book@localhost"]
    for command in (["init", "-qb", "main"], ["add", "."], ["commit", "-qm", TAG], ["tag", TAG]):
        subprocess.run([*git, *command], check=True)
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{folder.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": REPOSITORY,
    }


def pip(python: Path, *arguments: object) -> str:
    """Run pip and return what it printed."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"{' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def packages(python: Path) -> dict[str, str]:
    """Return the version of each package of an environment."""
    listed = json.loads(pip(python, "list", "--format=json"))
    return {package["name"]: package["version"] for package in listed}


def colab_environment(folder: Path) -> Path:
    """Make an environment as Colab's, and return its folder."""
    colab = ROOT / ".ci" / "colab.txt"
    held = {line.partition("==")[0] for line in colab.read_text().splitlines() if "==" in line}
    tested = (ROOT / "constraints.txt").read_text().splitlines()
    kept = [line for line in tested if canonicalize_name(line.partition("==")[0]) not in held]
    (folder / "constraints.txt").write_text("\n".join(kept))  # what Colab's own set leaves open
    os.environ["PIP_CONSTRAINT"] = str(folder / "constraints.txt")
    subprocess.run([sys.executable, "-m", "venv", folder / "colab"], check=True)
    python = folder / "colab" / "bin" / "python"
    pip(python, "install", "--quiet", "--no-compile", "--requirement", colab)
    (site,) = (folder / "colab").glob("lib/*/site-packages")
    (site / "google" / "colab").mkdir(parents=True)
    (site / "google" / "colab" / "__init__.py").touch()
    (site / "watch.py").write_text(WATCH)
    (site / "watch.pth").write_text("import watch\n")  # runs at every start
    return folder / "colab"


def kernel(folder: Path, python: Path) -> None:
    """Make "python3" mean `python` in this process's notebooks, with google.colab imported."""
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = folder / "jupyter" / "kernels" / "python3" / "kernel.json"
    startup = folder / "ipython" / "profile_default" / "startup" / "00-colab.py"
    for file in (spec, startup):
        file.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    startup.write_text("import google.colab\n")
    os.environ["JUPYTER_PATH"] = str(folder / "jupyter")
    os.environ["IPYTHONDIR"] = str(folder / "ipython")


def run_alone(name: str, profile: str, out: Path, base: Path | None) -> dict:
    """Run a chapter in a copy of the environment `base`, or in the one that is here."""
    work, python = out / name, Path(sys.executable)
    (work / "chapter").mkdir(parents=True)
    for variable in ("SPLICEDVAE_DATA", "MPLBACKEND"):  # a reader on Colab has neither
        os.environ.pop(variable, None)
    if base:
        # hard links: seconds and no space; pip replaces files and does not write into them
        shutil.copytree(base, work / "env", symlinks=True, copy_function=os.link)
        python = work / "env" / "bin" / "python"
        places = {"HOME": work / "home", "TMPDIR": work / "tmp", "XDG_CACHE_HOME": out / "cache"}
        for variable, place in places.items():
            place.mkdir(exist_ok=True)
            os.environ[variable] = str(place)
        os.environ["PLACES"] = f"{work}:{out / 'cache'}:/dev/"
    kernel(work, python)
    notebook = nbformat.read(ROOT / "book" / f"{name}.ipynb", as_version=4)
    # no limit for a cell: one may make results that in a build are there before any chapter runs
    run = execute(name, notebook, work / "chapter" / f"{name}.ipynb", {"profile": profile}, None)
    # says more than the clock where a machine has other work too
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    run["cpu_seconds"] = round(spent.ru_utime + spent.ru_stime, 1)
    run["packages"] = packages(python)
    outside = work / "outside.txt"
    run["outside"] = sorted(set(outside.read_text().split())) if outside.exists() else []
    shutil.rmtree(work / "env", ignore_errors=True)
    print(f"{name}: {run['seconds']:.0f} s on {run['device']}, {run['data']}", flush=True)
    return run


def run_all(names: list[str], profile: str, out: Path, here: bool, jobs: int) -> list[dict]:
    """Run chapters alone and check what they leave; raise BuildError if one did not stay alone."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each of many processes compiles anew
    os.environ |= serve(out / "repository")
    if jobs > 1:  # chapters that run at a time share the cores
        os.environ["LOKY_MAX_CPU_COUNT"] = str(max(1, (os.cpu_count() or 1) // jobs))
    base = None if here else colab_environment(out)
    python = base / "bin" / "python" if base else Path(sys.executable)
    before, start = packages(python), time.perf_counter()
    pip(python, "install", "--quiet", f"splicedvae[{','.join(EXTRAS)}] @ {TAGGED}")
    setup_seconds = round(time.perf_counter() - start, 1)
    print(f"set-up: {setup_seconds:.0f} s", flush=True)
    # bytecode that the copies share
    subprocess.run([python, "-c", "import splicedvae_book"], check=True)
    given = [(name, profile, out, base) for name in names]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawn, max_tasks_per_child=1) as pool:
        runs = list(pool.map(run_alone, *zip(*given, strict=True)))
    for run in runs:
        run["setup_seconds"] = setup_seconds
        run["torch"] = run["packages"]["torch"]
        stayed_alone(run, before)
    return runs


def stayed_alone(run: dict, before: dict[str, str]) -> None:
    """Raise BuildError if a run changed a package that was there, or wrote outside its places."""
    after, outside = run.pop("packages"), run.pop("outside")
    changed = {k: f"{v} → {after.get(k)}" for k, v in before.items() if after.get(k) != v}
    if changed or outside:
        raise BuildError(f"{run['chapter']} changed {changed} and wrote to {outside}")


def record(runs: list[dict]) -> None:
    """Write runs in place of earlier ones of the same chapter, profile and device."""
    old = json.loads(RUN_TIMES.read_text()) if RUN_TIMES.exists() else []
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "python": platform.python_version(),
    }
    known = {(r["chapter"], r["device"], r["profile"]): r for r in old}
    known |= {(r["chapter"], r["device"], r["profile"]): r | facts for r in runs}
    text = json.dumps([known[key] for key in sorted(known)], indent=1, ensure_ascii=False)
    RUN_TIMES.write_text(text + "\n")


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [source.stem for source in chapters()]
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help=f"of {', '.join(names)}")
    parser.add_argument("--profile", choices=CELL_TIMEOUT, default="smoke")
    parser.add_argument("--out", type=Path, help="empty folder to work in, and to keep")
    parser.add_argument("--jobs", type=int, default=1, help="chapters at a time")
    parser.add_argument("--here", action="store_true", help="use this environment, as in Colab")
    parser.add_argument("--record", action="store_true", help="write book/run_times.json")
    args = parser.parse_args(argv)
    if unknown := set(args.chapters) - set(names):
        parser.error(f"no chapter {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            out = (args.out or Path(scratch)).resolve()
            runs = run_all(args.chapters or names, args.profile, out, args.here, args.jobs)
            (out / "runs.json").write_text(json.dumps(runs, indent=1))
    except BuildError as error:
        print(f"alone.py: {error}", file=sys.stderr)
        return 1
    if args.record:
        record(runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
