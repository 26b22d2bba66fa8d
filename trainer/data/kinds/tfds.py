"""TensorFlow Datasets: ``oxford_iiit_pet``, and any with a picture and a mask. TensorFlow is imported only when records
are read or built.
"""

from __future__ import annotations

import io
import re
from collections.abc import Collection
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from maskfleet.errors import BadData, BadSettings
from maskfleet.tfds_names import data_root
from maskfleet.tfrecords import record_places
from trainer.data.class_rows import Row
from trainer.data.class_table import ClassTable
from trainer.data.examples import UNDIVIDED, Named, split_named, splits_of
from trainer.data.images import check_label_sets, labels_in, read_labels, read_picture
from trainer.data.kinds.pets_folder import BACKGROUND, CLASSES, COLOURS, trimap_to_mask
from trainer.data.kinds.tfds_folder import MEND, PETS, said, whole_folder
from trainer.data.orientation import pair
from trainer.data.remembered import remembered
from trainer.data.source import IGNORED, Example, Reading, Source, Split, files_key

_VERSIONS = ("3.*", "4.*")
_READING = Reading(masks_drawn_on="stored")
"""TFDS's own decoders know no EXIF, and neither did who drew on what they gave."""


def open_tfds(version: str | None, data_dir: Path | None) -> Source:
    """Opens the newest version that lies in ``data_dir``; if there is none, the installed TFDS builds its own.

    Args:
        version: a pattern such as ``4.*`` or ``3.2.0``; None is any of 3.* and 4.*.
        data_dir: by default ``$TFDS_DATA_DIR`` or ``~/tensorflow_datasets``.

    Raises:
        BadSettings: a version that neither lies there nor can be built.
        BadData: the data can't be downloaded or read.
    """
    patterns = (version,) if version else _VERSIONS
    folder, notes = whole_folder(data_root(data_dir), patterns, PETS)
    splits = [records for _, records in sorted(_read_builder(folder, ("train", "test"))[1].items(), reverse=True)]

    def split(records: _Records) -> Split:
        return Split(
            records.names, lambda i: _pets_example(*records.read(i, ("image", "segmentation_mask", "file_name")))
        )

    train, test = map(split, splits)
    key = files_key(file for records in splits for file in records.files)
    return Source(PETS, CLASSES, COLOURS, BACKGROUND, train, test, key, notes=tuple(notes))


def open_any(place: str, data_dir: Path | None, max_pixels: int, table: ClassTable | None = None) -> Source:
    """Opens ``NAME[/CONFIG][:VERSION]``, which has one picture and one mask in each example.

    The newest version that lies in ``data_dir`` is read; if there is none, the installed TFDS builds its own.

    Args:
        data_dir: as :func:`open_tfds`.
        table: of a data file; else classes are those that the data set names, or the labels of its masks.

    Raises:
        BadSettings: there is no such data set.
        BadData: it can't be downloaded or read, or has no picture and mask.
    """
    name, _, version = place.partition(":")
    if not re.fullmatch(r"\w+(/[\w.-]+)?", name):
        raise BadSettings(f"--data tfds:{place}: expected tfds:NAME, tfds:NAME/CONFIG or one of these with :VERSION")
    patterns = (version or "*",)
    folder, notes = whole_folder(data_root(data_dir), patterns, name)
    info, parts = _read_builder(folder)
    image, mask = _image_and_mask(info.features, folder)
    records = {split_named(split): each for split, each in parts.items() if split_named(split)} or parts
    notes += [
        f"{folder}: passed over the split {split}" for split, each in parts.items() if each not in records.values()
    ]
    if len(records) == 1:
        records = {UNDIVIDED: next(iter(records.values()))}
    table = table or _named_classes(info.features[mask]) or _found_classes(records.values(), mask, folder, max_pixels)
    used = table
    examples = {
        split: [
            Named(each.names[i], Path(each.names[i]), partial(_example, each, i, (image, mask), used, max_pixels))
            for i in range(len(each.names))
        ]
        for split, each in records.items()
    }
    splits = splits_of(examples, folder)
    return splits.source(
        name.replace("/", "-"),
        table.names,
        table.colours,
        table.background,
        files_key(file for each in records.values() for file in each.files) + repr((table.names, table.values)),
        notes=notes,
        read_by_label=table.assumes_ignored,
    )


