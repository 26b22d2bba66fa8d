"""A run's TensorBoard files on this disk, kept as long as those in a store, which TensorBoard can't read itself."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from launcher.streaming.download.arrival import InTheWay, download, writing
from launcher.streaming.layout import TENSORBOARD
from launcher.streaming.stores.store import Changed, Store, StoredObject
from maskfleet.errors import BadData, MaskfleetError
from maskfleet.files import stays_inside
from maskfleet.plain_files import PlainFiles, write_whole
from maskfleet.run_directory import is_event_file

log = logging.getLogger("launcher.tensorboard")

SECONDS = 3.0
"""Between two looks at the store, each of which is a listing. A scalar waits for the streamer, then for this, then for
TensorBoard: together less than 10 s."""


class EventMirror:
    """The event files of the run in ``store``, below ``folder``, and what else TensorBoard shows (profiles)."""

    def __init__(self, store: Store, folder: Path):
        self._store = store
        self._files = PlainFiles(folder)
        self._told: set[str] = set()

    def update(self) -> int:
        """Fetches what has been appended since the last call. Returns its bytes.

        An object whose name no file in the folder can have is left out, and named once.

        Raises:
            StoreUnavailable, StoreRefused: what has come so far stays; call again.
            DiskFailed, BadSettings: likewise, when the folder can be written.
        """
        fetched = 0
        for found in self._store.list(TENSORBOARD):
            name = found.name.removeprefix(TENSORBOARD)
            if not stays_inside(name):
                continue
            try:
                with writing(self._files), suppress(Changed):  # it has grown since the listing: the next call's
                    fetched += self._follow(found, name) if is_event_file(name) else self._replace(found, name)
            except (InTheWay, BadData) as error:
                if found.name not in self._told:
                    self._told.add(found.name)
                    log.warning("%s is left out: %s", found.name, error)
        return fetched

    def _follow(self, found: StoredObject, name: str) -> int:
        """What an event file has more than the copy. A piece that a full disk cut is gone on with."""
        have = self._size(name)
        if have > found.size:  # written anew
            self._files.delete(name)
            have = 0
        fetched = 0
        if have < found.size:
            with self._files.open_to_append(name) as file:
                for piece in self._store.read(found, have):
                    write_whole(file, piece)
                    fetched += len(piece)
        return fetched

    def _replace(self, found: StoredObject, name: str) -> int:
        if self._size(name) == found.size:
            return 0
        return download(self._store, found, self._files, name).size

    def _size(self, name: str) -> int:
        try:
            return self._files.stat(name).st_size
        except FileNotFoundError:
            return 0


@contextmanager
def mirrored(store: Store) -> Iterator[Path]:
    """A temporary folder that follows the run's event files while the block runs.

    Raises:
        StoreUnavailable, StoreRefused, DiskFailed: at the first look.
    """
    with tempfile.TemporaryDirectory(prefix="maskfleet-tensorboard-") as folder:
        mirror = EventMirror(store, Path(folder))
        mirror.update()
        stop = threading.Event()
        thread = threading.Thread(target=_follow, args=(mirror, stop), daemon=True)
        thread.start()
        try:
            yield Path(folder)
        finally:
            stop.set()
            thread.join(5)


def _follow(mirror: EventMirror, stop: threading.Event) -> None:
    """Calls update() for ever; an outage is told of once."""
    reported = False
    while not stop.wait(SECONDS):
        try:
            mirror.update()
            reported = False
        except MaskfleetError as error:
            if not reported:
                log.warning("%s; trying again", error)
            reported = True
