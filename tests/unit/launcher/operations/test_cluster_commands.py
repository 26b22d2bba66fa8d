"""The commands for a cluster as they are typed: exit codes, what goes to which stream, what needs a kubeconfig."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from launcher.cli import main
from launcher.cluster.kubernetes_api import ApiError, Cluster
from launcher.job.manifests import manifests
from launcher.job.training_job import TrainingJob
from launcher.operations.submission import submit
from tests.fakes.cluster import CREATED, FakeCluster, worker_pod
from tests.fakes.http import Answer, HttpFake, Request
from tests.helpers.tls_front import certificate


def launcher(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Any:
    fake = FakeCluster()
    monkeypatch.setattr(Cluster, "connect", lambda *arguments, **keywords: fake)
    return fake


@pytest.fixture
def no_kubeconfig(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))


def test_a_check_on_this_machine_needs_no_kubeconfig(no_kubeconfig: None) -> None:
    checked = launcher("submit", "--name", "pets", "--dry-run", "client")
    assert checked.exit_code == 0, checked.stderr
    assert checked.stdout.splitlines()[0] == "Job pets: would be created"
    refused = launcher("submit", "--name", "pets", "--dry-run", "server")
    assert refused.exit_code == 2
    assert refused.stderr.startswith("error: kubeconfig ")


def test_render_as_json(no_kubeconfig: None) -> None:
    flags = ("--name", "pets", "--output", "gs://bucket")
    job = TrainingJob.from_sources(None, TrainingJob.parse_flags(flags))
    assert json.loads(launcher("render", *flags, "-o", "json").stdout)["items"] == manifests(job)
    assert json.loads(launcher("render", *flags, "--job", "-o", "json").stdout) == job.dump()
    assert yaml.safe_load(launcher("render", *flags, "--job").stdout) == job.dump()


def test_wait_is_1_with_one_line_if_the_end_was_not_streamed(cluster: FakeCluster) -> None:
    submit(TrainingJob(name="pets", output="gs://bucket"), cluster)
    cluster.objects["Job", "pets"]["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    pod = worker_pod(0, phase="Succeeded", terminated={"exitCode": 0})
    ended = {"exitCode": 1, "message": "2026-11-23 10:00:00,001 launcher.stream: not copied: the export"}
    pod["status"]["initContainerStatuses"] = [{"name": "streamer", "state": {"terminated": ended}}]
    cluster.objects["Pod", "p"] = pod
    waited = launcher("wait", "pets")
    assert waited.exit_code == 1
    told = "pets: Succeeded – all workers are done; not all of the run was streamed: the export\n"
    assert waited.stderr == told


def of_another_namespace(each: dict[str, Any]) -> dict[str, Any]:
    return {**each, "metadata": {**each["metadata"], "namespace": "other", "creationTimestamp": "2026-11-23T09:00:00Z"}}


@pytest.fixture
def two_namespaces(cluster: FakeCluster) -> FakeCluster:
    """A job of one name in each of two namespaces: here it runs, there its pod can't be made."""
    submit(TrainingJob(name="pets"), cluster)
    cluster.objects["Node", "node-1"] = {"kind": "Node", "metadata": {"name": "node-1"}}
    cluster.objects["Pod", "pets"] = worker_pod(0)
    cluster.objects["Job", "other/pets"] = of_another_namespace(cluster.objects["Job", "pets"])
    cluster.objects["Pod", "other/pets"] = pod = of_another_namespace(worker_pod(0, phase="Pending", waiting={}))
    about = {"kind": "Pod", "name": pod["metadata"]["name"], "namespace": "other"}
    told = {"kind": "Event", "reason": "Pulling", "message": "Pulling image i:1", "involvedObject": about,
            "metadata": {"name": "e", "namespace": "other"}}  # fmt: skip
    cluster.objects["Event", "e"] = told
    return cluster


