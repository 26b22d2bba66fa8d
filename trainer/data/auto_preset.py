"""``--preset auto``: settings by what a data set is like, each with its reason.

A rule knows what was measured on data that is alike; docs/benchmarks.md has the figures. What nobody has measured it
leaves as the default preset has it, and says so. :func:`choices` is pure: the same data gives the same settings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from maskfleet.config import DEFAULT_BATCH, TrainConfig
from maskfleet.image_size import STRIDE, Size
from maskfleet.settings import Layer
from trainer.data.cache import open_divided
from trainer.data.lists import shown
from trainer.data.looking import Look, look
from trainer.data.source import Reading, Source
from trainer.data.splits import Division

SIZE: Size = TrainConfig.model_fields["image_size"].default
STEPS, STEPS_FOR_RARE = 2_250, 1_200
"""On 300 pets .767 after 525 steps and .782 after 2,250; rare classes of streets only begin after 280."""
SHORT, LONG, LONGEST = 7, 30, 100
"""Epochs: of the default preset; the most that were measured; for rare classes in few pictures."""
_NAMED = 3
"""Classes in a line."""
RARE = 0.01
"""Share of the pixels below which ``--balance`` draws classes about equally often."""
THIN = 0.85
"""IoU that a class keeps at the input's size; of streets, poles .79, fences .82 and pedestrians .85."""
LARGER = 2.0
"""Times the input's pixels from which a picture has parts to cut out."""
ALIKE = (0.5, 2.0)
"""Pixels over their median: what else is a scale that means nothing. A crop's own is .5 to 2, too."""
ONE_ASPECT = 1.2
"""Times the lowest aspect that the highest is, of pictures that are squashed alike."""
SQUARE = (0.8, 1.25)
"""Aspects that are scaled to a square."""
SMALLEST = 128
"""Side of an input, pixels: with the encoder's stride of 32, 16 places."""

Chosen = Mapping[str, Any]
"""Settings that are given or chosen already, by name."""
Rule = Callable[[Look, Chosen], tuple[Any, str]]


class Choice(NamedTuple):
    """A setting, as ``flag`` is written on a command line, and why."""

    name: str
    value: Any
    reason: str

    @property
    def flag(self) -> str:
        name = self.name.replace("_", "-")
        if isinstance(self.value, bool):
            return f"--{name}" if self.value else f"--no-{name}"
        return f"--{name} {self.value:g}" if isinstance(self.value, float) else f"--{name} {self.value}"


def choices(seen: Look, given: Chosen) -> list[Choice]:
    """What the rules choose of the settings that are not ``given``, in their order: later ones go by earlier ones."""
    chosen, found = dict(given), []
    for name, rule in RULES.items():
        if name not in chosen:
            chosen[name], reason = rule(seen, chosen)
            found.append(Choice(name, chosen[name], reason))
    return found


def plan(config: TrainConfig, source: Source | None = None) -> tuple[Look, list[Choice]]:
    """A look at the data, and what is chosen by it of what ``config`` leaves open.

    Args:
        source: the data, where it is open already.

    Raises:
        BadSettings, BadData: the data can't be opened, or a picture of the sample not be read.
    """
    if source is None:
        source = open_divided(config.data, config.data_dir, Reading.of(config), Division.of(config))
    given = {name: getattr(config, name) for name in RULES if name not in config.unplanned}
    seen = look(source, given.get("image_size", SIZE).pixels)
    return seen, choices(seen, given)


def planned(config: TrainConfig, report_line: Callable[[str], object], source: Source | None = None) -> TrainConfig:
    """``config`` with all that ``--preset auto`` has left open, as :func:`plan`; itself if there is nothing.

    ``report_line`` gets what is chosen, line by line.
    """
    if not config.unplanned:
        return config
    seen, found = plan(config, source)
    for line in lines(seen, found):
        report_line(line)
    values = {**config.model_dump(), **{choice.name: choice.value for choice in found}}
    return TrainConfig.resolve([Layer("--{}", values)])


def lines(seen: Look, found: Sequence[Choice]) -> list[str]:
    """What was seen and what is chosen, for a terminal."""
    width = max((len(choice.flag) for choice in found), default=0)
    return [f"--preset auto: {seen.line}", *(f"  {choice.flag:<{width}}  {choice.reason}" for choice in found)]


def _model(seen: Look, chosen: Chosen) -> tuple[str, str]:
    return "unet", "ahead of the FCNs in all grids, and a step takes less than half of DeepLabV3+'s on two cores"


def _batch(seen: Look, chosen: Chosen) -> tuple[int, str]:
    return DEFAULT_BATCH, "as in all that was measured; on a GPU 'auto' takes the most that fit"


def _epochs(seen: Look, chosen: Chosen) -> tuple[int, str]:
    each = _steps_of_an_epoch(seen, chosen)
    count = min(LONG, max(SHORT, math.ceil(STEPS / each)))
    why = "300 pets reached .767 by 525 and .782 by 2,250"
    rare = math.ceil(STEPS_FOR_RARE / each)
    if count < rare <= LONGEST and chosen.get("fit", "crop") == "crop" and _why_not_crop(seen, chosen) is None:
        count, why = rare, "on streets rare classes only began after 280"
    return count, f"{round(count * each):,} steps of one worker; {why}"


def _fit(seen: Look, chosen: Chosen) -> tuple[str, str]:
    steps = round(chosen["epochs"] * _steps_of_an_epoch(seen, chosen))
    why_not = _why_not_crop(seen, chosen)
    if why_not is None and steps < STEPS_FOR_RARE:
        why_not = f"{steps:,} steps are too few for parts to pay, {_but(seen, chosen)}"
    if why_not is not None:
        return "squash", why_not
    return "crop", f"parts at their own scale: {_named(seen, chosen, _hard(seen))}"


