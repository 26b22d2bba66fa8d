"""What a run was trained on, and whether it is tested on that. Imports no TensorFlow."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from maskfleet.records import Examples, RunRecord
from maskfleet.run_directory import RunDirectory
from maskfleet.text import one_line
from trainer.cgroup import cpu_limit
from trainer.data.cache import Arrays, Dataset

_NAMED = 3
"""Pictures that a line names."""


@dataclass(frozen=True)
class Overlap:
    """How the pictures that a run is tested on go with those that it was trained on.

    Attributes:
        trained_on: names of the test pictures that the run was trained on; None where it has not recorded which.
        warning: what there is to say, in one line; None if the data is the run's and none of it was trained on.
    """

    trained_on: tuple[str, ...] | None
    warning: str | None


def record_examples(run: RunDirectory, dataset: Dataset) -> None:
    """Keeps which pictures are trained on, if the run has not kept it yet."""
    known = Examples.read(run)
    if known is None or known.fingerprint != dataset.fingerprint:
        Examples(dataset.fingerprint, _digests(dataset.train), _digests(dataset.test)).write(run)


def compare_with_training(run: RunDirectory, dataset: Dataset) -> Overlap:
    """Holds the test split of ``dataset`` against what ``run`` has recorded.

    Pictures are told by their pixels at the network's input size, so one that has another name now is known.
    """
    known, examples = RunRecord.read(run).data_fingerprint, Examples.read(run)
    changed = known is not None and known != dataset.fingerprint
    before = f"the data is not what {run.path} was trained on"
    if examples is None:
        unknown = f"{before}, and the run has not recorded which pictures it has seen: it may be tested on some of them"
        return Overlap(None, unknown if changed else None)
    test = _digests(dataset.test)
    seen = set(examples.train.values())
    trained_on = tuple(name for name, digest in test.items() if digest in seen)
    sentence = _trained_on(trained_on, len(test))
    if not changed:
        return Overlap(trained_on, f"{sentence}, as it was when {run.path} began" if trained_on else None)
    return Overlap(trained_on, f"{before}: {_difference(examples, test)}; {sentence}")


def _difference(examples: Examples, test: dict[str, str]) -> str:
    """Between the test pictures of the run and those of now."""
    before, now = set(examples.test.values()), set(test.values())
    new, gone = len(now - before), len(before - now)
    if not new and not gone:
        return f"the {len(test)} test pictures are the same, but masks, classes or training pictures differ"
    return f"of {len(test)} test pictures {new} are new, and {gone} of the run's are gone"


def _trained_on(names: tuple[str, ...], count: int) -> str:
    if not names:
        return "none of them was trained on"
    some = ", ".join(one_line(name, 120) for name in names[:_NAMED]) + (", …" if names[_NAMED:] else "")
    return f"{len(names)} of {count} test pictures were trained on ({some}), and the scores are too good"


def _digests(split: Arrays) -> dict[str, str]:
    def digest(i: int) -> str:
        return hashlib.sha256(split.images[i].tobytes()).hexdigest()[:16]

    with ThreadPoolExecutor(cpu_limit()) as threads:
        return dict(zip(split.names, threads.map(digest, range(len(split))), strict=True))
