"""From the setting ``data`` to a :class:`Source`. Imports no TensorFlow."""

from __future__ import annotations

from pathlib import Path

from maskfleet.errors import BadData, BadSettings
from trainer.data.kinds import pairs_folder, pets_folder, synthetic, voc
from trainer.data.kinds import tfds as tfds_source
from trainer.data.source import Source, Split

__all__ = ["Source", "Split", "open_source"]


def open_source(data: str, data_dir: Path | None) -> Source:
    """Opens ``oxford_iiit_pet[:VERSION]``, ``folder:PATH``, ``voc:PATH`` or ``synthetic``.

    Args:
        data: the setting of that name.
        data_dir: where TensorFlow Datasets lie and are built; None is their own default.

    Raises:
        BadSettings: ``data`` names no kind of data.
        BadData: there is no usable data.
    """
    try:
        return _open(data, data_dir)
    except OSError as error:
        raise BadData(f"--data {data}: {error.filename} can't be read: {error.strerror}") from error


def _open(data: str, data_dir: Path | None) -> Source:
    kind, _, rest = data.partition(":")
    if data == "synthetic":
        return synthetic.open_synthetic()
    if kind == "folder" and rest:
        path = _folder(data, rest)
        return pets_folder.open_pets(path) if pets_folder.is_pets(path) else pairs_folder.open_pairs(path)
    if kind == "voc" and rest:
        return voc.open_voc(_folder(data, rest))
    if kind == "oxford_iiit_pet":
        return tfds_source.open_tfds(rest or None, data_dir)
    raise BadSettings(f"--data: expected oxford_iiit_pet[:VERSION], folder:PATH, voc:PATH or synthetic, found {data!r}")


def _folder(data: str, path: str) -> Path:
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise BadData(
            f"--data {data}: expected a folder, found {'a file' if folder.exists() else 'nothing'} at {folder}"
        )
    return folder.resolve()
