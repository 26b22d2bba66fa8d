"""Which GPU a worker will get, by the labels of nodes, and whether TensorFlow has kernels for it. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from launcher.job.labels import labels_of
from maskfleet.config import TrainConfig
from maskfleet.gpu_memory import StepMemory
from maskfleet.text import format_bytes, one_line, some_of

Object = Mapping[str, Any]

TENSORFLOW = "2.21"
KERNELS = ((6, 0), (7, 0), (8, 0), (8, 9), (9, 0))
"""What its wheels hold kernels for, by ``tf.sysconfig.get_build_info()["cuda_compute_capabilities"]``."""

_ANYWHERE = "nvidia.com/gpu"
"""Labels of NVIDIA's GPU feature discovery, wherever it runs: .product, .memory in MiB, .compute.major and .minor."""
_NAMED_BY = (
    "cloud.google.com/gke-accelerator", "karpenter.k8s.aws/instance-gpu-name", "k8s.amazonaws.com/accelerator",
)  # fmt: skip
"""Labels that name the card alone: of GKE, of Karpenter and of the cluster autoscaler on EKS."""

# https://developer.nvidia.com/cuda-gpus, https://developer.nvidia.com/cuda-legacy-gpus; GiB as the makers say.
_KNOWN: Mapping[str, tuple[tuple[int, int], int | None]] = {
    "k80": ((3, 7), 12), "m60": ((5, 2), 8), "p4": ((6, 1), 8), "p100": ((6, 0), 16), "v100": ((7, 0), None),
    "t4": ((7, 5), 16), "t4g": ((7, 5), 16), "a10g": ((8, 6), 24), "a10": ((8, 6), 24), "a100": ((8, 0), None),
    "l4": ((8, 9), 24), "l40s": ((8, 9), 48), "h100": ((9, 0), 80), "h200": ((9, 0), 141), "gh200": ((9, 0), None),
    "b200": ((10, 0), 180), "gb200": ((10, 0), 186), "b300": ((10, 3), None), "gb300": ((10, 3), None),
    "rtx-pro-6000": ((12, 0), 96),
}  # fmt: skip
"""Compute capability and memory by the part of a label that names the card; None where one name has several sizes."""


@dataclass(frozen=True)
class Card:
    """A GPU as labels tell it: ``memory`` in bytes and ``capability``, major and minor, are None if they do not."""

    product: str
    memory: int | None
    capability: tuple[int, int] | None

    def __str__(self) -> str:
        told = [format_bytes(self.memory)] if self.memory else []
        told += [f"compute capability {self.capability[0]}.{self.capability[1]}"] if self.capability else []
        return self.product + (f" ({', '.join(told)})" if told else "")

    @property
    def trouble(self) -> str:
        """Why TensorFlow's wheels do not compute on it; empty if they do, or if nothing tells.

        A kernel for 8.0 runs on 8.6 as well, on no other major number. Of a newer card the driver would have to compile
        what the wheels carry as PTX, which fails: https://github.com/tensorflow/tensorflow/issues/89272.
        """
        mine = self.capability
        if mine is None or any(mine[0] == major and mine[1] >= minor for major, minor in KERNELS):
            return ""
        age = "older than" if mine < KERNELS[0] else "newer than"
        edge = KERNELS[0] if mine < KERNELS[0] else KERNELS[-1]
        return f"TensorFlow {TENSORFLOW} has no kernels for it: it is {age} compute capability {edge[0]}.{edge[1]}"


def card_of(node: Object) -> Card | None:
    """The card of a node; None if it has none, or no label that names it."""
    labels = labels_of(node)
    if product := labels.get(f"{_ANYWHERE}.product"):
        numbers = [labels.get(f"{_ANYWHERE}.{key}", "") for key in ("memory", "compute.major", "compute.minor")]
        memory, major, minor = (int(text) if text.isdecimal() and len(text) < 9 else None for text in numbers)
        capability = (major, minor) if major is not None and minor is not None else None
        return Card(one_line(product), memory * 2**20 if memory else None, capability)
    name = next((labels[key] for key in _NAMED_BY if labels.get(key)), "")
    return _by_name(one_line(name)) if name else None


def cards_of(nodes: Iterable[Object]) -> Counter[Card]:
    """How many of the nodes have which card, the commonest first."""
    return Counter(dict(Counter(card for node in nodes if (card := card_of(node))).most_common()))


def describe_cards(cards: Mapping[Card, int]) -> str:
    """Which card it will be, or, of several, one of which: in a line, with the number of nodes."""
    told = [f"{card} on {count} {'node' if count == 1 else 'nodes'}" for card, count in cards.items()]
    return some_of(told, most=4, separator=" or ")


def gpu_troubles(cards: Iterable[Card]) -> list[str]:
    """One for each card that a worker may get and not train on."""
    return [f"{card.product}: {card.trouble}" for card in cards if card.trouble]


def memory_troubles(cards: Iterable[Card], step: StepMemory, config: TrainConfig) -> list[str]:
    """One for each card that a worker may get and that is surely too small for a step."""
    found = ((card, step.trouble(card.memory, config)) for card in cards if card.memory is not None)
    return [f"{card}: {trouble}" for card, trouble in found if trouble]


def _by_name(name: str) -> Card:
    """Of ``nvidia-h100-80gb`` and the like: ``-80gb`` says the memory where a card has several sizes."""
    words = re.sub(r"^nvidia-(tesla-)?", "", name.lower())
    known = next((known for known in sorted(_KNOWN, key=len, reverse=True) if re.match(rf"{known}\b", words)), None)
    capability, gib = _KNOWN[known] if known else (None, None)
    if told := re.search(r"-(\d{1,4})gb\b", words):
        gib = int(told[1])
    return Card(name, gib * 2**30 if gib else None, capability)
