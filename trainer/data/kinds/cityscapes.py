"""Cityscapes as its archives unpack: ``leftImg8bit/SPLIT/CITY`` beside ``gtFine/SPLIT/CITY``. Imports no TensorFlow.

M. Cordts et al., "The Cityscapes Dataset for Semantic Urban Scene Understanding", CVPR 2016. Its 19 classes of the
evaluation; all else is ignored. The truth of the test split is kept secret, its masks are empty.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from maskfleet.errors import BadData
from trainer.data.class_rows import IGNORED_NAME, Row
from trainer.data.class_table import ClassTable
from trainer.data.examples import TEST, TRAIN, VALIDATION, Named, images_under, paired, splits_of
from trainer.data.lists import found_in, shown
from trainer.data.source import IGNORED, Reading, Source, files_key
from trainer.data.walk import check_is_file, is_there

# fmt: off
_CLASSES = (
    ("road", 7, (128, 64, 128)), ("sidewalk", 8, (244, 35, 232)), ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)), ("fence", 13, (190, 153, 153)), ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)), ("traffic sign", 20, (220, 220, 0)), ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)), ("sky", 23, (70, 130, 180)), ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)), ("car", 26, (0, 0, 142)), ("truck", 27, (0, 0, 70)), ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)), ("motorcycle", 32, (0, 0, 230)), ("bicycle", 33, (119, 11, 32)),
)
# fmt: on
_LARGEST_ID = 33
_IMAGE = "_leftImg8bit"
_TRUTHS = ("gtFine", "gtCoarse")
_SPLITS = {TRAIN: "train", VALIDATION: "val", TEST: "test"}


def is_cityscapes(folder: Path) -> bool:
    return (folder / "leftImg8bit").is_dir() and any((folder / truth).is_dir() for truth in _TRUTHS)


def open_cityscapes(folder: Path, reading: Reading, table: ClassTable | None = None) -> Source:
    """The splits of ``train`` and ``val``, and of ``test`` if there are masks of it: its truth is secret.

    Args:
        table: of a data file, for other classes of the 34 values.

    Raises:
        BadData: a folder or a mask is missing.
    """
    if not is_cityscapes(folder):
        raise BadData(f"{folder}: expected leftImg8bit and gtFine, found {found_in(folder)}")
    truth = next(truth for truth in _TRUTHS if (folder / truth).is_dir())
    kind = ""
    examples: dict[str, list[Named]] = {}
    used: list[Path] = []
    for split, name in _SPLITS.items():
        place = folder / "leftImg8bit" / name
        images = [file for file in images_under(place) if file.stem.endswith(_IMAGE)] if place.is_dir() else []
        if not images:
            continue
        kind = kind or _kind(folder, truth, images[0])
        table = table or _table(kind)
        masks = [_mask(folder, truth, image, kind) for image in images]
        if split == TEST and not (masks[0].is_file() and _has_truth(table, masks[0], reading)):
            continue
        for image, mask in zip(images, masks, strict=True):
            if is_there(mask):
                check_is_file(mask)
            else:
                raise BadData(f"{shown(image)}: this image has no mask {shown(mask)}; unpack all of {truth}")
        examples[split] = [
            paired(image.stem.removesuffix(_IMAGE), image, mask, table, reading)
            for image, mask in zip(images, masks, strict=True)
        ]
        used += [*images, *masks]
    if table is None:
        raise BadData(f"{folder / 'leftImg8bit'}: expected train and val, with cities in them, found no pictures")
    splits = splits_of(examples, folder)
    return splits.source(
        "cityscapes",
        table.names,
        table.colours,
        table.background,
        files_key(used) + repr((table.names, table.values)),
    )


def _table(kind: str) -> ClassTable:
    rows = [
        Row(name, i if kind == "labelTrainIds" else value, colour) for i, (name, value, colour) in enumerate(_CLASSES)
    ]
    taken = {row.value for row in rows}
    others = [-1, IGNORED] if kind == "labelTrainIds" else range(-1, _LARGEST_ID + 1)
    return ClassTable.of([*rows, *(Row(IGNORED_NAME, value) for value in others if value not in taken)], "Cityscapes")


def _kind(folder: Path, truth: str, image: Path) -> str:
    """Of the masks: ``labelIds``, which the archive has, or ``labelTrainIds``, which its scripts write."""
    tried = [_mask(folder, truth, image, kind) for kind in ("labelIds", "labelTrainIds")]
    found = next((mask for mask in tried if mask.is_file()), None)
    if found is None:
        raise BadData(f"{shown(image)}: this image has no mask {shown(tried[0])}; unpack all of {truth}")
    return found.stem.rpartition("_")[2]


def _mask(folder: Path, truth: str, image: Path, kind: str) -> Path:
    below = image.relative_to(folder / "leftImg8bit").parent
    return folder / truth / below / f"{image.stem.removesuffix(_IMAGE)}_{truth}_{kind}.png"


def _has_truth(table: ClassTable, mask: Path, reading: Reading) -> bool:
    return bool((np.asarray(table.read_mask(mask, reading.max_pixels)) != IGNORED).any())
