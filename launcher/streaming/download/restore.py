"""From a destination back to a run directory: the newest complete checkpoint, and the histories it goes on with."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from launcher.streaming.layout import LOGS, remote_manifests, worker_of_log
from launcher.streaming.stores.store import Changed, Store, StoredObject
from maskfleet.checkpoint_manifest import CheckpointManifest
from maskfleet.errors import BadData, NotFound
from maskfleet.files import FileDigest, write_atomically
from maskfleet.run_directory import RunDirectory

log = logging.getLogger("launcher.restore")


def restore(
    store: Store, run: RunDirectory, step: int | None = None, worker: int | None = None
) -> CheckpointManifest | None:
    """Brings back the newest checkpoint that verifies, or that of ``step``, and the histories of the run.

    What lies in ``run`` already and verifies is not fetched again; a manifest is written after its files, so that an
    interrupted restore leaves no half checkpoint. Histories are what the streamer goes on appending to: without them a
    new pod's log would not continue the old one's. The settings come too, so that ``launcher run --resume`` can go on
    (``worker`` None only). Of the logs, worker I brings back its own alone; any worker but 0
    has nothing else to bring back, since the chief broadcasts the checkpoint. ``worker`` None brings back all.

    Returns:
        The manifest of the newest checkpoint that verifies in ``run`` now; None if there is none, or for a worker
        other than the chief.

    Raises:
        NotFound: the store has no checkpoint of ``step``.
        BadData: the checkpoint of ``step`` does not verify.
        StoreUnavailable, StoreRefused: the store can't be read.
    """
    for found in _histories(store, run, worker):
        download(store, found, run.path / found.name)
    if worker not in (None, 0):
        return None
    manifests = remote_manifests(store, run)
    if step is not None:
        if step not in manifests:
            there = f"it has {', '.join(map(str, manifests))}" if manifests else "it has none"
            raise NotFound(f"{store.url}: there is no checkpoint of step {step}; {there}")
        manifest, problem = _fetch_checkpoint(store, run, manifests[step], step)
        if manifest is None:
            raise BadData(f"{store.url}: the checkpoint of step {step} is damaged: {problem}")
        return manifest
    local = _newest_local(run)
    for each in sorted(manifests, reverse=True):
        if local is not None and local.step >= each:
            break
        manifest, problem = _fetch_checkpoint(store, run, manifests[each], each)
        if manifest is not None:
            log.info("brought back the checkpoint of step %d from %s", each, store.url)
            return manifest
        log.warning(
            "the checkpoint of step %d in %s does not verify (%s): trying an older one", each, store.url, problem
        )
    return local


def download(store: Store, found: StoredObject, path: Path) -> FileDigest:
    """Fetches one object into ``path``, which appears when it is complete. Returns what was received.

    Raises:
        Changed: the object was replaced meanwhile.
        BadData: what came is not what the store says the object holds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            for piece in store.read(found):
                file.write(piece)
        digest = FileDigest.of(temporary)
        if digest.size != found.size or found.crc32c not in (None, digest.crc32c):
            raise BadData(f"{store.url}/{found.name}: received {digest}, expected {found.size} bytes, {found.crc32c}")
        temporary.replace(path)
        return digest
    finally:
        temporary.unlink(missing_ok=True)


def _newest_local(run: RunDirectory) -> CheckpointManifest | None:
    for step in run.checkpoint_steps():
        try:
            manifest = CheckpointManifest.of_step(run.checkpoint_manifest(step).read_bytes(), step)
        except (OSError, ValueError):
            continue
        if manifest.problem(run.checkpoints) is None:
            return manifest
    return None


def _fetch_checkpoint(
    store: Store, run: RunDirectory, found: StoredObject, step: int
) -> tuple[CheckpointManifest | None, str | None]:
    """The manifest once all files are here and verify; or None and what is wrong."""
    try:
        content = b"".join(store.read(found))
        manifest = CheckpointManifest.of_step(content, step)
        for name, expected in manifest.files.items():
            path = run.checkpoints / name
            if path.is_file() and FileDigest.of(path) == expected:
                continue
            there = store.find((run.checkpoints / name).relative_to(run.path).as_posix())
            if there is None:
                return None, f"{name} is missing"
            if there.size != expected.size or there.crc32c not in (None, expected.crc32c):
                return None, f"{name} has {there.size} bytes with crc32c {there.crc32c}, expected {expected}"
            if download(store, there, path) != expected:
                return None, f"{name} differs from its digest"
    except (ValueError, Changed, BadData) as error:
        return None, str(error)
    write_atomically(run.checkpoint_manifest(manifest.step), content)
    return manifest, None


def _histories(store: Store, run: RunDirectory, worker: int | None) -> Iterator[StoredObject]:
    """What the run goes on with and ``run`` does not have, or has less of."""
    for found in store.list(LOGS):
        of = worker_of_log(found.name)
        if of is not None and worker in (None, of) and _size(run.path / found.name) < found.size:
            yield found
    if worker in (None, 0):
        there = store.find(run.events.name)
        if there is not None and _size(run.events) < there.size:
            yield there
        # The trainer shortens the metrics when it resumes, so that those that are here are the ones that count; a pod
        # gets its settings from its Job.
        for path in (run.metrics, run.config) if worker is None else (run.metrics,):
            there = store.find(path.name)
            if there is not None and not path.exists():
                yield there


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
