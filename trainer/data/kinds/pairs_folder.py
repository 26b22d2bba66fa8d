"""A folder of images and masks: ``images/NAME.*`` beside ``masks/NAME.png``. Imports no TensorFlow.

Optional: ``train.txt`` and ``test.txt`` with a NAME on each line, else a fifth is for testing; ``classes.txt`` with
a class on each line, in the order of the labels, and its colour if masks are drawn in colours; what then counts in
which files, :meth:`~trainer.data.class_table.ClassTable.read_mask` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from maskfleet.errors import BadData
from trainer.cgroup import cpu_limit
from trainer.data.class_table import ClassTable, single_channel
from trainer.data.images import IMAGE_SUFFIXES, MASK_SUFFIXES, check_not_0_and_255, read_labels
from trainer.data.lists import check_disjoint, divide, read_list
from trainer.data.source import IGNORED, Source, Split, files_key, palette


def open_pairs(folder: Path) -> Source:
    """Opens a folder of pairs.

    Raises:
        BadData: an image without mask or the reverse, a list that does not fit, no classes to be found.
    """
    images = _files(folder, "images", IMAGE_SUFFIXES)
    masks = _files(folder, "masks", MASK_SUFFIXES)
    lists = [folder / "train.txt", folder / "test.txt"]
    if any(file.exists() for file in lists):
        train, test = (_listed(file, images) for file in lists)
        check_disjoint(lists[0], train, lists[1], test)
    else:
        lists = []
        for name in masks:
            if name not in images:
                raise BadData(
                    f"{masks[name]}: this mask has no image {folder / 'images' / name}.*; add it or remove the mask"
                )
        train, test = divide(tuple(images), folder)
    for name in (*train, *test):
        if name not in masks:
            raise BadData(
                f"{images[name]}: this image has no mask {folder / 'masks' / name}.png; add it or remove the image"
            )
    tables = [folder / name for name in ("classes.txt", "labelmap.txt") if (folder / name).exists()][:1]
    used = [masks[name] for name in (*train, *test)]
    table = ClassTable.read(tables[0]) if tables else _classes_of(used, folder)

    def split(names: tuple[str, ...]) -> Split:
        return Split(names, lambda i: table.read_pair(images[names[i]], masks[names[i]]))

    key = files_key([*lists, *tables, *(images[name] for name in (*train, *test)), *used])
    return Source(folder.name, table.names, table.colours, table.background, split(train), split(test), key)


def _files(folder: Path, kind: str, suffixes: frozenset[str]) -> Mapping[str, Path]:
    """The files of one folder by their stems."""
    place = folder / kind
    if not place.is_dir():
        found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5]) or "nothing"
        raise BadData(f"{folder}: expected the folders images and masks (or images and annotations), found {found}")
    files: dict[str, Path] = {}
    for file in sorted(place.iterdir()):
        if file.name.startswith(".") or not file.is_file():
            continue
        if kind == "masks" and file.suffix.lower() in (".jpg", ".jpeg", ".webp"):
            raise BadData(
                f"{file}: expected a mask as PNG, since {file.suffix[1:].upper()} changes labels; "
                "save it again from its origin"
            )
        if file.suffix.lower() not in suffixes:
            continue
        if file.stem in files:
            raise BadData(f"{file}: has the same name as {files[file.stem].name}; rename one of them")
        files[file.stem] = file
    if not files:
        raise BadData(f"{place}: expected {kind} ({', '.join(sorted(suffixes))}), found none")
    return files


def _listed(file: Path, images: Mapping[str, Path]) -> tuple[str, ...]:
    names = tuple(name if name in images else Path(name).stem for name in read_list(file))
    for name in names:
        if name not in images:
            raise BadData(f"{file}: names {name}, but there is no such file in {file.parent / 'images'}")
    return names


def _classes_of(masks: list[Path], folder: Path) -> ClassTable:
    """The classes that the masks' labels tell, if they are 0, 1, 2 … without a gap."""
    with ThreadPoolExecutor(cpu_limit()) as threads:
        found = threads.map(lambda file: np.unique(single_channel(read_labels(file), file)), masks)
        labels = {int(label) for unique in found for label in unique}
    check_not_0_and_255(labels, folder / "masks")
    classes = sorted(labels - {IGNORED})
    if classes != list(range(len(classes))) or len(classes) < 2:
        shown = ", ".join(map(str, classes[:6])) + (" …" if len(classes) > 6 else "")
        raise BadData(
            f"{folder / 'masks'}: expected labels 0, 1, 2 … without a gap, found {shown or 'none'}; "
            "name the classes in classes.txt, one a line"
        )
    return ClassTable(tuple(f"class_{label}" for label in classes), palette(len(classes)), by_colour=False)
