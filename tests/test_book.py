"""The book builds, strictly, and its pages look right; a fault in it is found and named."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import papermill
import pytest
from bs4 import BeautifulSoup

import plain
import slides
from colab import SITE

pytestmark = pytest.mark.publishing

ROOT = Path(__file__).resolve().parents[1]

spec = importlib.util.spec_from_file_location("book_build", ROOT / "book" / "tools" / "build.py")
book_build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(book_build)

CHAPTERS = [source.stem for source in book_build.chapters()]
PAGES = ("intro", "quickstart", "misconceptions", "glossary", "api", "references", "status")


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(root / "book" / "tools" / "build.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True)


# --- the whole book, in its smallest profile --------------------------------------------------


def article(build: Path, name: str) -> BeautifulSoup:
    page = (build / "html" / "book" / f"{name}.html").read_text()
    return BeautifulSoup(page, "html.parser").find("article")


def executed(build: Path, name: str) -> nbformat.NotebookNode:
    return nbformat.read(build / "executed" / "book" / f"{name}.ipynb", as_version=4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [*CHAPTERS, "intro", "glossary", "api", "references", "status", "misconceptions"]
)
def test_page_exists(smoke, name):
    assert len(article(smoke, name).get_text(" ", strip=True)) > 200


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAPTERS)
def test_every_figure_has_a_text_for_those_who_do_not_see_it(smoke, name):
    images = article(smoke, name).find_all("img")
    assert images, "a chapter without a figure"
    for image in images:
        alt = image.get("alt", "").strip()
        assert len(alt) > 15, f"alt text {alt!r}"
        assert not alt.endswith((".png", ".svg", ".jpg")) and "_images/" not in alt


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAPTERS)
def test_slides_hold_goals_figures_and_questions(smoke, name):
    chapter = executed(smoke, name)
    title, made = slides.slides(chapter, name)
    figures = [cell for cell in chapter.cells if slides.image(cell)]
    assert made[0] == f"# {title}" and slides.GOALS in made[1] and slides.QUESTIONS in made[-1]
    assert sum("<img" in text and "Note: " in text for text in made) == len(figures) > 0
    goals = article(smoke, name).find(class_="admonition").get_text(" ", strip=True)
    shown = BeautifulSoup(slides.section(made[1]), "html.parser").get_text(" ", strip=True)
    words = re.compile(r"\w+").findall
    assert words(shown) == words(goals)  # whole, also where a goal goes over two lines


def test_a_slide_is_html_with_its_formula_whole():
    made = slides.section(
        "## A\n\n$a_b < c_d$ and `x`\n\n| r |\n| --- |\n| 1 |\n\nNote: said, $z_1$."
    )
    assert r"\(a_b &lt; c_d\)" in made and "<code>x</code>" in made and "<td>1</td>" in made
    assert made.count("<aside") == 1 and r"said, <span" in made and "Note:" not in made


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAPTERS)
def test_no_output_is_an_error(smoke, name):
    cells = [cell for cell in executed(smoke, name).cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in cells if cell.source.strip())
    assert all(output.output_type != "error" for cell in cells for output in cell.outputs)
    assert "Traceback (most recent call last)" not in article(smoke, name).get_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAPTERS)
def test_no_path_of_this_machine_is_published(smoke, name):
    published = smoke / "html" / "_sources" / "book" / f"{name}.ipynb"
    for text in (published.read_text(), str(article(smoke, name))):
        assert str(ROOT) not in text
        assert str(Path(sys.prefix)) not in text
        assert str(smoke) not in text


@pytest.mark.slow
@pytest.mark.parametrize("name", CHAPTERS)
def test_banner_and_status_page_say_what_a_chapter_was_made_from(smoke, name):
    facts = json.loads((smoke / "build.json").read_text())
    (chapter,) = [c for c in facts["chapters"] if c["chapter"] == name]
    assert chapter["profile"] == "smoke"
    assert isinstance(chapter["simulated"], bool)
    assert chapter["seconds"] > 0
    text = article(smoke, name).get_text(" ", strip=True)
    assert chapter["data"] in text and "smoke" in text
    assert ("simulated" in text.lower()) or not chapter["simulated"]

    rows = article(smoke, "status").find("table").find_all("tr")[1:]
    assert len(rows) == len(CHAPTERS)
    (row,) = [r for r in rows if f"{name}.html" in str(r)]
    cells = [cell.get_text(strip=True) for cell in row.find_all("td")]
    assert cells[1:] == [
        "smoke",
        chapter["data"],
        str(chapter["simulated"]),
        chapter["device"],
        str(chapter["seconds"]),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("source", book_build.chapters(), ids=CHAPTERS)
def test_solutions_of_exercises_run(smoke, source, tmp_path):
    """Each solution runs where it stands, on what the chapter has computed so far."""
    notebook = book_build.read_chapter(source)
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type == "markdown":
            for solution in re.findall(r"^:::\{solution\}(.*?)^:::$", cell.source, re.S | re.M):
                for code in re.findall(r"```python\n(.*?)```", solution, re.S):
                    cells.append(nbformat.v4.new_code_cell(code))
    assert len(cells) > len(notebook.cells), "a chapter without a solution"
    notebook.cells = cells
    book_build.use_this_python(tmp_path)
    given = {"profile": "smoke", "results": str(smoke / "results")}
    known = book_build.declared_parameters(notebook)
    papermill.execute_notebook(
        notebook,
        str(tmp_path / "solved.ipynb"),
        {name: value for name, value in given.items() if name in known},
        kernel_name="python3",
        cwd=str(tmp_path),
        progress_bar=False,
    )


@pytest.mark.slow
def test_chapters_import_what_is_installed(smoke):
    """No copy of a package stands beside the pages, where a kernel would find it first."""
    assert not list((smoke / "executed").rglob("splicedvae*"))


@pytest.mark.slow
def test_repository_address_stands_only_in_pyproject(smoke):
    text = (smoke / "html" / "book" / f"{CHAPTERS[0]}.html").read_text()
    repository = book_build.REPOSITORY.removeprefix("https://github.com/")
    badge = re.escape(f"colab.research.google.com/github/{repository}/blob/")
    assert re.search(rf"{badge}(main|v[\d.]+)/book/{CHAPTERS[0]}", text)
    assert f"{book_build.REPOSITORY}/edit/main/book/{CHAPTERS[0]}.py" in text
    for file in ("_config.yml", "README.md", "CITATION.cff"):
        assert book_build.REPOSITORY not in (ROOT / file).read_text()


# --- notebooks ------------------------------------------------------------------------------------


def test_committed_notebooks_are_what_their_sources_say():
    done = run(ROOT, "notebooks", "--check")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("source", book_build.chapters(), ids=CHAPTERS)
def test_notebooks_are_valid_and_empty(source):
    notebook = book_build.read_chapter(source)
    nbformat.validate(notebook)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in codes)
    assert "profile" in book_build.declared_parameters(notebook)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{term}`the\ngene mean <gene mean>`", "[the gene mean]({}glossary.html#term-gene-mean)"),
        ("{term}`D²`", "[D²]({}glossary.html#term-D2)"),
        ("{doc}`chapter 5 <05_velocity>`", "[chapter 5]({}05_velocity.html)"),
        ("{cite:p}`LaManno2018,Bergen2020`", "(La Manno et al., 2018; Bergen et al., 2020)"),
        ("{cite:t}`LaManno2018`", "La Manno et al. (2018)"),
        ("$$ a $$ (eq-kinetics)", r"$$ a \tag{{1}} $$"),
        ("{eq}`eq-kinetics`", "(1)"),
        (":::{margin} Biology\n**Exon.** Kept.\n:::", "> **Biology**\n>\n> **Exon.** Kept."),
        (":::{exercise} Why?\n:label: ex-why\nSay.\n:::", "**Exercise. Why?**\n\nSay."),
        (
            ":::{solution} ex-why\n:class: dropdown\nSo.\n:::",
            "<details><summary>Solution</summary>\n\nSo.\n\n</details>",
        ),
    ],
)
def test_marks_of_myst_become_plain(text, expected):
    assert plain.markdown(text, "01_data") == expected.format(f"{SITE}/book/")


def test_a_figure_of_another_chapter_is_a_link():
    link = f"[Figure 1 of chapter 1]({SITE}/book/01_data.html#fig-life)"
    assert plain.markdown("{numref}`fig-life`", "02_architecture") == link


def test_an_unknown_mark_of_myst_is_refused():
    with pytest.raises(ValueError, match="is left as MyST"):
        plain.markdown("{ref}`there`", "01_data")


@pytest.mark.parametrize("name", CHAPTERS)
def test_notebooks_show_findings_folded_and_captions_as_text(name):
    notebook = nbformat.read(ROOT / "book" / f"{name}.ipynb", as_version=4)
    source = (ROOT / "book" / f"{name}.py").read_text()
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    findings = [cell for cell in codes if "profiles.finding(" in cell.source]
    assert findings and all(cell.metadata.cellView == "form" for cell in findings)
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    assert sum(text.startswith("*Figure ") for text in texts) == source.count('"name": "fig-')
    assert not any(plain.RAW.search(text) for text in texts)


@pytest.mark.slow
@pytest.mark.publishing
def test_links_of_notebooks_lead_to_places_of_the_site(smoke):
    links = set()
    for name in CHAPTERS:
        text = (ROOT / "book" / f"{name}.ipynb").read_text()
        links |= set(re.findall(re.escape(f"{SITE}/") + r"([\w/.-]+)#?([\w.-]*)", text))
    assert len(links) > 100
    pages = {}
    for file, anchor in links:
        if file not in pages:
            pages[file] = set(re.findall(r'id="([^"]+)"', (smoke / "html" / file).read_text()))
        assert not anchor or anchor in pages[file], f"{file}#{anchor}"


# --- a book of one chapter, to see what faults do -------------------------------------------------

CHAPTER = """\
# %% [markdown]
# # One

