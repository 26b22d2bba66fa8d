"""What runs beside the trainer in its pod: ``prepare`` before it, ``accompany`` along with it."""

from __future__ import annotations

import os
import signal
import threading

from launcher.cluster.kubernetes_api import Cluster
from launcher.pod.job_reporter import JobReporter, report, take_events_as_reported
from launcher.streaming.download.restore import restore
from launcher.streaming.stores.opening import open_store
from launcher.streaming.upload.streamer import Streamer
from maskfleet.child_processes import set_up_logging
from maskfleet.environment import JOB_VARIABLE, NAMESPACE_VARIABLE, WORKER_VARIABLE
from maskfleet.errors import DONE
from maskfleet.run_directory import RunDirectory


def accompany(run: RunDirectory, destination: str | None, *, grace: float, keep_checkpoints: int | None) -> int:
    """Reports to the Job (on the chief) and streams to ``destination`` until SIGTERM; returns the exit code.

    ``grace`` is how many seconds the streamer may take to send what is left. The Job is told of it to the last, so
    that an ended job does not show for ever how far the streamer was when the training ended.
    """
    set_up_logging()
    run.path.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    streamer = None
    if destination:
        store = open_store(destination)
        streamer = Streamer(run, store, worker=_worker(), grace=grace, keep_checkpoints=keep_checkpoints)

    def end(*_: object) -> None:
        if streamer:
            streamer.stop()  # the reporter goes on until all is sent
        else:
            stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    reporting = None
    if _worker() == 0 and (job := os.environ.get(JOB_VARIABLE)):
        reporter = JobReporter(Cluster.connect(os.environ.get(NAMESPACE_VARIABLE)), job, run)
        reporting = threading.Thread(target=report, args=(reporter, stop))
        reporting.start()
    try:
        if streamer:
            return streamer.run()
        stop.wait()
        return DONE
    finally:
        stop.set()
        if reporting:
            reporting.join()


def restore_run(run: RunDirectory, destination: str) -> str:
    """Brings back what this worker needs of an earlier pod's run; returns what was done, in a sentence.

    Raises:
        StoreRefused: the destination can't be written, which is better known now than at the first checkpoint.
    """
    store = open_store(destination)
    store.check()
    run.path.mkdir(parents=True, exist_ok=True)
    manifest = restore(store, run, worker=_worker())
    take_events_as_reported(run)
    if manifest is None:
        return f"no checkpoint to bring back from {destination}"
    return f"brought back the checkpoint of step {manifest.step} from {destination}"


def is_chief() -> bool:
    """Whether this pod's worker is the one that gives all others the weights."""
    return _worker() == 0


def _worker() -> int:
    return int(os.environ.get(WORKER_VARIABLE, "0"))
