"""Which files of a run are copied: those that are finished, and no link or special file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from maskfleet.plain_files import Entry, PlainFiles
from maskfleet.run_directory import RunDirectory


def is_finished(name: str) -> bool:
    """Whether a name is not that of a file that is being written, ``.NAME`` or ``NAME.tmp``, and in no such folder."""
    return not any(part.startswith(".") for part in name.split("/")) and not name.endswith(".tmp")


def finished_files(files: PlainFiles, folder: str = "", *, deep: bool = True) -> Iterator[Entry]:
    """All below the folder that is not being written, in the order of the names; what is left out with its problem."""
    for entry in sorted(files.walk(folder, deep=deep), key=lambda entry: entry.name):
        if is_finished(entry.name):
            yield entry if _is_text(entry.name) else Entry(entry.name, "has a name that is not UTF-8")


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


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
