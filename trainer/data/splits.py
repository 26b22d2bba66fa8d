"""Divides a data set otherwise than its layout does, as the settings ask. Pure; imports no TensorFlow."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Self

from maskfleet.config import TrainConfig
from maskfleet.errors import BadData
from trainer.data.lists import TEST_SHARE, by_hash, held_out, shown
from trainer.data.source import Source, Split

_NAMED = 5
"""Groups in a line."""


@dataclass(frozen=True)
class Division:
    """The settings of :class:`~maskfleet.config.TrainConfig` that say which example is in which split."""

    validation_share: float | None = None
    group_by: str | None = None
    folds: int | None = None
    fold: int | None = None

    @classmethod
    def of(cls, config: TrainConfig) -> Self:
        return cls(config.validation_share, config.group_by, config.folds, config.fold)


AS_IT_IS = Division()
"""As the layout has it."""


def divide_anew(source: Source, division: Division) -> Source:
    """``source`` with the validation split that ``division`` asks for; its test split stays as the layout has it.

    All examples of a group go to one side, also when the split for testing is made here, since the layout has none.
    Which groups are held out is told by a hash of their names, so it is the same on every machine.

    Raises:
        BadData: there is a validation split already, there are too few groups, or a name has none.
    """
    divided = source
    if division.group_by is not None and source.split_by == "hash":
        divided = _with_test(divided, division)
    if division.validation_share is not None:
        divided = _with_validation(divided, division)
    elif division.folds is not None:
        divided = _with_fold(divided, division)
    if divided is source:
        return source
    key = hashlib.sha256(f"{source.key}\n{astuple(division)}".encode()).hexdigest()
    return replace(divided, key=key, split_by="settings")


def torn_groups(source: Source, division: Division) -> Mapping[str, Sequence[str]]:
    """Groups of which examples are in several splits, and in which."""
    splits: defaultdict[str, list[str]] = defaultdict(list)
    if division.group_by is not None:
        for name, split in source.splits.items():
            for group in dict.fromkeys(_groups(split.names, division)):
                splits[group].append(name)
    return {group: names for group, names in splits.items() if len(names) > 1}


def torn_line(torn: Mapping[str, Sequence[str]], division: Division) -> str:
    """What is wrong, in one line."""
    some = ", ".join(f"{shown(group)} in {' and '.join(names)}" for group, names in list(torn.items())[:_NAMED])
    more = f" and {len(torn) - _NAMED} more" if len(torn) > _NAMED else ""
    return (
        f"--group-by {division.group_by}: expected all pictures of a group in one split, found {some}{more}; the data "
        "itself says so: move their pictures to one side, or leave --group-by out"
    )


def check_whole(source: Source, division: Division) -> None:
    """Raises BadData if the layout's own splits tear groups: no setting moves an example into a test split."""
    if torn := torn_groups(source, division):
        raise BadData(torn_line(torn, division))


def _with_test(source: Source, division: Division) -> Source:
    """The layout says nothing of splits: whole groups are for testing."""
    examples = source.train + source.test
    order = sorted(range(len(examples)), key=examples.names.__getitem__)
    examples = examples.part(order)
    train, test = _parted(examples, TEST_SHARE, division, f"--group-by {division.group_by}", "testing")
    return replace(source, train=train, test=test)


def _with_validation(source: Source, division: Division) -> Source:
    assert division.validation_share is not None
    flag = f"--validation-share {division.validation_share:g}"
    if source.validation is not None:
        raise BadData(
            f"{flag}: the data has a validation split already, of {len(source.validation)} pictures; leave it out, or "
            "divide training and validation pictures anew with --folds and --fold"
        )
    train, validation = _parted(source.train, division.validation_share, division, flag, "validation")
    return replace(source, train=train, validation=validation)


def _with_fold(source: Source, division: Division) -> Source:
    """Of the examples that are not for testing, one of several parts of about equal size is for validation."""
    assert division.folds is not None
    examples = source.train if source.validation is None else source.train + source.validation
    groups = _groups(examples.names, division)
    sizes = Counter(groups)
    if len(sizes) < division.folds:
        what = "training pictures" if division.group_by is None else f"groups by --group-by {division.group_by}"
        raise BadData(f"--folds {division.folds}: expected as many {what} at least, found {len(sizes)}")
    filled = [0] * division.folds
    chosen = set()
    # The largest first, each to the fold that has least: as equal as whole groups allow.
    for group in sorted(by_hash(sizes), key=lambda group: -sizes[group]):
        fold = filled.index(min(filled))
        filled[fold] += sizes[group]
        if fold == division.fold:
            chosen.add(group)
    if len(set(examples.names)) < len(examples):  # of two folders
        origins = ["train"] * len(source.train) + ["validation"] * len(examples)
        names = zip(origins, examples.names, strict=False)
        examples = replace(examples, names=tuple(f"{origin}/{name}" for origin, name in names))
    train, validation = _apart(examples, groups, chosen)
    return replace(source, train=train, validation=validation)


def _parted(examples: Split, share: float, division: Division, flag: str, purpose: str) -> tuple[Split, Split]:
    """What stays, and about ``share`` of the examples in whole groups."""
    groups = _groups(examples.names, division)
    chosen = held_out(groups, share)
    if len(chosen) == len(set(groups)):
        by = "" if division.group_by is None else f", and all of one group by --group-by {division.group_by}"
        raise BadData(
            f"{flag}: expected some pictures for training beside those for {purpose}, found {len(examples)} in all"
            + (by if len(chosen) == 1 and len(examples) > 1 else "")
        )
    return _apart(examples, groups, chosen)


def _apart(examples: Split, groups: Sequence[str], chosen: set[str]) -> tuple[Split, Split]:
    """The examples of the other groups, and of the chosen ones."""
    sides = ([i for i, group in enumerate(groups) if (group in chosen) == side] for side in (False, True))
    stay, go = map(examples.part, sides)
    return stay, go


def _groups(names: Sequence[str], division: Division) -> Sequence[str]:
    """The group of each name: the pattern's first group, else what it matches; without a pattern the name itself."""
    if division.group_by is None:
        return names
    pattern = re.compile(division.group_by)
    matches = [pattern.search(name) for name in names]
    groups = [None if match is None else match[1 if pattern.groups else 0] for match in matches]
    without = [name for name, group in zip(names, groups, strict=True) if group is None]
    if without:
        raise BadData(
            f"--group-by {division.group_by}: expected a match in the name of each picture, found none in "
            f"{len(without)} of {len(names)}, as {shown(without[0])}; names have no folder and no suffix"
        )
    return [group for group in groups if group is not None]
