"""What a data file lists: pictures by split, and their masks. Imports no TensorFlow."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from maskfleet.errors import BadData
from trainer.data.class_table import BINARY_CLASSES, ClassTable
from trainer.data.examples import (
    TEST,
    TRAIN,
    UNDIVIDED,
    VALIDATION,
    Named,
    images_under,
    names_below,
    paired,
    splits_of,
)
from trainer.data.images import IMAGE_SUFFIXES, mask_suffixes
from trainer.data.lists import expanded, found_in, read_lines, shown
from trainer.data.mask_names import MaskPattern, masks_by_image
from trainer.data.source import Reading, Source, files_key, palette
from trainer.data.walk import check_is_file

Places = str | Sequence[str] | None
Parts = Mapping[str, Sequence[Path]]


def pictures_of(places: Mapping[str, Places], root: Path, file: Path) -> Parts:
    """The pictures of each split.

    Args:
        places: by key of the data file: folders, texts with a picture on each line, pictures.

    Raises:
        BadData: a place is not there, or holds no pictures.
    """
    parts: dict[str, list[Path]] = {}
    for key, place in places.items():
        if place is None:
            continue
        split = {"train": TRAIN, "val": VALIDATION, "test": TEST, "images": UNDIVIDED}[key]
        found: list[Path] = []
        for each in [place] if isinstance(place, str) else place:
            found += _pictures(each, root, f"{file}: {key}")
        parts[split] = list(dict.fromkeys(found))
    return parts


def path_of(place: str, root: Path) -> Path:
    """Where that is, from ``root`` on. Roboflow writes ``../train`` for a folder beside its file."""
    path = root / expanded(place, shown(root))
    if not path.exists() and place.startswith("../") and (root / place[3:]).exists():
        return root / place[3:]
    return path


def open_listed(
    root: Path,
    parts: Parts,
    masks: str | Mapping[str, str],
    table: ClassTable | None,
    reading: Reading,
) -> Source:
    """Opens pictures with masks.

    Args:
        masks: the folder of the masks, from ``root`` on or in the place of the last folder called images in a
            picture's path; or one for each of train, val and test.

    Raises:
        BadSettings: a pattern that is none.
        BadData: a picture has no mask, no classes are known.
    """
    if table is None and reading.mask_threshold is not None:
        table = ClassTable(BINARY_CLASSES, palette(len(BINARY_CLASSES)))
    if table is None:
        raise BadData(f"{root}: expected names in the data file, the classes of its masks, found none")
    table = table.at_threshold(reading.mask_threshold, root)
    examples: dict[str, list[Named]] = {}
    used: list[Path] = []
    for split, files in parts.items():
        pairs = _pairs(root, split, files, masks, reading)
        names = names_below(pairs, root)
        examples[split] = [
            paired(name, image, mask, table, reading) for name, (image, mask) in zip(names, pairs.items(), strict=True)
        ]
        used += [file for pair in pairs.items() for file in pair]
    splits = splits_of(examples, root)
    content = repr((table.names, table.colours.tolist(), table.values, table.rest, table.ignored))
    if table.threshold is not None:
        content += f" over {table.threshold:g}"
    return splits.source(
        root.name,
        table.names,
        table.colours,
        table.background,
        files_key(used) + content,
        read_by_label=table.assumes_ignored,
    )


def _pictures(place: str, root: Path, where: str) -> list[Path]:
    path = path_of(place, root)
    if path.is_dir():
        found = images_under(path / "images" if (path / "images").is_dir() else path)
    elif path.suffix.lower() == ".txt" and path.is_file():
        found = []
        for line in read_lines(path):
            picture = path.parent / line[2:] if line.startswith("./") else root / line
            if not picture.is_file():
                raise BadData(f"{path}: names {shown(line)}, but there is no such file; {shown(picture)}")
            found.append(picture)
    elif path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        found = [path]
    else:
        what = "a file" if path.is_file() else "nothing"
        raise BadData(f"{where}: expected a folder of pictures or a list of them (.txt), found {what} at {shown(path)}")
    if not found:
        raise BadData(f"{where}: expected pictures, found none in {shown(path)}")
    return found


def _pairs(
    root: Path, split: str, files: Sequence[Path], masks: str | Mapping[str, str], reading: Reading
) -> dict[Path, Path]:
    """The mask of each picture; in one folder with the masks, what is no picture by its name is passed over."""
    by_folder: dict[Path, list[Path]] = defaultdict(list)
    for file in files:
        by_folder[file.parent].append(file)
    pairs: dict[Path, Path] = {}
    for folder, images in by_folder.items():
        suffixes = mask_suffixes(reading)
        place = _mask_folder(root, split, folder, masks, suffixes)
        found = {file.stem: file for file in sorted(place.iterdir()) if file.suffix.lower() in suffixes}
        if place == folder:
            if (pattern := reading.mask_pattern) is None:
                raise BadData(f"{place}: holds pictures and masks; say which are masks: mask_pattern: '{{name}}_mask'")
            asked = MaskPattern.parse(pattern)
            images = [file for file in images if not asked.is_mask(file.stem)]
        named, _ = masks_by_image([image.stem for image in images], found, reading.mask_pattern, place)
        for image in images:
            if image.stem not in named:
                raise BadData(f"{shown(image)}: this image has no mask in {shown(place)}; add it or remove the image")
            check_is_file(named[image.stem])
            pairs[image] = named[image.stem]
    return pairs


def _mask_folder(
    root: Path, split: str, folder: Path, masks: str | Mapping[str, str], suffixes: Collection[str]
) -> Path:
    """The folder of the masks of the pictures in ``folder``."""
    if not isinstance(masks, str):
        key = {VALIDATION: "val", UNDIVIDED: "images"}.get(split, split)
        if key not in masks:
            raise BadData(f"{root}: expected masks for {key} in the data file, found those of {', '.join(masks)}")
        asked = path_of(masks[key], root)
        tried = [asked / folder.name, asked]
    else:
        parts = list(folder.parts)
        tried = []
        if "images" in parts:
            last = len(parts) - 1 - parts[::-1].index("images")
            tried.append(Path(*parts[:last], masks, *parts[last + 1 :]))
        tried += [folder.parent / masks, root / masks / folder.name, root / masks]
    for place in tried:
        if place.is_dir() and any(file.suffix.lower() in suffixes for file in place.iterdir()):
            return place
    raise BadData(
        f"{root}: expected masks of the images in {shown(folder)} at {shown(tried[0])}, "
        f"found {found_in(tried[0]) if tried[0].is_dir() else 'no such folder'}"
    )
