"""What a streamer has sent and still has to send."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from maskfleet.files import read_plain, write_json
from maskfleet.records import RECORD_BYTES
from maskfleet.run_directory import RunDirectory
from maskfleet.schema import Count, Seconds, parsed


@dataclass
class StreamMetrics:
    """How far a streamer is.

    ``lag_seconds`` is the age of the oldest byte that is not in the destination yet, ``lag_bytes`` how many there
    are. ``errors`` counts failed attempts, ``retries`` requests that were sent again within one, ``left_out`` links
    and special files, which are not copied.
    """

    time: Seconds = 0.0
    destination: str = ""
    lag_seconds: Seconds = 0.0
    lag_bytes: Count = 0
    bytes_sent: Count = 0
    retries: Count = 0
    errors: Count = 0
    left_out: Count = 0
    last_error: str = ""
    problems: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, run: RunDirectory) -> StreamMetrics | None:
        """What the streamer of ``run`` last noted; None if none ever ran."""
        try:
            return parsed(cls, read_plain(run.streamer_notes, RECORD_BYTES))
        except OSError:
            return None

    def write(self, run: RunDirectory) -> None:
        """Never waits for the training's disk. Raises OSError."""
        write_json(run.streamer_notes, asdict(self), durable=False)

    def line(self) -> str:
        """One line for a log."""
        return (
            f"{self.lag_seconds:.0f} s and {self.lag_bytes / 1e6:.2f} MB behind, {self.bytes_sent / 1e6:.2f} MB sent, "
            f"{self.retries} retries, {self.errors} errors"
        )
