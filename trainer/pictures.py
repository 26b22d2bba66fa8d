"""Pictures of a run: predictions beside the truth, curves, the confusion matrix. Imports no TensorFlow."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from maskfleet.records import CURVES, MetricsLine

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IGNORED_COLOUR = (128, 128, 128)
_GAP = 6
_LINE = 18
_LARGEST = 20.0
"""Side of a confusion matrix's picture, inches of 100 pixels."""
_NUMBERED = 30
"""Classes of a confusion matrix whose numbers can be read at that size."""


def colour_mask(mask: NDArray[np.uint8], colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Class indices [H, W] as colours [H, W, 3]; a label without a colour (255: ignored) is grey."""
    table = np.full((256, 3), IGNORED_COLOUR, np.uint8)
    table[: len(colours)] = colours
    return table[mask]


def overlay(image: NDArray[np.uint8], mask: NDArray[np.uint8], colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image [H, W, 3] with its mask [H, W] laid over it half transparent."""
    return ((image.astype(np.uint16) + colour_mask(mask, colours)) // 2).astype(np.uint8)


def predictions_picture(
    images: NDArray[np.uint8],
    truths: NDArray[np.uint8],
    predictions: NDArray[np.uint8],
    classes: Sequence[str],
    colours: NDArray[np.uint8],
) -> Image.Image:
    """A row for each example: the image [H, W, 3], its true mask and the predicted one; below, the classes."""
    rows = [
        (image, colour_mask(truth, colours), colour_mask(prediction, colours))
        for image, truth, prediction in zip(images, truths, predictions, strict=True)
    ]
    height, width = images.shape[1:3]
    legend = legend_strip(3 * (width + _GAP) + _GAP, classes, colours)
    below = _LINE + len(rows) * (height + _GAP) + _GAP
    picture = Image.new("RGB", (legend.width, below + legend.height), "white")
    draw = ImageDraw.Draw(picture)
    for column, title in enumerate(("image", "truth", "prediction")):
        draw.text((_GAP + column * (width + _GAP), 2), title, "black", ImageFont.load_default(13))
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            picture.paste(Image.fromarray(cell), (_GAP + column * (width + _GAP), _LINE + number * (height + _GAP)))
    picture.paste(legend, (0, below))
    return picture


def legend_strip(width: int, classes: Sequence[str], colours: NDArray[np.uint8]) -> Image.Image:
    """The classes with their colours, in as many lines of ``width`` pixels as they need."""
    font = ImageFont.load_default(13)
    lengths = [20 + font.getlength(name) for name in classes]
    places = []
    left, top = float(_GAP), 0
    for length in lengths:
        if left > _GAP and left + length > width:
            left, top = float(_GAP), top + _LINE
        places.append((left, top))
        left += length + _GAP
    strip = Image.new("RGB", (width, top + _LINE), "white")
    draw = ImageDraw.Draw(strip)
    for (left, top), name, colour in zip(places, classes, colours.tolist(), strict=True):
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


def confusion_picture(matrix: NDArray[np.int64], classes: Sequence[str]) -> bytes:
    """PNG of a confusion matrix [C, C], rows truth, in shares of each true class; in numbers too if they are few."""
    count = len(classes)
    figure = _figure(min(2 + 0.7 * count, _LARGEST), min(2 + 0.6 * count, _LARGEST))
    axes = figure.add_subplot()
    shares = confusion_shares(matrix)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    points = min(10.0, 1000 / count)
    axes.set_xticks(range(count), classes, rotation=45, ha="right", fontsize=points)
    axes.set_yticks(range(count), classes, fontsize=points)
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


def _figure(width: float, height: float) -> Figure:
    # pyplot is avoided: it keeps every figure alive and looks for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
