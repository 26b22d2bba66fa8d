"""A folder of images and masks: ``images/NAME.*`` beside ``masks/NAME.png``. Imports no TensorFlow.

Optional: ``train.txt``, ``val.txt`` and ``test.txt`` with a NAME on each line, or folders of these names above or below
``images`` and ``masks``, else a fifth is for testing; ``classes.txt`` with a class on each line, in the order of the
labels, and its colour if masks are drawn in colours; what then counts in which files,
:meth:`~trainer.data.class_table.ClassTable.read_mask` says.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskfleet.errors import BadData
from trainer.data.class_table import BINARY_CLASSES, TABLES, ClassTable, single_channel
from trainer.data.images import (
    BINARY,
    IMAGE_SUFFIXES,
    LOSSY_SUFFIXES,
    check_label_sets,
    edge_values,
    labels_in,
    mask_suffixes,
    pixels_of,
    read_labels,
)
from trainer.data.lists import (
    check_disjoint,
    check_lists,
    check_utf8,
    divide,
    found_in,
    of_splits,
    read_list,
    shown,
    withheld,
)
from trainer.data.mask_names import masks_by_image
from trainer.data.remembered import remembered
from trainer.data.side_by_side import side_by_side
from trainer.data.source import IGNORED, NO_EXAMPLES, Reading, Source, Split, files_key, palette
from trainer.data.split_folders import is_divided, split_folders
from trainer.data.walk import check_is_file, is_there

_MANY_CLASSES = 16
"""Without names, more than these are rather the greys of smooth edges."""
_BRIGHT = 64
"""No label is as large as this where labels are the numbers of a few classes."""
_LOOKED_AT = 20
"""Masks in which the borders are looked at."""
_AREA = 0.02
"""Share of all pixels from which on a value fills areas."""
_STEP = 10
"""From here on, a common divisor of all labels is no chance."""


@dataclass(frozen=True)
class _Files:
    """Of one folder: those that can be read, by their stems, and the names of all else but hidden files."""

    place: Path
    by_name: Mapping[str, Path]
    passed_over: tuple[str, ...]

    def note(self) -> list[str]:
        if not self.passed_over:
            return []
        more = f" and {len(self.passed_over) - 5} more" if len(self.passed_over) > 5 else ""
        return [f"{shown(self.place)}: passed over {', '.join(self.passed_over[:5])}{more}"]


def is_pairs(folder: Path) -> bool:
    return all((folder / part).is_dir() for part in ("images", "masks")) or is_divided(folder, "images", "masks")


def open_pairs(folder: Path, reading: Reading, table: ClassTable | None = None) -> Source:
    """Opens a folder of pairs.

    Args:
        table: of a data file, in place of the folder's own.

    Raises:
        BadSettings: a pattern that is none.
        BadData: an image without mask or the reverse, a list that does not fit, no classes to be found.
    """
    places, notes = split_folders(folder, "images", "masks")
    layout = _nested(folder, places, notes, reading) if places else _flat(folder, notes, reading)
    notes = layout.notes
    tables = [folder / name for name in TABLES if table is None and is_there(folder / name)]
    if len(tables) > 1:
        notes.append(f"{shown(tables[1])}: passed over for {tables[0].name}")
    pairs = [pair for split in layout.splits.values() for pair in split]
    masks = [pair.mask for pair in pairs]
    where = folder if places and not (folder / "masks").is_dir() else folder / "masks"
    if table is None:
        table = _table(tables, masks, where, reading)
    table = table.at_threshold(reading.mask_threshold, tables[0] if tables else folder)

    def split(name: str) -> Split:
        pairs = layout.splits[name]
        return Split(
            tuple(pair.name for pair in pairs),
            lambda i: table.read_pair(pairs[i].image, pairs[i].mask, reading),
            lambda i: pixels_of(pairs[i].image),
            lambda i: pairs[i].image,
        )

    key = files_key([*layout.lists, *tables[:1], *(pair.image for pair in pairs), *masks])
    if places:  # which the files' names do not tell
        key += "".join(f" {len(split)}" for split in layout.splits.values())
    if table.threshold is not None:
        key += f" over {table.threshold:g}"
    return Source(
        folder.name,
        table.names,
        table.colours,
        table.background,
        split("train"),
        split("test") if "test" in layout.splits else NO_EXAMPLES,
        key,
        notes=tuple(notes),
        read_by_label=table.assumes_ignored,
        validation=split("validation") if "validation" in layout.splits else None,
        split_by=layout.split_by,
    )


class _Pair(NamedTuple):
    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class _Layout:
    """The pairs of each split that has some, the lists that named them, and what there is to be noted."""

    splits: Mapping[str, Sequence[_Pair]]
    lists: Sequence[Path]
    notes: list[str]
    split_by: Literal["layout", "hash"]


def _flat(folder: Path, notes: list[str], reading: Reading) -> _Layout:
    """All files in two folders, divided by lists, or by us."""
    for kind in ("images", "masks"):
        if not (folder / kind).is_dir():
            raise BadData(f"{folder}: {_other_layout(folder)}, found {found_in(folder)}")
    image_files = _files(folder / "images", "images", IMAGE_SUFFIXES)
    mask_files = _masks(image_files, folder / "masks", reading)
    images, masks = image_files.by_name, mask_files.by_name
    notes += image_files.note() + mask_files.note()
    lists = of_splits(folder.glob("*.txt"), lambda file: file.stem)
    if lists:
        check_lists(lists, folder, "remove it to have a fifth divided off")
        names = {split: _listed(file, images) for split, file in lists.items()}
        check_disjoint({lists[split]: named for split, named in names.items()})
        if unlisted := len(images) - sum(map(len, names.values())):
            files = " nor in ".join(file.name for file in lists.values())
            notes.append(f"{shown(folder)}: {unlisted} images are named neither in {files}")
        if withheld(names, masks.__contains__):
            notes.append(f"{shown(lists['test'])}: passed over, as there are no masks of its images")
            del names["test"]
    else:
        _check_no_mask_alone(image_files, mask_files)
        names = dict(zip(("train", "test"), divide(tuple(images), folder), strict=True))
    splits = {split: _paired(named, image_files, mask_files) for split, named in names.items()}
    return _Layout(splits, [*lists.values()], notes, "layout" if lists else "hash")


def _nested(folder: Path, places: Mapping[str, tuple[Path, Path]], notes: list[str], reading: Reading) -> _Layout:
    """A folder for each split; a single one is divided."""
    splits: dict[str, Sequence[_Pair]] = {}
    for split, (images_place, masks_place) in places.items():
        image_files = _files(images_place, "images", IMAGE_SUFFIXES)
        mask_files = _masks(image_files, masks_place, reading)
        notes += image_files.note() + mask_files.note()
        _check_no_mask_alone(image_files, mask_files)
        splits[split] = _paired(tuple(image_files.by_name), image_files, mask_files)
    for file in of_splits(folder.glob("*.txt"), lambda file: file.stem).values():
        notes.append(f"{shown(file)}: passed over for the folders of the splits")
    if len(splits) > 1:
        return _Layout(splits, [], notes, "layout")
    by_name = {pair.name: pair for pair in splits["train"]}
    train, test = (tuple(by_name[name] for name in names) for names in divide(tuple(by_name), folder))
    notes.append(f"{shown(folder)}: has no folder of another split than train: a fifth of it is for testing")
    return _Layout({"train": train, "test": test}, [], notes, "hash")


def _masks(images: _Files, place: Path, reading: Reading) -> _Files:
    """The masks by their images' names; what is no mask by the pattern is passed over."""
    masks = _files(place, "masks", mask_suffixes(reading))
    by_image, others = masks_by_image(images.by_name, masks.by_name, reading.mask_pattern, place)
    return _Files(masks.place, by_image, (*masks.passed_over, *map(shown, others)))


