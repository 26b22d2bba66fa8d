"""``trainer find-lr``: a learning-rate range test. It trains for some steps and keeps nothing of it.

Leslie Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, section 3.3, with the exponential sweep
and the smoothing that Sylvain Gugger described for fastai. The command starts it in a process of its own, as
``python -m trainer.training.learning_rate_finder FOLDER STEPS text|json [PICTURE]``; FOLDER holds the settings.
"""

from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskfleet.command_line import echo, prepare_outputs
from maskfleet.config import TrainConfig
from maskfleet.errors import DONE, BadSettings, MaskfleetError, TrainingFailed, reason
from maskfleet.files import write_atomically
from maskfleet.peers import Peers
from maskfleet.quiet import leave_out_warnings, quiet_stderr
from maskfleet.run_directory import RunDirectory
from maskfleet.sentences import ERROR
from maskfleet.settings import read_settings_file
from maskfleet.start_setting import start_place
from trainer.training.strategy import configure_threads, threads_of

LOWEST, HIGHEST = 1e-6, 10.0
"""Learning rates that are tried."""
SMOOTHING = 0.9
"""Share of the losses before in the smoothed loss of a step."""
DIVERGED = 4.0
"""Times the lowest smoothed loss: from there on nothing is learnt any more."""
BELOW_LOWEST = 10.0
"""The suggestion is the rate of the lowest loss divided by this: there the loss still falls, and with a margin."""


@dataclass(frozen=True)
class Curve:
    """Loss over the learning rate, one step each.

    Attributes:
        rates: as ``--learning-rate`` has them, growing.
        losses: of each step's batch, before the step.
        smoothed: exponential mean of the losses up to each step.
        suggestion: a learning rate for the schedule's peak; None if the loss has not fallen.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    suggestion: float | None


def curve_of(rates: NDArray[np.float64], losses: NDArray[np.float64]) -> Curve:
    """Smooths the losses, cuts off where training has diverged, and suggests a rate."""
    ends = np.flatnonzero(~np.isfinite(losses))
    count = int(ends[0]) if ends.size else len(losses)
    means, mean = np.zeros(count), 0.0
    for step in range(count):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * losses[step]
        means[step] = mean / (1 - SMOOTHING ** (step + 1))
    over = np.flatnonzero(means > DIVERGED * np.minimum.accumulate(means)) if count else ends
    count = int(over[0]) if over.size else count
    means = means[:count]
    suggestion = None
    # Of the first steps the mean is of few batches, so a low one among them says little.
    settled = min(count, math.ceil(1 / (1 - SMOOTHING)))
    if count > settled and (lowest := settled + int(np.argmin(means[settled:]))) and means[lowest] < means[settled - 1]:
        suggestion = float(f"{rates[lowest] / BELOW_LOWEST:.1e}")
    return Curve(rates[:count].tolist(), losses[:count].tolist(), means.tolist(), suggestion)


def sweep(run: RunDirectory, config: TrainConfig, steps: int) -> Curve:
    """Trains for ``steps`` steps at most, while the learning rate grows from :data:`LOWEST` to :data:`HIGHEST`.

    Raises:
        BadSettings: the settings do not go with the data, or with what ``config.start_from`` names.
    """
    import tensorflow as tf

    from trainer.data.auto_preset import planned
    from trainer.data.cache import dataset_of
    from trainer.models.network import build_network
    from trainer.objective.optimizers import build_optimizer
    from trainer.objective.schedules import Sweep
    from trainer.own_code import use_code
    from trainer.training.assembly import loss_for
    from trainer.training.loop import training_stream
    from trainer.training.plan import Plan
    from trainer.training.precision import chosen_precision
    from trainer.training.starting import start_from
    from trainer.training.state import StopFlag, Training, TrainingState
    from trainer.training.steps import make_step_function

    use_code(config.code)
    config = chosen_precision(planned(config, functools.partial(echo, err=True)))
    dataset = dataset_of(config)
    batch, classes = config.effective_global_batch(1), len(dataset.classes)
    examples = len(dataset.train)
    plan = Plan(examples, batch, math.ceil((steps + 1) * batch / examples), (slice(0, batch),))
    network = build_network(config, classes)
    if config.start_from is not None:
        start_from(start_place(config.start_from, run), config, network, dataset.classes)
    growth = config.scaled_learning_rate(batch) / config.learning_rate
    schedule = Sweep(LOWEST * growth, HIGHEST * growth, steps)
    optimizer = build_optimizer(config, schedule, network.encoder)
    optimizer.build(network.model.trainable_variables)
    training = Training(
        config, Peers(), tf.distribute.get_strategy(), dataset, None, network, optimizer,
        loss_for(config, dataset), plan, TrainingState(classes), StopFlag(), lambda: None,
        None, None,
    )  # fmt: skip

    def losses() -> Iterator[float]:
        take_steps, (batches, _) = make_step_function(training), training_stream(training, 0)
        lowest, one, stop = math.inf, tf.constant(1), tf.constant(0.0, tf.float64)
        for _ in range(steps):
            loss = float(take_steps(batches, one, stop)[0][0])
            yield loss
            lowest = min(lowest, loss)
            if not loss <= 2 * DIVERGED * lowest:  # what comes later would be cut off anyway
                return

    found = np.fromiter(losses(), np.float64)
    return curve_of(np.array([schedule.rate(step) for step in range(len(found))]) / growth, found)


def main(arguments: list[str]) -> int:
    """Returns the exit code."""
    folder, steps, output, *picture = arguments
    prepare_outputs()
    leave_out_warnings()
    quiet_stderr()
    try:
        run = RunDirectory(Path(folder))
        config = TrainConfig.resolve([read_settings_file(run.config)])
        config = config.model_copy(update={"steps_per_call": 1, "on_bad_step": "stop"})
        configure_threads(threads_of(config, Peers()))
        curve = sweep(run, config, int(steps))
        if picture:
            _draw(curve, Path(picture[0]))
        echo(json.dumps(asdict(curve)) if output == "json" else text_of(curve))
        if curve.suggestion is None:
            raise TrainingFailed(
                f"the loss fell at no learning rate from {LOWEST:g} to {HIGHEST:g}: look at the data with "
                "'trainer verify-data --pictures', or take more --steps"
            )
    except MaskfleetError as error:
        echo(ERROR + str(error), err=True)
        return error.exit_code
    return DONE


def text_of(curve: Curve) -> str:
    """Some points of the curve, and the suggestion."""
    shown = sorted({round(place) for place in np.linspace(0, len(curve.rates) - 1, 12)}) if curve.rates else []
    lines = ["learning rate    loss", *(f"{curve.rates[i]:13.2e}  {curve.smoothed[i]:6.4f}" for i in shown)]
    if curve.suggestion is not None:
        lines.append(f"\nsuggestion: --learning-rate {curve.suggestion:g}, a tenth of the rate of the lowest loss")
    return "\n".join(lines)


def _draw(curve: Curve, out: Path) -> None:
    from trainer.pictures import rates_picture

    try:
        write_atomically(out, rates_picture(curve.rates, curve.losses, curve.smoothed, curve.suggestion))
    except OSError as error:
        raise BadSettings(f"--out {out}: can't be written: {reason(error)}") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
