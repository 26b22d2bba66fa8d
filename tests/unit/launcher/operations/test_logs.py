"""How a resumed log is told apart from what was received before, which pods are followed, and until when."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.job.training_job import TrainingJob
from launcher.operations import ending
from launcher.operations.logs import MOST_FOLLOWED, follow_logs, logs, stored_lines
from launcher.operations.pod_log import LogLine, LogRequest, Seen, read_log
from launcher.operations.submission import submit
from launcher.streaming.stores.folder import FolderStore
from maskfleet.errors import BadSettings, NotFound
from tests.fakes.cluster import FakeCluster, worker_pod


def stamp(milliseconds: int) -> str:
    return f"2026-11-23T10:{milliseconds // 60000:02}:{milliseconds % 60000 // 1000:02}.{milliseconds % 1000:03}000000Z"


@settings(deadline=None)
@given(
    # Standard output and error are nearly in order: a line is at most a margin older than the one before.
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 900), st.sampled_from("ab")), max_size=60),
    st.lists(st.integers(0, 20), max_size=6),
)
def test_a_log_that_breaks_off_anywhere_goes_on_without_loss_or_repetition(
    steps: list[tuple[int, int, str]], pieces: list[int]
) -> None:
    log, clock = [], 10_000
    for step, back, text in steps:
        clock += step
        log.append(LogLine(stamp(clock - back), 0, text))
    received: list[LogLine] = []
    seen = Seen()
    place = 0
    for piece in [*pieces, len(log)]:
        place += piece
        since = seen.since()
        again = [line for line in log if line.time[:19] >= since[:19]]  # what the API gives: a filter, line by line
        repeated = seen.repeated()
        for line in again:
            if len(received) >= place:
                break  # the connection is lost
            key = (line.time, line.text)
            if repeated[key]:
                repeated[key] -= 1
                continue
            seen.add(line)
            received.append(line)
    assert received == log


@pytest.mark.parametrize("set_by", [-3_000_000, -5000, 0, 5000, 600_000])
def test_a_log_goes_on_also_when_the_node_s_clock_has_been_set(set_by: int) -> None:
    """The clock is set after ten lines, and the connection breaks off five lines later."""
    moments = [3_001_000 + 100 * number + (set_by if number >= 10 else 0) for number in range(20)]
    log = [LogLine(stamp(moment % 3_600_000), 0, str(number)) for number, moment in enumerate(moments)]
    seen = Seen()
    for line in log[:15]:
        seen.add(line)
    repeated = seen.repeated()
    again = [line for line in log if line.time[:19] >= seen.since()[:19]]
    assert [line for line in again if not repeated[line.time, line.text]] == log[15:]


def test_a_long_log_is_not_kept() -> None:
    seen = Seen()
    for number in range(50_000):
        seen.add(LogLine(stamp(number), 0, "x"))
    assert sum(seen.repeated().values()) < 2100


class NodesAbroad(FakeCluster):
    """Each pod's node stamps in a zone of its own; every connection but the last breaks after ``piece`` lines."""

    piece = 2

    def log(self, pod: str, container: str, **query: str) -> Iterator[bytes]:
        since = datetime.fromisoformat(query.get("sinceTime", "2000-01-01T00:00:00Z"))
        lines = [line for line in self.logs[pod] if datetime.fromisoformat(line.split()[0]) >= since]
        whole = "follow" not in query
        yield from (f"{line}\n".encode() for line in (lines if whole else lines[: self.piece]))
        if not whole and len(lines) > self.piece:
            raise ConnectionError


def abroad(zones: dict[int, str]) -> Any:
    """A job whose worker 0 has printed at :00, :02, …, worker 1 at :01, :03, …"""
    cluster: Any = submitted(cluster=NodesAbroad(), workers=len(zones))
    for worker, zone in zones.items():
        away = timezone(timedelta(hours=int(zone[:3]), minutes=int(zone[0] + zone[4:])))
        start = datetime(2026, 11, 23, 10, 0, worker, tzinfo=UTC).astimezone(away)
        stamps = [f"{start + timedelta(seconds=2 * step):%Y-%m-%dT%H:%M:%S}.123456789{zone}" for step in range(6)]
        add_pod(cluster, worker, "abcde", *(f"{at} {2 * step + worker}" for step, at in enumerate(stamps)))
    complete(cluster)
    return cluster


