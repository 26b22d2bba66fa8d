"""A file of what TensorBoard shows, which needs no clock that only goes forward.

TensorBoard's own writer flushes by the time of day, so a clock that is set back by an hour hides an hour of curves. And
TensorBoard reads the files of a folder by name, which begins with a time: one that was begun later has to come later.
"""

from __future__ import annotations

import os
import re
import socket
import time
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter

_NAME = re.compile(r"events\.out\.tfevents\.(\d{10})\.")


class EventFile:
    """A new one in ``folder``, behind all that are there."""

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        times = [int(match[1]) for path in folder.iterdir() if (match := _NAME.match(path.name))]
        began = max(int(time.time()), max(times, default=0) + 1)
        path = folder / f"events.out.tfevents.{began:010}.{socket.gethostname()}.{os.getpid()}"
        self._file = path.open("xb")
        self._records = RecordWriter(self._file)
        self.add(Event(file_version="brain.Event:2"))

    def add(self, event: Event) -> None:
        """Whole and at once, so that whoever reads the file sees it; its time is set to now."""
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())
        self._file.flush()

    def close(self) -> None:
        self._file.close()
