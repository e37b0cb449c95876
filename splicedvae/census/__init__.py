"""Start from the scVI models that were trained on all of CELLxGENE Census."""

from .checkpoints import DEFAULT_RELEASE, Checkpoint, fetch, read, releases
from .genes import Overlap, match, overlap, symbols
from .transplant import initialise, transplant

__all__ = [
    "DEFAULT_RELEASE",
    "Checkpoint",
    "Overlap",
    "fetch",
    "initialise",
    "match",
    "overlap",
    "read",
    "releases",
    "symbols",
    "transplant",
]
