"""A worker's place among its peers, and the strategy that follows from it.

The first part is plain Python, for the supervisor; only :func:`check_gpus`, :func:`make_strategy` and
:func:`configure_threads` need TensorFlow, and import it themselves.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainer.cgroup import cpu_limit
from trainer.config import TrainConfig
from trainer.exit_codes import BadSettings

if TYPE_CHECKING:
    import tensorflow as tf

HEARTBEAT_TIMEOUT_SECONDS = 15
"""After which a silent peer counts as lost. TensorFlow's own 10 s is too short under CPU throttling."""


@dataclass(frozen=True)
class Cluster:
    """Which worker this process is. Worker 0 is the chief.

    Attributes:
        worker: index of this worker.
        peers: ``host:port`` of every worker's TensorFlow server, this one's included.
    """

    worker: int = 0
    peers: tuple[str, ...] = ("localhost:0",)

    @property
    def workers(self) -> int:
        return len(self.peers)

    @property
    def is_chief(self) -> bool:
        return self.worker == 0

    @property
    def local_workers(self) -> int:
        """Workers on this worker's host, itself included, by the names of the peers."""
        host = self.peers[self.worker].rpartition(":")[0]
        return sum(peer.rpartition(":")[0] == host for peer in self.peers)

    def rendezvous_address(self, worker: int) -> tuple[str, int]:
        """Host and port at which the supervisor of ``worker`` listens: the port after TensorFlow's."""
        host, _, port = self.peers[worker].rpartition(":")
        return host.strip("[]"), int(port) + 1

    def tf_config(self) -> str:
        """The value of TF_CONFIG for this worker."""
        task = {"type": "worker", "index": self.worker}
        return json.dumps({"cluster": {"worker": list(self.peers)}, "task": task})

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Cluster:
        """Reads TF_CONFIG, or else the three MASKFLEET_ variables of an indexed pod.

        MASKFLEET_PEERS is a pattern such as ``pets-{}.pets:2222``, so that a pod's manifest does not grow
        with MASKFLEET_WORKERS; MASKFLEET_WORKER is the pod's index. Without any of them there is one worker.

        Raises:
            BadSettings: a variable is malformed or the index lies outside the cluster.
        """
        if environment.get("TF_CONFIG"):
            return cls._from_tf_config(environment["TF_CONFIG"])
        if "MASKFLEET_PEERS" not in environment:
            return cls()
        pattern = environment["MASKFLEET_PEERS"]
        try:
            workers = int(environment["MASKFLEET_WORKERS"])
            worker = int(environment["MASKFLEET_WORKER"])
        except (KeyError, ValueError) as error:
            raise BadSettings(
                f"MASKFLEET_PEERS is set, so MASKFLEET_WORKERS and MASKFLEET_WORKER must be whole numbers: {error}"
            ) from None
        return cls._checked(worker, tuple(pattern.replace("{}", str(index)) for index in range(workers)))

    @classmethod
    def _from_tf_config(cls, value: str) -> Cluster:
        try:
            config = json.loads(value)
            peers = tuple(map(str, config["cluster"]["worker"]))
            task, worker = config["task"]["type"], int(config["task"]["index"])
        except (ValueError, KeyError, TypeError) as error:
            raise BadSettings(
                'TF_CONFIG: expected {"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", '
                f'"index": 0}}}}, found {value!r} ({error!r})'
            ) from None
        if task != "worker" or set(config["cluster"]) != {"worker"}:
            raise BadSettings(
                f"TF_CONFIG: expected workers only (worker 0 is the chief), found task {task!r} "
                f"in a cluster of {', '.join(config['cluster'])}"
            )
        return cls._checked(worker, peers)

    @classmethod
    def _checked(cls, worker: int, peers: tuple[str, ...]) -> Cluster:
        if not 0 <= worker < len(peers):
            raise BadSettings(f"worker index {worker}: expected 0 to {len(peers) - 1} for {len(peers)} workers")
        for peer in peers:
            host, _, port = peer.rpartition(":")
            if not host or not port.isdigit():
                raise BadSettings(f"peer {peer!r}: expected host:port")
        return cls(worker, peers)


def check_gpus(environment: Mapping[str, str] = os.environ) -> None:
    """Refuses to train on fewer GPUs than MASKFLEET_GPUS, those of the pod: without any it would go on by CPU.

    Raises:
        BadSettings: TensorFlow sees fewer.
    """
    import tensorflow as tf

    wanted = int(environment.get("MASKFLEET_GPUS", 0))
    seen = len(tf.config.list_physical_devices("GPU")) if wanted else 0
    if seen < wanted:
        raise BadSettings(
            f"--gpus-per-worker {wanted}: TensorFlow sees {seen} of them; expected the image of 'launcher build "
            "--target gpu', and the node's NVIDIA driver in /usr/local/nvidia or put in by NVIDIA's container runtime"
        )


def make_strategy(cluster: Cluster) -> tf.distribute.Strategy:
    """MultiWorkerMirroredStrategy for several workers, MirroredStrategy for several GPUs, else one device.

    Blocks until all peers have come, without running Python code: the supervisor holds the time-out.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if cluster.workers > 1:
        from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
        from tensorflow.python.eager import context

        os.environ["TF_CONFIG"] = cluster.tf_config()
        # Set before the strategy would, since it has no argument for the heartbeat.
        context.context().configure_coordination_service(
            service_type="standalone",
            service_leader="/job:worker/replica:0/task:0",
            heartbeat_timeout_in_ms=HEARTBEAT_TIMEOUT_SECONDS * 1000,
            coordinated_jobs=[coordination_config_pb2.CoordinatedJob(name="worker", num_tasks=cluster.workers)],
        )
        collectives = tf.distribute.experimental.CollectiveCommunication
        options = tf.distribute.experimental.CommunicationOptions(
            implementation=collectives.NCCL if gpus else collectives.RING
        )
        return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    if len(gpus) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def configure_threads(threads: int) -> None:
    """Gives TensorFlow ``threads`` CPU threads; must run before its first operation.

    The number is pinned since it changes the order of additions, and so the bits of the result.
    """
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)


def threads_of(config: TrainConfig, cluster: Cluster) -> int:
    """CPU threads of one worker: what was asked for, or its share of the CPUs that it may use."""
    return config.threads or max(1, cpu_limit() // cluster.local_workers)
