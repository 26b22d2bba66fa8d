"""What every kind of data is turned into: splits of named images with their masks.

Imports no TensorFlow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from maskfleet.config import DEFAULT_MAX_PIXELS, TrainConfig
from trainer.data.decoded import Decoded, array_of

if TYPE_CHECKING:
    from trainer.data.packed.reading import Reader

IGNORED = 255
"""Label of a pixel that counts neither in the loss nor in a metric."""

Image = NDArray[np.uint8]
"""(H, W, bands), RGB where there are three."""
Mask = NDArray[np.uint8]
"""(H, W), class indices and :data:`IGNORED`."""


@dataclass(frozen=True)
class Reading:
    """How files of pictures are read: the settings of these names."""

    max_pixels: int = DEFAULT_MAX_PIXELS
    masks_drawn_on: Literal["displayed", "stored"] = "displayed"
    mask_pattern: str | None = None
    mask_threshold: float | None = None
    bands: int = 3

    @classmethod
    def of(cls, config: TrainConfig) -> Reading:
        return cls(config.max_pixels, config.masks_drawn_on, config.mask_pattern, config.mask_threshold, config.bands)


@dataclass(frozen=True, eq=False)
class Example:
    """Image and mask at their original size, as the picture is displayed.

    Attributes:
        decoded: the image, as an array or as it was decoded.
        dropped: what was dropped of the image's file, in a word each.
        depth: bits that the values of an image file of 16 use; None of files of 8.
        assumed: a setting has decided how the mask is turned, as sizes could not tell.
    """

    decoded: Decoded
    mask: Mask
    dropped: tuple[str, ...] = ()
    depth: int | None = None
    assumed: bool = False

    @cached_property
    def image(self) -> Image:
        """uint8 (H, W, bands)."""
        return array_of(self.decoded)


@dataclass(frozen=True)
class Split:
    """Examples that can be read in any order and from several threads.

    ``read(i)`` gives example ``names[i]``. It raises BadData, in one line, for a file that is missing, broken or
    does not fit. ``pixels(i)`` tells before how many there are, as far as that is cheap to know; else 0. ``file(i)`` is
    the file of the image; None where it is part of another one, or drawn.
    """

    names: Sequence[str]
    read: Callable[[int], Example]
    pixels: Callable[[int], int] = lambda i: 0
    file: Callable[[int], Path | None] = lambda i: None

    def __len__(self) -> int:
        return len(self.names)

    def part(self, indices: Sequence[int]) -> Split:
        """These examples, in this order."""
        return Split(
            tuple(self.names[i] for i in indices),
            lambda i: self.read(indices[i]),
            lambda i: self.pixels(indices[i]),
            lambda i: self.file(indices[i]),
        )

    def __add__(self, other: Split) -> Split:
        """These examples, and those of ``other`` after them."""
        first = len(self)
        return Split(
            (*self.names, *other.names),
            lambda i: self.read(i) if i < first else other.read(i - first),
            lambda i: self.pixels(i) if i < first else other.pixels(i - first),
            lambda i: self.file(i) if i < first else other.file(i - first),
        )


def _nothing(i: int) -> Example:
    raise IndexError(i)


NO_EXAMPLES = Split((), _nothing)
"""The test split of data that has none."""


@dataclass(frozen=True)
class Source:
    """One data set.

    Attributes:
        name: what a user would call it; part of the cache's folder name.
        classes: their names, in the order of the labels.
        colours: uint8 (classes, 3), RGB of each class in pictures and mask files.
        background: the class that "mIoU without background" leaves out, or None.
        test: empty where the data has none; then ``validation`` is not.
        key: changes whenever the files may have changed; cheap to compute, as it reads no pixels.
        notes: what was passed over in the user's folder, a line each.
        read_by_label: values in masks are labels, so that 255 there means "ignored" whether or not it was meant to.
        validation: the split that checkpoints are chosen by; None where the data has none.
        split_by: who says which example is in which split: the layout, a hash of the names since the layout says
            nothing (so that another division is as good), or the settings.
        packed: where the examples are read by position; None of data that is read file by file.
    """

    name: str
    classes: tuple[str, ...]
    colours: NDArray[np.uint8]
    background: int | None
    train: Split
    test: Split
    key: str
    notes: tuple[str, ...] = ()
    read_by_label: bool = False
    validation: Split | None = None
    split_by: Literal["layout", "hash", "settings"] = "layout"
    packed: Reader | None = None

    @property
    def splits(self) -> dict[str, Split]:
        """Those that have examples, by name: train, validation and test in this order."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in splits.items() if split}


def palette(classes: int) -> NDArray[np.uint8]:
    """uint8 (classes, 3): the colour map of PASCAL VOC, in which label 0 is black."""
    labels = np.arange(classes)
    colours = np.zeros((classes, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((labels >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def files_key(files: Iterable[Path]) -> str:
    """Hash of names, sizes and modification times.

    Raises:
        OSError: a file is missing.
    """
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        digest.update(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
