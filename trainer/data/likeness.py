"""Which pictures are equal or nearly so, whatever their names, sizes and compression. Imports no TensorFlow.

A difference hash (D. Wong, N. Krawetz, "dHash", 2013): whether a small copy of the picture gets brighter from each
pixel to its right neighbour, here 16 x 16 of them. The correlation of the small copies then confirms or rejects.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from trainer.data.source import Image
from trainer.pictures import as_colours

_SIDE = 16
_BITS_APART = 32
"""Of 256. On photographs, copies that were scaled, compressed, brightened or made grey differ in 3 to 17 bits for nine
of ten; of 180,000 pairs of different pictures the nearest differ in 52."""
_CORRELATION = 0.95
_FLAT = 1.5
"""Standard deviation of the small copy, in grey values, under which its differences are noise."""
_SAMPLED = 96
"""Pixels along the shorter side from which the small copy is made."""
_AT_ONCE = 16
"""Pictures that are held against all others together: what that takes stays in the processor's cache."""


class Likeness(NamedTuple):
    """What is kept of a picture: a small grey copy, uint8 (16, 17), and a checksum of all pixels where that is flat."""

    small: NDArray[np.uint8]
    checksum: int | None


def likeness(image: Image) -> Likeness:
    step = max(1, min(image.shape[:2]) // _SAMPLED)
    grey = PIL.Image.fromarray(np.ascontiguousarray(as_colours(image[::step, ::step]))).convert("L")
    small = np.asarray(grey.resize((_SIDE + 1, _SIDE), PIL.Image.Resampling.BOX))
    return Likeness(small, zlib.crc32(np.ascontiguousarray(image).data) if small.std() < _FLAT else None)


def alike(first: Sequence[Likeness], second: Sequence[Likeness]) -> list[tuple[int, int]]:
    """For each picture of ``second`` that has one, the picture of ``first`` that is most like it: (first, second)."""
    found = _equal(first, second)
    (ours, our_places), (theirs, their_places) = (_hashes(side) for side in (first, second))
    for start in range(0, len(their_places) if our_places else 0, _AT_ONCE):
        apart = np.zeros((len(theirs[0][start : start + _AT_ONCE]), len(our_places)), np.uint16)
        for word, other in zip(ours, theirs, strict=True):
            apart += np.bitwise_count(other[start : start + _AT_ONCE, None] ^ word)
        for row, nearest in enumerate(apart.argmin(axis=1).tolist()):
            i, j = our_places[nearest], their_places[start + row]
            if apart[row, nearest] <= _BITS_APART and _correlation(first[i].small, second[j].small) >= _CORRELATION:
                found.append((i, j))
    return sorted(found, key=lambda pair: pair[1])


def _equal(first: Sequence[Likeness], second: Sequence[Likeness]) -> list[tuple[int, int]]:
    """Of pictures that show nothing to compare."""
    known = {(each.checksum, each.small.tobytes()): i for i, each in enumerate(first) if each.checksum is not None}
    keys = ((each.checksum, each.small.tobytes()) for each in second)
    return [(known[key], j) for j, key in enumerate(keys) if key in known]


def _hashes(pictures: Sequence[Likeness]) -> tuple[NDArray[np.uint64], list[int]]:
    """(4, N): 256 bits of each one that shows something, and their places."""
    places = [i for i, each in enumerate(pictures) if each.checksum is None]
    small = np.array([pictures[i].small for i in places], np.uint8).reshape(-1, _SIDE, _SIDE + 1)
    bits = np.packbits((small[:, :, 1:] > small[:, :, :-1]).reshape(-1, _SIDE * _SIDE), axis=1)
    return np.ascontiguousarray(np.ascontiguousarray(bits).view(np.uint64).T), places


def _correlation(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])
