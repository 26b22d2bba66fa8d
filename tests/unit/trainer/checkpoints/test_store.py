"""Checkpoints: complete or not there, the newest that verifies, and never without a good one."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import pytest
import tensorflow as tf

from maskfleet.errors import BadInput, BadSettings, TrainingFailed
from maskfleet.records import Resolved, RunRecord
from maskfleet.run_directory import RunDirectory
from trainer.checkpoints.reading import best_checkpoint, load_weights, manifests_of
from trainer.checkpoints.store import ADDED, CheckpointStore
from trainer.training.state import TrainingState


class Box:
    """A state of one variable."""

    def __init__(self, path: Path, keep: int = 2):
        self.variable = tf.Variable(tf.zeros([1000]))
        self.run = RunDirectory(path)
        self.store = CheckpointStore(self.run, tf.train.Checkpoint(weights={"a": self.variable}), keep)

    def save(self, step: int, score: float | None = None) -> None:
        self.variable.assign(tf.fill([1000], float(step)))
        self.store.save(step, 0, 0.0, None, score)
        self.store.wait()

    def restored(self) -> float | None:
        self.variable.assign(tf.zeros([1000]))
        return float(self.variable[0]) if self.store.restore() else None


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_the_newest_is_restored(box: Box):
    assert box.restored() is None
    box.save(1)
    box.save(2)
    assert box.restored() == 2


def test_the_newest_few_and_the_best_are_kept(box: Box):
    for step, score in enumerate([0.1, 0.9, 0.5, None, 0.6], start=1):
        box.save(step, score)
    assert box.run.checkpoint_steps() == [5, 4, 2]
    names = {path.name for path in box.run.checkpoints.glob("step-*")}
    assert len(names) == 6, "no file is left of those that were deleted"


def test_a_score_that_is_no_number_is_never_the_best(box: Box):
    for step, score in enumerate([float("nan"), 0.2, float("nan"), 0.1, float("nan"), float("nan")], start=1):
        box.save(step, score)
    best = best_checkpoint(box.run)
    assert best is not None
    assert best.step == 2
    assert box.run.checkpoint_steps() == [6, 5, 2]


def test_what_a_kill_leaves_is_removed(box: Box):
    box.save(1)
    box.save(2)
    box.run.checkpoint_manifest(2).unlink()
    (box.run.checkpoints / ".writing").mkdir()
    box.store.delete_incomplete()
    assert {path.name for path in box.run.checkpoints.iterdir()} == {
        "manifests",
        "step-00000001.index",
        "step-00000001.data-00000-of-00001",
    }
    assert box.restored() == 1


def test_a_manifest_is_written_when_all_that_it_vouches_for_outlives_a_crash(box: Box, monkeypatch: pytest.MonkeyPatch):
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(Path(f"/proc/self/fd/{file}").readlink().name))
    box.save(1)
    data, index, folder, manifest, manifests = synced
    assert (data, index) == ("step-00000001.data-00000-of-00001", "step-00000001.index")
    assert folder == box.run.checkpoints.name
    assert "step-00000001" in manifest
    assert manifests == box.run.checkpoint_manifests.name


def test_what_is_written_is_the_state_as_it_was_and_not_what_steps_make_of_it_meanwhile(box: Box) -> None:
    """The disk takes so long that training changes the state in place before anything of it is there."""
    writing = threading.Event()

    class SlowState(CheckpointStore):
        def _write(self, *what: Any) -> None:
            writing.wait()
            super()._write(*what)

    store = SlowState(box.run, tf.train.Checkpoint(weights={"a": box.variable}), 2)
    box.variable.assign(tf.fill([1000], 1.0))
    store.save(1, 0, 0.0, None, None)
    box.variable.assign_add(tf.ones([1000]))
    assert store.is_writing
    assert box.run.checkpoint_steps() == []
    writing.set()
    store.save(2, 0, 0.0, None, None)
    assert box.run.checkpoint_steps()[-1] == 1, "the next one waits for the one before"
    store.add_score(2, 0.5, 0.5)
    assert manifests_of(box.run)[2].score == 0.5, "a score waits for its checkpoint"
    assert box.restored() == 2
    box.run.checkpoint_manifest(2).unlink()
    assert box.restored() == 1


def test_later_checkpoints_hold_what_the_first_does_and_their_own_values(tmp_path: Path) -> None:
    """Names with all that TensorFlow writes in another way, and every type that a state has."""
    run, state = RunDirectory(tmp_path), TrainingState(2)
    weights = {"a/b.c": tf.Variable([1.5, -0.0]), "a.b/c": tf.Variable(tf.zeros([3, 2]))}
    whole = tf.train.Checkpoint(weights=weights, optimizer={"adam/step": tf.Variable(0, dtype=tf.int64)}, state=state)
    store = CheckpointStore(run, whole, 3)
    for step in (1, 2):
        state.step.assign(step)
        weights["a.b/c"].assign_add(tf.ones([3, 2]))
        store.save(step, 0, 0.0, None, None)
    store.wait()
    first, second = (tf.train.load_checkpoint(str(run.checkpoint_prefix(step))) for step in (1, 2))
    assert first.get_variable_to_dtype_map() == second.get_variable_to_dtype_map()
    assert first.get_variable_to_shape_map() == second.get_variable_to_shape_map()
    weights["a.b/c"].assign(tf.zeros([3, 2]))
    state.step.assign(0)
    assert store.restore() is not None
    assert (int(state.step), float(weights["a.b/c"][0, 0]), str(float(weights["a/b.c"][1]))) == (2, 2.0, "-0.0")


def test_nothing_is_left_to_write_when_its_process_ends(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
import tensorflow as tf
from maskfleet.run_directory import RunDirectory
from trainer.checkpoints.store import CheckpointStore

state = tf.train.Checkpoint(weights={"a": tf.Variable(tf.zeros([1 << 22]))})
CheckpointStore(RunDirectory(Path(sys.argv[1])), state, 2).save(1, 0, 0.0, None, None)
raise SystemExit(75)
"""
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == 75
    assert RunDirectory(tmp_path).checkpoint_steps() == [1]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"step": 1}'])
