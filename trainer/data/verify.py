"""Looks at every file of a data set, as training would read it. Imports no TensorFlow."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskfleet.config import TrainConfig
from maskfleet.errors import BadData
from maskfleet.image_size import Fit, Size
from trainer.data.cache import ADJECTIVES
from trainer.data.fitting import seen_mask
from trainer.data.images import check_label_sets, label_counts
from trainer.data.likeness import Likeness, alike, likeness
from trainer.data.lists import shown
from trainer.data.opening import open_source
from trainer.data.side_by_side import side_by_side
from trainer.data.source import IGNORED, Reading, Source, Split
from trainer.data.splits import Division, divide_anew, torn_groups, torn_line

_NEARLY_BLACK, _NEARLY_WHITE = 16, 239
"""Pixel values that a picture must pass on one side to show anything."""
_NAMED = 5
"""Names in a line for a terminal; JSON has all."""


@dataclass(frozen=True)
class SplitReport:
    """What one split holds.

    Attributes:
        examples: their number, bad ones included.
        pixels: of each class, and of "ignored", in the good examples at their original size.
        images_with: the number of good examples that have any pixel of the class.
        pixels_scaled, images_with_scaled: the same at the size that training sees.
        vanished: of each class that has some, the names of the examples that lose all its pixels by that scaling.
        pixel_range: the smallest and the largest value in the images, of 0 to 255; None without any.
        black, white, dropped: names of the images that are all black or white (nearly so), and, for each thing that
            is dropped of image files, names of the images that had it.
        depths: how many images with files of 16 bits use so many of them.
        assumed: names of the images that EXIF turns, and whose masks fit both ways.
        smallest, largest: width and height of the images with the fewest and the most pixels; None without any.
        bad: one line for each example that can't be used, in the split's order.
    """

    examples: int
    pixels: dict[str, int]
    images_with: dict[str, int]
    pixels_scaled: dict[str, int]
    images_with_scaled: dict[str, int]
    vanished: dict[str, tuple[str, ...]]
    pixel_range: tuple[int, int] | None
    black: tuple[str, ...]
    white: tuple[str, ...]
    dropped: dict[str, tuple[str, ...]]
    depths: dict[int, int]
    assumed: tuple[str, ...]
    smallest: tuple[int, int] | None
    largest: tuple[int, int] | None
    bad: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What a data set holds.

    Attributes:
        image_size: that training scales everything to, or cuts out.
        fit: how it does that.
        validation: None where there is no such split; ``test`` has no examples where there is none.
        alike: (split, name, split, name) of each picture that stands in two splits, equal or nearly so.
        warnings: a line each for what can be trained on, but may not be what was meant.
        first_bad: says in one line what must be mended before it can be trained on.
    """

    data: str
    image_size: Size
    classes: tuple[str, ...]
    train: SplitReport
    test: SplitReport
    warnings: tuple[str, ...]
    first_bad: str | None
    validation: SplitReport | None = None
    alike: tuple[tuple[str, str, str, str], ...] = ()
    fit: Fit = "squash"

    @property
    def splits(self) -> dict[str, SplitReport]:
        """Those that have examples, by name."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None and split.examples}

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "image_size": self.image_size.written}

    def text(self) -> str:
        """Some lines for a terminal."""
        lines = []
        for name, split in self.splits.items():
            lines.append(f"{name}: {split.examples} images{_sizes(split)}")
            total, total_scaled = (max(1, sum(counts.values())) for counts in (split.pixels, split.pixels_scaled))
            names = {label: shown(label) for label in split.pixels}
            width = max(map(len, names.values()))
            at = "their own size" if self.fit == "crop" else self.image_size.across
            for label, pixels in split.pixels.items():
                share, scaled = pixels / total, split.pixels_scaled[label] / total_scaled
                lines.append(
                    f"  {names[label]:<{width}} {share:7.2%}  in {split.images_with[label]:>5} images; "
                    f"at {at}: {scaled:7.2%}  in {split.images_with_scaled[label]:>5}"
                    f"  {'█' * round(20 * share)}".rstrip()
                )
        lines += [f"warning: {line}" for line in self.warnings]
        bad = sum(len(split.bad) for split in self.splits.values())
        if self.first_bad:
            lines.append(f"bad: {self.first_bad}" + (f" (the first of {bad} bad examples)" if bad > 1 else ""))
        else:
            lines.append("every file is good" + (f", but see the {_count(self.warnings)}" if self.warnings else ""))
        return "\n".join(lines)


def verify(config: TrainConfig) -> Report:
    """Reads every image and mask that ``config`` names.

    Raises:
        BadSettings: the setting ``data`` names no kind of data.
        BadData: the data can't be opened at all; bad files are in the report instead.
    """
    division = Division.of(config)
    source = divide_anew(open_source(config.data, config.data_dir, Reading.of(config)), division)
    label_sets: set[frozenset[int]] = set()
    looks: dict[str, dict[str, Likeness]] = {name: {} for name in source.splits}
    reports = {name: _read(source, split, config, label_sets, looks[name]) for name, split in source.splits.items()}
    first_bad = next((line for report in reports.values() for line in report.bad), None)
    if first_bad is None and (torn := torn_groups(source, division)):
        first_bad = torn_line(torn, division)
    if first_bad is None and source.read_by_label:
        try:
            check_label_sets(label_sets, config.data)
        except BadData as error:
            first_bad = str(error)
    pairs = tuple(_alike(looks))
    warnings = (
        *source.notes,
        *_warnings(source, reports, config.image_size, config.masks_drawn_on),
        *_alike_lines(pairs),
    )
    return Report(
        config.data,
        config.image_size,
        source.classes,
        reports["train"],
        reports.get("test") or _read(source, source.test, config, label_sets, {}),
        warnings,
        first_bad,
        reports.get("validation"),
        pairs,
        config.fit,
    )


class _Facts(NamedTuple):
    """Of one good example; ``counts`` and ``scaled`` are pixels of each of :func:`_labels`."""

    counts: NDArray[np.int64]
    scaled: NDArray[np.int64]
    darkest: int
    brightest: int
    dropped: tuple[str, ...]
    depth: int | None
    assumed: bool
    size: tuple[int, int]
    look: Likeness


def _read(
    source: Source, split: Split, config: TrainConfig, label_sets: set[frozenset[int]], looks: dict[str, Likeness]
) -> SplitReport:
    """Reads all examples, and adds the labels of each mask to ``label_sets``, and what it shows to ``looks``."""
    labels = _labels(source)
    kept = [*labels]  # 256 counts of each of many pictures would be much

    def read(i: int) -> _Facts | str:
        try:
            example = split.read(i)
        except BadData as error:
            return str(error)
        image, mask = example.image, example.mask
        return _Facts(
            label_counts(mask)[kept],
            label_counts(seen_mask(mask, config.image_size, config.fit))[kept],
            int(image.min()),
            int(image.max()),
            example.dropped,
            example.depth,
            example.assumed,
            (mask.shape[1], mask.shape[0]),
            likeness(image),
        )

    results = list(side_by_side(read, len(split), split.pixels))
    good = [(name, facts) for name, facts in zip(split.names, results, strict=True) if not isinstance(facts, str)]
    label_sets.update(frozenset(itertools.compress(kept, facts.counts)) for _, facts in good)
    looks.update((name, facts.look) for name, facts in good)
    counts, scaled = (
        dict(zip(labels.values(), np.array(of_each, np.int64).reshape(-1, len(kept)).T, strict=True))
        for of_each in ([facts.counts for _, facts in good], [facts.scaled for _, facts in good])
    )
    vanished = {
        name: tuple(good[i][0] for i in np.flatnonzero((counts[name] > 0) & (scaled[name] == 0)))
        for name in source.classes
    }
    sizes = sorted((facts.size for _, facts in good), key=lambda size: size[0] * size[1])
    dropped = sorted({what for _, facts in good for what in facts.dropped})
    return SplitReport(
        examples=len(split),
        pixels={name: int(each.sum()) for name, each in counts.items()},
        images_with={name: int((each > 0).sum()) for name, each in counts.items()},
        pixels_scaled={name: int(each.sum()) for name, each in scaled.items()},
        images_with_scaled={name: int((each > 0).sum()) for name, each in scaled.items()},
        vanished={name: examples for name, examples in vanished.items() if examples},
        pixel_range=(min(f.darkest for _, f in good), max(f.brightest for _, f in good)) if good else None,
        black=tuple(name for name, facts in good if facts.brightest < _NEARLY_BLACK),
        white=tuple(name for name, facts in good if facts.darkest > _NEARLY_WHITE),
        dropped={what: tuple(name for name, facts in good if what in facts.dropped) for what in dropped},
        depths=dict(sorted(Counter(facts.depth for _, facts in good if facts.depth is not None).items())),
        assumed=tuple(name for name, facts in good if facts.assumed),
        smallest=sizes[0] if sizes else None,
        largest=sizes[-1] if sizes else None,
        bad=tuple(result for result in results if isinstance(result, str)),
    )


def _alike(looks: Mapping[str, Mapping[str, Likeness]]) -> Iterator[tuple[str, str, str, str]]:
    for (first, ours), (second, theirs) in itertools.combinations(looks.items(), 2):
        our_names, their_names = [*ours], [*theirs]
        for i, j in alike([*ours.values()], [*theirs.values()]):
            yield first, our_names[i], second, their_names[j]


def _alike_lines(pairs: Sequence[tuple[str, str, str, str]]) -> Iterator[str]:
    for first, second in dict.fromkeys((first, second) for first, _, second, _ in pairs):
        names = [
            ours if ours == theirs else f"{theirs} as {ours}"
            for one, ours, other, theirs in pairs
            if (one, other) == (first, second)
        ]
        yield (
            f"{_count(names, 'picture')} in the {second} split and, equal or nearly so, in the {first} split "
            f"({_some(names)}): what is scored on them is too good; keep each on one side (--group-by, or the lists)"
        )


def _warnings(source: Source, reports: Mapping[str, SplitReport], size: Size, drawn_on: str) -> Iterator[str]:
    """What can be trained on, but may not be what was meant."""
    read = {split: report for split, report in reports.items() if report.examples > len(report.bad)}
    nowhere = [name for name in source.classes if not any(report.pixels[name] for report in read.values())]
    if read and nowhere:
        yield f"no mask has a pixel of {_some(nowhere)}"
    for split, report in read.items():
        if without := [name for name in source.classes if name not in nowhere and not report.pixels[name]]:
            yield f"no {ADJECTIVES[split]} mask has a pixel of {_some(without)}"
    for name in source.classes:
        lost = _all(report.vanished.get(name, ()) for report in reports.values())
        had = sum(report.images_with[name] for report in reports.values())
        if lost:
            yield (
                f"{shown(name)}: {len(lost)} of the {had} images that have it lose all its pixels at {size.across}, "
                f"which training sees ({_some(lost)}); a larger --image-size keeps more"
            )
    black, white = (_all(getattr(report, what) for report in reports.values()) for what in ("black", "white"))
    for what, names in (("black", black), ("white", white)):
        if names:
            yield f"{_count(names, 'image')} all {what}, or nearly so ({_some(names)})"
    if assumed := _all(report.assumed for report in reports.values()):
        yield (
            f"{_count(assumed, 'image')} turned by EXIF, and sizes can't tell whether their masks are too: they are "
            f"taken as drawn on the {drawn_on} picture, as --masks-drawn-on says ({_some(assumed)})"
        )
    depths: Counter[int] = Counter()
    for report in reports.values():
        depths.update(report.depths)
    if len(depths) > 1:
        counts = ", ".join(f"{bits} bits in {count}" for bits, count in sorted(depths.items()))
        yield f"images of 16 bits use different depths ({counts}), and each is scaled by its own: compare their greys"
    for what in sorted({what for report in reports.values() for what in report.dropped}):
        having = _all(report.dropped.get(what, ()) for report in reports.values())
        yield f"{_count(having, 'image')} read without what its file has beside: {what} ({_some(having)})"


def _all(names: Iterable[Sequence[str]]) -> list[str]:
    return [*itertools.chain.from_iterable(names)]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(shown(name) for name in names[:_NAMED]) + more


def _count(things: Sequence[str], noun: str = "") -> str:
    if not noun:
        return "warning" if len(things) == 1 else f"{len(things)} warnings"
    return f"1 {noun} is" if len(things) == 1 else f"{len(things)} {noun}s are"


def _labels(source: Source) -> dict[int, str]:
    """What each label is called in a report."""
    return {**dict(enumerate(source.classes)), IGNORED: "ignored"}


def _sizes(split: SplitReport) -> str:
    if split.smallest is None or split.largest is None or split.pixel_range is None:
        return ""
    (width, height), (most_width, most_height) = split.smallest, split.largest
    low, high = split.pixel_range
    return f", {width} x {height} to {most_width} x {most_height} pixels, of values {low} to {high}"
