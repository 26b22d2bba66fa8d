"""A streamer beside a run on this machine: started when training begins, told to drain after the workers."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from types import TracebackType
from typing import BinaryIO, Self

from launcher.streaming.stream_metrics import StreamMetrics
from maskfleet.child_processes import end_with_parent
from maskfleet.errors import DONE, BadSettings, MaskfleetError
from maskfleet.plain_files import PlainFiles
from maskfleet.run_directory import RunDirectory
from maskfleet.sentences import logged, what_was_not_copied, without_error
from maskfleet.text import one_line

DRAIN_SECONDS = 600.0
"""For what is left after the workers have ended; nobody is about to take this machine away."""


class NotStreamed(MaskfleetError):
    """The run has ended, and not all of it is in its destination."""


class StreamerProcess:
    """``launcher stream`` as a child process, once it is told to :meth:`start`; a context manager around the run.

    A run that is refused before it begins leaves nothing in the destination, where the corrected one shall go.

    Args:
        say: prints a line to the user.
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
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def start(self) -> None:
        command = [sys.executable, "-m", "launcher.cli", "stream", str(self._run.path), self._destination]
        command += ["--grace", str(DRAIN_SECONDS)]
        if self._keep_checkpoints is not None:
            command += ["--keep-checkpoints", str(self._keep_checkpoints)]
        with self._log() as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the training first
                preexec_fn=end_with_parent(signal.SIGTERM),
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            self._report_line(f"copying the rest to {self._destination}")
            self._process.terminate()
        try:
            code = self._process.wait(DRAIN_SECONDS + 10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        if code == DONE:
            metrics = StreamMetrics.load(self._run)
            self._report_line(
                f"copied to:   {self._destination}" + (f" ({metrics.bytes_sent / 1e6:.1f} MB)" if metrics else "")
            )
            if metrics and metrics.left_out:
                self._report_line(
                    f"left out:    {metrics.left_out} links or special files; see {self._run.streamer_log}"
                )
            return
        last = self._why_not_all()
        message = (
            f"not all of {self._run.path} is in {self._destination}: {last}; mend it and run "
            f"'launcher stream {self._run.path} {self._destination} --once'"
        )
        if kind is None:
            raise NotStreamed(message)
        self._report_line(f"error: {message}")

    def _log(self) -> BinaryIO:
        try:
            return PlainFiles(self._run.path).open_to_append(self._run.streamer_log.name)
        except OSError as error:
            raise BadSettings(f"{self._run.streamer_log}: can't be written: {error.strerror or error}") from error

    def _why_not_all(self) -> str:
        """What the streamer has named of what it left, or else its last words."""
        lines = self._run.streamer_log.read_text(errors="replace").strip().splitlines()
        if left := what_was_not_copied(lines):
            return one_line(left[-1])
        return one_line(without_error(logged(lines[-1]))) if lines else "it said nothing"
