"""MathJax among the book's own files, so that a reader's browser asks no other host for it."""

import shutil
import sys
from pathlib import Path

import pooch

# The version that Sphinx itself points to, and the last one that carries its fonts.
URL = "https://registry.npmjs.org/mathjax/-/mathjax-3.2.2.tgz"
SHA256 = "1b9c0a1c44df864e915690558e72adb9cc5203360daefd385084ced3b6c64c09"
PARTS = ["input/tex", "output/chtml", "a11y/assistive-mml"]  # a third less than with the menu
FILES = ["core.js", "startup.js", "input/tex/extensions", "output/chtml/fonts"]
FILES = ["LICENSE", *(f"es5/{file}" for file in FILES), *(f"es5/{part}.js" for part in PARTS)]


def install(static: Path) -> dict:
    """Put MathJax into `static` and return Sphinx's settings for it: none if it can't be had."""
    cache = pooch.os_cache("splicedvae") / "mathjax-3.2.2"
    unpack = pooch.Untar([f"package/{file}" for file in FILES], extract_dir=".")
    try:
        pooch.retrieve(URL, SHA256, "mathjax.tgz", cache, processor=unpack)
    except OSError as error:  # no network, now or before: a book with equations all the same
        print(f"MathJax stays on its CDN, as it can't be fetched: {error}", file=sys.stderr)
        return {}
    shutil.copytree(cache / "package", static / "mathjax")
    return {
        "mathjax_path": "mathjax/es5/startup.js",
        "mathjax3_config": {"loader": {"load": PARTS}},
    }
