"""Nothing that is pure grows beyond its limit, or takes long, with 5,000 workers, classes, files or nodes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from launcher.diagnosis.job_status import JobStatus, job_status
from launcher.diagnosis.jobs import waits_for
from launcher.diagnosis.placement import deadlock
from launcher.diagnosis.tables import describe_status, job_table, worker_table
from launcher.job.manifests import LONGEST_VARIABLE, manifests
from launcher.job.training_job import TrainingJob
from launcher.operations import following
from launcher.operations.description import describe, describe_lines, history
from launcher.operations.logs import logs, stored_lines
from launcher.operations.pod_log import LogRequest
from launcher.operations.preflight import preflight
from launcher.operations.submission import submit
from launcher.operations.submitted import asked_job
from launcher.pod.job_reporter import JobReporter, kubernetes_event
from launcher.streaming.download.stored_logs import stored_logs
from launcher.streaming.stores.folder import FolderStore
from launcher.streaming.stream_metrics import StreamMetrics
from maskfleet.config import TrainConfig
from maskfleet.errors import FAILED, PEER_LOST, STOPPED, BadSettings, NotFound
from maskfleet.pace import Pace, Steps, Usage
from maskfleet.peers import Peers
from maskfleet.records import Event, Progress
from maskfleet.run_directory import RunDirectory
from maskfleet.sentences import told_to_stop, what_was_not_copied
from maskfleet.text import cut_to_bytes
from tests.fakes.cluster import CREATED, FakeCluster, Object, worker_pod
from trainer.data.pipeline import worker_slices
from trainer.supervision.fleet import Fleet
from trainer.supervision.rendezvous import Coordinator, Ended, finish, names_of, serialize, stop
from trainer.supervision.slow_workers import SlowWorkers
from trainer.training.plan import Plan

MANY = 5000
NAME = "n" * 52  # the longest that a job may have
LINE = 64 << 10
ANNOTATIONS = 256 << 10
CONFIG_MAP = 1 << 20


@contextmanager
def quick(seconds: float = 10) -> Iterator[None]:
    """Of this process's own time: what grows with the square of the number takes minutes."""
    before = time.process_time()
    yield
    assert time.process_time() - before < seconds


def submitted(**settings: Any) -> Any:
    cluster = FakeCluster({"kind": "Node", "metadata": {"name": "node-1"}})
    submit(TrainingJob(name=NAME, workers=MANY, **settings), cluster)
    return cluster


def pod(worker: int, phase: str, **state: Any) -> Object:
    return worker_pod(worker, job=NAME, suffix="abcde", phase=phase, **state)


def unplaced(worker: int, message: str, **spec: Any) -> Object:
    """A pod that finds no node."""
    found = pod(worker, "Pending")
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
    found["status"] = {"phase": "Pending", "conditions": [condition]}
    return {**found, "spec": {"containers": [{"name": "trainer"}], **spec}}


def event(worker: int, reason: str, message: str) -> Object:
    name = f"{NAME}-{worker}-zzzzz"
    return {
        "kind": "Event", "metadata": {"name": f"e{worker}", "creationTimestamp": "2026-11-23T10:05:00Z"},
        "involvedObject": {"kind": "Pod", "name": name}, "reason": reason, "message": message,
        "lastTimestamp": "2026-11-23T10:05:00Z", "count": 1,
    }  # fmt: skip


