"""How a picture of any size becomes the network's input, and with it its mask. Imports no TensorFlow.

What a picture does not cover of the input repeats its edge, as windows do that reach beyond a picture, and its mask
ignores it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from maskfleet.image_size import Fit, Size
from trainer.data.decoded import Decoded, array_of
from trainer.data.source import IGNORED
from trainer.data.windows import windows

Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Image uint8 (H, W, bands) and mask uint8 (H, W)."""


def inputs_of(image: Decoded, mask: NDArray[np.uint8], size: Size, fit: Fit) -> Iterator[Pair]:
    """A whole picture as inputs of ``size``: one, or by "crop" windows at its own scale.

    Each pixel of a picture counts in one window alone, the one that sees most around it; in the masks of the others it
    is ignored.
    """
    if fit == "crop":
        image = array_of(image)
        for window in windows(Size(*mask.shape), size):
            image_part, mask_part = image[window.rows, window.columns], mask[window.rows, window.columns]
            counted = np.full_like(mask_part, IGNORED)
            own = window.own_rows, window.own_columns
            counted[own] = mask_part[own]
            yield padded(image_part, counted, size)
    else:
        to = size if fit == "squash" else within(Size(*mask.shape), size)
        yield padded(scaled_image(image, to), scaled_mask(mask, to), size)


def within(picture: Size, box: Size) -> Size:
    """The largest size of a picture's aspect that fits into ``box``."""
    scale = min(box.height / picture.height, box.width / picture.width)
    height, width = (max(1, min(most, round(side * scale))) for side, most in zip(picture, box, strict=True))
    return Size(height, width)


def scaled_image(image: Decoded, size: Size) -> NDArray[np.uint8]:
    """uint8 (*size, bands), with an antialiased bilinear filter."""
    if isinstance(image, PIL.Image.Image):
        return _resized(image, size)
    if image.shape[2] == 3:
        return _resized(PIL.Image.fromarray(image), size)
    bands = (PIL.Image.fromarray(np.ascontiguousarray(band)) for band in np.moveaxis(image, -1, 0))
    return np.stack([_resized(band, size) for band in bands], axis=-1)


def _resized(picture: PIL.Image.Image, size: Size) -> NDArray[np.uint8]:
    return np.asarray(picture.resize((size.width, size.height), PIL.Image.Resampling.BILINEAR))


def scaled_mask(mask: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """uint8, of ``size``: each pixel the label of the nearest one in ``mask``."""
    return np.asarray(PIL.Image.fromarray(mask).resize((size.width, size.height), PIL.Image.Resampling.NEAREST))


def seen_mask(mask: NDArray[np.uint8], size: Size, fit: Fit) -> NDArray[np.uint8]:
    """The mask at the scale at which training sees it, without what is ignored around it."""
    if fit == "crop":
        return mask
    return scaled_mask(mask, size if fit == "squash" else within(Size(*mask.shape), size))


def padded(image: NDArray[np.uint8], mask: NDArray[np.uint8], size: Size) -> Pair:
    """Both with rows below and columns to the right until they are of ``size``."""
    missing = [(0, side - there) for side, there in zip(size, mask.shape, strict=True)]
    if not any(after for _, after in missing):
        return image, mask
    return np.pad(image, (*missing, (0, 0)), "edge"), np.pad(mask, missing, constant_values=IGNORED)
