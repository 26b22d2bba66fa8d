"""Colour of 16 bits a channel, whole: Pillow has the upper 8 of them alone. Imports no TensorFlow.

Its decoders take the upper byte of each sample because the raw mode says in which order the two bytes lie. With the
other order they take the lower byte. So a picture is decoded twice.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import PIL.Image
import PIL.ImageFile
from numpy.typing import NDArray

SIXTEEN = re.compile(r";16[BLN]$")
_MODES = frozenset({"RGB", "RGBX", "RGBA"})
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_GREY_WITH_ALPHA = "LA;16B"
"""Of this mode Pillow knows one order alone; its four bytes a pixel are read as four channels of 8 bits."""


def is_deep(picture: PIL.Image.Image, rawmode: str) -> bool:
    """Whether :func:`whole_samples` has more of it than Pillow."""
    return rawmode == _GREY_WITH_ALPHA or (picture.mode in _MODES and bool(SIXTEEN.search(rawmode)))


def whole_samples(file: Path | IO[bytes], picture: PIL.Image.Image, rawmode: str) -> NDArray[np.uint16]:
    """The colours of a picture of which :func:`is_deep` is true, uint16 (H, W, 3), in full range.

    Args:
        picture: decoded from ``file`` already, which has its upper bytes.

    Raises:
        Exception: what Pillow's decoders raise; they have read the file once.
    """
    values = np.empty((picture.height, picture.width, 3), np.uint16)
    if rawmode == _GREY_WITH_ALPHA:
        both = _decoded(file, lambda mode: "RGBA", mode="RGBA")
        for channel in range(3):
            values[..., channel] = _channel(both, 0)
            values[..., channel] *= 256
            values[..., channel] += _channel(both, 1)
        return values
    lower = _decoded(file, lambda mode: SIXTEEN.sub(lambda found: f";16{_OTHER_ORDER[found[0][-1]]}", mode))
    for channel in range(3):
        values[..., channel] = _channel(picture, channel)
        values[..., channel] *= 256
        values[..., channel] += _channel(lower, channel)
    return values


def _channel(picture: PIL.Image.Image, number: int) -> NDArray[np.uint8]:
    return np.asarray(picture.getchannel(number))


def _decoded(file: Path | IO[bytes], raw: Callable[[str], str], mode: str | None = None) -> PIL.Image.Image:
    """The picture as if its raw mode were ``raw`` of what it is, and its mode ``mode``."""
    if not isinstance(file, Path):
        file.seek(0)
    with PIL.Image.open(file) as picture:
        assert isinstance(picture, PIL.ImageFile.ImageFile)
        if mode is not None:
            picture._mode = mode
        picture.tile = [tile._replace(args=_changed(tile.args, raw)) for tile in picture.tile]
        picture.load()
        return picture


def _changed(arguments: Any, raw: Callable[[str], str]) -> Any:
    """A decoder's, of which the raw mode is the first or the only one."""
    return raw(arguments) if isinstance(arguments, str) else (raw(arguments[0]), *arguments[1:])
