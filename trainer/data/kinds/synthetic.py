"""Pictures made on the fly: textured objects on textured ground, labelled like ``oxford_iiit_pet``.

Every picture is a pure function of its number, so there is nothing to download, and a network that learns the
three classes here (object, background, border) learns from texture, colour and outline, as it must on photographs.
Imports no TensorFlow.
"""

from __future__ import annotations

import colorsys
import math

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from trainer.data.kinds.pets_folder import BACKGROUND, CLASSES, COLOURS
from trainer.data.source import Example, Image, Mask, Source, Split

SIZE = 128
"""Side of a picture, pixels."""
TRAIN, TEST = 240, 60
_BORDER = 3.0
"""Half the width of the border class, pixels."""
_VERSION = 1
"""To be raised when the pictures change."""

Field = NDArray[np.float64]
"""(SIZE, SIZE), a value for each pixel; with a third axis, a colour."""

# Double precision: where processors differ in the last bit of a sine, the pixels are still the same.
_rows, _columns = np.mgrid[:SIZE, :SIZE].astype(np.float64)


def open_synthetic() -> Source:
    """240 pictures for training and 60 for testing, none in both."""
    train = Split(tuple(f"train-{i:03d}" for i in range(TRAIN)), lambda i: Example(*picture(i)))
    test = Split(tuple(f"test-{i:03d}" for i in range(TEST)), lambda i: Example(*picture(TRAIN + i)))
    key = f"synthetic version {_VERSION}: {TRAIN} + {TEST} of {SIZE} pixels"
    return Source("synthetic", CLASSES, COLOURS, BACKGROUND, train, test, key)


def picture(number: int) -> tuple[Image, Mask]:
    """Image, uint8 (SIZE, SIZE, 3), and mask, uint8 (SIZE, SIZE), of one number."""
    random = np.random.default_rng([_VERSION, number])
    distance = _outline(random)
    if random.random() < 0.35:  # a second object
        distance = np.minimum(distance, _outline(random))
    ground, fur = _ground(random), _fur(random)
    # Shade towards the outline, and a soft shadow on the ground, as a round body has.
    fur = fur * np.clip(0.72 - distance / 48, 0.72, 1.08)[..., None]
    moved = np.pad(distance, ((4, 0), (3, 0)), mode="edge")[:SIZE, :SIZE]
    shadow = np.clip(moved / 13, 0, 1)
    ground = ground * (0.6 + 0.4 * shadow)[..., None]
    inside = np.clip(0.5 - distance, 0, 1)[..., None]  # one pixel of anti-aliasing
    image = inside * fur + (1 - inside) * ground
    image = image * random.uniform(0.8, 1.15) + 0.025 * random.standard_normal(image.shape)
    mask = np.where(np.abs(distance) <= _BORDER, 2, np.where(distance < 0, 0, 1))
    return (image.clip(0, 1) * 255).astype(np.uint8), mask.astype(np.uint8)


def _outline(random: np.random.Generator) -> Field:
    """Distance to the outline of one shape in about pixels, negative inside: an ellipse, a blob or a polygon."""
    row, column = random.uniform(0.3, 0.7, 2) * SIZE
    radius = random.uniform(0.18, 0.36) * SIZE
    turn, stretch = random.uniform(0, math.pi), random.uniform(0.65, 1.0)
    y, x = _rows - row, _columns - column
    u = (x * math.cos(turn) + y * math.sin(turn)) * stretch
    v = (y * math.cos(turn) - x * math.sin(turn)) / stretch
    angle, reach = np.arctan2(v, u), np.hypot(u, v)
    kind = random.integers(3)
    if kind == 0:  # ellipse
        limit = np.ones_like(angle)
    elif kind == 1:  # blob: a few harmonics
        limit = 1 + sum(
            random.uniform(0.04, 0.14) * np.cos(k * angle + random.uniform(0, 2 * math.pi)) for k in (2, 3, 5)
        )
    else:  # polygon with equal sides
        sector = 2 * math.pi / int(random.integers(3, 8))
        limit = math.cos(sector / 2) / np.cos(angle % sector - sector / 2) * 1.2
    return np.asarray(reach - radius * limit, np.float64)


def _ground(random: np.random.Generator) -> Field:
    """(SIZE, SIZE, 3): a muted colour, clouds of two sizes and fine grain, like grass, sand or carpet."""
    first, second = (_colour(random, saturation=(0.05, 0.35), value=(0.3, 0.75)) for _ in range(2))
    clouds = 0.6 * _noise(random, 5) + 0.4 * _noise(random, 18)
    grain = _noise(random, SIZE // 2) - 0.5
    return first + (second - first) * clouds[..., None] + 0.14 * grain[..., None]


def _fur(random: np.random.Generator) -> Field:
    """(SIZE, SIZE, 3): two lively colours in stripes, spots, checks or patches."""
    first = _colour(random, saturation=(0.5, 0.95), value=(0.55, 1.0))
    second = _colour(random, saturation=(0.3, 0.9), value=(0.35, 1.0))
    turn, period = random.uniform(0, math.pi), random.uniform(6, 13)
    u = (_columns * math.cos(turn) + _rows * math.sin(turn) + 8 * _noise(random, 6)) * 2 * math.pi / period
    v = (_rows * math.cos(turn) - _columns * math.sin(turn) + 8 * _noise(random, 6)) * 2 * math.pi / period
    wave = (
        lambda: np.sin(u),
        lambda: np.sin(u) * np.sin(v),
        lambda: np.maximum(np.sin(u), np.sin(v)),
        lambda: 5 * _noise(random, 9) - 2.5,
    )[random.integers(4)]()
    pattern = 1 / (1 + np.exp(-4 * wave))
    hair = _noise(random, SIZE // 3) - 0.5
    return first + (second - first) * pattern[..., None] + 0.12 * hair[..., None]


def _noise(random: np.random.Generator, cells: int) -> Field:
    """Smooth noise in 0..1 that changes ``cells`` times along a side."""
    grid = PIL.Image.fromarray(random.random((cells, cells), np.float32))
    return np.asarray(grid.resize((SIZE, SIZE), PIL.Image.Resampling.BICUBIC), np.float64)


def _colour(random: np.random.Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Field:
    """RGB in 0..1 of a random hue."""
    return np.array(colorsys.hsv_to_rgb(random.random(), random.uniform(*saturation), random.uniform(*value)))
