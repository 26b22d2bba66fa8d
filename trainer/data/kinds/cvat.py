"""CVAT for images 1.1: ``annotations.xml`` beside the folder ``images``. Imports no TensorFlow.

Shapes lie over each other by their z_order, then in the order of the file, as CVAT shows them. Subsets called Train,
Validation and Test are the splits. Polylines and points have no area and are passed over.
"""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import numpy as np

from maskfleet.errors import BadData
from trainer.data.categories import NO_WISHES, Categories, Wishes
from trainer.data.class_rows import Colour
from trainer.data.examples import Named, check_noted_size, drawn_example, split_named, splits_of
from trainer.data.lists import found_in, shown
from trainer.data.remembered import remembered
from trainer.data.shapes import Bitmap, Polygons, Shape, box, checked_counts, drawn, ellipse, polygon, within
from trainer.data.source import Example, Mask, Reading, Source, files_key
from trainer.data.walk import check_is_file, is_there

_FILE = "annotations.xml"
_AREAS = ("polygon", "box", "ellipse", "mask")
_NO_AREAS = ("polyline", "points", "cuboid", "skeleton", "tag")


@dataclass(frozen=True)
class _Drawn:
    kind: str
    label: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class _Picture:
    name: str
    split: str
    width: int
    height: int


@dataclass
class _Content:
    """What the XML says; ``shapes`` are those of each picture."""

    labels: dict[str, Colour | None] = field(default_factory=dict)
    pictures: list[_Picture] = field(default_factory=list)
    shapes: list[Sequence[_Drawn]] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)


class _Document:
    """An XML file: labels and pictures, and the shapes, which are read when they are needed.

    Attributes:
        labels: those that are declared, with their colours, and those that shapes have.
        passed_over: how many of each kind have no area.
    """

    def __init__(self, file: Path) -> None:
        """Raises BadData if it is no XML of CVAT's."""
        self.file = file
        self._lock = threading.Lock()
        self._shapes: Sequence[Sequence[_Drawn]] | None = None
        outline = remembered("cvat", file, [file], self._outline)
        self.labels: Mapping[str, Colour | None] = {
            name: colour and (colour[0], colour[1], colour[2]) for name, colour in outline["labels"]
        }
        self.pictures = [_Picture(*each) for each in outline["pictures"]]
        self.passed_over: Mapping[str, int] = outline["passed over"]

    def shapes(self, picture: int) -> Sequence[_Drawn]:
        """Of the picture at this place in the file."""
        with self._lock:
            if self._shapes is None:
                self._outline()
            assert self._shapes is not None
        return self._shapes[picture]

    def _outline(self) -> dict[str, Any]:
        content = _read(self.file)
        self._shapes = content.shapes
        labels = dict(content.labels)
        for shape in itertools.chain.from_iterable(content.shapes):
            labels.setdefault(shape.label, None)
        return {
            "labels": list(labels.items()),
            "pictures": list(map(astuple, content.pictures)),
            "passed over": content.passed_over,
        }


def is_cvat(folder: Path) -> bool:
    return is_there(folder / _FILE)


def open_cvat(place: Path, reading: Reading, wishes: Wishes = NO_WISHES) -> Source:
    """Opens the XML file, or the folder that has it.

    Raises:
        BadData: no XML of CVAT's, or a picture is missing.
    """
    file = place if place.is_file() else place / _FILE
    if not is_there(file):
        raise BadData(f"{place}: expected {_FILE} of 'CVAT for images 1.1', found {found_in(place)}")
    check_is_file(file)
    document = _Document(file)
    if not document.pictures:
        raise BadData(f"{file}: expected images of 'CVAT for images 1.1', found none")
    if wishes.colours is None:
        colours = {name: colour for name, colour in document.labels.items() if colour is not None}
        wishes = Wishes(wishes.names, wishes.mapping, colours, wishes.uncovered)
    categories = Categories.of(document.labels, wishes, str(file))
    examples: dict[str, list[Named]] = {}
    images = []
    for number, picture in enumerate(document.pictures):
        images.append(_image(file, picture))
        examples.setdefault(picture.split, []).append(_named(document, number, images[-1], categories, reading))
    splits = splits_of(examples, file)
    notes = [
        f"{shown(file)}: passed over {count} of {kind}, without an area"
        for kind, count in sorted(document.passed_over.items())
    ]
    return splits.source(
        file.parent.name,
        categories.names,
        categories.colours,
        categories.background,
        files_key([file, *images]) + repr(wishes),
        notes=notes,
    )


def _read(file: Path) -> _Content:
    content = _Content()
    try:
        for element in _elements(file):
            if element.tag == "label" and (name := (element.findtext("name") or "").strip()):
                content.labels[name] = _colour(element.findtext("color") or "")
            elif element.tag == "track":
                raise BadData(f"{file}: expected images, found the tracks of a video; export 'CVAT for images 1.1'")
            elif element.tag == "image":
                picture, shapes = _picture(file, element, content.passed_over)
                content.pictures.append(picture)
                content.shapes.append(shapes)
                element.clear()
    except ParseError as error:
        line, column = error.position
        what = str(error).partition(":")[0]
        raise BadData(f"{file}: line {line}, column {column + 1}: expected XML: {what}; export it again") from error
    except (ValueError, LookupError) as error:  # entities of the file's own, which can fill the memory; encodings
        if type(error).__name__ == "EntitiesForbidden":
            raise BadData(f"{file}: expected annotations of CVAT, found XML with entities of its own") from error
        raise BadData(f"{file}: expected XML in UTF-8: {error}") from error
    return content