def test_a_list_of_all_namespaces_says_where_each_job_is_and_confuses_none(two_namespaces: FakeCluster) -> None:
    shown = launcher("list", "-A")
    assert (shown.exit_code, shown.stderr) == (0, "")
    rows = [line.split() for line in shown.stdout.splitlines()]
    assert [row[:4] for row in rows] == [
        ["NAMESPACE", "NAME", "PHASE", "WORKERS"],
        ["team", "pets", "Starting", "1/1"],
        ["other", "pets", "Pulling", "0/1"],
    ]  # fmt: skip
    assert rows[2][-3:] == ["Pulling", "image", "i:1"]
    found = json.loads(launcher("list", "--all-namespaces", "-o", "json").stdout)
    assert [(each["namespace"], each["name"]) for each in found] == [("team", "pets"), ("other", "pets")]
    assert len(launcher("list").stdout.splitlines()) == 2


@pytest.mark.parametrize("kind", ["Job", "Pod"])
def test_who_may_not_see_all_namespaces_is_told_so_and_shown_his_own(kind: str, two_namespaces: FakeCluster) -> None:
    def forbid(request: str) -> None:
        if request == f"list {kind} everywhere":
            raise ApiError(403, "Forbidden", "jobs is forbidden: not at the cluster scope")

    two_namespaces.before = forbid
    shown = launcher("list", "-A")
    assert (shown.exit_code, len(shown.stdout.splitlines())) == (0, 2)
    assert shown.stderr == "note: only of namespace team: jobs is forbidden: not at the cluster scope\n"


NOTHING_KEPT = (
    "without --output the run lives in its chief's pod: it survives a crash of any process, but a lost chief "
    "pod starts it over, and nothing remains when the job is deleted"
)


