"""The output of all workers as one stream that neither loses nor repeats a line.

The API can only start a log at a full second, so a connection that comes back gets lines a second time;
:class:`Seen` knows which.
"""

from __future__ import annotations

import heapq
import itertools
import queue
import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from launcher.cluster.kubernetes_api import ApiError, Cluster, Object, Unreachable
from launcher.cluster.namespace import Namespace
from launcher.cluster.watched import Watched
from launcher.diagnosis.pods import worker_of
from launcher.job.labels import instance
from launcher.job.places import BUCKETS
from launcher.operations.submitted import asked_job, get_job, is_finished
from maskfleet.errors import BadInput, BadSettings, MaskfleetError, NotFound

CONTAINER = "trainer"
MOST_FOLLOWED = 32
"""Workers that are followed at once unless some are named: each takes a connection."""
_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_MARGIN = timedelta(seconds=1)
_RETRY_SECONDS = 0.5
_NOTICE_SECONDS = 10.0
"""Without a pod that prints, until that is said."""


class LogLine(NamedTuple):
    """A line of one worker; ``time`` as the container runtime took it, RFC 3339 with nanoseconds, in UTC."""

    time: str
    worker: int
    text: str


@dataclass(frozen=True)
class LogRequest:
    """Which lines: of ``workers`` (None: all), the last ``tail`` of each, those of the last ``since`` seconds."""

    workers: frozenset[int] | None = None
    tail: int | None = None
    since: int | None = None

    def wants(self, worker: int) -> bool:
        return self.workers is None or worker in self.workers

    def query(self) -> dict[str, str]:
        """As the API's parameters."""
        query = {} if self.tail is None else {"tailLines": str(self.tail)}
        if self.since is not None:
            query["sinceSeconds"] = str(self.since)
        return query


class Seen:
    """The last lines that were received, so that a repeated part of a log is recognised.

    Standard output and error take their time stamps independently, so lines are not quite in order; a
    resumed log therefore starts a margin before the newest one. A line that is older than that was stamped
    after the node's clock had been set back: from then on it is the newest, or nothing would come until the
    clock is as far again.
    """

    def __init__(self) -> None:
        self._recent: list[tuple[str, str]] = []
        self._newest = ""
        self._limit = 8192

    def add(self, line: LogLine) -> None:
        self._recent.append((line.time, line.text))
        was_set_back = line.time < self._newest and line.time[:19] < self.since()[:19]
        self._newest = line.time if was_set_back else max(self._newest, line.time)
        if len(self._recent) >= self._limit:
            self._recent = list(self.repeated().elements())
            self._limit = 2 * len(self._recent) + 8192

    def since(self) -> str:
        """From when to ask again: a full second; empty if nothing was received."""
        if not self._newest:
            return ""
        newest = datetime.fromisoformat(self._newest[:19]).replace(tzinfo=UTC)
        return (newest - _MARGIN).strftime("%Y-%m-%dT%H:%M:%SZ")

    def repeated(self) -> Counter[tuple[str, str]]:
        """The lines that a log which starts at :meth:`since` repeats, with how often each."""
        start = self.since()
        return Counter(line for line in self._recent if line[0][:19] >= start[:19])


def read_log(
    cluster: Namespace, pod: str, worker: int, request: LogRequest, *, follow: bool = False
) -> Iterator[LogLine]:
    """What the pod has printed, and with ``follow`` what it prints until it ends; nothing if it has no log.

    Goes on where it was when the connection is lost, and with ``follow`` for as long as the API server is away.

    Raises:
        Unreachable: without ``follow``: the API server does not answer.
    """
    seen = Seen()
    final = not follow  # nothing more is expected: this is the last look
    while True:
        query = {"sinceTime": seen.since()} if seen.since() else request.query()
        if not final:
            query["follow"] = "true"
        repeated = seen.repeated()
        try:
            for raw in cluster.log(pod, CONTAINER, timestamps="true", **query):
                line = _parse(raw, worker)
                if line is None or (not raw.endswith(b"\n") and not final):
                    break  # broken off in the middle: comes again as a whole
                key = (line.time, line.text)
                if repeated[key]:
                    repeated[key] -= 1
                    continue
                seen.add(line)
                yield line
            if final:
                return
            if final := _container_ended(cluster, pod):
                continue
        except NotFound:
            return
        except ApiError as error:
            if error.status in (401, 403):
                raise
            if final or _container_ended(cluster, pod):
                return
        except Unreachable:
            if not follow:
                raise
        except ConnectionError:
            pass
        time.sleep(_RETRY_SECONDS)


