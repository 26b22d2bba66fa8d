"""``--encoder-weights FILE``: whether there is such a file."""

from __future__ import annotations

from pathlib import Path

from maskfleet.config import absolute_path
from maskfleet.errors import BadSettings


def weights_file(source: str) -> Path:
    """The file that ``source`` names, which is none of :data:`~maskfleet.config.NO_WEIGHTS_FILE`.

    Raises:
        BadSettings: there is none.
    """
    path = absolute_path(source, "--encoder-weights")
    if not path.is_file():
        found = "a folder" if path.is_dir() else "a pipe or device" if path.exists() else "no such file"
        raise BadSettings(
            f"--encoder-weights {source}: expected 'imagenet', 'none' or a file of Keras weights, found {found}"
        )
    return path
