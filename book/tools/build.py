"""Build the book: notebooks from their sources, execution, strict HTML and a status page.

    python book/tools/build.py notebooks [--check]
    python book/tools/build.py results --profile smoke|standard|full
    python book/tools/build.py book    --profile smoke|standard|full
    python book/tools/build.py pack

A chapter is written as ``book/NN_name.py`` (py:percent). Its notebook is generated, in plain
Markdown and without outputs, and committed, so that Colab can open it. The book itself is executed
from the sources into a copy of the tree, ``_build/executed``, and that copy is what Jupyter Book
renders: a page never shows an output that its source did not produce. An executed chapter is kept
in ``_build/chapters`` and used again while all that it depends on is the same, see
:func:`surroundings`.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import os
import platform
import re
import resource
import shutil
import subprocess
import sys
import time
from base64 import b64decode, b64encode
from concurrent.futures import ProcessPoolExecutor, as_completed
from datetime import UTC, datetime
from importlib.metadata import distributions, version
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import jupytext
import nbformat
import papermill
import pooch
import yaml
from ipykernel.kernelspec import write_kernel_spec
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError
from PIL import Image
from tqdm.auto import tqdm

# beside this script
import mathjax
import plain
from colab import PROJECT, REPOSITORY, ROOT, SITE, run_time, setup_cell
from release import branch, commit

CELL_TIMEOUT = {"smoke": 300, "standard": 1800, "full": 14400}  # seconds
PROVENANCE = "application/vnd.splicedvae.provenance+json"
WIDGET = "application/vnd.jupyter.widget-view+json"
PACKAGES = ("torch", "scvi-tools", "scvelo", "scanpy", "anndata", "numpy", "pandas")


class BuildError(Exception):
    """A fault of the book, not of this script: shown without a traceback."""


def toc() -> dict:
    """Return the table of contents."""
    return yaml.safe_load((ROOT / "_toc.yml").read_text())


def chapters() -> list[Path]:
    """Return the sources of the chapters that the table of contents names, in its order."""
    files = [entry["file"] for part in toc()["parts"] for entry in part["chapters"]]
    sources = (ROOT / f"{name}.py" for name in files)
    return [s for s in sources if s.exists() and s.stem[0].isdigit()]  # course.py is a script


def source_hash() -> str:
    """Return a hash of all that decides what the book says, the data aside."""
    files = [ROOT / "_config.yml", ROOT / "_toc.yml", ROOT / "pyproject.toml"]
    for folder in ("book", "splicedvae"):
        files += [f for f in (ROOT / folder).rglob("*") if f.is_file() and f.suffix != ".pyc"]
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def read_chapter(source: Path) -> nbformat.NotebookNode:
    """Read a py:percent source as a notebook without outputs, the same to the byte every time."""
    notebook = jupytext.read(source)
    title, _, opening = notebook.cells[0].source.partition("\n")
    notebook.cells[0].source = f"{title}\n\n{run_time(source.stem)}\n{opening}"
    setup = nbformat.v4.new_code_cell(setup_cell(source.stem), metadata={"tags": ["remove-cell"]})
    notebook.cells.insert(1, setup)  # after the title
    for cell in notebook.cells:
        cell.metadata.pop("lines_to_next_cell", None)  # jupytext's own note
    notebook.metadata = nbformat.from_dict(
        {
            "accelerator": "GPU",  # Colab then offers one
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return with_ids(notebook)


def with_ids(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Name cells by their position."""
    for position, cell in enumerate(notebook.cells):
        cell["id"] = hashlib.sha256(f"{position} {cell.cell_type}".encode()).hexdigest()[:8]
    return notebook


def write_notebooks(check: bool) -> None:
    """Write each chapter's notebook, or with `check` only compare it with the one that is there."""
    stale = []
    for source in chapters():
        target = source.with_suffix(".ipynb")
        text = nbformat.writes(with_ids(plain.notebook(read_chapter(source), source.stem))) + "\n"
        if target.exists() and target.read_text() == text:
            continue
        stale.append(target.relative_to(ROOT).as_posix())
        if not check:
            target.write_text(text)
    if check and stale:
        raise BuildError(f"not what their sources say: {', '.join(stale)}; run `make notebooks`")
    print(f"{len(chapters())} notebooks, {len(stale)} {'stale' if check else 'written'}")


