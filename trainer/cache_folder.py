"""The folder that all runs of this machine share, and one process at a time in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from maskfleet.environment import CACHE_VARIABLE


@contextlib.contextmanager
def locked(file: Path) -> Iterator[bool]:
    """Waits for the other processes that hold ``file``. The kernel frees the lock of one that dies.

    Yields whether it is held: on a file system without locks nobody waits, so what is done must be right even so.

    Raises:
        OSError: the file can't be created.
    """
    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True


def cache_root() -> Path:
    """The folder that all runs of this machine share: ``$MASKFLEET_CACHE`` or ``~/.cache/maskfleet``."""
    return Path(os.environ.get(CACHE_VARIABLE, "~/.cache/maskfleet")).expanduser()
