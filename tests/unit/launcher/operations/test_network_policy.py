"""Two pods find out whether the cluster enforces NetworkPolicies, and leave nothing but what they found."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import warnings
from typing import Any

import kubernetes_validate
import pytest

from launcher.cluster.kubernetes_api import ApiError
from launcher.job import network_probe
from launcher.job.network_probe import ENFORCED, NOT_ENFORCED, NOT_REACHED
from launcher.job.training_job import TrainingJob
from launcher.operations import network_policy, preflight
from launcher.operations.network_policy import NOTE, try_policy
from launcher.operations.submission import submit
from tests.fakes.cluster import FakeCluster, Object

JOB = TrainingJob(name="job", workers=2)


class Network(FakeCluster):
    """Pods run at once; the one that knocks ends with ``code``."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code
        self.made: list[Object] = []

    def create(self, manifest: Object, **how: Any) -> Object:
        made = super().create(manifest, **how)
        if manifest["kind"] in ("Pod", "NetworkPolicy") and not how:
            self.made.append(made)
        if manifest["kind"] == "Pod" and not how:
            status: Object = {"phase": "Running", "podIP": "10.0.0.7"}
            if manifest["metadata"]["name"].endswith("-stranger"):
                terminated = {"terminated": {"exitCode": self.code, "reason": "Error"}}
                status = {"phase": "Failed", "containerStatuses": [{"name": "probe", "state": terminated}]}
            self.objects["Pod", manifest["metadata"]["name"]]["status"] = status
        return made

    @property
    def left(self) -> set[str]:
        return {kind for kind, _ in self.objects}


def test_what_one_that_was_killed_has_left_is_removed_once_the_cluster_has_ended_it() -> None:
    cluster = Network(ENFORCED)
    for name, status in (("old", {"phase": "Failed", "reason": "DeadlineExceeded"}), ("new", {"phase": "Running"})):
        cluster.objects["Pod", name] = {**network_probe.probed_pod(JOB, name), "status": status}
    try_policy(JOB, cluster)
    assert [name for kind, name in cluster.objects if kind == "Pod"] == ["new"]


@pytest.mark.parametrize(
    ("code", "enforced"), [(ENFORCED, True), (NOT_ENFORCED, False), (NOT_REACHED, None), (1, None)]
)
def test_what_the_pods_find_is_kept_and_nothing_else(code: int, enforced: bool | None) -> None:
    cluster = Network(code)
    assert try_policy(JOB, cluster).enforced is enforced
    assert cluster.left - {"NetworkPolicy"} == ({"ConfigMap"} if enforced is not None else set())
    probed, policy, stranger = cluster.made
    # The server deletes what a deleted object owns.
    assert [each["metadata"]["ownerReferences"][0]["uid"] for each in (policy, stranger)] == [
        probed["metadata"]["uid"]
    ] * 2
    assert policy["spec"]["podSelector"]["matchLabels"] == probed["metadata"]["labels"]
    assert stranger["metadata"]["labels"] != probed["metadata"]["labels"]
    assert stranger["spec"]["containers"][0]["args"][-1] == "10.0.0.7"
    assert network_policy.known(cluster).enforced is enforced
    if enforced is not None:
        try_policy(JOB, cluster)  # and found again


@pytest.mark.parametrize("refused", ["create Pod", "create NetworkPolicy", "get Pod"])
def test_what_may_not_be_tried_leaves_nothing_and_is_unknown(refused: str) -> None:
    cluster = Network(ENFORCED)

    def refuse(request: str) -> None:
        if request == refused:
            raise ApiError(403, "Forbidden", f"may not {request}")

    cluster.before = refuse
    found = try_policy(JOB, cluster)
    assert (found.enforced, found.why) == (None, f"could not be tried: may not {refused}")
    assert "Pod" not in cluster.left


def test_an_interruption_leaves_no_pod() -> None:
    cluster = Network(ENFORCED)

    def interrupt(request: str) -> None:
        if request == "get Pod":
            raise KeyboardInterrupt

    cluster.before = interrupt
    with pytest.raises(KeyboardInterrupt):
        try_policy(JOB, cluster)
    assert "Pod" not in cluster.left


