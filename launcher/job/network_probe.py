"""Two small pods and a NetworkPolicy, by which a cluster shows whether it enforces such policies. Pure."""

from __future__ import annotations

import copy
from typing import Any

from launcher.job.labels import APPLICATION, COMPONENT_LABEL, INSTANCE_LABEL, MANAGED_BY_LABEL, MANAGER, NAME_LABEL
from launcher.job.manifests import manifests
from launcher.job.training_job import TrainingJob

Manifest = dict[str, Any]

GUARDED, OPEN = 2222, 2223
"""Ports of the probed pod: one that the policy keeps others from, and one that anybody may reach."""
ENFORCED, NOT_ENFORCED, NOT_REACHED = 0, 3, 4
"""Exit codes of the probing pod."""
COMPONENT = "network-probe"
"""The pods' component, by their label."""
LIFE_SECONDS = 300
"""After which the cluster ends the pods by itself, should nobody delete them."""

_LISTEN = f"""
import socket, time
def listen(port):
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))
held = [listen(port) for port in ({GUARDED}, {OPEN})]
time.sleep({LIFE_SECONDS})
"""
_KNOCK = f"""
import socket, sys, time
def reaches(port):
    try:
        socket.create_connection((sys.argv[1], port), 3).close()
    except OSError:
        return False
    return True
for _ in range(30):
    if reaches({OPEN}):
        break
    time.sleep(1)
else:
    sys.exit({NOT_REACHED})
refused = 0
for _ in range(15):  # the network may need a while to learn of a policy
    refused = refused + 1 if not reaches({GUARDED}) and reaches({OPEN}) else 0
    if refused == 3:
        sys.exit({ENFORCED})
    time.sleep(1)
sys.exit({NOT_ENFORCED})
"""


def probed_pod(job: TrainingJob, name: str) -> Manifest:
    """Listens on both ports. It owns the other two objects, which go when it goes."""
    return _pod(job, _metadata(name), ["python", "-c", _LISTEN])


def policy(probed: Manifest) -> Manifest:
    """Nobody may reach the guarded port of the probed pod, as nobody but its workers may reach a job's."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(probed["metadata"]["name"], probed),
        "spec": {
            "podSelector": {"matchLabels": probed["metadata"]["labels"]},
            "policyTypes": ["Ingress"],
            "ingress": [{"ports": [{"port": OPEN}]}],
        },
    }


def probing_pod(job: TrainingJob, probed: Manifest, address: str) -> Manifest:
    """Tries both ports at the probed pod's ``address``, and ends with what it has found."""
    return _pod(job, _metadata(f"{probed['metadata']['name']}-stranger", probed), ["python", "-c", _KNOCK, address])


def _pod(job: TrainingJob, metadata: Manifest, args: list[str]) -> Manifest:
    """Where and from what image the job's sidecar would run; it asks for as little, and has no file of the job."""
    pod = copy.deepcopy(manifests(job)[0]["spec"]["template"]["spec"])
    streamer = next(each for each in pod["initContainers"] if each["name"] == "streamer")
    kept = ("image", "imagePullPolicy", "resources", "securityContext")
    container = {"name": "probe", "args": args, **{key: streamer[key] for key in kept}}
    placed = ("securityContext", "imagePullSecrets", "priorityClassName", "nodeSelector", "tolerations", "affinity")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {
            **{key: pod[key] for key in placed if key in pod},
            "containers": [container],
            "restartPolicy": "Never",
            "activeDeadlineSeconds": LIFE_SECONDS,
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
        },
    }


def _metadata(name: str, owner: Manifest | None = None) -> Manifest:
    """``owner`` is a pod as the API server has made it."""
    labels = {NAME_LABEL: APPLICATION, INSTANCE_LABEL: name, COMPONENT_LABEL: COMPONENT,
              MANAGED_BY_LABEL: MANAGER}  # fmt: skip
    if owner is None:
        return {"name": name, "labels": labels}
    made = owner["metadata"]
    owners = [{"apiVersion": "v1", "kind": "Pod", "name": made["name"], "uid": made["uid"]}]
    return {"name": name, "labels": labels, "ownerReferences": owners}
