"""The files in a folder and the folders in it. Imports no TensorFlow.

Data sets of links are common: to pictures on another disk, to those of another set. So links are followed, wherever
they lead, to files and to folders; what they lead to is read, never written. A link that leads nowhere or around in a
circle is refused, and so is what is no file, as a FIFO is: whoever opens one waits for ever.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from maskfleet.errors import BadData
from trainer.data.lists import check_utf8, shown

_Inode = tuple[int, int]


def files_under(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Those with one of ``suffixes`` (in small letters), without hidden ones; of each folder before those in it.

    Raises:
        BadData: as :func:`check_is_file`; a link leads to a folder that it lies in; a name is not UTF-8.
    """
    files: list[Path] = []
    _walk(folder, suffixes, frozenset(), files)
    return files


def check_is_file(file: Path) -> None:
    """Raises BadData for a link that leads nowhere, a FIFO, a socket or a device."""
    if file.is_file():
        return
    if file.is_symlink() and not file.exists():
        raise BadData(f"{shown(file)}: is a link to {shown(file.readlink())}, which is not there; mend or remove it")
    raise BadData(
        f"{shown(file)}: expected a file, found {'a folder' if file.is_dir() else 'a pipe or device'}; remove it"
    )


def is_there(file: Path) -> bool:
    """Whether something has this name, if only a link that leads nowhere."""
    return file.exists() or file.is_symlink()


def _walk(folder: Path, suffixes: Collection[str], above: frozenset[_Inode], files: list[Path]) -> None:
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise BadData(f"{shown(folder)}: is a link to {shown(folder.resolve())}, a folder that it lies in; remove it")
    folders = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(folder / entry.name)
            elif Path(entry.name).suffix.lower() in suffixes:
                file = folder / entry.name
                check_utf8(file)
                if not entry.is_file():
                    check_is_file(file)
                files.append(file)
    for each in folders:
        _walk(each, suffixes, above | {here}, files)
