"""The environment variables by which the processes of a run speak to each other."""

from __future__ import annotations

HEARTBEAT_VARIABLE = "MASKFLEET_HEARTBEAT_FD"
"""Names the pipe into which the training process writes a byte whenever it gets on."""
