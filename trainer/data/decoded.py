"""A picture as Pillow decoded it, or as an array: what is only scaled need not become an array first.

Imports no TensorFlow.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from maskfleet.image_size import Size

Decoded: TypeAlias = "NDArray[np.uint8] | PIL.Image.Image"
"""uint8 (H, W, bands), or Pillow's picture in RGB."""
_STRIP = 1 << 20
"""Pixels that become an array at once: NumPy's own way takes the memory of all twice more."""


def array_of(decoded: Decoded) -> NDArray[np.uint8]:
    """uint8 (H, W, C), or (H, W) of a picture with one channel."""
    if isinstance(decoded, np.ndarray):
        return decoded
    rows = max(1, _STRIP // decoded.width)
    if rows >= decoded.height:
        return np.asarray(decoded)
    bands = len(decoded.getbands())
    pixels = np.empty((decoded.height, decoded.width, bands)[: 2 if bands == 1 else 3], np.uint8)
    for start in range(0, decoded.height, rows):
        end = min(start + rows, decoded.height)
        pixels[start:end] = np.asarray(decoded.crop((0, start, decoded.width, end)))
    return pixels


def size_of(decoded: Decoded) -> Size:
    """Its height and width."""
    return Size(*decoded.shape[:2]) if isinstance(decoded, np.ndarray) else Size(decoded.height, decoded.width)
