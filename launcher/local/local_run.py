"""Training on this machine: starts the workers exactly as pods would be started, and watches them.

It is to its workers what a Job is to its pods: a worker that is killed is started again, one that fails for
good ends the run.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
import random
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from launcher.local.console import Console
from maskfleet.child_processes import end_with_parent, lines, send_signal, signal_name
from maskfleet.config import TrainConfig
from maskfleet.environment import TOKEN_FILE_VARIABLE
from maskfleet.errors import BAD_INPUT, DONE, FAILED, INTERRUPTED, PEER_LOST, STOPPED, BadSettings, NotFound
from maskfleet.goodput import goodput_line
from maskfleet.peers import Peers
from maskfleet.phase_log import PhaseLog, ledger_of
from maskfleet.places_here import check_places
from maskfleet.records import Progress
from maskfleet.run_directory import RunDirectory, check_name
from maskfleet.run_lock import LOCK_FILE
from maskfleet.settings import Layer
from maskfleet.text import printable

STOP_SECONDS = 40.0
"""For the workers to save and leave; longer than their own grace."""
PROGRESS_SECONDS = 0.25


def new_run(path: Path | None, config_file: Path | None, flags: Layer) -> tuple[RunDirectory, TrainConfig]:
    """The directory of a new run, made if it was not there, and its settings.

    Raises:
        BadSettings: the settings are wrong, or the directory holds something already.
        BadData: there is no folder with the data.
    """
    config = TrainConfig.from_sources([config_file] if config_file else [], flags)
    check_places(config)
    check_name(path or Path())
    run = RunDirectory(path.expanduser() if path else _dated_folder())
    check_empty(run)
    return run, config


def check_empty(run: RunDirectory) -> None:
    """Raises BadSettings unless a new run may have the directory."""
    if run.config.exists():
        progress = Progress.read(run)
        state = "is complete" if progress is not None and progress.state == "done" else "has begun"
        raise BadSettings(
            f"--run-dir {run.path}: holds a run that {state}; go on with it by 'launcher run --resume {run.path}', "
            "or choose another directory"
        )
    # A streamer may be waiting for the run already. Nothing else: a run that is refused is removed with its directory.
    if run.path.is_dir() and set(run.path.iterdir()) - {run.streamer_notes, run.path / LOCK_FILE}:
        raise BadSettings(f"--run-dir {run.path}: expected an empty or new directory, found other files in it")


def _dated_folder() -> Path:
    """``runs/DATE-TIME``, made now: of two runs that begin in one second, each has its own."""
    now = time.strftime("%Y%m%d-%H%M%S")
    for number in itertools.count(1):
        folder = Path("runs") / (now if number == 1 else f"{now}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise BadSettings(f"--run-dir {folder}: can't be written: {error.strerror}") from error
        return folder
    raise AssertionError("there is no last number")


def resumed_run(path: Path, flags: Layer) -> tuple[RunDirectory, TrainConfig]:
    """The run in ``path``, with its own settings under those of ``flags``, which are not written yet.

    Raises:
        NotFound: there is no run.
        BadSettings: it is complete and the flags do not prolong it.
        BadData: the folder with its data is gone.
    """
    check_name(path)
    run = RunDirectory(path)
    if not run.config.exists():
        raise NotFound(f"--resume {path}: there is no run: expected {run.config}")
    config = TrainConfig.from_sources([run.config], flags)
    check_places(config, begun=bool(run.checkpoint_steps()))
    progress = Progress.read(run)
    if progress is not None and progress.state == "done" and config.epochs <= progress.epochs:
        raise BadSettings(
            f"--resume {path}: the run is complete ({progress.epochs} epochs); train on with '-- --epochs N'"
        )
    return run, config


def discard_refused(run: RunDirectory) -> None:
    """Removes a new run that was refused, so that the same command, corrected, finds no half-made one.

    It stays if anything was trained (the data may be gone at a restart, long after the beginning), or if another
    process works on it.
    """
    progress = Progress.read(run)
    if run.checkpoint_steps() or (progress is not None and progress.step > 0):
        return
    with contextlib.suppress(OSError), run.worker_log(0).open("rb") as log:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while a supervisor holds it
        shutil.rmtree(run.path)


class LocalRun:
    """One run with all its workers on this machine.

    Args:
        run: its directory, with config.json.
        config: its settings.
        workers: how many processes train.
        settings: flags that go over the run's own settings; the trainer writes them once the run is its own.
    """

    def __init__(
        self,
        run: RunDirectory,
        config: TrainConfig,
        workers: int,
        settings: Sequence[str] = (),
    ):
        self._run = run
        self._settings = settings
        self._token: Path | None = None
        self._config = config
        self._peers = tuple(f"127.0.0.1:{port}" for port in free_port_pairs(workers)) if workers > 1 else None
        self._workers = workers
        self._console = Console(workers)
        self._processes: dict[int, asyncio.subprocess.Process] = {}
        self._begun: Callable[[], None] | None = None
        self._restarts = 0
        self._interrupted = False
        self._stopping = False

    def report_line(self, text: str) -> None:
        """Prints a line beside what the workers print, from any thread."""
        self._console.report_line(printable(text))

    def run(self, begun: Callable[[], None] | None = None) -> int:
        """Trains to the end; returns the launcher's exit code.

        Args:
            begun: called once, when training has begun: its settings and data were not refused.
        """
        self._begun = begun
        self.report_line(f"run directory: {self._run.path}")
        phases = PhaseLog(self._run)
        phases.take_over(by_user=True)
        with self._console, _token_file() as self._token:
            code = asyncio.run(self._run_workers())
        phases.end()
        self.report_line(self._closing(code))
        return code

    async def _run_workers(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt)
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
            loop.add_signal_handler(signal.SIGHUP, self._save_and_leave)
        display = asyncio.create_task(self._show_progress())
        try:
            codes = await asyncio.gather(*(self._keep_running(worker) for worker in range(self._workers)))
        finally:
            display.cancel()
            for process in self._processes.values():
                send_signal(process, signal.SIGKILL)
        self._look_at_progress()
        if self._interrupted:
            return INTERRUPTED
        # The first cause: a worker that failed, rather than those that were stopped for it.
        return next((code for code in codes if code not in (DONE, STOPPED)), max(codes))

    async def _keep_running(self, worker: int) -> int:
        """Starts ``worker`` again for as long as it ends in a way that a restart can mend."""
        while True:
            code = await self._run_worker(worker)
            lost = code == PEER_LOST or code < 0
            if lost and self._stopping:
                return STOPPED
            if lost and self._restarts < self._config.max_restarts:
                self._restarts += 1
                reason = f"exit code {code}" if code > 0 else signal_name(code)
                self._console.report_line(f"worker {worker} ended ({reason}) and is started again")
                continue
            if code != DONE:
                self._stop_workers()
            return FAILED if lost else code

    async def _run_worker(self, worker: int) -> int:
        environment = dict(os.environ)
        if self._peers is not None:
            environment["TF_CONFIG"] = Peers(worker, self._peers).tf_config()
            environment[TOKEN_FILE_VARIABLE] = str(self._token)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "trainer.cli", "train", "--run-dir", str(self._run.path), *self._settings,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # a terminal's Ctrl-C is the launcher's to pass on
            preexec_fn=end_with_parent(signal.SIGKILL),
        )  # fmt: skip
        self._processes[worker] = process
        if self._stopping:
            send_signal(process, signal.SIGTERM)
        assert process.stdout is not None
        async for line in lines(process.stdout):
            self._console.worker_line(worker, line.decode(errors="replace").rstrip("\n"))
        return await process.wait()

    def _interrupt(self) -> None:
        if self._interrupted:
            for process in self._processes.values():
                send_signal(process, signal.SIGKILL)
            return
        self._save_and_leave()
        self._console.report_line("saving a checkpoint; press Ctrl-C again to leave without")

    def _save_and_leave(self) -> None:
        # A terminal that hangs up may say so twice, by the kernel and by the shell: that is no haste.
        self._interrupted = True
        self._stop_workers()

    def _stop_workers(self) -> None:
        self._stopping = True
        for process in self._processes.values():
            send_signal(process, signal.SIGTERM)

    async def _show_progress(self) -> None:
        while True:
            self._look_at_progress()
            await asyncio.sleep(PROGRESS_SECONDS)

    def _look_at_progress(self) -> None:
        progress = Progress.read(self._run)
        if progress is not None and self._begun is not None:
            self._begun()
            self._begun = None
        self._console.progress(progress)

    def _closing(self, code: int) -> str:
        time_line = f"goodput:     {goodput_line(ledger_of(self._run).seconds)}\n"
        if code == DONE:
            network = f"network:     {self._run.export}\n" if self._config.export else ""
            return (
                f"\n{time_line}pictures:    {self._run.pictures}\n{network}"
                f"TensorBoard: tensorboard --logdir {self._run.tensorboard}"
            )
        if code == BAD_INPUT:
            return ""
        return f"{time_line}go on with: launcher run --resume {self._run.path}"


@contextlib.contextmanager
def _token_file() -> Iterator[Path]:
    """A file that only this user can read, with a token by which the supervisors of one run know each other."""
    with tempfile.NamedTemporaryFile(prefix="maskfleet-token-") as file:  # made with mode 0600
        file.write(secrets.token_hex(32).encode())
        file.flush()
        yield Path(file.name)


def free_port_pairs(count: int) -> list[int]:
    """Free ports whose successor is free too: one for TensorFlow, one for the supervisor.

    They lie outside the range from which the kernel takes the ports of outgoing connections: one of those could
    come to lie there before the workers listen, and stay.
    """
    outgoing = _outgoing_ports()
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        while len(ports) < count:
            port = random.randrange(10_000, 65_000, 2)
            if port in outgoing or port + 1 in outgoing:
                continue
            pair = [held.enter_context(socket.socket()) for _ in range(2)]
            with contextlib.suppress(OSError):
                for offset, each in enumerate(pair):
                    each.bind(("", port + offset))
                ports.append(port)
    return ports


def _outgoing_ports() -> range:
    try:
        first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    except (OSError, ValueError):  # not on Linux
        return range(0)
    # Where it is almost all of them, any will do.
    return range(first, last + 1) if first > 11_000 else range(0)
