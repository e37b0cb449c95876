"""The pages in a browser: at a desk and on a phone, light and dark; and the book as one PDF."""

import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Page, expect
from pypdf import PdfReader

import mathjax
import pdf

pytestmark = [pytest.mark.slow, pytest.mark.publishing]

ROOT = Path(__file__).resolve().parents[1]
SIZES = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
SLOW = "its title is not visible after 2 s"
# axe takes seconds: each width and each scheme once
WITH_AXE = {("desk", "light"), ("phone", "dark")}
FAULTS = """() => {
  const root = document.documentElement;
  const math = [...document.querySelectorAll(".math")];
  return [
    ...[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => `no ${i.src}`),
    ...math.filter(m => !m.querySelector("mjx-container")).map(m => `raw ${m.textContent}`),
    ...[...document.querySelectorAll("mjx-merror")].map(m => `TeX: ${m.textContent}`),
    ...(root.scrollWidth > root.clientWidth ? [`${root.scrollWidth} pixels wide`] : []),
  ];
}"""


@pytest.fixture(scope="module")
def installed() -> None:
    if not pdf.CHROMIUM and not os.environ.get("CI"):  # in CI it is there, or the tests fail
        pytest.skip("needs Chromium or Chrome: apt install chromium")


@pytest.fixture(scope="module")
def chromium(installed) -> Browser:
    with pdf.browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(smoke, serve) -> str:
    """The address of the book."""
    with serve(smoke / "html") as address:
        yield f"{address}/"


@pytest.fixture(scope="module")
def soups(smoke) -> dict[Path, BeautifulSoup]:
    """Every page of the build, by its address below the root."""
    html = smoke / "html"
    files = [file for file in html.rglob("*.html") if "_static" not in file.parts]
    return {f.relative_to(html): BeautifulSoup(f.read_text(), "html.parser") for f in files}


def visit(page: Page, address: str, axe: bool) -> list[str]:
    """Open a page as a new reader does and return its faults."""
    found, responses = [], []
    here = urlsplit(address).netloc
    page.on("console", lambda m: m.type == "error" and found.append(f"{m.text} {m.location}"))
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("request", lambda r: urlsplit(r.url).netloc == here or found.append(f"asks {r.url}"))
    page.on("response", lambda response: responses.append(response))
    page.goto(address, wait_until="commit")
    try:
        expect(page.locator("main h1:visible").first).to_be_visible(timeout=2000)
    except AssertionError:
        found.append(SLOW)
    page.wait_for_load_state("load")
    page.evaluate("window.MathJax?.startup?.promise.then(() => null)")
    found += page.evaluate(FAULTS)
    found += [f"{r.status} for {r.url}" for r in responses if r.status >= 400]
    # all that a reader's browser gets for this page, before any compression
    weight = sum(int(r.headers.get("content-length", 0)) for r in responses) / 1e6
    if weight > 3:
        found.append(f"{weight:.2f} MB")
    if axe:
        options = {"resultTypes": ["violations"], "preload": False}
        for rule in Axe().run(page, options=options).response["violations"]:
            if rule["impact"] in ("serious", "critical"):
                found += [f"axe: {rule['id']} at {node['target']}" for node in rule["nodes"]]
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_pages_have_no_fault_in_a_browser(chromium, site, soups, size, scheme):
    """No error, no request to another host, no scrolling sideways; equations, text within 2 s."""
    faults = {}
    for name in soups:
        if name != Path("index.html"):  # it only leads to the first page
            for _ in range(3):  # two seconds are the page's, not those of what else runs here
                context = chromium.new_context(viewport=SIZES[size], color_scheme=scheme)
                page, axe = context.new_page(), (size, scheme) in WITH_AXE
                found = visit(page, site + name.as_posix(), axe)
                context.close()
                if SLOW not in found:
                    break
            faults |= {name.as_posix(): found} if found else {}
    assert not faults, "\n".join(f"{page}: {fault}" for page in faults for fault in faults[page])


