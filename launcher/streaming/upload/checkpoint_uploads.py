"""Checkpoints: data, then index, then the manifest whose existence makes them complete. Deleted the other way round."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from typing import BinaryIO

from launcher.streaming.layout import MANIFEST, checkpoint_step, manifests_by_step, object_name, read_manifest, run_id
from launcher.streaming.stores.store import Changed, ContentDiffers, Store, StoredObject, StoreRefused
from launcher.streaming.upload.guarded_object import Conflict, GuardedObject
from maskfleet.checkpoint_manifest import MANIFEST_BYTES, CheckpointManifest, kept_steps
from maskfleet.files import FileDigest
from maskfleet.plain_files import Entry, PlainFiles
from maskfleet.records import RunRecord
from maskfleet.run_directory import RunDirectory

log = logging.getLogger("launcher.stream")


class CheckpointUploads:
    """Brings the local checkpoints of one run to the store, and deletes old ones there.

    Args:
        keep: how many of the newest are kept in the store, beside the best; None keeps all.

    Attributes:
        problems: by step: what is damaged here and was not copied.
        left_out: links and special files among the manifests, as of the last look.
    """

    def __init__(self, store: Store, run: RunDirectory, keep: int | None):
        self.left_out: list[Entry] = []
        self.problems: dict[int, str] = {}
        self._store = store
        self._run = run
        self._files = PlainFiles(run.path)
        self._keep = keep
        self._remote: dict[int, StoredObject] | None = None
        self._inherited: set[int] = set()
        self._begun: set[int] = set()
        self._manifests: dict[int, CheckpointManifest] = {}
        self._done: dict[int, int] = {}
        """By step: when the manifest that was copied was written here, in ns. A late score makes it a newer one."""

    def start(self) -> None:
        """Learns which checkpoints the store has. Raises StoreUnavailable; call again then."""
        if self._remote is None:
            folder = object_name(self._run, self._run.checkpoints) + "/"
            if ended := self._store.end_uploads(folder):
                log.info("gave up %d unfinished upload(s) of an earlier streamer", ended)
            objects = list(self._store.list(folder))
            remote = manifests_by_step(objects)
            own = run_id(self._store, self._run) if remote else None
            for step, found in remote.items():
                try:
                    self._manifests[step] = CheckpointManifest.of_step(read_manifest(self._store, found), step, own)
                except (ValueError, Changed, StoreRefused) as error:
                    log.warning("the checkpoint of step %d in %s is passed over: %s", step, self._store.url, error)
            self._remote = {step: found for step, found in remote.items() if step in self._manifests}
            self._inherited = set(remote)
            self._begun = {begun for each in objects if (begun := checkpoint_step(each.name)) is not None}
            self._delete_orphans(objects)

    def pending(self) -> list[int]:
        """Local steps that are still to be copied, newest first: a crash loses least that way."""
        steps = [step for step in self._local_steps() if self._done.get(step) != self._written(step)]
        if self._keep is None or not steps:
            return steps
        known = dict(self._manifests)
        for step in steps:
            manifest = self._read_manifest(step)
            if manifest is not None:
                known[step] = manifest
        return [step for step in steps if step in kept_steps(known, self._keep)]

    def _local_steps(self) -> list[int]:
        """Steps that have a manifest here, newest first."""
        entries = list(self._files.walk(object_name(self._run, self._run.checkpoint_manifests), deep=False))
        self.left_out = [entry for entry in entries if entry.problem is not None]
        found = (MANIFEST.fullmatch(entry.name) for entry in entries if entry.problem is None)
        return sorted((int(match[1]) for match in found if match), reverse=True)

    def pending_bytes(self) -> int:
        """Size of what :meth:`pending` names."""
        manifests = (self._read_manifest(step) for step in self.pending())
        return sum(digest.size for each in manifests if each for digest in each.files.values())

    def upload(self, step: int) -> int:
        """Copies one checkpoint. Returns the bytes sent; 0 if it is there, has gone, or is damaged.

        Raises:
            Conflict: somebody else writes this checkpoint.
            StoreUnavailable: call again; what was copied is found again.
        """
        self.start()
        written = self._written(step)
        try:
            content = self._manifest_bytes(step)
            manifest = CheckpointManifest.of_step(content, step, RunRecord.id_of(self._run))
            folder = object_name(self._run, self._run.checkpoints)
            with ExitStack() as stack:  # open files can't vanish when the trainer deletes old checkpoints
                files = {name: stack.enter_context(self._files.open(f"{folder}/{name}")) for name in manifest.files}
                sent = self._upload(manifest, content, files)
        except FileNotFoundError:
            log.info("checkpoint of step %d was deleted here before it was copied: skipped", step)
            sent = 0
        except (ContentDiffers, ValueError) as error:
            self.problems[step] = f"checkpoint of step {step} is damaged on this disk and was not copied: {error}"
            log.error(self.problems[step])
            sent = 0
        self._done[step] = written
        return sent

    def delete_old(self) -> None:
        """Deletes in the store what ``keep`` does not keep. Raises StoreUnavailable."""
        if self._keep is None or self._remote is None:
            return
        present = {step: manifest for step, manifest in self._manifests.items() if step in self._remote}
        superfluous = set(present) - kept_steps(present, self._keep)
        if superfluous and not self._is_whole(present[max(present)]):
            log.error("the newest checkpoint in %s is damaged: no older one is deleted", self._store.url)
            return
        for step in sorted(superfluous):
            self._store.delete(self._remote[step])
            del self._remote[step]
            self._delete_files(present[step].files)
            log.info("deleted the checkpoint of step %d from %s", step, self._store.url)

    def _upload(self, manifest: CheckpointManifest, content: bytes, files: Mapping[str, BinaryIO]) -> int:
        assert self._remote is not None
        step = manifest.step
        if step not in self._begun:
            self._begun.add(step)
            with suppress(Changed):  # an acknowledgement got lost, or there is another streamer: see below
                return self._create(manifest, content, files)
        name = object_name(self._run, self._run.checkpoint_manifest(step))
        digest = FileDigest.read(io.BytesIO(content))
        there = self._store.find(name)
        if there is not None and there.matches(digest):
            self._remember(manifest, there)
            return 0
        if there is not None and not self._is_completed_by(manifest, there):
            # An earlier attempt went on from an older checkpoint and has now come to this step again.
            if step not in self._inherited:
                raise Conflict(
                    f"{self._store.url}/{name}: another streamer wrote another checkpoint of step {step}; this one "
                    "stops. Give each run a destination of its own"
                )
            self._store.delete(there)
            self._remote.pop(step, None)
        sent = 0
        for file_name in sorted(files):  # data sorts before index
            remote = GuardedObject(self._store, f"{object_name(self._run, self._run.checkpoints)}/{file_name}")
            sent += remote.put(files[file_name], manifest.files[file_name])
        remote = GuardedObject(self._store, name)
        sent += remote.put(io.BytesIO(content), digest)
        assert remote.current is not None
        self._remember(manifest, remote.current)
        log.info("copied the checkpoint of step %d (%.1f MB) to %s", step, sent / 1e6, self._store.url)
        return sent

    def _is_completed_by(self, manifest: CheckpointManifest, there: StoredObject) -> bool:
        """Whether what the store has is the same checkpoint, which got its score since."""
        assert self._remote is not None
        known = self._remote.get(manifest.step)
        same = known is not None and known.version == there.version
        return same and self._manifests[manifest.step].files == manifest.files

    def _create(self, manifest: CheckpointManifest, content: bytes, files: Mapping[str, BinaryIO]) -> int:
        """Copies a checkpoint of which the store has nothing, without asking for each file first.

        Raises:
            Changed: the store has some of it after all.
        """
        folder = object_name(self._run, self._run.checkpoints)
        sent = 0
        for name in sorted(files):  # data sorts before index
            self._store.put(f"{folder}/{name}", files[name], manifest.files[name], None)
            sent += manifest.files[name].size
        manifest_name = object_name(self._run, self._run.checkpoint_manifest(manifest.step))
        digest = FileDigest.read(io.BytesIO(content))
        self._remember(manifest, self._store.put(manifest_name, io.BytesIO(content), digest, None))
        sent += digest.size
        log.info("copied the checkpoint of step %d (%.1f MB) to %s", manifest.step, sent / 1e6, self._store.url)
        return sent

    def _remember(self, manifest: CheckpointManifest, found: StoredObject) -> None:
        assert self._remote is not None
        self._remote[manifest.step] = found
        self._manifests[manifest.step] = manifest
        self._inherited.discard(manifest.step)

    def _read_manifest(self, step: int) -> CheckpointManifest | None:
        try:
            return CheckpointManifest.of_step(self._manifest_bytes(step), step, RunRecord.id_of(self._run))
        except (OSError, ValueError):
            return None  # upload() says so

    def _written(self, step: int) -> int:
        """0 if it is gone."""
        try:
            return self._files.stat(object_name(self._run, self._run.checkpoint_manifest(step))).st_mtime_ns
        except OSError:
            return 0

    def _manifest_bytes(self, step: int) -> bytes:
        return self._files.read(object_name(self._run, self._run.checkpoint_manifest(step)), MANIFEST_BYTES)

    def _delete_orphans(self, objects: Iterable[StoredObject]) -> None:
        """Deletes files of steps without a manifest that an interrupted copy or deletion left behind."""
        assert self._remote is not None
        local = set(self._local_steps())
        newest = max(self._remote, default=-1)
        for each in objects:
            step = checkpoint_step(each.name)
            if step is not None and step < newest and step not in self._inherited and step not in local:
                self._store.delete(each)

    def _is_whole(self, manifest: CheckpointManifest) -> bool:
        folder = object_name(self._run, self._run.checkpoints)
        found = ((self._store.find(f"{folder}/{name}"), digest) for name, digest in manifest.files.items())
        return all(each is not None and each.matches(digest) for each, digest in found)

    def _delete_files(self, names: Iterable[str]) -> None:
        for name in names:
            found = self._store.find(f"{object_name(self._run, self._run.checkpoints)}/{name}")
            if found is not None:
                self._store.delete(found)
