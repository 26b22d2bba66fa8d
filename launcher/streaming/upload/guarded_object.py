"""What is known of one object in the store, so that a lost acknowledgement and a lost race are told apart.

A conditional write that was refused means either of two things: an earlier attempt of ours was applied and
its acknowledgement got lost, or somebody else wrote. So all attempts whose outcome is open are remembered, by
what the object would hold: if it holds one of those, that attempt was applied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from launcher.streaming.stores.store import Changed, Store, StoredObject, StoreUnavailable
from maskfleet.errors import MaskfleetError
from maskfleet.files import FileDigest


class Conflict(MaskfleetError):
    """Somebody else writes to the destination: this streamer has to stop."""


class GuardedObject:
    """One object that only this streamer is to write."""

    def __init__(self, store: Store, name: str):
        self.store = store
        self.name = name
        self.current: StoredObject | None = None
        self._open_attempts: set[FileDigest] = set()

    def look(self) -> StoredObject | None:
        """Asks the store for the object, once, before the first write."""
        self.current = self.store.find(self.name)
        return self.current

    def write(self, digest: FileDigest, attempt: Callable[[StoredObject | None], StoredObject]) -> bool:
        """Makes one attempt on the current version; True if the object now holds what ``digest`` says.

        False: an earlier attempt had been applied after all, which is now the current version.

        Raises:
            Conflict: the object holds what none of our attempts would have written.
            StoreUnavailable: the outcome is open; call again with the same or with more.
        """
        self._open_attempts.add(digest)
        try:
            self.current = attempt(self.current)
        except Changed as error:
            found = self.store.find(self.name)
            unchanged = (found and found.version) == (self.current and self.current.version)
            if not unchanged and (found is None or not any(found.matches(each) for each in self._open_attempts)):
                raise Conflict(_describe(self.store, self.name, self.current, found)) from error
            self.current = found
            if unchanged:
                return False
        self._open_attempts.clear()
        return self.current is not None and self.current.matches(digest)

    def put(self, file: BinaryIO, digest: FileDigest) -> int:
        """Makes the object hold the file, whatever it holds now. Returns the bytes sent.

        Raises:
            Conflict: somebody else writes the object meanwhile.
            ContentDiffers: the file does not hold what ``digest`` says.
        """
        current = self.look()
        if current is not None and current.matches(digest):
            return 0

        def attempt(current: StoredObject | None) -> StoredObject:
            file.seek(0)
            return self.store.put(self.name, file, digest, current)

        if not self.write(digest, attempt):
            raise StoreUnavailable(f"{self.store.url}/{self.name}: a write was refused without a reason")
        return digest.size


def _describe(store: Store, name: str, expected: StoredObject | None, found: StoredObject | None) -> str:
    def state(each: StoredObject | None) -> str:
        return f"{each.size} bytes in version {each.version}" if each else "nothing"

    return (
        f"{store.url}/{name}: another streamer writes to this destination (expected {state(expected)}, found "
        f"{state(found)}); this one stops. Give each run a destination of its own"
    )