def _check_no_mask_alone(images: _Files, masks: _Files) -> None:
    for name, file in masks.by_name.items():
        if name not in images.by_name:
            _raise_unpaired(file, "mask", masks, "image", images)


def _paired(names: Sequence[str], images: _Files, masks: _Files) -> Sequence[_Pair]:
    for name in names:
        if name not in masks.by_name:
            _raise_unpaired(images.by_name[name], "image", images, "mask", masks)
    return [_Pair(name, images.by_name[name], masks.by_name[name]) for name in names]


def _files(place: Path, kind: str, suffixes: frozenset[str]) -> _Files:
    files: dict[str, Path] = {}
    folders, others = [], []
    for file in sorted(place.iterdir()):
        if file.name.startswith("."):
            continue
        if file.is_dir():
            folders.append(f"the folder {shown(file.name)}")
            continue
        if kind == "masks" and file.suffix.lower() in LOSSY_SUFFIXES - suffixes:
            raise BadData(
                f"{file}: expected a mask as PNG, since {file.suffix[1:].upper()} changes labels; save it again from "
                f"its origin, or give {BINARY} if it is of one class, white on black"
            )
        if file.is_symlink():
            check_is_file(file)
        if file.suffix.lower() not in suffixes or not file.is_file():
            others.append(shown(file.name))
            continue
        check_utf8(file)
        if file.stem in files:
            raise BadData(f"{file}: has the same name as {files[file.stem].name}; rename one of them")
        files[file.stem] = file
    if not files:
        listed = ", ".join([*folders, *others][:5])
        mend = ""
        if folders:
            mend = "; move its files up here, and name the splits in train.txt and test.txt, if they are such"
        raise BadData(f"{place}: expected {kind} ({', '.join(sorted(suffixes))}), found {listed or 'none'}{mend}")
    return _Files(place, files, (*folders, *others))


