"""Windows of one size that cover a picture of any size. Imports no TensorFlow."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from maskfleet.image_size import Size

OVERLAP = 0.25
"""Least share of a window by which neighbours overlap where each pixel counts in one of them."""


class Window(NamedTuple):
    """A part of a picture, and within it the part of which no other window sees more around it."""

    rows: slice
    columns: slice
    own_rows: slice
    own_columns: slice


def windows(picture: Size, window: Size) -> Iterator[Window]:
    """Windows that cover the picture, row by row; their own parts cover it once. They do not reach beyond it."""
    down, across = (list(_along(side, length)) for side, length in zip(picture, window, strict=True))
    for (rows, own_rows), (columns, own_columns) in itertools.product(down, across):
        yield Window(rows, columns, own_rows, own_columns)


def starts(side: int, window: int, overlap: float) -> list[int]:
    """First pixels of windows that cover ``side``, evenly spread, overlapping by at least ``overlap``."""
    step = max(1, int(window * (1 - overlap)))
    count = 1 + -(-(side - window) // step)
    return [round(start) for start in np.linspace(0, side - window, count)]


def _along(side: int, window: int) -> Iterator[tuple[slice, slice]]:
    """Along one axis: the place of each window, and of what is its own, counted from its start."""
    firsts = starts(side, window, OVERLAP) if side > window else [0]
    middles = [(first + window + following) // 2 for first, following in itertools.pairwise(firsts)]
    for first, begin, end in zip(firsts, [0, *middles], [*middles, side], strict=True):
        yield slice(first, min(first + window, side)), slice(begin - first, end - first)
