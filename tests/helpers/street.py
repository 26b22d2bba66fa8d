"""Draws streets as a camera in a car sees them: large surfaces, thin poles, rare signs and cyclists.

The classes and the size are those of CamVid (Brostow, Fauqueur, Cipolla, 2009).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from tests.helpers.data_folders import write_list

CLASSES = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist",
)  # fmt: skip
SIZE = (480, 360)
"""Width and height."""
Point = tuple[float, float]
_SMOOTH = 4
"""Times by which pictures are drawn larger, so that edges are as soft as a camera's."""


def write_street(folder: Path, train: int, test: int, seed: int = 0) -> Path:
    """A folder of pairs with that many pictures in its two splits."""
    names = [f"street_{i:04d}" for i in range(train + test)]
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        image, mask = street(np.random.default_rng([seed, i]))
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    write_list(folder / "classes.txt", CLASSES)
    write_list(folder / "train.txt", names[:train])
    write_list(folder / "test.txt", names[train:])
    return folder


def street(random: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image uint8 (360, 480, 3) and mask uint8 (360, 480)."""
    scene = _Scene(random)
    scene.draw()
    return scene.finished()


class _Scene:
    """One picture. What is nearer is drawn later, and larger: a thing at depth 1 stands at the horizon."""

    def __init__(self, random: np.random.Generator) -> None:
        self._random = random
        width, height = SIZE
        self._image = Image.new("RGB", (width * _SMOOTH, height * _SMOOTH))
        self._mask = Image.new("L", SIZE)
        self._on_image, self._on_mask = ImageDraw.Draw(self._image), ImageDraw.Draw(self._mask)
        self._horizon = height * random.uniform(0.38, 0.5)
        self._vanishing = width * random.uniform(0.35, 0.65)

    def draw(self) -> None:
        random, (width, height) = self._random, SIZE
        self._rectangle("sky", 0, 0, width, height, self._colour(150, 180, 210, 40))
        self._buildings()
        ground = [(0, self._horizon), (width, self._horizon), (width, height), (0, height)]
        self._polygon("pavement", ground, self._colour(140, 135, 135, 20))
        left, right = width * random.uniform(-0.3, 0.1), width * random.uniform(0.9, 1.3)
        point = (self._vanishing, self._horizon)
        self._polygon("road", [point, (right, height), (left, height)], self._colour(85, 85, 90, 20))
        for depth in sorted(random.uniform(0.15, 0.9, random.integers(6, 12)), reverse=True):
            self._thing(float(depth))

    def _buildings(self) -> None:
        random, (width, _) = self._random, SIZE
        left = -20.0
        while left < width:
            right, top = left + random.uniform(40, 130), self._horizon - random.uniform(30, 150)
            if random.random() < 0.75:
                wall = self._colour(130, 105, 95, 45)
                self._rectangle("building", left, top, right, self._horizon + 12, wall)
                pane = tuple(max(0, part - 45) for part in wall)
                for x in np.arange(left + 5, right - 8, 14):
                    for y in np.arange(top + 6, self._horizon - 10, 18):
                        self._rectangle("building", x, y, x + 7, y + 9, pane)
            left = right + random.uniform(-5, 25)

    def _thing(self, depth: float) -> None:
        """One at the side of the road, or on it; ``depth`` is its distance."""
        random, (width, height) = self._random, SIZE
        scale = 1 - 0.85 * depth
        ground = self._horizon + (height - self._horizon) * (1 - depth) ** 1.5
        side = random.choice([-1, 1])
        roadside = self._vanishing + side * width * random.uniform(0.45, 0.7) * (1 - depth)
        on_road = self._vanishing + width * random.uniform(-0.3, 0.3) * (1 - depth)
        kinds = ("tree", "pole", "car", "fence", "pedestrian", "sign", "cyclist")
        match random.choice(kinds, p=(0.24, 0.3, 0.2, 0.1, 0.08, 0.05, 0.03)):
            case "tree":
                self._tree(roadside, ground, scale)
            case "pole":
                self._rectangle("pole", roadside, ground - 190 * scale, roadside + max(1.5, 5 * scale), ground)
            case "car":
                self._car(on_road, ground, scale)
            case "fence":
                self._fence(roadside, ground, scale)
            case "pedestrian":
                self._person("pedestrian", roadside, ground, scale)
            case "sign":
                self._sign(roadside, ground, scale)
            case "cyclist":
                self._person("cyclist", on_road, ground - 10 * scale, scale)
                for offset in (-14, 14):
                    wheel = 11 * scale
                    self._ellipse("cyclist", on_road + offset * scale - wheel, ground - 2 * wheel, 2 * wheel, 2 * wheel)

    def _tree(self, x: float, ground: float, scale: float) -> None:
        green = self._colour(60, 95, 50, 30)
        self._rectangle("tree", x - 5 * scale, ground - 90 * scale, x + 5 * scale, ground, self._colour(80, 60, 45, 15))
        for _ in range(6):
            dx, dy = self._random.uniform(-35, 35) * scale, self._random.uniform(80, 150) * scale
            self._ellipse("tree", x + dx - 25 * scale, ground - dy - 25 * scale, 50 * scale, 50 * scale, green)

    def _car(self, x: float, ground: float, scale: float) -> None:
        paint = self._colour(*self._random.integers(30, 225, 3).tolist(), 10)
        self._rectangle("car", x - 45 * scale, ground - 42 * scale, x + 45 * scale, ground - 8 * scale, paint)
        roof = [(-32, -40), (-22, -66), (22, -66), (32, -40)]
        self._polygon("car", [(x + dx * scale, ground + dy * scale) for dx, dy in roof], self._colour(60, 70, 80, 20))
        for dx in (-28, 28):
            wheel = 10 * scale
            self._ellipse("car", x + dx * scale - wheel, ground - 2 * wheel, 2 * wheel, 2 * wheel, (25, 25, 25))

    def _fence(self, x: float, ground: float, scale: float) -> None:
        colour = self._colour(120, 110, 90, 30)
        for rail in (12, 26, 40):
            self._rectangle(
                "fence", x - 60 * scale, ground - rail * scale, x + 60 * scale, ground - (rail - 5) * scale, colour
            )
        for dx in range(-60, 61, 15):
            self._rectangle("fence", x + (dx - 2) * scale, ground - 45 * scale, x + (dx + 2) * scale, ground, colour)

    def _person(self, kind: str, x: float, ground: float, scale: float) -> None:
        coat, skin = self._colour(*self._random.integers(30, 200, 3).tolist(), 10), self._colour(190, 150, 120, 30)
        self._rectangle(kind, x - 8 * scale, ground - 52 * scale, x + 8 * scale, ground - 25 * scale, coat)
        for dx in (-6, 2):
            self._rectangle(kind, x + dx * scale, ground - 25 * scale, x + (dx + 5) * scale, ground, (45, 45, 60))
        self._ellipse(kind, x - 6 * scale, ground - 66 * scale, 12 * scale, 13 * scale, skin)

    def _sign(self, x: float, ground: float, scale: float) -> None:
        """Round, or a triangle, in red or blue with a white middle, on a pole."""
        self._rectangle("pole", x - max(0.8, 2 * scale), ground - 100 * scale, x + max(0.8, 2 * scale), ground)
        colour = self._colour(*((185, 40, 40) if self._random.random() < 0.6 else (45, 75, 165)), 20)
        radius, y = 15 * scale, ground - 105 * scale
        if self._random.random() < 0.5:
            self._ellipse("sign", x - radius, y - radius, 2 * radius, 2 * radius, colour)
        else:
            self._polygon("sign", [(x, y - radius), (x + radius, y + radius), (x - radius, y + radius)], colour)
        self._ellipse("sign", x - radius / 2, y - radius / 3, radius, radius, (225, 225, 220))

    def finished(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        random = self._random
        image = np.asarray(
            self._image.resize(SIZE, Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(0.5)), np.float32
        )
        coarse = Image.fromarray(random.uniform(-18, 18, (24, 32)).astype(np.float32)).resize(
            SIZE, Image.Resampling.BICUBIC
        )
        noise = random.normal(0, 7, image.shape)
        image = image * random.uniform(0.75, 1.2) + np.asarray(coarse)[..., None] + noise
        return image.clip(0, 255).astype(np.uint8), np.asarray(self._mask)

    def _colour(self, red: float, green: float, blue: float, spread: float) -> tuple[int, ...]:
        shift = self._random.uniform(-spread, spread) + self._random.uniform(-8, 8, 3)
        return tuple(int(part) for part in np.clip(np.array([red, green, blue]) + shift, 0, 255))

    def _rectangle(
        self, kind: str, left: float, top: float, right: float, bottom: float, colour: tuple[int, ...] = (90, 92, 95)
    ) -> None:
        self._polygon(kind, [(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def _polygon(self, kind: str, points: list[Point], colour: tuple[int, ...]) -> None:
        self._on_image.polygon([(x * _SMOOTH, y * _SMOOTH) for x, y in points], colour)
        self._on_mask.polygon([(x - 0.5, y - 0.5) for x, y in points], CLASSES.index(kind))

    def _ellipse(
        self, kind: str, left: float, top: float, wide: float, high: float, colour: tuple[int, ...] = (40, 40, 45)
    ) -> None:
        box = (left, top, left + wide, top + high)
        self._on_image.ellipse([side * _SMOOTH for side in box], colour)
        self._on_mask.ellipse([side - 0.5 for side in box], CLASSES.index(kind))
