"""What a run has said, from its destination, once its pods are gone."""

from __future__ import annotations

from collections.abc import Iterator

from launcher.streaming.layout import LOGS, worker_of_log
from launcher.streaming.stores.store import Store, StoredObject, newest
from maskfleet.errors import NotFound


def stored_logs(store: Store) -> dict[int, Iterator[str]]:
    """The lines of all workers' logs, by worker.

    Raises:
        NotFound: there is none.
    """
    found = {worker: each for each in store.list(LOGS) if (worker := worker_of_log(each.name)) is not None}
    if not found:
        raise NotFound(f"{store.url}: there are no logs")
    return {worker: _lines(store, each) for worker, each in sorted(found.items())}


def _lines(store: Store, found: StoredObject) -> Iterator[str]:
    """One log is read as a whole: it may be replaced by a longer one meanwhile."""
    content = newest(store, found, lambda version: b"".join(store.read(version))) or b""
    yield from (line.decode(errors="replace") for line in content.removesuffix(b"\n").split(b"\n") if content)
