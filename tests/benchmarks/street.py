"""Rare and thin classes of streets, by ``--fit crop --balance`` against the default, in the same training time.

Both train at the default's input size on pictures of 480 x 360. Step times are measured in turns, and the slower of the
two takes fewer steps. Scores are those of ``trainer evaluate``: counted at the images' own size.
"""

from __future__ import annotations

import functools
import itertools
import statistics
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from maskfleet.config import TrainConfig
from tests.benchmarks.row import Row
from tests.benchmarks.turns import medians
from tests.helpers.shared import shared
from tests.helpers.street import CLASSES, write_street
from trainer.data.cache import load_dataset
from trainer.data.opening import open_source
from trainer.results.legend import Legend
from trainer.results.own_size import evaluate_at_own_size
from trainer.results.predict import Predictor, network_of

TRAIN, TEST = 160, 24
STEPS = 1200
"""Of the faster way: thirty epochs. After the default's seven both are only beginning with the rarest classes."""
SEEDS = (0, 1, 2)
RAREST = 3
WAYS = {"the default": (), "--fit crop --balance": ("--fit=crop", "--balance")}
TURNS = 10


def rows() -> Iterable[Row]:
    (weights,) = shared("data", "weights").glob("*.h5")
    with tempfile.TemporaryDirectory() as folder:
        data = write_street(Path(folder) / "street", TRAIN, TEST)
        rare = rarest(data)
        configs = {name: settings(data, weights, way) for name, way in WAYS.items()}
        seconds = step_seconds(configs)
        means: dict[str, list[float]] = {}
        for name, config in configs.items():
            steps = round(STEPS * min(seconds.values()) / seconds[name])
            found = [iou(config.model_copy(update={"seed": seed}), steps) for seed in SEEDS]
            means[name] = [statistics.mean(each[label] for label in rare) for each in found]
            by_class = ", ".join(f"{label} {statistics.mean(each[label] for each in found):.3f}" for label in rare)
            every = statistics.mean(statistics.mean(each.values()) for each in found)
            by_seed = ", ".join(f"{value:.3f}" for value in means[name])
            note = f"seeds {by_seed}; {by_class}; all classes {every:.3f}; {steps} steps"
            yield Row(f"mean IoU of the {RAREST} rarest classes, {name}", statistics.mean(means[name]), "", note)
    default, other = (statistics.mean(found) for found in means.values())
    yield Row("--fit crop --balance over the default", 100 * (other - default), "points", "5 or more are wanted")


def settings(data: Path, weights: Path, way: Sequence[str]) -> TrainConfig:
    flags = [f"--data=folder:{data}", f"--encoder-weights={weights}", "--precision=bfloat16", *way]
    return TrainConfig.resolve([TrainConfig.parse_flags(flags)])


def rarest(data: Path) -> list[str]:
    """By pixels of the training masks."""
    masks = (
        np.asarray(Image.open(data / "masks" / f"{name}.png")) for name in (data / "train.txt").open().read().split()
    )
    counts = sum(np.bincount(mask.ravel(), minlength=len(CLASSES)) for mask in masks)
    return [CLASSES[label] for label in np.argsort(counts)[:RAREST]]


def step_seconds(configs: Mapping[str, TrainConfig]) -> dict[str, float]:
    """Of one training step of each, measured in turns."""
    from tests.helpers.training_steps import losses, set_up

    return medians(
        {
            name: functools.partial(
                next, losses(set_up(config, load_dataset(config.data, None, config.image_size, fit=config.fit)))
            )
            for name, config in configs.items()
        },
        TURNS,
    )


def iou(config: TrainConfig, steps: int) -> dict[str, float]:
    """Of each class after so many steps, on the test split, at the images' own size."""
    from tests.helpers.training_steps import losses, set_up

    dataset = load_dataset(config.data, None, config.image_size, fit=config.fit)
    training = set_up(config, dataset, steps=steps)
    assert len([*itertools.islice(losses(training), steps)]) == steps
    network = network_of(training.network.model)
    predictor = Predictor(network, config.image_size, len(CLASSES), window=config.fit == "crop")
    test = open_source(config.data, None).test
    return evaluate_at_own_size(predictor, test, Legend.of(dataset)).scores.iou
