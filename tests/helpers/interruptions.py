"""A disk that fills up, and a process that is killed, at any of the writes of what is tested."""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from maskfleet import plain_files

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_TAKING_ROOM = ("mkdir", "replace", "fsync")
_CHANGES = (*_TAKING_ROOM, "unlink", "utime")
_MORE = ("rename", "remove", "rmdir", "truncate")
"""Changes that plain_files does not make."""
_REAL = SimpleNamespace(**vars(os), io_open=io.open)


class Disk:
    """Counts what is done to files, and lets ``strike`` act at each.

    ``strike`` is called with the number of the change, and of a write how many bytes it has. It returns how many bytes
    of it are written before it fails, or None for one that succeeds; it may end the process.
    """

    def __init__(self, strike: Callable[[int, int], int | None]):
        self.changes = 0
        self._strike = strike

    def __getattr__(self, name: str) -> Any:
        real = getattr(_REAL, name)
        if name not in (*_CHANGES, *_MORE):
            return real

        def change(*arguments: Any, **how: Any) -> Any:
            self.change(0, takes_room=name in (*_TAKING_ROOM, "rename"))
            return real(*arguments, **how)

        return change

    def change(self, size: int, *, takes_room: bool = True) -> int | None:
        """For one change: how much of it is done before it fails."""
        self.changes += 1
        done = self._strike(self.changes, size)
        if done is not None and not size and takes_room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return done

    def open(self, path: Any, flags: int, *arguments: Any, **how: Any) -> int:
        if flags & _WRITING:
            self.change(0, takes_room=not _is_there(path, **how))
        return int(_REAL.open(path, flags, *arguments, **how))

    def fdopen(self, descriptor: int, mode: str, buffering: int = -1) -> Any:
        if mode == "rb":
            return _REAL.io_open(descriptor, mode, buffering)
        return _Cut(_REAL.io_open(descriptor, mode, 0), self, buffered=buffering != 0)

    def io_open(self, file: Any, mode: str = "r", buffering: int = -1, *arguments: Any, **how: Any) -> Any:
        """As ``open()``; a text has a buffer of its own, and is not cut."""
        if not set(mode) & set("wxa+"):
            return _REAL.io_open(file, mode, buffering, *arguments, **how)
        if not isinstance(file, int):
            self.change(0, takes_room=not _is_there(file))
        if "b" in mode:
            return _Cut(_REAL.io_open(file, mode, 0, *arguments, **how), self, buffered=buffering != 0)
        return _REAL.io_open(file, mode, buffering, *arguments, **how)


def _is_there(path: Any, **how: Any) -> bool:
    try:
        _REAL.stat(path, follow_symlinks=False, **how)
    except FileNotFoundError:
        return False
    return True


class _Cut:
    """A file whose writes may be cut."""

    def __init__(self, file: Any, disk: Disk, *, buffered: bool):
        self._file = file
        self._disk = disk
        self._buffered = buffered

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Cut:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, content: bytes) -> int:
        done = self._disk.change(len(content)) if content else None
        written: int = self._file.write(content if done is None else content[:done])
        if done is not None and self._buffered:  # which tries until all is written
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return written

    def truncate(self, size: int) -> int:
        self._disk.change(0, takes_room=False)
        return int(self._file.truncate(size))


@contextmanager
def full_from(number: int, changes: int, share: float, below: Path | None = None) -> Iterator[Disk]:
    """From the change of that number on, as many fail, a write after a ``share`` of its bytes; then there is room.

    What counts is done through :mod:`maskfleet.plain_files` or, with ``below``, by all of Python below that folder.
    """
    disk = Disk(lambda now, size: int(size * share) if number <= now < number + changes else None)
    with _on(disk, below):
        yield disk


def killed_at(number: int, share: float, action: Callable[[], object], below: Path | None = None) -> bool:
    """Does ``action`` in a process that is killed at its change of that number; whether it came that far."""
    process = os.fork()
    if process == 0:

        def strike(now: int, size: int) -> int | None:
            if now < number:
                return None
            if size and now == number:
                return int(size * share)  # and the next one is the end
            os.kill(os.getpid(), signal.SIGKILL)
            return None

        try:
            with _on(Disk(strike), below):
                action()
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(process, 0)
    return os.WIFSIGNALED(status) or os.WEXITSTATUS(status) != 0


@contextmanager
def _on(disk: Disk, below: Path | None) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if below is None:
            patch.setattr(plain_files, "os", disk)
        else:
            for name in ("open", *_CHANGES, *_MORE):
                patch.setattr(os, name, partial(_below, below, disk, name))
            for module in (io, builtins):
                patch.setattr(module, "open", partial(_below, below, disk, "io_open"))
        yield


def _below(folder: Path, disk: Disk, name: str, path: Any, *arguments: Any, **how: Any) -> Any:
    """What ``disk`` does below the folder, and elsewhere the system."""
    place = path
    if isinstance(path, int):
        place = _REAL.readlink(f"/proc/self/fd/{path}")
    elif (descriptor := how.get("dir_fd", how.get("src_dir_fd"))) is not None:
        place = Path(_REAL.readlink(f"/proc/self/fd/{descriptor}"), os.fspath(path))
    inside = folder in Path(os.fsdecode(place)).absolute().parents
    return getattr(disk if inside else _REAL, name)(path, *arguments, **how)
