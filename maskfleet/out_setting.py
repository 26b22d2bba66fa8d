"""What the flag ``--out`` names, told in one line where it can't be written."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from maskfleet.errors import BadSettings
from maskfleet.files import check_writable


@contextlib.contextmanager
def writing(out: Path) -> Iterator[None]:
    """Raises BadSettings for what the disk refuses inside."""
    try:
        yield
    except OSError as error:
        raise BadSettings(f"--out {out}: can't be written: {error.strerror or error}") from error


def check_out(out: Path, *, folder: bool = False) -> None:
    """Raises BadSettings if a file or folder could not be written, before everything is computed for it."""
    with writing(out):
        check_writable(out, folder=folder)
