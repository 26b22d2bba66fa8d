"""Reading and checking one image or one mask. Imports no TensorFlow.

Pillow converts between its modes without a word, also where that loses something. Here each mode is either read for
what its pixels mean, or refused with what to do about it.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from maskfleet.config import DEFAULT_MAX_PIXELS
from maskfleet.errors import BadData
from maskfleet.text import one_line
from trainer.data.arrays import ARRAY, finite, read_array, whole_numbers
from trainer.data.bands import PALETTE, check_samples, is_tiff, read_array_bands, read_tiff_bands
from trainer.data.decoded import Decoded, array_of
from trainer.data.deep_colour import SIXTEEN, is_deep, whole_samples
from trainer.data.heic import HEIC, open_picture
from trainer.data.orientation import AsStored, orientation_of, orientation_of_tiff, upright
from trainer.data.source import IGNORED, Image, Mask, Reading

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ARRAY, *HEIC})
MASK_SUFFIXES = frozenset({".png", ".bmp", ".gif", ".tif", ".tiff", ARRAY})
"""Formats without loss: others change labels."""

LOSSY_SUFFIXES = frozenset({".jpg", ".jpeg", ".webp"})
"""Of masks too, where a threshold makes their classes."""

_LOSSY = frozenset({"JPEG", "MPO", "JPEG2000", "WEBP", "AVIF", "HEIF"})
_WITH_ALPHA = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_RGB_MASKS = frozenset({"RGB", "RGBX", "LA", "La", "RGBA", "RGBa"})
_READABLE_IMAGES = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"}) | _WITH_ALPHA
_FOUND = {
    "I": "signed integers or 32 bits",
    "F": "floating-point numbers",
    "LAB": "colours in CIELAB",
    "HSV": "colours in HSV",
    "CMYK": "colours in CMYK",
    "YCbCr": "colours in YCbCr",
}
_STRIP = 1 << 20
"""Pixels that are worked on at once, where NumPy needs many bytes for each."""
_FEW_LABELS = 8
"""Which are found one after the other in less time than it takes to count them."""
_DEPTHS = (8, 10, 12, 14, 16)
"""Bits that cameras, scanners and microscopes have."""
_MAX_SAMPLE_VALUE = 281
_MAGIC = (
    (b"", "an empty file"),
    (b"II*\0", "a TIFF of a kind that can't be read (its bands or bits)"),
    (b"MM\0*", "a TIFF of a kind that can't be read (its bands or bits)"),
    (b"II+\0", "a BigTIFF"),
    (b"MM\0+", "a BigTIFF"),
    (b"<", "a page of HTML or XML"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"version https://git-lfs", "a pointer of Git LFS (fetch it: git lfs pull)"),
    (b"\0\0\0", "a picture or video of another format, such as JPEG XL"),
)

MaskKind = Literal["grey", "palette", "RGB"]

PIL.Image.MAX_IMAGE_PIXELS = None  # ours takes its place: with a flag to change it, and a message that names it
# What Pillow notes about metadata, palettes or extra frames is no help to who trains; what counts is said here.
warnings.filterwarnings("ignore", module=r"PIL\.")


class Picture(NamedTuple):
    """An image as the network sees it.

    Attributes:
        decoded: as the picture is displayed, RGB where there are three bands.
        dropped: what the file holds beside them, in a word each: transparency, further bands, frames or pages.
        orientation: EXIF's, by which the stored pixels were turned.
        depth: bits that the values of a file of 16 use, by which they were scaled; None of files of 8.
    """

    decoded: Decoded
    dropped: tuple[str, ...]
    orientation: int = AsStored
    depth: int | None = None

    @property
    def pixels(self) -> Image:
        """uint8 (H, W, bands)."""
        return array_of(self.decoded)


@dataclass(frozen=True)
class MaskFile:
    """What a mask's file holds, before it is known which of it counts.

    Attributes:
        labels: integers (H, W), grey values or indices into the palette; -1 throughout an RGB image, which has none.
        kind: of the file: one channel of grey (black and white too), one of indices into a palette, or RGB.
    """

    labels: NDArray[Any]
    kind: MaskKind
    _name: str = field(repr=False)
    _picture: PIL.Image.Image | None = field(repr=False)
    """None of a NumPy array."""

    @cached_property
    def colours(self) -> NDArray[Any]:
        """Integers (H, W, 3); of 16 bits, if the file has those, in the grey of its values.

        Raises:
            BadData: pixels of one colour differ in transparency.
        """
        if self._picture is None:
            return self.labels if self.kind == "RGB" else np.repeat(self.labels[..., None], 3, axis=2)
        if self.kind == "grey":
            if self._picture.mode == "1":
                grey = self.labels * np.uint8(255)
            elif scale := _unscaled(self._picture.info["rawmode"]):
                grey = self.labels * np.uint8(scale)
            else:
                grey = self.labels
            return np.broadcast_to(grey[..., None], (*grey.shape, 3))
        _check_transparency(self._picture, self._name)
        return upright(array_of(_without_alpha(self._picture)), self._picture.info["turn"])


def read_image(file: Path | IO[bytes], where: str | None = None, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image:
    """The pixels of :func:`read_picture`."""
    return read_picture(file, where, max_pixels).pixels


def read_picture(
    file: Path | IO[bytes], where: str | None = None, max_pixels: int = DEFAULT_MAX_PIXELS, bands: int = 3
) -> Picture:
    """An image, whatever format the content has; transparency is dropped.

    16 bits are scaled by the range that is in use, see :func:`_white`.

    Args:
        bands: of the pictures; of other than three the file is to have just so many, as a TIFF, an array of NumPy's, or
            an image in grey or with transparency.

    Raises:
        BadData: the file is missing, corrupt, truncated or larger than ``max_pixels``, or its values have no known
            black and white, or it has other bands. ``where`` names it if ``file`` has no name.
    """
    name = where or str(file)
    if bands != 3 or (isinstance(file, Path) and file.suffix.lower() == ARRAY):
        return _read_bands(file, name, max_pixels, bands)
    picture = _decode(file, name, max_pixels)
    rawmode = picture.info["rawmode"]
    dropped = []
    if picture.info["several"] and picture.format != "MPO":  # a camera's second one is a preview
        dropped.append("frames or pages after the first")
    if _is_transparent(picture):
        dropped.append("transparency")
    if picture.info["bands"] > len(picture.getbands()):
        dropped.append("further bands")
    orientation, turn = picture.info["orientation"], picture.info["turn"]
    if picture.mode.startswith("I;16") or (picture.mode == "I" and rawmode in ("I;16", "I;16B", "I;16L", "I;16N")):
        grey, depth = _to_bytes(upright(np.asarray(picture), turn), _white_of(picture))
        return Picture(np.repeat(grey[..., None], 3, axis=2), tuple(dropped), orientation, depth)
    if is_deep(picture, rawmode):
        try:
            colours = whole_samples(file, picture, rawmode)
        except Exception as error:  # as in _decode
            raise BadData(f"{name}: can't be read as an image, replace or remove it: {_reason(error)}") from error
        pixels, depth = _to_bytes(upright(colours, turn), _white_of(picture))
        return Picture(pixels, tuple(dropped), orientation, depth)
    if picture.mode not in _READABLE_IMAGES:
        raise BadData(
            f"{name}: expected pixels of 8 or 16 bits in grey, RGB or CMYK, found "
            f"{_FOUND.get(picture.mode, picture.mode)}, whose black and white are not known; "
            "save it with 8 bits a channel, from 0 to 255"
        )
    rgb = _without_alpha(picture)
    decoded = rgb if turn == AsStored else upright(array_of(rgb), turn)
    return Picture(decoded, tuple(dropped), orientation, 16 if SIXTEEN.search(rawmode) else None)


def _read_bands(file: Path | IO[bytes], name: str, max_pixels: int, bands: int) -> Picture:
    """A picture of any number of bands, (H, W, bands)."""
    orientation, white = AsStored, None
    if isinstance(file, Path) and file.suffix.lower() == ARRAY and file.is_file():
        values = read_array_bands(file, max_pixels)
    elif isinstance(file, Path) and file.is_file() and is_tiff(file):
        values, white = read_tiff_bands(file, max_pixels)
        orientation = orientation_of_tiff(file)
        values = upright(values, orientation)
    else:
        picture = _decode(file, name, max_pixels)
        if picture.mode in ("P", "PA"):
            raise BadData(f"{name}: {PALETTE}")
        if SIXTEEN.search(picture.info["rawmode"]) and not picture.mode.startswith("I"):
            raise BadData(f"{name}: 16 bits a channel are read of a TIFF or NPY, as --bands says; save it as such")
        values, orientation, white = np.asarray(picture), picture.info["orientation"], _white_of(picture)
        values = upright(values if values.ndim == 3 else values[..., None], picture.info["turn"])
    check_samples(values, bands, name)
    if values.dtype == np.uint8:
        return Picture(values, (), orientation)
    pixels, depth = _to_bytes(values, white)
    return Picture(pixels, (), orientation, depth)


def _white_of(picture: PIL.Image.Image) -> int | None:
    """The value of white, as a TIFF says it; None if it does not."""
    said = getattr(picture, "tag_v2", {}).get(_MAX_SAMPLE_VALUE)
    said = said[0] if isinstance(said, tuple) and said else said
    return said if isinstance(said, int) else None


def _to_bytes(values: NDArray[Any], said: int | None) -> tuple[Image, int]:
    """Samples of 16 bits as uint8 by the range that is in use, and the bits of that."""
    table, white = byte_table(int(values.max()), said)
    pixels = np.empty(values.shape, np.uint8)
    rows = max(1, _STRIP // values.shape[1])
    for start in range(0, len(values), rows):
        pixels[start : start + rows] = table[values[start : start + rows]]
    return pixels, white.bit_length()


def byte_table(largest: int, said: int | None = None) -> tuple[NDArray[np.uint8], int]:
    """What each value of 16 bits is in 8, uint8 (65536,), if ``largest`` is the largest there is; and which is white.

    Args:
        said: what the file says is white.
    """
    white = _white(largest, said)
    table = ((np.arange(1 << 16, dtype=np.uint32).clip(max=white) * 255 + white // 2) // white).astype(np.uint8)
    return table, white


def without_arrays_beside(files: Sequence[Path]) -> list[Path]:
    """Without arrays that lie beside a picture of their name: its copy in a cache, or what was predicted of it."""
    pictures = {file.with_suffix("") for file in files if file.suffix.lower() != ARRAY}
    return [file for file in files if file.suffix.lower() != ARRAY or file.with_suffix("") not in pictures]


def mask_suffixes(reading: Reading) -> frozenset[str]:
    """Of the files that are masks."""
    return MASK_SUFFIXES if reading.mask_threshold is None else MASK_SUFFIXES | LOSSY_SUFFIXES


def pixels_of(file: Path | IO[bytes]) -> int:
    """Width times height, from the file's head alone; 0 of what is no image, which reading it will tell."""
    try:
        if isinstance(file, Path) and not file.is_file():
            return 0  # to open a FIFO would wait for somebody to write into it
        if isinstance(file, Path) and file.suffix.lower() == ARRAY:
            return int(np.load(file, mmap_mode="r").size)
        with open_picture(file, str(file)) as picture:
            return picture.width * picture.height
    except Exception:  # Pillow's parsers raise a dozen types for damaged files
        return 0


