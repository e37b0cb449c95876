"""Where a cell may go, as a distribution: draws of its futures, with their uncertainty.

A velocity is one arrow per cell. :class:`Futures` learns from the steps that a velocity makes
likely, or from cells of several days, how cells move, and draws as many futures of a cell as you
ask for. Their scores are in :mod:`splicedvae.metrics`.
"""

from .model import Futures

__all__ = ["Futures"]
