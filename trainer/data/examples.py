"""From named pictures with what is known of each to the splits of a :class:`Source`. Imports no TensorFlow."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from maskfleet.errors import BadData
from trainer.data.class_table import ClassTable
from trainer.data.decoded import size_of
from trainer.data.images import IMAGE_SUFFIXES, pixels_of, read_picture, without_arrays_beside
from trainer.data.lists import SPLIT_NAMES, divide, shown
from trainer.data.orientation import is_sideways, pair
from trainer.data.source import NO_EXAMPLES, Example, Mask, Reading, Source, Split
from trainer.data.walk import files_under

TRAIN, VALIDATION, TEST = "train", "validation", "test"
UNDIVIDED = ""
"""The split of what nobody has divided."""
_SPLIT = re.compile(rf"(?<![a-z])({'|'.join(sorted(SPLIT_NAMES, key=len, reverse=True))})(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Named:
    """A picture with its truth. ``read`` raises BadData in one line."""

    name: str
    image: Path
    read: Callable[[], Example]


@dataclass(frozen=True)
class Splits:
    """What was made of the named parts; ``notes`` says how, where nobody has asked for it."""

    train: Split
    validation: Split | None
    test: Split
    notes: tuple[str, ...]
    split_by: Literal["layout", "hash"] = "layout"

    def source(
        self,
        name: str,
        classes: tuple[str, ...],
        colours: NDArray[np.uint8],
        background: int | None,
        key: str,
        notes: Sequence[str] = (),
        read_by_label: bool = False,
    ) -> Source:
        """The data set with these splits; its other fields are those of :class:`~trainer.data.source.Source`."""
        return Source(
            name,
            classes,
            colours,
            background,
            self.train,
            self.test,
            key,
            notes=(*notes, *self.notes),
            read_by_label=read_by_label,
            validation=self.validation,
            split_by=self.split_by,
        )


def split_named(text: str) -> str:
    """The split that a file or folder is called after (``instances_val2017``), or :data:`UNDIVIDED`."""
    found = {SPLIT_NAMES[match.lower()] for match in _SPLIT.findall(text)}
    return found.pop() if len(found) == 1 else UNDIVIDED


def splits_of(parts: Mapping[str, Sequence[Named]], where: Path | str) -> Splits:
    """The splits of parts by their names.

    Undivided, a fifth is for testing. There may be no test part, as where its truth is kept secret.

    Raises:
        BadData: there is no part for training or no other one; a picture is in two, or twice in one.
    """
    parts = {split: examples for split, examples in parts.items() if examples}
    notes: list[str] = []
    if set(parts) == {UNDIVIDED} or (len(parts) == 1 and TRAIN in parts):
        (all_of_them,) = parts.values()
        _check_names(all_of_them, where)
        by_name = {example.name: example for example in all_of_them}
        names = divide(tuple(by_name), Path(where))
        notes.append(f"{shown(where)}: names no split for testing: a fifth of the pictures is for that")
        return Splits(
            _split([by_name[i] for i in names[0]]), None, _split([by_name[i] for i in names[1]]), tuple(notes), "hash"
        )
    if TRAIN not in parts or UNDIVIDED in parts:
        found = ", ".join(split or "one without a name" for split in parts) or "none"
        raise BadData(f"{where}: expected splits called train and val or test, found {found}")
    for split, examples in parts.items():
        _check_names(examples, f"{where} ({split})")
    _check_disjoint(parts, where)
    validation = _split(parts[VALIDATION]) if VALIDATION in parts else None
    test = _split(parts[TEST]) if TEST in parts else NO_EXAMPLES
    return Splits(_split(parts[TRAIN]), validation, test, tuple(notes))


def paired(name: str, image: Path, mask: Path, table: ClassTable, reading: Reading) -> Named:
    """A picture with the file of its mask."""

    def read() -> Example:
        return table.read_pair(image, mask, reading)

    return Named(name, image, read)


def drawn_example(image: Path, where: str, reading: Reading, draw: Callable[[int, int], Mask]) -> Example:
    """The picture with the mask that ``draw`` makes at a height and width: as it is displayed, or else as it is stored.

    Raises:
        BadData: the picture can't be read, or what ``draw`` raises.
    """
    picture = read_picture(image, max_pixels=reading.max_pixels, bands=reading.bands)
    height, width = size_of(picture.decoded)
    try:
        mask = draw(height, width)
    except BadData as error:
        if not is_sideways(picture.orientation):
            raise
        try:
            mask = draw(width, height)
        except BadData:
            raise error from None  # what is wrong with it as it is displayed
    return pair(picture, mask, reading, image, where)


def check_noted_size(noted: tuple[int, int] | None, width: int, height: int, where: str, image: Path) -> None:
    """Raises BadData if an annotation was drawn on a picture of another size, width and height."""
    if noted is not None and noted != (width, height):
        raise BadData(
            f"{where}: was annotated at {noted[0]} x {noted[1]} pixels, but {shown(image)} has {width} x {height}; "
            "bring back the picture that was annotated"
        )


def images_under(folder: Path) -> list[Path]:
    """All pictures that :func:`~trainer.data.walk.files_under` finds, by their suffix; arrays beside one are none."""
    return without_arrays_beside(files_under(folder, IMAGE_SUFFIXES))


def names_below(files: Iterable[Path], folder: Path) -> list[str]:
    """Each file's path from ``folder`` on, without its suffix."""
    names = []
    for file in files:
        path = file.relative_to(folder) if file.is_relative_to(folder) else Path(*file.parts[-2:])
        names.append(path.with_suffix("").as_posix())
    return names


def _split(examples: Sequence[Named]) -> Split:
    return Split(
        tuple(example.name for example in examples),
        lambda i: examples[i].read(),
        lambda i: pixels_of(examples[i].image),
        lambda i: examples[i].image,
    )


def _check_names(examples: Sequence[Named], where: Path | str) -> None:
    name, count = Counter(example.name for example in examples).most_common(1)[0]
    if count > 1:
        same = [shown(example.image.name) for example in examples if example.name == name]
        raise BadData(f"{where}: {count} pictures are called {name} ({same[0]}, {same[1]}); rename or remove one")
    image, count = Counter(example.image for example in examples).most_common(1)[0]
    if count > 1:
        both = [shown(example.name) for example in examples if example.image == image]
        raise BadData(f"{where}: {shown(image)} is annotated twice, as {both[0]} and as {both[1]}; remove one")


def _check_disjoint(parts: Mapping[str, Sequence[Named]], where: Path | str) -> None:
    seen: dict[Path, str] = {}
    for split, examples in parts.items():
        for example in examples:
            if seen.setdefault(example.image, split) != split:
                raise BadData(
                    f"{where}: {shown(example.image)} is in the {seen[example.image]} split and in the {split} split; "
                    "test with images that were not trained on"
                )
