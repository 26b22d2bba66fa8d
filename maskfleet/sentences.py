"""What one process prints and another reads back, each with its pattern beside it."""

from __future__ import annotations

import re

ERROR = "error: "
"""Before the one line in which a process says why it ends."""


def without_error(line: str) -> str:
    """The line's reason alone."""
    return line.removeprefix(ERROR)


LOG_FORMAT = "%(asctime)s %(name)s: %(message)s"
"""Of the streamer's and the reporter's log, for logging."""
_LOG_PREFIX = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+ launcher[\w.]*: ")


def logged(line: str) -> str:
    """What was logged, of a line in :data:`LOG_FORMAT`; any other line as it is."""
    return _LOG_PREFIX.sub("", line, count=1) if _LOG_PREFIX.match(line) else line


_NOT_COPIED = "not copied: "


def not_copied(what: str) -> str:
    """The streamer, of each thing that it leaves behind when it ends."""
    return _NOT_COPIED + what


def what_was_not_copied(lines: list[str]) -> list[str]:
    """All that :func:`not_copied` says in the lines of a log."""
    messages = (logged(line) for line in lines)
    return [message.removeprefix(_NOT_COPIED) for message in messages if message.startswith(_NOT_COPIED)]


def out_of_memory(peak: int, limit: int) -> str:
    """The supervisor, when the kernel has killed the training process and not the whole container; bytes."""
    return (
        f"out of memory: the training process was killed at {peak >> 20} MiB of the container's {limit >> 20} MiB; "
        "raise --memory, or lower --batch-per-replica or --image-size"
    )


_OUT_OF_MEMORY = re.compile(r"(?:worker \d+: )?out of memory: .*?\b(\d+) MiB of .*")


def told_out_of_memory(line: str) -> tuple[str, int] | None:
    """The sentence of :func:`out_of_memory` in a line, and the peak in MiB; None if it is not there."""
    match = _OUT_OF_MEMORY.search(line)
    return (match[0], int(match[1])) if match else None


_OF_WORKER = re.compile(r"(?:error: )?worker (\d+): ")


def worker_at_fault(line: str) -> int | None:
    """Whose reason a supervisor gives in its last line, such as ``error: worker 3: …``; None if it names nobody."""
    match = _OF_WORKER.match(line)
    return int(match[1]) if match else None


def told_to_stop(workers: list[int]) -> str:
    """The chief's supervisor, of those that somebody has stopped; the others saved and left with them."""
    more = f" and {len(workers) - 1} more were" if len(workers) > 1 else " was"
    return f"worker {workers[0]}{more} told to stop"


def is_told_to_stop(line: str) -> bool:
    """Whether the line is, or ends with, what :func:`told_to_stop` says."""
    return line.endswith(" told to stop")
