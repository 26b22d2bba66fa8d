"""The layout of PASCAL VOC: ``JPEGImages``, ``SegmentationClass``, ``ImageSets/Segmentation``.

M. Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV 2010. Masks are PNGs whose palette shows
the 21 classes; 255 is ignored. CVAT and labelme write the same folders for classes of one's own: CVAT names these in
``labelmap.txt`` and all images in ``default.txt``, labelme names them in ``class_names.txt`` and has no lists.
Imports no TensorFlow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from maskfleet.errors import BadData
from trainer.data.arrays import ARRAY
from trainer.data.class_table import TABLES, ClassTable
from trainer.data.images import IMAGE_SUFFIXES, pixels_of
from trainer.data.lists import (
    check_disjoint,
    check_lists,
    check_utf8,
    divide,
    found_in,
    missing_files,
    of_splits,
    read_list,
    shown,
    withheld,
)
from trainer.data.source import NO_EXAMPLES, Reading, Source, Split, files_key, palette
from trainer.data.walk import is_there

# fmt: off
CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
_IGNORED_COLOUR = (224, 224, 192)
_SUFFIXES = (".jpg", *sorted(IMAGE_SUFFIXES - {".jpg", ARRAY}), ARRAY)


def is_voc(folder: Path) -> bool:
    return any(place.is_dir() for root in _roots(folder) for place in _mask_folders(root))


def open_voc(folder: Path, reading: Reading, table: ClassTable | None = None) -> Source:
    """The splits of ``train.txt``, ``val.txt`` and ``test.txt``; else the one list, or all masks, divided.

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
    names = _names(lists, masks_folder)
    if not lists:
        notes.append(f"{shown(root)}: has no lists in ImageSets/Segmentation: a fifth of the masks is for testing")
    tables = [root / name for name in reversed(TABLES) if table is None and is_there(root / name)]
    table = table or ClassTable(CLASSES, palette(len(CLASSES)), ignored=(_IGNORED_COLOUR,))
    if tables:
        table = ClassTable.read(tables[0])
        if table.by_colour and not table.ignored and list(_IGNORED_COLOUR) not in table.colours.tolist():
            table = dataclasses.replace(table, ignored=(_IGNORED_COLOUR,))
    if len(tables) > 1:
        notes.append(f"{shown(tables[1])}: passed over for {tables[0].name}")

    def mask(name: str) -> Path:
        return masks_folder / f"{name}.png"

    if withheld(names, lambda name: mask(name).is_file()):
        notes.append(f"{shown(lists['test'])}: passed over, as there are no masks of its images")
        del names["test"]
    files = {name: _image(root / "JPEGImages", name) for split in names.values() for name in split}

    def split(part: str) -> Split:
        named, file = names[part], lists.get(part) or lists.get("train") or masks_folder
        missing_files(file, [files[name] for name in named], "image")
        missing_files(file, map(mask, named), "mask")
        return Split(
            named,
            lambda i: table.read_pair(files[named[i]], mask(named[i]), reading),
            lambda i: pixels_of(files[named[i]]),
            lambda i: files[named[i]],
        )

    splits = {part: split(part) for part in names}
    return Source(
        "voc",
        table.names,
        table.colours,
        table.background,
        splits["train"],
        splits.get("test", NO_EXAMPLES),
        files_key([*lists.values(), *tables[:1], *files.values(), *map(mask, files)]),
        notes=tuple(notes),
        read_by_label=table.assumes_ignored,
        validation=splits.get("validation"),
        split_by="layout" if len(lists) > 1 else "hash",
    )


def _names(lists: Mapping[str, Path], masks_folder: Path) -> dict[str, tuple[str, ...]]:
    """Of each split: as the lists say, or the one list, or all masks, divided."""
    if len(lists) > 1:
        names = {split: read_list(file, first_word=True) for split, file in lists.items()}
        check_disjoint({lists[split]: named for split, named in names.items()})
        return names
    if lists:
        where, every = lists["train"], read_list(lists["train"], first_word=True)
    else:
        masks = sorted(masks_folder.glob("*.png"))
        for file in masks:
            check_utf8(file)
        where, every = masks_folder, tuple(file.stem for file in masks)
    return dict(zip(("train", "test"), divide(every, where), strict=True))


def _lists(place: Path) -> Mapping[str, Path]:
    """The lists of the splits, or as that of training the one that names all examples, or none.

    Raises:
        BadData: there is one split's list alone.
    """
    if not place.is_dir():
        return {}
    files = sorted(place.glob("*.txt"), reverse=True)
    lists = of_splits(files, lambda file: file.stem)
    if "train" in lists and len(lists) > 1:
        return lists
    by_name = {file.stem.lower(): file for file in files}
    for name in ("trainval", "default"):
        if name in by_name:
            return {"train": by_name[name]}
    if lists:
        check_lists(lists, place, "call the one list trainval.txt to have it divided")
    if len(files) > 1:
        raise BadData(f"{place}: expected train.txt and val.txt, or one list of all, found {found_in(place)}")
    return {"train": files[0]} if files else {}


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
