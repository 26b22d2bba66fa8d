"""Names and colours of classes, and masks that are drawn with them. Imports no TensorFlow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskfleet.config import DEFAULT_MAX_PIXELS
from maskfleet.errors import BadData
from trainer.data.class_rows import IGNORED_NAME, REST, Colour, Row, check_names, read_rows
from trainer.data.images import MaskFile, check_labels, labels_in, read_labels, read_picture
from trainer.data.orientation import pair
from trainer.data.source import IGNORED, Example, Mask, Reading, palette

_NAME_COLOURS = "name the colours in classes.txt ('background 0 0 0' on a line), or save labels"
TABLES = ("classes.txt", "labelmap.txt", "class_names.txt", "class_dict.csv")
"""Ours, CVAT's, labelme's, and that of many data sets drawn in colours (CamVid, DeepGlobe)."""
BINARY_CLASSES = ("background", "object")
"""Of masks of one class, where nobody names them."""
_STRIP = 1 << 20
"""Pixels whose colours are looked up at once: each takes some dozen bytes meanwhile."""


@dataclass(frozen=True)
class ClassTable:
    """The classes of a data set.

    Attributes:
        names: of the classes, in the order of the labels.
        colours: uint8 (classes, 3), for pictures and, if ``by_colour``, to read masks.
        ignored: colours of :data:`IGNORED` in masks.
        by_colour: masks are drawn in these colours, see :meth:`read_mask`.
        values: label, a class or :data:`IGNORED`, of each value that a mask may hold; None where these are the same.
        rest: label of all other values; None if there shall be none.
        threshold: masks are of one class, the second, which is where a value is over this one.
    """

    names: tuple[str, ...]
    colours: NDArray[np.uint8]
    ignored: tuple[Colour, ...] = ()
    by_colour: bool = True
    values: Mapping[int, int] | None = None
    rest: int | None = None
    threshold: float | None = None

    @classmethod
    def read(cls, file: Path) -> ClassTable:
        """Reads a table of classes.

        On each line a NAME, whose label is the line's place; ``VALUE NAME``, where masks hold other values; either
        with ``R G B`` behind it. Also CVAT's ``labelmap.txt`` (``NAME:R,G,B::``) and a CSV with columns such as
        ``name,r,g,b``.

        Raises:
            BadData: the file is empty or contradicts itself.
        """
        return cls.of(read_rows(file), file)

    @classmethod
    def of(cls, rows: Sequence[Row], where: Path | str) -> ClassTable:
        """The table of these rows; ``where`` says whose they are.

        Rows with values may name a class twice: then all these values are the one class.

        Raises:
            BadData: there are less than 2 classes or more than 255, or two rows contradict each other.
        """
        valued = any(row.value is not None for row in rows)
        classes = [row for row in rows if not row.ignored]
        names = [row.name for row in classes]
        if valued:
            names = list(dict.fromkeys(names))
        _check_names(where, names)
        _check_colours(where, rows)
        label = {name: i for i, name in enumerate(names)}
        values: dict[int, int] | None = None
        rest = None
        if valued or (len(classes) < len(rows) and not any(row.colour for row in rows)):
            values = {}
            for place, row in enumerate(rows):
                value = place if row.value is None else row.value
                as_label = IGNORED if row.ignored else label[row.name]
                if isinstance(value, str):
                    if rest not in (None, as_label):
                        raise BadData(f"{where}: gives all other values to two classes, the second {row.name}")
                    rest = as_label
                elif values.setdefault(value, as_label) != as_label:
                    raise BadData(f"{where}: gives the value {value} to two classes, the second {row.name}")
            values.setdefault(IGNORED, IGNORED)
        colours = palette(len(names))
        drawn = {row.name: row.colour for row in reversed(classes) if row.colour}
        for name, colour in drawn.items():
            colours[label[name]] = colour
        ignored = tuple(row.colour for row in rows if row.ignored and row.colour)
        return cls(tuple(names), colours, ignored, bool(drawn), values, rest)

    def at_threshold(self, threshold: float | None, where: Path | str) -> ClassTable:
        """For masks of one class; with None as it is.

        Raises:
            BadData: it has not two classes, or says what else a value means.
        """
        if threshold is None:
            return self
        if len(self.names) != len(BINARY_CLASSES) or self.values is not None or self.ignored:
            raise BadData(
                f"{where}: --mask-threshold {threshold:g}: expected two names, of the background and of the class "
                f"that is over it, found {', '.join(self.names[:3])}"
                + (" with values of their own" if self.values is not None or self.ignored else "")
            )
        return replace(self, by_colour=False, threshold=threshold)

    @property
    def background(self) -> int | None:
        """The class called background, also as labelme's ``_background_``."""
        plain = [name.strip("_").lower() for name in self.names]
        return plain.index("background") if "background" in plain else None

    @property
    def reads_grey_by_label(self) -> bool:
        """Whether the values of a grey mask are labels, or what the table says of values."""
        return not self.by_colour or self.values is not None or bool((self.colours != self.colours[:, :1]).any())

    @property
    def assumes_ignored(self) -> bool:
        """Whether 255 in a mask means "ignored" without anybody having said that something does."""
        return self.reads_grey_by_label and not self._says_ignored and self.threshold is None

    @property
    def _says_ignored(self) -> bool:
        values = (self.values or {}).items()
        return self.rest is not None or any((label == IGNORED) != (value == IGNORED) for value, label in values)

    def read_pair(self, image_file: Path, mask_file: Path, reading: Reading) -> Example:
        """Raises BadData if one of the files is broken or they do not fit each other or the classes."""
        picture = read_picture(image_file, max_pixels=reading.max_pixels, bands=reading.bands)
        return pair(picture, self.read_mask(mask_file, reading.max_pixels), reading, image_file, mask_file)

    def read_mask(self, file: Path, max_pixels: int = DEFAULT_MAX_PIXELS) -> Mask:
        """By label; but if the masks are drawn in the table's colours, RGB images and palettes are read by colour.

        A grey image is read by colour only if all the table's colours are grey; else its values are labels. A table
        that says values is for all files but RGB images, which have none. The table and the kind of file decide this,
        never the pixels: a mask of nothing but 0 is the first class, or black, and must not be read otherwise than
        the masks beside it.

        Raises:
            BadData: names the first colour or label that is not known.
        """
        return self.mask_of(read_labels(file, max_pixels=max_pixels, soft=self.threshold is not None), file)

    def mask_of(self, found: MaskFile, file: Path | str) -> Mask:
        """As :meth:`read_mask`, of what ``file`` holds."""
        if self.threshold is not None:
            values = single_channel(found, file, "--mask-threshold is for masks in grey; leave it out")
            return (values > self.threshold).astype(np.uint8)
        by_value = self.values is not None and found.kind != "RGB"
        if not self.by_colour or by_value or (found.kind == "grey" and self.reads_grey_by_label):
            values = single_channel(found, file)
            return check_labels(values, self.names, file) if self.values is None else self._by_value(values, file)
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

    def _by_value(self, found: NDArray[Any], file: Path | str) -> Mask:
        """The mask; raises BadData for the first value that the table does not say."""
        known = dict(self.values or {})
        unknown = sorted(labels_in(found) - known.keys())
        if unknown and self.rest is None:
            row, column = np.argwhere(found == unknown[0])[0]
            listed = ", ".join(map(str, sorted(known)[:8])) + (" …" if len(known) > 8 else "")
            raise BadData(
                f"{file}: value {unknown[0]} at row {row}, column {column} is none of those that the classes have "
                f"({listed}); add it to them (in classes.txt: '{unknown[0]} NAME' or '{unknown[0]} {IGNORED_NAME}', "
                f"for all others '{REST} {IGNORED_NAME}')"
            )
        known.update(dict.fromkeys(unknown, IGNORED if self.rest is None else self.rest))
        values = np.array(sorted(known))
        labels = np.array([known[value] for value in values.tolist()], np.uint8)
        mask = np.empty(found.shape, np.uint8)
        rows = max(1, _STRIP // max(1, found.shape[1]))
        for start in range(0, len(found), rows):
            mask[start : start + rows] = labels[np.searchsorted(values, found[start : start + rows])]
        return mask

    def _by_colour(self, drawn: NDArray[Any]) -> tuple[Mask, int, tuple[int, int] | None]:
        """The mask; how many pixels have a colour that is not in the table, and the row and column of the first."""
        table = [*self.colours.astype(np.int32).tolist(), *self.ignored]
        values = [*range(len(self.names)), *[IGNORED] * len(self.ignored)]
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


def single_channel(mask: MaskFile, file: Path | str, mend: str = _NAME_COLOURS) -> NDArray[Any]:
    """The labels; those of an RGB mask whose channels are equal are its grey values.

    Raises:
        BadData: the mask is coloured.
    """
    if mask.kind != "RGB":
        return mask.labels
    if (mask.colours == mask.colours[..., :1]).all():
        return mask.colours[..., 0]
    raise BadData(f"{file}: expected labels in one channel, found an RGB image; {mend}")


def _check_colours(where: Path | str, rows: Sequence[Row]) -> None:
    """Raises BadData if two classes have one colour."""
    owners: dict[Colour, str] = {}
    for row in rows:
        if row.colour is None:
            continue
        owner = owners.setdefault(row.colour, row.name)
        if owner != row.name:
            raise BadData(f"{where}: {owner} and {row.name} have the same colour {row.colour}")


def _check_count(file: Path | str, count: int, most: int = IGNORED) -> None:
    if not 2 <= count <= most:
        raise BadData(f"{file}: expected 2 to {IGNORED} classes, one a line, found {count}")


def _check_names(file: Path | str, names: Sequence[str]) -> None:
    _check_count(file, len(names))
    check_names(names, file)
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise BadData(f"{file}: names the class {name} twice")
