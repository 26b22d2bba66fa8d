"""Write, verify, restore, broadcast.

A checkpoint is complete once its manifest exists and every file has the size and CRC32C that the manifest
gives. The chief alone writes and restores; the other workers get the state through the strategy, so that all
hold the same bits whatever each has on disk. A thread writes, from a copy, while training goes on.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import tensorflow as tf

from maskfleet.checkpoint_manifest import CheckpointManifest, best_step, kept_steps
from maskfleet.errors import BadSettings, TrainingFailed, reason
from maskfleet.files import FileDigest, wait_for_disk, write_atomically
from maskfleet.records import Event, RunRecord
from maskfleet.run_directory import RunDirectory
from trainer.checkpoints.inspection import names_in
from trainer.checkpoints.reading import StateWriter, copy_of, manifests_of, names_of

ADDED = frozenset({"state/skipped", "state/skipped_in_epoch"})
"""Variables that checkpoints of earlier versions have not: they keep the values they begin with."""


class CheckpointStore:
    """The checkpoints of one run, as the chief sees them.

    Args:
        run: where they lie.
        state: all that training needs to go on: weights, optimizer, step.
        keep: how many of the newest stay; the best by its score always does.

    Attributes:
        writing_seconds: that the last complete one was being written.
        writing_cpu_seconds: of one CPU that this took.
    """

    def __init__(self, run: RunDirectory, state: tf.train.Checkpoint, keep: int):
        self.run = run
        self._state = state
        self._keep = keep
        self._writer = StateWriter()
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._writing: Future[None] | None = None
        self.writing_seconds = self.writing_cpu_seconds = 0.0

    def save(self, step: int, epoch: int, training_seconds: float, miou: float | None, score: float | None) -> None:
        """Copies the state as it is now, and has it written while the caller goes on: :meth:`wait` for it.

        Data, then index, then manifest, each under a temporary name first. The one before is waited for.

        Raises:
            TrainingFailed: the one before could not be written.
        """
        self.wait()
        values = copy_of(self._state)
        manifest = CheckpointManifest(step, epoch, training_seconds, miou, {}, score, RunRecord.id_of(self.run))
        self._writing = self._thread.submit(self._write, values, manifest)

    def wait(self) -> None:
        """Until the checkpoint that is being written is complete; at once if there is none.

        Raises:
            TrainingFailed: the disk is full or not writable. Earlier checkpoints are untouched.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    @property
    def is_writing(self) -> bool:
        """Whether a checkpoint is not complete yet, and has not failed either."""
        return self._writing is not None and not self._writing.done()

    def _write(self, values: Mapping[str, tf.Tensor], manifest: CheckpointManifest) -> None:
        began, cpu = time.monotonic(), time.thread_time()
        name = self.run.checkpoint_prefix(manifest.step).name
        folder = self.run.unfinished_checkpoint
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._writer.write(values, str(folder / name))
            files = sorted(folder.glob(f"{name}.*"), key=lambda path: path.suffix == ".index")
            digests = {path.name: FileDigest.of(path) for path in files}
            for path in files:
                wait_for_disk(path)  # the manifest vouches for them, and older checkpoints are deleted for it
                path.replace(self.run.checkpoints / path.name)
            wait_for_disk(self.run.checkpoints)
            content = replace(manifest, files=digests).serialize()
            write_atomically(self.run.checkpoint_manifest(manifest.step), content)
        except (OSError, tf.errors.OpError) as error:
            raise self._not_written(manifest.step, error) from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        Event.append(self.run, "checkpoint", f"checkpoint of step {manifest.step} is complete")
        self._delete_old()
        self.writing_seconds = time.monotonic() - began
        self.writing_cpu_seconds = time.thread_time() - cpu

    def add_score(self, step: int, miou: float, score: float) -> None:
        """Completes the checkpoint of a step that was saved before its validation had come to an end.

        The manifest alone is replaced: the state is as good, and who goes on from it validates once more.

        Raises:
            TrainingFailed: the disk is full or not writable. The checkpoint is untouched.
        """
        self.wait()
        try:
            manifest = replace(CheckpointManifest.read(self.run, step), miou=miou, score=score)
            write_atomically(self.run.checkpoint_manifest(step), manifest.serialize())
        except (OSError, ValueError) as error:
            raise self._not_written(step, error) from error
        self._delete_old()

    def restore(self) -> CheckpointManifest | None:
        """Restores the newest checkpoint that verifies; None if there is none. Says which it passed over.

        Raises:
            BadSettings: its variables are not those of the state.
        """
        for step in self.run.checkpoint_steps():
            try:
                manifest = CheckpointManifest.read(self.run, step)
                problem = manifest.problem(self.run.checkpoints)
            except (OSError, ValueError) as error:
                problem = getattr(error, "strerror", None) or str(error)
            if problem is None:
                prefix = self.run.checkpoint_prefix(step)
                try:
                    self._read(str(prefix))
                except (AssertionError, ValueError) as error:  # other names, other shapes
                    raise BadSettings(
                        f"{prefix}: this checkpoint is of another network or optimizer than the settings ask for; "
                        "resume the run without the settings that change it, or start a new one"
                    ) from error
                return manifest
            print(f"checkpoint of step {step} is not used: {problem}", flush=True)
        return None

    def restore_best(self, score: float) -> str | None:
        """Restores the checkpoint that has this score, the best one of the run; or why it can't, in words.

        A destination gives a machine that takes over the newest checkpoint alone, so the best may not be here.
        """
        manifests = manifests_of(self.run)
        step = best_step(manifests)
        if step is None:
            return "no checkpoint has a score"
        manifest = manifests[step]
        if manifest.score != score:
            return f"that of the score {score:.4f} is not in {self.run.checkpoints}"
        try:
            problem = manifest.problem(self.run.checkpoints)
            if problem is None:
                self._read(str(self.run.checkpoint_prefix(step)))
        except (OSError, tf.errors.OpError) as error:
            problem = reason(error)
        return problem

    def _read(self, prefix: str) -> None:
        """Raises AssertionError for other names than those of the state, ValueError for other shapes."""
        status = self._state.read(prefix)
        try:
            status.assert_consumed()
        except AssertionError:
            status.expect_partial()  # else TensorFlow lists each of them
            if not names_of(self._state) - names_in(prefix) <= ADDED or names_in(prefix) - names_of(self._state):
                raise

    def delete_incomplete(self) -> None:
        """Removes files that belong to no manifest, as a kill during a save leaves them."""
        complete = set(self.run.checkpoint_steps())
        for path in self.run.checkpoints.glob("step-*"):
            step = path.name.removeprefix("step-").partition(".")[0]
            if step.isdigit() and int(step) not in complete:
                path.unlink(missing_ok=True)
        for path in self.run.checkpoint_manifests.glob(".*.tmp"):
            path.unlink(missing_ok=True)
        shutil.rmtree(self.run.unfinished_checkpoint, ignore_errors=True)

    def _delete_old(self) -> None:
        manifests = manifests_of(self.run)
        for step in manifests.keys() - kept_steps(manifests, self._keep):
            self.run.checkpoint_manifest(step).unlink(missing_ok=True)
            for path in self.run.checkpoints.glob(f"{self.run.checkpoint_prefix(step).name}.*"):
                path.unlink(missing_ok=True)

    def _not_written(self, step: int, error: Exception) -> TrainingFailed:
        prefix = self.run.checkpoint_prefix(step)
        return TrainingFailed(f"{prefix}: the checkpoint could not be written ({reason(error)}); {self._last_good()}")

    def _last_good(self) -> str:
        steps = self.run.checkpoint_steps()
        if not steps:
            return "there is no earlier one; free some space and start again"
        return f"that of step {steps[0]} is good: free some space and resume the run"
