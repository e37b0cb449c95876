"""What a chapter needs where nothing is installed: its set-up cell, and how long it then takes."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
SITE = "https://{}.github.io/{}".format(*REPOSITORY.split("/")[-2:])
TAG = f"v{PROJECT['version']}"
TAGGED = f"git+{REPOSITORY}@{'main' if '.dev' in TAG else TAG}"  # between releases, no tag
RUN_TIMES = ROOT / "book" / "run_times.json"  # written by book/alone.py --record

# What splicedvae_book imports, and what single chapters need beyond.
EXTRAS = ("atlas", "search")
MORE = {"05_velocity": ("boosting",), "07_scorecard": ("boosting",)}
# Not as an extra: CellRank's pygpcca asks for Jinja2 3.0.3, which it never imports, and pygam for
# an older SciPy. pip would put these in place of Colab's, and break what Colab has on top of them.
WITHOUT_DEPENDENCIES = {
    "05_velocity": "cellrank docrep progressbar2 pygam pygpcca python-utils wrapt"
}
SETUP = """\
# On Colab, this installs the package and looks for a GPU. Elsewhere it does nothing.
import sys

if "google.colab" in sys.modules:
    {install}
    import torch

    print("GPU:", torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none; CPU")"""


def requirement(chapter: str) -> str:
    """Return what pip installs of this package for a chapter."""
    extras = ",".join(sorted({*EXTRAS, *MORE.get(chapter, ())}))
    return f"splicedvae[{extras}] @ {TAGGED}"


def setup_cell(chapter: str) -> str:
    """Return the source of a chapter's set-up cell."""
    lines = [f'%pip install --quiet "{requirement(chapter)}"']
    if chapter in WITHOUT_DEPENDENCIES:
        lines += [
            "# without dependencies, so that no package of Colab's is put back to an older version",
            f"%pip install --quiet --no-deps {WITHOUT_DEPENDENCIES[chapter]}",
        ]
    return SETUP.format(install="\n    ".join(lines))


def run_time(chapter: str) -> str:
    """Return the line that says how long a chapter takes on its own, as far as it was measured."""
    runs = json.loads(RUN_TIMES.read_text()) if RUN_TIMES.exists() else []
    told = []
    for device in ("CPU", "T4"):
        measured = {
            run["profile"]: run
            for run in runs
            if run["chapter"] == chapter and device in run["device"]
        }
        name, times = device, []
        for profile in ("smoke", "standard", "full"):
            if profile in measured:
                run = measured[profile]
                name = run["device"]
                minutes = max(1, round((run["seconds"] + run["setup_seconds"]) / 60))
                times.append(f"`{profile}` {minutes} min")
        told.append(f"{name}: {', '.join(times) or 'not measured yet'}")
    return (
        "*Run time on its own, with set-up, by the `profile` that you choose below. "
        f"{' / '.join(told)}.*"
    )
