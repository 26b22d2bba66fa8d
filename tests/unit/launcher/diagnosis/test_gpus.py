"""Which GPU a node's labels tell of, and whether TensorFlow's wheels have kernels for it."""

from __future__ import annotations

from typing import Any

import pytest

from launcher.diagnosis.gpus import card_of, cards_of, describe_cards, gpu_troubles
from launcher.job.training_job import TrainingJob
from launcher.operations.preflight import preflight
from launcher.operations.submission import submit
from maskfleet.config import TrainConfig
from maskfleet.errors import NotFound
from tests.fakes.cluster import CREATED, FakeCluster

NVIDIA, GKE = "nvidia.com/gpu", "cloud.google.com/gke-accelerator"


def discovered(product: str, mib: str, major: str, minor: str) -> dict[str, str]:
    """The labels of NVIDIA's GPU feature discovery."""
    return {
        f"{NVIDIA}.product": product, f"{NVIDIA}.memory": mib, f"{NVIDIA}.compute.major": major,
        f"{NVIDIA}.compute.minor": minor,
    }  # fmt: skip


def node(name: str = "n", **labels: str) -> Any:
    return {
        "kind": "Node",
        "metadata": {"name": name, "uid": name, "creationTimestamp": CREATED, "labels": labels},
        "spec": {},
        "status": {
            "allocatable": {"cpu": "32", "memory": "128Gi", "pods": "110", NVIDIA: "8"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (discovered("NVIDIA-A100-SXM4-40GB", "40960", "8", "0"),
         "NVIDIA-A100-SXM4-40GB (40.0 GiB, compute capability 8.0)"),
        ({f"{NVIDIA}.product": "Tesla-T4"}, "Tesla-T4"),
        (discovered("Tesla-T4", "lots", "seven", "5"), "Tesla-T4"),
        (discovered("Tesla-T4", "9" * 50, "7", "5"), "Tesla-T4 (compute capability 7.5)"),
        ({GKE: "nvidia-tesla-t4"}, "nvidia-tesla-t4 (16.0 GiB, compute capability 7.5)"),
        ({GKE: "nvidia-l4"}, "nvidia-l4 (24.0 GiB, compute capability 8.9)"),
        ({GKE: "nvidia-tesla-a100"}, "nvidia-tesla-a100 (compute capability 8.0)"),
        ({GKE: "nvidia-a100-80gb"}, "nvidia-a100-80gb (80.0 GiB, compute capability 8.0)"),
        ({GKE: "nvidia-h100-mega-80gb"}, "nvidia-h100-mega-80gb (80.0 GiB, compute capability 9.0)"),
        ({GKE: "nvidia-h200-141gb"}, "nvidia-h200-141gb (141.0 GiB, compute capability 9.0)"),
        ({GKE: "nvidia-b200"}, "nvidia-b200 (180.0 GiB, compute capability 10.0)"),
        ({GKE: "nvidia-next"}, "nvidia-next"),
        ({"karpenter.k8s.aws/instance-gpu-name": "a10g"}, "a10g (24.0 GiB, compute capability 8.6)"),
        ({"k8s.amazonaws.com/accelerator": "nvidia-tesla-v100"}, "nvidia-tesla-v100 (compute capability 7.0)"),
        ({**discovered("NVIDIA-L4", "23034", "8", "9"), GKE: "nvidia-l4"},
         "NVIDIA-L4 (22.5 GiB, compute capability 8.9)"),
    ],
)  # fmt: skip
def test_the_card_by_the_labels(labels: dict[str, str], told: str) -> None:
    assert str(card_of(node(**labels))) == told


@pytest.mark.parametrize("labels", [{}, {"kubernetes.azure.com/accelerator": "nvidia"}, {GKE: ""}])
def test_what_names_no_card_tells_nothing(labels: dict[str, str]) -> None:
    assert card_of(node(**labels)) is None


@pytest.mark.parametrize(
    ("capability", "trouble"),
    [
        ("3.7", "older than compute capability 6.0"), ("5.2", "older than compute capability 6.0"),
        ("6.0", ""), ("6.1", ""), ("7.0", ""), ("7.5", ""), ("8.0", ""), ("8.6", ""), ("8.9", ""), ("9.0", ""),
        ("10.0", "newer than compute capability 9.0"), ("12.0", "newer than compute capability 9.0"),
    ],
)  # fmt: skip
def test_which_cards_have_kernels(capability: str, trouble: str) -> None:
    major, minor = capability.split(".")
    found = gpu_troubles(cards_of([node(**discovered("card", "8192", major, minor))]))
    assert found == ([f"card: TensorFlow 2.21 has no kernels for it: it is {trouble}"] if trouble else [])


def test_several_cards_are_counted() -> None:
    nodes = [node(**{GKE: name}) for name in ("nvidia-l4", "nvidia-h100-80gb", "nvidia-l4")]
    assert describe_cards(cards_of(nodes)) == (
        "nvidia-l4 (24.0 GiB, compute capability 8.9) on 2 nodes or "
        "nvidia-h100-80gb (80.0 GiB, compute capability 9.0) on 1 node"
    )


GPUS = TrainingJob(name="pets", gpus_per_worker=1, training=TrainConfig(batch_per_replica="auto"))
"""Whose step takes what there is."""


@pytest.mark.parametrize(
    ("cards", "result"),
    [(["nvidia-l4"], "ok"), (["nvidia-b200"], "no"), (["nvidia-l4", "nvidia-b200"], "warning"), ([], "unknown")],
)
def test_preflight_says_whether_a_worker_may_come_to_a_card_without_kernels(cards: list[str], result: str) -> None:
    cluster = FakeCluster(*(node(card, **{GKE: card}) for card in cards), *([] if cards else [node()]))
    (found,) = [check for check in preflight(GPUS, Allowing(cluster)) if check.what == "GPU"]
    assert found.result == result


class Allowing(FakeCluster):
    """Lets everything be done."""

    def __init__(self, other: FakeCluster) -> None:
        super().__init__(*other.objects.values())

    def create(self, manifest: Any, **how: Any) -> Any:
        if manifest["kind"] == "SelfSubjectAccessReview":
            return {"status": {"allowed": True}}
        return super().create(manifest, **how)


def test_submit_tells_the_card_of_the_nodes_that_are_asked_for_and_never_fails_by_it() -> None:
    nodes = [node("a", **{GKE: "nvidia-l4"}), node("b", **{GKE: "nvidia-b200"})]
    chosen = TrainingJob(name="pets", gpus_per_worker=1, node_selector=(f"{GKE}=nvidia-l4",))
    notes = submit(chosen, FakeCluster(*nodes)).notes
    assert "GPU: nvidia-l4 (24.0 GiB, compute capability 8.9) on 1 node" in notes
    assert any(
        "nvidia-b200: TensorFlow 2.21 has no kernels" in note for note in submit(GPUS, FakeCluster(*nodes)).notes
    )
    hidden = FakeCluster()

    def before(request: str) -> None:
        if request == "list Node":
            raise NotFound("may not be seen")

    hidden.before = before
    assert not any(note.startswith("GPU") for note in submit(GPUS, hidden).notes)
    without = FakeCluster(*nodes)
    submit(TrainingJob(name="pets"), without)
    assert "list Node" not in without.requests
