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
from launcher.cluster.kubernetes_api import Cluster
from launcher.job.manifests import manifests
from launcher.job.training_job import TrainingJob
from launcher.operations.submission import submit
from tests.fakes.cluster import FakeCluster, worker_pod
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
