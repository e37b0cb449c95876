"""Print the built book as one PDF: python book/tools/pdf.py [_build]."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urldefrag, urljoin

from bs4 import BeautifulSoup
from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
# The theme prints one page, whose title stands above its contents; here each chapter opens a page.
STYLE = """<style>#jb-print-docs-body { display: none !important }
.bd-main .bd-content .bd-article h1:first-of-type { display: block; break-before: page }
#intro\\.html- h1 { break-before: auto !important }
.bd-article p { orphans: 3; widows: 3 }</style>"""
FOOTER = '<div style="font-size: 8pt; margin: auto"><span class="pageNumber"></span></div>'


@contextmanager
def browser() -> Iterator[Browser]:
    """Start this machine's Chromium, or the one that `playwright install chromium` has fetched."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM)
        yield chromium
        chromium.close()


def pages(folder: Path, name: str = "intro.html") -> Iterator[tuple[str, BeautifulSoup]]:
    """Go through the pages as a reader does: each names the one after it."""
    while name:
        page = BeautifulSoup((folder / name).read_text(), "html.parser")
        yield name, page
        following = page.find("link", rel="next")
        name = following["href"] if following else None


def single_page(folder: Path) -> str:
    """Return all pages as one: nothing folded, and links between them lead within it."""
    book = dict(pages(folder))
    for name, page in book.items():
        page.article["id"] = ""
        for tag in page.article.find_all(id=True):
            if not tag.find_parent("svg"):  # a drawing speaks of its own parts
                tag["id"] = f"{name}-{tag['id']}"
        page.article["id"] = f"{name}-"
        for link in page.article.find_all("a", href=True):
            to, part = urldefrag(urljoin(name, link["href"]))
            if to in book:
                link["href"] = f"#{to}-{part}"
        for fold in page.article.find_all("details"):
            fold["open"] = ""
        for fold in page.article.find_all(class_="dropdown"):
            fold["class"].remove("dropdown")
    first, *others = book.values()
    for page in reversed(others):
        first.article.insert_after(page.article)
    first.head.append(BeautifulSoup(STYLE, "html.parser"))
    return str(first)


@contextmanager
def temporary(file: Path, text: str) -> Iterator[None]:
    """Keep a file for as long as it is printed: a site that is published must not hold it."""
    file.write_text(text)
    try:
        yield
    finally:
        file.unlink()


def write_pdf(build: Path) -> Path:
    """Print the book beside its pages and return the file's path."""
    page, target = build / "html" / "book" / "all.html", build / "html" / "splicedvae.pdf"
    if not (page.parent / "intro.html").exists():
        sys.exit(f"pdf.py: there is no book in {build}; run make book")
    text = single_page(page.parent)
    with browser() as chromium, temporary(page, text):
        tab = chromium.new_page(color_scheme="light")
        tab.set_default_timeout(120_000)  # it is a whole book
        tab.goto(page.as_uri())
        tab.evaluate("window.MathJax?.startup?.promise")
        tab.pdf(
            path=target,
            format="A4",
            scale=0.75,  # 16 pixels become 9 points
            margin=dict.fromkeys(("top", "right", "bottom", "left"), "16mm"),
            display_header_footer=True,
            header_template="<span></span>",
            footer_template=FOOTER,
            outline=True,
            tagged=True,
        )
    return target


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "_build").resolve()
    print(f"The whole book is at {write_pdf(folder)}")
