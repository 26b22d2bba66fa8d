"""The output of one worker's pod, of which neither a line is lost nor one repeated.

The API can only start a log at a full second, so a connection that comes back gets lines a second time;
:class:`Seen` knows which.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from launcher.cluster.kubernetes_api import ApiError, Object, Unreachable
from launcher.cluster.namespace import Namespace
from maskfleet.errors import NotFound

CONTAINER = "trainer"
_STAMP = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_MARGIN = timedelta(seconds=1)
_RETRY_SECONDS = 0.5


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


EVERYTHING = LogRequest()


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


def has_log(pod: Object) -> bool:
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
