"""Which mask is whose, where masks are not called as their images. Imports no TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from maskfleet.errors import BadData, BadSettings
from trainer.data.images import MASK_SUFFIXES

_NAME = "{name}"
_TRIED = 2000
"""Masks that are looked at to find how masks are called; those of the first images are among them."""
_FEWEST = 2
"""Letters that image and mask have in common, at least: less is chance."""


@dataclass(frozen=True)
class MaskPattern:
    """How the name of an image and that of its mask differ: what stands before and behind what both have."""

    image: tuple[str, str] = ("", "")
    mask: tuple[str, str] = ("", "")

    @classmethod
    def parse(cls, text: str) -> MaskPattern:
        """Of ``{name}_mask``, or ``{name}_sat={name}_mask`` where the image's name has a part of its own too.

        Raises:
            BadSettings: a side has no ``{name}``, or has it twice.
        """
        *image, mask = text.split("=")
        if len(image) > 1 or any(side.count(_NAME) != 1 or "/" in side for side in (*image, mask)):
            raise BadSettings(
                f"--mask-pattern {text}: expected a mask's name with {_NAME} for its image's, such as {_NAME}_mask, "
                f"or {_NAME}_image={_NAME}_mask where the image's name has a part of its own"
            )
        if Path(mask).suffix.lower() in MASK_SUFFIXES and not mask.endswith(_NAME):
            mask = mask[: -len(Path(mask).suffix)]
        sides = [tuple(side.split(_NAME)) for side in (image[0] if image else _NAME, mask)]
        return cls((sides[0][0], sides[0][1]), (sides[1][0], sides[1][1]))

    def __str__(self) -> str:
        image, mask = (_NAME.join(side) for side in (self.image, self.mask))
        return mask if image == _NAME else f"{image}={mask}"

    def mask_of(self, image: str) -> str | None:
        """The mask's name, without suffix; None for what is no image by its name."""
        before, behind = self.image
        if not (image.startswith(before) and image.endswith(behind) and len(image) > len(before) + len(behind)):
            return None
        return image[len(before) : len(image) - len(behind)].join(self.mask)

    def is_mask(self, name: str) -> bool:
        before, behind = self.mask
        return name.startswith(before) and name.endswith(behind) and len(name) > len(before) + len(behind)


def masks_by_image(
    images: Collection[str], masks: Mapping[str, Path], pattern: str | None, where: Path
) -> tuple[Mapping[str, Path], tuple[str, ...]]:
    """The mask of each image, as far as there is one, and the names of what is no mask by the pattern.

    A mask by the pattern that has no image stands under its own name.

    Args:
        images: names, without suffix.
        masks: files by name.
        pattern: the setting of that name; None has it found, where masks have not the names of their images.

    Raises:
        BadSettings: as :meth:`MaskPattern.parse`.
        BadData: there are no masks by this pattern; or several fit, as where a label and a colour picture are
            beside each other.
    """
    if pattern is None and any(name in masks for name in images):
        return masks, ()
    fits = [MaskPattern.parse(pattern)] if pattern is not None else _patterns(sorted(images), masks)
    if len(fits) > 1:
        listed = " or ".join(f"'{each}'" for each in sorted(map(str, fits))[:4])
        raise BadData(f"{where}: several masks go with each image; say which: --mask-pattern {listed}")
    pairs = _paired(images, masks, fits[0]) if fits else {}
    if pattern is not None and not pairs:
        example = min(images, default="")
        raise BadData(
            f"{where}: expected masks by --mask-pattern {pattern}, such as {fits[0].mask_of(example) or '-'} for the "
            f"image {example}, found {', '.join(sorted(masks)[:3])}"
        )
    if not fits:
        return masks, ()
    used = {file.stem for file in pairs.values()}
    alone = {name: masks[name] for name in masks if name not in used and fits[0].is_mask(name)}
    return {**alone, **pairs}, tuple(name for name in masks if name not in used and name not in alone)


def _patterns(images: list[str], masks: Mapping[str, Path]) -> list[MaskPattern]:
    """Those by which most images have a mask of their own, and in which images have the least beside the name.

    What two names have in common by chance, as the zeros of numbers, is shorter.
    """
    found: dict[MaskPattern, int] = {}
    for first in images[:1]:
        for mask in sorted(masks, key=lambda mask: _digits(mask) != _digits(first))[:_TRIED]:
            start, other, length = SequenceMatcher(None, first, mask, autojunk=False).find_longest_match()
            if length < min(_FEWEST, len(first)):
                continue
            pattern = MaskPattern((first[:start], first[start + length :]), (mask[:other], mask[other + length :]))
            if pattern not in found:
                found[pattern] = len(_paired(images, masks, pattern))
    most = max(found.values(), default=0)
    if 2 * most < len(images):
        return []
    best = [pattern for pattern, count in found.items() if count == most]
    least = min(len("".join(pattern.image)) for pattern in best)
    return [pattern for pattern in best if len("".join(pattern.image)) == least]


def _paired(images: Collection[str], masks: Mapping[str, Path], pattern: MaskPattern) -> dict[str, Path]:
    names = {image: pattern.mask_of(image) for image in images}
    return {image: masks[mask] for image, mask in names.items() if mask is not None and mask in masks}


def _digits(name: str) -> str:
    return "".join(re.findall(r"\d", name))