def _other_layout(folder: Path) -> str:
    """What is expected of a folder that is not this layout."""
    if (folder / "SegmentationClass").is_dir():
        return f"expected the folders images and masks (this is the layout of PASCAL VOC: --data voc:{folder})"
    if (folder / "images").is_dir() and (folder / "annotations").is_dir():
        return (
            "expected masks in a folder masks beside images, or, of Oxford-IIIT Pet, in annotations/trimaps with the "
            "lists annotations/trainval.txt and annotations/test.txt"
        )
    return "expected the folders images and masks (or images and annotations/trimaps)"


def _raise_unpaired(file: Path, kind: str, own: _Files, other: str, others: _Files) -> None:
    """Raises BadData for an image without mask, or the reverse, with what may be meant to be its pair."""
    name = file.stem
    if same := [entry for entry in others.passed_over if Path(entry).stem == name]:
        if (others.place / same[0]).exists():
            check_is_file(others.place / same[0])
        raise BadData(f"{file}: this {kind} has no {other} that can be read, only {same[0]}; save that as PNG")
    free = [stem for stem in others.by_name if stem not in own.by_name]
    around = [stem for stem in free if stem and (stem in name or name in stem)]
    near = max(around, key=len, default=None) or next(iter(difflib.get_close_matches(name, free, n=1)), None)
    if near is not None:
        pair = others.by_name[near]
        image, mask = (pair, file) if kind == "mask" else (file, pair)
        raise BadData(
            f"{mask}: expected the name of its image: is it that of {image.name}? then call it "
            f"{image.stem}{mask.suffix}, and all masks as their images"
        )
    suffix, mend = (".*", "add it or remove the mask") if kind == "mask" else (".png", "add it or remove the image")
    raise BadData(f"{file}: this {kind} has no {other} {others.place / name}{suffix}; {mend}")


def _listed(file: Path, images: Mapping[str, Path]) -> tuple[str, ...]:
    names = tuple(name if name in images else Path(name).stem for name in read_list(file))
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise BadData(f"{file}: names {name} {count} times, with and without what is behind it; remove the repetition")
    for name in names:
        if name not in images:
            raise BadData(f"{file}: names {name}, but there is no such file in {file.parent / 'images'}")
    return names


def _table(tables: Sequence[Path], masks: Sequence[Path], where: Path, reading: Reading) -> ClassTable:
    """What the folder or its masks say of classes."""
    if tables:
        return ClassTable.read(tables[0])
    if reading.mask_threshold is not None:
        return ClassTable(BINARY_CLASSES, palette(len(BINARY_CLASSES)))
    return _classes_of(masks, where, reading.max_pixels)


