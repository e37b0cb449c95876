"""Files that are whole, or not there."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path


def finish(target: Path, write: Callable[[Path], None]) -> None:
    """Write beside the target, and give the result its name when it is whole.

    Parameters
    ----------
    target
        The file or folder; what is there is replaced.
    write
        Writes to the path that it is given.
    """
    part, old = (target.with_name(f"{target.name}.{os.getpid()}.{end}") for end in ("part", "old"))
    try:
        write(part)
        if target.is_dir():  # a folder can't be replaced in one step
            target.replace(old)
        part.replace(target)
    finally:
        if old.exists() and not target.exists():
            old.replace(target)
        for left in (part, old):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