def test_internal_links_and_images_are_there(smoke, soups):
    html, broken = smoke / "html", []
    known = {name: {tag["id"] for tag in soup.find_all(id=True)} for name, soup in soups.items()}
    for name, soup in soups.items():
        for tag in soup.find_all(["a", "img", "link", "script"]):
            address, part = urldefrag(tag.get("href") or tag.get("src") or "")
            url = urlsplit(address)
            if url.scheme:
                continue
            file = (html / name.parent / unquote(url.path)) if url.path else html / name
            target = Path(os.path.relpath(file, html))
            if not file.is_file() or (
                part and target in known and unquote(part) not in known[target]
            ):
                broken.append(f"{name}: {tag.get('href') or tag.get('src')}")
    assert not broken, "\n".join(broken)


def test_badge_of_every_chapter_opens_a_notebook_that_is_there(soups):
    chapters = [name for name in soups if re.match(r"\d\d_", name.name)]
    assert chapters
    for name in chapters:
        (badge,) = soups[name].find_all("a", href=re.compile("^https://colab.research.google.com/"))
        path = re.fullmatch(r".*/blob/[^/]+/(.*\.ipynb)", badge["href"])[1]
        assert (ROOT / path).is_file() and Path(path).stem == name.stem


@pytest.mark.parametrize("words", ["velocity", "within-gene r"])
def test_search_finds_pages(chromium, site, words):
    page = chromium.new_page(viewport=SIZES["desk"])
    page.goto(site)
    page.wait_for_url("**/book/intro.html")
    page.locator(".search-button-field, .search-button").locator("visible=true").first.click()
    page.locator("#pst-search-dialog input[type=search]").press_sequentially(words)
    expect(page.locator("#pst-search-dialog #search-results li").first).to_be_visible()
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=*")
    expect(page.locator("#search-results li").first).to_be_visible()
    page.close()


def test_without_network_mathjax_is_left_where_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(mathjax, "URL", "https://127.0.0.1:9/mathjax.tgz")  # nothing answers there
    assert mathjax.install(tmp_path / "static") == {}
    assert "MathJax stays on its CDN" in capsys.readouterr().err
    assert not (tmp_path / "static").exists()


# --- the PDF --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def printed(installed, smoke) -> PdfReader:
    done = subprocess.run([sys.executable, pdf.__file__, smoke], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return PdfReader(smoke / "html" / "splicedvae.pdf")


def squeezed(text: str) -> str:
    """Return a text without spaces and ligatures, which depend on where lines break."""
    return re.sub(r"\s+|#$", "", unicodedata.normalize("NFKC", text))


def test_pdf_holds_every_chapter_in_order(smoke, soups, printed):
    texts = [squeezed(page.extract_text()) for page in printed.pages]
    assert len(texts) > 50
    blank = [n for n, page in enumerate(printed.pages) if len(texts[n]) < 20 and not page.images]
    assert not blank, "pages without anything"
    book, at = "".join(texts), 0
    titles = [squeezed(item.title) for item in printed.outline if not isinstance(item, list)]
    for name, page in pdf.pages(smoke / "html" / "book"):
        headings = [squeezed(h.get_text()) for h in page.article.find_all(["h1", "h2"])]
        for heading in (headings[0], headings[-1]):
            at = book.find(heading, at)
            assert at >= 0, f"{name}: {heading!r} is missing or out of place"
        assert headings[0] == titles.pop(0)
    assert "Mathinputerror" not in book and "\\frac" not in book
    assert not titles


def test_links_within_the_pdf_lead_somewhere(printed):
    known, links = set(printed.named_destinations), 0
    for page in printed.pages:
        for annotation in page.get("/Annots") or []:
            target = annotation.get_object().get("/Dest")
            if target is not None:
                assert not isinstance(target, str) or target in known or target[1:] in known, target
                links += 1
    assert links > 100
