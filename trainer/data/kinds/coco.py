"""COCO's JSON: pictures, categories, and annotations as polygons or run lengths; stuff too. Imports no TensorFlow.

T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014. Instances become their classes: where they
overlap the smaller one counts, as a cup on a table, and a crowd lies under all others. Roboflow, CVAT, Label Studio
and VGG's annotator export the same.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

import numpy as np

from maskfleet.errors import BadData
from trainer.data.categories import NO_WISHES, Categories, Wishes
from trainer.data.documents import field, head, read_json
from trainer.data.examples import (
    Named,
    check_noted_size,
    drawn_example,
    names_below,
    split_named,
    splits_of,
)
from trainer.data.lists import found_in, shown
from trainer.data.remembered import remembered
from trainer.data.shapes import Polygons, Shape, drawn, polygon, run_lengths, smaller_on_top
from trainer.data.source import Example, Mask, Reading, Source, files_key
from trainer.data.walk import check_is_file

_ROBOFLOW = "_annotations.coco.json"
_OTHER_TASKS = ("image_info", "captions", "person_keypoints", "panoptic")
"""Files beside those of the segmentation in COCO's own archive."""
_IDS = (int, str)
_PLAIN = re.compile(r"[\w-]+(\.[\w-]+)*")
"""A name that can lead nowhere but into the folder that it is looked for in."""
_Picture = tuple[Any, str, int | None, int | None]
"""Id, name of the file, width and height."""
_ByPicture = dict[Any, list[tuple[int, Mapping[str, Any]]]]
"""Place in the file and content of annotations, by the picture's id."""


class _Document:
    """A JSON file: what it says of pictures and categories, and the annotations, which are read when they are needed.

    Attributes:
        pictures: id, name of the file, width and height of each; the last two None where they are not noted.
        categories: names by id.
    """

    def __init__(self, file: Path) -> None:
        """Raises BadData if the file is broken or contradicts itself."""
        check_is_file(file)
        self.file = file
        self._lock = threading.Lock()
        self._annotations: _ByPicture | None = None
        outline = remembered("coco", file, [file], self._outline)
        self.pictures: Sequence[_Picture] = outline["pictures"]
        self.categories: Mapping[Any, str] = dict(outline["categories"])

    def annotations(self, picture: Any) -> Sequence[tuple[int, Mapping[str, Any]]]:
        """Place in the file and content of those of a picture, by its id."""
        with self._lock:
            if self._annotations is None:
                self._outline()
            assert self._annotations is not None
        return self._annotations.get(picture, ())

    def _outline(self) -> dict[str, Any]:
        outline, self._annotations = _read(self.file)
        return outline


def is_coco(folder: Path) -> bool:
    return bool(json_files(folder))


def json_files(folder: Path) -> dict[str, list[Path]]:
    """Files of annotations by the split that they are called after."""
    files = [*sorted(folder.glob("annotations/*.json")), *sorted(folder.glob(f"*/{_ROBOFLOW}"))]
    if not files:
        files = [file for file in sorted(folder.glob("*.json")) if _looks_like_coco(file)]
    files = [file for file in files if not file.name.startswith((*_OTHER_TASKS, "."))]
    by_split: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        by_split[split_named(file.stem) or split_named(file.parent.name)].append(file)
    return by_split


def open_coco(
    place: Path, reading: Reading, wishes: Wishes = NO_WISHES, parts: Mapping[str, Sequence[Path]] | None = None
) -> Source:
    """Opens a JSON file, or a folder of one for each split.

    Args:
        parts: files by split, where a data file says them.

    Raises:
        BadData: a file is broken or contradicts itself, or names a picture that is not there.
    """
    notes: list[str] = []
    root = place if place.is_dir() else place.parent
    files = dict(parts) if parts is not None else {"": [place]} if place.is_file() else json_files(place)
    if not files:
        raise BadData(f"{place}: expected annotations/*.json or */{_ROBOFLOW}, found {found_in(place)}")
    documents: dict[str, _Document] = {}
    for split, alike in files.items():
        chosen = [file for file in alike if file.name.startswith("instances")] or list(alike)
        if len(chosen) > 1:
            raise BadData(
                f"{place}: {_below(chosen[0], root)} and {_below(chosen[1], root)} are both of "
                f"{f'the split {split}' if split else 'no split'}; "
                "name one by --data coco:FILE, or those of each split in a data file"
            )
        notes += [f"{shown(file)}: passed over for {chosen[0].name}" for file in alike if file not in chosen]
        documents[split] = _Document(chosen[0])
    names = [name for document in documents.values() for name in document.categories.values()]
    categories = Categories.of(names, wishes, str(place))
    examples = {split: _examples(document, root, categories, reading) for split, document in documents.items()}
    splits = splits_of(examples, place)
    pictures = [example.image for split in examples.values() for example in split]
    return splits.source(
        root.name,
        categories.names,
        categories.colours,
        categories.background,
        files_key([*(document.file for document in documents.values()), *pictures]) + repr(wishes),
        notes=notes,
    )


