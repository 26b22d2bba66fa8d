"""Where a run is streamed to: one interface over Google Cloud Storage, S3 and a folder.

Every write is conditional: it says which version of the object it expects, so that of two writers one
loses instead of overwriting the other. A write that was applied but whose acknowledgement was lost looks
the same as a lost race; :mod:`launcher.streaming.upload.guarded_object` tells the two apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Protocol, TypeVar

from maskfleet.errors import BadSettings, MaskfleetError
from maskfleet.files import FileDigest

PIECE = 8 << 20
"""Bytes that are held in memory of one file on its way, in either direction."""

VERSIONS = 4
"""How many versions of an object may be replaced while they are read: a run that is looked at may be growing."""

T = TypeVar("T")

INTERNAL = ".maskfleet/"
"""Names under this prefix are the streamer's own: probes and parts that are about to be joined."""


class StoreUnavailable(MaskfleetError):
    """The store can't be reached or is overloaded. Trying again later may help."""


class StoreRefused(BadSettings):
    """The store can be reached, and refuses: credentials, permissions, or no such bucket."""


class Changed(MaskfleetError):
    """The object is not in the version that the write expected; nothing was written."""


class ContentDiffers(MaskfleetError):
    """The file's bytes are not those that its digest announced; nothing was left in the store."""


@dataclass(frozen=True)
class StoredObject:
    """One object. ``name`` is relative to the destination, ``size`` in bytes, ``updated`` in Unix seconds.

    ``crc32c`` is in base64, as in :class:`FileDigest`; None where a listing does not tell it.
    ``version`` is what a conditional write compares. ``md5`` (hex) is what S3 calls an object that was written by one
    request, unless the bucket encrypts with a key of its own: then it looks the same and is none.
    """

    name: str
    size: int
    crc32c: str | None
    version: str
    updated: float
    md5: str | None = None

    def matches(self, digest: FileDigest) -> bool:
        return self.crc32c == digest.crc32c and self.size == digest.size


class Store(Protocol):
    """A destination. All methods may raise StoreUnavailable and StoreRefused."""

    url: str
    on_retry: Callable[[Exception], None]
    """Called each time a request is tried again."""

    def check(self) -> list[str]:
        """Creates and deletes an object, so that bad credentials fail now; returns warnings, a sentence each."""

    def find(self, name: str) -> StoredObject | None:
        """The object with its crc32c, where the store knows it."""

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """All objects whose names begin with ``prefix``, in the order of their names.

        Not those that stand for a folder, which the consoles of Google Cloud and AWS make.
        """

    def read(self, found: StoredObject, start: int = 0) -> Iterator[bytes]:
        """The bytes from ``start`` on, in pieces of at most 8 MiB.

        Raises:
            Changed: the object is no longer in that version.
        """

    def put(self, name: str, file: BinaryIO, digest: FileDigest, expected: StoredObject | None) -> StoredObject:
        """Creates the object (``expected`` None), or replaces that very version of it.

        Raises:
            Changed: the object exists, or is in another version.
            ContentDiffers: the file does not hold what ``digest`` says.
        """

    def append(self, name: str, content: bytes, digest: FileDigest, expected: StoredObject | None) -> StoredObject:
        """Lengthens that very version of the object by ``content``; ``digest`` is that of the result.

        Raises:
            Changed: the object exists though ``expected`` is None, or is in another version.
        """

    def tidy(self, name: str) -> None:
        """Deletes what an interrupted :meth:`append` to ``name`` left behind."""

    def end_uploads(self, prefix: str) -> int:
        """Gives up what a killed process has begun to :meth:`put` to names that begin with ``prefix``; how many it was.

        For who alone writes there.
        """

    def delete(self, found: StoredObject) -> None:
        """Deletes that very version; one that is gone already is as good.

        Raises:
            Changed: the object is in another version.
        """


def newest(store: Store, found: StoredObject, read: Callable[[StoredObject], T]) -> T | None:
    """What ``read`` makes of the object, or of the version that has replaced it meanwhile; None if it is gone.

    Raises:
        Changed: each version that was found was replaced before it was read.
    """
    for _ in range(VERSIONS):
        try:
            return read(found)
        except Changed:
            there = store.find(found.name)
            if there is None:
                return None
            found = there
    return read(found)
