"""The shape of a network's input, as a setting and in files: 224 for a square, 360x480 for others."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

SMALLEST_SIDE, LARGEST_SIDE = 32, 1 << 14
"""Of an input, pixels: the encoders' coarsest stride, and more than any memory holds."""

STRIDE = 32
"""Of the encoders' coarsest features, pixels."""

Fit = Literal["squash", "crop", "pad"]
"""How a picture becomes the network's input; see ``TrainConfig.fit``."""


class Size(NamedTuple):
    """Pixels. As text it is what a user writes: ``224``, or ``360x480`` for 360 rows of 480."""

    height: int
    width: int

    @classmethod
    def of(cls, size: Size | int) -> Size:
        """``size`` itself, or the square of that side."""
        return size if isinstance(size, Size) else cls(size, size)

    def __str__(self) -> str:
        return str(self.written)

    @property
    def written(self) -> int | str:
        """As files keep it, and as :func:`parse_size` reads it."""
        return self.height if self.height == self.width else f"{self.height}x{self.width}"

    @property
    def across(self) -> str:
        """For sentences, the width first as in all that is said of pictures: ``480 x 360``."""
        return f"{self.width} x {self.height}"

    @property
    def rounded_up(self) -> Size:
        """Both sides to multiples of :data:`STRIDE`."""
        return Size(self.height + -self.height % STRIDE, self.width + -self.width % STRIDE)

    @property
    def pixels(self) -> int:
        return self.height * self.width


def parse_size(value: Any) -> Size:
    """Reads a number of pixels, or HEIGHTxWIDTH.

    Raises:
        ValueError: it is neither, or a side is too small or too large.
    """
    expected = f"expected a number of pixels from {SMALLEST_SIDE} to {LARGEST_SIDE}, or two of them: 360x480"
    sides = re.fullmatch(r"(\d{1,9})(?:[xX](\d{1,9}))?", str(value).strip(), re.ASCII)
    if isinstance(value, Size):
        size = value
    elif isinstance(value, int | str) and sides:
        size = Size(int(sides[1]), int(sides[2] or sides[1]))
    else:
        raise ValueError(expected)
    if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in size):
        raise ValueError(expected)
    return size


ImageSize = Annotated[
    Size,
    PlainValidator(parse_size),
    PlainSerializer(lambda size: size.written),
    WithJsonSchema({"type": "string", "format": "image-size"}),
]
"""A :class:`Size` as the type of a setting."""
