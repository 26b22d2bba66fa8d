"""labelme's JSON: one beside each picture, with the shapes that were drawn on it. Imports no TensorFlow.

Shapes lie over each other in the order of the file, as labelme draws them. A line is 10 pixels wide and a point 10
across, as labelme's own converter makes them. ``__ignore__`` counts nowhere. Folders called train, val and test are the
splits; ``labels.txt`` or ``classes.txt`` may name the classes and so their order.
"""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
from numpy.typing import NDArray

from maskfleet.errors import BadData
from trainer.data.arrays import ARRAY
from trainer.data.categories import NO_WISHES, Categories, Wishes, is_background
from trainer.data.class_rows import is_ignored, read_rows
from trainer.data.documents import field, head, read_json
from trainer.data.examples import Named, check_noted_size, drawn_example, names_below, split_named, splits_of
from trainer.data.images import IMAGE_SUFFIXES, read_labels
from trainer.data.lists import found_in, shown
from trainer.data.remembered import remembered
from trainer.data.shapes import Bitmap, Polygons, Shape, box, drawn, ellipse, polygon, within
from trainer.data.source import Example, Mask, Reading, Source, files_key
from trainer.data.walk import files_under, is_there

_TABLES = ("labels.txt", "classes.txt")
_LOOKED_AT = ("*.json", "*/*.json", "*/*/*.json")
"""Where a folder that may be of any kind is looked at: a link in it may lead to a whole disk."""
_TRIED = 20
"""Files, of which one may be broken or about something else."""
_LINE = 10
"""Width of a line and twice the radius of a point, pixels: the defaults of labelme's shape_to_mask."""
_IGNORE = "__ignore__"


def is_labelme(folder: Path) -> bool:
    found = itertools.chain.from_iterable(map(folder.glob, _LOOKED_AT))
    plain = (file for file in found if not file.name.startswith("."))
    return any(b'"shapes"' in head(file) for file in itertools.islice(plain, _TRIED))


def open_labelme(folder: Path, reading: Reading, wishes: Wishes = NO_WISHES) -> Source:
    """Opens all JSON files in a folder and the folders in it.

    Raises:
        BadData: there is none, one is no file of labelme's, a picture is missing.
    """
    files = _json_files(folder)
    if not files:
        raise BadData(f"{folder}: expected NAME.json of labelme beside each picture, found {found_in(folder)}")
    outlines = remembered("labelme", folder, files, lambda: [_outline(*_read(file)) for file in files])
    table = next((folder / name for name in _TABLES if is_there(folder / name)), None)
    found = sorted({label for _, labels in outlines for label in labels})
    names = [row.name for row in read_rows(table)] if table else []
    if table and (unknown := [name for name in found if name not in (*names, _IGNORE)]):
        raise BadData(f"{table}: expected all classes, found none called {unknown[0]!r}, as shapes are; add it")
    names = [name for name in (names or found) if name != _IGNORE]
    names.sort(key=lambda name: not is_background(name))
    categories = Categories.of([*names, "ignored"], wishes, str(folder))
    examples: dict[str, list[Named]] = {}
    images = [_image_file(file, name) for file, (name, _) in zip(files, outlines, strict=True)]
    for name, file, image in zip(names_below(files, folder), files, images, strict=True):
        split = split_named("/".join(file.relative_to(folder).parts[:-1]))
        examples.setdefault(split, []).append(_named(name, file, image, categories, reading))
    splits = splits_of(examples, folder)
    return splits.source(
        folder.name,
        categories.names,
        categories.colours,
        categories.background,
        files_key([*([table] if table else []), *files, *images]) + repr(wishes),
    )


def _json_files(folder: Path) -> list[Path]:
    return sorted(files_under(folder, {".json"}))


def _without_picture(record: dict[str, Any]) -> dict[str, Any]:
    """Leaves out the picture, which labelme writes into its file too: megabytes for each."""
    if "imageData" in record:
        record["imageData"] = None
    return record


def _read(file: Path) -> tuple[str, Sequence[Mapping[str, Any]], tuple[int, int] | None]:
    """The picture's name, the shapes, and width and height as labelme noted them."""
    document = read_json(file, _without_picture)
    shapes = field(document, "shapes", list, f"{file} (of labelme)")
    for number, shape in enumerate(shapes):
        field(shape, "label", str, f"{file}: shape {number}")
    name = PurePosixPath(field(document, "imagePath", str, str(file)).replace("\\", "/")).name
    size = (document.get("imageWidth"), document.get("imageHeight"))
    return name, shapes, (size[0], size[1]) if all(type(side) is int and side > 0 for side in size) else None