def _classes_of(masks: Sequence[Path], where: Path, max_pixels: int) -> ClassTable:
    """The classes that the masks' labels tell, if they are 0, 1, 2 … without a gap."""

    def labels_of(i: int) -> NDArray[Any]:
        return single_channel(read_labels(masks[i], max_pixels=max_pixels), masks[i])

    def look() -> list[list[int]]:
        each = side_by_side(lambda i: labels_in(labels_of(i)), len(masks), lambda i: pixels_of(masks[i]))
        return sorted(sorted(labels) for labels in set(each))

    found = {frozenset(labels) for labels in remembered("labels", where, masks, look)}
    check_label_sets(found, where)
    labels = frozenset[int]().union(*found)
    classes = sorted(labels - {IGNORED})
    gap = classes != list(range(len(classes))) or len(classes) < 2
    if (gap and max(labels) >= _BRIGHT) or len(classes) > _MANY_CLASSES:
        some = np.linspace(0, len(masks) - 1, min(len(masks), _LOOKED_AT)).astype(int).tolist()
        _check_edges(map(labels_of, some), 1 if gap else _MANY_CLASSES, where)
    if gap:
        _raise_gap(classes, labels, where)
    return ClassTable(tuple(f"class_{label}" for label in classes), palette(len(classes)), by_colour=False)


def _check_edges(masks: Iterable[NDArray[Any]], at_least: int, where: Path) -> None:
    """Raises BadData if so many of the masks' values are found only between two others, at their borders."""
    at_edges: Counter[int] = Counter()
    inside: Counter[int] = Counter()
    pixels: Counter[int] = Counter()
    for mask in masks:
        edges = edge_values(mask)
        at_edges.update(edges)
        inside.update(labels_in(mask) - edges)
        pixels.update(dict(zip(*(part.tolist() for part in np.unique(mask, return_counts=True)), strict=True)))
    edges = {label for label, count in at_edges.items() if count > inside[label]}
    if len(edges) < at_least or len(pixels.keys() - edges) < 2:
        return
    frequent = [label for label, _ in pixels.most_common() if label not in edges]
    areas = [label for label in frequent if pixels[label] > _AREA * pixels.total()]
    large = sorted(areas if len(areas) > 1 else frequent[:2])
    values = ", ".join(map(str, large[:4])) + (" …" if len(large) > 4 else "")
    mend = f"write each pixel as the nearest of its classes' values ({values})"
    if len(large) == 2 or (large[0] == 0 and large[-1] == 255):
        mend = f"give --mask-threshold {(large[0] + large[-1]) // 2} if they are of one class"
    raise BadData(
        f"{where}: masks have smooth edges: beside the values that fill areas ({values}), {len(pixels) - len(large)} "
        f"lie at the borders between them; {mend}"
    )


def _raise_gap(classes: Sequence[int], labels: frozenset[int], where: Path) -> None:
    listed = ", ".join(map(str, classes[:6])) + (" …" if len(classes) > 6 else "")
    if IGNORED in labels:
        listed = f"{listed} and {IGNORED}, which means 'ignored'" if listed else f"{IGNORED}, which means 'ignored'"
    step = math.gcd(*classes)
    mend = "name the classes in classes.txt, one a line"
    if len(classes) > 1:
        mend += f", with their values ('{classes[0]} NAME')"
    if classes and min(classes) < 0:
        mend = f"write {IGNORED} where no class is known"
    elif step >= _STEP and len(classes) > 1:
        mend = f"divide them by {step}"
        if max(labels) <= 255:
            mend += f", or name the greys in classes.txt ('background 0 0 0', 'object {step} {step} {step}')"
    elif classes and classes[0] == 1 and classes == list(range(1, len(classes) + 1)):
        mend = "subtract 1, or name the classes in classes.txt, one a line, with their values ('1 NAME')"
    elif len(classes) == 1:
        mend = "draw the objects, or name the classes in classes.txt, one a line"
    raise BadData(f"{where}: expected labels 0, 1, 2 … without a gap, found {listed or 'none'}; {mend}")
