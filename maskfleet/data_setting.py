"""What the setting ``data`` may say, told before anything that is slow is imported."""

from __future__ import annotations

import difflib
from pathlib import Path

from maskfleet.config import absolute_path
from maskfleet.data_places import (
    BUCKET_NAME,
    DATA_KINDS,
    FETCHING,
    data_path,
    is_bucket,
    is_remote,
    own_data,
    packed_place,
)
from maskfleet.errors import BadData, BadSettings

_FILES = ("coco", "cvat", "yolo", "file")
"""Kinds of data that one file may name."""


def check_kind(data: str) -> None:
    """Raises BadSettings if ``data`` names no kind of data."""
    kind, _, rest = data.partition(":")
    if (packed := packed_place(data)) is not None:
        if "://" in packed and not is_remote(packed):
            raise BadSettings(f"--data {data}: expected packed:gs://…, packed:s3://… or packed:FOLDER")
        if is_remote(packed) and not is_bucket(packed[5:].partition("/")[0]):
            raise BadSettings(f"--data {data}: expected {packed[:5]}BUCKET/PREFIX, {BUCKET_NAME}")
        return
    if not (
        data == "synthetic"
        or own_data(data)
        or kind == "oxford_iiit_pet"
        or (kind == "tfds" and rest)
        or data_path(data)
    ):
        raise BadSettings(
            f"--data: expected a PATH, KIND:PATH ({', '.join(DATA_KINDS)}), oxford_iiit_pet[:VERSION], tfds:NAME, "
            f"packed:PLACE, python:MODULE:FUNCTION or synthetic, found {data!r}{_meant(data)}"
        )


def _meant(data: str) -> str:
    """What somebody may have meant who did not name a kind of data."""
    if "://" in data:
        return "; bring it here first by 'launcher pull', or train on a cluster with 'launcher submit --data'"
    kind, _, _ = data.lower().partition(":")
    near = difflib.get_close_matches(kind, ("oxford_iiit_pet", "tfds", "synthetic", *DATA_KINDS), n=1)
    if not near or near[0] == data.rstrip(":"):
        return f"; there is no {absolute_path(data, '--data')}" if data and ":" not in data else ""
    return f"; did you mean {near[0]}{':PATH' if near[0] in DATA_KINDS else ''}?"


def existing_data(data: str) -> Path | None:
    """The folder or file that ``data`` names; None for a kind of data without one. Reads nothing of it.

    Raises:
        BadSettings: it names no kind of data.
        BadData: there is no such folder or file, or not all of it was fetched.
    """
    check_kind(data)
    if (found := data_path(data)) is None:
        return None
    prefix, place = found
    path = absolute_path(place, f"--data {prefix}".rstrip())
    try:
        is_there = path.exists()
    except OSError as error:  # a folder above it can't be searched, or a name is too long
        raise BadData(f"--data {data}: {path} can't be read: {error.strerror}") from error
    may_be_file = prefix.rstrip(":") in ("", *_FILES)
    if not (path.is_dir() or (may_be_file and is_there)):
        expected = "a folder or a file" if may_be_file else "a folder"
        raise BadData(f"--data {data}: expected {expected}, found {'a file' if is_there else 'nothing'} at {path}")
    _check_fetched(data, path)
    return path


def _check_fetched(data: str, path: Path) -> None:
    """Raises BadData if ``launcher pull`` into the folder, or one above, was interrupted."""
    for folder in (path, *path.parents):
        try:
            fetched = (folder / FETCHING).is_file()
        except OSError:  # may not be looked into
            continue
        if fetched:
            raise BadData(
                f"--data {data}: only a part of {folder} was fetched, as 'launcher pull' was interrupted: run it again"
                f", or delete {folder / FETCHING} to use what is there"
            )
