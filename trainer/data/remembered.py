"""What reading all files of a data set has told, kept beside the caches: the next start need not read them again.

Each start and each worker opens the data to know its classes, names and splits. Where these stand in a file of
hundreds of megabytes, in thousands of small ones or in the masks themselves, that takes seconds to minutes. Imports no
TensorFlow.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from maskfleet.files import read_plain, write_atomically
from trainer.cache_folder import cache_root, locked

_FORMAT = 1
"""To be raised when something else is found in the same files."""
_FOLDER = "known"
_MOST_BYTES = 1 << 30
_RESTING = 2.0
"""Seconds for which a file must not have been written to: clocks of disks tick slowly, so it may change unseen."""


def remembered(what: str, place: Path, files: Sequence[Path], find: Callable[[], Any]) -> Any:
    """``find()``, or what it gave when these files were last looked at, if they are as they were.

    Safe to call from several processes at once, of which one finds and the others wait. A folder that can't be
    written, or what somebody has spoiled there, costs time only.

    Args:
        what: is found; with ``place`` it names what is kept, so that there is one of each, however often files change.
        files: all that ``find`` looks at.
        find: gives what JSON can hold, and gets it back as JSON has it.

    Raises:
        OSError: a file is missing; and whatever ``find`` raises, which is not kept.
    """
    key, newest = _key(files)
    name = hashlib.sha256(f"{_FORMAT}\n{what}\n{place.absolute()}".encode()).hexdigest()[:24]
    file = cache_root() / _FOLDER / f"{name}.json"
    if (kept := _read(file, key)) is not None:
        return kept[0]
    with locked(file.with_suffix(".lock")):
        if (kept := _read(file, key)) is not None:  # another process has found it meanwhile
            return kept[0]
        text = json.dumps(find())
        if newest < time.time() - _RESTING:
            digest = hashlib.sha256(text.encode()).hexdigest()
            with contextlib.suppress(OSError):
                write_atomically(file, f"{key}\n{digest}\n{text}".encode(), durable=False)
        return json.loads(text)


def _key(files: Sequence[Path]) -> tuple[str, float]:
    """A hash of places, sizes and times, and the time of the last change, in seconds since the epoch."""
    digest = hashlib.sha256()
    newest = 0.0
    for file in files:
        status = file.stat()
        digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\n".encode())
        newest = max(newest, status.st_ctime)
    return digest.hexdigest(), newest


def _read(file: Path, key: str) -> tuple[Any] | None:
    """What is kept under this key, in a tuple as it may be None itself."""
    try:
        found, digest, text = read_plain(file, _MOST_BYTES).decode().split("\n", 2)
    except (OSError, ValueError):
        return None
    if found != key or hashlib.sha256(text.encode()).hexdigest() != digest:
        return None
    return (json.loads(text),)
