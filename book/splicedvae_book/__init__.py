"""What the chapters of the book share: profiles, and the results that are made once and kept."""

from . import (
    corpus,
    depth,
    experiment,
    fields,
    fits,
    generalisation,
    headline,
    plots,
    pretraining,
    profiles,
    queries,
    scale,
    scorecard,
    searches,
)

__all__ = [
    "corpus",
    "depth",
    "experiment",
    "fields",
    "fits",
    "generalisation",
    "headline",
    "plots",
    "pretraining",
    "profiles",
    "queries",
    "scale",
    "scorecard",
    "searches",
]
