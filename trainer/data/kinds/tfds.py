"""``oxford_iiit_pet`` of TensorFlow Datasets. TensorFlow is imported only when records are read or built."""

from __future__ import annotations

import fnmatch
import io
import os
import re
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

from maskfleet.config import absolute_path
from maskfleet.errors import BadData, BadSettings
from maskfleet.tfrecords import record_places
from trainer.cache_folder import locked
from trainer.data.images import read_labels, read_picture
from trainer.data.kinds.pets_folder import BACKGROUND, CLASSES, COLOURS, trimap_to_mask
from trainer.data.orientation import pair
from trainer.data.source import Example, Reading, Source, Split, files_key

_NAME = "oxford_iiit_pet"
_VERSIONS = ("3.*", "4.*")
_MEND = "delete {} to have it built again"
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
    root = data_dir or absolute_path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets"), "TFDS_DATA_DIR")
    patterns = (version,) if version else _VERSIONS
    folder = _newest(root, patterns) or _build(root, patterns)
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder_from_directory(folder)
        splits = [_Records(builder, name) for name in ("train", "test")]
    except Exception as error:  # TFDS raises what its parsers raise
        raise BadData(
            f"{folder}: can't be read as a TensorFlow data set ({_line(error)}); {_MEND.format(folder)}"
        ) from error
    train, test = (Split(records.names, records.read) for records in splits)
    key = files_key(file for records in splits for file in records.files)
    return Source(_NAME, CLASSES, COLOURS, BACKGROUND, train, test, key)


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
                raise BadData(f"{file}: {error} ({len(places) - before}); {_MEND.format(file.parent)}") from error
            if len(places) - before != expected:
                raise BadData(
                    f"{file}: expected {expected} records, found {len(places) - before}; {_MEND.format(file.parent)}"
                )
        return places

    def read(self, i: int) -> Example:
        from tensorflow.core.example import example_pb2

        file, offset, length = self._places[i]
        try:
            with file.open("rb") as content:
                content.seek(offset)
                features = example_pb2.Example.FromString(content.read(length)).features.feature
            image_bytes, mask_bytes, name = (
                features[key].bytes_list.value[0] for key in ("image", "segmentation_mask", "file_name")
            )
        except Exception as error:  # the disk's and protobuf's
            raise BadData(f"{self.names[i]}: can't be read ({_line(error)}); {_MEND.format(file.parent)}") from error
        where = f"{self.names[i]} ({name.decode()})"
        picture = read_picture(io.BytesIO(image_bytes), where)
        mask = trimap_to_mask(read_labels(io.BytesIO(mask_bytes), where).labels, where)
        return pair(picture, mask, _READING, "of the record", where)


def _newest(root: Path, patterns: tuple[str, ...]) -> Path | None:
    versions = {
        tuple(map(int, entry.name.split("."))): entry
        for entry in root.glob(f"{_NAME}/*")
        if re.fullmatch(r"\d+\.\d+\.\d+", entry.name)
        and any(fnmatch.fnmatch(entry.name, pattern) for pattern in patterns)
        and (entry / "dataset_info.json").is_file()
    }
    return versions[max(versions)] if versions else None


def _build(root: Path, patterns: tuple[str, ...]) -> Path:
    """Has TFDS download and write its version, with its own progress bars."""
    import tensorflow_datasets as tfds

    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / f".{_NAME}.lock"):
            if found := _newest(root, patterns):
                return found
            builder = tfds.builder(_NAME, data_dir=root)
            if not any(fnmatch.fnmatch(str(builder.version), pattern) for pattern in patterns):
                raise BadSettings(
                    f"--data {_NAME}:{patterns[0]}: there is no such version in {root}, and the installed TensorFlow "
                    f"Datasets builds {builder.version} only; ask for {_NAME}"
                )
            _probe(builder, root)
            try:
                builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
            finally:  # TFDS keeps the parts of what it could not finish; complete downloads stay
                for part in (*root.glob(f"downloads/{_NAME}/*.tmp.*"), *root.glob(f"{_NAME}/incomplete.*")):
                    shutil.rmtree(part, ignore_errors=True)
            return Path(builder.data_path)
    except BadSettings:
        raise
    except Exception as error:  # whatever the network, the disk or an archive may do within TFDS
        raise BadData(
            f"{_NAME} is not in {root} and can't be downloaded and built ({_line(error)}): connect to the network, "
            "name the folder that has it with --data-dir, or unpack its images.tar.gz and annotations.tar.gz into "
            "a folder PETS and use --data folder:PETS"
        ) from error


def _probe(builder: Any, root: Path) -> None:
    """Asks for one archive unless they lie there: without a network, TFDS itself tries for three minutes."""
    import requests  # which TFDS downloads with

    urls = list(builder.url_infos or ())
    if len(list(root.glob(f"downloads/{_NAME}/*.tar.gz"))) < len(urls):
        requests.head(urls[0], timeout=15)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "…"
