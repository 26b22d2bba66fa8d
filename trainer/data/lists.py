"""Text files that list the examples of a split. Imports no TensorFlow."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from maskfleet.errors import BadData
from maskfleet.text import format_bytes

_LARGEST = 1 << 28
"""Bytes of a list of names: that of some million images is smaller."""
_LONGEST = 1000
"""Characters of a line: file systems end names at 255."""


def read_lines(file: Path) -> list[str]:
    """The lines that are neither empty nor a comment (``#``), stripped.

    Raises:
        BadData: the file is missing or no text, or larger than any such list.
    """
    try:
        if file.exists() and not file.is_file():
            raise BadData(f"{file}: expected text with a name on each line, found something that is no file")
        if (size := file.stat().st_size) > _LARGEST:
            raise BadData(f"{file}: expected text with a name on each line, found a file of {format_bytes(size)}")
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadData(f"{file}: expected text in UTF-8, found byte {error.object[error.start]:#04x}") from error
    except OSError as error:
        raise BadData(f"{file}: expected text with a name on each line: {error.strerror}") from error
    lines = [line.strip() for line in text.splitlines()]
    if too_long := next((line for line in lines if len(line) > _LONGEST), None):
        raise BadData(f"{file}: expected a name on each line, found a line of {len(too_long)} characters")
    return [line for line in lines if line and not line.startswith("#")]


def shown(path: Path | str) -> str:
    """As text that can be printed, whatever bytes and control characters a name has."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def check_utf8(path: Path | str) -> None:
    """Raises BadData for a name that was written in another encoding, and so can't be kept in a run's files."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise BadData(
            f"{shown(path)}: expected a name in UTF-8, found other bytes in it; rename it (convmv renames many)"
        ) from error


def found_in(folder: Path) -> str:
    """The first names in a folder, for a message."""
    return ", ".join(sorted(shown(entry.name) for entry in folder.iterdir())[:5]) or "nothing"


def read_list(file: Path, *, first_word: bool = False) -> tuple[str, ...]:
    """A name on each line, or the first word of each line.

    Raises:
        BadData: the file is missing, is empty, or names an example twice.
    """
    names = tuple(line.split()[0] if first_word else line for line in read_lines(file))
    if not names:
        raise BadData(f"{file}: expected a name on each line, found none")
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise BadData(f"{file}: names {name} {count} times; remove the repetition")
    return names


def missing_files(list_file: Path, files: Iterable[Path], what: str) -> None:
    """Raises BadData for the first of ``files`` that does not exist, with the number of the others."""
    missing = [file for file in files if not file.is_file()]
    if missing and missing[0].is_symlink():
        raise BadData(f"{missing[0]}: this {what} is a link to {missing[0].readlink()}, which is not there")
    if missing:
        others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise BadData(f"{missing[0]}: this {what}{others} is named in {list_file.name} but is not there")


def check_disjoint(first_file: Path, first: tuple[str, ...], second_file: Path, second: tuple[str, ...]) -> None:
    """Raises BadData if an example is for training and for testing."""
    both = set(first).intersection(second)
    if both:
        raise BadData(
            f"{min(both)}: is named in {first_file.name} and in {second_file.name}, as {len(both)} in all; "
            "test with images that were not trained on"
        )


def divide(names: tuple[str, ...], where: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Four fifths for training and a fifth for testing, chosen by the hash of the name.

    So the choice is the same on every machine and in any order of files, and hardly changes when some are added.

    Raises:
        BadData: there are fewer than two; ``where`` tells the user whose.
    """
    if len(names) < 2:
        raise BadData(f"{where}: expected at least 2 pairs, one for training and one for testing, found {len(names)}")
    by_hash = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    test = set(by_hash[: max(1, round(len(names) / 5))])
    return tuple(name for name in names if name not in test), tuple(name for name in names if name in test)
