"""From the setting ``data`` to a :class:`Source`. Imports no TensorFlow."""

from __future__ import annotations

from pathlib import Path

from maskfleet.config import absolute_path
from maskfleet.data_setting import data_folder
from maskfleet.errors import BadData
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
    if (folder := data_folder(data)) is not None:
        check_utf8(folder)
        path = folder.resolve()
        if kind == "voc":
            return voc.open_voc(path, reading)
        kind_of_folder = pets_folder.open_pets if pets_folder.is_pets(path) else pairs_folder.open_pairs
        return kind_of_folder(path, reading)
    return tfds_source.open_tfds(rest or None, data_dir and absolute_path(data_dir, "--data-dir"))
