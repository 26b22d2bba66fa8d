"""Which files of a run are copied: those that are finished, and no link or special file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from maskfleet.plain_files import Entry, PlainFiles
from maskfleet.run_directory import RunDirectory

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def is_finished(name: str) -> bool:
    """Whether a name is not that of a file that is being written, ``.NAME`` or ``NAME.tmp``, and in no such folder."""
    return not any(part.startswith(".") for part in name.split("/")) and not name.endswith(".tmp")


def finished_files(files: PlainFiles, folder: str = "", *, deep: bool = True) -> Iterator[Entry]:
    """All below the folder that is not being written, in the order of the names; what is left out with its problem."""
    for entry in sorted(files.walk(folder, deep=deep), key=lambda entry: entry.name):
        if is_finished(entry.name):
            problem = entry.problem or _problem_of(entry.name)
            yield Entry(entry.name, problem, entry.error)


def small_files(run: RunDirectory, worker: int | None) -> Iterable[Entry]:
    """What there is now of the files of the first lane, by their names in the store."""
    files = PlainFiles(run.path)
    logs = run.logs.name
    if worker not in (None, 0):
        own = f"{logs}/{run.worker_log(worker).name}"
        return [entry for entry in finished_files(files, logs) if entry.name in (own, logs)]
    top = [*finished_files(files, deep=False)]
    below = [*finished_files(files, logs)]
    found = [entry for entry in below if entry.problem is not None or entry.name.endswith(".log")]
    # Event files, and what the profiler recorded.
    return [*top, *found, *finished_files(files, run.tensorboard.name), *finished_files(files, run.pictures.name)]


def _problem_of(name: str) -> str | None:
    """Why no object can have this name; None for most."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return "has a name that is not UTF-8"
    return "has a name with control characters" if _CONTROL.search(name) else None
