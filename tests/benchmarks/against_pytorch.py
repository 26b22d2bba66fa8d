"""Training against PyTorch, where it is installed: the tutorial's network in both, and the U-Net of
segmentation_models.pytorch beside the default preset.

PyTorch trains in its best way on a CPU: ``channels_last``, bfloat16 by autocast, no gradient for the frozen encoder.
The data of all sides is drawn: a step is measured, not the reading.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import pytest

from maskfleet.config import TrainConfig
from tests.benchmarks import plain_keras
from tests.benchmarks.pytorch_side import smp_unet, torch_steps, tutorial_network
from tests.benchmarks.row import Row
from tests.benchmarks.training_speed import IMAGE_SIZE, STEPS, our_steps
from tests.benchmarks.turns import Way, in_own_process, medians
from tests.helpers.training_steps import losses, set_up
from trainer.data.cache import load_dataset
from trainer.supervision.training_process import PROCESS_DEFAULTS

TURNS = 5
KINDS = ("eager", "compiled")
PRECISIONS = ("float32", "bfloat16")


def rows() -> Iterable[Row]:
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("torchvision") is None:
        pytest.skip("PyTorch and torchvision are not installed")
    default = TrainConfig()
    tutorial, small = (plain_keras.BATCH, IMAGE_SIZE), (default.replica_batch, default.image_size[0])
    yield from _table("the tutorial", tutorial, functools.partial(torch_steps, tutorial_network, *tutorial), our_steps)
    if importlib.util.find_spec("segmentation_models_pytorch") is not None:
        theirs = functools.partial(torch_steps, smp_unet, *small)
        yield from _table("smp.Unet and the default preset", small, theirs, our_default_steps)


def _table(what: str, shape: tuple[int, int], theirs: Any, ours: Any) -> Iterable[Row]:
    batch, size = shape
    load_dataset("synthetic", None, size)  # drawn before they start side by side
    with ExitStack() as stack:
        ways: dict[tuple[str, str], Way] = {}
        for precision in PRECISIONS:
            for kind in KINDS:
                make = functools.partial(theirs, precision, compiled=kind == "compiled")
                ways[kind, precision] = stack.enter_context(in_own_process(make))
            make = functools.partial(ours, precision=precision)
            ways["ours", precision] = stack.enter_context(in_own_process(make, **PROCESS_DEFAULTS))
        seconds = medians(ways, TURNS)
    for precision in PRECISIONS:
        for kind in KINDS:
            rate = STEPS * batch / seconds[kind, precision]
            yield Row(f"{what}, PyTorch {kind}, {precision}", rate, "images/s", f"batch {batch}, {size} pixels")
        ratio = seconds["eager", precision] / seconds["ours", precision]
        rate = STEPS * batch / seconds["ours", precision]
        yield Row(f"{what}, ours against PyTorch eager, {precision}", ratio, "x", f"{rate:.3g} images/s")


def our_default_steps(**settings: Any) -> Way:
    config = TrainConfig(encoder_weights="none", **settings)
    steps = losses(set_up(config, load_dataset("synthetic", None, config.image_size)))
    return lambda: [next(steps) for _ in range(STEPS)]