def test_a_damaged_manifest_is_told_to_who_reads_the_weights(box: Box, content: bytes):
    box.save(1)
    box.run.checkpoint_manifest(1).write_bytes(content)
    with pytest.raises(BadInput, match=r"checkpoint of step 1 in .* is damaged: no checkpoint manifest"):
        load_weights(box.run, keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)]))


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 1 KB, as if the disk were full: pytest's own output too, hence no fixture, which would
    last until after the test's result is printed."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_last_checkpoint_good(box: Box):
    box.save(1)
    with (
        pytest.raises(
            TrainingFailed, match=r"could not be written .*; that of step 1 is good: free some space"
        ) as caught,
        full_disk(),
    ):
        box.save(2)
    assert "\n" not in str(caught.value)
    assert box.run.checkpoint_steps() == [1]
    assert not (box.run.checkpoints / ".writing").exists()
    assert box.restored() == 1


@pytest.mark.parametrize("variables", [{"b": tf.zeros([1000])}, {"a": tf.zeros([999])}])
def test_a_checkpoint_of_another_network_is_one_line(box: Box, variables: dict[str, tf.Tensor]):
    box.save(1)
    other = tf.train.Checkpoint(weights={name: tf.Variable(value) for name, value in variables.items()})
    with pytest.raises(BadSettings, match=r"step-00000001: this checkpoint is of another network or optim.*") as caught:
        CheckpointStore(box.run, other, keep=2).restore()
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_a_version_that_counted_no_skipped_steps_is_read(tmp_path: Path) -> None:
    run, state = RunDirectory(tmp_path), TrainingState(2)
    state.step.assign(7)
    older = tf.Module()
    older.__dict__ |= {name: value for name, value in vars(state).items() if f"state/{name}" not in ADDED}
    store = CheckpointStore(run, tf.train.Checkpoint(weights={}, optimizer={}, state=older), 2)
    store.save(7, 0, 0.0, None, None)
    store.wait()
    found = TrainingState(2)
    assert CheckpointStore(run, tf.train.Checkpoint(weights={}, optimizer={}, state=found), 2).restore() is not None
    assert (int(found.step), int(found.skipped)) == (7, 0)


def test_damage_is_told_and_passed_over(box: Box, capsys: pytest.CaptureFixture[str]):
    box.save(1)
    box.save(2)
    box.run.checkpoint_manifest(2).write_text("{}")
    assert box.restored() == 1
    assert "checkpoint of step 2 is not used: no checkpoint manifest" in capsys.readouterr().out


def test_another_runs_checkpoint_is_told_and_passed_over(box: Box, capsys: pytest.CaptureFixture[str]) -> None:
    RunRecord({}, Resolved(), run_id="own").write(box.run)
    box.save(1, 0.1)
    RunRecord({}, Resolved(), run_id="other").write(box.run)
    box.save(2, 0.9)
    RunRecord({}, Resolved(), run_id="own").write(box.run)
    assert box.restored() == 1
    assert "checkpoint of step 2 is not used: it is of another run" in capsys.readouterr().out
    best = best_checkpoint(box.run)
    assert best is not None
    assert best.step == 1


def test_the_best_is_restored_or_it_is_said_why_not(box: Box) -> None:
    assert box.store.restore_best(0.9) == "no checkpoint has a score"
    for step, score in enumerate([0.1, 0.9, 0.5], start=1):
        box.save(step, score)
    assert box.store.restore_best(0.9) is None
    assert float(box.variable[0]) == 2
    box.variable.assign(tf.zeros([1000]))
    box.run.checkpoint_manifest(2).unlink()  # as on a machine that took over from another
    assert box.store.restore_best(0.9) == f"that of the score 0.9000 is not in {box.run.checkpoints}"
    data = next(box.run.checkpoints.glob("step-00000003.data*"))
    data.write_bytes(data.read_bytes()[:-1])
    assert "step-00000003.data" in str(box.store.restore_best(0.5))
    assert float(box.variable[0]) == 0