def _outline(name: str, shapes: Sequence[Mapping[str, Any]], _: tuple[int, int] | None) -> tuple[str, list[str]]:
    """The picture's name, and the labels of the shapes."""
    return name, sorted({shape["label"] for shape in shapes})


def _image_file(file: Path, name: str) -> Path:
    suffixes = (*sorted(IMAGE_SUFFIXES - {ARRAY}), ARRAY)
    tried = [file.parent / name, *(file.with_suffix(suffix) for suffix in suffixes)]
    image = next((path for path in tried if name and path.is_file()), None)
    if image is None:
        raise BadData(f"{file}: names the picture {shown(name)}, which is not beside it; bring it back or remove this")
    return image


def _named(name: str, file: Path, image: Path, categories: Categories, reading: Reading) -> Named:
    def draw(height: int, width: int) -> Mask:
        _, shapes, size = _read(file)
        check_noted_size(size, width, height, str(file), image)
        parts: list[tuple[Shape, int]] = []
        for number, shape in enumerate(shapes):
            label = "ignored" if shape["label"] == _IGNORE or is_ignored(shape["label"]) else shape["label"]
            where = f"{file}: shape {number} ({shown(shape['label'])})"
            parts.append((_shape(shape, width, height, where), categories.labels[label]))
        return drawn(parts, height, width, categories.uncovered)

    def read() -> Example:
        return drawn_example(image, str(file), reading, draw)

    return Named(name, image, read)


def _shape(shape: Mapping[str, Any], width: int, height: int, where: str) -> Shape:
    kind = shape.get("shape_type") or "polygon"
    pairs = field(shape, "points", list, where)
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise BadData(f"{where}: expected points as pairs of x and y, found {str(pairs)[:60]}")
    flat = [value for pair in pairs for value in pair]
    if kind == "polygon":
        return Polygons((polygon(flat, width, height, where),))
    exact = {"rectangle": 2, "circle": 2, "line": 2, "point": 1, "mask": 2}
    if kind not in (*exact, "linestrip", "points"):
        raise BadData(f"{where}: expected a polygon, rectangle, circle, line, point or mask, found {str(kind)[:40]!r}")
    if not all(type(value) in (int, float) for value in flat):
        raise BadData(f"{where}: expected points as pairs of numbers, found {str(pairs)[:60]}")
    if not pairs or (kind in exact and len(pairs) != exact[kind]):
        raise BadData(f"{where}: expected {exact.get(kind, '1 or more')} points of a {kind}, found {len(pairs)}")
    points = within(np.array(pairs, np.float64), width, height, where)
    if kind == "rectangle":
        (left, top), (right, bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
        return Polygons((box(left, top, right, bottom),))
    if kind == "circle":
        (x, y), edge = points[0].tolist(), points[1]
        radius = float(np.linalg.norm(edge - points[0]))
        return Polygons((ellipse(x, y, radius, radius),))
    if kind == "mask":
        left, top = points.min(axis=0).round().astype(int).tolist()
        return Bitmap(_bitmap(shape.get("mask"), where, width * height), top, left)
    return Bitmap(_stroke(points, kind, width, height), 0, 0)


def _bitmap(text: Any, where: str, max_pixels: int) -> NDArray[np.bool_]:
    try:
        content = base64.b64decode(text, validate=True)
    except (ValueError, TypeError) as error:
        raise BadData(f"{where}: expected a mask as a picture in base64, found {str(text)[:40]!r}") from error
    return np.asarray(read_labels(io.BytesIO(content), where, max_pixels).labels != 0)


def _stroke(points: NDArray[np.float64], kind: str, width: int, height: int) -> NDArray[np.bool_]:
    """Of a line or points, bool (height, width)."""
    canvas = PIL.Image.new("1", (width, height))
    draw = PIL.ImageDraw.Draw(canvas)
    if kind in ("line", "linestrip"):
        draw.line([(float(x), float(y)) for x, y in points], fill=1, width=_LINE)
    else:
        for x, y in points.tolist():
            draw.ellipse((x - _LINE / 2, y - _LINE / 2, x + _LINE / 2, y + _LINE / 2), fill=1)
    return np.asarray(canvas)
