"""Parts of a picture with what a network says of them, and the file of all of them. Imports no TensorFlow."""

from __future__ import annotations

from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Tile(NamedTuple):
    """A part of an image: its place there, and scores float32 [rows, columns, classes]: probabilities, or logits."""

    rows: slice
    columns: slice
    scores: NDArray[np.float32]


class NumbersFile:
    """Probabilities of a whole image as NumPy keeps arrays, filled tile by tile."""

    def __init__(self, file: BinaryIO, shape: tuple[int, int, int]):
        self._file, self._shape = file, shape
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        self._start = file.tell()

    def write(self, tile: Tile) -> None:
        _, width, classes = self._shape
        for row, numbers in zip(range(tile.rows.start, tile.rows.stop), tile.scores, strict=True):
            self._file.seek(self._start + 4 * classes * (row * width + tile.columns.start))
            self._file.write(numbers.astype("<f4").tobytes())