@pytest.mark.parametrize("zone", ["+02:00", "-03:30"])
def test_a_log_of_a_node_in_another_time_zone_goes_on_without_loss_or_repetition(zone: str) -> None:
    assert texts(abroad({0: zone})) == ["0", "2", "4", "6", "8", "10"]


def test_the_last_look_at_a_log_is_not_repeated_without_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("launcher.operations.pod_log.time", SimpleNamespace(sleep=pauses.append))
    cluster = abroad({0: "+00:00"})
    whole, broken = cluster.log, 20

    def log(pod: str, container: str, **query: str) -> Iterator[bytes]:
        nonlocal broken
        if "follow" not in query and (broken := broken - 1) > 0:
            raise ConnectionError
        yield from whole(pod, container, **query)

    cluster.log = log
    assert [line.text for line in read_log(cluster, "pets-0-abcde", 0, LogRequest(), follow=True)][-1] == "10"
    assert len(pauses) >= 19


def test_lines_of_nodes_in_different_time_zones_are_in_the_order_of_time() -> None:
    lines = list(logs("pets", abroad({0: "+02:00", 1: "-03:30"}), LogRequest()))
    assert [line.text for line in lines] == [str(number) for number in range(12)]
    assert lines[1].time == "2026-11-23T10:00:01.123456789Z"


DONE = {"terminated": {"exitCode": 0}}


def submitted(cluster: FakeCluster | None = None, **settings: Any) -> Any:
    cluster = cluster or FakeCluster()
    submit(TrainingJob(name="pets", **settings), cluster)
    return cluster


def add_pod(cluster: FakeCluster, worker: int, suffix: str, *lines: str) -> None:
    pod = worker_pod(worker, suffix=suffix, phase="Succeeded", **DONE)
    cluster.logs[pod["metadata"]["name"]] = list(lines)
    cluster.objects["Pod", pod["metadata"]["name"]] = pod


