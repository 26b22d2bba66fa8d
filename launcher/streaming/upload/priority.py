"""Who comes first where training and copying compete for a processor: the training."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

NICENESS = 10


def lower_priority() -> None:
    """Makes this process, and the threads that it starts from now on, wait for those that train.

    Niceness alone does nothing for a process in a session of its own where the kernel groups by sessions
    (sched_autogroup): there the group's niceness counts. SCHED_BATCH lets it wake up without pushing anybody aside.
    """
    os.nice(NICENESS)
    with suppress(OSError, AttributeError):  # not on Linux, or forbidden
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICENESS))
