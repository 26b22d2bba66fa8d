"""Parts of pictures, at a random scale and place, as a function of drawn numbers. Imports no TensorFlow."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskfleet.image_size import Size
from trainer.data.fitting import Pair, padded, scaled_image, scaled_mask

SMALLEST_SCALE, LARGEST_SCALE = 0.5, 2.0
"""Of a picture, before a part of the network's size is cut out: as in most recipes for Cityscapes and ADE20K, but
drawn by its logarithm, so that half of the parts are enlarged and not two thirds."""
ANY = -1
"""In the place of the class that a crop must hold: none is asked for."""


class CropDraws(NamedTuple):
    """Uniform in 0..1: scale, place down and across, and which pixel of the class that is asked for."""

    scale: float
    down: float
    across: float
    pixel: float


def crop(image: NDArray[np.uint8], mask: NDArray[np.uint8], size: Size, draws: CropDraws, wanted: int = ANY) -> Pair:
    """A part of the picture, scaled by .5 to 2 with its aspect kept, of ``size``.

    Of a picture that is smaller than the crop all is seen, with ignored pixels around it.

    Args:
        wanted: a class of which the part must hold a pixel, if the picture does, in its middle half unless that is
            too near to the picture's edge: more than a rim of the thing is seen then.
    """
    scale = SMALLEST_SCALE * (LARGEST_SCALE / SMALLEST_SCALE) ** draws.scale
    there = mask.shape
    wanted_sides = [max(1, round(length / scale)) for length in size]
    seen = [min(side, part) for side, part in zip(there, wanted_sides, strict=True)]
    lowest, highest = [0, 0], [side - part for side, part in zip(there, seen, strict=True)]
    if wanted != ANY and (places := np.flatnonzero(mask == wanted)).size:
        pixel = divmod(int(places[_pick(draws.pixel, places.size)]), there[1])
        lowest, highest = (
            [min(most, max(0, place - offset)) for most, place, offset in zip(highest, pixel, offsets, strict=True)]
            for offsets in ([part - 1 - part // 4 for part in seen], [part // 4 for part in seen])
        )
    top, left = (
        low + _pick(draw, high - low + 1)
        for draw, low, high in zip((draws.down, draws.across), lowest, highest, strict=True)
    )
    part = slice(top, top + seen[0]), slice(left, left + seen[1])
    to = Size(
        *(
            length if part <= side else min(length, max(1, round(side * scale)))
            for side, part, length in zip(there, wanted_sides, size, strict=True)
        )
    )
    return padded(scaled_image(image[part], to), scaled_mask(mask[part], to), size)


def _pick(draw: float, count: int) -> int:
    return min(int(draw * count), count - 1)
