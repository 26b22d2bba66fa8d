"""The folder of caches that all runs of this machine share, and one process at a time in it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import IO

from maskfleet.config import absolute_path
from maskfleet.environment import CACHE_VARIABLE
from maskfleet.files import FileDigest

_DIGESTS = "digests.json"
"""Size and checksum of each file of a cache, written when all are complete."""


@contextlib.contextmanager
def locked(file: Path) -> Iterator[bool]:
    """Waits for the other processes that hold ``file``. The kernel frees the lock of one that dies.
    Users who share the folder wait for each other too.

    Yields whether it is held: on a file system without locks nobody waits, so what is done must be right even so.

    Raises:
        OSError: the file can't be created.
    """
    with _lock_file(file) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True


def _lock_file(file: Path) -> IO[bytes]:
    """Open for writing, or, where it is another user's, for reading, which is enough for the kernel."""
    try:
        return file.open("ab")
    except PermissionError:
        return file.open("rb")


def note_files(folder: Path) -> None:
    """Notes size and checksum of each file in ``folder``, for :func:`damage`."""
    digests = {file.name: asdict(FileDigest.of(file)) for file in sorted(folder.iterdir())}
    (folder / _DIGESTS).write_text(json.dumps(digests))


def damage(folder: Path) -> str | None:
    """What is wrong with the files that :func:`note_files` has noted; None if they are as they were.

    Reads them all, some GB a second from memory, where training needs them next.

    Raises:
        OSError: a file is there and can't be read.
    """
    try:
        digests = json.loads((folder / _DIGESTS).read_text())
        expected = {name: FileDigest(**digest) for name, digest in digests.items()}
    except FileNotFoundError:
        return f"{_DIGESTS} is missing"
    except (ValueError, TypeError, AttributeError):
        return f"{_DIGESTS} can't be read"
    if missing := [name for name in expected if not (folder / name).is_file()]:
        return f"{missing[0]} is missing"
    for name, digest in expected.items():
        if (size := (folder / name).stat().st_size) != digest.size:
            return f"{name} has {size} bytes instead of {digest.size}"
    changed = (name for name, digest in expected.items() if FileDigest.of(folder / name) != digest)
    return next((f"{name} has other bytes" for name in changed), None)


def cache_root() -> Path:
    """The folder that all runs of this machine share: ``$MASKFLEET_CACHE`` or ``~/.cache/maskfleet``."""
    return absolute_path(os.environ.get(CACHE_VARIABLE, "~/.cache/maskfleet"), CACHE_VARIABLE)