def read_labels(
    file: Path | IO[bytes], where: str | None = None, max_pixels: int = DEFAULT_MAX_PIXELS, *, soft: bool = False
) -> MaskFile:
    """A mask's labels and colours; which of the two count, a :class:`~trainer.data.class_table.ClassTable` says.

    Grey of 2 and 4 bits is what the file holds (0 to 3, 0 to 15), not stretched to 255. With ``soft`` the values are no
    labels yet, so that fractions and what is stored with loss are read too.

    Raises:
        BadData: the file is missing, corrupt, truncated or larger than ``max_pixels``, or holds more than can be a
            mask's: fractions, frames, colours that are stored with loss, shapes in its transparency.
    """
    name = where or str(file)
    if isinstance(file, Path) and file.suffix.lower() == ARRAY:
        values = read_array(file, max_pixels, soft=soft)
        return MaskFile(values, "RGB" if values.ndim == 3 else "grey", name, None)
    picture = _decode(file, name, max_pixels)
    labels, kind = _labels(picture, name, soft)
    return MaskFile(upright(labels, picture.info["turn"]), kind, name, picture)


def _labels(picture: PIL.Image.Image, name: str, soft: bool) -> tuple[NDArray[Any], MaskKind]:
    mode, rawmode = picture.mode, picture.info["rawmode"]
    if not soft and (picture.format in _LOSSY or picture.info.get("compression") in ("jpeg", "webp")):
        kind = picture.format if picture.format in _LOSSY else "a TIFF with JPEG's compression"
        raise BadData(
            f"{name}: expected a mask as PNG, found {kind}, which changes labels; save it from its origin, or give "
            f"{BINARY} if it is of one class, white on black, in a folder of pairs"
        )
    if picture.info["several"]:
        raise BadData(
            f"{name}: expected one mask, found several frames or pages; save one, with a value for each class"
        )
    if picture.info["bands"] > len(picture.getbands()):
        raise BadData(f"{name}: expected a mask in grey, palette or RGB, found further bands; save it without them")
    if mode == "1":
        return np.asarray(picture).astype(np.uint8), "grey"
    if mode == "L" and rawmode.endswith(("I", "IR")):
        raise BadData(
            f"{name}: expected a mask whose 0 is black, found a TIFF whose 0 is white, which programs read "
            "differently; save it as PNG"
        )
    if mode == "L":
        values, scale = array_of(picture), _unscaled(rawmode)
        return values if scale is None else values // np.uint8(scale), "grey"
    if mode == "F":
        return finite(np.asarray(picture), name) if soft else whole_numbers(np.asarray(picture), name), "grey"
    if mode.startswith("I"):
        return np.asarray(picture).astype(np.int32), "grey"
    if mode in ("P", "PA"):
        return array_of(picture if mode == "P" else picture.getchannel("P")), "palette"
    if mode not in _RGB_MASKS or SIXTEEN.search(rawmode):
        found = "16 bits a channel in colour" if mode in _RGB_MASKS else _FOUND.get(mode, mode)
        raise BadData(
            f"{name}: expected a mask in grey, palette or RGB of 8 bits, found {found}; "
            "save it as PNG with a value for each class"
        )
    _check_transparency(picture, name)
    return np.broadcast_to(np.int32(-1), (picture.height, picture.width)), "RGB"


