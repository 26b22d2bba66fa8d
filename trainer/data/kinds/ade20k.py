"""ADE20K as the scene parsing challenge gives it: ``images/training`` beside ``annotations/training``.

B. Zhou et al., "Scene Parsing through ADE20K Dataset", CVPR 2017: 150 classes of values 1 to 150, and 0 where nothing
is labelled, which is ignored. Their names are in ``objectInfo150.txt``. Imports no TensorFlow.
"""

from __future__ import annotations

from pathlib import Path

from maskfleet.errors import BadData
from trainer.data.class_rows import IGNORED_NAME, Row
from trainer.data.class_table import ClassTable
from trainer.data.examples import TEST, TRAIN, VALIDATION, Named, images_under, paired, splits_of
from trainer.data.lists import found_in, read_lines, shown
from trainer.data.source import Reading, Source, files_key
from trainer.data.walk import check_is_file, is_there

_NAMES = "objectInfo150.txt"
_SPLITS = {TRAIN: "training", VALIDATION: "validation", TEST: "testing"}
_CLASSES = 150


def is_ade20k(folder: Path) -> bool:
    return all((folder / part / "training").is_dir() for part in ("images", "annotations"))


def open_ade20k(folder: Path, reading: Reading, table: ClassTable | None = None) -> Source:
    """The splits of ``training`` and ``validation``, whose truth is public.

    Args:
        table: of a data file, for other classes of the values.

    Raises:
        BadData: a folder or a mask is missing, or the names of the classes are other than 150.
    """
    if not is_ade20k(folder):
        raise BadData(
            f"{folder}: expected images/training and annotations/training (ADEChallengeData2016), "
            f"found {found_in(folder)}"
        )
    table = table or _table(folder / _NAMES)
    examples: dict[str, list[Named]] = {}
    used: list[Path] = []
    for split, name in _SPLITS.items():
        images, masks = folder / "images" / name, folder / "annotations" / name
        if not (images.is_dir() and masks.is_dir()):
            continue
        examples[split] = []
        for image in images_under(images):
            mask = masks / image.relative_to(images).with_suffix(".png")
            if is_there(mask):
                check_is_file(mask)
            else:
                raise BadData(f"{shown(image)}: this image has no mask {shown(mask)}; add it or remove the image")
            examples[split].append(paired(image.stem, image, mask, table, reading))
            used += [image, mask]
    splits = splits_of(examples, folder)
    names = [folder / _NAMES] if (folder / _NAMES).is_file() else []
    return splits.source(
        "ade20k",
        table.names,
        table.colours,
        table.background,
        files_key([*names, *used]) + repr((table.names, table.values)),
    )


def _table(file: Path) -> ClassTable:
    """Of lines ``1  0.1576  11664  1172  wall``, the columns apart by tabs; without the file, names are numbers."""
    names = [f"class_{value}" for value in range(1, _CLASSES + 1)]
    if is_there(file):
        lines = [line.split("\t") for line in read_lines(file)]
        rows = [cells for cells in lines if cells[0].strip().isdigit()]
        numbers = [int(cells[0]) for cells in rows]
        if numbers != list(range(1, _CLASSES + 1)):
            raise BadData(f"{file}: expected a line for each value from 1 to {_CLASSES}, found {len(numbers)}")
        names = [cells[-1].partition(",")[0].strip() for cells in rows]
        for i, cells in enumerate(rows):  # two are called screen, two crt screen
            if names.index(names[i]) < i:
                names[i] = cells[-1].strip()
    return ClassTable.of(
        [Row(IGNORED_NAME, 0), *(Row(name, value) for value, name in enumerate(names, 1))], file.parent
    )
