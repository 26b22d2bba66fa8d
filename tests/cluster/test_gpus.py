"""Which GPU a worker will get, said before by the labels of simulated nodes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from launcher.cluster.kubernetes_api import Cluster, Object
from launcher.operations import submission
from launcher.operations.preflight import preflight
from tests.cluster.conftest import Kit, Scripted
from tests.helpers.processes import until

L4 = {"cloud.google.com/gke-accelerator": "nvidia-l4"}
H100 = {
    "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.memory": "81559",
    "nvidia.com/gpu.compute.major": "9", "nvidia.com/gpu.compute.minor": "0",
}  # fmt: skip
RTX_5090 = {
    "nvidia.com/gpu.product": "NVIDIA-GeForce-RTX-5090", "nvidia.com/gpu.memory": "32607",
    "nvidia.com/gpu.compute.major": "12", "nvidia.com/gpu.compute.minor": "0",
}  # fmt: skip


@pytest.fixture(scope="module")
def cards(kit: Kit) -> Iterator[None]:
    kit("fleet", "4", "--gpus", "8")
    try:
        cluster = Cluster.connect()
        for number, labels in enumerate((L4, H100, H100, RTX_5090)):
            cluster.patch("Node", f"sim-{number}", {"metadata": {"labels": labels}})
        until(lambda: all(takes_pods(node) for node in cluster.list("Node")), "nodes that take pods", 60)
        yield
    finally:
        kit("fleet", "0")


def takes_pods(node: Object) -> bool:
    """Whether it is ready, and the node controller has taken away the taint that new nodes have."""
    return {taint["key"] for taint in node["spec"].get("taints", [])} <= {"simulated"}


@pytest.mark.parametrize(
    ("label", "result", "said"),
    [
        ("cloud.google.com/gke-accelerator=nvidia-l4", "ok", "nvidia-l4 (24.0 GiB, compute capability 8.9) on 1 node"),
        ("nvidia.com/gpu.compute.major=9", "ok",
         "NVIDIA-H100-80GB-HBM3 (79.6 GiB, compute capability 9.0) on 2 nodes"),
        ("nvidia.com/gpu.compute.major=12", "no",
         "NVIDIA-GeForce-RTX-5090 (31.8 GiB, compute capability 12.0) on 1 node; NVIDIA-GeForce-RTX-5090: TensorFlow "
         "2.21 has no kernels for it: it is newer than compute capability 9.0"),
    ],
)  # fmt: skip
def test_the_card_is_named_and_one_without_kernels_refused(
    label: str, result: str, said: str, cards: None, cluster: Cluster, scripted: Scripted
) -> None:
    job = scripted(
        "time.sleep(3600)", gpus_per_worker=8, toleration=("simulated=true:NoSchedule",), node_selector=(label,)
    )
    (found,) = [check for check in preflight(job, cluster) if check.what == "GPU"]
    assert (found.result, found.detail) == (result, said)
    notes = submission.submit(job, cluster).notes
    assert next(note for note in notes if note.startswith("GPU: ")) == f"GPU: {said.split('; ')[0]}"
    assert any("no kernels" in note for note in notes) == (result == "no")
