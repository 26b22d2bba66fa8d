"""Text files that list the examples of a split. Imports no TensorFlow."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from maskfleet.errors import BadData
from maskfleet.text import format_bytes

TEST_SHARE = 1 / 5
"""Of the examples, for testing, where the data says nothing."""
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
    return "".join(c if c.isprintable() else _escaped(c) for c in os.fspath(path))


def _escaped(letter: str) -> str:
    """Bytes that are not UTF-8 stand in a path as halves of surrogate pairs."""
    if "\udc80" <= letter <= "\udcff":
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return letter.encode("unicode_escape").decode()


def expanded(path: str, where: str) -> Path:
    """``path`` with ``~`` and ``~USER`` as the shell has them.

    Raises:
        BadData: there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise BadData(f"{where}: there is no home of {path.partition('/')[0]}; name the place in full") from error


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


SPLIT_NAMES: Mapping[str, str] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""What lists and folders of a split are called, in small letters, and which split that is."""


def of_splits(entries: Iterable[Path], stem: Callable[[Path], str]) -> dict[str, Path]:
    """Those of ``entries`` whose ``stem`` names a split, by split: train, validation and test in this order.

    Raises:
        BadData: two are of the same split.
    """
    found: dict[str, Path] = {}
    for entry in sorted(entries):
        split = SPLIT_NAMES.get(stem(entry).lower())
        if split is None:
            continue
        if split in found:
            raise BadData(
                f"{shown(entry)}: expected one place for the {split} split, found {shown(found[split].name)} too; "
                "remove or rename one of them"
            )
        found[split] = entry
    return {split: found[split] for split in ("train", "validation", "test") if split in found}


def check_lists(lists: Mapping[str, Path], place: Path, otherwise: str) -> None:
    """Raises BadData unless there is a list for training and another one; ``otherwise`` says how to do with one."""
    if "train" not in lists or len(lists) < 2:
        missing = "train.txt" if "train" not in lists else "val.txt or test.txt"
        there = " and ".join(file.name for file in lists.values())
        what = "training" if "train" not in lists else "another split than training"
        raise BadData(
            f"{shown(place)}: expected {missing}, a list of names for {what}, beside {there}; add it"
            + (f", or {otherwise}" if len(lists) < 2 else "")
        )


def withheld(names: Mapping[str, Sequence[str]], has_mask: Callable[[str], bool]) -> bool:
    """Whether no image of the test split has a mask, as challenges keep them, and another split can be scored on."""
    return {"validation", "test"} <= names.keys() and not any(map(has_mask, names["test"]))


def check_disjoint(lists: Mapping[Path, Sequence[str]]) -> None:
    """Raises BadData if an example is named in two of these lists."""
    for (first_file, first), (second_file, second) in itertools.combinations(lists.items(), 2):
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
    test = held_out(names, TEST_SHARE)
    return tuple(name for name in names if name not in test), tuple(name for name in names if name in test)


def held_out(groups: Sequence[str], share: float) -> set[str]:
    """Groups that hold about ``share`` of all examples, one at least, chosen by the hash of the group's name.

    Args:
        groups: of each example; its own name, where each stands for itself.
    """
    sizes = Counter(groups)
    wanted, taken = max(1, round(len(groups) * share)), 0
    chosen: set[str] = set()
    for group in by_hash(sizes):
        if abs(taken + sizes[group] - wanted) < abs(taken - wanted):
            chosen.add(group)
            taken += sizes[group]
    return chosen or {min(by_hash(sizes), key=sizes.__getitem__)}


def by_hash(names: Iterable[str]) -> list[str]:
    """In an order that has nothing to do with the names, and is the same on every machine."""
    return sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
