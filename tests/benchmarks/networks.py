"""Every network at equal seconds of training, on real photographs: mIoU on the whole test split, by seed.

What counts as a second is a step of the default network: all are timed in turns in one process, so that a machine that
is busy with other things slows all of them alike, and each may take as many steps as fit in the default's time.

``MASKFLEET_BENCHMARK_SHORT=1`` is a first look: 128 pixels, a few epochs, one seed. ``…_MODELS`` names some of the
networks, ``…_DATA=street`` takes drawn streets instead of the pets, with many thin and rare classes.
"""

from __future__ import annotations

import functools
import itertools
import os
import statistics
import tempfile
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from maskfleet.config import TrainConfig
from tests.benchmarks.row import Row
from tests.benchmarks.turns import medians, own_process
from tests.helpers.shared import shared
from tests.helpers.street import write_street
from tests.helpers.training_steps import losses, set_up
from trainer.data.cache import Dataset, load_dataset
from trainer.supervision.training_process import PROCESS_DEFAULTS
from trainer.training.loop import validate
from trainer.training.steps import make_evaluation_function

EPOCHS, SEEDS = 7, 3
"""Epochs of the default network."""
SHORT_EPOCHS, SHORT_SEEDS, SHORT_SIDE = 3, 1, 128
MODELS = "unet,fcn8s,fcn16s,fcn32s,deeplabv3plus,lraspp,pspnet,segformer"
STEPS, TURNS = 2, 5
STREETS, STREETS_TO_TEST = 300, 100


def rows() -> Iterable[Row]:
    with tempfile.TemporaryDirectory() as folder:
        yield from _compared(_settings(Path(folder)))


def _compared(settings: dict[str, Any]) -> Iterable[Row]:
    models = _variable("MODELS", MODELS).split(",")
    reference = TrainConfig().model
    seconds = _result(functools.partial(_step_seconds, settings, [reference, *models]))
    epochs, seeds = (SHORT_EPOCHS, SHORT_SEEDS) if _variable("SHORT") else (EPOCHS, SEEDS)
    for model in models:
        share = seconds[reference] / seconds[model]
        found = [
            _result(functools.partial(_train, {**settings, "model": model, "seed": seed}, epochs, share))
            for seed in range(seeds)
        ]
        scores = [miou for miou, _ in found]
        note = f"{found[0][1]} steps of {1e3 * seconds[model]:.0f} ms; {', '.join(f'{score:.4f}' for score in scores)}"
        yield Row(f"{model} in the seconds of {epochs} epochs of the default, mIoU", statistics.mean(scores), "", note)


def _variable(name: str, default: str = "") -> str:
    return os.environ.get(f"MASKFLEET_BENCHMARK_{name}", default)


def _settings(folder: Path) -> dict[str, Any]:
    """Of the data, which is drawn into ``folder`` if that is asked for."""
    (file,) = shared("data", "weights").glob("*.h5")
    data = shared("data", "oxford_iiit_pet")
    if _variable("DATA") == "street":
        data = write_street(folder / "street", STREETS, STREETS_TO_TEST)
    size = {"image_size": SHORT_SIDE} if _variable("SHORT") else {}
    return {"data": f"folder:{data}", "encoder_weights": str(file), **size}


def _result(work: Any) -> Any:
    with own_process(functools.partial(_send, work), **PROCESS_DEFAULTS) as connection:
        return connection.recv()


def _send(work: Any, connection: Connection) -> None:
    connection.send(work())
    connection.recv()  # until the other side has read it and ends this process


def _step_seconds(settings: dict[str, Any], models: list[str]) -> dict[str, float]:
    """Of one training step of each of the models."""

    def way(model: str) -> Any:
        config = TrainConfig(**settings, model=model)
        steps = losses(set_up(config, _dataset(config)))
        return lambda: [next(steps) for _ in range(STEPS)]

    return {model: taken / STEPS for model, taken in medians({model: way(model) for model in models}, TURNS).items()}


def _train(settings: dict[str, Any], epochs: int, share: float) -> tuple[float, int]:
    """The mIoU on the test split after ``share`` of the steps of so many epochs, and their number."""
    config = TrainConfig(**settings)
    dataset = _dataset(config)
    steps = round(share * epochs * len(dataset.train) / config.replica_batch)
    training = set_up(config, dataset, steps=steps)
    for _ in itertools.islice(losses(training), steps):
        pass
    validation = validate(training, make_evaluation_function(training), lambda totals: totals, split="test")
    return validation.scores.miou, steps


def _dataset(config: TrainConfig) -> Dataset:
    return load_dataset(config.data, config.data_dir, config.image_size)
