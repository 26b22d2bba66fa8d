"""The environment variables by which the processes of a run speak to each other."""

from __future__ import annotations

import os

HEARTBEAT_VARIABLE = "MASKFLEET_HEARTBEAT_FD"
"""Names the pipe into which the training process writes a byte whenever it gets on."""
TOKEN_FILE_VARIABLE = "MASKFLEET_TOKEN_FILE"
"""Names the file with the run's token, by which its supervisors know each other. Set by launcher run, and in pods."""
DEBUG_VARIABLE = "MASKFLEET_DEBUG"
"""Set to 1 by a user who looks for a fault: tracebacks, and TensorFlow's own start-up lines. Read by every process."""


def is_debugging() -> bool:
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")
