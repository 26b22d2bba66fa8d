"""Whatever is killed, frozen or damaged, the run ends by itself with the bits of the undisturbed run."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from maskfleet.checkpoint_manifest import CheckpointManifest
from maskfleet.errors import FAILED
from maskfleet.records import MetricsLine
from tests.helpers.processes import LocalRun, inspect, leftovers, losses, until
from trainer.checkpoints.reading import best_checkpoint


def kill_chief(run: LocalRun) -> None:
    run.training_process(0).kill()


def kill_worker(run: LocalRun) -> None:
    run.training_process(1).kill()


def kill_both(run: LocalRun) -> None:
    for process in (run.training_process(0), run.training_process(1)):
        process.kill()


def kill_supervisor_of_chief(run: LocalRun) -> None:
    run.supervisor(0).kill()


def kill_supervisor_of_worker(run: LocalRun) -> None:
    run.supervisor(1).kill()


def freeze_worker(run: LocalRun) -> None:
    run.training_process(1).suspend()


def kill_during_a_checkpoint(run: LocalRun) -> None:
    writing = run.directory.checkpoints / ".writing"
    until(writing.exists, "a checkpoint that is being written")
    run.training_process(0).kill()


FAULTS = [
    kill_chief,
    kill_worker,
    pytest.param(kill_both, marks=pytest.mark.long),
    kill_supervisor_of_chief,
    pytest.param(kill_supervisor_of_worker, marks=pytest.mark.long),
    freeze_worker,
    kill_during_a_checkpoint,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_run_survives(fault: Callable[[LocalRun], None], tmp_path: Path, undisturbed_state: str):
    with LocalRun.start(tmp_path / "run") as run:
        run.wait_for_step(7)
        fault(run)
        assert run.wait() == 0, run.output.read_text()
    assert inspect(run.directory)["sha256"] == undisturbed_state
    assert leftovers(run.directory) == []
    assert "Traceback" not in run.output.read_text()


def truncate(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_full_disk_is_told_in_one_line(tmp_path: Path):
    """A limit on the size of files makes the same writes fail: the checkpoint's, and then that of the last pictures."""
    with LocalRun.start(tmp_path / "run", "--checkpoint-steps=0", workers=1) as run:
        resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
        assert run.wait() == FAILED
    output = run.output.read_text()
    assert "Traceback" not in output
    assert "the checkpoint could not be written" in output
    assert "File too large" in output
    assert "there is no earlier one; free some space and start again" in output


def test_damaged_checkpoints_are_passed_over(tmp_path: Path, undisturbed_state: str):
    """SIGKILL of everything; then the newest checkpoints are truncated, flipped and missing."""
    path = tmp_path / "run"
    with LocalRun.start(path, "--keep=5") as run:
        # They are written while the steps go on, so that of step 20 may be there later.
        until(lambda: len(run.directory.checkpoint_steps()) >= 4, "four checkpoints")
        run.process.kill()
        until(lambda: not leftovers(run.directory) or not any("trainer" in left for left in leftovers(run.directory)),
              "the workers to die with the launcher")  # fmt: skip
    steps = run.directory.checkpoint_steps()
    truncate(next(run.directory.checkpoints.glob(f"step-{steps[0]:08d}.data*")))
    flip_a_byte(next(run.directory.checkpoints.glob(f"step-{steps[1]:08d}.data*")))
    (run.directory.checkpoints / f"step-{steps[2]:08d}.index").unlink()
    with LocalRun.resume(path) as run:
        assert run.wait() == 0, run.output.read_text()
    output = run.output.read_text()
    assert f"checkpoint of step {steps[0]} is not used" in output
    assert f"step-{steps[2]:08d}.index is missing" in output
    assert f"goes on from step {steps[3]} of 40" in output
    assert inspect(run.directory)["sha256"] == undisturbed_state


def test_a_terminated_worker_saves_with_all_others(tmp_path: Path, undisturbed_state: str):
    """SIGTERM to one worker, as an eviction does: all save at the same step and leave, and a resume goes on."""
    path = tmp_path / "run"
    with LocalRun.start(path) as run:
        run.wait_for_step(7)
        started = time.monotonic()
        run.supervisor(1).terminate()
        assert run.wait() == 143, run.output.read_text()
        assert time.monotonic() - started < 30
    assert inspect(run.directory)["step"] == run.step()
    with LocalRun.resume(path) as run:
        assert run.wait() == 0, run.output.read_text()
    assert inspect(run.directory)["sha256"] == undisturbed_state


def test_a_stop_among_several_steps_of_a_call_loses_nothing(tmp_path: Path, undisturbed_state: str):
    path = tmp_path / "run"
    with LocalRun.start(path, "--steps-per-call=4") as run:
        run.wait_for_step(7)
        run.supervisor(1).terminate()
        assert run.wait() == 143, run.output.read_text()
    assert inspect(run.directory)["step"] == run.step()
    with LocalRun.resume(path) as run:
        assert run.wait() == 0, run.output.read_text()
    assert inspect(run.directory)["sha256"] == undisturbed_state
    assert sorted(losses(run.directory)) == list(range(1, 41))


def test_a_stop_at_the_end_of_an_epoch_keeps_its_score(tmp_path: Path):
    """With a whole epoch in each call, no stop falls elsewhere."""
    path = tmp_path / "run"
    settings = ("--steps-per-call=40", "--checkpoint-steps=0", "--epochs=3", "--keep=1")
    with LocalRun.start(path, *settings, workers=1) as run:
        run.wait_for_step(40)
        run.supervisor(0).terminate()
        assert run.wait() == 143, run.output.read_text()
    best = best_checkpoint(run.directory)
    assert best is not None
    assert best.step in (40, 80)
    manifests = [CheckpointManifest.parse(path.read_bytes()) for path in run.directory.checkpoint_manifests.iterdir()]
    assert all(manifest.score is not None for manifest in manifests)
    with LocalRun.resume(path, workers=1) as run:
        assert run.wait() == 0, run.output.read_text()
    assert [line.epoch for line in MetricsLine.read_all(run.directory)] == [1, 2, 3]


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path, undisturbed_state: str):
    path = tmp_path / "run"
    with LocalRun.start(path) as run:
        run.wait_for_step(3)
        assert run.interrupt() == 130
    assert f"go on with: launcher run --resume {path}" in run.output.read_text()
    assert leftovers(run.directory) == []
    with LocalRun.resume(path) as run:
        assert run.wait() == 0, run.output.read_text()
    assert inspect(run.directory)["sha256"] == undisturbed_state


def test_a_stopped_launcher_leaves_no_process(tmp_path: Path):
    """SIGKILL of the launcher alone: the kernel ends its workers."""
    with LocalRun.start(tmp_path / "run") as run:
        children = [run.training_process(0), run.training_process(1), run.supervisor(0), run.supervisor(1)]
        run.process.send_signal(signal.SIGKILL)
        _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
