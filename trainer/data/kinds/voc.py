"""The layout of PASCAL VOC: ``JPEGImages``, ``SegmentationClass``, ``ImageSets/Segmentation``.

M. Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV 2010. Masks are PNGs whose palette shows
the 21 classes; 255 is ignored. CVAT and labelme write the same folders for classes of one's own: CVAT names these in
``labelmap.txt`` and all images in ``default.txt``, labelme names them in ``class_names.txt`` and has no lists.
Imports no TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from maskfleet.errors import BadData
from trainer.data.class_table import TABLES, ClassTable
from trainer.data.images import IMAGE_SUFFIXES, pixels_of
from trainer.data.lists import check_disjoint, check_utf8, divide, found_in, missing_files, read_list, shown
from trainer.data.source import Reading, Source, Split, files_key, palette

# fmt: off
CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
_IGNORED_COLOUR = (224, 224, 192)
_SUFFIXES = (".jpg", *sorted(IMAGE_SUFFIXES - {".jpg"}))


def is_voc(folder: Path) -> bool:
    return any(place.is_dir() for root in _roots(folder) for place in _mask_folders(root))


def open_voc(folder: Path, reading: Reading, table: ClassTable | None = None) -> Source:
    """Training split from ``train.txt``, test split from ``val.txt``; else both of the one list, or of all masks.

    Args:
        folder: ``VOC2012``, or a folder that holds it as the archive unpacks (``VOCdevkit/VOC2012``).
        table: of a data file, in place of the folder's own.

    Raises:
        BadData: a folder or a list is missing, or a list names a file that is missing.
    """
    root = _root(folder)
    masks_folder = next(place for place in _mask_folders(root) if place.is_dir())
    lists = _lists(root / "ImageSets" / "Segmentation")
    notes: list[str] = []
    if len(lists) == 2:
        train, test = (read_list(file, first_word=True) for file in lists)
        check_disjoint(lists[0], train, lists[1], test)
    elif lists:
        train, test = divide(read_list(lists[0], first_word=True), lists[0])
    else:
        masks = sorted(masks_folder.glob("*.png"))
        for file in masks:
            check_utf8(file)
        train, test = divide(tuple(file.stem for file in masks), masks_folder)
        notes.append(f"{shown(root)}: has no lists in ImageSets/Segmentation: a fifth of the masks is for testing")
    tables = [root / name for name in reversed(TABLES) if table is None and (root / name).exists()]
    table = table or ClassTable(CLASSES, palette(len(CLASSES)), ignored=(_IGNORED_COLOUR,))
    if tables:
        table = ClassTable.read(tables[0])
        if table.by_colour and not table.ignored and list(_IGNORED_COLOUR) not in table.colours.tolist():
            table = dataclasses.replace(table, ignored=(_IGNORED_COLOUR,))
    if len(tables) > 1:
        notes.append(f"{shown(tables[1])}: passed over for {tables[0].name}")
    files = {name: _image(root / "JPEGImages", name) for name in (*train, *test)}

    def mask(name: str) -> Path:
        return masks_folder / f"{name}.png"

    def split(file: Path, names: tuple[str, ...]) -> Split:
        missing_files(file, [files[name] for name in names], "image")
        missing_files(file, map(mask, names), "mask")
        return Split(
            names,
            lambda i: table.read_pair(files[names[i]], mask(names[i]), reading),
            lambda i: pixels_of(files[names[i]]),
        )

    origins = (*lists, *lists)[:2] if lists else (masks_folder, masks_folder)
    splits = [split(file, names) for file, names in zip(origins, (train, test), strict=True)]
    key = files_key([*lists, *tables[:1], *files.values(), *map(mask, files)])
    return Source(
        "voc",
        table.names,
        table.colours,
        table.background,
        splits[0],
        splits[1],
        key,
        notes=tuple(notes),
        read_by_label=table.assumes_ignored,
    )


def _lists(place: Path) -> Sequence[Path]:
    """The lists of both splits, or the one that names all examples, or none.

    Raises:
        BadData: there is one split's list alone.
    """
    if not place.is_dir():
        return ()
    files = {file.stem.lower(): file for file in sorted(place.glob("*.txt"), reverse=True)}
    test = next((files[name] for name in ("val", "validation", "test") if name in files), None)
    if "train" in files and test is not None:
        return files["train"], test
    for name in ("trainval", "default"):
        if name in files:
            return (files[name],)
    if "train" in files or test is not None:
        missing = "val.txt" if test is None else "train.txt"
        raise BadData(
            f"{place / missing}: expected a list of names for either split, found {found_in(place)}; "
            "add it, or call the one list trainval.txt to have it divided"
        )
    if len(files) > 1:
        raise BadData(f"{place}: expected train.txt and val.txt, or one list of all, found {found_in(place)}")
    return tuple(files.values())


def _image(folder: Path, name: str) -> Path:
    """The image of that name and any suffix; the one that PASCAL VOC has where there is none."""
    files = (folder / f"{name}{suffix}" for suffix in _SUFFIXES)
    return next((file for file in files if file.is_file()), folder / f"{name}.jpg")


def _mask_folders(root: Path) -> Sequence[Path]:
    """Earlier versions of labelme keep arrays in the second one when there is the first."""
    return root / "SegmentationClassPNG", root / "SegmentationClass"


def _roots(folder: Path) -> Sequence[Path]:
    return folder, folder / "VOC2012", folder / "VOCdevkit" / "VOC2012"


def _root(folder: Path) -> Path:
    for root in _roots(folder):
        if any(place.is_dir() for place in _mask_folders(root)):
            if not (root / "JPEGImages").is_dir():
                raise BadData(
                    f"{root}: expected the images in JPEGImages, found {found_in(root)}; export them with the masks "
                    "(CVAT: 'Save images')"
                )
            return root
    raise BadData(
        f"{folder}: expected JPEGImages, SegmentationClass and ImageSets/Segmentation, found {found_in(folder)}"
    )
