"""Scores at the images' own size, as papers give them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol, TypeVar

from trainer.data.side_by_side import in_groups, in_stages
from trainer.data.source import Example, Mask, Split
from trainer.results.evaluation import Evaluation, Tally
from trainer.results.legend import Legend
from trainer.results.predict import PIXELS_AT_ONCE, PIXELS_OF_GROUP, Image

_Result = TypeVar("_Result")


class Segmenter(Protocol):
    """A network as a function of pictures of any size, such as :class:`trainer.results.predict.Predictor`.

    Attributes:
        batch_size: how many are computed at a time at most.
        images_at_once: how many it takes to make use of that.
    """

    @property
    def batch_size(self) -> int: ...

    @property
    def images_at_once(self) -> int: ...

    def masks(self, images: Sequence[Image]) -> Iterator[Mask]:
        """For one image [H, W, bands] after another, each of its own size, its class indices [H, W]."""


class Judged(NamedTuple):
    """Class indices [H, W] of an image at its own size, true ones and predicted, and the seconds of the prediction."""

    truth: Mask
    found: Mask
    seconds: float


def evaluate_at_own_size(predictor: Segmenter, split: Split, legend: Legend) -> Evaluation:
    """Scores over all of ``split``, each image predicted as ``trainer predict`` would, and counted at its own size.

    Raises:
        BadData: names the first bad file.
    """
    tally, seconds = Tally(legend), []
    for judgement, taken in _judged(
        predictor, split, lambda judged: (tally.judgement(judged.truth, judged.found), judged.seconds)
    ):
        tally.add(judgement)
        seconds.append(taken)
    return tally.evaluation(seconds[predictor.batch_size :] or seconds)


def predictions_at_own_size(predictor: Segmenter, split: Split, worker: int = 0, workers: int = 1) -> Iterator[Judged]:
    """The share of one worker of ``split``, one image after another.

    Which images are computed together does not hang on the number of workers, so neither do the bits of what is found.

    Raises:
        BadData: names the first bad file.
    """
    return _judged(predictor, split, lambda judged: judged, worker, workers)


def _judged(
    predictor: Segmenter, split: Split, judge: Callable[[Judged], _Result], worker: int = 0, workers: int = 1
) -> Iterator[_Result]:
    """What ``judge`` makes of each, while those before are read and those after are predicted."""

    def predicted(examples: Sequence[Example]) -> Iterator[Judged]:
        masks = predictor.masks([example.image for example in examples])
        for example in examples:
            began = time.monotonic()
            found = next(masks)
            yield Judged(example.mask, found, time.monotonic() - began)

    def read(i: int) -> Example:
        example = split.read(i)
        return replace(example, decoded=example.image)  # made while others are predicted

    groups = in_groups(len(split), split.pixels, predictor.images_at_once, PIXELS_OF_GROUP)
    mine = itertools.islice(groups, worker, None, workers)
    return in_stages(mine, read, predicted, judge, split.pixels, PIXELS_AT_ONCE)
