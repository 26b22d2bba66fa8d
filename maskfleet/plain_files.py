"""The plain files below a folder, reached through no link.

Others write into a run's folder and into a destination too. So a name is followed folder by folder, each opened from
the one before: a link is not followed even if it is put there between two looks, and nothing waits for a FIFO.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from maskfleet.files import stays_inside
from maskfleet.text import one_line

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK
_SPECIAL = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_CLIPPED = 200
"""Bytes of a name that its temporary file's has: a disk holds names of up to 255."""


_DEEPEST = 1024
"""Bytes of the name of a folder that is walked: an object's name has no more in any bucket."""
_NAMED = 10
"""Names in a line of what was left out."""


class NotPlain(OSError):
    """A link, a FIFO, a socket or a device is where a file or a folder is expected."""


@dataclass(frozen=True)
class Entry:
    """A file below a folder, by its name relative to the root; or what is none, and why it is left out.

    ``error`` is that of a folder which may hold files; the rest that is left out are links and special files.
    """

    name: str
    problem: str | None = None
    error: OSError | None = None


class LeftOut:
    """What is left out of a folder, of which each is told once, however often the folder is looked at."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def __len__(self) -> int:
        return len(self._told)

    def line(self, entries: Iterable[Entry]) -> str | None:
        """The first few of ``entries`` that were not told of yet, and how many more there are; None without any."""
        new = [each for each in entries if each.problem is not None and each.name not in self._told]
        self._told.update(each.name for each in new)
        if not new:
            return None
        named = ", ".join(f"{one_line(each.name, 120)} {each.problem}" for each in new[:_NAMED])
        return f"left out: {named}" + (f", and {len(new) - _NAMED} more" if new[_NAMED:] else "")


@dataclass(frozen=True)
class PlainFiles:
    """The files below ``root``, by names with ``/`` between folders. The root itself may be a link.

    All methods raise OSError: NotPlain for a link or special file in the way, FileNotFoundError, IsADirectoryError and
    NotADirectoryError as usual, one of EILSEQ or EINVAL for a name that no file here can have.
    """

    root: Path

    def stat(self, name: str) -> os.stat_result:
        """Of the file itself."""
        with self._naming(name), self._parent(name) as (folder, last):
            return self._status(folder, last, name)

    def open(self, name: str) -> BinaryIO:
        """To be read."""
        return self._open(name, os.O_RDONLY, "rb")

    def read(self, name: str, limit: int) -> bytes:
        """All of a file that has at most ``limit`` bytes; OSError with EFBIG for a larger one."""
        with self.open(name) as file:
            content = file.read(limit + 1)
        if len(content) > limit:
            raise OSError(errno.EFBIG, f"has more than {limit} bytes", str(self.root / name))
        return content

    def open_to_append(self, name: str) -> BinaryIO:
        """Without a buffer: what is written is in the file. Is made if it is not there, with its folders."""
        return self._open(name, os.O_RDWR | os.O_APPEND | os.O_CREAT, "ab")

    @contextmanager
    def replacing(self, name: str, *, temporary: str | None = None, durable: bool = True) -> Iterator[BinaryIO]:
        """A file to be written and read back, which takes the place of ``name`` when the block ends without an error.

        ``temporary`` is its name until then, by default a hidden one beside it. ``durable`` waits for the disk.
        Nothing is left behind after an error.
        """
        with self._naming(name), self._parent(name, create=True) as (folder, last):
            with suppress(FileNotFoundError):
                self._status(folder, last, name)
            temporary = temporary or "/".join([*name.split("/")[:-1], _temporary(last)])
            with self._parent(temporary, create=True) as (aside, hidden):
                with suppress(FileNotFoundError):
                    os.unlink(hidden, dir_fd=aside)
                descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FILE, 0o666, dir_fd=aside)
                try:
                    with os.fdopen(descriptor, "w+b") as file:
                        yield file
                        file.flush()
                        if durable:
                            os.fsync(file.fileno())
                    os.replace(hidden, last, src_dir_fd=aside, dst_dir_fd=folder)
                except BaseException:
                    with suppress(FileNotFoundError):
                        os.unlink(hidden, dir_fd=aside)
                    raise
            if durable:
                os.fsync(folder)

    def set_time(self, name: str, seconds: float) -> None:
        """When the file was changed last, in seconds since 1970."""
        with self._naming(name), self._parent(name) as (folder, last):
            self._status(folder, last, name)
            os.utime(last, (seconds, seconds), dir_fd=folder, follow_symlinks=False)

    def delete(self, name: str) -> None:
        """One that is gone already is as good."""
        with suppress(FileNotFoundError), self._naming(name), self._parent(name) as (folder, last):
            self._status(folder, last, name)
            os.unlink(last, dir_fd=folder)

    def walk(self, folder: str = "", *, deep: bool = True) -> Iterator[Entry]:
        """All files below ``folder``, in no order, or with ``deep`` False those in it; none if it is not there."""
        waiting = [folder]
        while waiting:
            inside = waiting.pop()
            try:
                with self._folder(inside) as descriptor, os.scandir(descriptor) as entries:
                    modes = [(entry.name, entry.stat(follow_symlinks=False).st_mode) for entry in _present(entries)]
            except FileNotFoundError:
                continue
            except NotADirectoryError:
                if inside != folder:  # a moment ago it was one
                    continue
                yield Entry(inside, "is a file, expected a folder")
                continue
            except OSError as error:
                if isinstance(error, NotPlain):
                    yield Entry(inside, error.strerror)
                else:
                    yield Entry(inside or ".", f"can't be read: {error.strerror or error}", error)
                continue
            for last, mode in modes:
                name = f"{inside}/{last}" if inside else last
                if stat.S_ISREG(mode):
                    yield Entry(name)
                elif not stat.S_ISDIR(mode):
                    yield Entry(name, f"is {_SPECIAL.get(stat.S_IFMT(mode), 'no file')}")
                elif deep and len(os.fsencode(name)) > _DEEPEST:
                    yield Entry(name, f"is in folders whose names have more than {_DEEPEST} bytes")
                elif deep:
                    waiting.append(name)

    def _open(self, name: str, flags: int, mode: str) -> BinaryIO:
        with self._naming(name), self._parent(name, create=bool(flags & os.O_CREAT)) as (folder, last):
            try:
                self._status(folder, last, name)  # first, since opening a device may do something
            except FileNotFoundError:
                if not flags & os.O_CREAT:
                    raise
            try:
                descriptor = os.open(last, flags | _FILE, 0o666, dir_fd=folder)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO):  # a link or FIFO by now
                    self._status(folder, last, name)
                raise
        try:
            self._check(os.fstat(descriptor), name)
            return cast(BinaryIO, os.fdopen(descriptor, mode, buffering=0 if flags & os.O_CREAT else -1))
        except BaseException:
            os.close(descriptor)
            raise

    def _status(self, folder: int, last: str, name: str) -> os.stat_result:
        return self._check(os.stat(last, dir_fd=folder, follow_symlinks=False), name)

    def _check(self, status: os.stat_result, name: str) -> os.stat_result:
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, "is a folder, expected a file", str(self.root / name))
        if not stat.S_ISREG(status.st_mode):
            raise self._not_plain(status, name)
        return status

    def _not_plain(self, status: os.stat_result, name: str) -> NotPlain:
        kind = _SPECIAL.get(stat.S_IFMT(status.st_mode), "no file")
        return NotPlain(errno.ELOOP, f"is {kind}, which is left alone", str(self.root / name))

    @contextmanager
    def _naming(self, name: str) -> Iterator[None]:
        """Errors name the whole path, of which the kernel saw a part."""
        try:
            yield
        except OSError as error:
            if "/" not in str(error.filename or ""):
                error.filename, error.filename2 = str(self.root / name), None
            raise

    @contextmanager
    def _parent(self, name: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
        """The folder that a name is in, open, and the name's last part."""
        if not stays_inside(name):
            raise OSError(errno.EINVAL, "is no name of a file", name)
        try:
            os.fsencode(name)
        except UnicodeEncodeError as error:
            raise OSError(errno.EILSEQ, "is a name that can't be written here", ascii(name)) from error
        inside, _, last = name.rpartition("/")
        with self._folder(inside, create=create) as descriptor:
            yield descriptor, last

    @contextmanager
    def _folder(self, name: str, *, create: bool = False) -> Iterator[int]:
        """A folder below the root, or the root, open."""
        if create:
            with suppress(FileExistsError):  # of what is no folder: see below
                self.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            passed = ""
            for part in name.split("/") if name else ():
                passed = f"{passed}/{part}" if passed else part
                if create:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=descriptor)
                try:
                    inner = os.open(part, _FOLDER, dir_fd=descriptor)
                except OSError as error:
                    raise self._explained(error, descriptor, part, passed) from error
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    def _explained(self, error: OSError, folder: int, part: str, name: str) -> OSError:
        """Why a part of a name can't be opened as a folder."""
        if error.errno not in (errno.ENOTDIR, errno.ELOOP, errno.EMLINK):
            return type(error)(error.errno, error.strerror, str(self.root / name))
        try:
            status = os.stat(part, dir_fd=folder, follow_symlinks=False)
        except OSError as gone:
            return gone
        if stat.S_ISREG(status.st_mode):
            return NotADirectoryError(errno.ENOTDIR, "is a file, expected a folder", str(self.root / name))
        return self._not_plain(status, name)


def write_whole(file: BinaryIO, content: bytes) -> None:
    """All of ``content`` into a file without a buffer, by one call; OSError if the disk has room for a part alone."""
    if file.write(content) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def words(error: OSError) -> str:
    """An error of this disk in a few words, with the file that it is about."""
    place = f"{error.filename}: " if error.filename else ""
    return place + (error.strerror or str(error))


def _present(entries: Iterator[os.DirEntry[str]]) -> Iterator[os.DirEntry[str]]:
    """Those that are still there."""
    for entry in entries:
        with suppress(FileNotFoundError):
            entry.stat(follow_symlinks=False)  # which the entry keeps
            yield entry


def _temporary(last: str) -> str:
    clipped = os.fsencode(last)[:_CLIPPED].decode("ascii", "replace").replace("\ufffd", "_")
    return f".{clipped}.{os.getpid()}-{threading.get_native_id()}.tmp"
