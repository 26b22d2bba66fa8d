"""Writes small data sets in each of the layouts that can be read."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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


def write_cvat(folder: Path, *, list_name: str = "default.txt", suffix: str = ".png") -> Path:
    """As CVAT exports 'Segmentation mask 1.1' with its images: classes of one's own, drawn in their colours."""
    table = {"background": (0, 0, 0), "cat": (250, 50, 83), "dog": (51, 221, 255)}
    names = [f"frame_{i}" for i in range(5)]
    colours = np.array([*table.values()], np.uint8)
    for seed, name in enumerate(names):
        save(picture(seed), folder / "JPEGImages" / f"{name}{suffix}")
        save(colours[labels(0, 1, 2)], folder / "SegmentationClass" / f"{name}.png")
    write_list(folder / "ImageSets" / "Segmentation" / list_name, names)
    lines = [f"{name}:{','.join(map(str, colour))}::" for name, colour in table.items()]
    write_list(folder / "labelmap.txt", ["# label:color_rgb:parts:actions", *lines])
    return folder


def write_labelme(folder: Path, masks: str = "SegmentationClass") -> Path:
    """As labelme2voc writes: no lists, labels in the palette of PASCAL VOC."""
    for i in range(5):
        save(picture(i), folder / "JPEGImages" / f"{i}.jpg")
        save(with_palette(labels(0, 1, 2, 255)), folder / masks / f"{i}.png")
    write_list(folder / "class_names.txt", ["_background_", "cat", "dog"])
    return folder


def write_png(file: Path, bits: int, colour_type: int, values: NDArray[np.integer[Any]]) -> Path:
    """A PNG of (H, W) or (H, W, C) with so many bits a sample, which Pillow itself can't all write."""
    samples = values.reshape(len(values), -1)
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in samples]
    else:
        each = (samples[..., None] >> np.arange(bits - 1, -1, -1) & 1).astype(np.uint8).reshape(len(samples), -1)
        rows = [np.packbits(row).tobytes() for row in each]
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, colour_type, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows))), (b"IEND", b""))
    content = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    return file


def write_tiff(file: Path, values: NDArray[Any], photometric: int, extra: Sequence[int] = ()) -> Path:
    """A TIFF with the samples of (H, W) or (H, W, C) as they are, which Pillow itself can't all write."""
    bands = 1 if values.ndim == 2 else values.shape[2]
    bits, kind = values.dtype.itemsize * 8, {"u": 1, "i": 2, "f": 3}[values.dtype.kind]
    data = values.tobytes() + b"\0" * (values.nbytes % 2)
    height, width = values.shape[:2]
    long, short = "I", "H"
    tags: list[tuple[int, str, Sequence[int]]] = [
        (256, long, [width]),
        (257, long, [height]),
        (258, short, [bits] * bands),
        (259, short, [1]),
        (262, short, [photometric]),
        (273, long, [8]),
        (277, short, [bands]),
        (278, long, [height]),
        (279, long, [len(data)]),
        *([(338, short, extra)] if extra else []),
        (339, short, [kind] * bands),
    ]
    entries, beyond = b"", b""
    end = 8 + len(data) + 2 + 12 * len(tags) + 4
    for tag, type_, numbers in tags:
        value = struct.pack(f"<{len(numbers)}{type_}", *numbers)
        if len(value) > 4:
            value, beyond = struct.pack("<I", end + len(beyond)), beyond + value
        entries += struct.pack("<HHI", tag, 3 if type_ == short else 4, len(numbers)) + value.ljust(4, b"\0")
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    file.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + beyond)
    return file


def write_photographs(folder: Path, count: int, width: int, height: int, distinct: int = 200) -> None:
    """A folder of pairs with JPEGs, ``distinct`` of them under ``count`` names."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    generator = np.random.default_rng(0)
    pairs = []
    for _ in range(min(count, distinct)):
        image, mask = io.BytesIO(), io.BytesIO()
        small = Image.fromarray(generator.integers(0, 256, (height // 12, width // 12, 3), np.uint8))
        small.resize((width, height), Image.Resampling.BICUBIC).save(image, "jpeg", quality=90)
        shapes = Image.fromarray(generator.integers(0, 3, (5, 7), np.uint8))
        shapes.resize((width, height), Image.Resampling.NEAREST).save(mask, "png")
        pairs.append((image.getvalue(), mask.getvalue()))
    for i in range(count):
        image_bytes, mask_bytes = pairs[i % len(pairs)]
        (folder / "images" / f"p{i:06d}.jpg").write_bytes(image_bytes)
        (folder / "masks" / f"p{i:06d}.png").write_bytes(mask_bytes)
    (folder / "classes.txt").write_text("a\nb\nc\n")