def _why_not_crop(seen: Look, chosen: Chosen) -> str | None:
    """None where parts of the pictures suit, if there are steps enough."""
    size = _input(chosen)
    if not _hard(seen):
        return f"no class has under {RARE:.0%} of the pixels, and all keep an IoU of {min(seen.kept):.2f} at this size"
    if seen.packed:
        return f"no parts can be cut out of packed data, {_but(seen, chosen)}"
    if seen.height < size.height or seen.width < size.width or seen.height * seen.width < LARGER * size.pixels:
        return f"the pictures are too small for parts of {size.across}, {_but(seen, chosen)}"
    if not ALIKE[0] <= seen.spread[0] <= seen.spread[1] <= ALIKE[1]:
        return f"sizes from {seen.spread[0]:.1f} to {seen.spread[1]:.1f} times the middle's, {_but(seen, chosen)}"
    return None


def _balance(seen: Look, chosen: Chosen) -> tuple[bool, str]:
    rare = [i for i in _hard(seen) if seen.shares[i] < RARE]
    if not rare:
        return False, f"no class has under {RARE:.0%} of the pixels"
    if chosen["fit"] != "crop":
        return False, "measured together with --fit crop alone"
    return True, "rare classes are drawn most: with --fit crop 6.8 points more of the rarest on streets"


def _image_size(seen: Look, chosen: Chosen) -> tuple[Any, str]:
    if chosen["fit"] == "crop":
        return SIZE.written, "of the parts; the encoder was trained at this size"
    low, high = seen.aspects
    area, aspect = min(SIZE.pixels, seen.height * seen.width), math.sqrt(low * high)
    if high / low >= ONE_ASPECT or SQUARE[0] <= aspect <= SQUARE[1]:
        aspect = 1.0
    shape = Size(_side(math.sqrt(area / aspect)), _side(math.sqrt(area * aspect)))
    if shape.height != shape.width:
        why = f"the pictures' aspect, {aspect:.2f}: on streets masks keep an IoU of .915 so, .908 in a square"
    elif shape.pixels < SIZE.pixels:
        why = f"pictures of {seen.width} x {seen.height} have no more to show"
    else:
        why = "what the encoder was trained at"
    return shape.written, why


def _unfreeze_from(seen: Look, chosen: Chosen) -> tuple[str, str]:
    return "stride-8", "what comes after is trained, at a tenth of the learning rate, as in all that was measured"


def _loss(seen: Look, chosen: Chosen) -> tuple[str, str]:
    return "cross_entropy+jaccard", "Lovász in the place of Jaccard was no better"


def _flip(seen: Look, chosen: Chosen) -> tuple[str, str]:
    for name in seen.classes:
        mirrored = re.sub(r"(?i)left", "right", name)
        if mirrored != name and mirrored.lower() in (other.lower() for other in seen.classes):
            return "none", f"mirrored, {shown(name)} would be {shown(mirrored)}"
    return "random", "no class says left or right"


def _zoom(seen: Look, chosen: Chosen) -> tuple[float, str]:
    if chosen["fit"] == "crop":
        return 0.0, "parts have scales of their own"
    if chosen["epochs"] < LONG:
        return 0.1, "gentle, for a short run"
    return 0.25, f"pictures are seen {chosen['epochs']} times: with these .782 on 300 pets"


def _colour(seen: Look, chosen: Chosen) -> tuple[float, str]:
    of = "" if seen.bands == 3 else f" (of {seen.bands} band(s) brightness and contrast alone)"
    if chosen["fit"] == "crop" or chosen["epochs"] < LONG:
        return 0.1, f"as measured with the rest{of}"
    return 0.15, f"as --zoom{of}"


def _precision(seen: Look, chosen: Chosen) -> tuple[str, str]:
    return "auto", "bfloat16 where the hardware multiplies it: within .0022 of float32, and a step takes less"


def _steps_of_an_epoch(seen: Look, chosen: Chosen) -> float:
    batch = chosen["batch_per_replica"]
    return seen.examples / (DEFAULT_BATCH if batch == "auto" else batch)


def _input(chosen: Chosen) -> Size:
    size: Size = chosen.get("image_size", SIZE)
    return size


def _hard(seen: Look) -> list[int]:
    """Classes that are rare, or too thin for the input's size; the worst first."""
    found = [i for i, share in enumerate(seen.shares) if 0 < share < RARE or seen.kept[i] < THIN]
    return sorted(found, key=lambda i: seen.shares[i])


def _named(seen: Look, chosen: Chosen, classes: Sequence[int]) -> str:
    size = _input(chosen)
    told = [
        f"{shown(seen.classes[i])} has {seen.shares[i]:.2%} of the pixels"
        if seen.shares[i] < RARE
        else f"{shown(seen.classes[i])} keeps an IoU of {seen.kept[i]:.2f} at {size.across}"
        for i in classes[:_NAMED]
    ]
    return ", ".join(told) + (f", and {len(classes) - _NAMED} more" if len(classes) > _NAMED else "")


def _but(seen: Look, chosen: Chosen) -> str:
    return f"though {_named(seen, chosen, _hard(seen))}"


def _side(pixels: float) -> int:
    return max(SMALLEST, STRIDE * round(pixels / STRIDE))


RULES: Mapping[str, Rule] = {
    "model": _model,
    "batch_per_replica": _batch,
    "epochs": _epochs,
    "fit": _fit,
    "balance": _balance,
    "image_size": _image_size,
    "unfreeze_from": _unfreeze_from,
    "loss": _loss,
    "flip": _flip,
    "zoom": _zoom,
    "colour": _colour,
    "precision": _precision,
}
"""By the settings' names; a rule finds in ``chosen`` those before its own."""
