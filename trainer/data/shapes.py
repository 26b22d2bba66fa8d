"""Masks drawn from what people draw: polygons, run lengths, ellipses. Imports no TensorFlow.

Coordinates are pixels from the picture's upper left corner: pixel (0, 0) lies between 0 and 1. A pixel is a polygon's
if its centre is inside, as pycocotools counts, to a fifth of a pixel. Whatever lies outside the picture is cut off.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from maskfleet.errors import BadData
from trainer.data.source import Mask

_CORNERS = 3
_ELLIPSE = 360
"""Corners of what stands for an ellipse, at most."""


class Shape(Protocol):
    """A part of a picture."""

    @property
    def area(self) -> float:
        """In pixels, of all of it."""

    def paint(self, mask: Mask, label: int) -> None:
        """Writes ``label`` into its pixels."""


@dataclass(frozen=True)
class Polygons:
    """One or more polygons, float (N, 2) of x and y; all that is in one of them."""

    parts: tuple[NDArray[np.float64], ...]

    @property
    def area(self) -> float:
        return float(sum(_area(part) for part in self.parts))

    def paint(self, mask: Mask, label: int) -> None:
        from pycocotools import mask as coco

        height, width = mask.shape
        for part in self.parts:
            left, top = np.floor(part.min(axis=0)).astype(int).clip(0, (width, height)).tolist()
            right, bottom = (np.ceil(part.max(axis=0)).astype(int) + 1).clip(0, (width, height)).tolist()
            if left >= right or top >= bottom:
                continue
            # A window of its own: a canvas of the picture's size for each of many shapes takes long.
            runs = coco.frPyObjects([(part - (left, top)).ravel().tolist()], bottom - top, right - left)
            mask[top:bottom, left:right][coco.decode(runs)[..., 0].astype(bool)] = label


@dataclass(frozen=True)
class Runs:
    """Lengths of runs of pixels outside and inside by turns, down the columns, int (N,); of the whole picture."""

    counts: NDArray[np.int64]

    @property
    def area(self) -> float:
        return float(self.counts[1::2].sum())

    def paint(self, mask: Mask, label: int) -> None:
        height, width = mask.shape
        inside = np.repeat(np.arange(len(self.counts)) % 2 == 1, self.counts).reshape(width, height).T
        mask[inside] = label


@dataclass(frozen=True)
class Bitmap:
    """Pixels bool (h, w) whose upper left one is in this row and column of the picture."""

    inside: NDArray[np.bool_]
    top: int
    left: int

    @property
    def area(self) -> float:
        return float(self.inside.sum())

    def paint(self, mask: Mask, label: int) -> None:
        height, width = mask.shape
        top, left = max(0, self.top), max(0, self.left)
        bottom, right = min(height, self.top + self.inside.shape[0]), min(width, self.left + self.inside.shape[1])
        if top < bottom and left < right:
            part = self.inside[top - self.top : bottom - self.top, left - self.left : right - self.left]
            mask[top:bottom, left:right][part] = label


def drawn(shapes: Iterable[tuple[Shape, int]], height: int, width: int, uncovered: int) -> Mask:
    """uint8 (height, width): the labels of the shapes, each over those before it, and ``uncovered`` beside them."""
    mask = np.full((height, width), uncovered, np.uint8)
    for shape, label in shapes:
        shape.paint(mask, label)
    return mask


def smaller_on_top(shapes: Sequence[tuple[Shape, int]]) -> list[tuple[Shape, int]]:
    """The largest first: what lies on something is smaller than that, as a cup on a table."""
    return sorted(shapes, key=lambda each: -each[0].area)


def polygon(values: Any, width: int, height: int, where: str) -> NDArray[np.float64]:
    """The points float (N, 2) of ``[x, y, x, y, …]``, which may reach beyond the picture by its own size.

    Raises:
        BadData: no numbers, less than three points, a point far outside, or all of it outside the picture.
    """
    if isinstance(values, np.ndarray):
        numbers = values
    elif isinstance(values, list | tuple) and all(type(value) in (int, float) for value in values):
        numbers = np.array([float(min(max(value, -1e300), 1e300)) if type(value) is int else value for value in values])
    else:
        raise BadData(f"{where}: expected a polygon as numbers x, y, x, y …, found {_short(values)}")
    if len(numbers) % 2:
        raise BadData(f"{where}: expected a polygon as pairs of x and y, found {len(numbers)} numbers")
    if len(numbers) < 2 * _CORNERS:
        raise BadData(
            f"{where}: expected a polygon of 3 points or more, found {len(numbers) // 2}; remove or redraw it"
        )
    return within(numbers.reshape(-1, 2), width, height, where)


def within(points: NDArray[np.float64], width: int, height: int, where: str) -> NDArray[np.float64]:
    """``points`` (N, 2).

    Raises:
        BadData: one is no number or far outside of the picture, or all are outside.
    """
    if not np.isfinite(points).all():
        raise BadData(f"{where}: expected finite coordinates, found {points[~np.isfinite(points)][0]}; redraw it")
    size = np.array((width, height))
    far = ((points < -size) | (points > 2 * size)).any(axis=1)
    outside = (points < 0).all(axis=0) | (points > size).all(axis=0)
    if far.any() or outside.any():
        x, y = points[far][0] if far.any() else points[0]
        raise BadData(
            f"{where}: expected a shape within its picture of {width} x {height} pixels, found a point at "
            f"({x:g}, {y:g}); was the picture scaled or cut after it was annotated?"
        )
    return points


def ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0.0) -> NDArray[np.float64]:
    """Points (N, 2) of an ellipse about (x, y), turned clockwise as the picture is seen."""
    count = int(min(_ELLIPSE, max(16, 4 * (radius_x + radius_y))))
    angles = np.linspace(0, 2 * math.pi, count, endpoint=False)
    return turned(np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=1), (x, y), degrees)


def box(left: float, top: float, right: float, bottom: float, degrees: float = 0.0) -> NDArray[np.float64]:
    """The corners (4, 2) of a rectangle, turned clockwise about its middle."""
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)], float)
    return turned(corners, ((left + right) / 2, (top + bottom) / 2), degrees)


def turned(points: NDArray[np.float64], centre: tuple[float, float], degrees: float) -> NDArray[np.float64]:
    """``points`` (N, 2) turned clockwise, as the picture is seen, about ``centre``."""
    if not degrees:
        return points
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.asarray((points - centre) @ np.array([[cos, sin], [-sin, cos]]) + centre)


def run_lengths(segmentation: Mapping[str, Any], width: int, height: int, where: str) -> Runs:
    """COCO's ``{"size": [h, w], "counts": …}``, numbers or its own text.

    Raises:
        BadData: it is of another size than the picture, or its runs are.
    """
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(each) is int for each in size)):
        raise BadData(f"{where}: expected run lengths with a size [height, width], found {_short(size)}")
    if size != [height, width]:
        raise BadData(
            f"{where}: expected run lengths of its picture's {width} x {height} pixels, found {size[1]} x {size[0]}; "
            "export the annotations anew, with the pictures as they are now"
        )
    if isinstance(counts, str):
        counts = _counts_of_text(counts, where)
    if not (isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts)):
        raise BadData(f"{where}: expected run lengths as counts from 0 on, found {_short(counts)}")
    return Runs(checked_counts(counts, width * height, where))


def checked_counts(counts: Sequence[int], pixels: int, where: str) -> NDArray[np.int64]:
    """Raises BadData unless the runs cover exactly so many pixels."""
    if sum(counts) != pixels:
        raise BadData(f"{where}: expected run lengths of {pixels} pixels together, found {sum(counts)}")
    return np.array(counts, np.int64)


def _counts_of_text(text: str, where: str) -> list[int]:
    """COCO's text: 5 bits a letter from '0' on, the sixth says that more follow; from the third on, differences.

    Source: rleFrString in cocoapi's maskApi.c. That reads and writes beyond its memory for a text that is none.
    """
    counts: list[int] = []
    number = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise BadData(f"{where}: expected run lengths as COCO writes them, found {_short(text)}")
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        counts.append(number + counts[-2] if len(counts) > 2 else number)
        number = shift = 0
    if shift:
        raise BadData(f"{where}: expected run lengths as COCO writes them, found a text that is cut: {_short(text)}")
    return counts


def _area(points: NDArray[np.float64]) -> float:
    """Of a polygon (N, 2), by the shoelace formula."""
    x, y = points.T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