def check_labels(labels: NDArray[Any], classes: tuple[str, ...], where: Path | str) -> Mask:
    """The mask, if every label is a class or :data:`IGNORED`.

    Raises:
        BadData: names the first label that is neither.
    """
    if not labels_in(labels) <= {*range(len(classes)), IGNORED}:
        wrong = (labels != IGNORED) & ((labels < 0) | (labels >= len(classes)))
        row, column = np.argwhere(wrong)[0]
        raise BadData(
            f"{where}: label {labels[row, column]} at row {row}, column {column} is outside the "
            f"{len(classes)} classes: expected 0 to {len(classes) - 1}, or {IGNORED} for ignored pixels"
            + (f"; {_smooth_edge(len(classes), int(labels.max()))}" if edge_values(labels) else "")
        )
    return labels.astype(np.uint8, copy=False)


BINARY = "--mask-threshold 127"
"""The mend of masks of one class in white, whose edges are soft or were stored with loss."""


def _smooth_edge(classes: int, brightest: int) -> str:
    """The mend of a mask whose object is drawn with anti-aliasing, or that was scaled with interpolation."""
    mend = f"give --mask-threshold {brightest // 2}" if classes == 2 else "save it without"
    return f"this mask has a smooth edge: {mend}"


def edge_values(labels: NDArray[Any]) -> set[int]:
    """The labels that lie on a slope: most of their pixels have a smaller and a larger value beside them.

    A class has an inside, which is of one value; the grey of a smooth edge has none.
    """
    everywhere: Counter[int] = Counter()
    on_slope: Counter[int] = Counter()
    rows = max(1, _STRIP // max(1, labels.shape[1]))
    for start in range(0, labels.shape[0] - 2, rows):
        strip = labels[start : start + rows + 2]
        low, high = strip, strip
        for axis in (0, 1):  # the smallest and largest of 3 x 3
            low, high = (
                reduce(ends, (part, np.roll(part, 1, axis), np.roll(part, -1, axis)))
                for ends, part in ((np.minimum, low), (np.maximum, high))
            )
        inside = (slice(1, -1), slice(1, -1))  # np.roll joins the ends
        slope = ((low < strip) & (strip < high))[inside]
        for found, values in ((everywhere, strip[inside]), (on_slope, strip[inside][slope])):
            found.update(dict(zip(*(part.tolist() for part in np.unique(values, return_counts=True)), strict=True)))
    return {label for label, count in on_slope.items() if 2 * count > everywhere[label]}


def label_counts(mask: Mask) -> NDArray[np.int64]:
    """int64 (256,): pixels of each label. By Pillow, as NumPy counts in eight times the mask's memory and time."""
    return np.array(PIL.Image.fromarray(mask).histogram(), np.int64)


def labels_in(mask: NDArray[Any]) -> frozenset[int]:
    """The values that a mask of any integers has."""
    if mask.dtype != np.uint8:
        return frozenset(np.unique(mask).tolist())
    label, last = int(mask.min()), int(mask.max())
    found = {label}
    while label < last and len(found) < _FEW_LABELS:
        label += 1 + int((mask - np.uint8(label + 1)).min())  # what is below has become larger than all above
        found.add(label)
    return frozenset(found if label == last else np.flatnonzero(label_counts(mask)).tolist())


def check_label_sets(found: set[frozenset[int]], where: Path | str) -> None:
    """Whether 255 can mean "ignored" in a data set whose masks, of both splits at their own size, hold these labels.

    Raises:
        BadData: 0 and 255 are all labels there are, or some masks have 0 and 1, and others 0 and 255.
    """
    labels = frozenset[int]().union(*found)
    colours = "or name the colours in classes.txt ('background 0 0 0', 'object 255 255 255')"
    if labels == {0, IGNORED}:
        raise BadData(
            f"{where}: masks hold only the labels 0 and 255, and 255 means 'ignored': write 1 for the object, as "
            f"{BINARY} does in a folder of pairs, {colours}"
        )
    if labels == {0, 1, IGNORED} and not any({1, IGNORED} <= mask for mask in found):
        raise BadData(
            f"{where}: some masks hold the labels 0 and 1, others 0 and 255, and 255 means 'ignored': write 1 for the "
            "object in all of them; if 255 is to be ignored, say so in classes.txt ('background 0 0 0', "
            "'object 1 1 1', 'ignored 255 255 255')"
        )


def _decode(file: Path | IO[bytes], name: str, max_pixels: int) -> PIL.Image.Image:
    """The decoded picture; its ``info`` has what loading forgets.

    That is rawmode, bands, whether it is several, EXIF's orientation, and the turn that is still to be made.
    """
    try:
        if isinstance(file, Path) and file.exists() and not file.is_file():
            raise BadData(f"{name}: expected a file, found {'a folder' if file.is_dir() else 'a pipe or device'}")
        with open_picture(file, name) as picture:
            pixels = picture.width * picture.height
            if pixels > max_pixels:
                raise BadData(
                    f"{name}: has {picture.width} x {picture.height} = {pixels} pixels, and --max-pixels allows "
                    f"{max_pixels}; give a larger number if memory holds it (some 10 bytes a pixel), or save it smaller"
                )
            arguments = picture.tile[0][3] if getattr(picture, "tile", None) else ""
            rawmode = arguments if isinstance(arguments, str) else next(iter(arguments or ()), "")
            bands = getattr(picture, "tag_v2", {}).get(277, 0)  # TIFF's SamplesPerPixel
            several = bool(getattr(picture, "is_animated", False))  # n_frames would decode all
            tiff = picture.format == "TIFF"
            orientation = orientation_of(picture) if tiff else AsStored  # Pillow turns a TIFF while it loads it
            if tiff:  # else Pillow maps stored pixels that lie sideways in rows of their displayed width
                picture.filename = ""
            picture.load()
            turn = AsStored if tiff else orientation_of(picture)
            picture.info.update(
                rawmode=str(rawmode), bands=bands, several=several, turn=turn, orientation=max(orientation, turn)
            )
            return picture
    except BadData:
        raise
    except FileNotFoundError as error:
        raise BadData(f"{name}: there is no such file") from error
    except PIL.UnidentifiedImageError as error:
        raise BadData(f"{name}: expected an image, found {_magic(file)}; replace or remove it") from error
    except PermissionError as error:
        raise BadData(f"{name}: can't be read: {error.strerror}; let this user read it (chmod a+r)") from error
    except MemoryError as error:
        raise BadData(f"{name}: does not fit into memory; save it smaller") from error
    except OSError as error:
        if error.errno is not None:  # the disk's, not the decoder's
            raise BadData(f"{name}: can't be read: {error.strerror}") from error
        raise BadData(f"{name}: can't be read as an image, replace or remove it: {_reason(error)}") from error
    except Exception as error:  # Pillow's decoders raise a dozen types for damaged files
        raise BadData(f"{name}: can't be read as an image, replace or remove it: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    return one_line(str(error)) or type(error).__name__


def _magic(file: Path | IO[bytes]) -> str:
    """What a file that is no image seems to be."""
    if not isinstance(file, Path):
        return "something else or damaged data"
    with file.open("rb") as content:
        start = content.read(32)
    for magic, kind in _MAGIC:
        if start == magic or (magic and start.startswith(magic)):
            return kind
    return "something else or a damaged file"


def _unscaled(rawmode: str) -> int | None:
    """What Pillow multiplies grey of 2 and 4 bits by."""
    return {"L;2": 85, "L;2R": 85, "L;4": 17, "L;4R": 17}.get(rawmode)


def _without_alpha(picture: PIL.Image.Image) -> PIL.Image.Image:
    """In RGB, pixels of any transparency in their own colour."""
    if picture.mode == "RGB":
        return picture
    if picture.mode == "La":
        picture = picture.convert("LA")
    if picture.mode == "RGBa":
        picture = picture.convert("RGBA")
    if "transparency" in picture.info:
        picture = picture.copy()
        del picture.info["transparency"]  # Pillow would keep or warn of it
    return picture.convert("RGB")


def _with_alpha(picture: PIL.Image.Image) -> PIL.Image.Image | None:
    """In RGBA; None without any alpha."""
    if picture.mode not in _WITH_ALPHA and "transparency" not in picture.info:
        return None
    return (picture.convert("LA") if picture.mode == "La" else picture).convert("RGBA")


def _is_transparent(picture: PIL.Image.Image) -> bool:
    rgba = _with_alpha(picture)
    return rgba is not None and np.asarray(rgba.getchannel("A")).min() < 255


def _check_transparency(picture: PIL.Image.Image, name: str) -> None:
    """Raises BadData if colours alone do not tell the mask's pixels apart."""
    rgba = _with_alpha(picture)
    if rgba is None:
        return
    alpha = np.asarray(rgba.getchannel("A"))
    if alpha.min() == alpha.max():
        return
    codes = np.unique(np.asarray(rgba).view(np.uint32))
    if len({code & 0xFFFFFF for code in codes.tolist()}) < len(codes):  # A is the last byte, the highest
        raise BadData(
            f"{name}: pixels of one colour differ in transparency, and a mask is read by value or colour alone; "
            "save it without transparency, with a value for each class"
        )


def _white(largest: int, said: int | None) -> int:
    """The value of white in samples of 16 bits of which none is over ``largest``.

    Sensors of 10, 12 or 14 bits are kept in 16. The file says which (TIFF's MaxSampleValue), or it is the least of
    these depths that holds all its values, of all its bands together.
    """
    if said is not None and max(largest, 1) <= said < 1 << 16:
        return said
    return (1 << next(bits for bits in _DEPTHS if largest < 1 << bits)) - 1
