"""A chapter's notebook in plain Markdown, for Colab and JupyterLab, which do not know MyST.

The book is built from the sources themselves. Here each mark of MyST becomes what a notebook can
show: a link to the site, a citation by author and year, a quotation, an unfolding solution.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache

import nbformat
from pybtex.database import parse_file

from colab import ROOT, SITE

BOOK = ROOT / "book"
ROLE = re.compile(r"\{(term|doc|eq|numref|cite:p|cite:t)\}`([^`]+)`")
BLOCK = re.compile(r"^:::\{(\w+)\} ?(.*?)\n(.*?)^:::$", re.MULTILINE | re.DOTALL)
INCLUDED = re.compile(r"^```\{literalinclude\} (\S+)\n(?::language: (\w+)\n)?```$", re.MULTILINE)
EQUATION = re.compile(r"\$\$[ ]*\((eq-[\w-]+)\)")
RAW = re.compile(r"\{[a-z:]+\}`|^:{3,}\{|^`{3,}\{|\$\$[ ]*\([\w-]+\)|^\([\w-]+\)=$", re.MULTILINE)


@cache
def _bibliography() -> dict:
    return parse_file(str(BOOK / "references.bib")).entries


@cache
def _places() -> dict[str, tuple[str, int]]:
    """Chapter and number, within it, of every labelled equation and figure of the book."""
    places = {}
    for source in sorted(BOOK.glob("[0-9]*.py")):
        for pattern in (EQUATION, re.compile(r'"name": "(fig-[\w-]+)"')):
            for number, label in enumerate(pattern.findall(source.read_text()), 1):
                places[label] = source.stem, number
    return places


def _term_anchor(term: str) -> str:
    """Sphinx's anchor of an entry of the glossary; it has none of its own for a Greek letter."""
    text = unicodedata.normalize("NFKD", term).encode("ascii", "ignore").decode()
    name = re.sub(r"[^a-zA-Z0-9._]+", "-", text).strip("-")
    return f"#term-{name}" if name else ""


def citation(key: str, textual: bool = False) -> str:
    """Author and year of a reference.

    Parameters
    ----------
    key
        In ``references.bib``.
    textual
        As part of a sentence: Author (year).

    Returns
    -------
    The citation, without brackets around it.
    """
    entry = _bibliography()[key]
    names = [
        " ".join(person.prelast_names + person.last_names) for person in entry.persons["author"]
    ]
    names = [re.sub(r"[{}]", "", name) for name in names]
    who = names[0] if len(names) == 1 else f"{names[0]} and {names[1]}"
    who = f"{names[0]} et al." if len(names) > 2 else who
    year = entry.fields["year"]
    return f"{who} ({year})" if textual else f"{who}, {year}"


def _role(match: re.Match, chapter: str) -> str:
    kind, content = match[1], " ".join(match[2].split())
    if kind.startswith("cite"):
        textual = kind == "cite:t"
        cited = [citation(key.strip(), textual) for key in content.split(",")]
        return " and ".join(cited) if textual else f"({'; '.join(cited)})"
    text, target = re.fullmatch(r"(.*?)(?: <(.*)>)?", content).groups()
    target = target or text
    if kind == "term":
        return f"[{text}]({SITE}/book/glossary.html{_term_anchor(target)})"
    if kind == "doc":
        return f"[{text}]({SITE}/book/{target}.html)"
    home, number = _places()[target]
    name = f"({number})" if kind == "eq" else f"Figure {number}"
    if home == chapter:
        return name
    anchor = f"equation-{target}" if kind == "eq" else target
    name = f"{name} of chapter {int(home[:2])}"
    return f"[{name}]({SITE}/book/{home}.html#{anchor})"


def _block(match: re.Match) -> str:
    kind, title, body = match[1], match[2].strip(), match[3]
    body = re.sub(r"^:(?:label|class): .*\n", "", body, flags=re.MULTILINE).strip()
    if kind in ("solution", "dropdown"):
        title = title if kind == "dropdown" else "Solution"
        title = re.sub(r"`([^`]+)`", r"<code>\1</code>", title)  # no Markdown within HTML
        return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"
    if kind == "exercise":
        return f"**Exercise. {title}**\n\n{body}"
    title = title or kind.capitalize()
    return "\n".join(f"> {line}".rstrip() for line in f"**{title}**\n\n{body}".splitlines())


def _included(match: re.Match) -> str:
    return f"```{match[2] or ''}\n{(BOOK / match[1]).read_text().rstrip()}\n```"


def markdown(text: str, chapter: str) -> str:
    """A Markdown cell without marks that only MyST knows.

    Parameters
    ----------
    text
        Of the cell.
    chapter
        Its name, such as ``01_data``.

    Returns
    -------
    The text.

    Raises
    ------
    ValueError
        A mark is left that this module does not know.
    """
    text = EQUATION.sub(lambda m: rf"\tag{{{_places()[m[1]][1]}}} $$", text)
    text = INCLUDED.sub(_included, text)
    text = BLOCK.sub(_block, text)
    text = ROLE.sub(lambda m: _role(m, chapter), text)
    if left := RAW.search(text):
        raise ValueError(f"{chapter}: {text[left.start() : left.start() + 60]!r} is left as MyST.")
    return text


def notebook(chapter: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """The same notebook for readers without the book.

    Captions become text below their figures, and what the book hides is folded.

    Parameters
    ----------
    chapter
        As the book runs it.
    name
        Such as ``01_data``.

    Returns
    -------
    A notebook without marks of MyST.
    """
    cells = []
    for cell in chapter.cells:
        if cell.cell_type == "markdown":
            cell.source = markdown(cell.source, name)
        cells.append(cell)
        if cell.cell_type != "code":
            continue
        figure = cell.metadata.pop("mystnb", {}).get("figure", {})
        label = figure.get("name")
        title = f"Figure {_places()[label][1]}" if label else "Figure"
        told = ("profiles.finding(", "profiles.what_we_found(")
        finding = any(call in cell.source for call in told)
        if finding or "hide-input" in cell.metadata.get("tags", []):
            title = "Finding" if finding else title
            cell.source = f'# @title {title} {{ display-mode: "form" }}\n{cell.source}'
            cell.metadata["cellView"] = "form"
        if "caption" in figure:
            head = f"Figure {_places()[label][1]}. " if label else ""
            caption = f"*{head}{markdown(figure['caption'], name)}*"
            cells.append(nbformat.v4.new_markdown_cell(caption))
    chapter.cells = cells
    return chapter
