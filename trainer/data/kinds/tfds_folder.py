"""The folder of a data set of TensorFlow Datasets: found, held against its own notes, and built where it is missing."""

from __future__ import annotations

import contextlib
import fnmatch
import glob
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maskfleet.errors import BadData, BadSettings, MaskfleetError
from maskfleet.files import read_plain
from maskfleet.text import one_line
from trainer.cache_folder import locked

PETS = "oxford_iiit_pet"
MEND = "delete {} to have it built again"
_FRAMING = 16
"""Bytes that a TFRecord file has beside each record: its length and two checksums."""
_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
"""Of the files' names, where a data set has none of its own."""
_MOST_BYTES = 64 << 20
"""Of what TFDS notes about a data set."""


def whole_folder(root: Path, patterns: tuple[str, ...], name: str) -> tuple[Path, list[str]]:
    """The newest version's folder, built if it is not there or was cut, and what is to be said of that.

    Raises:
        BadSettings: there is no such version, and none can be built.
        BadData: it can't be built; what was there stays.
    """
    folder = _newest(root, patterns, name)
    problem = _cut(folder) if folder else None
    if folder and problem is None:
        return folder, []
    made = [each for each in (root, *root.parents) if not each.exists()]
    try:
        built = _build(root, (folder.name,) if folder else patterns, name)
    except BaseException as error:
        if made:
            _lock_file(root, name).unlink(missing_ok=True)
        for each in made:
            with contextlib.suppress(OSError):  # complete downloads stay
                each.rmdir()
        if problem and isinstance(error, MaskfleetError):
            raise BadData(f"{folder}: {problem}; {error}") from error
        raise
    return built, [f"{folder}: {problem}, so it was built again"] if problem else []


def said(error: BaseException) -> str:
    """What an error of TFDS says, in a line."""
    return one_line(str(error), 200) or type(error).__name__


def _newest(root: Path, patterns: tuple[str, ...], name: str) -> Path | None:
    versions = {
        tuple(map(int, entry.name.split("."))): entry
        for entry in root.glob(f"{name}/*")
        if re.fullmatch(r"\d+\.\d+\.\d+", entry.name)
        and any(fnmatch.fnmatch(entry.name, pattern) for pattern in patterns)
        and (entry / "dataset_info.json").is_file()
    }
    return versions[max(versions)] if versions else None


def _cut(folder: Path) -> str | None:
    """Which of the files has less than its records take, in words; None if none has, or nothing is known of that."""
    try:
        noted = json.loads(read_plain(folder / "dataset_info.json", _MOST_BYTES))
        if noted.get("fileFormat", "tfrecord") != "tfrecord":
            return None
        for split in noted["splits"]:
            if split.get("filepathTemplate", _TEMPLATE) != _TEMPLATE:
                continue
            least = int(split["numBytes"]) + _FRAMING * sum(map(int, split["shardLengths"]))
            files = list(folder.glob(f"*-{glob.escape(split['name'])}.tfrecord-*"))
            size = sum(file.stat().st_size for file in files)
            if files and size < least:
                return f"the files of {one_line(split['name'], 60)} have {size} bytes, expected {least}"
            if len(files) < len(split["shardLengths"]):
                missing = f"{len(split['shardLengths'])} files of {one_line(split['name'], 60)}"
                return f"expected {missing}, found {len(files)}"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None  # TFDS says what is wrong with it
    return None


@contextlib.contextmanager
def _set_aside(folder: Path | None) -> Iterator[None]:
    """Another takes the place of ``folder`` in the block; without one it comes back."""
    if folder is None:
        yield
        return
    aside = folder.with_name(f".{folder.name}.damaged")
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)
    try:
        yield
    finally:
        if folder.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(folder)


def _lock_file(root: Path, name: str) -> Path:
    return root / f".{name.replace('/', '-')}.lock"


def _build(root: Path, patterns: tuple[str, ...], name: str) -> Path:
    """Has TFDS download and write its version, with its own progress bars."""
    asked = name if name == PETS else f"tfds:{name}"
    folder = name.partition("/")[0]
    import tensorflow_datasets as tfds

    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(_lock_file(root, name)):
            found = _newest(root, patterns, name)
            if found is not None and _cut(found) is None:  # another process has been faster
                return found
            builder = tfds.builder(name, data_dir=root)
            if not any(fnmatch.fnmatch(str(builder.version), pattern) for pattern in patterns):
                raise BadSettings(
                    f"--data {asked}:{patterns[0]}: there is no such version in {root}, and the installed TensorFlow "
                    f"Datasets builds {builder.version} only; ask for {asked}"
                )
            if name == PETS:
                _probe(builder, root)
            try:
                with _set_aside(found):
                    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
            finally:  # TFDS keeps the parts of what it could not finish; complete downloads stay
                for part in (*root.glob(f"downloads/{folder}/*.tmp.*"), *root.glob(f"{folder}/**/incomplete.*")):
                    shutil.rmtree(part, ignore_errors=True)
            return Path(builder.data_path)
    except BadSettings:
        raise
    except Exception as error:  # whatever the network, the disk or an archive may do within TFDS
        if isinstance(error, tfds.core.DatasetNotFoundError):
            raise BadSettings(
                f"--data {asked}: there is no such data set in {root}, and none in TensorFlow Datasets"
            ) from error
        if name != PETS:
            raise BadData(
                f"{name} is not in {root} and can't be downloaded and built ({said(error)}): connect to the network, "
                "or name the folder that has it with --data-dir"
            ) from error
        raise BadData(
            f"{PETS} is not in {root} and can't be downloaded and built ({said(error)}): connect to the network, "
            "name the folder that has it with --data-dir, or unpack its images.tar.gz and annotations.tar.gz into "
            "a folder PETS and use --data folder:PETS"
        ) from error


def _probe(builder: Any, root: Path) -> None:
    """Asks for one archive unless they lie there: without a network, TFDS itself tries for three minutes."""
    import requests  # which TFDS downloads with

    urls = list(builder.url_infos or ())
    if len(list(root.glob(f"downloads/{PETS}/*.tar.gz"))) < len(urls):
        requests.head(urls[0], timeout=15)
