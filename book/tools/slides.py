"""Slides of each chapter, from its own figures: `make slides`, after `make book`.

    python book/tools/slides.py [--out FOLDER]

A chapter's slides are its title and goals, each section's figure with its caption, its findings,
and the three questions. They are HTML, which reveal.js makes into slides. A browser fetches it when
it opens them; without network it shows them one below the other.
"""

from __future__ import annotations

import argparse
import html
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from markdown_it import MarkdownIt
from mdit_py_plugins.dollarmath import dollarmath_plugin

# beside this script
import plain
from colab import ROOT

GOALS, QUESTIONS = "In this chapter", "## Three questions"
EXECUTED = ROOT / "_build" / "executed" / "book"
REVEAL = "https://cdn.jsdelivr.net/npm/reveal.js@5.1.0"
MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable("table")
MARKDOWN.use(  # formulas as MathJax finds them
    dollarmath_plugin,
    renderer=lambda tex, of: html.escape(rf"\[{tex}\]" if of["display_mode"] else rf"\({tex}\)"),
)
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<link rel="stylesheet" href="{reveal}/dist/reveal.css">
<link rel="stylesheet" href="{reveal}/dist/theme/white.css">
<style>
.reveal {{ font-size: 26px }}
.reveal h1, .reveal h2 {{ text-transform: none }}
.reveal img {{ max-height: 62vh; max-width: 100% }}
</style>
</head>
<body>
<div class="reveal"><div class="slides">
{sections}
</div></div>
<script src="{reveal}/dist/reveal.js"></script>
<script src="{reveal}/plugin/math/math.js"></script>
<script src="{reveal}/plugin/notes/notes.js"></script>
<script>
Reveal.initialize({{ hash: true, plugins: [RevealMath.MathJax3, RevealNotes] }});
</script>
</body>
</html>
"""


def image(cell: nbformat.NotebookNode) -> str | None:
    """Return the figure of a cell as an HTML image, if it has one."""
    for output in cell.get("outputs", []):
        if png := output.get("data", {}).get("image/png"):
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{png}">'
    return None


def boxes(cell: nbformat.NotebookNode) -> Iterator[str]:
    """Yield what a cell has written into boxes: findings."""
    for output in cell.get("outputs", []):
        text = output.get("data", {}).get("text/markdown", "")
        if 'class="finding"' in text:
            yield re.sub(r"</?div[^>]*>", "", text).strip()


def slides(chapter: nbformat.NotebookNode, name: str) -> tuple[str, list[str]]:
    """Return a chapter's title, and its slides in Markdown.

    Parameters
    ----------
    chapter
        As executed for the book.
    name
        Of the chapter, such as ``"01_data"``.
    """
    title = heading = chapter.cells[0].source.partition("\n")[0].removeprefix("# ")
    found = [f"# {title}"]
    for cell in chapter.cells:
        if cell.cell_type == "markdown":
            text = plain.markdown(cell.source, name)
            for line in re.findall(r"^##+ (.+)$", text, re.M):
                heading = line
            if GOALS in text:
                goals = re.findall(r"^> (- .+|  \S.+)$", text, re.M)
                found.append("\n".join([f"## {GOALS}", "", *goals]))
            if QUESTIONS in text:
                found.append(text[text.index(QUESTIONS) :])
        elif figure := image(cell):
            caption = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption", "")
            caption = plain.markdown(caption, name)
            found.append(f"## {heading}\n\n{figure}\n\nNote: {caption}")
        found += [f"## {heading}\n\n{box}" for box in boxes(cell)]
    return title, found


def section(text: str) -> str:
    """Return a slide in HTML; what follows ``Note:`` is for the speaker."""
    shown, _, note = text.partition("\n\nNote: ")
    aside = f'<aside class="notes">{MARKDOWN.render(note)}</aside>' if note else ""
    return f"<section>\n{MARKDOWN.render(shown)}{aside}</section>"


def main(argv: list[str] | None = None) -> int:
    """Write the slides and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "_build" / "slides")
    args = parser.parse_args(argv)
    chapters = sorted(EXECUTED.glob("[0-9]*.ipynb"))
    if not chapters:
        print("slides.py: there are no executed chapters; run `make book` first", file=sys.stderr)
        return 1
    args.out.mkdir(parents=True, exist_ok=True)
    for file in chapters:
        title, made = slides(nbformat.read(file, as_version=4), file.stem)
        sections = "\n".join(map(section, made))
        page = PAGE.format(title=html.escape(title), reveal=REVEAL, sections=sections)
        (args.out / f"{file.stem}.html").write_text(page)
        print(f"{args.out / file.stem}.html: {len(made)} slides")
    return 0


if __name__ == "__main__":
    sys.exit(main())