def _below(file: Path, root: Path) -> str:
    return shown(file.relative_to(root) if file.is_relative_to(root) else file)


def _looks_like_coco(file: Path) -> bool:
    """By the first bytes: labelme's files lie beside their pictures as COCO's do."""
    start = head(file)
    return b'"images"' in start or b'"categories"' in start or b'"annotations"' in start


def _read(file: Path) -> tuple[dict[str, Any], _ByPicture]:
    """What the file says of pictures and categories, as JSON can hold it, and its annotations."""
    document = read_json(file, _compact)
    where = str(file)
    if isinstance(document, list):
        raise BadData(
            f"{where}: expected an object with images, annotations and categories, found a list; is it another "
            "tool's own "
            "format, as Label Studio's? export as COCO or YOLO"
        )
    images, annotations, kinds = (field(document, key, list, where) for key in ("images", "annotations", "categories"))
    categories = _categories(kinds, annotations, where)
    pictures = _pictures(images, where)
    if not pictures:
        raise BadData(f"{where}: expected images, found none")
    by_picture: _ByPicture = {picture: [] for picture, *_ in pictures}
    for number, annotation in enumerate(annotations):
        picture = _picture_of(annotation, categories, by_picture)
        if picture is None:
            _refuse(annotation, categories, f"{where}: annotation {_id(annotation, number)}")
        by_picture[picture].append((number, annotation))
    return {"pictures": pictures, "categories": list(categories.items())}, by_picture


def _picture_of(annotation: Any, categories: Mapping[Any, str], pictures: Mapping[Any, Any]) -> Any:
    """The id of the picture that an annotation is of; None if it is not as it has to be."""
    if type(annotation) is not dict or "segments_info" in annotation:
        return None
    picture, category = annotation.get("image_id"), annotation.get("category_id")
    if type(picture) in _IDS and type(category) in _IDS and category in categories and picture in pictures:
        return picture
    return None


def _refuse(annotation: Any, categories: Mapping[Any, str], where: str) -> NoReturn:
    """Raises BadData that says what is wrong with an annotation."""
    if isinstance(annotation, dict) and "segments_info" in annotation:
        raise BadData(f"{where}: expected polygons or run lengths, found COCO's panoptic format; use the instances")
    picture = field(annotation, "image_id", _IDS, where)
    if (category := field(annotation, "category_id", _IDS, where)) not in categories:
        raise BadData(f"{where}: names the category {category!r}, which is not in categories")
    raise BadData(f"{where}: names the image {picture!r}, which is not in images")


def _compact(record: dict[str, Any]) -> dict[str, Any]:
    """Polygons as arrays: COCO's own files take a fourth of the memory then."""
    polygons = record.get("segmentation")
    if isinstance(polygons, list):
        record["segmentation"] = [
            np.array(each, np.float64) if isinstance(each, list) and set(map(type, each)) <= {float} else each
            for each in polygons
        ]
    return record


def _categories(kinds: Sequence[Any], annotations: Sequence[Any], where: str) -> dict[Any, str]:
    names: dict[Any, str] = {}
    parents = set()
    for order, category in enumerate(kinds):
        place = f"{where}: category {_id(category, order)}"
        number, name = field(category, "id", (int, str), place), field(category, "name", str, place).strip()
        if number in names:
            raise BadData(f"{place}: two categories have this id, {names[number]} and {name}")
        if name in names.values():
            same = next(other for other, each in names.items() if each == name)
            raise BadData(f"{place}: is called {name}, as category {same} is; rename one, or map both in a data file")
        if not name:
            raise BadData(f"{place}: expected a name, found none")
        names[number] = name
        parents.add(str(category.get("supercategory")))
    used = {str(annotation.get("category_id")) for annotation in annotations if isinstance(annotation, dict)}
    # Roboflow puts one before all others that only holds them together.
    return {
        number: name
        for number, name in names.items()
        if str(number) in used or name not in parents or len(names) == 1 or _own_parent(kinds, name)
    }


