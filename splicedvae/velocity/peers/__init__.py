"""Models of others, to stand beside ours; entered when one is asked for."""

from .velo_predictor import VeloPredictor

__all__ = ["VeloPredictor"]
