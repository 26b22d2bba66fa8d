"""Random changes of image and mask together, as a pure function of a seed for each example.

Each example is changed on its own and by ops of one fixed shape, so the result has the same bits in whatever
batch, on whatever worker it is made.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import tensorflow as tf

from maskfleet.config import TrainConfig
from trainer.data.distortion import NODES, blurred, displaced, elastic, grid
from trainer.data.own_augmentation import OwnChange

_GREY = 127
"""What is cut out becomes mid-grey."""

# RGB = _FROM_YIQ · YIQ: the colour space of NTSC, whose first axis is brightness and whose other two span hue.
_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)
_BRIGHTNESS, _HUE_COSINE, _HUE_SINE = (
    (_FROM_YIQ @ np.array(matrix) @ _TO_YIQ).astype(np.float32)
    for matrix in (
        [[1, 0, 0], [0, 0, 0], [0, 0, 0]],
        [[0, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[0, 0, 0], [0, 0, -1], [0, 1, 0]],
    )
)


@dataclass(frozen=True)
class Augmentation:
    """What is changed at random; all off by default.

    Attributes:
        flip: mirror left to right with probability .5: anew each epoch ("random"), or once for all epochs
            ("frozen", as when a pipeline caches after its flip).
        flip_vertical: mirror top to bottom with probability .5, anew each epoch: for pictures from above.
        zoom: enlarge or shrink by a factor of up to 1 + zoom, and move within what that leaves; what comes in
            from outside is the picture, mirrored at its edge.
        rotation: turn by up to so many degrees to either side.
        colour: brightness, contrast and saturation each change by a factor of 1 - colour to 1 + colour, and
            hue turns by up to colour · 45 degrees.
        cutout: sides of a rectangle that is made grey, as a share of the image's; the mask stays
            (DeVries and Taylor, "Improved Regularization of CNNs with Cutout", 2017).
        elastic, grid: bend the picture, see :mod:`trainer.data.distortion`.
        blur: half of the images come under a Gaussian of up to so many pixels.
        own: the user's own change, after all others.
    """

    flip: Literal["none", "random", "frozen"] = "none"
    flip_vertical: bool = False
    zoom: float = 0.0
    rotation: float = 0.0
    colour: float = 0.0
    cutout: float = 0.0
    elastic: float = 0.0
    grid: float = 0.0
    blur: float = 0.0
    own: OwnChange | None = None

    @classmethod
    def of(cls, config: TrainConfig) -> Augmentation:
        settings = {field.name: getattr(config, field.name) for field in fields(cls) if field.name != "own"}
        return cls(**settings, own=None if config.augmentation is None else OwnChange(config.augmentation))

    def __call__(
        self, images: tf.Tensor, masks: tf.Tensor, *, seed: int, positions: tf.Tensor, examples: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Changes uint8 images (b, H, W, 3) and masks (b, H, W).

        Args:
            seed: of the run.
            positions: int64 (b,), of each example in the whole stream of training.
            examples: int64 (b,), which example of the split each is.
        """
        if self == Augmentation():
            return images, masks
        seeds = tf.constant(seed, tf.int64)

        def change(entry: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, tf.Tensor]:
            image, mask, position, flip = entry
            draws = tf.random.stateless_uniform([11], [seeds, position], -1.0, 1.0)
            more = tf.random.experimental.stateless_fold_in([seeds, position], 2)  # a stream of its own
            image, mask = self._change(image, mask, flip, draws, more)
            if self.own is not None:
                image, mask = self.own(image, mask, tf.random.fold_in([seeds, position], 1))  # and another one
            return image, mask

        flips = self.flipped(seed=seed, positions=positions, examples=examples)
        pairs: tuple[tf.Tensor, tf.Tensor] = tf.map_fn(
            change,
            (images, masks, positions, flips),
            fn_output_signature=(tf.TensorSpec(images.shape[1:], tf.uint8), tf.TensorSpec(masks.shape[1:], tf.uint8)),
        )
        return pairs

    def flipped(self, *, seed: int, positions: tf.Tensor, examples: tf.Tensor) -> tf.Tensor:
        """Which of the examples are mirrored left to right, bool (b,); see :meth:`__call__` for the arguments."""
        if self.flip == "none":
            return tf.zeros_like(positions, tf.bool)
        seeds = tf.constant(seed, tf.int64)

        def draw(number: tf.Tensor) -> tf.Tensor:
            return tf.random.stateless_uniform([], [seeds, number]) < 0.5

        numbers = examples if self.flip == "frozen" else -1 - positions
        return tf.map_fn(draw, numbers, fn_output_signature=tf.bool)

    def _change(
        self, image: tf.Tensor, mask: tf.Tensor, flip: tf.Tensor, draws: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """One example. Each of the ``draws``, uniform in -1..1, has one use: no setting changes another's.

        Nor does one of those that draw from ``seed``, int64 (2,), numbers of their own.
        """
        if self.flip != "none":
            image, mask = _mirror(image, mask, 1, flip)
        if self.flip_vertical:
            image, mask = _mirror(image, mask, 0, draws[10] < 0)
        if self.zoom or self.rotation:
            transform = self._transform(image.shape[0], image.shape[1], draws[0], draws[1], draws[2], draws[3])
            image = _warp(image, transform, "BILINEAR")
            mask = _warp(mask[..., None], transform, "NEAREST")[..., 0]
        if self.elastic or self.grid:
            image, mask = self._bend(image, mask, seed)
        if self.blur:
            sigma = tf.random.stateless_uniform([], tf.random.experimental.stateless_fold_in(seed, 3), -1.0, 1.0)
            image = blurred(image, self.blur * tf.maximum(sigma, 0.0), self.blur)
        if self.colour:
            image = self._recolour(image, draws[4], draws[5], draws[6], draws[7])
        if self.cutout:
            image = self._cut_out(image, draws[8], draws[9])
        return image, mask

    def _transform(
        self, height: int, width: int, zoom: tf.Tensor, x: tf.Tensor, y: tf.Tensor, angle: tf.Tensor
    ) -> tf.Tensor:
        """The eight numbers of ImageProjectiveTransform that take a place in the result to its place in the image."""
        shrink = tf.exp(-zoom * math.log1p(self.zoom))
        turn = angle * math.radians(self.rotation)
        cosine, sine = shrink * tf.cos(turn), shrink * tf.sin(turn)
        across, down = (width - 1) / 2, (height - 1) / 2
        slack = tf.abs(1 - shrink)
        # Factors of exactly 1 for a square, whose bits are those that it always had.
        left = across + x * (slack * width / 2) - across * (cosine - sine * (down / across))
        top = down + y * (slack * height / 2) - down * (sine * (across / down) + cosine)
        return tf.stack([cosine, -sine, left, sine, cosine, top, 0.0, 0.0])

    def _bend(self, image: tf.Tensor, mask: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        height, width = image.shape[:2]
        field = tf.zeros([2, height, width])
        for number, (shape, make, amount) in enumerate(
            (([NODES, NODES, 2], elastic, self.elastic), ([2, NODES - 1], grid, self.grid)), start=1
        ):
            if amount:
                own = tf.random.experimental.stateless_fold_in(seed, number)
                field += make(tf.random.stateless_uniform(shape, own, -1.0, 1.0), height, width, amount)
        return displaced(image, mask, field)

    def _recolour(
        self, image: tf.Tensor, brightness: tf.Tensor, contrast: tf.Tensor, saturation: tf.Tensor, hue: tf.Tensor
    ) -> tf.Tensor:
        """Of bands that are not red, green and blue only brightness and contrast."""
        turn = hue * self.colour * math.pi / 4
        brightness, contrast, saturation = (1 + self.colour * draw for draw in (brightness, contrast, saturation))
        bands = image.shape[2]
        weights = _TO_YIQ[0].astype(np.float32)
        if bands == 3:
            matrix = _BRIGHTNESS + saturation * (tf.cos(turn) * _HUE_COSINE + tf.sin(turn) * _HUE_SINE)
        else:
            matrix, weights = tf.eye(bands), np.full(bands, 1 / bands, np.float32)
        # The mean from whole numbers, which add up to the same in any order.
        mean = tf.reduce_sum(tf.cast(image, tf.int32), [0, 1]) / (image.shape[0] * image.shape[1])
        grey = tf.tensordot(tf.cast(mean, tf.float32), weights, 1)
        pixels = tf.cast(tf.reshape(image, [-1, bands]), tf.float32)
        pixels = (
            tf.matmul(pixels, brightness * contrast * matrix, transpose_b=True) + brightness * (1 - contrast) * grey
        )
        return tf.reshape(tf.cast(tf.clip_by_value(tf.round(pixels), 0, 255), tf.uint8), image.shape)

    def _cut_out(self, image: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        rows, columns = (
            tf.abs(tf.range(size, dtype=tf.float32) - (draw + 1) / 2 * (size - 1)) < self.cutout * size / 2
            for draw, size in zip((y, x), image.shape, strict=False)
        )
        keep = tf.cast(~(rows[:, None] & columns[None, :]), tf.uint8)[..., None]
        return image * keep + _GREY * (1 - keep)


def _mirror(image: tf.Tensor, mask: tf.Tensor, axis: int, wanted: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    pair: tuple[tf.Tensor, tf.Tensor] = tf.cond(
        wanted, lambda: (tf.reverse(image, [axis]), tf.reverse(mask, [axis])), lambda: (image, mask)
    )
    return pair


def _warp(image: tf.Tensor, transform: tf.Tensor, interpolation: str) -> tf.Tensor:
    """One uint8 image (H, W, channels), mirrored at its edges where the result reaches beyond them."""
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=image[None],
        transforms=transform[None],
        output_shape=image.shape[:2],
        fill_value=0.0,
        interpolation=interpolation,
        fill_mode="REFLECT",
    )
    return tf.ensure_shape(warped[0], image.shape)
