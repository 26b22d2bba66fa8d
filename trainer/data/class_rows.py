"""The lines of a table of classes, as people write them. Imports no TensorFlow."""

from __future__ import annotations

import csv
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from maskfleet.errors import BadData
from trainer.data.lists import read_lines, shown

IGNORED_NAME = "ignored"
"""What stands in a class's place for pixels that count nowhere."""
_IGNORED_NAMES = frozenset({IGNORED_NAME, "ignore"})
REST = "*"
"""What stands in a value's place for all values that the table does not name."""
_COLOUR = re.compile(r"^(?P<name>.+?)[\s:,]+(?P<r>\d+)[\s,]+(?P<g>\d+)[\s,]+(?P<b>\d+)\s*(:.*)?$")
"""CVAT puts parts and actions after the colour."""
_HEX = re.compile(r"(?<=[\s:,])#([0-9a-fA-F]{6})$")
"""Another way to write a colour."""
_VALUE = re.compile(r"^(?P<value>-?\d+|\*)[\s:,]+(?P<name>.+)$")
_LABELME_IGNORED = "__ignore__"
"""labelme's name for the label -1, which it writes as 255."""
_LARGEST_VALUE = 1 << 31
_MOST_ROWS = 1 << 16
_LONGEST_NAME = 200

Colour = tuple[int, int, int]


class Row(NamedTuple):
    """A line of a table: a class, or :data:`IGNORED_NAME`, with the value and the colour that it has in masks.

    ``value`` is None where the place in the table is the value, and :data:`REST` for all that no other row has.
    """

    name: str
    value: int | str | None = None
    colour: Colour | None = None

    @property
    def ignored(self) -> bool:
        return is_ignored(self.name)


def is_ignored(name: str) -> bool:
    """Whether this stands for pixels that count nowhere, in a class's place."""
    return name.lower() in _IGNORED_NAMES


def check_names(names: Iterable[str], where: Path | str) -> None:
    """Raises BadData for a name of a class that can't be printed, or kept in a run's files."""
    for name in names:
        if not name.strip():
            raise BadData(f"{where}: expected a name of each class, found an empty one")
        if len(name) > _LONGEST_NAME:
            raise BadData(f"{where}: expected a name of a class, found one of {len(name)} characters")
        if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
            raise BadData(f"{where}: expected a name of a class in plain text, found {shown(name)}; rename it")


def read_rows(file: Path) -> list[Row]:
    """The rows of a text with a class on each line, or of a CSV.

    Raises:
        BadData: a line that is none of :meth:`~trainer.data.class_table.ClassTable.read`.
    """
    lines = read_lines(file)
    if len(lines) > _MOST_ROWS:
        raise BadData(f"{file}: expected 2 to 255 classes, one a line, found {len(lines)}")
    return _csv_rows(file, lines) if file.suffix.lower() == ".csv" else _rows(file, lines)


def _rows(file: Path, lines: list[str]) -> list[Row]:
    lines = [_HEX.sub(lambda match: " ".join(map(str, bytes.fromhex(match[1]))), line) for line in lines]
    coloured = any(map(_COLOUR.match, lines))
    if not coloured:
        lines = [line.rstrip(":").strip() for line in lines]
        if lines[:1] == [_LABELME_IGNORED]:
            lines = lines[1:]
    valued = any(map(_VALUE.match, lines))
    return [_row(file, line, valued=valued, coloured=coloured) for line in lines]


def _row(file: Path, line: str, *, valued: bool, coloured: bool) -> Row:
    """Of a line in a text whose lines have values, or colours, or both."""
    rest, value = line, None
    if valued:
        match = _VALUE.match(line)
        if match is None:
            raise BadData(
                f"{file}: expected a value before the name such as '3 {line}', as other lines have one, found {line!r}"
            )
        rest, value = match["name"].strip(), _value(file, match["value"])
    if not coloured or (valued and is_ignored(rest)):
        return Row(rest, value)
    match = _COLOUR.match(rest)
    if match is None:
        name, cvat, _ = line.partition(":")
        wanted = f"{name}:128,0,0::" if cvat else f"{line} 128 0 0"
        raise BadData(f"{file}: expected a colour such as '{wanted}', as other lines have one, found {line!r}")
    return Row(match["name"], value, _colour(file, [match["r"], match["g"], match["b"]], line))


def _csv_rows(file: Path, text: list[str]) -> list[Row]:
    """Of a CSV whose first line names its columns: name, r, g, b, and a value if there is one."""
    if text and _COLOUR.match(text[0]):  # without a header
        return _rows(file, text)
    lines = [line for line in csv.reader(text, skipinitialspace=True) if any(line)]
    header = [cell.strip().lower() for cell in lines[0]] if lines else []

    def column(*names: str) -> int | None:
        return next((header.index(name) for name in names if name in header), None)

    name, value = (
        column("name", "class", "class_name", "label"),
        column("value", "pixel value", "id", "index", "class_id"),
    )
    channels = [column("r", "red"), column("g", "green"), column("b", "blue")]
    if name is None or (None in channels and any(channel is not None for channel in channels)):
        raise BadData(f"{file}: expected the columns name,r,g,b in its first line, found {','.join(header)[:100]!r}")
    rows = []
    for cells in lines[1:]:
        if len(cells) != len(header):
            raise BadData(
                f"{file}: expected {len(header)} columns in each line, found {len(cells)} in {','.join(cells)!r}"
            )
        colour = None
        if None not in channels:
            colour = _colour(file, [cells[i].strip() for i in channels if i is not None], ",".join(cells))
        rows.append(Row(cells[name].strip(), None if value is None else _value(file, cells[value].strip()), colour))
    return rows


def _colour(file: Path, channels: Sequence[str], line: str) -> Colour:
    if not all(channel.isascii() and channel.isdigit() and int(channel[:9]) <= 255 for channel in channels):
        raise BadData(f"{file}: expected red, green and blue from 0 to 255, found {line!r}")
    red, green, blue = map(int, channels)
    return red, green, blue


def _value(file: Path, text: str) -> int | str:
    if text == REST:
        return text
    try:
        value = int(text)
    except ValueError:
        value = _LARGEST_VALUE
    if abs(value) >= _LARGEST_VALUE:
        raise BadData(f"{file}: expected a value as a whole number that a mask can hold, found {text[:40]!r}")
    return value