SITUATIONS = {
    "running": lambda worker: pod(worker, "Running"),
    "each with words of its own": lambda worker: pod(
        worker, "Failed", terminated={"exitCode": 1, "message": f"{worker}" * 500, "finishedAt": CREATED}
    ),
    "each with an id of its own": lambda worker: pod(
        worker, "Pending", waiting={"reason": "RunContainerError", "message": f"id {worker:064x}"}
    ),
    "each lost by another": lambda worker: pod(
        worker, "Failed", terminated={"exitCode": PEER_LOST, "message": f"error: worker {worker} lost a peer"}
    ),
    "each without a node": lambda worker: unplaced(worker, f"0/{worker + 1} nodes are available: {worker} are full."),
    "a gang of them": lambda worker: unplaced(worker, "0/9 nodes are available", schedulingGroup={"podGroupName": "g"}),
    "half of them without a node": lambda worker: (
        pod(worker, "Running") if worker % 2 else unplaced(worker, "0/9 nodes are available: 9 are full.")
    ),
    "being deleted": lambda worker: {
        **pod(worker, "Running"),
        "metadata": {**pod(worker, "Running")["metadata"], "deletionTimestamp": CREATED, "finalizers": [f"f/{worker}"]},
    },
    "gone": lambda worker: event(worker, "Killing", "Stopping container trainer"),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_status_is_quick_and_short(situation: str) -> None:
    found = [SITUATIONS[situation](worker) for worker in range(MANY)]
    pods = [each for each in found if each["kind"] == "Pod"]
    events = [each for each in found if each["kind"] == "Event"]
    job: Any = submitted().objects["Job", NAME]
    with quick(20):
        now = job_status(job, pods, events, frozenset({"node-1"}))
        lines = describe_status(now)
        rows = job_table([now], wide=True)
    assert len(now.workers) == MANY
    assert len(now.reason) < 1000
    assert len(lines) < 80
    assert max(map(len, [*lines, *rows])) < 1500
    assert sum(int(line.split()[0]) for line in worker_table(now.workers)[1:]) == MANY
    assert len(worker_table(now.workers, wide=True)) == MANY + 1


def test_jobs_that_hold_what_the_others_need_are_found_among_many() -> None:
    pods = []
    for number in range(MANY):
        own = [unplaced(number, "0/9 nodes are available: 9 Too many pods."), pod(number, "Running")]
        for each in own:
            each["metadata"]["labels"]["app.kubernetes.io/instance"] = f"job-{number % 100}"
        pods += own
    with quick():
        said = deadlock("job-7", pods)
    assert "and 96 more" in said
    assert len(said) < 1000


def test_a_job_that_is_deleted_names_few_of_its_pods() -> None:
    job: Any = submitted().objects["Job", NAME]
    job["metadata"]["deletionTimestamp"] = CREATED
    pods = [SITUATIONS["being deleted"](worker) for worker in range(MANY)]
    now: JobStatus = job_status(job, pods)
    assert (now.phase, len(now.reason) < 1000) == ("Deleting", True)
    assert waits_for(("Pod", pod) for pod in pods).endswith(f" and {MANY - 3} more")


def test_status_list_and_describe_are_quick() -> None:
    cluster = submitted()
    for worker in range(MANY):
        cluster.objects["Pod", str(worker)] = pod(worker, "Running")
        cluster.objects["Event", str(worker)] = event(worker, "Pulled", "x" * 3000)
    with quick(20):
        following.status(NAME, cluster)
        following.list_jobs(cluster)
        lines = describe_lines(describe(NAME, cluster))
    assert len(lines) < 400


def test_the_events_of_many_pods_do_not_hide_those_of_the_job() -> None:
    def told(worker: int, second: int, reason: str, message: str) -> Object:
        return {
            **event(worker, reason, message),
            "firstTimestamp": f"2026-11-23T10:{second // 60:02}:{second % 60:02}Z",
        }

    def of_job(second: int, message: str) -> Object:
        return {**told(0, second, "WorkersChanged", message), "involvedObject": {"kind": "Job", "name": NAME}}

    events = [of_job(0, "training starts")]
    for change in range(1, 4):
        for worker in range(MANY):
            placed = f"Successfully assigned team/{NAME}-{worker}-zzzzz to node-{worker % 97}"
            events.append(told(worker, change * 100 + worker // 100, "Scheduled", placed))
        events.append(of_job(change * 100 + 60, f"change {change}"))
    events += [told(worker, 500, "Killing", "Stopping container trainer") for worker in range(3)]
    with quick():
        found = history(NAME, "0-1", events)
    assert [each["message"] for each in found if each["object"].startswith("Job/")] == [
        "training starts", "change 1", "change 2", "change 3",
    ]  # fmt: skip
    assert [each["reason"] for each in found].count("Scheduled") == 3
    assert found[1]["message"].endswith(f"to node-{(MANY - 1) % 97} (and {MANY - 1} more until 2026-11-23 10:02:29Z)")
    assert [each["reason"] for each in found[-3:]] == ["Killing"] * 3, "those of a few pods stand by themselves"


@pytest.mark.parametrize(("previous", "newest"), [(False, "second"), (True, "first")])
def test_the_logs_of_all_workers_come_one_worker_after_the_other(previous: bool, newest: str) -> None:
    cluster = submitted()
    for worker in range(MANY):
        for made, suffix in enumerate(("first", "second")):
            found = worker_pod(worker, job=NAME, suffix=suffix)
            found["metadata"]["creationTimestamp"] = f"2026-11-23T10:0{made}:00Z"
            cluster.objects["Pod", found["metadata"]["name"]] = found
            cluster.logs[found["metadata"]["name"]] = [f"{suffix} of {worker}", "more"]
    with quick(20):
        lines = list(logs(NAME, cluster, previous=previous))
    assert [line.text for line in lines[::2]] == [f"{newest} of {worker}" for worker in range(MANY)]
    with quick():
        chosen = list(logs(NAME, cluster, LogRequest(frozenset({7, MANY - 1}), tail=1), previous=previous))
    assert [(line.worker, line.text) for line in chosen] == [(7, "more"), (MANY - 1, "more")]


def test_the_stored_logs_of_all_workers_are_read_one_by_one(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    for worker in range(MANY):
        (tmp_path / "logs" / f"worker-{worker}.log").write_text(f"of {worker}\nmore\n")
    with quick(20):
        found = stored_logs(FolderStore(tmp_path))
        assert list(found) == list(range(MANY))
        lines = list(stored_lines(str(tmp_path), LogRequest(tail=2)))
    assert [line.text for line in lines[::2]] == [f"of {worker}" for worker in range(MANY)]
    with pytest.raises(NotFound) as error:
        list(stored_lines(str(tmp_path), LogRequest(frozenset({MANY}))))
    assert len(str(error.value)) < 1000


def test_each_worker_has_its_part_of_a_step() -> None:
    with quick(2):
        plan = Plan(10**6, 3 * MANY + 7, 2, tuple(worker_slices(3 * MANY + 7, MANY)))
        parts = [plan.local_batch(worker) for worker in range(MANY)]
    assert (sum(parts), set(parts)) == (plan.global_batch, {3, 4})
    assert plan.slices[0].start == 0
    assert all(before.stop == after.start for before, after in pairwise(plan.slices))


def test_the_objects_of_a_job_do_not_grow_with_its_workers() -> None:
    sizes = {workers: len(json.dumps(manifests(TrainingJob(name="pets", workers=workers)))) for workers in (1, MANY)}
    assert sizes[MANY] - sizes[1] < 30


@pytest.mark.parametrize("classes", [MANY, 20_000])
def test_a_weight_for_each_of_many_classes_fits_a_job(classes: int) -> None:
    weights = ",".join(f"{1 + number / 7:.4f}" for number in range(classes))
    job = TrainingJob(name=NAME, training=TrainConfig(loss="dice", class_weights=weights))
    objects = {each["kind"]: each for each in manifests(job)}
    annotations = objects["Job"]["metadata"]["annotations"]
    assert sum(len(key) + len(value.encode()) for key, value in annotations.items()) < ANNOTATIONS - 64_000
    assert len(objects["ConfigMap"]["data"]["config.json"]) < CONFIG_MAP
    assert asked_job(objects["Job"]) == job


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (
            {"training": TrainConfig(class_weights=",".join(["1.2345678"] * 60_000))},
            "--class-weights: expected settings",
        ),
        ({"mount": tuple(f"secret:s-{number}=/at/{number}/{'x' * 60}" for number in range(MANY))}, "--mount: expected"),
        ({"env": tuple(f"V{number}={'ü' * 50}" for number in range(MANY))}, "--env: expected settings of at most 192"),
        (
            {"env": (f"V={'x' * LONGEST_VARIABLE}",)},
            "--env V: expected at most 128.0 KiB, which the kernel passes to a",
        ),
    ],
)
def test_what_kubernetes_or_the_kernel_would_not_take_is_refused_in_a_line(settings: Any, named: str) -> None:
    with pytest.raises(BadSettings) as error:
        manifests(TrainingJob(name="pets", **settings))
    assert str(error.value).startswith(named)
    assert len(str(error.value)) < 400


def test_peers_and_what_is_wrong_with_them() -> None:
    environment = {
        "MASKFLEET_PEERS": f"{NAME}-{{}}.{NAME}:2222",
        "MASKFLEET_WORKERS": str(MANY),
        "MASKFLEET_WORKER": "7",
    }
    with quick():
        peers = Peers.from_environment(environment)
        assert Peers.from_environment({"TF_CONFIG": peers.tf_config()}) == peers
    for wrong in (peers.tf_config()[:-1], peers.tf_config().replace('"worker"', '"ps"'), "[" * 100_000):
        with pytest.raises(BadSettings) as error:
            Peers.from_environment({"TF_CONFIG": wrong})
        assert len(str(error.value)) < 1000


def test_every_message_of_the_rendezvous_fits_a_line() -> None:
    addresses = [f"{NAME}-{worker}.{NAME}:2222" for worker in range(MANY)]
    coordinator = Coordinator(MANY, max_restarts=2)
    with quick():
        for worker in range(MANY - 1):
            assert coordinator.worker_ready(worker, now=0) is None
        started = coordinator.worker_ready(MANY - 1, now=0)
        for worker in range(MANY):
            coordinator.worker_told(worker)
        stopped = coordinator.process_ended(3, 1, STOPPED, "", now=0)
        waiting = {"do": "wait", "for": names_of(coordinator.missing(), addresses)}
    assert stopped == stop(told_to_stop(list(range(MANY)))) == stop(f"worker 0 and {MANY - 1} more were told to stop")
    reason = Ended.of({"attempt": 1, "code": 1, "reason": "\U0001f600" * LINE}).reason
    for message in (started, stopped, waiting, finish(FAILED, reason)):
        assert message is not None
        assert len(serialize(message)) < LINE


@pytest.mark.parametrize("workers", [8, 1000, MANY])
def test_a_range_shrinks_and_grows_by_one_stop_and_one_short_start(workers: int) -> None:
    coordinator = Coordinator(workers, max_restarts=9, least=4, shrink_after=60)
    messages = []

    def ready(those: Iterable[int], now: float) -> None:
        messages.extend(coordinator.worker_ready(worker, now) for worker in those)

    with quick():
        ready(range(0, workers, 2), now=0)
        messages.append(coordinator.look(60))  # every other one has come
        ready(range(1, workers, 2), now=200)
        messages.append(coordinator.look(200))  # the rest comes
        ready(range(workers), now=201)
        messages += [
            coordinator.worker_left(worker, now=300) for worker in range(workers // 2, workers)
        ]  # half of them
        ready(range(workers // 2), now=301)
        messages.append(coordinator.look(361))
    sent = [message for message in messages if message is not None]
    assert [message["do"] for message in sent] == ["start", "stop", "start", "stop", "start"]
    assert max(len(serialize(message)) for message in sent) < LINE
    assert len(coordinator.beginning) < 300


def test_a_range_of_many_takes_as_many_requests_as_a_number() -> None:
    requests = {}
    for workers in ("4", "2..4", f"8..{MANY}"):
        cluster: Any = FakeCluster()
        submit(TrainingJob(name=NAME, workers=workers), cluster)
        requests[workers] = len(cluster.requests)
    assert requests["2..4"] == requests[f"8..{MANY}"] == requests["4"] + 1, "whether there are gangs is asked for"
    sizes = [len(json.dumps(manifests(TrainingJob(name="pets", workers=f"1..{most}")))) for most in (2, MANY)]
    assert sizes[1] - sizes[0] < 30


def test_who_is_slow_among_many_is_found_quickly() -> None:
    fleet = {
        worker: Pace(Steps(10, 1.0, 0.1, 0.5, 0.4), Usage(), round_trip=(worker % 97) / 1e5) for worker in range(MANY)
    }
    slow = SlowWorkers()
    with quick(2):
        for _ in range(3):
            slow.look(fleet)


def test_the_annotations_and_events_of_a_run_of_many_files_fit(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    cluster: Any = FakeCluster({"kind": "Job", "metadata": {"name": "pets", "uid": "0-1"}})
    problems = [f"{'ü' * 200}/{number}: shrank" for number in range(MANY)]
    StreamMetrics(problems=problems, last_error="x" * 100_000).write(run)
    Event.append(run, "restart", "\U0001f600" * 4000)
    Progress("running", 10**9, 10**9, 57, 380).write(run)
    with quick():
        JobReporter(cluster, "pets", run).step()
    metadata = cluster.objects["Job", "pets"]["metadata"]
    assert sum(len(key) + len(value.encode()) for key, value in metadata["annotations"].items()) < 32 << 10
    assert all(len(value) <= 63 for value in metadata["labels"].values())
    (sent,) = [each for (kind, _), each in cluster.objects.items() if kind == "Event"]
    assert len(sent["message"].encode()) <= 1024
    told = json.loads(metadata["annotations"]["maskfleet/progress.json"])["streamer"]["problems"]
    assert (len(told), told[-1]) == (11, f"and {MANY - 10} more")


@pytest.mark.parametrize("text", ["x" * 3000, "ü" * 3000, "\U0001f600" * 3000, "a\nb" * 2000, "\udcff" * 3000])
def test_a_note_is_cut_to_the_bytes_that_the_api_takes(text: str) -> None:
    message = kubernetes_event(Event(0.0, "restart", text), "team", "pets", "0-1")["message"]
    assert len(message.encode()) <= 1000
    assert "\n" not in message
    assert len(cut_to_bytes(text, 100).encode(errors="replace")) <= 100


def test_what_a_streamer_left_behind_is_found_among_many_lines() -> None:
    with quick():
        assert len(what_was_not_copied([f"not copied: file {number}" for number in range(MANY)])) == MANY


def test_room_is_counted_quickly_and_refusals_are_few() -> None:
    def node(number: int, **spec: Any) -> Object:
        return {
            "kind": "Node", "metadata": {"name": f"node-{number}", "labels": {}}, "spec": spec,
            "status": {"allocatable": {"cpu": "8", "memory": "64Gi", "pods": "110"},
                       "conditions": [{"type": "Ready", "status": "True"}]},
        }  # fmt: skip

    def room(nodes: list[Object], pods: int) -> str:
        cluster: Any = FakeCluster(*nodes)
        for number in range(pods):
            cluster.objects["Pod", str(number)] = {
                "kind": "Pod", "metadata": {"name": str(number)}, "status": {},
                "spec": {"nodeName": f"node-{number % MANY}",
                         "containers": [{"resources": {"requests": {"cpu": "1"}}}]},
            }  # fmt: skip
        made = cluster.create
        cluster.create = lambda manifest, **how: (
            {"status": {"allowed": True}} if "Review" in manifest["kind"] else made(manifest, **how)
        )
        with quick(20):
            checks = preflight(TrainingJob(name="pets", workers=MANY), cluster)
        return next(check.detail for check in checks if check.what == "room for all workers")

    assert room([node(number) for number in range(MANY)], 2 * MANY).startswith(f"room for {MANY} of {MANY} worker(s)")
    taints = [node(number, taints=[{"key": f"own-{number}", "effect": "NoSchedule"}]) for number in range(MANY)]
    told = room(taints, 0)
    assert told.endswith(f"and {MANY - 5} more")
    assert len(told) < 1000


def test_the_pace_of_all_workers_is_looked_at(tmp_path: Path) -> None:
    run, lines = RunDirectory(tmp_path), list[str]()
    fleet = Fleet(run, lines.append)
    with quick(4):
        for _ in range(5):
            question = fleet.question()
            assert len(serialize(question)) < LINE
            for worker in range(MANY):
                compute = 2.0 if worker % 1000 == 999 else 1.0
                steps = {"count": 5, "seconds": 3.0, "input": 0.0, "compute": compute, "all_reduce": 2.0 - compute}
                fleet.hear(worker, {"is": "here", "mark": question["mark"]})
                fleet.hear(worker, {"is": "pace", "steps": steps, "usage": {}})
    fleet.question()
    assert lines == [f"worker {worker} takes 2.0 times the others' compute" for worker in (999, 1999, 2999)]
    assert run.workers.stat().st_size < LINE
