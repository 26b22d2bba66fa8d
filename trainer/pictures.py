"""Pictures of a run: predictions beside the truth, curves, the confusion matrix. Imports no TensorFlow."""

from __future__ import annotations

import functools
import io
import struct
import warnings
import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from maskfleet.records import CURVES, MetricsLine
from maskfleet.text import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IGNORED_COLOUR = (128, 128, 128)
_GAP = 6
_LINE = 18
_LARGEST = 20.0
"""Side of a confusion matrix's picture, inches of 100 pixels."""
_LONGEST, _LONGEST_TICK = 60, 30
"""Characters of a class's name in a legend, and beside a confusion matrix."""
_RGB, _INDICES, _DIFFERENCE_TO_LINE_ABOVE = 2, 3, 2
"""Numbers of the PNG format: two of its colour types, and one of its filters."""
_NUMBERED = 30
"""Classes of a confusion matrix whose numbers can be read at that size."""


def colour_mask(mask: NDArray[np.uint8], colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Class indices [H, W] as colours [H, W, 3]; a label without a colour (255: ignored) is grey."""
    table = np.full((256, 3), IGNORED_COLOUR, np.uint8)
    table[: len(colours)] = colours
    return table[mask]


def as_colours(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Bands [H, W, B] as colours [H, W, 3] to be looked at: the first three, or one as grey."""
    return image[..., :3] if image.shape[-1] >= 3 else np.repeat(image[..., :1], 3, axis=-1)


def overlay(image: NDArray[np.uint8], mask: NDArray[np.uint8], colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image [H, W, B] with its mask [H, W] laid over it half transparent."""
    below, above = as_colours(image), colour_mask(mask, colours)
    return (below & above) + ((below ^ above) >> 1)  # half of their sum, without more than 8 bits


def predictions_picture(
    images: NDArray[np.uint8],
    truths: NDArray[np.uint8],
    predictions: NDArray[np.uint8],
    classes: Sequence[str],
    colours: NDArray[np.uint8],
) -> Image.Image:
    """A row for each example: the image [H, W, B], its true mask and the predicted one; below, the classes."""
    rows = [
        (as_colours(image), colour_mask(truth, colours), colour_mask(prediction, colours))
        for image, truth, prediction in zip(images, truths, predictions, strict=True)
    ]
    height, width = images.shape[1:3]
    legend = legend_strip(3 * (width + _GAP) + _GAP, classes, colours)
    below = _LINE + len(rows) * (height + _GAP) + _GAP
    picture = Image.new("RGB", (legend.width, below + legend.height), "white")
    draw = ImageDraw.Draw(picture)
    for column, title in enumerate(("image", "truth", "prediction")):
        draw.text((_GAP + column * (width + _GAP), 2), title, "black", _font())
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            picture.paste(Image.fromarray(cell), (_GAP + column * (width + _GAP), _LINE + number * (height + _GAP)))
    picture.paste(legend, (0, below))
    return picture


def legend_strip(width: int, classes: Sequence[str], colours: NDArray[np.uint8]) -> Image.Image:
    """The classes with their colours, in as many lines of ``width`` pixels as they need."""
    font = _font()
    names = [_label(name, _LONGEST) for name in classes]
    lengths = [20 + font.getlength(name) for name in names]
    places = []
    left, top = float(_GAP), 0
    for length in lengths:
        if left > _GAP and left + length > width:
            left, top = float(_GAP), top + _LINE
        places.append((left, top))
        left += length + _GAP
    strip = Image.new("RGB", (width, top + _LINE), "white")
    draw = ImageDraw.Draw(strip)
    for (left, top), name, colour in zip(places, names, colours.tolist(), strict=True):
        draw.rectangle((left, top + 3, left + 10, top + 13), tuple(colour), "black")
        draw.text((left + 14, top), name, "black", font)
    return strip


def curves_picture(metrics: Sequence[MetricsLine]) -> bytes:
    """PNG of loss and mIoU of training and validation over the epochs."""
    figure = _figure(10, 4)
    epochs = [line.epoch for line in metrics]
    for number, (title, training, validation) in enumerate(CURVES):
        axes = figure.add_subplot(1, len(CURVES), number + 1)
        axes.plot(epochs, [getattr(line, training) for line in metrics], label="training", marker=".")
        axes.plot(epochs, [getattr(line, validation) for line in metrics], label="validation", marker=".")
        axes.set_xlabel("epoch")
        axes.set_title(title)
        axes.grid(alpha=0.3)
        axes.legend()
    return _png(figure)


def rates_picture(
    rates: Sequence[float], losses: Sequence[float], smoothed: Sequence[float], suggestion: float | None
) -> bytes:
    """PNG of the loss over the learning rate, with the suggested one."""
    figure = _figure(8, 5)
    axes = figure.add_subplot()
    axes.plot(rates, losses, color="0.75", label="of a batch", linewidth=1)
    axes.plot(rates, smoothed, label="smoothed")
    if suggestion is not None:
        axes.axvline(suggestion, color="tab:green", linestyle="--", label=f"suggestion: {suggestion:g}")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.3)
    axes.legend()
    return _png(figure)


def confusion_picture(matrix: NDArray[np.int64], classes: Sequence[str]) -> bytes:
    """PNG of a confusion matrix [C, C], rows truth, in shares of each true class; in numbers too if they are few."""
    count = len(classes)
    figure = _figure(min(2 + 0.7 * count, _LARGEST), min(2 + 0.6 * count, _LARGEST))
    axes = figure.add_subplot()
    shares = confusion_shares(matrix)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    points = min(10.0, 1000 / count)
    names = [_label(name, _LONGEST_TICK).replace("$", r"\$") for name in classes]  # else it begins a formula
    axes.set_xticks(range(count), names, rotation=45, ha="right", fontsize=points)
    axes.set_yticks(range(count), names, fontsize=points)
    axes.set_xlabel("prediction")
    axes.set_ylabel("truth")
    for row, column in np.ndindex(*matrix.shape) if count <= _NUMBERED else ():
        share = shares[row, column]
        axes.text(column, row, f"{share:.2f}", ha="center", va="center", color="white" if share > 0.5 else "black")
    return _png(figure)


def confusion_shares(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of a confusion matrix [C, C], rows truth: the shares of each true class; 0 for one that does not occur."""
    return np.asarray(matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1), np.float64)


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def write_png(
    file: BinaryIO,
    width: int,
    height: int,
    strips: Iterable[NDArray[np.uint8]],
    colours: NDArray[np.uint8] | None = None,
) -> None:
    """Writes an RGB picture that comes in strips [rows, width, 3] from the top, or [rows, width] of ``colours``.

    Pillow would need the whole of it, in four bytes a pixel, which for a photograph are hundreds of megabytes.
    """
    kind, channels = (_RGB, 3) if colours is None else (_INDICES, 1)

    def chunk(name: bytes, content: bytes) -> None:
        checksum = zlib.crc32(content, zlib.crc32(name))
        file.write(struct.pack(">I4s", len(content), name) + content + struct.pack(">I", checksum))

    file.write(b"\x89PNG\r\n\x1a\n")
    chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
    if colours is not None:
        chunk(b"PLTE", colours.tobytes())
    # Of photographs zlib's own level saves a tenth of the bytes, and takes three to four times as long.
    compressor = zlib.compressobj(zlib.Z_BEST_SPEED if colours is None else zlib.Z_DEFAULT_COMPRESSION)
    above = np.zeros((1, width, channels), np.uint8)
    for strip in (part.reshape(len(part), width, channels) for part in strips):
        lines = np.empty((len(strip), 1 + channels * width), np.uint8)
        lines[:, 0] = _DIFFERENCE_TO_LINE_ABOVE
        lines[:, 1:] = (strip - np.concatenate([above, strip[:-1]])).reshape(len(strip), -1)
        above = strip[-1:]
        chunk(b"IDAT", compressor.compress(lines.tobytes()))
    chunk(b"IDAT", compressor.flush())
    chunk(b"IEND", b"")


@functools.cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Read once: to unpack it takes a millisecond."""
    return ImageFont.load_default(13)


def _label(name: str, longest: int) -> str:
    """A class's name, which somebody else chose, as it is drawn: in one line of so many characters at most."""
    line = printable(" ".join(name.split()))
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _figure(width: float, height: float) -> Figure:
    # pyplot is avoided: it keeps every figure alive and looks for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of letters that the font lacks, and names too long for the layout
        figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