def declared_parameters(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Return the type name of each parameter that a chapter declares."""
    known = {}
    for name, facts in papermill.inspect_notebook(notebook).items():
        known[name] = facts["inferred_type_name"]
        if known[name] == "None":  # not written down: the default says it
            known[name] = type(ast.literal_eval(facts["default"])).__name__
    return known


def given_parameters(items: list[str], notebooks: dict[str, nbformat.NotebookNode]) -> dict:
    """Check ``chapter.name=value`` items; papermill itself only warns about an unknown name."""
    given: dict[str, dict] = {name: {} for name in notebooks}
    for item in items:
        address, _, text = item.partition("=")
        chapter, _, name = address.partition(".")
        if chapter not in notebooks:
            raise BuildError(f"--param {item}: no chapter {chapter!r}; there are {list(notebooks)}")
        known = declared_parameters(notebooks[chapter])
        if name not in known:
            raise BuildError(f"--param {item}: {chapter} has no {name!r}; it knows {sorted(known)}")
        try:
            value = text if known[name] == "str" else ast.literal_eval(text)
        except (SyntaxError, ValueError):
            value = text
        if known[name] == "float" and type(value) is int:
            value = float(value)
        if type(value).__name__ != known[name]:
            raise BuildError(f"--param {item}: {name!r} of {chapter} is a {known[name]}")
        given[chapter][name] = value
    return given


def surroundings(results: Path) -> str:
    """Return a hash of what all chapters depend on beside their own text.

    That is our code, all libraries, the machine, and the names, sizes and times of the files of
    results and of the real cells.
    """
    digest = hashlib.sha256(f"{platform.platform()} {os.cpu_count()} {sys.version}".encode())
    for folder in (ROOT / "splicedvae", ROOT / "book" / "splicedvae_book"):
        for file in sorted(folder.rglob("*.py")):
            digest.update(f"{file.relative_to(ROOT)}\0".encode() + file.read_bytes() + b"\0")
    for library in sorted(f"{d.name} {d.version}" for d in distributions()):
        digest.update(f"{library}\n".encode())
    kept = [f for folder in results.glob("*") if folder.is_dir() for f in folder.rglob("*")]
    for cells in (os.environ.get("SPLICEDVAE_DATA"), pooch.os_cache("splicedvae")):
        kept += Path(cells).rglob("*") if cells else ()
    for file in sorted(f for f in kept if f.is_file()):
        facts = file.stat()
        digest.update(f"{file} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def executed(
    shared: str,
    name: str,
    notebook: nbformat.NotebookNode,
    target: Path,
    parameters: dict,
    timeout: int | None,
) -> dict:
    """Execute a chapter into `target`, or copy it there if it was, and return its facts.

    `shared` is the hash of its :func:`surroundings`.
    """
    told = json.dumps([shared, notebook, parameters], sort_keys=True)
    key = hashlib.sha256(told.encode()).hexdigest()
    kept = target.parents[2] / "chapters" / f"{name}.json"
    if kept.exists() and (known := json.loads(kept.read_text()))["key"] == key:
        shutil.copyfile(kept.with_suffix(".ipynb"), target)
        return known["facts"]
    facts = execute(name, notebook, target, parameters, timeout)
    kept.parent.mkdir(exist_ok=True)
    kept.unlink(missing_ok=True)
    shutil.copyfile(target, kept.with_suffix(".ipynb"))
    kept.write_text(json.dumps({"key": key, "facts": facts}))  # last: it vouches for the notebook
    return facts


def execute(
    name: str, notebook: nbformat.NotebookNode, target: Path, parameters: dict, timeout: int | None
) -> dict:
    """Execute a chapter into `target` and return its facts; raise BuildError if a cell fails."""
    start, fault = time.perf_counter(), None
    try:
        papermill.execute_notebook(
            notebook,
            str(target),
            parameters,
            kernel_name="python3",
            cwd=str(target.parent),
            execution_timeout=timeout,
            progress_bar=False,  # two chapters run at once; execute_all has a bar for all of them
            shutdown_kernel="immediate",  # 3 seconds sooner: nothing is left to be written
        )
    except PapermillExecutionError as error:
        number, fault = error.exec_count, "\n".join(error.traceback)
    except (CellTimeoutError, DeadKernelError) as error:
        number, fault = None, f"{type(error).__name__}: {error}"
    done = nbformat.read(target, as_version=4)
    if fault and number is None:  # the kernel left no traceback of its own: leave this one
        codes = [c for c in done.cells if c.cell_type == "code"]
        started = [c for c in codes if c.metadata.papermill.get("start_time")]
        number = len(started)
        started[-1].outputs.append(
            nbformat.v4.new_output("error", ename="Stopped", evalue=fault, traceback=[fault])
        )
    record = take_provenance(done)
    done.metadata.pop("papermill", None)  # it holds absolute paths
    done.metadata.pop("widgets", None)  # bars, for which a page would ask another site for scripts
    for cell in done.cells:
        cell.metadata.pop("papermill", None)
        if cell.cell_type == "code":
            cell.outputs = [out for out in cell.outputs if WIDGET not in out.get("data", {})]
            lighten(cell)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.metadata.tags.append("remove-cell")
    nbformat.write(done, target)
    if fault:
        raise BuildError(
            f"chapter {name}, cell In [{number}] failed\n{fault}\n"
            f"The notebook with this traceback: {target}"
        )
    seconds = round(time.perf_counter() - start, 1)
    return {"chapter": name, "profile": parameters.get("profile"), **record, "seconds": seconds}


def lighten(cell: nbformat.NotebookNode) -> None:
    """Write a cell's figures with 64 colours, a quarter of the bytes, and note their width.

    They were drawn with two pixels for each that a page shows; without a width it would show both.
    """
    for output in cell.outputs:
        if png := output.get("data", {}).get("image/png"):
            figure, written = Image.open(BytesIO(b64decode(png))), BytesIO()
            colours = figure.convert("RGB").quantize(64, dither=Image.Dither.NONE)
            colours.save(written, "PNG", optimize=True)
            output.data["image/png"] = b64encode(written.getvalue()).decode()
            shown = cell.metadata.setdefault("mystnb", {}).setdefault("image", {})
            shown["width"] = f"{figure.width // 2}px"


def execute_all(calls: list[tuple]) -> list[dict]:
    """Execute chapters side by side; each call holds what :func:`executed` is given.

    Their facts come back in the order of the calls.
    """
    cores = os.cpu_count() or 1
    workers = min(cores, 4)
    threads = str(cores // workers)  # more threads than cores wait for each other
    os.environ |= {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads}
    pool = ProcessPoolExecutor(workers, get_context("spawn"))
    with pool, tqdm(total=len(calls), desc="chapters", unit="chapter") as bar:
        # the last chapters take longest: begun first, they leave no core idle in the end
        running = [pool.submit(executed, *call) for call in calls[::-1]]
        try:
            for future in as_completed(running):
                future.result()  # raises what went wrong in the chapter
                bar.update()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return [future.result() for future in running[::-1]]


def take_provenance(notebook: nbformat.NotebookNode) -> dict:
    """Take the record of data and device out of the banner, which readers see as text."""
    record = {}
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            record |= output.get("data", {}).pop(PROVENANCE, {})
    return {key: record.get(key) for key in ("data", "simulated", "device")}


def use_this_python(build: Path) -> None:
    """Make "python3" mean the running interpreter, whatever kernels this machine has."""
    kernels = build / "jupyter"
    shutil.rmtree(kernels, ignore_errors=True)
    write_kernel_spec(kernels / "kernels" / "python3", extra_arguments=["--log-level=ERROR"])
    os.environ["JUPYTER_PATH"] = str(kernels)
    os.environ.pop("MPLBACKEND", None)  # a backend without a screen would show no figure
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"  # progress bars are text here


def copy_tree(executed: Path) -> None:
    """Copy the pages, without sources and stale notebooks, and complete the configuration."""
    shutil.rmtree(executed, ignore_errors=True)
    skip = shutil.ignore_patterns(
        "*.py", "*.ipynb", "splicedvae_book", "tools", "__pycache__", ".*"
    )
    shutil.copytree(ROOT / "book", executed / "book", ignore=skip)
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    # The Colab badge of a published version opens the notebook of that version.
    config["repository"] = {"url": REPOSITORY, "branch": branch()}
    buttons = ("use_repository_button", "use_issues_button", "use_edit_page_button")
    config["html"] |= dict.fromkeys(buttons, True)
    sphinx = config["sphinx"]["config"]
    # A chapter is edited in its .py source; the notebook beside it is generated.
    sphinx["html_context"] |= {
        "edit_page_provider_name": "GitHub",
        "edit_page_url_template": f"{REPOSITORY}/edit/main/"
        "{{ file_name | replace('.ipynb', '.py') }}",
    }
    if os.environ.get("BOOK_ONLINE") == "1":
        link = '<a href="../splicedvae.pdf">the whole book as one PDF</a>'
        config["parse"]["myst_substitutions"]["pdf"] = link
    else:  # unreachable inventories would fail a strict build
        sphinx.pop("intersphinx_mapping", None)
    static = executed / "book" / "_static"
    if (drawing := static / "idea.svg").exists():
        (static / "idea.html").write_text(inlined(drawing.read_text()))
    if answers := sorted((ROOT / "tests" / "assignments").glob("*.py")):
        (executed / "book" / "misconceptions.md").write_text(misconceptions(answers))
    sphinx |= mathjax.install(executed / "book" / "_static")
    contents = toc()
    contents["parts"][-1]["chapters"].append({"file": "book/status"})
    for name, value in (("_config.yml", config), ("_toc.yml", contents)):
        (executed / name).write_text(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def inlined(drawing: str) -> str:
    """Return a drawing that is part of a page, in the page's colours, and scrolls by itself."""
    drawing = drawing.replace(' color="#1f2328"', "", 1)
    drawing = drawing.replace('  <rect width="100%" height="100%" fill="#ffffff"/>\n', "", 1)
    return f'<div class="idea" tabindex="0">\n{drawing.rstrip()}\n</div>\n'


def misconceptions(answers: list[Path]) -> str:
    """Return a page with the wrong answers that the course's tests are held against."""
    lines = [
        "# Common misconceptions\n",
        "What students get wrong, by assignment and question. Each of these is an answer that the "
        "tests are held against when the assignments are written: *visible* ones a student sees at "
        "once, *hidden* ones cost the second point. Read a question's list before you teach it.\n",
    ]
    for file in answers:
        master = (ROOT / "book" / "assignments" / file.name).read_text()
        lines.append("## " + re.search(r"^# # (.+)$", master, re.M)[1] + "\n")
        titles = dict(re.findall(r"^# ## Question (\d+): (.+)$", master, re.M))
        given = re.findall(r"^# %% q(\d+) (visible|hidden): (.+)$", file.read_text(), re.M)
        for question, title in titles.items():
            lines.append(f"**{question}. {title}**\n")
            wrong = [(kind, what) for number, kind, what in given if number == question]
            lines += [f"- {what} ({kind})" for kind, what in wrong] + [""]
    return "\n".join(lines)


def peak_memory_gib() -> float:
    """Return the largest resident set of this process or of any child it has waited for."""
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = max(resource.getrusage(w).ru_maxrss for w in who)
    return round(peak / (2**30 if sys.platform == "darwin" else 2**20), 2)


def write_status(build: Path, facts: dict) -> None:
    """Write the facts of this build as a page of the book and as ``build.json``."""

    def row(*values: object) -> str:
        return "| " + " | ".join("—" if v is None else str(v) for v in values) + " |"

    keys = ("chapter", "profile", "data", "simulated", "device", "seconds")
    address = f"{REPOSITORY}/commit/{facts['commit'].removesuffix('-dirty')}"
    lines = [
        "# Status of this build\n",
        f"Profile **{facts['profile']}**, commit [`{facts['commit']}`]({address}), "
        f"{facts['date']}, {facts['seconds']:.0f} s before rendering, at most "
        f"{facts['peak_memory_gib']} GiB in one process. A page built from simulated cells says so "
        f"here and in its own banner. There are [other versions]({SITE}/versions.html).\n",
        row(*keys),
        row(*["---"] * len(keys)),
        *(row(f"[]({c['chapter']})", *(c[key] for key in keys[1:])) for c in facts["chapters"]),
        "\n## Versions\n",
        row("package", "version"),
        row("---", "---"),
        *(row(name, number) for name, number in facts["versions"].items()),
    ]
    (build / "executed" / "book" / "status.md").write_text("\n".join(lines) + "\n")
    (build / "build.json").write_text(json.dumps(facts, indent=1) + "\n")


def build_book(profile: str, out: Path, items: list[str], timeout: int | None) -> None:
    """Make results, execute every chapter, build the HTML strictly, write the status page."""
    start, source, build = time.perf_counter(), source_hash(), out / "_build"
    notebooks = {source.stem: read_chapter(source) for source in chapters()}
    given = given_parameters(items, notebooks)  # a mistyped name fails before the long work
    build.mkdir(parents=True, exist_ok=True)
    (build / "build.json").unlink(missing_ok=True)
    shutil.rmtree(build / "html", ignore_errors=True)

    # The fits run in a process of their own, so that their memory is free before the chapters run.
    command = [sys.executable, __file__, "results", "--profile", profile, "--out", str(out)]
    if subprocess.run(command).returncode:
        raise BuildError("the results could not be computed; see above")
    use_this_python(build)
    copy_tree(build / "executed")
    calls, shared = [], surroundings(build / "results")
    timeout = timeout or CELL_TIMEOUT[profile]
    for name, notebook in notebooks.items():
        target = build / "executed" / "book" / f"{name}.ipynb"
        # Relative to the page, so that no published notebook holds a path of this machine.
        common = {"profile": profile, "results": "../../results"}
        known = declared_parameters(notebook)
        parameters = {k: v for k, v in common.items() if k in known} | given[name]
        calls.append((shared, name, notebook, target, parameters, timeout))
    done = execute_all(calls)

    facts = {
        "profile": profile,
        "commit": commit(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "source": source,
        "seconds": round(time.perf_counter() - start, 1),
        "peak_memory_gib": peak_memory_gib(),
        "versions": {"python": platform.python_version(), "splicedvae": PROJECT["version"]}
        | {package: version(package) for package in PACKAGES},
        "chapters": done,
    }
    write_status(build, facts)
    for facts_of in done:
        print(f"{facts_of['chapter']:26} {facts_of['seconds']:6.0f} s")
    print("Building the pages", flush=True)
    command = [Path(sys.executable).with_name("jupyter-book"), "build", build / "executed"]
    command += ["--path-output", out, "-W", "-n", "--keep-going", "--all", "-q"]
    if subprocess.run(command).returncode:
        (build / "build.json").unlink()
        raise BuildError("Jupyter Book found faults in the pages; see above")
    print(f"The book is at {build / 'html' / 'index.html'}")


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("notebooks", help="write book/*.ipynb from book/*.py")
    sub.add_argument("--check", action="store_true", help="only compare; fail on a difference")
    results = commands.add_parser("results", help="make the fits that the chapters share")
    book = commands.add_parser("book", help="results, chapters, pages")
    pack = commands.add_parser("pack", help="archives of the standard results, for the release")
    pack.add_argument("--out", type=Path, default=ROOT, help="folder in which _build was made")
    for sub in (results, book):
        sub.add_argument("--profile", choices=CELL_TIMEOUT, default="standard")
        sub.add_argument("--out", type=Path, default=ROOT, help="folder in which _build is made")
    book.add_argument("--param", action="append", default=[], metavar="CHAPTER.NAME=VALUE")
    book.add_argument("--cell-timeout", type=int, metavar="SECONDS")
    args = parser.parse_args(argv)
    try:
        if args.command == "notebooks":
            write_notebooks(args.check)
        elif args.command in ("results", "pack"):
            import results  # beside this script; imported late as it loads PyTorch

            build = args.out.resolve() / "_build"
            if args.command == "pack":
                try:
                    results.pack(build / "results", build / "packed")
                except FileNotFoundError as error:
                    raise BuildError(str(error)) from error
            else:
                results.run(args.profile, build / "results")
        else:
            build_book(args.profile, args.out.resolve(), args.param, args.cell_timeout)
    except BuildError as error:
        print(f"build.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
