"""A training process that waits until it is needed; then it is one as any other.

The supervisor starts it as ``python -m trainer.training.spare RUN GATE`` beside the one that trains, and writes a line
to the pipe GATE when that is lost: which workers train together, if not all do.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
from pathlib import Path

from maskfleet.command_line import prepare_outputs
from maskfleet.environment import PRESENT_VARIABLE
from maskfleet.quiet import leave_out_warnings
from trainer.training import process

WAITING, TRAINING = "trainer-spare", "trainer"
"""Its name in ``ps`` and ``top`` while it waits, and from then on."""
_KILLED_FIRST = "1000"


def main(arguments: list[str]) -> int:
    """Waits, and trains the run in the directory that ``arguments`` name first; returns the exit code."""
    run, gate = arguments
    before = _be_killed_first()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group
    gc.disable()
    prepare_outputs()
    leave_out_warnings()
    process.import_all()
    _call_itself(WAITING)
    with os.fdopen(int(gate)) as waiting:
        told = waiting.readline()
    if not told:  # the supervisor does not need it any more
        return 0
    if present := told.strip():
        os.environ[PRESENT_VARIABLE] = present
    _call_itself(TRAINING)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if before is not None:
        _set_killed(before)
    gc.freeze()
    gc.enable()
    return process.main([run])


def _be_killed_first() -> str | None:
    """When memory runs out; returns what was set before, None where the system has no such thing."""
    try:
        before = Path("/proc/self/oom_score_adj").read_text()
    except OSError:
        return None
    _set_killed(_KILLED_FIRST)
    return before


def _set_killed(score: str) -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(score)


def _call_itself(name: str) -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
