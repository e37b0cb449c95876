"""Splicing ratios, and the velocity they give, from total counts alone."""

from importlib.metadata import PackageNotFoundError, version

from . import data, metrics, module
from .model import SplicedVAE

try:
    __version__ = version("splicedvae")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "unknown"

__all__ = ["SplicedVAE", "__version__", "data", "metrics", "module"]
