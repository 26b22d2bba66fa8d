"""The examples for a cluster, on one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import yaml

from launcher import Cluster
from tests.cluster.conftest import Scripted

EXAMPLES = Path(__file__).parents[2] / "examples"


def kubeconfig(folder: Path, namespace: str) -> Path:
    """That of the test cluster, with another namespace."""
    command = ["kubectl", "config", "view", "--raw", "--flatten", "--minify"]
    content = yaml.safe_load(subprocess.run(command, capture_output=True, check=True).stdout)
    content["contexts"][0]["context"]["namespace"] = namespace
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(content))
    return path


def test_submit_from_python_shows_the_phases_and_ends_as_the_training_does(
    cluster: Cluster, scripted: Scripted, tmp_path: Path
) -> None:
    environment = os.environ | {"KUBECONFIG": str(kubeconfig(tmp_path, cluster.namespace))}
    for name, script, code, last in (
        ("good", "print('hello')", 0, "good: Succeeded  all workers are done"),
        ("bad", "sys.exit('the disk is full')", 1, "the disk is full"),
    ):
        (tmp_path / "job.yaml").write_text(scripted(script, workers=2).to_yaml())
        command = [sys.executable, str(EXAMPLES / "submit.py"), str(tmp_path / "job.yaml"), name]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == code, done.stderr
        assert last in done.stdout.splitlines()[-1]
        assert any(line.startswith(f"{name}: ") for line in done.stdout.splitlines())


def test_the_server_would_take_the_job_file(cluster: Cluster) -> None:
    file = str(EXAMPLES / "job.yaml")
    command = [sys.executable, "-m", "launcher.cli", "submit", "-n", cluster.namespace, "-f", file, "--dry-run=server"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "job shapes: the server would take it\n"), done.stderr
