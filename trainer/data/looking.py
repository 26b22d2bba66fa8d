"""A look at a sample of a data set, by which ``--preset auto`` chooses. Imports no TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskfleet.image_size import Size
from trainer.data.fitting import scaled_mask
from trainer.data.side_by_side import side_by_side
from trainer.data.source import Source

SAMPLE = 200
"""Pictures that are looked at, at most."""
SAMPLE_PIXELS = 400_000_000
"""Of all of them together, as far as their sizes are known before: some seconds of decoding."""
FEWEST = 16
"""Pictures that are looked at however large they are, if there are as many."""


@dataclass(frozen=True)
class Look:
    """What a sample says of a training split. Of classes, each tuple is in their order.

    Attributes:
        examples: of the whole split.
        sampled: how many of them were looked at.
        classes: their names.
        shares: of the pixels that count, by class.
        kept: IoU of the class's masks with themselves, scaled to so many pixels as the network's input has and back:
            no network of such an input can do better. 1 where it has no pixel, or pictures are no larger.
        height, width: medians, pixels.
        aspects, spread: width by height, and pixels over their median, that a tenth of the pictures fall below, and
            that a tenth pass.
        bands: of the pictures.
        bits: of the samples of their files.
        packed: they are read while training goes on.
    """

    examples: int
    sampled: int
    classes: tuple[str, ...]
    shares: tuple[float, ...]
    kept: tuple[float, ...]
    height: int
    width: int
    aspects: tuple[float, float]
    spread: tuple[float, float]
    bands: int
    bits: int
    packed: bool

    @property
    def line(self) -> str:
        """In a few words, for a terminal."""
        looked = "" if self.sampled == self.examples else f", {self.sampled} of them looked at"
        return (
            f"{self.examples} training pictures{looked}: {self.width} x {self.height} pixels in the middle, "
            f"{self.bands} band(s) of {self.bits} bits, {len(self.classes)} classes"
        )


class _Seen(NamedTuple):
    """Of one picture: pixels of each class, those that it has or had, and those that it keeps when scaled."""

    counts: NDArray[np.int64]
    either: NDArray[np.int64]
    kept: NDArray[np.int64]
    size: Size
    bands: int
    deep: bool


def look(source: Source, pixels: int) -> Look:
    """Looks at pictures evenly over the training split: the same ones wherever the data is the same.

    Args:
        pixels: of the network's input.

    Raises:
        BadData: one of them can't be read.
    """
    split, classes = source.train, len(source.classes)
    chosen = _chosen(len(split), split.pixels(0))

    def read(number: int) -> _Seen:
        example = split.read(chosen[number])
        mask = example.mask
        size = Size(*mask.shape)
        back = scaled_mask(scaled_mask(mask, _scaled(size, pixels)), size)
        counts = np.bincount(mask.ravel(), minlength=256)[:classes]
        kept = np.bincount(mask[mask == back], minlength=256)[:classes]
        there = np.bincount(back[mask < classes], minlength=256)[:classes]
        return _Seen(counts, counts + there - kept, kept, size, example.image.shape[2], example.depth is not None)

    seen = [*side_by_side(read, len(chosen), lambda number: split.pixels(chosen[number]))]
    counts, either, kept = (
        np.array([getattr(each, what) for each in seen], np.int64) for what in ("counts", "either", "kept")
    )
    areas = np.array([each.size.pixels for each in seen])
    return Look(
        examples=len(split),
        sampled=len(chosen),
        classes=source.classes,
        shares=tuple((counts.sum(0) / max(1, counts.sum())).tolist()),
        kept=tuple(np.where(either.sum(0) > 0, kept.sum(0) / np.maximum(1, either.sum(0)), 1.0).tolist()),
        height=int(np.median([each.size.height for each in seen])),
        width=int(np.median([each.size.width for each in seen])),
        aspects=_middle([each.size.width / each.size.height for each in seen]),
        spread=_middle(areas / np.median(areas)),
        bands=seen[0].bands,
        bits=16 if any(each.deep for each in seen) else 8,
        packed=source.packed is not None,
    )


def _middle(values: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    """What a tenth of the values fall below, and what a tenth pass."""
    low, high = np.quantile(values, [0.1, 0.9])
    return float(low), float(high)


def _chosen(examples: int, pixels: int) -> list[int]:
    count = min(examples, SAMPLE, max(FEWEST, SAMPLE_PIXELS // max(1, pixels)))
    return sorted({round(place) for place in np.linspace(0, examples - 1, count)})


def _scaled(size: Size, pixels: int) -> Size:
    """Of the same aspect, and no more than so many pixels."""
    scale = min(1.0, math.sqrt(pixels / size.pixels))
    return Size(max(1, round(size.height * scale)), max(1, round(size.width * scale)))
