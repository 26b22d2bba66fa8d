"""Images and masks appended to NumPy's files, as many as there come. Imports no TensorFlow."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskfleet.image_size import Size


class ArrayFiles:
    """NAME-images.npy and NAME-masks.npy, filled one after another: of one size, or else with NAME-sizes.npy beside."""

    def __init__(self, folder: Path, name: str, size: Size | None, bands: int) -> None:
        self._place, self._size, self._bands = folder / name, size, bands
        self._sizes: list[tuple[int, ...]] = []

    def __enter__(self) -> ArrayFiles:
        with contextlib.ExitStack() as opening:
            paths = (Path(f"{self._place}-{part}.npy") for part in ("images", "masks"))
            self._files = [opening.enter_context(path.open("wb")) for path in paths]
            self._write_headers()
            self._close = opening.pop_all().close
        return self

    def add(self, image: NDArray[np.uint8], mask: NDArray[np.uint8]) -> None:
        for file, array in zip(self._files, (image, mask), strict=True):
            file.write(array.ravel().data)  # no copy of what is in one piece
        self._sizes.append(mask.shape)

    def __exit__(self, *_: object) -> None:
        try:
            self._write_headers()
            if self._size is None:
                np.save(f"{self._place}-sizes.npy", np.array(self._sizes, np.int64).reshape(-1, 2))
        finally:
            self._close()

    def _write_headers(self) -> None:
        """NumPy leaves room in them for any length of the first axis."""
        if self._size is None:
            shape: tuple[int, ...] = (sum(height * width for height, width in self._sizes),)
        else:
            shape = (len(self._sizes), *self._size)
        for file, channels in zip(self._files, ((self._bands,), ()), strict=True):
            file.seek(0)
            header: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": (*shape, *channels)}
            np.lib.format.write_array_header_1_0(file, header)