def test_submit_as_json_is_one_object_and_notes_go_to_the_other_stream(cluster: FakeCluster) -> None:
    command = ("submit", "--name", "pets", "-o", "json")
    for extra, namespace, new in (
        (("--dry-run", "client"), None, None),
        (("--dry-run", "server"), "team", True),
        ((), "team", True),
        ((), "team", False),
    ):
        done = launcher(*command, *extra)
        expected = {"name": "pets", "namespace": namespace, "new": new, "notes": [NOTHING_KEPT]}
        assert (done.exit_code, json.loads(done.stdout)) == (0, expected)
    assert done.stderr == f"note: {NOTHING_KEPT}\n"
    refused = launcher(*command, "--workers", "2")
    assert (refused.exit_code, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize(("condition", "code"), [("Complete", 0), ("Failed", 1)])
def test_the_end_as_json_is_what_status_shows(condition: str, code: int, cluster: FakeCluster) -> None:
    submit(TrainingJob(name="pets"), cluster)
    ended = {"type": condition, "status": "True", "lastTransitionTime": CREATED}
    cluster.objects["Job", "pets"]["status"] = {"conditions": [ended], "completedIndexes": "0"}
    shown = json.loads(launcher("status", "pets", "-o", "json").stdout)
    waited = launcher("wait", "pets", "-o", "json")
    assert (waited.exit_code, json.loads(waited.stdout)) == (code, shown)
    assert waited.stderr.startswith("pets: ")
    del cluster.objects["Job", "pets"]
    gone = launcher("wait", "pets", "-o", "json")
    assert (gone.exit_code, gone.stdout, gone.stderr.count("\n")) == (3, "", 1)


@pytest.mark.parametrize("how", ["--wait", "--follow"])
def test_a_submit_that_waits_shows_both_in_one_object(how: str, cluster: FakeCluster) -> None:
    def end(request: str) -> None:
        if request == "patch Job":  # it is released
            ended = {"type": "Failed", "status": "True", "lastTransitionTime": CREATED}
            cluster.objects["Job", "pets"]["status"] = {"conditions": [ended]}
            cluster.objects["Pod", "p"] = pod = worker_pod(0, phase="Failed", terminated={"exitCode": 1})
            cluster.logs[pod["metadata"]["name"]] = ["hello"]

    cluster.before = end
    done = launcher("submit", "--name", "pets", how, "-o", "json")
    shown = json.loads(done.stdout)
    assert (done.exit_code, shown["new"], shown["phase"]) == (1, True, "Failed")
    assert shown.keys() == {"new", "notes", *json.loads(launcher("status", "pets", "-o", "json").stdout)}
    assert "job pets submitted in " in done.stderr
    assert ("worker-0 | hello" in done.stderr) == (how == "--follow")


def test_several_jobs_are_deleted_and_one_that_fails_stops_no_other(cluster: FakeCluster) -> None:
    for name in ("a", "b", "c"):
        submit(TrainingJob(name=name), cluster)
    asked = CliRunner().invoke(main, ["delete", "a", "b"], input="n\n")
    assert (asked.exit_code, "delete jobs a, b in " in asked.stdout) == (130, True)

    deleted: list[str] = []

    def refuse(request: str) -> None:
        if request == "delete Job":
            deleted.append(request)
            if len(deleted) == 2:
                raise ApiError(403, "Forbidden", "may not be deleted")

    cluster.before = refuse
    done = launcher("delete", "a", "missing", "b", "a", "c", "--yes")
    assert [line[:16] for line in done.stdout.splitlines()] == ["job a is deleted", "job c is deleted"]
    told = "error: there is no job missing in namespace team; 'launcher list' shows them\nerror: may not be deleted\n"
    assert (done.exit_code, done.stderr) == (3, told)


def test_several_jobs_are_cancelled_with_the_worst_exit_code(cluster: FakeCluster) -> None:
    for name in ("a", "b"):
        submit(TrainingJob(name=name), cluster)
    cluster.objects["Job", "a"]["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    done = launcher("cancel", "a", "b")
    assert (done.exit_code, done.stdout[:18]) == (2, "job b is cancelled")
    assert done.stderr.startswith("error: job a has ended already\n")


WRONG = {
    "status": ("status", "pets", "--watch", "-o", "json"),
    "a name": ("status", "../pets"),
    "an empty name": ("describe", ""),
    "one of several names": ("delete", "pets", "Pets", "--yes"),
    "cancel": ("cancel",),
    "a namespace": ("list", "-n", "a/b"),
    "logs": ("logs", "pets", "--since", "soon"),
    "logs of before": ("logs", "pets", "-f", "-p"),
    "wait": ("wait", "pets", "--timeout", "soon"),
    "submit": ("submit", "--workers", "0"),
    "submit on the server": ("submit", "--dry-run", "server", "--", "--epochs", "x"),
    "preflight": ("preflight", "--data", "folder:pets"),
    "resume": ("resume", "pets", "--", "--epochs", "x"),
    "resume with what is no setting": ("resume", "pets", "--", "--epoch", "3"),
    "tensorboard": ("tensorboard", "pets", "--port", "70000"),
    "exec": ("exec", "pets"),
    "a container": ("exec", "pets", "--container", "other", "--", "ls"),
    "a worker": ("exec", "pets", "--worker", "-1", "--", "ls"),
}


@pytest.mark.parametrize("case", WRONG)
def test_arguments_are_checked_before_a_kubeconfig_is_asked_for(case: str, no_kubeconfig: None) -> None:
    refused = launcher(*WRONG[case])
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert refused.stderr.startswith("error: ")
    assert "kubeconfig" not in refused.stderr


@pytest.mark.parametrize(("command", "mend"), [
    (("run", "--epochs", "3"), "'launcher run … -- --epochs …'"),
    (("run", "--epochs=3"), "'launcher run … -- --epochs …'"),
    (("run", "--data", "synthetic"), "'launcher run … -- --data …'"),
    (("run", "--no-cache-features"), "'launcher run … -- --no-cache-features …'"),
    (("run", "--learning_rate", "1"), "'launcher run … -- --learning-rate …'"),
    (("submit", "--epochs", "3"), "'launcher submit … -- --epochs …'"),
    (("render", "--model", "unet"), "'launcher render … -- --model …'"),
    (("preflight", "--seed", "3"), "'launcher preflight … -- --seed …'"),
    (("resume", "pets", "--epochs", "3"), "'launcher resume … -- --epochs …'"),
])  # fmt: skip
def test_a_setting_of_the_trainer_says_that_it_comes_after_the_dashes(command: tuple[str, ...], mend: str) -> None:
    refused = launcher(*command)
    option = next(word for word in command if word.startswith("--")).partition("=")[0]
    told = f"error: {option}: settings of the trainer come after --: write {mend}\n"
    assert (refused.exit_code, refused.stderr) == (2, told)


def test_an_option_that_is_nobody_s_or_near_one_of_the_command_stays_unknown() -> None:
    assert "No such option '--kubernetes'" in launcher("run", "--kubernetes").stderr
    assert "--workers" in launcher("run", "--worker", "2").stderr


def test_cancel_notes_what_is_lost_beside_what_it_did(cluster: FakeCluster) -> None:
    submit(TrainingJob(name="pets"), cluster)
    done = launcher("cancel", "pets")
    assert done.stdout.startswith("job pets is cancelled")
    assert (
        done.stderr == "note: without --output its logs and checkpoints go with its pods: a resumed job starts over\n"
    )


def test_a_second_check_by_the_server_says_that_the_job_is_there(cluster: FakeCluster) -> None:
    command = ("submit", "--name", "pets", "--dry-run", "server")
    assert launcher(*command).stdout == "job pets: the server would take it\n"
    assert cluster.objects == {}
    submit(TrainingJob(name="pets"), cluster)
    again = launcher(*command)
    assert (again.exit_code, again.stdout) == (0, "job pets: is there already; submit would change no setting of it\n")


def test_what_is_changed_is_said_with_its_namespace_and_context(cluster: FakeCluster) -> None:
    place = "namespace team of context here"
    assert f"job pets submitted in {place}: 1 worker(s)" in launcher("submit", "--name", "pets").stdout
    assert launcher("cancel", "pets").stdout.startswith(f"job pets is cancelled in {place}: ")
    assert launcher("resume", "pets").stdout == f"job pets goes on in {place}\n"
    asked = CliRunner().invoke(main, ("delete", "pets"), input="n\n")
    assert asked.stdout.startswith(f"delete job pets in {place}?")
    assert launcher("delete", "pets", "--yes").stdout == f"job pets is deleted in {place}\n"


def test_a_server_that_is_not_verified_is_warned_of_once(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    context, _ = certificate(tmp_path / "tls")

    class Empty(HttpFake):
        def perform(self, request: Request, *, whole: bool) -> Answer:
            return Answer.of({"kind": "List", "metadata": {}, "items": []})

    with Empty("127.0.0.1", 0, context) as server:
        content = {
            "current-context": "here",
            "clusters": [{"name": "c", "cluster": {"server": server.url, "insecure-skip-tls-verify": True}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        }
        (tmp_path / "config").write_text(json.dumps(content))
        command = [sys.executable, "-m", "launcher.cli", "list", "--kubeconfig", str(tmp_path / "config")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert len(server.requests) >= 3
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "note: insecure-skip-tls-verify: whoever answers is taken for the API server", "no jobs in namespace default",
    ]  # fmt: skip


def test_status_says_what_a_preparing_pod_fetches_and_what_it_waits_for(cluster: FakeCluster) -> None:
    job = TrainingJob(name="pets", workers=2, data="gs://data/pets", output="s3://runs")
    submit(job, cluster)
    cluster.objects["Node", "node-1"] = {"kind": "Node", "metadata": {"name": "node-1"}}
    for worker in (0, 1):
        pod = worker_pod(worker, phase="Pending", waiting={"reason": "PodInitializing"})
        pod["spec"]["initContainers"] = manifests(job)[0]["spec"]["template"]["spec"]["initContainers"]
        pod["status"]["initContainerStatuses"] = [{"name": "prepare", "state": {"running": {"startedAt": CREATED}}}]
        cluster.objects["Pod", str(worker)] = pod
        cluster.logs[pod["metadata"]["name"]] = []
    shown = json.loads(launcher("status", "pets", "-o", "json").stdout)
    fetches = "fetches gs://data/pets and the newest checkpoint in s3://runs/pets"
    assert (shown["phase"], shown["reason"]) == ("Starting", f"all 2 workers: {fetches}")
    cluster.logs["pets-1-abcde"] = ["first", "gs://data does not answer: Connection refused; trying again"]
    rows = json.loads(launcher("status", "pets", "-o", "json").stdout)["workers"]
    told = [row["reason"] for row in rows]
    assert told[0] == fetches
    assert told[1].startswith(f"{fetches}: ")
    assert told[1].endswith("gs://data does not answer: Connection refused; trying again")

    def forbid(request: str) -> None:
        if request == "list Event":
            raise ApiError(403, "Forbidden", "may not")

    cluster.before = forbid
    assert "trying again" in launcher("status", "pets").stdout
