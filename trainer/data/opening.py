"""From the setting ``data`` to a :class:`Source`. Imports no TensorFlow."""

from __future__ import annotations

import difflib
from pathlib import Path

from maskfleet.config import absolute_path
from maskfleet.errors import BadData, BadSettings
from trainer.data.kinds import pairs_folder, pets_folder, synthetic, voc
from trainer.data.kinds import tfds as tfds_source
from trainer.data.lists import check_utf8
from trainer.data.source import Reading, Source, Split

__all__ = ["Source", "Split", "open_source"]

_AS_BY_DEFAULT = Reading()


def open_source(data: str, data_dir: Path | None, reading: Reading = _AS_BY_DEFAULT) -> Source:
    """Opens ``oxford_iiit_pet[:VERSION]``, ``folder:PATH``, ``voc:PATH`` or ``synthetic``.

    Args:
        data: the setting of that name.
        data_dir: where TensorFlow Datasets lie and are built; None is their own default.
        reading: how files are read.

    Raises:
        BadSettings: ``data`` names no kind of data.
        BadData: there is no usable data.
    """
    try:
        return _open(data, data_dir, reading)
    except OSError as error:
        mend = "; let this user read it (chmod a+rX)" if isinstance(error, PermissionError) else ""
        raise BadData(f"--data {data}: {error.filename} can't be read: {error.strerror}{mend}") from error


def _open(data: str, data_dir: Path | None, reading: Reading) -> Source:
    kind, _, rest = data.partition(":")
    if data == "synthetic":
        return synthetic.open_synthetic()
    if kind == "folder" and rest:
        path = _folder(data, rest)
        kind_of_folder = pets_folder.open_pets if pets_folder.is_pets(path) else pairs_folder.open_pairs
        return kind_of_folder(path, reading)
    if kind == "voc" and rest:
        return voc.open_voc(_folder(data, rest), reading)
    if kind == "oxford_iiit_pet":
        return tfds_source.open_tfds(rest or None, data_dir and absolute_path(data_dir, "--data-dir"))
    raise BadSettings(
        f"--data: expected oxford_iiit_pet[:VERSION], folder:PATH, voc:PATH or synthetic, found {data!r}{_meant(data)}"
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


def _folder(data: str, path: str) -> Path:
    folder = absolute_path(path, f"--data {data.partition(':')[0]}:")
    check_utf8(folder)
    if not folder.is_dir():
        raise BadData(
            f"--data {data}: expected a folder, found {'a file' if folder.exists() else 'nothing'} at {folder}"
        )
    return folder.resolve()
