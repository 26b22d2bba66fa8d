"""From a destination back to a run directory: its newest and best checkpoint, and the histories it goes on with."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from launcher.streaming.download.arrival import InTheWay, check_folder, download, writing
from launcher.streaming.layout import LOGS, object_name, read_manifest, remote_manifests, run_id, worker_of_log
from launcher.streaming.stores.store import Changed, Store, StoredObject, StoreRefused, newest
from maskfleet.checkpoint_manifest import CheckpointManifest, best_step
from maskfleet.errors import BadData, NotFound
from maskfleet.files import FileDigest
from maskfleet.plain_files import PlainFiles
from maskfleet.run_directory import RunDirectory
from maskfleet.run_lock import not_in_use
from maskfleet.text import one_line

log = logging.getLogger("launcher.restore")

MANIFESTS_AT_ONCE = 16
"""Of a run whose every checkpoint is kept there are thousands, a request each."""


def restore(
    store: Store, run: RunDirectory, step: int | None = None, worker: int | None = None
) -> CheckpointManifest | None:
    """Brings back the newest checkpoint that verifies and the best, or that of ``step``, and the histories of the run.

    A checkpoint counts if its manifest has the run's ``run_id``, or an older version wrote it. What lies in ``run``
    already and verifies is not fetched again; a manifest is written after its files, so that an interrupted restore
    leaves no half checkpoint. Histories are what the streamer goes on appending to: without them a new pod's log would
    not continue the old one's. The settings come too, so that ``launcher run --resume`` can go on (``worker`` None
    only). Of the logs, worker I brings back its own alone; any worker but 0 has nothing else to bring back, since the
    chief broadcasts the checkpoint. ``worker`` None brings back all.

    Returns:
        The manifest of the newest checkpoint that verifies in ``run`` now; None if there is none, or for a worker
        other than the chief.

    Nothing is written before it is known that the checkpoint is there and that nobody trains in ``run``. Histories in
    whose place a link is, or that are damaged in the store, are left out and named.

    Raises:
        NotFound: the store has no checkpoint of ``step``.
        BadData: the checkpoint of ``step`` does not verify, or is another run's.
        BadSettings: ``run`` is in use, is no folder, or can't be written.
        InTheWay: a link or special file is in the place of a checkpoint's file.
        DiskFailed: the disk is full.
        StoreUnavailable, StoreRefused: the store can't be read.
    """
    chief = worker in (None, 0)
    manifests = remote_manifests(store, run) if chief else {}
    if step is not None and chief:
        _check_there(store, manifests, step)
    check_folder(run.path)
    with not_in_use(run):
        for found in _histories(store, run, worker):
            try:
                newest(store, found, lambda version: download(store, version, PlainFiles(run.path)))
            except (InTheWay, BadData, Changed) as error:
                log.warning("%s is not brought back: %s", found.name, error)
        return _bring_checkpoint(store, run, manifests, step) if chief else None


def bring_checkpoint(
    store: Store, run: RunDirectory, step: int | None, *, needed: bool = True
) -> CheckpointManifest | None:
    """As :func:`restore`, without the histories.

    Args:
        needed: without the checkpoint of ``step`` none will do; else it is the newest then.
    """
    manifests = remote_manifests(store, run)
    if step is not None and needed:
        _check_there(store, manifests, step)
    if step not in manifests:
        return _bring_newest(store, run, manifests, run_id(store, run))
    return _bring_checkpoint(store, run, manifests, step)


def _check_there(store: Store, manifests: Mapping[int, StoredObject], step: int) -> None:
    if step not in manifests:
        there = f"it has {', '.join(map(str, manifests))}" if manifests else "it has none"
        raise NotFound(f"{store.url}: there is no checkpoint of step {step}; {there}")


def _bring_checkpoint(
    store: Store, run: RunDirectory, found: Mapping[int, StoredObject], step: int | None
) -> CheckpointManifest | None:
    own = run_id(store, run) if found else None
    if step is not None:
        try:
            return _fetch_checkpoint(store, run, found[step], step, own)
        except _Unusable as error:
            raise BadData(f"{store.url}: the checkpoint of step {step} is not used: {error}") from error
    last = _bring_newest(store, run, found, own)
    if last is not None:
        _bring_best(store, run, {each: found[each] for each in found if each < last.step}, last, own)
    return last


def _bring_newest(
    store: Store, run: RunDirectory, found: Mapping[int, StoredObject], own: str | None
) -> CheckpointManifest | None:
    local = _newest_local(run)
    for step in sorted(found, reverse=True):
        if local is not None and local.step >= step:
            break
        try:
            return _brought_back(store, _fetch_checkpoint(store, run, found[step], step, own))
        except _Unusable as error:
            log.warning("the checkpoint of step %d in %s is not used (%s): trying an older one", step, store.url, error)
    return local


def _bring_best(
    store: Store, run: RunDirectory, found: Mapping[int, StoredObject], last: CheckpointManifest, own: str | None
) -> None:
    """What ``keep`` keeps beside the newest, and a run with a validation split ends with."""
    with ThreadPoolExecutor(MANIFESTS_AT_ONCE) as readers:
        read = readers.map(lambda step: _manifest(store, found[step], step, own), found)
        manifests = {each.step: each for each in read if each is not None}
    best = best_step({**manifests, last.step: last})
    if best is None or best == last.step or _local(run, best) == manifests[best]:
        return
    try:
        _brought_back(store, _fetch_checkpoint(store, run, found[best], best, own))
    except _Unusable as error:
        log.warning("the best checkpoint in %s, of step %d, is not used: %s", store.url, best, error)


def _brought_back(store: Store, manifest: CheckpointManifest) -> CheckpointManifest:
    log.info("brought back the checkpoint of step %d from %s", manifest.step, store.url)
    return manifest


def _newest_local(run: RunDirectory) -> CheckpointManifest | None:
    return next((found for step in run.checkpoint_steps() if (found := _local(run, step)) is not None), None)


def _local(run: RunDirectory, step: int) -> CheckpointManifest | None:
    """That of a step in ``run``, if it verifies."""
    try:
        manifest = CheckpointManifest.read(run, step)
    except (OSError, ValueError):
        return None
    return manifest if manifest.problem(run.checkpoints) is None else None


class _Unusable(Exception):
    """What is wrong with a checkpoint in the store."""


def _fetch_checkpoint(
    store: Store, run: RunDirectory, found: StoredObject, step: int, own: str | None
) -> CheckpointManifest:
    """The manifest once all files are here and verify. Raises _Unusable if they can't be."""
    files = PlainFiles(run.path)
    try:
        content = read_manifest(store, found)
        manifest = CheckpointManifest.of_step(content, step, own)
        for file, expected in manifest.files.items():
            name = object_name(run, run.checkpoints / file)
            if _digest(files, name) == expected:
                continue
            there = store.find(name)
            if there is None:
                raise _Unusable(f"{file} is missing")
            if there.size != expected.size or there.crc32c not in (None, expected.crc32c):
                wanted = f"{expected.size} with {one_line(expected.crc32c, 40)}"
                raise _Unusable(f"{file} has {there.size} bytes with crc32c {there.crc32c}, expected {wanted}")
            if download(store, there, files) != expected:
                raise _Unusable(f"{file} differs from its digest")
        with writing(files), files.replacing(object_name(run, run.checkpoint_manifest(step))) as copy:
            copy.write(content)
    except (ValueError, Changed, BadData, StoreRefused) as error:
        raise _Unusable(str(error)) from error
    return manifest


