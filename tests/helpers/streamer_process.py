"""A streamer in a process of its own, which tests may kill. Imports little, so that it starts at once."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

from launcher.streaming.stores import gcs
from launcher.streaming.stores.opening import open_store
from launcher.streaming.upload.guarded_object import Conflict
from launcher.streaming.upload.streamer import Streamer
from maskfleet.run_directory import RunDirectory

DESTINATION = "gs://bucket/run"
CONFLICT = 9
"""Exit code of a streamer that lost against another."""

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


def variables(url: str) -> dict[str, str]:
    """The environment in which gs:// and s3:// are the fake at ``url``."""
    amazon = {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    return {"STORAGE_EMULATOR_HOST": url, **amazon}


def stream_once(run: Path, destination: str, url: str) -> None:
    os.environ.update(variables(url))
    gcs.RETRY_INITIAL = 0.01
    raise SystemExit(Streamer(RunDirectory(run), open_store(destination)).run(once=True))


def stream_until_told(run: Path, destination: str, url: str) -> None:
    """Ends on SIGTERM."""
    os.environ.update(variables(url))
    gcs.RETRY_INITIAL, gcs.RETRY_TIMEOUT = 0.01, 0.2
    streamer = Streamer(RunDirectory(run), open_store(destination), interval=0.1)
    signal.signal(signal.SIGTERM, lambda *_: streamer.stop())
    try:
        raise SystemExit(streamer.run())
    except Conflict:
        raise SystemExit(CONFLICT) from None


def start(target: Callable[[Path, str, str], None], run: Path, url: str, destination: str = DESTINATION) -> BaseProcess:
    process = _processes.Process(target=target, args=(run, destination, url), daemon=True)
    process.start()
    return process
