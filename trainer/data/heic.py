"""Photographs in HEIC, as phones make them: read by pillow-heif, where that is installed. Imports no TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from maskfleet.errors import BadData

HEIC = frozenset({".heic", ".heif"})
_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
"""What stands behind ``ftyp`` in the head of such a file, by ISO/IEC 23008-12."""


def prepare_heic(file: Path | IO[bytes], name: str) -> None:
    """Teaches Pillow this format, if the file is of it.

    Raises:
        BadData: pillow-heif is not installed.
        OSError: the file can't be read.
    """
    if not _is_heic(file):
        return
    try:
        import pillow_heif
    except ImportError as error:
        raise BadData(
            f"{name}: is HEIC, which pillow-heif reads: pip install 'maskfleet[heic]', or save it as JPEG"
        ) from error
    pillow_heif.register_heif_opener()


def _is_heic(file: Path | IO[bytes]) -> bool:
    if isinstance(file, Path):
        if not file.is_file():
            return False
        with file.open("rb") as content:
            head = content.read(12)
    else:
        head = file.read(12)
        file.seek(0)
    return head[4:8] == b"ftyp" and head[8:12] in _BRANDS
