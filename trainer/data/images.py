"""Reading and checking one image or one mask. Imports no TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Literal, NamedTuple

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from maskfleet.errors import BadData
from trainer.data.source import IGNORED, Image, Mask

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
MASK_SUFFIXES = frozenset({".png", ".bmp", ".gif", ".tif", ".tiff"})
"""Formats without loss: others change labels."""


class MaskFile(NamedTuple):
    """What a mask's file holds, before it is known which of it counts.

    Attributes:
        labels: int32 (H, W), grey values or indices into the palette; -1 throughout an RGB image, which has none.
        colours: int32 (H, W, 3); of 16 bits, if the file has those, in the grey of its values.
        kind: of the file: one channel of grey (black and white too), one of indices into a palette, or RGB.
    """

    labels: NDArray[np.int32]
    colours: NDArray[np.int32]
    kind: Literal["grey", "palette", "RGB"]


def read_image(file: Path | IO[bytes], where: str | None = None) -> Image:
    """uint8 (H, W, 3), whatever format the content has; the suffix is not looked at, transparency is dropped.

    Pixels stay in the file's order: a mask is drawn on them, so an EXIF rotation is not applied.

    Raises:
        BadData: the file is missing, corrupt or truncated. ``where`` names it if ``file`` has no name.
    """
    picture = _decode(file, where)
    if picture.mode.startswith("I"):  # 16 bits a pixel, which convert() would clip to white
        return np.repeat((np.asarray(picture) // 256).astype(np.uint8)[..., None], 3, axis=2)
    return np.asarray(picture.convert("RGB"))


def read_labels(file: Path | IO[bytes], where: str | None = None) -> MaskFile:
    """A mask's labels and colours; which of the two count, a :class:`~trainer.data.class_table.ClassTable` says.

    Raises:
        BadData: the file is missing, corrupt or truncated.
    """
    picture = _decode(file, where)
    if picture.mode in ("1", "L") or picture.mode.startswith("I"):
        labels = np.asarray(picture).astype(np.int32)
        grey = 255 * labels if picture.mode == "1" else labels
        return MaskFile(labels, np.broadcast_to(grey[..., None], (*grey.shape, 3)), "grey")
    colours = np.asarray(picture.convert("RGB")).astype(np.int32)
    if picture.mode == "P":
        return MaskFile(np.asarray(picture).astype(np.int32), colours, "palette")
    return MaskFile(np.full(colours.shape[:2], -1, np.int32), colours, "RGB")


def check_labels(labels: NDArray[np.int32], classes: tuple[str, ...], where: Path | str) -> Mask:
    """The mask, if every label is a class or :data:`IGNORED`.

    Raises:
        BadData: names the first label that is neither.
    """
    wrong = (labels != IGNORED) & ((labels < 0) | (labels >= len(classes)))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise BadData(
            f"{where}: label {labels[row, column]} at row {row}, column {column} is outside the "
            f"{len(classes)} classes: expected 0 to {len(classes) - 1}, or {IGNORED} for ignored pixels"
        )
    return labels.astype(np.uint8)


def check_not_0_and_255(labels: set[int], where: Path | str) -> None:
    """Raises BadData if 0 and 255 are all the ``labels`` of a data set's masks, of both splits at their own size."""
    if labels == {0, IGNORED}:
        raise BadData(
            f"{where}: masks hold only the labels 0 and 255, and 255 means 'ignored': write 1 for the object, "
            "or name the colours in classes.txt ('background 0 0 0', 'object 255 255 255')"
        )


def check_same_size(image: Image, mask: Mask, image_file: Path | str, mask_file: Path | str) -> None:
    """Raises BadData unless the mask covers the image exactly."""
    if image.shape[:2] != mask.shape:
        (height, width), (mask_height, mask_width) = image.shape[:2], mask.shape
        hint = ": rotate the image's pixels as its EXIF tag says, or remove the tag and draw the mask again"
        raise BadData(
            f"{mask_file}: expected the size of its image {image_file}, {width} x {height} pixels, "
            f"found {mask_width} x {mask_height}"
            + (hint if (height, width) == (mask_width, mask_height) else "; save the mask at the image's size")
        )


def _decode(file: Path | IO[bytes], where: str | None) -> PIL.Image.Image:
    name = where or str(file)
    try:
        with PIL.Image.open(file) as picture:
            picture.load()
            return picture
    except FileNotFoundError as error:
        raise BadData(f"{name}: there is no such file") from error
    except PIL.UnidentifiedImageError as error:
        empty = isinstance(file, Path) and file.stat().st_size == 0
        found = "an empty file" if empty else "something else or a damaged file"
        raise BadData(f"{name}: expected an image, found {found}; replace or remove it") from error
    except MemoryError:
        raise
    except Exception as error:  # Pillow's decoders raise a dozen types for damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadData(f"{name}: can't be read as an image, replace or remove it: {reason}") from error
