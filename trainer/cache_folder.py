"""The folder of caches that all runs of this machine share, and one process at a time in it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from maskfleet.config import absolute_path
from maskfleet.environment import CACHE_VARIABLE
from maskfleet.files import FileDigest, read_plain, write_atomically

_DIGESTS = "digests.json"
"""Size and checksum of each file of a cache, written when all are complete."""
_MOST_BYTES = 1 << 26
"""Of the list of a cache's files."""
_ALWAYS_READ = 1 << 28
"""Bytes of a cache that are read at each start, in a tenth of a second or so; of a larger one, what has changed is."""


@contextlib.contextmanager
def locked(file: Path) -> Iterator[bool]:
    """Waits for the other processes that hold ``file``. The kernel frees the lock of one that dies.
    Users who share the folder wait for each other too.

    Yields whether it is held. On a file system without locks, or one that this user may only read, nobody waits, so
    what is done must be right even so.
    """
    descriptor = _open_lock(file)
    try:
        if descriptor is None:
            yield False
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError:
            yield False
        else:
            yield True
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _open_lock(file: Path) -> int | None:
    """Open for writing, or, where it is another user's, for reading, which is enough for the kernel.

    None if there is none and none can be made: who has to write there finds that out, who only reads need not. Links
    are not followed, as the folder may be one where everybody writes.
    """
    flags = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except OSError:
        with contextlib.suppress(OSError):
            return os.open(file, os.O_RDONLY | flags)
        return None
    if os.fstat(descriptor).st_uid == os.geteuid():
        os.fchmod(descriptor, 0o666)  # whatever the umask: it is empty, and other users have to open it
    return descriptor


def note_files(folder: Path) -> None:
    """Notes size and checksum of each file in ``folder``, for :func:`damage`."""
    files = (file for file in sorted(folder.iterdir()) if file.name != _DIGESTS)
    _write(folder, {file.name: FileDigest.of(file) for file in files})


def _write(folder: Path, digests: dict[str, FileDigest]) -> None:
    content = json.dumps({name: asdict(digest) for name, digest in digests.items()})
    write_atomically(folder / _DIGESTS, content.encode(), durable=False)


def damage(folder: Path) -> str | None:
    """What is wrong with the files that :func:`note_files` has noted; None if they are as they were.

    Compares all sizes, and the checksums of a small cache. Of one that takes seconds to read, only those files are read
    that were written to, or made as those of a copy are, since they were last found good.

    Raises:
        OSError: a file is there and can't be read.
    """
    try:
        found_good = (folder / _DIGESTS).stat().st_ctime_ns
        digests = json.loads(read_plain(folder / _DIGESTS, _MOST_BYTES))
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
    touched = [name for name in expected if (folder / name).stat().st_ctime_ns > found_good]
    is_small = sum(digest.size for digest in expected.values()) <= _ALWAYS_READ
    for name in expected if is_small else touched:
        if FileDigest.of(folder / name) != expected[name]:
            return f"{name} has other bytes"
    if touched:
        with contextlib.suppress(OSError):  # another user's: they will be read again
            _write(folder, expected)
    return None


def how_to_mend(error: OSError) -> str:
    """What a user can do about a cache that can't be read or written."""
    shared = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
    return f"{'let this user read and write it' if shared else 'make room'} or name another folder in {CACHE_VARIABLE}"


def cache_root() -> Path:
    """The folder that all runs of this machine share: ``$MASKFLEET_CACHE`` or ``~/.cache/maskfleet``."""
    return absolute_path(os.environ.get(CACHE_VARIABLE, "~/.cache/maskfleet"), CACHE_VARIABLE)
