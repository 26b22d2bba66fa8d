"""Following the output of many workers through everything: no line is lost, none comes twice."""

from __future__ import annotations

import threading
import time

from launcher.cluster.kubernetes_api import Cluster
from launcher.operations import following as operations
from launcher.operations import submission
from launcher.operations.logs import follow_logs, logs
from launcher.operations.pod_log import LogRequest
from tests.cluster.conftest import Kit, Scripted, until

LINES = 50_000
WORKERS = 4
# Each attempt of a worker numbers its own lines, quickly, with a pause at each tenth so that faults meet it at work. A
# line is one write: print would make several, and a kill between them leave half a line.
NUMBERED = f"""
for number in range({LINES}):
    sys.stdout.write(f"{{os.environ['HOSTNAME']}} {{number}}\\n")
    if number % {LINES // 10} == 0:
        sys.stdout.flush()
        time.sleep(3)
"""


def test_every_line_comes_once_through_a_lost_api_server_and_a_killed_pod(
    cluster: Cluster, scripted: Scripted, kit: Kit
) -> None:
    submission.submit(scripted(NUMBERED, workers=WORKERS, max_restarts=3, grace="10s"), cluster)
    received: dict[tuple[int, str], list[int]] = {}

    def receive() -> None:
        attempt = dict.fromkeys(range(WORKERS), 0)
        for line in follow_logs("job", cluster, LogRequest()):
            number = int(line.text.split()[1])
            if number == 0 and (line.worker, str(attempt[line.worker])) in received:
                attempt[line.worker] += 1
            received.setdefault((line.worker, str(attempt[line.worker])), []).append(number)

    reader = threading.Thread(target=receive, daemon=True)
    reader.start()
    started = until("job", cluster, lambda now: all(w.phase == "Running" for w in now.workers), seconds=120)
    time.sleep(5)
    kit("fault", "kill", f"{cluster.namespace}/{started.workers[1].pod}", "trainer")
    time.sleep(2)
    kit("fault", "api-down")
    time.sleep(5)
    kit("fault", "api-up")
    end = operations.wait("job", cluster.patient(120), timeout=300)
    assert end.phase == "Succeeded"
    reader.join(60)
    assert not reader.is_alive()
    complete = [key for key, numbers in received.items() if numbers == list(range(LINES))]
    assert {worker for worker, _ in complete} == set(range(WORKERS))
    killed = received[1, "0"]
    assert killed == list(range(len(killed)))  # as far as it came, in order, each line once
    assert len(received) == WORKERS + 1


def test_tail_since_worker_and_previous(cluster: Cluster, scripted: Scripted) -> None:
    script = (
        "mark = '/run/maskfleet/../maskfleet'\n"
        "print('first'); print('second', worker, flush=True)\n"
        "sys.exit(0 if worker else 7)"
    )
    submission.submit(scripted(script, workers=2, max_restarts=1), cluster)
    operations.wait("job", cluster, timeout=90)

    def texts(request: LogRequest, **options: bool) -> list[str]:
        return [f"{line.worker} {line.text}" for line in logs("job", cluster, request, **options)]

    assert texts(LogRequest(tail=1, workers=frozenset({1}))) == ["1 second 1"]
    assert texts(LogRequest(workers=frozenset({0}))) == ["0 first", "0 second 0"]
    assert texts(LogRequest(since=3600, workers=frozenset({1}))) == ["1 first", "1 second 1"]
    assert texts(LogRequest(), previous=True) == ["0 first", "0 second 0"]
    ordered = [line.time for line in logs("job", cluster, LogRequest())]
    assert ordered == sorted(ordered)
