"""``python -m tests.benchmarks.all_reduce N…``: how long two workers take to add up tensors of so many elements.

Run once for each worker, with TF_CONFIG; the chief prints one line of JSON: seconds per all-reduce of the tensors as a
list, as the optimizer does it, and of one flat buffer of as many bytes, copied in and out.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from launcher.local.local_run import free_port_pairs
from maskfleet.config import TrainConfig
from maskfleet.peers import Peers
from tests.benchmarks.cpu_share import put_into
from trainer.models.network import build_network
from trainer.training.strategy import configure_threads, make_strategy

TURNS = 15


def gradient_sizes() -> list[int]:
    """Elements of each gradient of the default network behind a frozen encoder."""
    network = build_network(TrainConfig(encoder_weights="none", unfreeze_from="none", image_size=128), classes=3)
    return [math.prod(variable.shape) for variable in network.model.trainable_variables]


def seconds_of(sizes: list[int], workers: int = 2, shares: Sequence[Path] = ()) -> dict[str, float]:
    """Median seconds per all-reduce of float32 tensors of ``sizes`` elements among ``workers`` of one thread each.

    Args:
        shares: of a CPU, one for each worker; see :func:`~tests.benchmarks.cpu_share.equal_shares`.
    """
    peers = tuple(f"127.0.0.1:{port}" for port in free_port_pairs(workers))
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.all_reduce", *map(str, sizes)],
            env={**os.environ, "TF_CONFIG": Peers(worker, peers).tf_config()},
            stdout=subprocess.PIPE,
        )
        for worker in range(workers)
    ]
    for process, share in zip(processes, shares, strict=False):
        put_into(share, process.pid)
    outputs = [process.communicate()[0] for process in processes]
    assert not any(process.returncode for process in processes)
    seconds: dict[str, float] = json.loads(outputs[0])
    return seconds


def main(sizes: list[int]) -> None:
    configure_threads(1)
    cluster = Peers.from_environment()
    strategy = make_strategy(cluster)
    tensors = [tf.ones([size]) for size in sizes]

    def add_up(values: list[tf.Tensor]) -> list[tf.Tensor]:
        copies = list(map(tf.identity, values))  # which, unlike arguments, are known to be on the replica's device
        return list(tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, copies))

    @tf.function(autograph=False)
    def as_list(*values: tf.Tensor) -> list[tf.Tensor]:
        return strategy.run(lambda: add_up(list(values)))

    @tf.function(autograph=False)
    def flat(*values: tf.Tensor) -> list[tf.Tensor]:
        (total,) = strategy.run(lambda: add_up([tf.concat(values, axis=0)]))
        return tf.split(total, sizes)

    taken: dict[str, list[float]] = {"list": [], "flat": []}
    for turn in range(TURNS + 1):
        for name, function in (("list", as_list), ("flat", flat)):
            started = time.monotonic()
            function(*tensors)[0].numpy()
            if turn:  # the first one traces
                taken[name].append(time.monotonic() - started)
    if cluster.is_chief:
        print(json.dumps({name: statistics.median(seconds) for name, seconds in taken.items()}))


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]])
