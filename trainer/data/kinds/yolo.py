"""YOLO's polygons: a text for each picture, ``CLASS x y x y …`` on a line, as shares of its width and height.

The layout of Ultralytics, which Roboflow and others export: ``images/train/a.jpg`` and ``labels/train/a.txt``, with the
classes in a YAML beside them. Where polygons overlap the smaller one counts. A picture without a text has none.
Imports no TensorFlow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from maskfleet.errors import BadData
from trainer.data.categories import NO_WISHES, Categories, Wishes
from trainer.data.class_rows import read_rows
from trainer.data.documents import read_text
from trainer.data.examples import Named, drawn_example, images_under, names_below, split_named, splits_of
from trainer.data.lists import found_in, shown
from trainer.data.shapes import Polygons, Shape, drawn, polygon, smaller_on_top
from trainer.data.source import Example, Mask, Reading, Source, files_key
from trainer.data.walk import check_is_file, is_there

_NAMES = "classes.txt"
_BEYOND = 0.01
"""What a coordinate may be under 0 or over 1, as rounding leaves it."""
_BOX = 5
"""Numbers of a line that is a box: class, middle, width and height."""


def is_yolo(folder: Path) -> bool:
    """Whether a folder has YOLO's texts with the names of the classes in ``classes.txt``, as Label Studio exports."""
    return all((folder / part).is_dir() for part in ("images", "labels")) and (folder / _NAMES).is_file()


def open_yolo_folder(folder: Path, reading: Reading, wishes: Wishes = NO_WISHES) -> Source:
    """Opens ``images``, ``labels`` and ``classes.txt``; folders called train, val and test in ``images`` are splits.

    Raises:
        BadData: one of them is missing, or as :func:`open_yolo`.
    """
    if not is_yolo(folder):
        raise BadData(
            f"{folder}: expected a data file such as data.yaml, or images, labels and {_NAMES}, "
            f"found {found_in(folder)}"
        )
    parts: dict[str, list[Path]] = {}
    for image in images_under(folder / "images"):
        below = image.relative_to(folder / "images").parts[:-1]
        parts.setdefault(split_named("/".join(below)), []).append(image)
    if not parts:
        raise BadData(f"{folder / 'images'}: expected pictures, found none")
    names = dict(enumerate(row.name for row in read_rows(folder / _NAMES)))
    return open_yolo(folder, parts, names, reading, wishes)


def open_yolo(
    root: Path, parts: Mapping[str, Sequence[Path]], names: Mapping[int, str], reading: Reading, wishes: Wishes
) -> Source:
    """Opens pictures with their texts.

    Args:
        parts: pictures by split.
        names: of the categories, by the number that a line begins with.

    Raises:
        BadData: there is no text at all, or nothing to train or test on.
    """
    categories = Categories.of(names.values(), wishes, str(root))
    examples: dict[str, list[Named]] = {}
    texts: list[Path] = []
    without = 0
    for split, files in parts.items():
        examples[split] = []
        for name, image in zip(names_below(files, root), files, strict=True):
            text = label_file(image)
            if text.is_file():
                texts.append(text)
            elif is_there(text):
                check_is_file(text)
            else:
                without += 1
            examples[split].append(_named(name, image, text, names, categories, reading))
    if not texts:
        image = next(example.image for split in examples.values() for example in split)
        raise BadData(f"{root}: expected a text with polygons for {shown(image)} at {shown(label_file(image))}")
    splits = splits_of(examples, root)
    notes = [f"{shown(root)}: pictures without a text in labels, and so without objects: {without}"] if without else []
    return splits.source(
        root.name,
        categories.names,
        categories.colours,
        categories.background,
        files_key([*texts, *(file for files in parts.values() for file in files)]) + repr((names, wishes)),
        notes=notes,
    )


def label_file(image: Path) -> Path:
    """The text of a picture: in the last folder called images, labels stands instead."""
    parts = list(image.parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == "images":
            parts[i] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _named(
    name: str, image: Path, text: Path, names: Mapping[int, str], categories: Categories, reading: Reading
) -> Named:
    def draw(height: int, width: int) -> Mask:
        shapes = _shapes(text, names, categories, width, height) if text.is_file() else []
        return drawn(smaller_on_top(shapes), height, width, categories.uncovered)

    def read() -> Example:
        return drawn_example(image, str(image), reading, draw)

    return Named(name, image, read)


def _shapes(
    text: Path, names: Mapping[int, str], categories: Categories, width: int, height: int
) -> list[tuple[Shape, int]]:
    shapes: list[tuple[Shape, int]] = []
    for number, line in enumerate(read_text(text).splitlines(), 1):
        words = line.split()
        where = f"{text}: line {number}"
        if not words:
            continue
        try:
            values = [float(word) for word in words]
        except ValueError as error:
            raise BadData(f"{where}: expected numbers, a class and then x y x y …, found {line[:60]!r}") from error
        if len(words) == _BOX:
            raise BadData(
                f"{where}: expected a polygon of 3 points or more, found a box (or two points); export the data set "
                "for segmentation, not for detection"
            )
        kind, points = values[0], np.array(values[1:])
        if kind not in names:
            raise BadData(f"{where}: expected a class of names, {_listed(names)}, found {words[0][:40]}")
        beyond = points[(points < -_BEYOND) | (points > 1 + _BEYOND)]
        if len(beyond):
            raise BadData(
                f"{where}: expected shares of the picture's width and height from 0 to 1, found {beyond[0]:g}; divide "
                "pixels by them"
            )
        scale = np.tile((width, height), len(points) // 2 + 1)[: len(points)]
        shape = Polygons((polygon(points * scale, width, height, where),))
        shapes.append((shape, categories.labels[names[int(kind)]]))
    return shapes


def _listed(names: Mapping[int, str]) -> str:
    numbers = sorted(names)
    if numbers == list(range(len(numbers))):
        return f"0 to {numbers[-1]}"
    return ", ".join(map(str, numbers[:6])) + (" …" if len(numbers) > 6 else "")
