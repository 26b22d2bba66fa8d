"""From the setting ``data`` to a :class:`Source`. Imports no TensorFlow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from maskfleet.config import absolute_path
from maskfleet.data_places import DATA_KINDS, data_path, own_data, packed_place
from maskfleet.data_setting import existing_data
from maskfleet.errors import BadData, BadSettings
from maskfleet.text import one_line
from trainer.data.categories import NO_WISHES, Wishes
from trainer.data.class_table import ClassTable
from trainer.data.data_file import SUFFIXES, DataFile, is_data_file
from trainer.data.kinds import (
    ade20k,
    cityscapes,
    coco,
    cvat,
    labelme,
    listed,
    own,
    pairs_folder,
    pets_folder,
    synthetic,
    voc,
    yolo,
)
from trainer.data.kinds import tfds as tfds_source
from trainer.data.lists import check_utf8, found_in, shown
from trainer.data.source import Reading, Source, Split
from trainer.data.unknown import hint

__all__ = ["Source", "Split", "open_source"]

_AS_BY_DEFAULT = Reading()


class _Asked(NamedTuple):
    """What the settings and a data file say of the data, beside where it lies."""

    reading: Reading
    table: ClassTable | None = None
    wishes: Wishes = NO_WISHES
    data_dir: Path | None = None


def open_source(data: str, data_dir: Path | None, reading: Reading = _AS_BY_DEFAULT) -> Source:
    """Opens what the setting ``data`` names.

    Args:
        data: the setting of that name.
        data_dir: where TensorFlow Datasets lie and are built; None is their own default.
        reading: how files are read.

    Raises:
        BadSettings: ``data`` names no kind of data, or a setting is not for this kind.
        BadData: there is no usable data.
    """
    try:
        return _open(data, data_dir, _Asked(reading))
    except OSError as error:
        place = one_line(shown(error.filename or ""), 300)
        mend = "; let this user read it (chmod a+rX)" if isinstance(error, PermissionError) else ""
        raise BadData(f"--data {data}: {place} can't be read: {error.strerror}{mend}") from error


def _open(data: str, data_dir: Path | None, asked: _Asked) -> Source:
    kind, _, rest = data.partition(":")
    if kind in ("synthetic", "oxford_iiit_pet", "tfds"):
        _check_plain(asked.reading, data, kind)
    if data == "synthetic":
        return synthetic.open_synthetic()
    if (place := packed_place(data)) is not None:
        _check_plain(asked.reading, data, "packed")
        existing_data(data)
        from trainer.data.packed.opening import open_packed  # with clients of buckets, which take megabytes

        return open_packed(place, asked.reading)
    folder = data_dir and absolute_path(data_dir, "--data-dir")
    if (function := own_data(data)) is not None:
        _check_plain(asked.reading, data, kind)
        return own.open_own(function, folder)
    if kind == "oxford_iiit_pet":
        return tfds_source.open_tfds(rest or None, folder)
    if kind == "tfds" and rest:
        return tfds_source.open_any(rest, folder, asked.reading.max_pixels)
    path = existing_data(data)
    assert path is not None  # of all other kinds
    check_utf8(path)
    path = path.resolve()
    prefix, _ = data_path(data) or ("", "")
    return _open_kind(prefix.rstrip(":") or _kind_of(path, data), path, data, asked._replace(data_dir=folder))


def _open_kind(kind: str, path: Path, data: str, asked: _Asked) -> Source:
    if kind not in ("folder", "file"):
        _check_of_masks(asked.reading, data, kind)
    if kind == "file":
        return _open_file(_data_file(path) if path.is_dir() else path, asked)
    if kind == "yolo" and path.is_dir() and not _data_files(path):
        return yolo.open_yolo_folder(path, asked.reading, asked.wishes)
    if kind == "yolo":
        return _open_file(_data_file(path) if path.is_dir() else path, asked, kind)
    if kind == "folder":
        if pets_folder.is_pets(path):
            _check_of_masks(asked.reading, data, "Oxford-IIIT Pet")
            if asked.table is not None:
                raise BadData(f"{data}: names: Oxford-IIIT Pet has classes of its own; remove names, or the trimaps")
            return pets_folder.open_pets(path, asked.reading)
        return pairs_folder.open_pairs(path, asked.reading, asked.table)
    if kind == "voc":
        return voc.open_voc(path, asked.reading, asked.table)
    if kind in ("cityscapes", "ade20k"):
        of_streets_or_scenes = cityscapes.open_cityscapes if kind == "cityscapes" else ade20k.open_ade20k
        return of_streets_or_scenes(path, asked.reading, asked.table)
    of_shapes: Mapping[str, Callable[[Path, Reading, Wishes], Source]] = {
        "coco": coco.open_coco,
        "labelme": labelme.open_labelme,
        "cvat": cvat.open_cvat,
    }
    return of_shapes[kind](path, asked.reading, asked.wishes)


def _check_of_masks(reading: Reading, data: str, kind: str) -> None:
    """Raises BadSettings for a setting that is for pictures with masks in folders alone."""
    for flag, value in (("--mask-pattern", reading.mask_pattern), ("--mask-threshold", reading.mask_threshold)):
        if value is not None:
            raise BadSettings(
                f"{flag}: is for a folder of images and masks, found --data {data}"
                + (f", which is {kind}" if kind not in data else "")
            )


def _check_plain(reading: Reading, data: str, kind: str) -> None:
    """Raises BadSettings for a setting that is for folders of pictures alone, with or without masks in files."""
    _check_of_masks(reading, data, kind)
    if reading.bands != 3:
        raise BadSettings(f"--data {data}: has three bands, expected {reading.bands}, as --bands or the network says")


def _open_file(file: Path, asked: _Asked, kind: str | None = None) -> Source:
    """Opens what a data file says."""
    says = DataFile.read(file)
    if says.format == "tfds":
        _check_plain(says.reading(asked.reading), f"file:{file}", "tfds")
        return tfds_source.open_any(says.path, asked.data_dir, asked.reading.max_pixels, says.table(file))
    root = says.root(file)
    reading = says.reading(asked.reading)
    places = {"train": says.train, "val": says.val, "test": says.test, "images": says.images}
    kind = says.format or kind or _listed_kind(says, places, root, file)
    if kind == "yolo" and not any(places.values()):
        places["images"] = "images"
    if kind not in DATA_KINDS or kind == "file":
        raise BadData(f"{file}: format: expected {', '.join(DATA_KINDS[:-1])}, found {kind!r}")
    if kind != "folder":
        _check_of_masks(asked.reading, f"file:{file}", kind)
    of_masks = kind in ("folder", "voc", "cityscapes", "ade20k")
    for key in ("uncovered",) if of_masks else ("masks", "mask_pattern", "mask_threshold"):
        if key in says.model_fields_set:
            raise BadData(f"{file}: {key}: is for data with {'shapes' if of_masks else 'masks'}, and this is {kind}")
    if not any(places.values()):
        said = asked._replace(
            reading=reading,
            table=says.table(file) if of_masks else None,
            wishes=NO_WISHES if of_masks else says.wishes(file),
        )
        return _open_kind(kind, root, f"file:{file}", said)
    if kind == "coco":
        splits = {"train": "train", "val": "validation", "test": "test", "images": ""}
        named = {splits[key]: place for key, place in places.items() if place is not None}
        files = {
            split: [listed.path_of(each, root) for each in ([place] if isinstance(place, str) else place)]
            for split, place in named.items()
        }
        return coco.open_coco(root, asked.reading, says.wishes(file), files)
    parts = listed.pictures_of(places, root, file)
    if kind == "yolo":
        if not says.categories:
            raise BadData(f"{file}: expected names, the classes by the number that a line begins with, found none")
        return yolo.open_yolo(root, parts, says.categories, asked.reading, says.wishes(file, by_number=True))
    if kind != "folder":
        raise BadData(f"{file}: format {kind}: expected its folder as path alone, found splits too; remove them")
    return listed.open_listed(root, parts, says.masks or "masks", says.table(file), reading)


def _listed_kind(says: DataFile, places: Mapping[str, listed.Places], root: Path, file: Path) -> str:
    """What kind of data a data file lists, or its folder holds."""
    given = [place for place in places.values() if place is not None]
    if not given and says.names and all((root / part).is_dir() for part in ("images", "labels")):
        return "folder" if (root / "masks").is_dir() else "yolo"
    if not given:
        return _kind_of(root, f"file:{file}", but=("file",))
    first = given[0] if isinstance(given[0], str) else given[0][0]
    if first.lower().endswith(".json"):
        return "coco"
    if says.masks is not None or says.mask_pattern is not None:
        return "folder"
    pictures = next(iter(listed.pictures_of(places, root, file).values()))
    return "yolo" if any(map(Path.is_file, map(yolo.label_file, pictures))) else "folder"


def _check_is_folder(path: Path, data: str) -> None:
    """Raises BadData for a pipe or device."""
    if not path.is_dir():
        raise BadData(f"--data {data}: expected a folder or a file, found a pipe or device")


def _data_file(folder: Path) -> Path:
    """The data file in a folder, or the folder if there is none."""
    files = _data_files(folder)
    if len(files) > 1:
        raise BadData(f"{folder}: expected one data file, found {files[0].name} and {files[1].name}; name one")
    if not files:
        raise BadData(f"{folder}: expected a data file such as data.yaml, found {found_in(folder)}")
    return files[0]


def _data_files(folder: Path) -> list[Path]:
    return sorted(filter(is_data_file, folder.iterdir()))


def _kind_of(path: Path, data: str, but: tuple[str, ...] = ()) -> str:
    """The kind of data that a folder or a file is.

    Raises:
        BadData: it is none, or may be several.
    """
    if path.is_file():
        kinds = {".json": "coco", ".xml": "cvat", **dict.fromkeys(SUFFIXES, "file")}
        if path.suffix.lower() not in kinds:
            raise BadData(
                f"--data {data}: expected a folder, a data file (.yaml), COCO's .json or CVAT's .xml, found {path.name}"
                + ("; unpack it first" if path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz") else "")
            )
        return kinds[path.suffix.lower()]
    _check_is_folder(path, data)
    if "file" not in but and _data_files(path):
        return "file"
    found = _kinds_of(path, but)
    if len(found) > 1:
        listed_kinds = " or ".join(f"--data {kind}:{path}" for kind in found)
        raise BadData(f"--data {data}: may be of several kinds; say which: {listed_kinds}")
    if not found:
        raise BadData(
            f"--data {data}: expected images and masks, a data file (data.yaml), or the folders of VOC, COCO, labelme, "
            f"CVAT, Cityscapes or ADE20K, found {found_in(path)}; {hint(path, _one_kind)}"
        )
    return found[0]


def _one_kind(folder: Path) -> str | None:
    """The kind of data that a folder below another one is."""
    if _data_files(folder):
        return "file"
    return next(iter(_kinds_of(folder)), None)


def _kinds_of(path: Path, but: tuple[str, ...] = ()) -> list[str]:
    signs: Mapping[str, Callable[[Path], bool]] = {
        "folder": lambda folder: pets_folder.is_pets(folder) or pairs_folder.is_pairs(folder),
        "voc": voc.is_voc,
        "cityscapes": cityscapes.is_cityscapes,
        "ade20k": ade20k.is_ade20k,
        "coco": coco.is_coco,
        "yolo": yolo.is_yolo,
        "labelme": labelme.is_labelme,
        "cvat": cvat.is_cvat,
    }
    return [kind for kind, is_one in signs.items() if kind not in but and is_one(path)]
