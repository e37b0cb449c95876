"""Sentences of the book that one reads in one breath."""

import re
from pathlib import Path

import pytest

BOOK = Path(__file__).resolve().parents[1] / "book"
PAGES = sorted([*BOOK.glob("[0-9]*.py"), BOOK / "quickstart.md", BOOK / "intro.md"])
NO_PROSE = re.compile(r"^```.*?^```$|\$\$.*?\$\$|\{cite:[pt]\}`[^`]+`", re.MULTILINE | re.DOTALL)
MARKS = re.compile(r"\s*(\||:{3,}|:\w+:|#+ |---)")  # tables, directives, headings
ITEM = re.compile(r"(?:^|\s)(?:[-*]|\d+\.) (?=\S)")
END = re.compile(r"(?<=[.?!])[\"”)*]*\s+(?=[A-Z“(*\"0-9])")


def sentences(text: str) -> list[str]:
    """Sentences of MyST Markdown, without code, formulas, tables and headings."""
    text = re.sub(r"\$[^$]+\$", "x", NO_PROSE.sub("", text))
    text = re.sub(r"(?:\{\w+\})?`([^`<]+?)(?:\s*<[^>`]+>)?`", r"\1", text)
    text = re.sub(r"\[([^\]]+)\]\([^)]+\)", r"\1", text)
    found = []
    for paragraph in re.split(r"\n\s*\n", text):
        lines = [line for line in paragraph.splitlines() if not MARKS.match(line)]
        for item in ITEM.split(" ".join(lines)):
            found += [sentence for sentence in END.split(item.strip()) if " " in sentence]
    return found


def prose(page: Path) -> str:
    text = page.read_text()
    if page.suffix == ".md":
        return text
    cells = (cell for cell in text.split("# %%") if cell.startswith(" [markdown]"))
    return "\n\n".join(re.sub(r"^# ?", "", cell.partition("\n")[2], flags=re.M) for cell in cells)


def test_sentences_are_found():
    text = (
        "## Title\n\nOne is {term}`here <there>`. Two has $x = 1$ and `code.`\n\n- Three is it.\n"
    )
    text += "\n| a | b |\n\n```python\nno = 1\n```\n\nFour asks: is it?"
    expected = ["One is here.", "Two has x and code.", "Three is it.", "Four asks: is it?"]
    assert sentences(text) == expected


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_long_sentences(page):
    lengths = {sentence: len(sentence.split()) for sentence in sentences(prose(page))}
    assert len(lengths) > 20
    assert not [sentence for sentence, n in lengths.items() if n > 50]
    long = [sentence for sentence, n in lengths.items() if n > 35]
    assert len(long) <= 0.02 * len(lengths), long
