"""The estimate of a step's memory, held against what TensorFlow's allocator gave for the same step on a CPU.

A GPU's allocator is the same. What its kernels take for themselves is not.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from typing import Any

from tests.benchmarks.row import Row

NETWORKS: tuple[dict[str, Any], ...] = (
    {"model": "unet", "unfreeze_from": "all"},
    {"model": "unet", "start_from": "trained", "unfreeze_from": "stride-8"},  # as by default
    {"model": "fcn8s", "encoder": "vgg16", "unfreeze_from": "all"},
    {"model": "deeplabv3plus", "encoder": "resnet50", "unfreeze_from": "all"},
    {"model": "segformer", "encoder": "mit_b0", "unfreeze_from": "all"},
)
SIZES, BATCHES, CLASSES = (96, 160), (2, 6), 3


def rows() -> Iterable[Row]:
    command = [sys.executable, "-m", "tests.benchmarks.step_memory"]
    # Only this allocator counts. Without oneDNN, whose layouts a GPU does not have.
    environment = {**os.environ, "TF_CPU_ALLOCATOR_USE_BFC": "1", "TF_ENABLE_ONEDNN_OPTS": "0"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            name, estimated, measured = json.loads(line)
            yield Row(
                f"memory of a step of {name}, estimated / allocated",
                estimated / measured,
                "x",
                f"{estimated / 2**20:.0f} for {measured / 2**20:.0f} MiB",
            )
    assert process.returncode == 0


def _measured() -> Iterator[tuple[str, int, int]]:
    """Each step's name, the estimate and the peak in bytes."""
    import tensorflow as tf

    from maskfleet.config import TrainConfig
    from trainer.training.batch_size import step_of
    from trainer.training.memory import memory_of_step

    def allocated() -> dict[str, int]:
        found: dict[str, int] = tf.config.experimental.get_memory_info("CPU:0")
        return found

    for network in NETWORKS:
        for size in SIZES:
            config = TrainConfig(encoder_weights="none", image_size=size, **network)
            before = allocated()["current"]
            step, variables = step_of(config, CLASSES)
            for batch in BATCHES:
                estimate = memory_of_step(step, variables, config, batch)
                arguments = tf.zeros([batch, size, size, 3], tf.uint8), tf.zeros([batch, size, size], tf.uint8)
                step(*arguments)
                tf.config.experimental.reset_memory_stats("CPU:0")
                step(*arguments)
                name = f"{config.model} over {config.encoder} from {config.unfreeze_from}, {size} px, batch {batch}"
                yield name, estimate.kept + estimate.passing, allocated()["peak"] - before
            del step, variables
            gc.collect()


if __name__ == "__main__":
    for found in _measured():
        print(json.dumps(found), flush=True)
