"""Masks of images at their own size.

No array of all classes at an image's size is ever made: what the network says is enlarged, or summed up over its
windows, a tile at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskfleet.image_size import Fit, Size
from trainer.data.fitting import scaled_image, within
from trainer.data.windows import starts
from trainer.models.inference import logits_of
from trainer.results.enlarging import PART, enlarged_part, enlarged_whole
from trainer.results.evaluation import batch_that_fits
from trainer.results.tiles import Tile

Image = NDArray[np.uint8]
Network = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Images uint8 [b, H, W, bands] -> logits float32 [b, H, W, classes], of the network's size."""

_WHOLE = 4 * PART
"""Numbers, pixels times classes, that are enlarged without parts: no more memory than a part and what makes it."""
_BAND = 1 << 24
"""Pixels times classes of the windows that are summed up: 64 MiB. Narrower bands compute more windows twice."""
PIXELS_AT_ONCE, PIXELS_OF_GROUP = 3 << 24, 1 << 24
"""Of the images that are in memory together, 144 MiB, and of those that are computed together; a larger one is there
alone."""
_STRIP = 1 << 18
"""Pixels that are scaled at once."""


class _Window(NamedTuple):
    """A part of an image that the network is shown."""

    row: int
    column: int
    tall: int
    wide: int

    def of(self, image: Image) -> Image:
        return image[self.row : self.row + self.tall, self.column : self.column + self.wide]


