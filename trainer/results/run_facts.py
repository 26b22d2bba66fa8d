"""What a report tells of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from maskfleet.records import FinalScores, MetricsLine, Resolved, RunRecord, SplitScores
from trainer.results.legend import Legend


@dataclass(frozen=True)
class Example:
    """One image, as data URIs of the image, its true mask and the predicted one, with its own mIoU."""

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
        scores: at the run's end; None before it, and of a run that an older version ended.
        boundary_f1: by class, empty if the data is not at hand.
        seconds: by what the run's time was spent on; empty of a run that an older version began.
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
    scores: FinalScores | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def final(self) -> SplitScores:
        """The scores that count: at the run's end, and before it those of the last validation."""
        return self.scores or self.metrics[-1]

    @property
    def at_network_size(self) -> SplitScores:
        """The same, counted at the network's input size."""
        return (self.scores and self.scores.at_network_size) or self.final

    @property
    def sizes(self) -> str:
        """At which size pixels were counted for what."""
        if self.scores is not None and self.scores.size == "own":
            return "counted at the images' own size; best mIoU at the network's input size"
        return "counted at the network's input size; boundary F1 at the images' own size"

    @property
    def title(self) -> str:
        """Which split these are of, and which one has chosen what."""
        if self.scores is not None:
            return self.scores.title
        return f"on the {(self.record.resolved or Resolved()).chooser} split, of the last validation"


EVALUATED = 300
"""Images of a split, evenly spread, that are predicted at most, and fewer where they are large: a report is to take
seconds whatever the data."""
