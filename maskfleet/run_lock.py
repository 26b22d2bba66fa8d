"""Who works on a run: one launcher on this machine, and a supervisor for each worker.

A lock comes before the first change, so that whoever is refused has changed nothing. The kernel frees the locks of a
process that dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from maskfleet.errors import BadSettings
from maskfleet.plain_files import PlainFiles
from maskfleet.run_directory import RunDirectory

LOCK_FILE = ".lock"
"""Of the launcher, in the run's folder."""


@contextlib.contextmanager
def launcher_lock(run: RunDirectory) -> Iterator[None]:
    """The run is this launcher's while the block runs.

    Raises:
        BadSettings: another launcher or supervisor works on it, or its folder can't be written.
    """
    with _locked(run, run.path / LOCK_FILE):
        for log in sorted(run.logs.glob("worker-*.log")):  # of a trainer that was started by hand
            _locked(run, log).close()
        yield


@contextlib.contextmanager
def not_in_use(run: RunDirectory) -> Iterator[None]:
    """Nobody works on the run while the block runs, for whoever brings files into a folder that may be one.

    Makes no lock of its own: in a folder without one nobody ever trained. Those of the launcher and of worker 0,
    without whom nobody trains, are held; the others, of which there may be more than files can be open, are tried.

    Raises:
        BadSettings: somebody works on it.
    """
    files = PlainFiles(run.path)
    logs = (f"{run.logs.name}/{path.name}" for path in sorted(run.logs.glob("worker-*.log")))
    with contextlib.ExitStack() as held:
        for name in (LOCK_FILE, *logs):
            with contextlib.suppress(OSError), contextlib.ExitStack() as opened:  # none, or a link: nobody's lock
                files.stat(name)
                file = opened.enter_context(files.open_to_append(name))  # NFS locks what may be written alone
                _lock(file, f"{run.path}", run.path / name)
                if name == LOCK_FILE or run.path / name == run.worker_log(0):
                    held.enter_context(opened.pop_all())
        yield


def open_worker_log(run: RunDirectory, worker: int) -> BinaryIO:
    """The worker's log, to be added to; whoever has it open is the worker's supervisor.

    Raises:
        BadSettings: another supervisor has it, or it can't be written.
    """
    return _locked(run, run.worker_log(worker))


def _locked(run: RunDirectory, path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not through a link, and without waiting for the reader of a FIFO.
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        raise BadSettings(f"--run-dir {run.path}: can't be written: {error.strerror}") from error
    file = os.fdopen(descriptor, "ab", buffering=0)
    try:
        _lock(file, f"--run-dir {run.path}", path)
    except BadSettings:
        file.close()
        raise
    return file


def _lock(file: BinaryIO, folder: str, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise BadSettings(
            f"{folder}: in use by another process (it holds {path}); "
            "wait for it, stop it, or choose another run directory"
        ) from error
