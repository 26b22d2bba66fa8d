"""Which files an export consists of: ``export.json`` beside them says how large each is, and its checksum.

Several files, and a folder among them, can't be replaced at once. So this one is replaced first: whoever holds the
others against it knows an export of which a kill has left a part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from maskfleet.files import FileDigest, read_plain, write_json
from maskfleet.schema import parsed
from maskfleet.text import one_line

EXPORT_FILE = "export.json"
EXPORT_BYTES = 16 << 20
"""What it has at most; a SavedModel has a few files."""
SAVED_MODEL = "saved_model.pb"
"""The file by which a SavedModel's folder is known."""
OTHER_RUNTIMES = (".onnx", ".xml", ".tflite")
"""How the names of files end that neither Keras nor TensorFlow computes."""


def is_exported(place: Path) -> bool:
    """Whether it is an exported network that Keras does not load, as far as its name says."""
    return (place.is_file() and place.suffix in OTHER_RUNTIMES) or (place / SAVED_MODEL).is_file()


@dataclass(frozen=True)
class ExportManifest:
    """``files`` by their names relative to the folder."""

    files: Mapping[str, FileDigest]

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Of all that lies in ``folder``."""
        found = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / EXPORT_FILE)
        return cls({path.relative_to(folder).as_posix(): FileDigest.of(path) for path in found})

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """None if there is none: an older version wrote the export, or something else is called so."""
        try:
            return cls.parse(read_plain(folder / EXPORT_FILE, EXPORT_BYTES))
        except OSError:
            return None

    @classmethod
    def parse(cls, content: bytes) -> Self | None:
        return parsed(cls, content)

    def write(self, folder: Path) -> None:
        write_json(folder / EXPORT_FILE, asdict(self))

    def problem(self, found: Mapping[str, FileDigest | None]) -> str | None:
        """The first of ``found`` that the export does not hold so, in words; None for a file that is not there."""
        for name, digest in found.items():
            expected = self.files.get(name)
            if expected is not None and digest != expected:
                state = "is missing" if digest is None else f"has {digest.size} bytes with crc32c {digest.crc32c}"
                wanted = f"{expected.size} with {one_line(expected.crc32c, 40)}"
                return f"{one_line(name, 120)} {state}, expected {wanted}"
        return None
