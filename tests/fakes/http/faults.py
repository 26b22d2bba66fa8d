"""Faults on order: which requests fail, and whether before or after their effect."""

from __future__ import annotations

import random
import re
import threading
from dataclasses import dataclass
from typing import Literal, get_args

Kind = Literal["status", "drop-before", "drop-after", "drop-middle", "cut-answer", "half-answer"]
"""``drop-before``: the connection closes without an effect; ``drop-after``: the effect happens, its
acknowledgement is lost; ``drop-middle``: the connection closes after half of the body, which a resumable upload
keeps and any other request ignores; ``status``: the answer is ``Fault.status``, without an effect; ``cut-answer``: the
connection closes after half of the answer; ``half-answer``: half of the answer comes as if it were all."""


@dataclass
class Fault:
    """Fails up to ``times`` requests whose "METHOD path?query" matches ``where``, after letting ``skip`` pass."""

    kind: Kind
    where: str = ""
    status: int = 503
    times: int = 1
    skip: int = 0
    code: str = ""
    """How S3 calls the error."""


class Faults:
    """The faults that are still to come. ``bandwidth`` slows every upload, bytes per second."""

    def __init__(self) -> None:
        self.bandwidth: float | None = None
        self._planned: list[Fault] = []
        self._random: random.Random | None = None
        self._probability = 0.0
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._planned.append(fault)

    def at_random(self, seed: int, probability: float) -> None:
        """From now on each request fails with ``probability``, in a way that the seed decides; 0 ends it."""
        with self._lock:
            self._random, self._probability = random.Random(seed), probability

    def clear(self) -> None:
        with self._lock:
            self._planned.clear()
            self._probability = 0.0
            self.bandwidth = None

    def take(self, request: str) -> Fault | None:
        """The fault that strikes this request, if any."""
        with self._lock:
            for fault in self._planned:
                if fault.times > 0 and re.search(fault.where, request):
                    if fault.skip > 0:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return fault
            if self._random is None or self._random.random() >= self._probability:
                return None
            kind: Kind = self._random.choice(get_args(Kind))
            return Fault(kind, status=self._random.choice([429, 500, 503]))
