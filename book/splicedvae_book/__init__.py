"""What the chapters of the book share: profiles, and the results that are made once and kept."""

from importlib import import_module

from . import experiment, headline, plots, profiles, published, scorecard

#: In the order in which they are made: a later one may read what an earlier one has kept. A stage
#: is imported when first asked for, so that a chapter needs only the libraries of its own.
STAGES = (
    "fits",
    "fields",
    "queries",
    "depth",
    "pretraining",
    "searches",
    "generalisation",
    "scale",
    "modality",
    "peers",
    "futures",
    "tissues",
)


def __getattr__(name: str):
    if name not in (*STAGES, "chemistries", "corpus"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f".stages.{name}" if name in STAGES else f".{name}", __name__)


__all__ = ["STAGES", "experiment", "headline", "plots", "profiles", "published", "scorecard"]
