"""Photographs in HEIC, as phones make them: read by pillow-heif, where that is installed. Imports no TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import PIL.Image
import PIL.ImageFile

from maskfleet.errors import BadData

HEIC = frozenset({".heic", ".heif"})
_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})
"""What stands behind ``ftyp`` in the head of such a file, by ISO/IEC 23008-12."""


def open_picture(file: Path | IO[bytes], name: str) -> PIL.ImageFile.ImageFile:
    """As Pillow opens it, which is taught this format by the first file of it.

    Raises:
        BadData: it is HEIC, and pillow-heif is not installed.
        OSError: the file can't be read, or is no picture (UnidentifiedImageError).
    """
    try:
        return PIL.Image.open(file)
    except PIL.UnidentifiedImageError:
        if not _is_heic(file):
            raise
    try:
        import pillow_heif
    except ImportError as error:
        raise BadData(
            f"{name}: is HEIC, which pillow-heif reads: pip install 'maskfleet[heic]', or save it as JPEG"
        ) from error
    pillow_heif.register_heif_opener()
    return PIL.Image.open(file)


def _is_heic(file: Path | IO[bytes]) -> bool:
    if isinstance(file, Path):
        with file.open("rb") as content:
            head = content.read(12)
    else:
        file.seek(0)
        head = file.read(12)
    return head[4:8] == b"ftyp" and head[8:12] in _BRANDS
