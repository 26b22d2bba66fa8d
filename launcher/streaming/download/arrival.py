"""One object of a destination on its way to this disk: through no link, and there when it is complete."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launcher.streaming.stores.store import Store, StoredObject
from maskfleet.errors import BadData, BadInput, BadSettings, MaskfleetError
from maskfleet.files import FileDigest
from maskfleet.plain_files import PlainFiles

_OF_ITS_PLACE = {errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY,
                 errno.EILSEQ, errno.EINVAL}  # fmt: skip
"""Errors that hinder this file alone: what is in its place, or a name that this disk can't hold."""
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class InTheWay(BadInput):
    """An object can't have its file here: a link or a folder is in its place, or this disk can't hold the name."""


class DiskFailed(MaskfleetError):
    """This disk is full, or fails: no other file can be written either."""


def check_folder(folder: Path) -> None:
    """Before anything is fetched into ``folder``, which need not be there.

    Raises:
        BadSettings: there is something else in its place, or in that of a folder above it.
    """
    there = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    if not there.is_dir():
        raise BadSettings(f"{there}: expected a folder, or nothing; choose another one")


def download(store: Store, found: StoredObject, files: PlainFiles, name: str | None = None) -> FileDigest:
    """Fetches one object into the file of its name, or of ``name``. Returns the digest of what was received.

    Raises:
        Changed: the object was replaced meanwhile.
        BadData: what came is not what the store says the object holds.
        InTheWay, BadSettings, DiskFailed: the file can't be written; nothing is left behind.
    """
    with writing(files), files.replacing(name or found.name, durable=False) as file:
        for piece in store.read(found):
            file.write(piece)
        file.seek(0)
        digest = FileDigest.read(file)
        if digest.size != found.size or found.crc32c not in (None, digest.crc32c):
            raise BadData(f"{store.url}/{found.name}: received {digest}, expected {found.size} bytes, {found.crc32c}")
    return digest


@contextmanager
def writing(files: PlainFiles) -> Iterator[None]:
    """The disk's errors of the block in one line each. The stores' own are none of them."""
    try:
        yield
    except OSError as error:
        problem = f"{error.filename or files.root}: can't be written: {error.strerror or error}"
        if error.errno in _OF_ITS_PLACE:
            mend = "move it away, rename the object, or choose another folder"
            raise InTheWay(f"{error.filename or files.root}: {error.strerror or error}; {mend}") from error
        if error.errno in _NOT_ALLOWED:
            raise BadSettings(problem) from error
        mend = "; make room and begin again: what has come is kept" if error.errno in _FULL else ""
        raise DiskFailed(problem + mend) from error
