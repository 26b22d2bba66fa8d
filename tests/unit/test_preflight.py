"""Room for workers, by the numbers that the API gives."""

from __future__ import annotations

from typing import Any

from launcher.job import TrainingJob
from launcher.manifests import manifests
from launcher.preflight import node_refusal, places_on, quota_shortage, worker_requests


def node(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "n", "labels": {"pool": "train"}},
        "spec": spec,
        "status": {
            "allocatable": {"cpu": "8", "memory": "32Gi", "pods": "110", "nvidia.com/gpu": "2"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def test_a_worker_asks_for_its_trainer_and_its_sidecar() -> None:
    need = worker_requests(manifests(TrainingJob(name="job", cpu="2", memory="4Gi", gpus_per_worker=1))[0])
    assert need == {"pods": 1, "cpu": 2.05, "memory": 4 * 2**30 + 128 * 2**20, "nvidia.com/gpu": 1}


def test_places_are_what_the_scarcest_resource_leaves() -> None:
    need = {"pods": 1.0, "cpu": 2.0, "memory": 4.0 * 2**30}
    running = {
        "spec": {"nodeName": "n", "containers": [{"resources": {"requests": {"cpu": "3", "memory": "1Gi"}}}]},
        "status": {"phase": "Running"},
    }
    done = {**running, "status": {"phase": "Succeeded"}}
    assert places_on(node(), [], need) == 4
    assert places_on(node(), [running, done], need) == 2
    assert places_on(node(), [], {**need, "nvidia.com/gpu": 1.0}) == 2
    assert places_on(node(), [], {**need, "example.com/tpu": 1.0}) == 0


def test_why_a_node_may_not_be_used() -> None:
    taint = {"taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]}
    assert node_refusal(node(), {}) is None
    assert node_refusal(node(unschedulable=True), {}) == "nodes are cordoned"
    assert node_refusal(node(), {"nodeSelector": {"pool": "serve"}}) == "nodes lack the label pool=serve"
    assert node_refusal(node(**taint), {}) == "nodes have the taint gpu=yes, tolerate it with --toleration"
    assert node_refusal(node(**taint), {"tolerations": [{"key": "gpu", "operator": "Exists"}]}) is None


def test_a_quota_counts_what_is_used() -> None:
    quota = {"status": {"hard": {"requests.cpu": "10", "pods": "5"}, "used": {"requests.cpu": "4", "pods": "0"}}}
    assert quota_shortage(quota, {"cpu": 6.0, "pods": 3.0}) is None
    assert quota_shortage(quota, {"cpu": 6.5}) == "requests.cpu: 6 left of 10, the job asks for 6.5"
