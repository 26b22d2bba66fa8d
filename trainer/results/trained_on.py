"""What a run was trained on, and whether it is tested on that. Imports no TensorFlow."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from maskfleet.records import Examples, RunRecord
from maskfleet.run_directory import RunDirectory
from maskfleet.text import one_line
from trainer.cgroup import cpu_limit
from trainer.data.cache import Arrays, Dataset, Pictures

_NAMED = 3
"""Pictures that a line names."""


@dataclass(frozen=True)
class Overlap:
    """How the pictures of a split go with those that a run was trained on.

    Attributes:
        trained_on: names of the split's pictures that the run was trained on; None where it has not recorded which.
        warning: what there is to say, in one line; None if the data is the run's and none of it was trained on.
    """

    trained_on: tuple[str, ...] | None
    warning: str | None


def record_examples(run: RunDirectory, dataset: Dataset, code: str | None = None) -> None:
    """Keeps which pictures are trained on, and the fingerprint of whose own code, if the run has not kept it yet."""
    known = Examples.read(run)
    if known is None or known.fingerprint != dataset.fingerprint:
        # Packed data is too much to read for it, and its manifest says which pictures those are.
        splits = {} if dataset.packed is not None else dataset.splits
        digests = {name: _digests(split) for name, split in splits.items()}
        train, test, validation = (digests.get(name, {}) for name in ("train", "test", "validation"))
        Examples(dataset.fingerprint, train, test, validation, code).write(run)
    elif known.code_fingerprint != code:
        replace(known, code_fingerprint=code).write(run)


def compare_with_training(run: RunDirectory, dataset: Dataset, split: str | None = None) -> Overlap:
    """Holds a split of ``dataset``, by default the one that judges, against what ``run`` has recorded.

    Pictures are told by their pixels, at the network's input size or, where it sees parts of them, at their own; so one
    that has another name now is known.
    """
    known, examples = RunRecord.read(run).data_fingerprint, Examples.read(run)
    changed = known is not None and known != dataset.fingerprint
    before = f"the data is not what {run.path} was trained on"
    if examples is None or not examples.train:
        unknown = f"{before}, and the run has not recorded which pictures it has seen: it may be tested on some of them"
        return Overlap(None, unknown if changed else None)
    split = split or dataset.judge
    scored = _digests(dataset.splits[split])
    trained_on = _known(scored, examples.train)
    sentences = [_trained_on(trained_on, len(scored), split)]
    if split == "test" and (chosen_on := _known(scored, examples.validation)):
        chose = f"{len(chosen_on)} of {len(scored)} test pictures ({_some(chosen_on)})"
        sentences.append(f"{chose} are of the validation split by which the run chose")
    said = "; ".join(sentences)
    if split == "train" and not changed:
        return Overlap(trained_on, f"these {len(scored)} pictures were trained on, and the scores are too good")
    if not changed:
        return Overlap(trained_on, f"{said}, as it was when {run.path} began" if trained_on or sentences[1:] else None)
    return Overlap(trained_on, f"{before}: {_difference(examples, scored, split)}; {said}")


def _known(scored: Mapping[str, str], seen: Mapping[str, str]) -> tuple[str, ...]:
    digests = set(seen.values())
    return tuple(name for name, digest in scored.items() if digest in digests)


def _difference(examples: Examples, scored: Mapping[str, str], split: str) -> str:
    """Between the pictures of the run's split and those of now."""
    # What validated a run of an older version is among its test pictures.
    recorded = {"train": examples.train, "validation": examples.validation or examples.test, "test": examples.test}
    before, now = set(recorded[split].values()), set(scored.values())
    new, gone = len(now - before), len(before - now)
    if not new and not gone:
        return f"the {len(scored)} {split} pictures are the same, but masks, classes or training pictures differ"
    return f"of {len(scored)} {split} pictures {new} are new, and {gone} of the run's are gone"


def _trained_on(names: tuple[str, ...], count: int, split: str) -> str:
    if not names:
        return "none of them was trained on"
    some = f"({_some(names)}), and the scores are too good"
    return f"{len(names)} of {count} {split} pictures were trained on {some}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(one_line(name, 120) for name in names[:_NAMED]) + (", …" if names[_NAMED:] else "")


def _digests(split: Arrays | Pictures) -> dict[str, str]:
    if split.digests is not None:
        return dict(split.digests)
    assert isinstance(split, Arrays)  # which may be whole pictures

    def digest(i: int) -> str:
        return hashlib.sha256(split.images[i].tobytes()).hexdigest()[:16]

    with ThreadPoolExecutor(cpu_limit()) as threads:
        return dict(zip(split.names, threads.map(digest, range(len(split))), strict=True))
