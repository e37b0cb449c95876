"""Models of others, to stand beside ours; entered when one is asked for.

Velocities from one matrix of counts, a file each: ``pseudotime`` (drift along DPT or CytoTRACE),
``sctour`` and ``velot`` (the authors' packages), ``tfvelo`` and ``nosplicevelo`` (ours, from the
papers). Directions alone: ``velo_predictor`` and ``cascade_forest``. All in one table: ``table``,
and ``python -m splicedvae.velocity.peers``.
"""

from .velo_predictor import VeloPredictor

__all__ = ["VeloPredictor"]
