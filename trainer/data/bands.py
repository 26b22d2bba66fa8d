"""Pictures of other than three bands, and as NumPy has saved them: satellites', microscopes'. Imports no TensorFlow."""

from __future__ import annotations

import functools
import os
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskfleet.errors import BadData
from maskfleet.text import one_line

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How a file of TIFF begins, and of BigTIFF."""
PALETTE = "expected brightness, as --bands says, found indices into a palette; save it in grey"
_MOST_BITS = 16
_CACHE = "64"
"""Megabytes of decoded blocks."""


def is_tiff(file: Path) -> bool:
    """By its content. Raises OSError."""
    with file.open("rb") as content:
        return content.read(4) in TIFF


@functools.cache
def rasterio() -> ModuleType | None:
    """The library that reads rasters, where it is installed."""
    # That a picture has no place on the earth is no help to who trains.
    warnings.filterwarnings("ignore", module=r"rasterio(\..*)?$")
    os.environ.setdefault("GDAL_CACHEMAX", _CACHE)  # its own default is a share of the machine's memory
    try:
        import rasterio as found
    except ImportError:
        return None
    return found  # type: ignore[no-any-return]


def read_array_bands(file: Path, max_pixels: int) -> NDArray[Any]:
    """Samples (H, W, bands) that NumPy has saved; (H, W) is one band.

    Raises:
        BadData: the file is damaged, larger than ``max_pixels``, or has another shape.
    """
    try:
        values = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy's parser raises what it meets in a damaged head
        reason = one_line(str(error))[:120]
        raise BadData(f"{file}: expected a NumPy array of numbers, replace or remove it: {reason}") from error
    if not isinstance(values, np.ndarray) or values.ndim not in (2, 3) or 0 in values.shape:
        found = " x ".join(map(str, values.shape)) if isinstance(values, np.ndarray) else "several"
        raise BadData(f"{file}: expected an array of height x width x bands, found {found or 'a single number'}")
    _check_pixels(file, values.shape[0], values.shape[1], max_pixels)
    return np.array(values if values.ndim == 3 else values[..., None])


def white_of(dataset: Any) -> int | None:
    """The value of white, as a TIFF that rasterio has opened says it; None if it does not."""
    said = dataset.tags().get("TIFFTAG_MAXSAMPLEVALUE", "")
    return int(said) if said.isdecimal() else None


def read_tiff_bands(file: Path, max_pixels: int) -> tuple[NDArray[Any], int | None]:
    """All samples of a TIFF as they are stored, (H, W, bands), and :func:`white_of` it.

    Raises:
        BadData: the file is damaged or larger than ``max_pixels``, has a palette, or rasterio is not installed.
    """
    library = rasterio()
    if library is None:
        raise BadData(f"{file}: TIFFs of other than three bands are read by rasterio: pip install 'maskfleet[raster]'")
    try:
        with library.open(file, driver="GTiff") as raster:
            _check_pixels(file, raster.height, raster.width, max_pixels)
            if raster.colorinterp[0].name == "palette":
                raise BadData(f"{file}: {PALETTE}")
            return np.moveaxis(raster.read(), 0, -1), white_of(raster)
    except library.errors.RasterioError as error:
        raise BadData(f"{file}: can't be read as a TIFF, replace or remove it: {one_line(str(error))}") from error


def check_samples(values: NDArray[Any], bands: int, name: str) -> None:
    """Whether samples (H, W, bands) are those of a picture.

    Raises:
        BadData: there are more or fewer bands, or they are no whole numbers of 8 or 16 bits.
    """
    if values.shape[2] != bands:
        turned = "; save it as height x width x bands" if bands in values.shape[:2] else ""
        mend = f"give --bands {values.shape[2]}, if all pictures have them" + turned
        raise BadData(f"{name}: expected {bands} band(s), as --bands says, found {values.shape[2]}; {mend}")
    signed = values.dtype.kind == "i" and values.itemsize <= 2 and int(values.min()) >= 0
    if not (signed or (values.dtype.kind == "u" and 8 * values.itemsize <= _MOST_BITS)):
        raise BadData(
            f"{name}: expected samples of 8 or 16 bits from 0 on, found {values.dtype}"
            + (" below 0" if values.dtype.kind == "i" and values.itemsize <= 2 else "")
            + ", whose black and white are not known; save them as uint8 or uint16"
        )


def _check_pixels(file: Path, height: int, width: int, max_pixels: int) -> None:
    if height * width > max_pixels:
        raise BadData(
            f"{file}: has {width} x {height} = {height * width} pixels, and --max-pixels allows {max_pixels}; "
            "give a larger number if memory holds it, or save it smaller"
        )
