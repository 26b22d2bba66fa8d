"""How a supervisor starts a training process, or a spare one that is to become one."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from maskfleet import quiet
from maskfleet.child_processes import end_with_parent
from maskfleet.environment import HEARTBEAT_VARIABLE, PRESENT_VARIABLE
from trainer.supervision.loopback_only import LoopbackOnly

PROCESS_DEFAULTS = {
    quiet.LEVEL_VARIABLE: quiet.ERRORS_ONLY,
    # glibc returns large blocks to the kernel as soon as they are freed. A step of 64 images got 700 MB of them anew,
    # each page zeroed: a sixth of its time.
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(1 << 40),
    # Only the first arena grows without mmap. And a hundred threads of gRPC free what others allocate: with glibc's
    # own number of arenas two workers took 130 MB more each, and grew for longer.
    "MALLOC_ARENA_MAX": "1",
}
"""Variables of the training process that the supervisor's own environment does not set."""


@dataclass
class TrainingProcess:
    """One that runs.

    Attributes:
        heartbeat: the pipe's end where it is read what the process writes to show that it is alive.
        gate: the pipe's end where a spare one is told to go on; None of any other.
    """

    process: asyncio.subprocess.Process
    heartbeat: int
    gate: int | None = None

    def let_go(self, present: str) -> bool:
        """Has a spare process become the training process, of one of the ``present`` workers; False if it is gone."""
        assert self.gate is not None
        try:
            os.write(self.gate, f"{present}\n".encode())
        except BrokenPipeError:
            return False
        finally:
            os.close(self.gate)
            self.gate = None
        return self.process.returncode is None

    def close(self) -> None:
        """To be called of a spare one that is not needed any more, when it has ended."""
        os.close(self.heartbeat)
        if self.gate is not None:
            os.close(self.gate)
            self.gate = None


async def start(
    command: Sequence[str],
    *,
    is_spare: bool,
    loopback_only: bool,
    report_line: Callable[[str], None],
    present: str = "",
) -> TrainingProcess:
    """Starts ``command``; both kinds have the same environment, session, signals and outputs.

    Args:
        is_spare: it waits, at the pipe whose descriptor is its last argument, to be told to go on.
        loopback_only: its ports are for this machine.
        present: the workers that train together, if not all do; a spare one is told when it is let go.

    Raises:
        OSError: there is no room for another process.
    """
    heartbeat_read, heartbeat_write = os.pipe()
    gate_read, gate_write = os.pipe() if is_spare else (None, None)
    theirs = [heartbeat_write] if gate_read is None else [heartbeat_write, gate_read]
    ports = LoopbackOnly(report_line) if loopback_only else None
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            *([] if gate_read is None else [str(gate_read)]),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={
                **PROCESS_DEFAULTS,
                **os.environ,
                HEARTBEAT_VARIABLE: str(heartbeat_write),
                **({PRESENT_VARIABLE: present} if present else {}),
            },
            pass_fds=theirs,
            preexec_fn=end_with_parent(signal.SIGKILL, ports.ask if ports else None),
        )
    except BaseException:
        os.close(heartbeat_read)
        if gate_write is not None:
            os.close(gate_write)
        raise
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    if ports:
        ports.attend()
    return TrainingProcess(process, heartbeat_read, gate_write)
