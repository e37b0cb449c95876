"""Profiles: how much a build computes, on which cells, and the note that every page carries."""

from __future__ import annotations

import logging
import os
import platform
import re
import warnings
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import torch
from anndata import AnnData

from splicedvae import data


@dataclass(frozen=True)
class Profile:
    """How much a build computes.

    Attributes
    ----------
    n_obs
        Cells; None for all.
    n_top_genes
        Highly variable genes kept; None for all that pass the filter.
    max_epochs, lr
        Of each fit: epochs and learning rate. On the pancreas, 60 epochs at 3 times the rate end
        where the defaults' 150 do, and 40 at 4.5 times the rate about 1 % in D² and 3 nats in ELBO
        below these (validation cells, four seeds).
    seeds
        Each with its own split, genes, initial weights and minibatches.
    """

    n_obs: int | None
    n_top_genes: int | None
    max_epochs: int
    seeds: tuple[int, ...]
    lr: float = 1e-3

    @property
    def training(self) -> dict:
        """Arguments of :meth:`splicedvae.SplicedVAE.train`."""
        return {"max_epochs": self.max_epochs, "lr": self.lr, "enable_progress_bar": False}


PROFILES = {
    "smoke": Profile(700, 300, 5, (0,), 3e-3),
    "standard": Profile(None, 2000, 40, (0, 1, 2), 4.5e-3),
    "full": Profile(None, 2000, 150, (0, 1, 2, 3, 4)),
}


def load(profile: str = "standard") -> AnnData:
    """The pancreas, as many of its cells as the profile wants.

    Parameters
    ----------
    profile
        A key of ``PROFILES``.

    Returns
    -------
    Cells × genes, with ``uns["provenance"]``; what was thinned says so there.

    Raises
    ------
    ValueError
        There is no such profile.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile={profile!r} is not known; choose one of {', '.join(PROFILES)}.")
    adata = data.pancreas()
    n_obs = PROFILES[profile].n_obs
    if n_obs is not None and n_obs < adata.n_obs:
        share = n_obs / adata.n_obs
        _, _, kept = data.split(adata, ((1 - share) / 2, (1 - share) / 2, share))
        adata = adata[kept].copy()
        adata.uns["provenance"]["name"] += f", a random {adata.n_obs} of its cells"
    return adata


def prepared(
    adata: AnnData, profile: str, seed: int
) -> tuple[AnnData, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """A seed's split, and its genes, chosen on the training cells.

    Parameters
    ----------
    adata
        From :func:`load`.
    profile
        A key of ``PROFILES``.
    seed
        Of the split.

    Returns
    -------
    The prepared cells, and positions of train, val and test.
    """
    parts = data.split(adata, seed=seed)
    return data.prepare(adata, n_top_genes=PROFILES[profile].n_top_genes, fit_on=parts[0]), parts


def provenance(adata: AnnData, profile: str) -> dict:
    """What a page must state: data, profile, device, versions.

    Parameters
    ----------
    adata
        With ``uns["provenance"]``.
    profile
        A key of ``PROFILES``.

    Returns
    -------
    JSON-ready, with ``data``, ``simulated``, ``profile``, ``device`` and ``versions``.
    """
    packages = ("splicedvae", "scvi-tools", "torch", "scanpy", "anndata", "numpy")
    cuda = torch.cuda.is_available()
    return {
        "data": adata.uns["provenance"]["name"],
        "simulated": bool(adata.uns["provenance"]["simulated"]),
        "n_obs": adata.n_obs,
        "n_vars": adata.n_vars,
        "profile": profile,
        "device": torch.cuda.get_device_name() if cuda else f"CPU ({os.cpu_count()} cores)",
        "versions": {"python": platform.python_version()} | {p: version(p) for p in packages},
    }


def banner(adata: AnnData, profile: str) -> None:
    """Show :func:`provenance` on the page of a notebook; simulated data are said loudly.

    Parameters
    ----------
    adata
        With ``uns["provenance"]``.
    profile
        A key of ``PROFILES``.
    """
    from IPython.display import display

    facts = provenance(adata, profile)
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    text = (
        f"**Data:** {facts['data']}, {facts['n_obs']:,} cells × {facts['n_vars']:,} genes · "
        f"**profile:** {profile} · **device:** {facts['device']} · **versions:** {versions}"
    )
    if facts["simulated"]:
        text = "**These are SIMULATED cells: the real ones could not be had.**\n\n" + text
    mime = "application/vnd.splicedvae.provenance+json"
    display({"text/markdown": text, mime: facts}, raw=True)


_KEPT: list[str] = []  # of this page, for its last box


def finding(text: str, profile: str, kept: str | None = None) -> None:
    """Show a finding in a box, with its computed figures, or that this profile measures none.

    Parameters
    ----------
    text
        Markdown.
    profile
        A key of ``PROFILES``; ``"smoke"`` is too small to find anything.
    kept
        The finding in one sentence, for the page's last box, see :func:`what_we_found`.

    Raises
    ------
    ValueError
        The text holds no number: what it was computed from is missing.
    """
    if not re.search("[0-9]", text):
        raise ValueError(f"A finding must hold a number, and this one has none: {text!r}")
    if kept is not None:
        keep(kept)
    if profile == "smoke":
        text = "not measured in this profile (`smoke` is a short run on few cells)."
    _box(f"**Finding:** {text}")


def keep(sentence: str) -> None:
    """Keep a sentence for the page's last box.

    Parameters
    ----------
    sentence
        Markdown.
    """
    _KEPT.append(sentence)


def what_we_found(profile: str) -> None:
    """Show in a box what was kept of this page's findings.

    Parameters
    ----------
    profile
        As for :func:`finding`.
    """
    lines = [f"- {sentence}" for sentence in _KEPT]
    if profile == "smoke":
        lines = ["Not measured in this profile (`smoke` is a short run on few cells)."]
    _box("**In short**\n\n" + "\n".join(lines))


def _box(text: str) -> None:
    from IPython.display import Markdown, display

    display(Markdown(f'<div class="finding">\n\n{text}\n\n</div>'))


def quiet() -> None:
    """Silence what Lightning and scvi-tools say at every fit; errors still show."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "scvi"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
