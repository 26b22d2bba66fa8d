"""Masks that were spoilt on purpose come out on top."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest

from maskfleet.config import TrainConfig
from tests.helpers.training_steps import losses, set_up
from trainer.data.cache import Arrays, load_dataset
from trainer.data.source import IGNORED
from trainer.results.label_quality import rank, softmin_score, table
from trainer.results.label_report import write_label_report
from trainer.results.legend import Legend
from trainer.results.trained import Trained

STEPS = 150
OBJECT, BACKGROUND = 0, 1


def spoil(masks: np.ndarray, seed: int) -> tuple[np.ndarray, dict[int, str]]:
    """An eighth of the masks are another picture's, moved, without their object, or have two classes swapped."""
    masks, kinds = masks.copy(), itertools.cycle(("another's", "moved", "dropped", "swapped"))
    spoilt = {}
    for index in np.random.default_rng(seed).choice(len(masks), len(masks) // 8, replace=False).tolist():
        mask, spoilt[index] = masks[index], next(kinds)
        match spoilt[index]:
            case "another's":
                masks[index] = masks[(index + 1) % len(masks)]
            case "moved":
                masks[index] = np.roll(mask, (8, -8), (0, 1))
            case "dropped":
                masks[index] = BACKGROUND
            case "swapped":
                masks[index] = np.choose(mask, (BACKGROUND, OBJECT, 2))
    return masks, spoilt


def test_spoilt_masks_are_on_top(tmp_path: Path) -> None:
    dataset = load_dataset("synthetic", None, 32)
    masks, spoilt = spoil(np.asarray(dataset.test.masks), 0)
    masks[(next(i for i in range(len(masks)) if i not in spoilt))] = IGNORED  # nothing of it is labelled
    dataset = dataclasses.replace(dataset, test=Arrays(dataset.test.names, dataset.test.images, masks))
    config = TrainConfig(image_size=32, encoder_weights="none", decoder_filters=16, batch_per_replica=8)
    training = set_up(config, dataset)
    list(itertools.islice(losses(training), STEPS))
    network = training.network.model
    suspects = rank(network, {"test": dataset.test}, Legend.of(dataset))
    assert len(suspects) == len(masks) - 1
    found = [suspect.index in spoilt for suspect in suspects]
    assert np.mean(found[: len(spoilt)]) >= 0.8, [(s.name, s.score, spoilt.get(s.index)) for s in suspects[:12]]
    write_label_report(suspects[:3], Trained(network, Legend.of(dataset), config), dataset, tmp_path / "labels.html")
    page = (tmp_path / "labels.html").read_text()
    assert page.count("data:image/png") == 6
    assert all(suspect.name in page for suspect in suspects[:3])
    assert len(table(suspects, 5).splitlines()) == 6


def test_few_pixels_that_are_surely_wrong_count_more_than_many_that_are_right() -> None:
    right, doubtful, wrong = (np.full(1000, 0.99) for _ in range(3))
    doubtful[:100] = 0.7
    wrong[:20] = 0.01
    assert softmin_score(wrong) < 0.1 < softmin_score(doubtful) < softmin_score(right)
    assert softmin_score(right) == pytest.approx(0.99)


@pytest.mark.parametrize("values", [[0.0, 1.0], [0.2, 0.2, 0.9]])
def test_the_score_is_the_published_formula(values: list[float]) -> None:
    """As cleanlab 2.7 computes it: softmax((1 - p) / T) · p, T = .1."""
    weights = np.exp((1 - np.array(values)) / 0.1)
    assert softmin_score(np.array(values)) == pytest.approx(float(weights / weights.sum() @ values))