def logs(
    name: str, cluster: Namespace | None = None, request: LogRequest = LogRequest(), *, previous: bool = False
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
    started = {worker: pod["metadata"]["name"] for worker, pod in sorted(chosen.items()) if _has_log(pod)}
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
    """Every attempt's lines of one worker after the other; they have no time stamps, so ``since`` does not apply."""
    from launcher.streaming.download.stored_logs import stored_logs
    from launcher.streaming.stores.opening import open_store

    for worker, lines in stored_logs(open_store(destination)).items():
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
        request.wants(worker_of(pod)) and _has_log(pod) for pod in cluster.list("Pod", labels=instance(name))
    ):
        yield from logs(name, cluster, request)
        return
    silent_until = time.monotonic() + _NOTICE_SECONDS
    lines: queue.SimpleQueue[LogLine | MaskfleetError] = queue.SimpleQueue()
    readers: dict[str, threading.Thread] = {}

    def read(pod: str, worker: int, wanted: LogRequest) -> None:
        try:
            for line in read_log(cluster, pod, worker, wanted, follow=True):
                lines.put(line)
        except MaskfleetError as error:
            lines.put(error)

    with (
        Watched(cluster, "Job", fields=f"metadata.name={name}") as jobs,
        Watched(cluster, "Pod", labels=instance(name)) as pods,
    ):
        early = {pod for pod, found in pods.objects().items() if _has_log(found)}
        over = False
        while True:
            # Only what was over a turn ago too is the end: the pods' watch may be behind that of their Job.
            was_over, over = over, over or _is_over(jobs.objects().get(name), name, cluster)
            for pod, found in pods.objects().items():
                if pod not in readers and request.wants(worker_of(found)) and _has_log(found):
                    wanted = request if pod in early else LogRequest(request.workers)
                    readers[pod] = threading.Thread(target=read, args=(pod, worker_of(found), wanted), daemon=True)
                    readers[pod].start()
            if not readers and time.monotonic() > silent_until:
                report_line(f"nothing is printed yet: 'launcher status {name}' says why")
                silent_until = float("inf")
            alive = any(reader.is_alive() for reader in readers.values())
            try:
                yield _line(lines.get(timeout=0.2))
                while True:
                    yield _line(lines.get_nowait())
            except queue.Empty:
                if was_over and not alive and lines.empty():
                    return


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


def _parse(raw: bytes, worker: int) -> LogLine | None:
    """A line with its time stamp; None for a word of the kubelet's own, such as that the log was removed."""
    stamp, _, text = raw.removesuffix(b"\n").partition(b" ")
    if not _STAMP.fullmatch(stamp):
        return None
    return LogLine(_in_utc(stamp.decode()), worker, text.decode(errors="replace"))


def _in_utc(stamp: str) -> str:
    """The same moment; a node stamps in its own time zone. datetime has no nanoseconds, so they are passed by it."""
    if stamp.endswith("Z"):
        return stamp
    moment = datetime.fromisoformat(stamp[:19] + stamp[-6:]).astimezone(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}{stamp[19:-6]}Z"


def _has_log(pod: Object) -> bool:
    """Whether the trainer has been started; on a node that does not run it, it never is."""
    statuses = pod.get("status", {}).get("containerStatuses", [])
    states = [status.get("state", {}) for status in statuses if status["name"] == CONTAINER]
    return any("running" in state or "terminated" in state for state in states)


def _container_ended(cluster: Namespace, pod: str) -> bool:
    """Whether the trainer of the pod has ended; also if the pod is gone."""
    try:
        found = cluster.get("Pod", pod)
    except NotFound:
        return True
    statuses = found.get("status", {}).get("containerStatuses", [])
    return any(status["name"] == CONTAINER and "terminated" in status.get("state", {}) for status in statuses)
