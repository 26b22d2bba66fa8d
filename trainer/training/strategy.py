"""A worker's place among its peers, and the strategy that follows from it.

The first part is plain Python, for the supervisor; only :func:`check_gpus`, :func:`make_strategy` and
:func:`configure_threads` need TensorFlow, and import it themselves.
"""

from __future__ import annotations

import functools
import os
import socket
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from maskfleet.backoff import pauses
from maskfleet.config import TrainConfig
from maskfleet.environment import GPUS_VARIABLE
from maskfleet.errors import BadSettings
from maskfleet.peers import Peers
from trainer.cgroup import cpu_limit

if TYPE_CHECKING:
    import tensorflow as tf

HEARTBEAT_TIMEOUT_SECONDS = 15
"""After which a silent peer counts as lost. TensorFlow's own 10 s is too short under CPU throttling."""


def check_gpus(environment: Mapping[str, str] = os.environ) -> None:
    """Refuses to train on fewer GPUs than MASKFLEET_GPUS, those of the pod: without any it would go on by CPU.

    Raises:
        BadSettings: TensorFlow sees fewer.
    """
    import tensorflow as tf

    wanted = int(environment.get(GPUS_VARIABLE, 0))
    seen = len(tf.config.list_physical_devices("GPU")) if wanted else 0
    if seen < wanted:
        raise BadSettings(
            f"--gpus-per-worker {wanted}: TensorFlow sees {seen} of them; expected the image of 'launcher build "
            "--target gpu', and the node's NVIDIA driver in /usr/local/nvidia or put in by NVIDIA's container runtime"
        )


def make_strategy(peers: Peers) -> tf.distribute.Strategy:
    """MultiWorkerMirroredStrategy for several workers, MirroredStrategy for several GPUs, else one device.

    Its variables differ between workers until :func:`trainer.training.collectives.broadcast_from_chief` was called.
    Blocks until all peers have come: the supervisor holds the time-out.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if peers.workers > 1:
        from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
        from tensorflow.python.eager import context

        if not peers.is_chief:
            wait_for_server(peers.server_address(0))
        os.environ["TF_CONFIG"] = peers.tf_config()
        # Set before the strategy would, since it has no argument for the heartbeat.
        context.context().configure_coordination_service(
            service_type="standalone",
            service_leader="/job:worker/replica:0/task:0",
            heartbeat_timeout_in_ms=HEARTBEAT_TIMEOUT_SECONDS * 1000,
            coordinated_jobs=[coordination_config_pb2.CoordinatedJob(name="worker", num_tasks=peers.workers)],
        )
        collectives = tf.distribute.experimental.CollectiveCommunication
        options = tf.distribute.experimental.CommunicationOptions(
            implementation=collectives.NCCL if gpus else collectives.RING
        )
        strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
        _keep_initial_values(strategy)
        return strategy
    if len(gpus) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def _keep_initial_values(strategy: tf.distribute.Strategy) -> None:
    """Leaves each worker its own initial values, until all get the chief's state at once.

    The strategy would send the chief's, one variable after the other: a third of what it takes to build a network, and
    several round trips for each of its hundreds of variables.
    """
    from tensorflow.python.distribute.mirrored_strategy import MirroredExtended

    own = MirroredExtended._get_variable_creator_initial_value
    strategy.extended._get_variable_creator_initial_value = functools.partial(own, strategy.extended)


def wait_for_server(address: tuple[str, int], longest: float = 10.0) -> None:
    """Until the chief's TensorFlow server listens, or ``longest`` seconds have passed.

    TensorFlow tries again a whole second after it has found nobody there, and workers that come back after a fault
    come within a tenth of a second.
    """
    for pause in pauses(0.02, 0.5, timeout=longest):
        try:
            socket.create_connection(address, timeout=1.0).close()
            return
        except OSError:
            time.sleep(pause)


def configure_threads(threads: int) -> None:
    """Gives TensorFlow ``threads`` CPU threads; must run before its first operation.

    The number is pinned since it changes the order of additions, and so the bits of the result.
    """
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def threads_of(config: TrainConfig, peers: Peers) -> int:
    """CPU threads of one worker: what was asked for, or its share of the CPUs that it may use."""
    return config.threads or max(1, cpu_limit() // peers.local_workers)
