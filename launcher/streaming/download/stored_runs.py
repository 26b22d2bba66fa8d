"""The runs in a destination."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from launcher.streaming.layout import MANIFEST, OF_A_RUN, PROGRESS
from launcher.streaming.stores.store import INTERNAL, Changed, Store, StoredObject, StoreRefused, newest
from maskfleet.errors import NotFound
from maskfleet.records import RECORD_BYTES, Progress


@dataclass
class StoredRun:
    """One run in a destination. ``name`` is relative to it, "" for the destination itself; ``size`` in bytes."""

    name: str
    size: int = 0
    files: int = 0
    steps: list[int] = field(default_factory=list)
    updated: float = 0.0
    progress: Progress | None = None


def list_runs(store: Store) -> list[StoredRun]:
    """All runs under the destination, by name.

    Raises:
        NotFound: there is none.
    """
    runs: dict[str, StoredRun] = defaultdict(lambda: StoredRun(""))
    progress: dict[str, StoredObject] = {}
    for found in store.list():
        match = OF_A_RUN.fullmatch(found.name)
        if match is None or found.name.startswith(INTERNAL):
            continue
        name = match["run"] or ""
        run = runs[name]
        run.name = name
        run.size += found.size
        run.files += 1
        run.updated = max(run.updated, found.updated)
        manifest = MANIFEST.fullmatch(found.name)
        if manifest:
            run.steps.append(int(manifest[1]))
        if found.name == f"{name}/{PROGRESS}".lstrip("/"):
            progress[name] = found
    if not runs:
        raise NotFound(f"{store.url}: there is no run; 'launcher stream RUN {store.url}' copies one there")
    for name, found in progress.items():
        runs[name].progress = _progress(store, found)
    for run in runs.values():
        run.steps.sort()
    return sorted(runs.values(), key=lambda run: run.name)


def _progress(store: Store, found: StoredObject) -> Progress | None:
    """None if it is gone, may not be read, or is somebody else's object of that name."""
    if found.size > RECORD_BYTES:
        return None
    try:
        content = newest(store, found, lambda version: b"".join(store.read(version)))
    except (Changed, StoreRefused):
        return None
    return Progress.parse(content or b"")
