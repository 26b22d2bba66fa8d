"""Tells the supervisor how fast this worker is by itself, through the pipe of the heartbeat."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict

from maskfleet.environment import HEARTBEAT_VARIABLE
from maskfleet.pace import NO_STEPS, Steps

TELL_SECONDS = 1.0
"""Between two lines at least: the pipe holds a few hundred of them, and nobody may be held up by it."""


class PaceMeter:
    """Adds up the steps of one training process.

    Args:
        share: of this worker in a step's examples, against the mean of all workers.
    """

    def __init__(self, share: float = 1.0):
        pipe = os.environ.get(HEARTBEAT_VARIABLE)
        self._pipe = None if pipe is None else int(pipe)
        self._share = share
        self._steps: Steps | None = None
        self._told_at = 0.0

    def steps(self, count: int, seconds: float, waited: float, computed: float, all_reduce: float) -> None:
        """What ``count`` steps took together; the first call builds the graph and says nothing about the pace."""
        if self._steps is None:
            self._steps = NO_STEPS
            return
        self._steps += Steps(count, seconds, waited, computed / self._share, all_reduce)
        if self._pipe is not None and (now := time.monotonic()) - self._told_at > TELL_SECONDS:
            # One write of less than a page is whole in the pipe, whoever else writes.
            os.write(self._pipe, json.dumps(asdict(self._steps)).encode() + b"\n")
            self._steps, self._told_at = NO_STEPS, now
