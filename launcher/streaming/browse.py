"""What lies in a destination: its runs, and a copy of everything on this disk."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.streaming.restore import download
from launcher.streaming.stores import INTERNAL, Store, StoredObject
from trainer.exit_codes import BadSettings, NotFound
from trainer.run_directory import FileDigest

_FILES = r"(?:config|progress)\.json|(?:metrics|events)\.jsonl|report\.html"
_FOLDERS = r"(?:tensorboard|checkpoints|logs|pictures|export)/.+"
_PLACES = re.compile(rf"(?:(?P<run>.*?)/)??(?:{_FILES}|{_FOLDERS})")
_MANIFEST = re.compile(r"(?:.*/)?checkpoints/manifests/step-(\d{8,})\.json")


@dataclass
class StoredRun:
    """One run in a destination. ``name`` is relative to it, "" for the destination itself; ``size`` in bytes."""

    name: str
    size: int = 0
    files: int = 0
    steps: list[int] = field(default_factory=list)
    updated: float = 0.0
    progress: dict[str, Any] = field(default_factory=dict)


def list_runs(store: Store) -> list[StoredRun]:
    """All runs under the destination, by name.

    Raises:
        NotFound: there is none.
    """
    runs: dict[str, StoredRun] = defaultdict(lambda: StoredRun(""))
    progress: dict[str, StoredObject] = {}
    for found in store.list():
        match = _PLACES.fullmatch(found.name)
        if match is None or found.name.startswith(INTERNAL):
            continue
        name = match["run"] or ""
        run = runs[name]
        run.name = name
        run.size += found.size
        run.files += 1
        run.updated = max(run.updated, found.updated)
        manifest = _MANIFEST.fullmatch(found.name)
        if manifest:
            run.steps.append(int(manifest[1]))
        if found.name == f"{name}/progress.json".lstrip("/"):
            progress[name] = found
    if not runs:
        raise NotFound(f"{store.url}: there is no run; 'launcher stream RUN {store.url}' copies one there")
    for name, found in progress.items():
        runs[name].progress = json.loads(b"".join(store.read(found)))
    for run in runs.values():
        run.steps.sort()
    return sorted(runs.values(), key=lambda run: run.name)


def pull(store: Store, folder: Path) -> Iterator[StoredObject]:
    """Copies all objects into ``folder``; yields each one that was fetched. What is there already is kept.

    Manifests come last, as they went up.

    Raises:
        NotFound: the destination is empty.
        BadSettings: an object's name leads out of the folder.
        BadData: what came is not what the store says the object holds.
    """
    objects = [found for found in store.list() if not found.name.startswith(INTERNAL)]
    if not objects:
        raise NotFound(f"{store.url}: there is nothing")
    for found in sorted(objects, key=lambda each: (_MANIFEST.fullmatch(each.name) is not None, each.name)):
        path = folder / found.name
        if ".." in Path(found.name).parts:
            raise BadSettings(f"{store.url}/{found.name}: the name leads out of {folder}")
        known = found if found.crc32c is not None else store.find(found.name)
        if known is None or (path.is_file() and known.matches(FileDigest.of(path))):
            continue
        download(store, known, path)
        yield known
