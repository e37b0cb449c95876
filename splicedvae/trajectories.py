"""What one does today without spliced and unspliced counts, and what one does with velocity then.

:func:`latent_trajectories` takes its direction from a latent space and a root cluster (diffusion
pseudotime) or from the number of expressed genes (CytoTRACE); :func:`fate_probabilities` takes it
from a velocity. CellRank and scanpy do the work, and what is written has their names.
"""

from .velocity.trajectories import fate_probabilities, latent_trajectories, transition_confidence

__all__ = ["fate_probabilities", "latent_trajectories", "transition_confidence"]