def _elements(file: Path) -> Iterator[Element]:
    import defusedxml.ElementTree

    with file.open("rb") as content:
        for _, element in defusedxml.ElementTree.iterparse(content, events=("end",)):
            yield element


def _picture(file: Path, element: Element, passed_over: Counter[str]) -> tuple[_Picture, Sequence[_Drawn]]:
    name = element.get("name") or ""
    where = f"{file}: image {shown(name)}"
    width, height = (_number(element.attrib, side, where) for side in ("width", "height"))
    ordered: list[tuple[float, str, str, Mapping[str, str]]] = []
    for child in element:
        if child.tag in _AREAS:
            label = child.get("label")
            if not label:
                raise BadData(f"{where}: expected a {child.tag} with a label, found none")
            ordered.append(
                (_number({"z_order": "0", **child.attrib}, "z_order", where), child.tag, label, child.attrib)
            )
        elif child.tag in _NO_AREAS:
            passed_over[child.tag] += 1
        else:
            raise BadData(f"{where}: expected {', '.join(_AREAS)}, found {shown(child.tag)[:40]}")
    ordered.sort(key=lambda each: each[0])
    shapes = [_Drawn(kind, label, values) for _, kind, label, values in ordered]
    return _Picture(name, split_named(element.get("subset") or ""), int(width), int(height)), shapes


def _image(file: Path, picture: _Picture) -> Path:
    path = PurePosixPath(picture.name.replace("\\", "/"))
    inside = not (path.is_absolute() or ".." in path.parts)
    root = file.parent
    folders = [root / "images", root, *(sorted(each for each in (root / "images").glob("*/")))]
    for each in [str(path), path.name] if inside else [path.name]:
        for folder in folders:
            if each and (folder / each).is_file():
                return folder / each
    raise BadData(
        f"{file}: names the picture {shown(picture.name)}, which is not in {shown(root / 'images')}; export with 'Save "
        "images', or put it there"
    )


def _named(document: _Document, number: int, image: Path, categories: Categories, reading: Reading) -> Named:
    picture = document.pictures[number]
    where = f"{document.file}: image {shown(picture.name)}"

    def draw(height: int, width: int) -> Mask:
        check_noted_size((picture.width, picture.height), width, height, where, image)
        shapes = [
            (_shape(shape, width, height, f"{where}: {shape.kind} {order}"), categories.labels[shape.label])
            for order, shape in enumerate(document.shapes(number))
        ]
        return drawn(shapes, height, width, categories.uncovered)

    def read() -> Example:
        return drawn_example(image, where, reading, draw)

    return Named(PurePosixPath(picture.name).with_suffix("").as_posix(), image, read)


def _shape(shape: _Drawn, width: int, height: int, where: str) -> Shape:
    values = shape.values

    def number(key: str) -> float:
        return _number(values, key, where)

    turn = _number({"rotation": "0", **values}, "rotation", where)
    if shape.kind == "polygon":
        pairs = [pair.split(",") for pair in values.get("points", "").split(";")]
        try:
            flat = [float(value) for pair in pairs for value in pair]
        except ValueError as error:
            raise BadData(f"{where}: expected points as x,y;x,y …, found {values.get('points', '')[:60]!r}") from error
        return Polygons((polygon(flat, width, height, where),))
    if shape.kind == "box":
        corners = box(number("xtl"), number("ytl"), number("xbr"), number("ybr"), turn)
        return Polygons((within(corners, width, height, where),))
    if shape.kind == "ellipse":
        edge = ellipse(number("cx"), number("cy"), number("rx"), number("ry"), turn)
        return Polygons((within(edge, width, height, where),))
    columns, rows = int(number("width")), int(number("height"))
    try:
        counts = [int(count) for count in values.get("rle", "").split(",")]
    except ValueError as error:
        raise BadData(f"{where}: expected run lengths as counts, found {values.get('rle', '')[:60]!r}") from error
    if min(counts) < 0 or not (0 < columns <= width and 0 < rows <= height):
        raise BadData(f"{where}: expected a mask within {width} x {height} pixels, found {columns} x {rows}")
    runs = checked_counts(counts, columns * rows, where)
    inside = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(rows, columns)
    return Bitmap(inside, int(number("top")), int(number("left")))


def _number(values: Mapping[str, str] | Any, key: str, where: str) -> float:
    text = values.get(key)
    try:
        number = float(text if text is not None else "")
    except ValueError:
        number = float("nan")
    if not abs(number) < 1 << 31:
        raise BadData(f"{where}: expected {key} as a number, found {'none' if text is None else repr(text[:40])}")
    return number


def _colour(text: str) -> Colour | None:
    """Of ``#fa3253``."""
    try:
        red, green, blue = bytes.fromhex(text.lstrip("#"))
    except ValueError:
        return None
    return red, green, blue
