"""Names for tissues, from free text, by a table that can be read and changed: ``tissues.csv``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

UNMAPPED, MULTIPLE = "unmapped", "multiple"


def tissue_mapping(path: str | os.PathLike | None = None) -> dict[str, str]:
    """Tissues by the ways people write them.

    Parameters
    ----------
    path
        A CSV with the columns text and tissue, which is left empty for words that do not change
        the tissue (fetal, left, biopsy, …). None takes the one that comes with the package.

    Returns
    -------
    Tissue by text.

    Raises
    ------
    ValueError
        A column is missing, or a text has two tissues.
    """
    path = path or Path(__file__).with_name("tissues.csv")
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if not {"text", "tissue"} <= set(table):
        raise ValueError(f"{path} needs the columns text and tissue; it has {', '.join(table)}.")
    tissues = table.groupby("text")["tissue"].agg(["first", "nunique"])
    if twice := list(tissues.index[tissues["nunique"] > 1]):
        raise ValueError(f"{path} gives more than one tissue to {', '.join(twice[:5])}.")
    return tissues["first"].to_dict()


def _tidy(text: str) -> str:
    return " ".join(re.sub(r"[\s_]+", " ", text.lower().replace("’", "'")).strip(" .'\"").split())


def map_tissues(texts: pd.Series, mapping: Mapping[str, str]) -> pd.Series:
    """Map free text to tissues.

    The whole text, in any case, is looked up first, then without the words that do not change the
    tissue. If that finds nothing its pieces are looked up alike, between commas, brackets and
    such: pieces that agree give their tissue, pieces that differ ``"multiple"``, and one that is
    unknown has no say. A text without any that is known is ``"unmapped"``.

    Parameters
    ----------
    texts
        What people wrote.
    mapping
        As of :func:`tissue_mapping`.

    Returns
    -------
    The tissues.
    """
    mapping = {_tidy(text): tissue for text, tissue in mapping.items()}

    def look_up(text: str) -> set[str]:
        words = _tidy(text).split()
        rest = (word for word in words if mapping.get(word) != "")
        tissue = mapping.get(" ".join(words)) or mapping.get(" ".join(rest))
        return {tissue} if tissue else set()

    def tissue(text: str) -> str:
        found = look_up(text) or set().union(*map(look_up, re.split(r"[,;/+&|()\[\]]| and ", text)))
        return UNMAPPED if not found else MULTIPLE if len(found) > 1 else found.pop()

    texts = texts.astype(object).fillna("")
    found = {text: tissue(text) for text in set(texts)}
    return pd.Series([found[text] for text in texts], texts.index, dtype=object, name="tissue")
