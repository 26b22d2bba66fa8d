"""The output of all workers as one stream, from their pods or from where it is kept without them."""

from __future__ import annotations

import heapq
import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from launcher.cluster.kubernetes_api import Cluster, Object
from launcher.cluster.namespace import Namespace
from launcher.cluster.watched import Watched
from launcher.diagnosis.pods import worker_of
from launcher.job.labels import instance
from launcher.job.places import BUCKETS
from launcher.operations.pod_log import EVERYTHING, LogLine, LogRequest, has_log, read_log
from launcher.operations.submitted import asked_job, get_job, is_finished
from maskfleet.errors import BadInput, BadSettings, MaskfleetError, NotFound
from maskfleet.text import some_of

MOST_FOLLOWED = 32
"""Workers that are followed at once unless some are named: each takes a connection."""
_NOTICE_SECONDS = 10.0
"""Without a pod that prints, until that is said."""


def logs(
    name: str, cluster: Namespace | None = None, request: LogRequest = EVERYTHING, *, previous: bool = False
) -> Iterator[LogLine]:
    """What the workers of a job have printed until now, or what ``request`` asks for of it, in the order of time.

    ``previous`` asks for the attempt before each worker's newest one. Of more workers than :data:`MOST_FOLLOWED` the
    lines come one worker after the other.

    Raises:
        NotFound: there is no such job, or nothing of what was asked for is there; the message says where it may be.
        BadSettings: the job has no such worker.
    """
    cluster = cluster or Cluster.connect()
    job = get_job(cluster, name)
    _check_workers(job, request)
    attempts: dict[int, list[Object]] = {}
    for pod in sorted(cluster.list("Pod", labels=instance(name)), key=lambda pod: pod["metadata"]["creationTimestamp"]):
        attempts.setdefault(worker_of(pod), []).append(pod)
    place = 2 if previous else 1
    chosen = {worker: pods[-place] for worker, pods in attempts.items() if len(pods) >= place and request.wants(worker)}
    started = {worker: pod["metadata"]["name"] for worker, pod in sorted(chosen.items()) if has_log(pod)}
    if not started:
        return _elsewhere(job, request, previous=previous, waiting=bool(chosen))
    streams = [read_log(cluster, pod, worker, request) for worker, pod in started.items()]
    return heapq.merge(*streams) if len(streams) <= MOST_FOLLOWED else itertools.chain(*streams)


def _elsewhere(job: Object, request: LogRequest, *, previous: bool, waiting: bool) -> Iterator[LogLine]:
    """What is kept of a job whose pods that were asked for are gone or, if ``waiting``, have not started.

    Raises:
        NotFound: nothing is; the message says where it may be.
    """
    kept, name = _kept_logs(job), job["metadata"]["name"]
    if kept.bucket and not previous and not waiting:
        return stored_lines(kept.bucket, request)
    what = "earlier attempt of a worker" if previous else "worker"
    if waiting:
        raise NotFound(
            f"job {name}: the {what} asked for has printed nothing, as it has not started: 'launcher status {name}' "
            f"says why; {kept.where}"
        )
    raise NotFound(f"job {name}: no pod of the {what} asked for is there; {kept.where}")


class _Kept(NamedTuple):
    """Where a job's logs are without its pods: ``bucket`` if they can be read from here, and ``where`` in words."""

    bucket: str | None
    where: str


def _kept_logs(job: Object) -> _Kept:
    try:
        asked = asked_job(job)
    except BadInput:  # made by hand, or by another version
        return _Kept(None, "if its streamer has a destination, its logs are there")
    if asked.output is None or asked.output_place is None:
        return _Kept(None, "without --output nothing else keeps its logs")
    if asked.output_place.kind in BUCKETS:
        where = f"what every attempt printed is in the bucket: 'launcher logs {asked.destination}'"
        return _Kept(asked.destination, where)
    on = " of the nodes that its workers ran on" if asked.output_place.kind == "host" else ""
    return _Kept(None, f"what every attempt printed is in {asked.output.rstrip('/')}/{asked.name}/logs{on}")


def _check_workers(job: Object, request: LogRequest) -> None:
    count = int(job["spec"].get("completions") or 1)
    if request.workers and max(request.workers) >= count:
        raise BadSettings(
            f"--worker {max(request.workers)}: expected 0 to {count - 1}, the workers of job {job['metadata']['name']}"
        )


def stored_lines(destination: str, request: LogRequest) -> Iterator[LogLine]:
    """Every attempt's lines of one worker after the other; they have no time stamps, so ``since`` does not apply.

    Raises:
        NotFound: there are no logs, or none of the workers asked for.
    """
    from launcher.streaming.download.stored_logs import stored_logs
    from launcher.streaming.stores.opening import open_store

    found = stored_logs(open_store(destination))
    if not any(map(request.wants, found)):
        has = some_of([str(worker) for worker in found])
        raise NotFound(f"{destination}: there is no log of the workers asked for; it has those of {has}")
    for worker, lines in found.items():
        if request.wants(worker):
            last = lines if request.tail is None else deque(lines, request.tail)
            yield from (LogLine("", worker, line) for line in last)


