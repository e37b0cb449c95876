"""What a model has to beat: simple models of ratios, of velocities, and of arrows' directions.

Each baseline of ratios is fitted on training cells, tuned on validation cells by the binomial
log-likelihood and nothing else, and predicts from total counts (or from cluster labels) alone.
"""

from .ratios.baselines import (
    GeneByCluster,
    GeneMean,
    HierarchicalBinomial,
    NearestNeighbours,
    RidgeBinomial,
    ScviLatentRidge,
)
from .velocity.baselines import halves, velocity_baselines
from .velocity.peers import VeloPredictor

__all__ = [
    "GeneByCluster",
    "GeneMean",
    "HierarchicalBinomial",
    "NearestNeighbours",
    "RidgeBinomial",
    "ScviLatentRidge",
    "VeloPredictor",
    "halves",
    "velocity_baselines",
]