# %% tags=["parameters"]
profile = "standard"
epochs = 3
rate = 0.1

# %%
print(f"{profile=} {epochs=} {rate=}")

# %%
"""


@pytest.fixture
def small_book(tmp_path):
    """Return a function that makes a book whose one chapter ends with the given line."""

    def make(last_line: str) -> Path:
        shutil.copytree(ROOT / "book" / "_static", tmp_path / "book" / "_static")
        (tmp_path / "book" / "tools").mkdir()
        scripts = [
            f"book/tools/{name}.py" for name in ("build", "colab", "mathjax", "plain", "release")
        ]
        for name in ("pyproject.toml", "_config.yml", "book/references.bib", *scripts):
            shutil.copy(ROOT / name, tmp_path / name)
        (tmp_path / "_toc.yml").write_text(
            "format: jb-book\nroot: book/intro\nparts:\n  - chapters:\n    - file: book/01_one\n"
        )
        (tmp_path / "book" / "intro.md").write_text("# A book\n")
        (tmp_path / "book" / "tools" / "results.py").write_text("def run(profile, out): pass\n")
        (tmp_path / "book" / "01_one.py").write_text(CHAPTER + last_line + "\n")
        return tmp_path

    return make


def outputs(root: Path) -> list:
    cells = executed(root / "_build", "01_one").cells
    return [output for cell in cells for output in cell.get("outputs", [])]


@pytest.mark.slow
def test_parameters_reach_the_chapter(small_book):
    root = small_book("pass")
    given = ("--param", "01_one.epochs=7", "--param", "01_one.rate=1")
    done = run(root, "book", "--profile", "smoke", *given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("_build/html/index.html")
    assert outputs(root)[0].text == "profile='smoke' epochs=7 rate=1.0\n"


@pytest.mark.slow
def test_a_chapter_is_executed_again_only_if_something_changed(small_book, tmp_path, monkeypatch):
    root = small_book("import time; print(time.time_ns())")
    monkeypatch.setenv("SPLICEDVAE_DATA", str(tmp_path / "cells"))

    def told() -> str:
        done = run(root, "book", "--profile", "smoke")
        assert done.returncode == 0, done.stdout + done.stderr
        return outputs(root)[-1].text

    seen = [told(), told()]
    assert seen[0] == seen[1]
    chapter = root / "book" / "01_one.py"
    for file, text in {
        chapter: chapter.read_text() + "# %% [markdown]\n# More words\n",
        root / "splicedvae" / "model.py": "changed = True\n",
        root / "_build" / "results" / "0123" / "fit.json": "{}",
        tmp_path / "cells" / "cells.h5ad": "other cells",
    }.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        seen.append(told())
    assert len(set(seen)) == 5


@pytest.mark.slow
def test_a_tagged_build_opens_its_own_notebooks_and_names_its_commit(small_book):
    root = small_book("pass")
    git = ["git", "-C", str(root), "-c", "user.name=reader", "-c", "user.email=reader@localhost"]
    (root / ".gitignore").write_text("_build\n__pycache__\n")
    tag = f"v{book_build.PROJECT['version']}"
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "one"], ["tag", tag]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.check_output([*git, "rev-parse", "--short=12", "HEAD"], text=True).strip()
    assert run(root, "book", "--profile", "smoke").returncode == 0
    repository = book_build.REPOSITORY.removeprefix("https://github.com/")
    page = (root / "_build" / "html" / "book" / "01_one.html").read_text()
    assert f"colab.research.google.com/github/{repository}/blob/{tag}/book/01_one" in page
    status = article(root / "_build", "status")
    assert status.find("a", href=f"{book_build.REPOSITORY}/commit/{head}").get_text() == head


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("01_one.epoch=7", ["01_one", "'epoch'", "'epochs'", "'rate'"]),
        ("02_two.epochs=7", ["'02_two'", "01_one"]),
        ("01_one.epochs=many", ["01_one", "'epochs'", "int"]),
        ("01_one.epochs=0.5", ["01_one", "'epochs'", "int"]),
        ("01_one.rate=True", ["01_one", "'rate'", "float"]),
    ],
)
def test_wrong_parameter_is_refused_before_any_work(small_book, given, says):
    root = small_book("pass")
    done = run(root, "book", "--profile", "smoke", "--param", given)
    assert done.returncode == 1
    assert all(word in done.stderr for word in says), done.stderr
    assert not (root / "_build").exists()


@pytest.mark.slow
def test_failing_cell_fails_the_build_and_leaves_its_traceback(small_book):
    root = small_book("1 / 0")
    done = run(root, "book", "--profile", "smoke")
    assert done.returncode == 1
    assert "chapter 01_one, cell In [5]" in done.stderr
    assert "ZeroDivisionError" in done.stderr
    (error,) = [output for output in outputs(root) if output.output_type == "error"]
    assert error.ename == "ZeroDivisionError" and error.traceback
    assert not (root / "_build" / "html").exists()
    assert not (root / "_build" / "build.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("import time; time.sleep(300)", "CellTimeoutError"),
        ("import os; os._exit(1)", "DeadKernelError"),
    ],
)
def test_cell_that_never_answers_fails_the_build(small_book, line, says):
    root, start = small_book(line), time.monotonic()
    done = run(root, "book", "--profile", "smoke", "--cell-timeout", "5")
    assert time.monotonic() - start < 120
    assert done.returncode == 1
    assert "chapter 01_one, cell In [5]" in done.stderr and says in done.stderr
    errors = [output for output in outputs(root) if output.output_type == "error"]
    assert says in errors[-1].evalue  # before it, the kernel may say where it was interrupted


@pytest.mark.slow
def test_unknown_reference_fails_the_build(small_book):
    root = small_book("# %% [markdown]\n# {term}`no such term`")
    done = run(root, "book", "--profile", "smoke")
    assert done.returncode == 1
    assert "no such term" in done.stdout + done.stderr
    assert not (root / "_build" / "build.json").exists()


def test_check_finds_a_stale_notebook(small_book):
    root = small_book("pass")
    notebook = root / "book" / "01_one.ipynb"
    assert run(root, "notebooks").returncode == 0
    first = notebook.read_bytes()
    assert run(root, "notebooks", "--check").returncode == 0
    notebook.write_bytes(first + b"\n")
    done = run(root, "notebooks", "--check")
    assert done.returncode == 1 and "book/01_one.ipynb" in done.stderr
    assert run(root, "notebooks").returncode == 0
    assert notebook.read_bytes() == first
