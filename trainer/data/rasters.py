"""Pictures that are read a part at a time, so that they may be larger than memory. Imports no TensorFlow.

A TIFF is read where it lies. JPEG and PNG can only be read from their beginning, so such a photograph is copied once,
upright, into a file that can be read anywhere. rasterio does it; without it all pictures are read whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from maskfleet.errors import BadData
from maskfleet.text import one_line
from trainer.data.bands import check_samples, is_tiff, rasterio, white_of
from trainer.data.images import byte_table
from trainer.data.orientation import (
    AsStored,
    is_sideways,
    orientation_of,
    orientation_of_png,
    orientation_of_tiff,
    upright,
)
from trainer.data.source import Image

LARGE = 1 << 25
"""Pixels of a picture that is not read whole: 7 bytes each would be 230 MB."""
SIDE = 256
"""Of the blocks of files that are written here."""
_STRIP = 1 << 22
"""Pixels that are read at once where the whole is gone through."""


class Raster:
    """A picture as an array uint8 (H, W, bands) of which only slices of rows and columns are read.

    Attributes:
        shape: height, width, bands.
        dataset: rasterio's.
        is_tiff: whether its masks are to be TIFFs too.
    """

    def __init__(self, dataset: Any, bands: int, name: str, *, is_tiff: bool) -> None:
        self.shape = (dataset.height, dataset.width, bands)
        self.dataset, self.is_tiff, self._name = dataset, is_tiff, name
        # Of three bands grey is seen in all, and what is beyond the third in none; others are to be all that there are.
        found = (1 if dataset.count < 3 else 3) if bands == 3 else dataset.count
        self._indexes = list(range(1, found + 1))
        check_samples(np.zeros((1, 1, found), dataset.dtypes[0]), found if bands == 3 else bands, name)
        self._table = None
        if np.dtype(dataset.dtypes[0]) != np.uint8:
            self._table, _ = byte_table(self._largest(), white_of(dataset))

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, part: slice | tuple[slice, slice]) -> Image:
        """Raises BadData if the file is damaged there."""
        rows, columns = part if isinstance(part, tuple) else (part, slice(None))
        (top, bottom, _), (left, right, _) = rows.indices(self.shape[0]), columns.indices(self.shape[1])
        return self._as_bytes(self._read(window=((top, bottom), (left, right))))

    def smaller(self, height: int, width: int) -> Image:
        """The whole of it, (height, width, bands), by leaving out pixels."""
        return self._as_bytes(self._read(out_shape=(len(self._indexes), height, width)))

    def _read(self, **what: Any) -> NDArray[Any]:
        try:
            return np.moveaxis(self.dataset.read(self._indexes, **what), 0, -1)
        except Exception as error:  # GDAL's drivers have many for damaged files
            raise BadData(
                f"{self._name}: can't be read as an image, replace or remove it: {one_line(str(error))}"
            ) from error

    def _as_bytes(self, values: NDArray[Any]) -> Image:
        if self._table is not None:
            if values.dtype.kind == "i" and int(values.min()) < 0:
                raise BadData(f"{self._name}: expected samples from 0 on, found {int(values.min())}; save it as uint16")
            values = self._table[values]
        missing = self.shape[2] != values.shape[2]
        return np.repeat(values, self.shape[2], axis=2) if missing else np.ascontiguousarray(values)

    def _largest(self) -> int:
        return max(int(self._read(window=(rows, (0, self.shape[1]))).max()) for rows in _strips(*self.shape[:2]))


def is_raster(file: Path) -> bool:
    """Whether the file is read a part at a time: where it is large, or a TIFF that knows its place on the earth."""
    if not file.is_file():
        return False
    try:
        if is_tiff(file):
            if (library := rasterio()) is None:
                return False
            with library.open(file, driver="GTiff") as found:
                plain = not _is_indexed(found) and orientation_of_tiff(file) == AsStored
                return plain and (found.width * found.height > LARGE or _is_placed(found))
        with PIL.Image.open(file) as picture:
            plain = picture.mode in ("L", "RGB") and (picture.format == "JPEG" or not picture.info.get("transparency"))
            few_bits = picture.format == "JPEG" or picture.tile[0][3] in ("L", "RGB")
            large = picture.width * picture.height > LARGE
            plain = plain and few_bits and picture.format in ("JPEG", "PNG")
            return large and plain and rasterio() is not None  # last, as it takes a second to import
    except Exception:  # of damaged files, which reading it whole will tell
        return False


def writes_tiff(file: Path) -> bool:
    """Whether the masks of the file are TIFFs."""
    try:
        return is_raster(file) and is_tiff(file)
    except OSError:
        return False


@contextlib.contextmanager
def opened(file: Path, bands: int, max_pixels: int, folder: Path) -> Iterator[Raster]:
    """The raster in ``file``.

    Args:
        max_pixels: of a picture that is copied.
        folder: for such a copy.

    Raises:
        BadData: it is damaged, or of other bands.
    """
    library = rasterio()
    assert library is not None  # as is_raster() says
    with contextlib.ExitStack() as stack:
        whole = is_tiff(file)
        try:
            place = file if whole else _copied(file, max_pixels, folder / "picture.tif")
            dataset = stack.enter_context(library.open(place, driver="GTiff"))
        except library.errors.RasterioError as error:
            raise BadData(f"{file}: can't be read as an image: {one_line(str(error))}") from error
        yield Raster(dataset, bands, str(file), is_tiff=whole)


def _copied(file: Path, max_pixels: int, copy: Path) -> Path:
    """The photograph, upright, in blocks that can be read in any order."""
    library = rasterio()
    assert library is not None
    with PIL.Image.open(file) as picture:
        pixels = picture.width * picture.height
        orientation = orientation_of(picture) if _is_jpeg(file) else orientation_of_png(file)
    if pixels > max_pixels:
        raise BadData(f"{file}: has {pixels} pixels, and --max-pixels allows {max_pixels}; give a larger number")
    with library.open(file, driver="JPEG" if _is_jpeg(file) else "PNG") as source:
        height, width = source.height, source.width
        size = (width, height) if is_sideways(orientation) else (height, width)
        with create(copy, *size, source.count) as target:
            for top, bottom in _strips(height, width):
                strip = np.moveaxis(source.read(window=((top, bottom), (0, width))), 0, -1)
                place = _place_of(top, bottom, height, width, orientation)
                target.write(np.moveaxis(upright(strip, orientation), -1, 0), window=place)
    return copy


def _place_of(top: int, bottom: int, height: int, width: int, orientation: int) -> tuple[Any, Any]:
    """Where the stored rows from ``top`` to ``bottom`` are displayed: rows and columns."""
    backwards = orientation in ((3, 4) if not is_sideways(orientation) else (6, 7))
    lines = (height - bottom, height - top) if backwards else (top, bottom)
    return ((0, width), lines) if is_sideways(orientation) else (lines, (0, width))


def create(file: Path, height: int, width: int, count: int, **more: Any) -> Any:
    """A TIFF of bytes in blocks, to be written in any order."""
    library = rasterio()
    assert library is not None
    kind = {"dtype": "uint8", "tiled": True, "blockxsize": SIDE, "blockysize": SIDE, "bigtiff": "if_safer"}
    return library.open(file, "w", driver="GTiff", height=height, width=width, count=count, **kind, **more)


def _strips(height: int, width: int) -> Iterator[tuple[int, int]]:
    rows = max(SIDE, _STRIP // width // SIDE * SIDE)
    return ((top, min(top + rows, height)) for top in range(0, height, rows))


def _is_jpeg(file: Path) -> bool:
    with file.open("rb") as content:
        return content.read(2) == b"\xff\xd8"


def _is_placed(dataset: Any) -> bool:
    return bool(dataset.crs) or not dataset.transform.is_identity or bool(dataset.gcps[0])


def _is_indexed(dataset: Any) -> bool:
    """Whether its values are no brightness, or 0 is white: then it is read whole, by Pillow."""
    turned = dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES"
    return turned or bool(dataset.colorinterp[0].name == "palette")