def follow_logs(
    name: str, cluster: Namespace, request: LogRequest, report_line: Callable[[str], None] = lambda text: None
) -> Iterator[LogLine]:
    """What the workers print as they print it, across restarts of pods, until the job has ended or was cancelled.

    Waits for pods that are not there yet, in a queue too; ``tail`` and ``since`` are about what was printed before
    the start, so of a later pod every line comes. Of more workers than :data:`MOST_FOLLOWED` only the chief is
    followed, unless the request names some. ``report_line`` gets that as a line for the user, and that nothing is
    printed yet. Of a job that is over and whose pods are gone it gives what :func:`logs` gives.

    Raises:
        NotFound: there is no such job, or it is over and nothing of what was asked for is there.
        BadSettings: the job has no such worker.
    """
    job = get_job(cluster, name)
    _check_workers(job, request)
    count = int(job["spec"].get("completions") or 1)
    if request.workers is None and count > MOST_FOLLOWED:
        report_line(f"following worker 0 alone of {count}: name others with --worker, or leave out --follow")
        request = LogRequest(frozenset({0}), request.tail, request.since)
    cluster = cluster.patient(3600)
    if is_finished(job) and not any(
        request.wants(worker_of(pod)) and has_log(pod) for pod in cluster.list("Pod", labels=instance(name))
    ):
        yield from logs(name, cluster, request)
        return
    silent_until = time.monotonic() + _NOTICE_SECONDS
    readers = _Readers(cluster, request)
    with (
        Watched(cluster, "Job", fields=f"metadata.name={name}") as jobs,
        Watched(cluster, "Pod", labels=instance(name)) as pods,
    ):
        readers.early = {pod for pod, found in pods.objects().items() if has_log(found)}
        over = False
        while True:
            # Only what was over a turn ago too is the end: the pods' watch may be behind that of their Job.
            was_over, over = over, over or _is_over(jobs.objects().get(name), name, cluster)
            readers.follow(pods.objects())
            if not readers.have_begun and time.monotonic() > silent_until:
                report_line(f"nothing is printed yet: 'launcher status {name}' says why")
                silent_until = float("inf")
            alive = readers.are_alive()
            yield from readers.lines()
            if was_over and not alive and readers.are_read():
                return


class _Readers:
    """A thread for each pod that has printed something. Of those in ``early`` the request says what is wanted."""

    def __init__(self, cluster: Namespace, request: LogRequest) -> None:
        self.early: set[str] = set()
        self._cluster = cluster
        self._request = request
        self._lines: queue.SimpleQueue[LogLine | MaskfleetError] = queue.SimpleQueue()
        self._threads: dict[str, threading.Thread] = {}

    @property
    def have_begun(self) -> bool:
        return bool(self._threads)

    def follow(self, pods: Mapping[str, Object]) -> None:
        """Begins with those of ``pods`` that are new."""
        for pod, found in pods.items():
            if pod not in self._threads and self._request.wants(worker_of(found)) and has_log(found):
                wanted = self._request if pod in self.early else LogRequest(self._request.workers)
                self._threads[pod] = threading.Thread(
                    target=self._read, args=(pod, worker_of(found), wanted), daemon=True
                )
                self._threads[pod].start()

    def are_alive(self) -> bool:
        return any(thread.is_alive() for thread in self._threads.values())

    def are_read(self) -> bool:
        return self._lines.empty()

    def lines(self) -> Iterator[LogLine]:
        """What has come, waited for a moment; raises what has ended a thread."""
        try:
            yield _line(self._lines.get(timeout=0.2))
            while True:
                yield _line(self._lines.get_nowait())
        except queue.Empty:
            pass

    def _read(self, pod: str, worker: int, wanted: LogRequest) -> None:
        try:
            for line in read_log(self._cluster, pod, worker, wanted, follow=True):
                self._lines.put(line)
        except MaskfleetError as error:
            self._lines.put(error)


def _line(read: LogLine | MaskfleetError) -> LogLine:
    """What a reader has read, or raises what has ended it."""
    if isinstance(read, MaskfleetError):
        raise read
    return read


def _is_over(seen: Object | None, name: str, cluster: Namespace) -> bool:
    """Whether no pod of the job will print any more.

    A watch begins with what the API server remembers, which may be from before a submit or resume: an end is asked
    for anew.
    """
    if seen is not None and not is_finished(seen):
        return False
    try:
        return is_finished(get_job(cluster, name))
    except NotFound:
        return True
