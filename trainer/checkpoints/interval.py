"""How often to save: what checkpoints cost against what faults lose. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable

from maskfleet.records import Event
from maskfleet.sentences import is_told_to_stop

FIRST_FAULT_SECONDS = 3600.0
"""Between two faults of a run that has seen none."""
_GUESSED_FAULTS = 0.25
"""What that guess weighs, in faults: so little that the second fault seen already says more than it."""


def best_interval(cost: float, between_faults: float) -> float:
    """Seconds of training between two checkpoints that lose the least time in all.

    Daly's optimum (J. T. Daly, A higher order estimate of the optimum checkpoint interval for restart dumps, Future
    Generation Computer Systems 22, 2006, eq. 37), whose first term is Young's (1974). With the cost d and the mean time
    between faults M::

        sqrt(2 d M) (1 + sqrt(d / (2 M)) / 3 + (d / (2 M)) / 9) - d    for d < 2 M, else M

    Args:
        cost: seconds that a checkpoint takes from the training.
        between_faults: seconds, more than 0.
    """
    if cost >= 2 * between_faults:
        return between_faults
    ratio = cost / (2 * between_faults)
    return math.sqrt(2 * cost * between_faults) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost


def mean_time_between_faults(seconds: float, faults: int) -> float:
    """Of a run that has seen ``faults`` in ``seconds``, by a gamma distribution that begins with a guess."""
    return (_GUESSED_FAULTS * FIRST_FAULT_SECONDS + seconds) / (_GUESSED_FAULTS + faults)


def faults_in(events: Iterable[Event]) -> int:
    """How often training was cut off: by a lost process, or with all of worker 0. Who was told to stop has saved."""
    faults, before = 0, None
    for event in events:
        lost_chief = event.kind == "start" and before in ("start", "restart")
        restarted = event.kind == "restart" and not is_told_to_stop(event.message)
        faults += lost_chief or restarted
        if event.kind == "start" or restarted:
            before = event.kind
        elif event.kind in ("restart", "end"):
            before = None
    return faults
