"""From one tissue to ten million cells of many: catalogue, plan, store and stream of an atlas.

:class:`~splicedvae.atlas.catalogue.Catalogue` says which samples there are,
:func:`~splicedvae.atlas.sampling.sampling_plan` which cells to take,
:func:`~splicedvae.atlas.store.build_store` brings them together, and
:class:`~splicedvae.atlas.loader.AtlasDataModule` streams them into
:meth:`splicedvae.SplicedVAE.train`.
"""

from .catalogue import Catalogue
from .loader import AtlasDataModule, MidEpochCheckpoint, minibatch_entropy
from .sampling import balance, one_to_one, sampling_plan, split
from .store import Store, build_store

Checkpoint = MidEpochCheckpoint  # its name in version 0.1

__all__ = [
    "AtlasDataModule",
    "Catalogue",
    "MidEpochCheckpoint",
    "Store",
    "balance",
    "build_store",
    "minibatch_entropy",
    "one_to_one",
    "sampling_plan",
    "split",
]