def _own_parent(kinds: Sequence[Mapping[str, Any]], name: str) -> bool:
    """Whether only the category itself names it as its parent."""
    return all(kind.get("name") == name for kind in kinds if kind.get("supercategory") == name)


def _pictures(images: Sequence[Any], where: str) -> list[_Picture]:
    found: dict[Any, _Picture] = {}
    for number, image in enumerate(images):
        place = f"{where}: image {_id(image, number)}"
        if (identity := field(image, "id", (int, str), place)) in found:
            raise BadData(f"{place}: two images have this id")
        size = (image.get("width"), image.get("height"))
        width, height = size if all(type(side) is int and side > 0 for side in size) else (None, None)
        found[identity] = identity, field(image, "file_name", str, place), width, height
    return list(found.values())


def _image_folders(file: Path, root: Path) -> list[Path]:
    """Where the pictures of a JSON file may lie."""
    split = file.stem.rpartition("_")[2]  # instances_train2017
    below = [root / "images" / split, root / split / "images", root / split, file.parent, file.parent / "images"]
    folders = [*below, root / "images", root / "data", root]
    if (plain := split_named(split)) and plain != split:
        folders[3:3] = [root / "images" / plain, root / plain]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _image_file(name: str, folders: Sequence[Path], where: str) -> Path:
    names = [name]
    if not _PLAIN.fullmatch(name):
        path = PurePosixPath(name.replace("\\", "/"))
        names = [path.name] if path.is_absolute() or ".." in path.parts else [str(path), path.name]
    for each in names:
        for folder in folders:
            if each and (file := folder / each).is_file():
                return file
    places = ", ".join(shown(folder) for folder in folders[:3])
    raise BadData(f"{where}: names the picture {shown(name)}, which is in none of {places}; bring it back or remove it")


def _examples(document: _Document, root: Path, categories: Categories, reading: Reading) -> list[Named]:
    folders = _image_folders(document.file, root)
    files = [
        _image_file(name, folders, f"{document.file}: image {identity}") for identity, name, *_ in document.pictures
    ]
    return [
        _named(document, name, file, picture, categories, reading)
        for name, file, picture in zip(names_below(files, root), files, document.pictures, strict=True)
    ]


def _named(
    document: _Document, name: str, image: Path, picture: _Picture, categories: Categories, reading: Reading
) -> Named:
    where = f"{document.file}: image {name}"
    identity, _, *size = picture
    noted = (size[0], size[1]) if size[0] is not None and size[1] is not None else None

    def draw(height: int, width: int) -> Mask:
        check_noted_size(noted, width, height, where, image)
        crowds: list[tuple[Shape, int]] = []
        others: list[tuple[Shape, int]] = []
        for number, annotation in document.annotations(identity):
            place = f"{document.file}: annotation {_id(annotation, number)}"
            shape = _shape(annotation, width, height, place)
            label = categories.labels[document.categories[annotation["category_id"]]]
            (crowds if annotation.get("iscrowd") else others).append((shape, label))
        return drawn([*crowds, *smaller_on_top(others)], height, width, categories.uncovered)

    def read() -> Example:
        return drawn_example(image, where, reading, draw)

    return Named(name, image, read)


def _shape(annotation: Mapping[str, Any], width: int, height: int, where: str) -> Shape:
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, dict):
        return run_lengths(segmentation, width, height, where)
    if not isinstance(segmentation, list) or not segmentation:
        found = "a box alone" if annotation.get("bbox") else "none"
        raise BadData(f"{where}: expected a segmentation as polygons or run lengths, found {found}")
    return Polygons(tuple(polygon(part, width, height, where) for part in segmentation))


def _id(record: Any, number: int) -> str:
    identity = record.get("id") if isinstance(record, dict) else None
    return str(identity) if isinstance(identity, int | str) else f"at place {number}"
