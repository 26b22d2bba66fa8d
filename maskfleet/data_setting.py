"""What the setting ``data`` may say, told before anything that is slow is imported."""

from __future__ import annotations

import difflib
from pathlib import Path

from maskfleet.config import absolute_path
from maskfleet.errors import BadData, BadSettings


def check_kind(data: str) -> None:
    """Raises BadSettings if ``data`` names no kind of data."""
    kind, _, rest = data.partition(":")
    if not (data == "synthetic" or kind == "oxford_iiit_pet" or (kind in ("folder", "voc") and rest)):
        raise BadSettings(
            f"--data: expected oxford_iiit_pet[:VERSION], folder:PATH, voc:PATH or synthetic, found {data!r}"
            + _meant(data)
        )


def _meant(data: str) -> str:
    """What somebody may have meant who did not name a kind of data."""
    if "://" in data:
        return "; bring it here first by 'launcher pull', or train on a cluster with 'launcher submit --data'"
    kind, separator, _ = data.lower().partition(":")
    if not separator and absolute_path(data, "--data").is_dir():
        return f"; did you mean folder:{data}?"
    near = difflib.get_close_matches(kind, ("oxford_iiit_pet", "folder", "voc", "synthetic"), n=1)
    place = {"folder": ":PATH", "voc": ":PATH"}
    return f"; did you mean {near[0]}{place.get(near[0], '')}?" if near and near[0] != data.rstrip(":") else ""


def data_folder(data: str) -> Path | None:
    """The folder that ``data`` names; None for a kind of data without one. Reads nothing of it.

    Raises:
        BadSettings: it names no kind of data.
        BadData: there is no such folder.
    """
    check_kind(data)
    kind, _, rest = data.partition(":")
    if kind not in ("folder", "voc"):
        return None
    folder = absolute_path(rest, f"--data {kind}:")
    try:
        is_there = folder.exists()
    except OSError as error:  # a folder above it can't be searched, or a name is too long
        raise BadData(f"--data {data}: {folder} can't be read: {error.strerror}") from error
    if not folder.is_dir():
        raise BadData(f"--data {data}: expected a folder, found {'a file' if is_there else 'nothing'} at {folder}")
    return folder
