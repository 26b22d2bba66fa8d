"""What a path of no known layout may be, and what to do with it. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trainer.data.images import IMAGE_SUFFIXES, MASK_SUFFIXES
from trainer.data.lists import shown
from trainer.data.packed.layout import MANIFEST

_MOST = 50
"""Folders and files that are looked at."""


def hint(folder: Path, kind_of: Callable[[Path], str | None]) -> str:
    """What to do, as the rest of a sentence.

    Args:
        kind_of: the kind of data that a folder is, None of none.
    """
    names = {entry.name for entry in folder.iterdir()}
    for is_so, what in _HALF_KNOWN:
        if is_so(folder, names):
            return what
    for entry in sorted(folder.iterdir())[:_MOST]:
        if entry.is_dir() and (kind := kind_of(entry)):
            return f"one folder below is {kind}: --data {shown(entry)}"
    if any(name.lower().endswith((".zip", ".tar", ".gz", ".tgz")) for name in names):
        return "unpack the archives first"
    below = any(_pictures(folder / name, MASK_SUFFIXES) for name in sorted(names)[:_MOST])
    if below or _pictures(folder, IMAGE_SUFFIXES):
        return "a data file (data.yaml with images, masks, mask_pattern and names) says where pictures and masks are"
    return "--data KIND:PATH says what it is"


def _pictures(folder: Path, suffixes: frozenset[str]) -> bool:
    return folder.is_dir() and any(
        entry.suffix.lower() in suffixes for entry, _ in zip(folder.iterdir(), range(_MOST), strict=False)
    )


def _is_supervisely(folder: Path, names: set[str]) -> bool:
    places = [folder, *(folder / name for name in sorted(names)[:_MOST])]
    return any((place / "ann").is_dir() and (place / "img").is_dir() for place in places)


def _is_roboflow_masks(folder: Path, names: set[str]) -> bool:
    return any((folder / name / "_classes.csv").is_file() for name in names)


def _is_panoptic(folder: Path, names: set[str]) -> bool:
    return any(folder.glob("annotations/panoptic_*.json"))


_HALF_KNOWN: tuple[tuple[Callable[[Path, set[str]], bool], str], ...] = (
    (lambda _, names: {MANIFEST, "train.index.npy"} <= names, "this is packed data: --data packed:PATH"),
    (
        lambda _, names: len({"leftImg8bit", "gtFine", "gtCoarse"} & names) == 1,
        "Cityscapes is leftImg8bit and gtFine beside each other: unpack both archives here",
    ),
    (
        lambda _, names: any(name.startswith("ADE20K_20") for name in names),
        "of ADE20K the scene parsing challenge is read: ADEChallengeData2016",
    ),
    (
        _is_supervisely,
        "Supervisely's own format is not read: export the project as COCO, as Cityscapes or as PASCAL VOC",
    ),
    (_is_panoptic, "COCO's panoptic format is not read: take the instances, or stuff"),
    (
        _is_roboflow_masks,
        "Roboflow's masks lie beside their pictures: a data file reads them (train: train, val: valid, test: test, "
        "masks: {train: train, val: valid, test: test}, mask_pattern: '{name}_mask', and the names in _classes.csv)",
    ),
    (
        lambda _, names: {"JPEGImages", "Annotations"} <= names and "SegmentationClass" not in names,
        "this has boxes alone: export the data set for segmentation, with SegmentationClass",
    ),
)