def _read_builder(folder: Path, names: tuple[str, ...] | None = None) -> tuple[Any, dict[str, _Records]]:
    """What TFDS knows of the data set, and the records of its splits."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
        wanted = names or tuple(name for name in builder.info.splits if builder.info.splits[name].num_examples)
        return builder.info, {name: _Records(builder, name) for name in wanted}
    except Exception as error:  # TFDS raises what its parsers raise
        raise BadData(
            f"{folder}: can't be read as a TensorFlow data set ({said(error)}); {MEND.format(folder)}"
        ) from error


def _image_and_mask(features: Any, folder: Path) -> tuple[str, str]:
    """The names of the features that are the picture and its mask: those of three channels, and of one."""
    import tensorflow_datasets as tfds

    pictures = {key: each for key, each in features.items() if isinstance(each, tfds.features.Image)}
    labelled = [key for key, each in pictures.items() if isinstance(each, tfds.features.LabeledImage)]
    images = [key for key, each in pictures.items() if each.shape[-1] in (3, None) and key not in labelled]
    masks = labelled or [key for key, each in pictures.items() if each.shape[-1] == 1]
    masks = [key for key in masks if re.search("segm|mask|label", key)] or masks
    images = [key for key in images if key == "image"] or images
    if len(images) != 1 or len(masks) != 1:
        raise BadData(
            f"{folder}: expected one picture of three channels and one mask of one channel in each example, found "
            f"{', '.join(f'{key} {each.shape}' for key, each in pictures.items()) or 'no picture'}"
        )
    return images[0], masks[0]


def _named_classes(feature: Any) -> ClassTable | None:
    """The classes that a feature of labelled pictures names."""
    names = getattr(feature, "names", None)
    return ClassTable.of([Row(name) for name in names], "its labels") if names else None


def _found_classes(records: Collection[_Records], mask: str, folder: Path, max_pixels: int) -> ClassTable:
    """The labels 0, 1, 2 … that all masks hold together."""

    def look() -> list[list[int]]:
        found = set()
        for each in records:
            for i in range(len(each.names)):
                (content,), where = each.read(i, (mask,))
                found.add(labels_in(read_labels(io.BytesIO(content), where, max_pixels).labels))
        return sorted(map(sorted, found))

    files = [file for each in records for file in each.files]
    found = {frozenset(labels) for labels in remembered(f"labels of {mask}", folder, files, look)}
    check_label_sets(found, folder)
    labels = sorted(frozenset[int]().union(*found) - {IGNORED})
    if len(labels) < 2 or labels != list(range(len(labels))):
        listed = ", ".join(map(str, labels[:8])) + (" …" if len(labels) > 8 else "")
        raise BadData(
            f"{folder}: expected labels 0, 1, 2 … in {mask}, found {listed or 'none'}; name them in a data file "
            "('format: tfds', 'path: NAME', 'names: {7: road}')"
        )
    return ClassTable.of([Row(f"class_{label}") for label in labels], folder)


def _example(records: _Records, i: int, keys: tuple[str, str], table: ClassTable, max_pixels: int) -> Example:
    (image_bytes, mask_bytes), where = records.read(i, keys)
    picture = read_picture(io.BytesIO(image_bytes), where, max_pixels)
    mask = table.mask_of(read_labels(io.BytesIO(mask_bytes), where, max_pixels), where)
    return pair(picture, mask, _READING, "of the record", where)


def _pets_example(content: tuple[bytes, ...], where: str) -> Example:
    image_bytes, mask_bytes, name = content
    where = f"{where} ({name.decode()})"
    picture = read_picture(io.BytesIO(image_bytes), where)
    mask = trimap_to_mask(read_labels(io.BytesIO(mask_bytes), where).labels, where)
    return pair(picture, mask, _READING, "of the record", where)


class _Records:
    """Random access to the TFRecord files of one split."""

    def __init__(self, builder: Any, split: str) -> None:
        info = builder.info.splits[split]
        self.files = [Path(file) for file in info.filepaths]
        for file in self.files:
            if ".tfrecord-" not in file.name:
                raise ValueError(f"expected TFRecord files, found {file.name}")
            file.stat()
        self._lengths = list(info.shard_lengths)
        # TFDS's own name for an example, its tfds_id.
        self.names = tuple(
            f"{file.name}__{i}" for file, length in zip(self.files, self._lengths, strict=True) for i in range(length)
        )

    @cached_property
    def _places(self) -> list[tuple[Path, int, int]]:
        """File, offset and length of each record."""
        places: list[tuple[Path, int, int]] = []
        for file, expected in zip(self.files, self._lengths, strict=True):
            before = len(places)
            try:
                with file.open("rb") as content:
                    for offset, length in record_places(content, file.stat().st_size):
                        places.append((file, offset, length))
            except ValueError as error:
                raise BadData(f"{file}: {error} ({len(places) - before}); {MEND.format(file.parent)}") from error
            if len(places) - before != expected:
                raise BadData(
                    f"{file}: expected {expected} records, found {len(places) - before}; {MEND.format(file.parent)}"
                )
        return places

    def read(self, i: int, keys: tuple[str, ...]) -> tuple[tuple[bytes, ...], str]:
        """The bytes of an example's features, and what to call it in a message."""
        from tensorflow.core.example import example_pb2

        file, offset, length = self._places[i]
        try:
            with file.open("rb") as content:
                content.seek(offset)
                features = example_pb2.Example.FromString(content.read(length)).features.feature
            return tuple(features[key].bytes_list.value[0] for key in keys), self.names[i]
        except Exception as error:  # the disk's and protobuf's
            raise BadData(f"{self.names[i]}: can't be read ({said(error)}); {MEND.format(file.parent)}") from error
