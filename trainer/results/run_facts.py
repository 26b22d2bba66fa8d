"""What a report tells of a run."""

from __future__ import annotations

from dataclasses import dataclass

from maskfleet.records import MetricsLine, RunRecord
from trainer.results.legend import Legend


@dataclass(frozen=True)
class Example:
    """One test image, as data URIs of the image, its true mask and the predicted one, with its own mIoU."""

    name: str
    miou: float
    image: str
    truth: str
    prediction: str


@dataclass(frozen=True)
class RunFacts:
    """All that the page says about one run.

    Attributes:
        metrics: one at least.
        boundary_f1: by class, empty if the data is not at hand.
        note: what there is to say about the predictions, as why there are none.
    """

    name: str
    record: RunRecord
    legend: Legend
    metrics: list[MetricsLine]
    restarts: int
    parameters: int
    boundary_f1: dict[str, float]
    best: list[Example]
    worst: list[Example]
    note: str


EVALUATED = 300
"""Test images, evenly spread, that are predicted at most: a report is to take seconds whatever the data."""