def test_pods_that_do_not_come_up_are_waited_for_no_longer_than_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_policy, "POD_SECONDS", 0.3)
    monkeypatch.setattr(network_policy, "_address", lambda pod: None)
    cluster = Network(ENFORCED)
    assert "did not come up within 0 s: Pending: waits for the scheduler" in try_policy(JOB, cluster).why
    assert "Pod" not in cluster.left


@pytest.mark.parametrize("code", [ENFORCED, NOT_ENFORCED])
def test_preflight_tries_where_it_is_asked_to_and_submit_warns_of_what_is_known(code: int) -> None:
    cluster = Network(code)
    network = preflight._network
    (before,) = network(JOB, cluster, False)
    assert (before.result, cluster.made) == ("unknown", [])
    assert not [note for note in submit(JOB, FakeCluster()).notes if "NetworkPolicy" in note]
    (found,) = network(JOB, cluster, True)
    (after,) = network(JOB, cluster, False)
    assert found.result == after.result == ("ok" if code == ENFORCED else "warning")
    assert list(network(TrainingJob(name="one"), cluster, True)) == []
    warned = [note for note in submit(JOB, cluster).notes if "NetworkPolicy of namespace team is not enforced" in note]
    assert len(warned) == (code == NOT_ENFORCED)
    alone = submit(TrainingJob(name="one"), cluster).notes
    assert not [note for note in alone if "NetworkPolicy" in note]


def test_a_note_that_is_none_is_no_knowledge() -> None:
    note = {"kind": "ConfigMap", "metadata": {"name": NOTE}, "data": {"enforced": "perhaps"}}
    for each in (note, {**note, "data": None}):
        assert network_policy.known(FakeCluster(each)).enforced is None


def test_every_object_follows_the_schema() -> None:
    job = TrainingJob(name="job", workers=2, spot=True, gpus_per_worker=1, image_pull_secret="registry")
    probed = {**network_probe.probed_pod(job, "probe")}
    made = {**probed, "metadata": {**probed["metadata"], "uid": "0-1"}}
    for manifest in (probed, network_probe.policy(made), network_probe.probing_pod(job, made, "10.0.0.7")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kubernetes_validate.validate(manifest, "1.36", strict=True)


@pytest.mark.parametrize(("listening", "code"), [
    ({"GUARDED", "OPEN"}, NOT_ENFORCED), ({"OPEN"}, ENFORCED), (set(), NOT_REACHED),
])  # fmt: skip
def test_the_pod_that_knocks_tells_a_guarded_port_from_a_pod_that_is_not_there(listening: set[str], code: int) -> None:
    """On this machine, where a port without a listener stands for one that a policy guards."""
    program = network_probe._KNOCK.replace("time.sleep(1)", "time.sleep(.02)")
    with contextlib.ExitStack() as held:
        for name in ("GUARDED", "OPEN"):
            server = held.enter_context(socket.socket())
            server.bind(("127.0.0.1", 0))
            if name in listening:
                server.listen()
            program = program.replace(f"reaches({getattr(network_probe, name)})", f"reaches({server.getsockname()[1]})")
        assert subprocess.run([sys.executable, "-c", program, "127.0.0.1"], timeout=60).returncode == code


def test_the_pod_that_is_knocked_at_listens_on_both_ports() -> None:
    program, ports = network_probe._LISTEN, []
    for port in (network_probe.GUARDED, network_probe.OPEN):
        with socket.create_server(("127.0.0.1", 0)) as free:
            ports.append(free.getsockname()[1])
        program = program.replace(str(port), str(ports[-1]))
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        try:
            knock = network_probe._KNOCK.replace("2222", str(ports[0])).replace("2223", str(ports[1]))
            knock = knock.replace("time.sleep(1)", "time.sleep(.2)")
            done = subprocess.run([sys.executable, "-c", knock, "127.0.0.1"], timeout=60)
        finally:
            process.kill()
    assert done.returncode == NOT_ENFORCED
