"""What the chapters of the book share: profiles, and the results that are made once and kept."""

from . import (
    depth,
    experiment,
    fields,
    fits,
    plots,
    pretraining,
    profiles,
    queries,
    scorecard,
    searches,
)

__all__ = [
    "depth",
    "experiment",
    "fields",
    "fits",
    "plots",
    "pretraining",
    "profiles",
    "queries",
    "scorecard",
    "searches",
]
