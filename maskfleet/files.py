"""Files that are replaced whole and outlive a crash, and their digests."""

from __future__ import annotations

import base64
import contextlib
import errno
import fcntl
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c


@dataclass(frozen=True)
class FileDigest:
    """Size in bytes and CRC32C (base64 of the big-endian value, as object stores write it) of one file."""

    size: int
    crc32c: str

    @classmethod
    def of(cls, path: Path) -> FileDigest:
        """Reads the file once, in pieces of 1 MiB."""
        with path.open("rb") as file:
            return cls.read(file)

    @classmethod
    def read(cls, file: BinaryIO) -> FileDigest:
        """As :meth:`of`, from where the open file stands to its end."""
        checksum = google_crc32c.Checksum()
        size = 0
        while piece := file.read(1 << 20):
            checksum.update(piece)
            size += len(piece)
        return cls(size, base64.b64encode(checksum.digest()).decode())


def stays_inside(name: str) -> bool:
    """Whether ``name``, which came from elsewhere, is that of a file below the folder that it is joined to."""
    return "\0" not in name and not {"", ".", ".."}.intersection(name.split("/"))


def open_plain(path: Path) -> BinaryIO:
    """A file to be read, if it is one: to open a FIFO would wait for somebody to write into it.

    Raises:
        OSError: it can't be read, or is a folder (IsADirectoryError), a FIFO or a device.
    """
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # closes what is a folder
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "expected a file, found a pipe or device", str(path))
    return file


def read_plain(path: Path, limit: int) -> bytes:
    """All of :func:`open_plain`'s file; OSError with EFBIG if it has more than ``limit`` bytes."""
    with open_plain(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"has more than {limit} bytes", str(path))
    return content


def check_writable(path: Path, *, folder: bool = False) -> None:
    """Whether a file, or a folder of files, may be written there, as far as that can be told without writing.

    For what takes long to compute: a mistake in a name shall be told before. A disk that is full shows later.

    Raises:
        OSError: it may not.
    """
    there = next(each for each in (path.absolute(), *path.absolute().parents) if os.path.lexists(each))
    code = 0
    if there == path.absolute() and not folder:
        code = errno.EISDIR if path.is_dir() else 0
        there = there.parent
    if not there.is_dir():
        code = errno.ENOTDIR
    elif code == 0 and not os.access(there, os.W_OK | os.X_OK):
        code = errno.EROFS if os.statvfs(there).f_flag & os.ST_RDONLY else errno.EACCES
    if code:
        raise OSError(code, os.strerror(code), str(path))


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """:func:`replacing` for content that is at hand whole."""
    with replacing(path, durable=durable) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A file to be written, which takes the place of ``path`` so that a reader sees the old content or the new.

    ``durable`` waits for the disk, so that the file outlives a crash of the machine too.

    Raises:
        OSError: the disk is full or the folder is not writable; nothing is left behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)  # of a process that was killed, or a link that somebody has put there
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
        if durable:
            wait_for_disk(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """An empty folder at ``path`` while the block lasts; what a process that was killed has left there goes first.

    It is one beside ``path`` while another process has that, and where the file system has no locks.

    Raises:
        OSError: the disk is full or the folder above is not writable.
    """
    path.mkdir(exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not _is_ours(path, descriptor):
            with tempfile.TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.") as other:
                yield Path(other)
            return
        try:
            for left in path.iterdir():
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)
    finally:
        os.close(descriptor)


def _is_ours(folder: Path, descriptor: int) -> bool:
    """Whether nobody else has locked the folder, or taken it away since it was opened."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), folder.stat(follow_symlinks=False))
    except OSError:
        return False


def wait_for_disk(path: Path) -> None:
    """Until what a file holds, or which names are in a folder, outlives a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Mapping[str, Any], *, durable: bool = True) -> None:
    """:func:`write_atomically` for a JSON object."""
    write_atomically(path, (json.dumps(value, indent=1) + "\n").encode(), durable=durable)


def append_line(path: Path, line: str) -> None:
    """Adds a line to a file of lines, whole or not at all; what a kill has left of one before goes first.

    Raises:
        OSError: the disk is full or the file is not writable; it is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The names of a run's files are known: a link would have the line written to another place.
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o666), "ab+", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        whole = _end_of_last_line(file, size)
        if whole < size:
            file.truncate(whole)
        content = line.encode() + b"\n"
        try:
            if file.write(content) != len(content):  # what is left of the disk takes a part
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except BaseException:
            file.truncate(whole)
            raise


def _end_of_last_line(file: BinaryIO, size: int) -> int:
    """The position behind the last newline of a file of ``size`` bytes."""
    end = size
    while end > 0:
        start = max(0, end - (1 << 16))
        file.seek(start)
        if (found := file.read(end - start).rfind(b"\n")) >= 0:
            return start + found + 1
        end = start
    return 0
