"""Scores at the images' own size, as papers give them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from trainer.data.side_by_side import in_groups, side_by_side
from trainer.data.source import Example, Mask, Split
from trainer.results.evaluation import Evaluation, Tally
from trainer.results.legend import Legend
from trainer.results.predict import PIXELS_AT_ONCE, Image


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
    for judged in predictions_at_own_size(predictor, split):
        tally.add(judged.truth, judged.found)
        seconds.append(judged.seconds)
    return tally.evaluation(seconds[predictor.batch_size :] or seconds)


def predictions_at_own_size(predictor: Segmenter, split: Split, worker: int = 0, workers: int = 1) -> Iterator[Judged]:
    """The share of one worker of ``split``, one image after another.

    Which images are computed together does not hang on the number of workers, so neither do the bits of what is found.

    Raises:
        BadData: names the first bad file.
    """
    groups = in_groups(len(split), split.pixels, predictor.images_at_once, PIXELS_AT_ONCE)
    for group in itertools.islice(groups, worker, None, workers):
        examples = _read(split, group)
        masks = predictor.masks([example.image for example in examples])
        for example in examples:
            began = time.monotonic()
            found = next(masks)
            yield Judged(example.mask, found, time.monotonic() - began)


def _read(split: Split, group: range) -> list[Example]:
    return list(side_by_side(lambda i: split.read(group[i]), len(group), lambda i: split.pixels(group[i])))
