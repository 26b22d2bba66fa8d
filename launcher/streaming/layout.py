"""The names of a run's objects in a destination."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from launcher.streaming.stores.store import Store, StoredObject
from maskfleet.run_directory import RunDirectory

_FILES = r"(?:config|progress)\.json|(?:metrics|events)\.jsonl|report\.html"


_FOLDERS = r"(?:tensorboard|checkpoints|logs|pictures|export)/.+"


PLACES = re.compile(rf"(?:(?P<run>.*?)/)??(?:{_FILES}|{_FOLDERS})")


MANIFEST_NAME = re.compile(r"(?:.*/)?checkpoints/manifests/step-(\d{8,})\.json")


_NAME = re.compile(r"checkpoints/(?:manifests/)?step-(\d{8,})\..+")


def remote_manifests(store: Store, run: RunDirectory) -> dict[int, StoredObject]:
    """The manifests in the store by step, oldest first."""
    return manifests_by_step(store.list(object_name(run, run.checkpoint_manifests) + "/"))


def manifests_by_step(objects: Iterable[StoredObject]) -> dict[int, StoredObject]:
    found = ((checkpoint_step(each.name), each) for each in objects if "/manifests/" in each.name)
    return dict(sorted((step, each) for step, each in found if step is not None))


def object_name(run: RunDirectory, path: Path) -> str:
    return path.relative_to(run.path).as_posix()


def checkpoint_step(name: str) -> int | None:
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


LOG_NAME = re.compile(r"logs/worker-(\d+)\.log")
