"""A streamer beside a run on this machine: started when training begins, watched, told to drain after the workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from types import TracebackType
from typing import BinaryIO, Self

from launcher.streaming.stream_metrics import StreamMetrics
from maskfleet.backoff import pauses
from maskfleet.child_processes import end_with_parent, signal_name
from maskfleet.errors import DONE, FAILED, BadSettings, MaskfleetError
from maskfleet.plain_files import PlainFiles
from maskfleet.run_directory import RunDirectory
from maskfleet.sentences import ERROR, logged, what_was_not_copied, without_error
from maskfleet.text import one_line

DRAIN_SECONDS = 600.0
"""For what is left after the workers have ended; nobody is about to take this machine away."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Before one that has crashed is started again, seconds."""
MAX_RESTARTS = 10
_LONGEST = 1 << 16
"""Bytes of what a streamer has said that are looked at."""
HEALTHY_SECONDS = 600.0
"""After which a streamer counts as one that has not crashed before."""


class NotStreamed(MaskfleetError):
    """The run has ended, and not all of it is in its destination."""


class StreamerProcess:
    """``launcher stream`` as a child process, once it is told to :meth:`start`; a context manager around the run.

    A run that is refused before it begins leaves nothing in the destination, where the corrected one shall go.

    One that ends before it is told to is named at once, with its reason. If it was killed or has crashed it is started
    again, :data:`MAX_RESTARTS` times at most; one that says why it ends, such as for another streamer on its
    destination, would do so again. The training goes on without, and what is left is tried once more at its end.

    Args:
        report_line: prints a line to the user, from any thread.
        keep_checkpoints: how many of the newest the destination keeps, beside the best; None keeps all.

    Raises:
        NotStreamed: on leaving: something could not be copied; unless the run itself failed.
    """

    def __init__(
        self,
        run: RunDirectory,
        destination: str,
        report_line: Callable[[str], None],
        keep_checkpoints: int | None = None,
    ):
        self._run = run
        self._destination = destination
        self._report_line = report_line
        self._keep_checkpoints = keep_checkpoints
        self._thread: threading.Thread | None = None
        self._changing = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._code = DONE
        self._log_start = 0
        self._ending = threading.Event()
        self._is_overdue = False
        self._problem: str | None = None  # why no process could be started

    def __enter__(self) -> Self:
        return self

    def start(self) -> None:
        self._open_log().close()  # refused here and now, if it is
        # Processes end with the thread that made them: it is there until the last one has ended, or we are to leave.
        self._thread = threading.Thread(target=self._keep_running, daemon=True)
        self._thread.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is None:
            return
        self._report_line(f"copying the rest to {self._destination}")
        with self._changing:
            self._ending.set()
            if self._process is not None:
                self._process.terminate()
        self._thread.join(DRAIN_SECONDS + 10)
        if self._thread.is_alive():
            with self._changing:
                self._is_overdue = True
                if self._process is not None:
                    self._process.kill()
            self._thread.join()
        if self._code == DONE:
            metrics = StreamMetrics.load(self._run)
            self._report_line(
                f"copied to:   {self._destination}" + (f" ({metrics.bytes_sent / 1e6:.1f} MB)" if metrics else "")
            )
            if metrics and metrics.left_out:
                self._report_line(
                    f"left out:    {metrics.left_out} links or special files; see {self._run.streamer_log}"
                )
            return
        message = (
            f"not all of {self._run.path} is in {self._destination}: {self._why()}; mend it and run "
            f"'launcher stream {self._run.path} {self._destination} --once'"
        )
        if kind is None:
            raise NotStreamed(message)
        self._report_line(f"error: {message}")

    def _keep_running(self) -> None:
        """Until the end: of a streamer that was told to drain or, where none is left to be told, that copies once."""
        waits = _waits()
        while True:
            began = time.monotonic()
            with self._changing:
                last = self._ending.is_set()
                try:
                    self._process = self._start_process(*(["--once"] if last else []))
                except (OSError, MaskfleetError) as error:
                    self._code, self._problem = FAILED, str(error)
                    self._report_line(f"warning: nothing is copied to {self._destination}: {error}")
                    return
            self._code = self._process.wait()
            if last or self._is_overdue or (self._ending.is_set() and self._code >= 0):
                return
            if self._ending.is_set():
                continue
            if time.monotonic() - began > HEALTHY_SECONDS:
                waits = _waits()
            pause = None if self._said_why() else next(waits, None)
            then = "the training goes on without it" if pause is None else f"it is started again in {pause:.0f} s"
            self._report_line(f"warning: nothing is copied to {self._destination}: {self._why()}; {then}")
            self._ending.wait(pause)

    def _start_process(self, *flags: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "launcher.cli", "stream", str(self._run.path), self._destination, *flags]
        command += ["--grace", str(DRAIN_SECONDS)]
        if self._keep_checkpoints is not None:
            command += ["--keep-checkpoints", str(self._keep_checkpoints)]
        with self._open_log() as log:
            self._log_start = os.fstat(log.fileno()).st_size
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the training first
                preexec_fn=end_with_parent(signal.SIGTERM),
            )

    def _open_log(self) -> BinaryIO:
        try:
            return PlainFiles(self._run.path).open_to_append(self._run.streamer_log.name)
        except OSError as error:
            raise BadSettings(f"{self._run.streamer_log}: can't be written: {error.strerror or error}") from error

    def _said_why(self) -> bool:
        return self._code > 0 and bool(lines := self._lines()) and lines[-1].startswith(ERROR)

    def _why(self) -> str:
        """What the newest process has named of what it left, or else its last words."""
        if self._problem is not None:
            return self._problem
        if self._is_overdue:
            return f"it was not done after {DRAIN_SECONDS:.0f} s"
        if self._code < 0:
            return f"the streamer was killed by {signal_name(self._code)}"
        if self._code == DONE:
            return "the streamer was told to end"
        lines = self._lines()
        if left := what_was_not_copied(lines):
            return one_line(left[-1])
        return one_line(without_error(logged(lines[-1]))) if lines else "the streamer said nothing"

    def _lines(self) -> list[str]:
        """What the newest process has said."""
        with self._open_log() as log:
            length = os.fstat(log.fileno()).st_size - self._log_start
            said = os.pread(log.fileno(), min(length, _LONGEST), self._log_start + max(0, length - _LONGEST))
        return said.decode(errors="replace").strip().splitlines()


def _waits() -> Iterator[float]:
    return islice(pauses(FIRST_PAUSE, LONGEST_PAUSE), MAX_RESTARTS)
