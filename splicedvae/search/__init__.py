"""Hyperparameter search with Optuna: 90 points of the paper's grid, or TPE, on many processes.

The state of a search is an Optuna study in a database, so it survives a crash and is shared by
all processes and machines that are given the same URL. ``python -m splicedvae.search --help``.
"""

from .confirmation import confirm, table, top
from .study import PAPER_CONTINUOUS, PAPER_GRID, run

__all__ = ["PAPER_CONTINUOUS", "PAPER_GRID", "confirm", "run", "table", "top"]
