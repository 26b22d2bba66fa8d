"""Scores at the images' own size, as papers give them."""

from __future__ import annotations

import time

import numpy as np

from trainer.data.side_by_side import in_groups, side_by_side
from trainer.data.source import Example, Split
from trainer.results.evaluation import Evaluation, Tally
from trainer.results.legend import Legend
from trainer.results.predict import PIXELS_AT_ONCE, Predictor


def evaluate_at_own_size(predictor: Predictor, split: Split, legend: Legend) -> Evaluation:
    """Scores over all of ``split``, each image predicted as ``trainer predict`` would, and counted at its own size.

    Raises:
        BadData: names the first bad file.
    """
    tally, seconds = Tally(legend), []
    for group in in_groups(len(split), split.pixels, predictor.images_at_once, PIXELS_AT_ONCE):
        examples = _read(split, group)
        tiles_of = predictor.tiles([example.image for example in examples])
        for example in examples:
            began = time.monotonic()
            prediction = np.empty_like(example.mask)
            for tile in next(tiles_of):
                prediction[tile.rows, tile.columns] = np.argmax(tile.probabilities, axis=-1)
            seconds.append(time.monotonic() - began)
            tally.add(example.mask, prediction)
    return tally.evaluation(seconds[predictor.batch_size :] or seconds)


def _read(split: Split, group: range) -> list[Example]:
    return list(side_by_side(lambda i: split.read(group[i]), len(group), lambda i: split.pixels(group[i])))
