"""k8s/ by hand: the API server takes the base and every overlay as kubectl sends them."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from launcher.cluster.kubernetes_api import Cluster
from launcher.job.manifests import base_folder

K8S = base_folder().parent
FOLDERS = ("base", *sorted(f"overlays/{path.name}" for path in (K8S / "overlays").iterdir()))
OBJECTS = {"job.batch", "service", "configmap", "secret", "serviceaccount", "networkpolicy.networking.k8s.io",
           "role.rbac.authorization.k8s.io", "rolebinding.rbac.authorization.k8s.io"}  # fmt: skip


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_server_would_take_what_kubectl_makes_of_it(folder: str, cluster: Cluster) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("not run: needs kubectl on the PATH; the test cluster's 'up' prints where its own is")
    command = ["kubectl", "apply", "-k", str(K8S / folder), "--dry-run=server", "-n", cluster.namespace]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = dict(line.split(" ", 1) for line in done.stdout.splitlines())
    assert made == {f"{kind}/maskfleet": "created (server dry run)" for kind in OBJECTS}
    assert "PodSecurity" not in done.stderr  # which the server warns of, the namespace being a restricted one
    assert not cluster.list("Job")
