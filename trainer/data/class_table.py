"""Names and colours of classes, and masks that are drawn with them. Imports no TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskfleet.config import DEFAULT_MAX_PIXELS
from maskfleet.errors import BadData
from trainer.data.images import MaskFile, check_labels, read_labels, read_picture
from trainer.data.lists import read_lines
from trainer.data.orientation import pair
from trainer.data.source import IGNORED, Example, Mask, Reading, palette

IGNORED_NAME = "ignored"
"""The line of a colour table with this name gives the colour of pixels that count nowhere."""
_COLOUR = re.compile(r"^(?P<name>.+?)[\s:,]+(?P<r>\d+)[\s,]+(?P<g>\d+)[\s,]+(?P<b>\d+)\s*(:.*)?$")
"""CVAT puts parts and actions after the colour."""
_NAME_COLOURS = "name the colours in classes.txt ('background 0 0 0' on a line), or save labels"
_LABELME_IGNORED = "__ignore__"
"""labelme's name for the label -1, which it writes as 255."""
TABLES = ("classes.txt", "labelmap.txt", "class_names.txt")
"""Ours, CVAT's and labelme's."""


_STRIP = 1 << 20
"""Pixels whose colours are looked up at once: each takes some dozen bytes meanwhile."""


@dataclass(frozen=True)
class ClassTable:
    """The classes of a data set.

    Attributes:
        names: of the classes, in the order of the labels.
        colours: uint8 (classes, 3), for pictures and, if ``by_colour``, to read masks.
        ignored: colour of :data:`IGNORED` in masks, or None.
        by_colour: masks are drawn in these colours, see :meth:`read_mask`.
    """

    names: tuple[str, ...]
    colours: NDArray[np.uint8]
    ignored: tuple[int, int, int] | None = None
    by_colour: bool = True

    @classmethod
    def read(cls, file: Path) -> ClassTable:
        """Reads ``NAME`` or ``NAME R G B`` on each line; also CVAT's ``labelmap.txt``, ``NAME:R,G,B::``.

        Raises:
            BadData: the file is empty or contradicts itself.
        """
        lines = read_lines(file)
        _check_count(file, len(lines), IGNORED + 1)  # one may be for ignored pixels
        matches = [_COLOUR.match(line) for line in lines]
        if not any(matches):
            plain = tuple(line.rstrip(":").strip() for line in lines)
            if plain[:1] == (_LABELME_IGNORED,):
                plain = plain[1:]
            _check_names(file, plain)
            return cls(plain, palette(len(plain)), by_colour=False)
        names: list[str] = []
        colours: list[tuple[int, int, int]] = []
        for line, match in zip(lines, matches, strict=True):
            if match is None:
                raise BadData(
                    f"{file}: expected a colour such as '{line} 128 0 0', as other lines have one, found {line!r}"
                )
            colour = (int(match["r"]), int(match["g"]), int(match["b"]))
            if max(colour) > 255:
                raise BadData(f"{file}: expected red, green and blue from 0 to 255, found {line!r}")
            if colour in colours:
                raise BadData(
                    f"{file}: {names[colours.index(colour)]} and {match['name']} have the same colour {colour}"
                )
            names.append(match["name"])
            colours.append(colour)
        ignored = None
        if IGNORED_NAME in names:
            ignored = colours.pop(names.index(IGNORED_NAME))
            names.remove(IGNORED_NAME)
        _check_names(file, names)
        return cls(tuple(names), np.array(colours, np.uint8), ignored)

    @property
    def background(self) -> int | None:
        """The class called background, also as labelme's ``_background_``."""
        plain = [name.strip("_").lower() for name in self.names]
        return plain.index("background") if "background" in plain else None

    @property
    def reads_grey_by_label(self) -> bool:
        """Whether the values of a grey mask are labels."""
        return not self.by_colour or bool((self.colours != self.colours[:, :1]).any())

    def read_pair(self, image_file: Path, mask_file: Path, reading: Reading) -> Example:
        """Raises BadData if one of the files is broken or they do not fit each other or the classes."""
        picture = read_picture(image_file, max_pixels=reading.max_pixels)
        return pair(picture, self.read_mask(mask_file, reading.max_pixels), reading, image_file, mask_file)

    def read_mask(self, file: Path, max_pixels: int = DEFAULT_MAX_PIXELS) -> Mask:
        """By label; but if the masks are drawn in the table's colours, RGB images and palettes are read by colour.

        A grey image is read by colour only if all the table's colours are grey; else its values are labels. The table
        and the kind of file decide this, never the pixels: a mask of nothing but 0 is the first class, or black, and
        must not be read otherwise than the masks beside it.

        Raises:
            BadData: names the first colour or label that is not known.
        """
        found = read_labels(file, max_pixels=max_pixels)
        if not self.by_colour or (found.kind == "grey" and self.reads_grey_by_label):
            return check_labels(single_channel(found, file), self.names, file)
        mask, unknown, first = self._by_colour(found.colours)
        if first is not None:
            row, column = first
            colour, mend = str(tuple(found.colours[row, column].tolist())), "save the mask without smooth edges"
            if found.kind != "RGB":
                colour += f" of value {found.labels[row, column]}"
                mend = "name the classes without colours if the masks' values are labels"
            raise BadData(
                f"{file}: {unknown / mask.size:.1%} of the pixels have a colour that is not in the colour table, "
                f"the first {colour} at row {row}, column {column}; add it, or {mend}"
            )
        return mask

    def _by_colour(self, drawn: NDArray[Any]) -> tuple[Mask, int, tuple[int, int] | None]:
        """The mask; how many pixels have a colour that is not in the table, and the row and column of the first."""
        table = [*self.colours.astype(np.int32).tolist(), *([self.ignored] if self.ignored else [])]
        values = [*range(len(self.names)), *([IGNORED] if self.ignored else [])]
        weights = np.array([1 << 16, 1 << 8, 1])
        codes = np.array(table) @ weights
        order = np.argsort(codes)
        mask, unknown, first = np.empty(drawn.shape[:2], np.uint8), 0, None
        rows = max(1, _STRIP // max(1, drawn.shape[1]))
        for start in range(0, len(drawn), rows):
            pixels = drawn[start : start + rows].astype(np.int64) @ weights
            nearest = order[np.searchsorted(codes[order], pixels).clip(max=len(codes) - 1)]
            mask[start : start + rows] = np.array(values, np.uint8)[nearest]
            wrong = codes[nearest] != pixels
            if first is None and wrong.any():
                row, column = np.argwhere(wrong)[0]
                first = start + int(row), int(column)
            unknown += int(wrong.sum())
        return mask, unknown, first


def single_channel(mask: MaskFile, file: Path, mend: str = _NAME_COLOURS) -> NDArray[Any]:
    """The labels; those of an RGB mask whose channels are equal are its grey values.

    Raises:
        BadData: the mask is coloured.
    """
    if mask.kind != "RGB":
        return mask.labels
    if (mask.colours == mask.colours[..., :1]).all():
        return mask.colours[..., 0]
    raise BadData(f"{file}: expected labels in one channel, found an RGB image; {mend}")


def _check_count(file: Path, count: int, most: int = IGNORED) -> None:
    if not 2 <= count <= most:
        raise BadData(f"{file}: expected 2 to {IGNORED} classes, one a line, found {count}")


def _check_names(file: Path, names: Sequence[str]) -> None:
    _check_count(file, len(names))
    for i, name in enumerate(names):
        if name in names[:i]:
            raise BadData(f"{file}: names the class {name} twice")
