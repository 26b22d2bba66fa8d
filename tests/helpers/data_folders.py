"""Writes small data sets in each of the layouts that can be read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.data.source import palette

SIZE = (40, 30)
"""Width and height."""


def picture(seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 4, 3), np.uint8)
    return Image.fromarray(pixels).resize(SIZE, Image.Resampling.BICUBIC)


def labels(*values: int) -> NDArray[np.uint8]:
    """(30, 40): vertical stripes of these values."""
    width, height = SIZE
    return np.repeat(np.array(values, np.uint8), -(-width // len(values)))[None, :width].repeat(height, axis=0)


def save(image: Image.Image | NDArray[np.uint8], file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file)
    return file


def with_palette(mask: NDArray[np.uint8], colours: NDArray[np.uint8] | None = None) -> Image.Image:
    image = Image.fromarray(mask).copy()
    image.putpalette(palette(256) if colours is None else colours)
    return image


def write_list(file: Path, names: Sequence[str]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{name}\n" for name in names))


def write_pets(folder: Path, train: int = 3, test: int = 2) -> Path:
    """The raw layout of Oxford-IIIT Pet: cat_0, cat_1 … for training, the last ones for testing."""
    names = [f"cat_{i}" for i in range(train + test)]
    for seed, name in enumerate(names):
        save(picture(seed), folder / "images" / f"{name}.jpg")
        save(labels(2, 3, 1, 3, 2), folder / "annotations" / "trimaps" / f"{name}.png")
    for split, part in (("trainval", names[:train]), ("test", names[train:])):
        write_list(folder / "annotations" / f"{split}.txt", [f"{name} 1 1 1" for name in part])
    return folder


def write_pairs(
    folder: Path, count: int = 5, mask: Image.Image | NDArray[np.uint8] | None = None, classes: Sequence[str] = ()
) -> Path:
    """images/p0.jpg and masks/p0.png …, and classes.txt if there are any."""
    for seed in range(count):
        save(picture(seed), folder / "images" / f"p{seed}.jpg")
        save(labels(0, 1, 2) if mask is None else mask, folder / "masks" / f"p{seed}.png")
    if classes:
        write_list(folder / "classes.txt", classes)
    return folder


def write_voc(folder: Path, mask: NDArray[np.uint8] | None = None) -> Path:
    """VOC2012 with three images for training and two for validation."""
    names = [f"2007_00000{i}" for i in range(5)]
    for seed, name in enumerate(names):
        save(picture(seed), folder / "JPEGImages" / f"{name}.jpg")
        save(
            with_palette(labels(0, 15, 255, 20) if mask is None else mask), folder / "SegmentationClass" / f"{name}.png"
        )
    write_list(folder / "ImageSets/Segmentation/train.txt", names[:3])
    write_list(folder / "ImageSets/Segmentation/val.txt", names[3:])
    return folder
