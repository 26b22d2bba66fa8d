"""Real runs of several processes on this machine, and the means to disturb them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

import psutil

from maskfleet.environment import TOKEN_FILE_VARIABLE
from maskfleet.peers import Peers
from maskfleet.run_directory import RunDirectory
from trainer.checkpoints.inspection import inspect_checkpoint
from trainer.training.spare import TRAINING, WAITING

T = TypeVar("T")
SPARE = "trainer.training.spare"

SETTINGS = (
    "--encoder-weights=none",
    "--unfreeze-from=none",
    "--image-size=32",
    "--epochs=1",
    "--global-batch=6",
    "--threads=1",
    "--checkpoint-steps=5",
    "--no-export",
)
"""A run of 40 steps on the synthetic data, small enough for many of them."""
INVARIANT = ("--normalization=frozen", "--optimizer=sgd", "--learning-rate=0.01")
"""With frozen batch normalisation a replica's share of the batch can't matter. Without Adam's division by a tiny root,
what the order of additions changes stays as small as it is."""
PATIENCE = 600.0
"""For anything to happen, seconds; far more than it takes, on a machine that is busy."""


def launcher(*arguments: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    """Runs a launcher command to its end; standard error is part of the output."""
    command = [sys.executable, "-m", "launcher.cli", *arguments]
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False
    )


def trainer(*arguments: str, timeout: float = PATIENCE) -> subprocess.CompletedProcess[str]:
    """Runs a trainer command to its end; standard error is apart."""
    command = [sys.executable, "-m", "trainer.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def inspect(run: RunDirectory) -> dict[str, Any]:
    """Facts about the run's newest checkpoint, as ``trainer inspect`` prints them."""
    return inspect_checkpoint(run.path)


def environment_of(worker: int, peers: tuple[str, ...], folder: Path) -> dict[str, str]:
    """Of one worker that is started by hand; the token that all share lies in ``folder``."""
    token = folder / "token"
    token.write_text("of this test")
    return {**os.environ, "TF_CONFIG": Peers(worker, peers).tf_config(), TOKEN_FILE_VARIABLE: str(token)}


@contextlib.contextmanager
def pods(
    path: Path, peers: tuple[str, ...], *settings: str, own: Mapping[int, tuple[Sequence[str], Sequence[str]]]
) -> Iterator[RunDirectory]:
    """Workers with a run directory each, as in a pod of its own; yields that of the chief.

    Args:
        own: of some workers, what goes before the command, and settings.
    """
    processes = []
    try:
        for worker in range(len(peers)):
            prefix, more = own.get(worker, ((), ()))
            run = ["train", "--run-dir", str(path / f"run-{worker}"), *SETTINGS, *settings, *more]
            with (path / f"worker-{worker}.out").open("wb") as output:
                command = [*prefix, sys.executable, "-m", "trainer.cli", *run]
                environment = environment_of(worker, peers, path)
                processes.append(subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT))
        yield RunDirectory(path / "run-0")
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class LocalRun:
    """``launcher run`` in the background."""

    def __init__(self, path: Path, *arguments: str):
        self.directory = RunDirectory(path)
        self.output = path.with_suffix(".out")
        with self.output.open("ab") as output:
            self.process = psutil.Popen(
                [sys.executable, "-m", "launcher.cli", "run", *arguments], stdout=output, stderr=subprocess.STDOUT
            )

    @classmethod
    def start(cls, path: Path, *settings: str, workers: int = 2) -> Self:
        return cls(path, f"--run-dir={path}", f"--workers={workers}", "--", *SETTINGS, *settings)

    @classmethod
    def resume(cls, path: Path, *settings: str, workers: int = 2) -> Self:
        return cls(path, f"--resume={path}", f"--workers={workers}", "--", *settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends what is left of the run; a test that has gone well finds nothing."""
        for process in [*self.descendants(), self.process]:
            if process.is_running():
                process.kill()
        self.process.wait()

    def descendants(self) -> list[psutil.Process]:
        try:
            return list(self.process.children(recursive=True))
        except psutil.NoSuchProcess:
            return []

    def supervisor(self, worker: int) -> psutil.Process:
        """The supervisor of ``worker``, waiting for it."""
        return until(lambda: self._find("trainer.cli", worker), f"a supervisor of worker {worker}")

    def training_process(self, worker: int) -> psutil.Process:
        """The training process of ``worker``, waiting for it; it may have been a spare one."""
        return until(
            lambda: self._find("trainer.training.process", worker) or self._find(SPARE, worker, TRAINING),
            f"a training process of worker {worker}",
        )

    def spare_process(self, worker: int) -> psutil.Process:
        """The spare process of ``worker``, waiting until it is ready to take over."""
        return until(lambda: self._find(SPARE, worker, WAITING), f"a spare process of worker {worker}")

    def _find(self, module: str, worker: int, name: str | None = None) -> psutil.Process | None:
        for process in self.descendants():
            try:
                config = json.loads(process.environ().get("TF_CONFIG", '{"task": {"index": 0}}'))
                if module not in process.cmdline() or config["task"]["index"] != worker:
                    continue
                if name in (None, process.name()):
                    return process
            except psutil.Error:
                continue
        return None

    def wait_for_step(self, step: int) -> None:
        """Until the run has done ``step`` steps."""
        until(lambda: self.step() >= step or self.is_finished, f"step {step}")
        assert self.step() >= step, self.output.read_text()

    @property
    def is_finished(self) -> bool:
        """psutil's is_running() is true of a process that has ended until somebody has waited for it."""
        return self.process.poll() is not None

    def step(self) -> int:
        try:
            return int(json.loads(self.directory.progress.read_text())["step"])
        except (OSError, ValueError):
            return -1

    def wait(self) -> int:
        """The launcher's exit code."""
        return int(self.process.wait(PATIENCE))

    def interrupt(self) -> int:
        """Ctrl-C; the launcher's exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.wait()


def until(condition: Callable[[], T], what: str, patience: float = PATIENCE) -> T:
    """The first true value of ``condition``."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {patience:.0f} s in vain for {what}"
        time.sleep(0.02)
    return value


def leftovers(run: RunDirectory) -> list[str]:
    """Processes that still work on the run, and temporary files in its directory."""
    processes = [
        " ".join(process.info["cmdline"])
        for process in psutil.process_iter(["cmdline"])
        if process.pid != os.getpid() and any(str(run.path) in word for word in process.info["cmdline"] or [])
    ]
    files = [str(path) for path in run.path.rglob("*") if ".tmp" in path.name or ".writing" in path.name]
    return processes + files


def losses(run: RunDirectory) -> dict[int, float]:
    """The loss of every training step, as TensorBoard shows it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(run.tensorboard / "train"), size_guidance={"tensors": 0})
    accumulator.Reload()
    from tensorboard.util.tensor_util import make_ndarray

    return {event.step: float(make_ndarray(event.tensor_proto)) for event in accumulator.Tensors("loss")}
