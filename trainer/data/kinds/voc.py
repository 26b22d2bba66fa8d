"""The layout of PASCAL VOC 2012: ``JPEGImages``, ``SegmentationClass``, ``ImageSets/Segmentation``.

M. Everingham et al., "The PASCAL Visual Object Classes Challenge", IJCV 2010. Masks are PNGs whose palette shows
the 21 classes; 255 is ignored. Imports no TensorFlow.
"""

from __future__ import annotations

from pathlib import Path

from maskfleet.errors import BadData
from trainer.data.class_table import ClassTable
from trainer.data.lists import check_disjoint, divide, missing_files, read_list
from trainer.data.source import Source, Split, files_key, palette

# fmt: off
CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
_IGNORED_COLOUR = (224, 224, 192)


def open_voc(folder: Path) -> Source:
    """Training split from ``train.txt``, test split from ``val.txt``; if neither is there, of ``trainval.txt``.

    Args:
        folder: ``VOC2012``, or a folder that holds it as the archive unpacks (``VOCdevkit/VOC2012``).

    Raises:
        BadData: a folder or a list is missing, or a list names a file that is missing.
    """
    root = _root(folder)
    place = root / "ImageSets" / "Segmentation"
    lists = [place / "train.txt", place / "val.txt"]
    both = place / "trainval.txt"
    if both.is_file() and not any(file.exists() for file in lists):
        lists = [both, both]
        names = divide(read_list(both, first_word=True), both)
    else:
        names = (read_list(lists[0], first_word=True), read_list(lists[1], first_word=True))
        check_disjoint(lists[0], names[0], lists[1], names[1])
    table = ClassTable(CLASSES, palette(len(CLASSES)), ignored=_IGNORED_COLOUR)

    def image(name: str) -> Path:
        return root / "JPEGImages" / f"{name}.jpg"

    def mask(name: str) -> Path:
        return root / "SegmentationClass" / f"{name}.png"

    def split(file: Path, names: tuple[str, ...]) -> Split:
        missing_files(file, map(image, names), "image")
        missing_files(file, map(mask, names), "mask")
        return Split(names, lambda i: table.read_pair(image(names[i]), mask(names[i])))

    train, test = (split(file, listed) for file, listed in zip(lists, names, strict=True))
    everything = (*train.names, *test.names)
    key = files_key([*lists, *map(image, everything), *map(mask, everything)])
    return Source("voc", table.names, table.colours, table.background, train, test, key)


def _root(folder: Path) -> Path:
    for root in (folder, folder / "VOC2012", folder / "VOCdevkit" / "VOC2012"):
        if (root / "SegmentationClass").is_dir():
            return root
    found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5]) or "nothing"
    raise BadData(f"{folder}: expected JPEGImages, SegmentationClass and ImageSets/Segmentation, found {found}")
