"""The fits that chapters share, made once: `make results` calls this, and so does `make book`."""

from pathlib import Path

import splicedvae as sv


def run(profile: str, out: Path) -> None:
    """Compute what is missing of a profile's results.

    Parameters
    ----------
    profile
        ``"smoke"``, ``"standard"`` or ``"full"``.
    out
        Folder of the results.
    """
    sv.experiment.run(sv.profiles.load(profile), profile, out)
