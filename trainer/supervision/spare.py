"""A spare process beside the training process: it has imported TensorFlow, and takes its place when that is lost.

Imports take most of a restart. The kernel ends a spare process with its supervisor, and kills it before any other when
memory runs out.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

from maskfleet.child_processes import send_signal, signal_name
from maskfleet.peers import Peers
from trainer import cgroup
from trainer.supervision.training_process import TrainingProcess

DELAY_SECONDS = 3.0
"""Of steps, before one is started: a run that is soon over needs none."""
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 5.0, 300.0
"""After one has ended by itself; twice as long each time."""


class SpareKeeper:
    """Keeps one spare process as long as training goes on.

    Args:
        when: ``auto``: where memory allows.
        start: starts one.
        peers: of whom those on this machine keep one each; the chief says where one waits, each where none does.
        report_line: prints a line for the user.
        report_end: called when one has ended by itself.
    """

    def __init__(
        self,
        when: Literal["auto", "on", "off"],
        start: Callable[[], Awaitable[TrainingProcess]],
        peers: Peers,
        report_line: Callable[[str], None],
        report_end: Callable[[], None],
    ):
        self._when = when
        self._start = start
        self._peers = peers
        self._report_line = report_line
        self._report_end = report_end
        self._spare: TrainingProcess | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._has_reported = False

    def keep(self, training: int) -> None:
        """The training process with this number makes steps: from now on there shall be a spare one."""
        if self._when != "off" and self._keeping is None:
            self._keeping = asyncio.create_task(self._keep(training))

    def take(self, present: str) -> TrainingProcess | None:
        """The spare process, which now goes on as that of one of the ``present`` workers; None if there is none."""
        spare, self._spare = self._spare, None
        if self._keeping is not None:
            self._keeping.cancel()
            self._keeping = None
        if spare is None or spare.let_go(present):
            return spare
        spare.close()
        return None

    async def end(self) -> None:
        """Leaves no process behind."""
        spare, self._spare = self._spare, None
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping
            self._keeping = None
        if spare is not None:
            send_signal(spare.process, signal.SIGKILL)
            await spare.process.wait()
            spare.close()

    async def _keep(self, training: int) -> None:
        await asyncio.sleep(DELAY_SECONDS)
        delay = FIRST_RETRY_SECONDS
        while self._has_room(training):
            try:
                self._spare = spare = await self._start()
            except OSError as error:
                why = error.strerror or str(error)
            else:
                why = await _ending(spare.process)
                self._spare = None
                spare.close()
                self._report_end()
            self._report_line(f"the spare process was lost ({why}); there is another one in {delay:.0f} s")
            await asyncio.sleep(delay)
            delay = min(2 * delay, LAST_RETRY_SECONDS)

    def _has_room(self, training: int) -> bool:
        """Whether as much memory is free, for each worker of this machine, as the training process has."""
        if self._when == "on":
            return True
        try:
            needed = int(Path(f"/proc/{training}/statm").read_text().split()[1]) * resource.getpagesize()
        except (OSError, ValueError):  # it has just ended, or this is no Linux
            return False
        free = cgroup.free_memory()
        workers = self._peers.local_workers
        room = free is not None and free // workers >= needed
        if not self._has_reported and (self._peers.is_chief or not room):
            self._has_reported = True
            each = "" if workers == 1 else f" for {workers} workers"
            found = "nobody knows how much" if free is None else f"{free >> 20} MiB{each}"
            self._report_line(
                f"--spare auto: {'a spare process waits' if room else 'no spare process, a lost one takes longer'}; "
                f"training takes {needed >> 20} MiB, {found} of memory is free"
            )
        return room


async def _ending(process: asyncio.subprocess.Process) -> str:
    """Waits for the end of a spare process, and says how it was."""
    assert process.stdout is not None
    code = await process.wait()  # before anything is read: it may have to be read by who takes the process
    written = await process.stdout.read()
    words = written.decode(errors="replace").strip().rpartition("\n")[2]
    how = f"killed by {signal_name(code)}" if code < 0 else f"exit code {code}"
    return f"{how}: {words:.200}" if words and code >= 0 else how