def _manifest(store: Store, found: StoredObject, step: int, own: str | None) -> CheckpointManifest | None:
    """None of one that is damaged, of another run, or gone."""
    try:
        return CheckpointManifest.of_step(read_manifest(store, found), step, own)
    except (ValueError, Changed, StoreRefused):
        return None


def _digest(files: PlainFiles, name: str) -> FileDigest | None:
    """Of a file here; None if there is none."""
    with writing(files):
        try:
            with files.open(name) as file:
                return FileDigest.read(file)
        except FileNotFoundError:
            return None


def _histories(store: Store, run: RunDirectory, worker: int | None) -> Iterator[StoredObject]:
    """What the run goes on with and ``run`` does not have, or has less of."""
    for found in store.list(LOGS):
        of = worker_of_log(found.name)
        if of is not None and worker in (None, of) and _size(run.path / found.name) < found.size:
            yield found
    if worker in (None, 0):
        for path in (run.events, run.goodput):
            there = store.find(path.name)
            if there is not None and _size(path) < there.size:
                yield there
        # The trainer shortens the metrics when it resumes, so that those that are here are the ones that count; a pod
        # gets its settings from its Job. Without the examples it would note those of the data as it is by now.
        for path in (run.metrics, run.examples, *((run.config,) if worker is None else ())):
            there = store.find(path.name)
            if there is not None and not path.exists():
                yield there


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