@dataclass(frozen=True)
class Predictor:
    """A network as a function of images of any size.

    Attributes:
        size: of the network's input.
        classes: how many the network tells apart.
        window: slide it over the image at the image's own scale, instead of scaling the image to it.
        padded: scale the image with its aspect kept, and fill the rest of the input by repeating its edge.
        overlap: share of the window by which neighbours overlap.
        flip: average with the prediction of the mirrored image.
        scales: average the predictions of the image at these scales, as shares of that at which it is seen otherwise.
        batch_size: images, or windows of an image, at a time; fewer where so many would take too much memory.
    """

    network: Network
    size: Size
    classes: int
    window: bool = False
    overlap: float = 0.5
    flip: bool = False
    batch_size: int = 8
    scales: tuple[float, ...] = (1.0,)
    padded: bool = False

    @classmethod
    def fitted(
        cls, fit: Fit, network: Network, size: Size, classes: int, *, window: bool = False, **choices: Any
    ) -> Predictor:
        """That sees images as training with ``fit`` did; ``choices`` are further attributes."""
        return cls(network, size, classes, window=window or fit == "crop", padded=fit == "pad", **choices)

    @property
    def sees_whole(self) -> bool:
        """Each image at once and once, made beforehand by :meth:`shown`; else a part at a time, as tiles are taken."""
        return not self.window and self.scales == (1.0,)

    def shown(self, image: Image) -> Image:
        """What the network is shown of an image [H, W, 3] that it sees whole."""
        return _grown(_scaled(image, self._scaled_size(image)), self.size)

    def tiles(
        self, images: Sequence[Image], shown: Sequence[Image] | None = None, *, logits: bool = False
    ) -> Iterator[Iterator[Tile]]:
        """For one image [H, W, 3] after another, each of its own size, the tiles that cover it, each pixel once.

        Args:
            shown: what :meth:`shown` makes of each, if that is known.
            logits: give them in the place of probabilities where nothing is averaged: for who asks only which class is
                the likeliest, as the softmax takes more time than all else.
        """
        if self.window:
            yield from map(self._slide, images)
            return
        if self.scales != (1.0,):
            yield from map(self._at_scales, images)
            return
        for start in range(0, len(images), self._at_once):
            some = images[start : start + self._at_once]
            inputs = shown[start : start + self._at_once] if shown else [self.shown(image) for image in some]
            for image, found in zip(some, self._run(np.stack(inputs)), strict=True):
                height, width = self._scaled_size(image)
                yield _enlarge(found[:height, :width], *image.shape[:2], logits=logits)

    def masks(self, images: Sequence[Image], shown: Sequence[Image] | None = None) -> Iterator[NDArray[np.uint8]]:
        """Class indices [H, W] of one image [H, W, 3] after another; ``shown`` as in :meth:`tiles`."""
        for image, tiles in zip(images, self.tiles(images, shown, logits=True), strict=True):
            mask = np.empty(image.shape[:2], np.uint8)
            for tile in tiles:
                mask[tile.rows, tile.columns] = np.argmax(tile.scores, axis=-1)
            yield mask

    def _scaled_size(self, image: Image) -> Size:
        return within(Size(*image.shape[:2]), self.size) if self.padded else self.size

    def _at_scales(self, image: Image) -> Iterator[Tile]:
        """The image scaled to several sides, each seen through windows where the network does not see it whole."""
        parts = []
        for scale in self.scales:
            sides = Size(*(max(1, round(scale * side)) for side in self._scaled_size(image)))
            found = np.empty((*sides, self.classes), np.float32)
            for tile in replace(self, scales=(1.0,))._slide(_scaled(image, sides)):
                found[tile.rows, tile.columns] = tile.scores
            parts.append(_enlarge(_logs(found), *image.shape[:2]))
        for tiles in zip(*parts, strict=True):
            mean = sum(tile.scores for tile in tiles) / np.float32(len(tiles))
            yield tiles[0]._replace(scores=mean)

    def _slide(self, image: Image) -> Iterator[Tile]:
        """Windows that overlap, weighted less towards their rims, where a network knows less of the surroundings.

        For a scale over 1 the windows are smaller parts of the image, enlarged to the network, and for one under
        1 larger parts, made smaller. All of them are summed up together.
        """
        height, width = image.shape[:2]
        sides = [(max(1, round(self.size[0] / scale)), max(1, round(self.size[1] / scale))) for scale in self.scales]
        tallest, widest = (max(lengths) for lengths in zip(*sides, strict=True))
        image = _grown(image, Size(tallest, widest))
        windows = []
        for tall, wide in sides:
            rows = starts(image.shape[0], tall, self.overlap)
            columns = starts(image.shape[1], wide, self.overlap)
            windows += [_Window(row, column, tall, wide) for row in rows for column in columns]
        windows.sort(key=lambda window: window.row)  # those of a row stay in their order
        at_once = max(1, _BAND // (tallest * self.classes))
        for left in range(0, width, at_once):
            right = min(left + at_once, width)
            some = [window for window in windows if left - window.wide < window.column < right]
            yield from self._slide_down(image, some, slice(0, height), slice(left, right))

    def _slide_down(self, image: Image, windows: Sequence[_Window], rows: slice, columns: slice) -> Iterator[Tile]:
        """The part of the image in ``columns``; ``windows`` are those that reach into it, from the top."""
        tallest, (left, right) = max(window.tall for window in windows), (columns.start, columns.stop)
        summed = np.zeros((tallest, right - left, self.classes), np.float32)  # of the rows from ``top`` on
        total = np.zeros((tallest, right - left, 1), np.float32)
        top = rows.start

        def done(end: int) -> Iterator[Tile]:
            rows_at_once = max(1, PART // ((right - left) * self.classes))
            for first in range(top, min(end, rows.stop), rows_at_once):
                last = min(first + rows_at_once, end, rows.stop)
                part = slice(first - top, last - top)
                found = (summed[part] / total[part]).astype(np.float32, copy=False)
                yield Tile(slice(first, last), columns, found)

        for start in range(0, len(windows), self._at_once):
            some = windows[start : start + self._at_once]
            seen = np.stack([_resized(window.of(image), self.size[1], self.size[0]) for window in some])
            for (row, column, tall, wide), found in zip(some, _softmax(self._run(seen)), strict=True):
                if row > top:  # no other window reaches above
                    yield from done(row)
                    for sums in (summed, total):
                        _move_up(sums, row - top)
                    top = row
                if (tall, wide) != self.size:
                    found = tf.image.resize(found, (tall, wide)).numpy()
                weight = _weight(tall, wide, self.size)
                here = slice(max(column - left, 0), min(column + wide, right) - left)
                inside = slice(here.start + left - column, here.stop + left - column)
                summed[:tall, here] += weight[:, inside] * found[:, inside]
                total[:tall, here] += weight[:, inside]
        yield from done(top + tallest)

    @property
    def images_at_once(self) -> int:
        """How many images it takes to make use of :attr:`batch_size`."""
        return 1 if self.window else self.batch_size

    @property
    def _at_once(self) -> int:
        return batch_that_fits(self.batch_size, self.size.pixels, self.classes)

    def _run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits; of several predictions those of the mean of their probabilities."""
        logits = self.network(images)
        if not self.flip:
            return logits
        mirrored = self.network(images[:, :, ::-1])[:, :, ::-1]
        both = np.logaddexp(tf.nn.log_softmax(logits), tf.nn.log_softmax(mirrored))
        return np.asarray(both - np.log(np.float32(2)))


def network_of(model: keras.Model) -> Network:
    """A Keras model as a function of arrays."""
    run = logits_of(model)
    return lambda images: run(tf.constant(images)).numpy()


def _enlarge(found: NDArray[np.float32], height: int, width: int, *, logits: bool = False) -> Iterator[Tile]:
    """What the network says of a scaled image, logits [h, w, classes], at the image's size."""
    classes = found.shape[-1]
    if logits and height * width * classes <= _WHOLE:
        yield Tile(slice(0, height), slice(0, width), enlarged_whole(found, height, width))
        return
    columns = max(1, min(width, PART // classes))
    rows = max(1, min(height, PART // (columns * classes)))
    part_of = _logits_of_part if logits else _probabilities_of_part
    small = tf.constant(found)
    for left in range(0, width, columns):
        for top in range(0, height, rows):
            tall, wide = min(rows, height - top), min(columns, width - left)
            part = part_of(small, height, width, top, tall, left, wide)
            yield Tile(slice(top, top + tall), slice(left, left + wide), part.numpy())


_PLACE = [tf.TensorSpec([None, None, None], tf.float32), *[tf.TensorSpec([], tf.int32)] * 6]
_logits_of_part = tf.function(enlarged_part, autograph=False, input_signature=_PLACE)
_probabilities_of_part = tf.function(
    lambda *arguments: tf.nn.softmax(enlarged_part(*arguments)), autograph=False, input_signature=_PLACE
)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(tf.nn.softmax(logits))


def _logs(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits of which they are the softmax."""
    return np.asarray(np.log(probabilities + np.finfo(np.float32).tiny))


def _grown(image: Image, size: Size) -> Image:
    """At least of ``size``: below and to the right its edge is repeated."""
    missing = [(0, max(0, side - there)) for side, there in zip(size, image.shape, strict=False)]
    return np.pad(image[:], (*missing, (0, 0)), "edge") if any(after for _, after in missing) else image


@functools.cache
def _weight(tall: int, wide: int, size: Size) -> NDArray[np.float32]:
    """How much each pixel of a window counts, [tall, wide, 1]: at its middle as much as one of ``size``."""
    lines = [
        np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1)).astype(np.float32) * np.float32(whole / side)
        for side, whole in zip((tall, wide), size, strict=True)
    ]
    return np.outer(*lines)[..., None]


def _scaled(image: Image, size: Size) -> Image:
    """As the data cache scales training images, bit for bit, without a second copy of a large one.

    Pillow scales along the rows first and then along the columns, so it may have the rows in strips; of an image that
    is over a hundred times as tall as wide, the other way round.
    """
    height, width = image.shape[:2]
    if height > 100 * width:
        return _resized(image, size.width, size.height)
    rows = max(1, _STRIP // width)
    strips = (image[top : top + rows] for top in range(0, height, rows))
    narrow = np.concatenate([_resized(strip, size.width, len(strip)) for strip in strips])
    return _resized(narrow, size.width, size.height)


def _resized(image: Image, width: int, height: int) -> Image:
    if image.shape[:2] == (height, width):
        return image
    return scaled_image(image[:], Size(height, width))


def _move_up(sums: NDArray[np.float32], rows: int) -> None:
    """Without a copy of the whole."""
    for start in range(0, len(sums) - rows, rows):
        end = min(start + rows, len(sums) - rows)
        sums[start:end] = sums[start + rows : end + rows]
    sums[-rows:] = 0
