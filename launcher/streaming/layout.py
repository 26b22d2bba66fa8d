"""The names of a run's objects in a destination: those of its files, as RunDirectory has them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from launcher.streaming.stores.store import Changed, Store, StoredObject, newest
from maskfleet.checkpoint_manifest import MANIFEST_BYTES
from maskfleet.records import RECORD_BYTES, RunRecord
from maskfleet.run_directory import RunDirectory
from maskfleet.schema import parsed

_HERE = RunDirectory(Path())
_FILES = (
    _HERE.config, _HERE.examples, _HERE.progress, _HERE.metrics, _HERE.scores, _HERE.events, _HERE.goodput,
    _HERE.workers, _HERE.report,
)  # fmt: skip
_FOLDERS = (_HERE.tensorboard, _HERE.checkpoints, _HERE.logs, _HERE.pictures, _HERE.export)


def _pattern(path: Path) -> str:
    return re.escape(path.as_posix())


_STEP = _pattern(Path(_HERE.checkpoint_prefix(0).name)).replace("00000000", r"(\d{8,})")

OF_A_RUN = re.compile(
    r"(?:(?P<run>.*?)/)??"
    rf"(?:{'|'.join(map(_pattern, _FILES))}|(?:{'|'.join(map(_pattern, _FOLDERS))})/.+)"
)
"""An object of a run anywhere below a destination; ``run`` is the run's name there, None for the destination itself."""
MANIFEST = re.compile(rf"(?:.*/)?{_pattern(_HERE.checkpoint_manifests)}/{_STEP}\.json")
"""A checkpoint's manifest, of any run below a destination; the first group is its step."""
_CHECKPOINT = re.compile(rf"{_pattern(_HERE.checkpoints)}/(?:{_HERE.checkpoint_manifests.name}/)?{_STEP}\..+")
_LOG = re.compile(_pattern(_HERE.worker_log(0)).replace("0", r"(\d+)"))

TENSORBOARD = f"{_HERE.tensorboard.as_posix()}/"
"""Before the names of a run's event files."""
LOGS = f"{_HERE.logs.as_posix()}/"
PROGRESS = _HERE.progress.as_posix()
EXPORT_MANIFEST = (_HERE.export / "manifest.json").as_posix()
"""Lies in the destination only, and is written last: size and crc32c of each file of the export. Without it, an
export is on its way."""


def object_name(run: RunDirectory, path: Path) -> str:
    """Of a file of the run."""
    return path.relative_to(run.path).as_posix()


def checkpoint_step(name: str) -> int | None:
    """The step of an object of a checkpoint, its manifest included; None if it is of none."""
    match = _CHECKPOINT.fullmatch(name)
    return int(match[1]) if match else None


def worker_of_log(name: str) -> int | None:
    """The worker whose log an object is; None if it is none."""
    match = _LOG.fullmatch(name)
    return int(match[1]) if match else None


def remote_manifests(store: Store, run: RunDirectory) -> dict[int, StoredObject]:
    """The manifests in the store by step, oldest first."""
    return manifests_by_step(store.list(object_name(run, run.checkpoint_manifests) + "/"))


def run_id(store: Store, run: RunDirectory) -> str | None:
    """Of the run in ``run`` or, before it is there, of the one in the store; None if neither has one."""
    if here := RunRecord.id_of(run):
        return here
    there = store.find(run.config.name)
    if there is None or there.size > RECORD_BYTES:
        return None
    try:
        content = newest(store, there, lambda version: b"".join(store.read(version)))
    except Changed:
        return None
    record = parsed(RunRecord, content or b"")
    return None if record is None else record.run_id


def read_manifest(store: Store, found: StoredObject) -> bytes:
    """What an object holds that is called as a manifest.

    Raises:
        ValueError: it is too large for one.
        Changed: it is no longer in that version.
    """
    if found.size > MANIFEST_BYTES:
        raise ValueError(f"no checkpoint manifest: it has {found.size} bytes")
    return b"".join(store.read(found))


def manifests_by_step(objects: Iterable[StoredObject]) -> dict[int, StoredObject]:
    """Those of ``objects`` that are manifests, oldest first."""
    found = ((int(match[1]), each) for each in objects if (match := MANIFEST.fullmatch(each.name)))
    return dict(sorted(found, key=lambda pair: pair[0]))
