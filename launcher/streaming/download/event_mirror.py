"""A run's TensorBoard files on this disk, kept as long as those in a store, which TensorBoard can't read itself."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from launcher.streaming.layout import TENSORBOARD
from launcher.streaming.stores.store import Changed, Store, StoreRefused, StoreUnavailable
from maskfleet.files import stays_inside

log = logging.getLogger("launcher.tensorboard")

SECONDS = 3.0
"""Between two looks at the store, each of which is a listing. A scalar waits for the streamer, then for this, then for
TensorBoard: together less than 10 s."""


class EventMirror:
    """The event files of the run in ``store``, below ``folder``, and what else TensorBoard shows (profiles)."""

    def __init__(self, store: Store, folder: Path):
        self._store = store
        self._folder = folder

    def update(self) -> int:
        """Fetches what has been appended since the last call. Returns its bytes.

        Raises:
            StoreUnavailable, StoreRefused: what has come so far stays; call again.
        """
        fetched = 0
        for found in self._store.list(TENSORBOARD):
            name = found.name.removeprefix(TENSORBOARD)
            if not stays_inside(name):
                continue
            path = self._folder / name
            have = path.stat().st_size if path.exists() else 0
            if have != found.size and (have > found.size or "tfevents" not in path.name):  # written anew
                path.unlink(missing_ok=True)
                have = 0
            if have < found.size:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as file, suppress(Changed):  # it has grown since the listing: the next call's
                    for piece in self._store.read(found, have):
                        file.write(piece)
                        fetched += len(piece)
        return fetched


@contextmanager
def mirrored(store: Store) -> Iterator[Path]:
    """A temporary folder that follows the run's event files while the block runs.

    Raises:
        StoreUnavailable, StoreRefused: at the first look.
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
        except (StoreUnavailable, StoreRefused, OSError) as error:
            if not reported:
                log.warning("%s; trying again", error)
            reported = True
