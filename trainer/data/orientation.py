"""Which way up a photograph is shown: EXIF's orientation, and masks that were drawn on it. Imports no TensorFlow.

Cameras store pixels as the sensor lies and note in a tag how to turn them; viewers and most annotation tools obey it,
arrays in programs often do not. Here an image is always as it is displayed, and so is its mask.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.TiffImagePlugin
from numpy.typing import NDArray

from maskfleet.errors import BadData
from trainer.data.decoded import size_of
from trainer.data.source import Example, Mask, Reading

if TYPE_CHECKING:
    from trainer.data.images import Picture

AsStored = 1
"""The orientation that needs no turn."""
_TELLING = frozenset({b"IHDR", b"eXIf", b"tEXt", b"zTXt", b"iTXt"})
"""Chunks of a PNG that may say how it is displayed."""
_SIDEWAYS = frozenset({5, 6, 7, 8})
_Pixels = TypeVar("_Pixels", bound=NDArray[Any])


def orientation_of(
    picture: PIL.Image.Image, tags: Callable[[PIL.Image.Image], PIL.Image.Exif] = lambda picture: picture.getexif()
) -> int:
    """EXIF's orientation, 1 to 8; 1 where there is none or none of sense."""
    try:
        found = tags(picture).get(PIL.ExifTags.Base.Orientation, AsStored)
    except Exception:  # Pillow's parser raises a dozen types for damaged tags, and the pixels are good without them
        return AsStored
    return found if isinstance(found, int) and 1 <= found <= 8 else AsStored


def orientation_of_tiff(file: Path) -> int:
    """As :func:`orientation_of`, also of a TIFF of bands or bits that Pillow can't open."""
    try:
        with file.open("rb") as content:
            start = content.read(8)
            tags = PIL.TiffImagePlugin.ImageFileDirectory_v2(start + (content.read(8) if 43 in start[2:4] else b""))
            content.seek(tags.next)
            tags.load(content)
        found = tags.get(PIL.ExifTags.Base.Orientation, AsStored)
    except Exception:  # as there
        return AsStored
    return found if isinstance(found, int) and 1 <= found <= 8 else AsStored


def orientation_of_png(file: Path) -> int:
    """As :func:`orientation_of`, which would decode all of a PNG, as tags may come behind its pixels.

    Pillow is shown the file without them.
    """
    with file.open("rb") as content:
        without, start = content.read(8), content.read(8)
        while len(start) == 8 and start[4:] != b"IEND":
            length = int.from_bytes(start[:4]) + 4  # with its checksum
            if start[4:] in _TELLING:
                without += start + content.read(length)
            else:
                content.seek(length, io.SEEK_CUR)
            start = content.read(8)
    try:
        with PIL.Image.open(io.BytesIO(without + bytes(4) + b"IDAT" + bytes(4))) as picture:
            return orientation_of(picture, PIL.Image.Image.getexif)
    except Exception:  # as there
        return AsStored


def is_sideways(orientation: int) -> bool:
    """Whether height and width change places."""
    return orientation in _SIDEWAYS


def upright(pixels: _Pixels, orientation: int) -> _Pixels:
    """Pixels (H, W, …) as they are displayed: (W, H, …) for orientations 5 to 8.

    JEITA CP-3451 (Exif 2.3), tag 274: where the stored row 0 and column 0 are to be seen.
    """
    if orientation == AsStored:
        return pixels
    turned = pixels.swapaxes(0, 1) if is_sideways(orientation) else pixels
    rows = slice(None, None, -1 if orientation in (3, 4, 7, 8) else 1)
    columns = slice(None, None, -1 if orientation in (2, 3, 6, 7) else 1)
    return np.ascontiguousarray(turned[rows, columns])  # type: ignore[return-value]


def pair(picture: Picture, mask: Mask, reading: Reading, image_file: Path | str, mask_file: Path | str) -> Example:
    """An image and its mask, both as they are displayed.

    Args:
        mask: as its file has it: drawn on the displayed picture or on the stored one. Where it has the size of both,
            ``reading`` decides.

    Raises:
        BadData: the mask covers neither exactly.
    """
    orientation = picture.orientation
    height, width = size_of(picture.decoded)
    stored = (width, height) if is_sideways(orientation) else (height, width)
    if mask.shape not in ((height, width), stored):
        also = "" if stored == (height, width) else f" (as stored {stored[1]} x {stored[0]})"
        mend = "turn it as the image lies" if mask.shape == (width, height) else "save the mask at the image's size"
        raise BadData(
            f"{mask_file}: expected the size of its image {image_file}, {width} x {height} pixels{also}, "
            f"found {mask.shape[1]} x {mask.shape[0]}; {mend}"
        )
    assumed = orientation != AsStored and stored == (height, width)
    on_stored = reading.masks_drawn_on == "stored" if assumed else mask.shape == stored
    turned = upright(mask, orientation) if on_stored else mask
    return Example(picture.decoded, turned, picture.dropped, picture.depth, assumed)
