"""Splicing ratios, and the velocity they give, from total counts alone."""

import logging
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

from . import baselines, data, futures, metrics, trajectories, velocity
from .model import SplicedVAE
from .trust import trust

try:
    __version__ = version("splicedvae")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "unknown"

# like scanpy and scvi-tools: notes such as "dropped 12 genes" reach the console
_logger = logging.getLogger("splicedvae")
if not _logger.handlers:
    _logger.addHandler(logging.StreamHandler())
    _logger.setLevel(logging.INFO)

# imported when first asked for; each needs the extra of its name
_EXTRAS = ("atlas", "census", "search")


def __getattr__(name: str):
    if name not in _EXTRAS:
        raise AttributeError(f"module 'splicedvae' has no attribute {name!r}")
    try:
        return import_module(f".{name}", __name__)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"splicedvae.{name} needs {error.name}: pip install 'splicedvae[{name}]'"
        ) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *_EXTRAS})


__all__ = [
    "SplicedVAE",
    "__version__",
    "baselines",
    "data",
    "futures",
    "metrics",
    "trajectories",
    "trust",
    "velocity",
]