def complete(cluster: FakeCluster) -> None:
    cluster.objects["Job", "pets"]["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}


def later(*steps: Any) -> None:
    """Does each step a little after the one before."""

    def go() -> None:
        for step in steps:
            time.sleep(0.6)
            step()

    threading.Thread(target=go, daemon=True).start()


def texts(cluster: Any, request: LogRequest = LogRequest(), **how: Any) -> list[str]:  # noqa: B008
    return [line.text for line in follow_logs("pets", cluster, request, **how)]


def test_the_logs_of_a_job_in_a_queue_are_waited_for() -> None:
    cluster = submitted(queue="team")
    assert cluster.objects["Job", "pets"]["spec"]["suspend"] is True
    later(lambda: add_pod(cluster, 0, "abcde", "admitted"), lambda: complete(cluster))
    assert texts(cluster) == ["admitted"]


@pytest.mark.parametrize("remembered", [[], [{"metadata": {"name": "pets"}, "status": {"conditions": [
    {"type": "Complete", "status": "True"}]}}]], ids=["nothing", "a deleted job"])  # fmt: skip
def test_what_the_server_remembers_from_before_the_submit_is_no_end(remembered: list[Any]) -> None:
    cluster = submitted()
    cluster.remembered["Job"] = remembered
    later(lambda: add_pod(cluster, 0, "abcde", "came later"), lambda: complete(cluster))
    assert texts(cluster) == ["came later"]


def test_following_ends_with_a_cancelled_job() -> None:
    cluster = submitted()
    later(lambda: ending.cancel("pets", cluster))
    assert texts(cluster) == []


def test_tail_is_about_what_was_printed_before() -> None:
    cluster = submitted()
    add_pod(cluster, 0, "first", "1", "2", "3")
    later(lambda: add_pod(cluster, 0, "later", "4", "5", "6"), lambda: complete(cluster))
    assert texts(cluster, LogRequest(tail=1)) == ["3", "4", "5", "6"]


ALONE = "following worker 0 alone of 33: name others with --worker, or leave out --follow"


@pytest.mark.parametrize(("workers", "said"), [(32, []), (33, [ALONE])])
def test_that_not_all_of_many_workers_are_followed_is_said(workers: int, said: list[str]) -> None:
    cluster = submitted(workers=workers)
    for worker in range(2):
        add_pod(cluster, worker, "abcde", f"of {worker}")
    complete(cluster)
    notes: list[str] = []
    assert sorted(texts(cluster, report_line=notes.append)) == (["of 0"] if said else ["of 0", "of 1"])
    assert notes == said


@pytest.mark.parametrize("over", [complete, lambda cluster: ending.cancel("pets", cluster)], ids=["ended", "cancelled"])
def test_following_a_job_that_is_over_says_where_the_logs_of_lost_pods_are(over: Any) -> None:
    cluster = submitted(output="pvc:claim/runs")
    over(cluster)
    with pytest.raises(NotFound, match="what every attempt printed is in pvc:claim/runs/pets/logs"):
        texts(cluster)


def test_following_a_job_that_is_over_reads_the_bucket_when_its_pods_are_gone(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "pets" / "logs").mkdir(parents=True)
    (tmp_path / "pets" / "logs" / "worker-0.log").write_text("kept\n")
    cluster = submitted(output="gs://bucket")
    ending.cancel("pets", cluster)
    stored = FolderStore(tmp_path / "pets")
    monkeypatch.setattr("launcher.streaming.stores.opening.open_store", lambda destination: stored)
    assert texts(cluster) == ["kept"]


def test_pods_that_have_not_started_print_nothing_and_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = submitted()
    pod = worker_pod(0, phase="Pending", waiting={"reason": "ImagePullBackOff"})
    cluster.objects["Pod", "p"] = pod
    with pytest.raises(NotFound, match="has printed nothing, as it has not started: 'launcher status pets' says why"):
        logs("pets", cluster, LogRequest())
    monkeypatch.setattr("launcher.operations.logs._NOTICE_SECONDS", 0.2)
    notes: list[str] = []
    later(lambda: complete(cluster))
    assert texts(cluster, report_line=notes.append) == []
    assert notes == ["nothing is printed yet: 'launcher status pets' says why"]


def test_the_logs_of_many_workers_are_read_over_few_connections() -> None:
    cluster = submitted(workers=500)
    for worker in range(500):
        add_pod(cluster, worker, "abcde", f"of {worker}", "more")
    whole, open_now, most = cluster.log, 0, 0

    def log(pod: str, container: str, **query: str) -> Iterator[bytes]:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        yield from whole(pod, container, **query)
        open_now -= 1

    cluster.log = log
    assert len(list(logs("pets", cluster, LogRequest()))) == 1000
    assert most <= MOST_FOLLOWED


@pytest.mark.parametrize(
    ("output", "where"),
    [
        (None, "without --output nothing else keeps its logs"),
        ("pvc:claim/runs", "what every attempt printed is in pvc:claim/runs/pets/logs"),
        ("host:/srv", "what every attempt printed is in host:/srv/pets/logs of the nodes that its workers ran on"),
    ],
)
def test_where_the_logs_of_lost_pods_are(output: str | None, where: str) -> None:
    with pytest.raises(NotFound) as error:
        list(logs("pets", submitted(output=output), LogRequest()))
    assert str(error.value) == f"job pets: no pod of the worker asked for is there; {where}"


def test_an_earlier_attempt_is_in_the_bucket_with_all_others() -> None:
    with pytest.raises(NotFound, match="is in the bucket: 'launcher logs gs://bucket/pets'"):
        list(logs("pets", submitted(output="gs://bucket"), LogRequest(), previous=True))


def test_a_worker_that_the_job_does_not_have_is_refused() -> None:
    cluster = submitted(workers=2)
    for call in (logs, follow_logs):
        with pytest.raises(BadSettings, match="--worker 2: expected 0 to 1, the workers of job pets"):
            list(call("pets", cluster, LogRequest(frozenset({2}))))


def test_a_worker_without_a_stored_log_is_told(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    for worker in (0, 2):
        (tmp_path / "logs" / f"worker-{worker}.log").write_text(f"of {worker}\n")
    assert [line.text for line in stored_lines(str(tmp_path), LogRequest(frozenset({2, 9})))] == ["of 2"]
    with pytest.raises(NotFound, match="there is no log of the workers asked for; it has those of 0, 2"):
        list(stored_lines(str(tmp_path), LogRequest(frozenset({9}))))
