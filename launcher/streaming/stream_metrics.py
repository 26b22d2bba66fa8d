"""What a streamer has sent and still has to send."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from maskfleet.run_directory import RunDirectory


def metrics_file(run: RunDirectory) -> Path:
    """Where a streamer notes how far it is; not copied anywhere."""
    return run.path / ".streamer.json"


@dataclass
class StreamMetrics:
    """How far a streamer is.

    ``lag_seconds`` is the age of the oldest byte that is not in the destination yet, ``lag_bytes`` how many there
    are. ``errors`` counts failed attempts, ``retries`` requests that were sent again within one.
    """

    time: float = 0.0
    destination: str = ""
    lag_seconds: float = 0.0
    lag_bytes: int = 0
    bytes_sent: int = 0
    retries: int = 0
    errors: int = 0
    last_error: str = ""
    problems: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, run: RunDirectory) -> StreamMetrics | None:
        """What the streamer of ``run`` last noted; None if none ever ran."""
        try:
            return cls(**json.loads(metrics_file(run).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def line(self) -> str:
        """One line for a log."""
        return (
            f"{self.lag_seconds:.0f} s and {self.lag_bytes / 1e6:.2f} MB behind, {self.bytes_sent / 1e6:.2f} MB sent, "
            f"{self.retries} retries, {self.errors} errors"
        )
