"""The variables by which the processes of a run speak to each other, and by which a user speaks to them.

No other file names them, but for the manifests in ``k8s/`` and the Dockerfile, which a test holds against this one.
"""

from __future__ import annotations

import os

WORKERS_VARIABLE = "MASKFLEET_WORKERS"
"""Number of workers, or a range such as ``2..8``. Set in a pod's manifest; read with the next two by
:class:`~maskfleet.peers.Peers`."""
WORKER_VARIABLE = "MASKFLEET_WORKER"
"""Index of this worker. Set in a pod by its index; read by the trainer, and by the sidecar."""
PEERS_VARIABLE = "MASKFLEET_PEERS"
"""Pattern of the workers' addresses: ``pets-{}.pets:2222``. Set in a pod's manifest."""
SHRINK_AFTER_VARIABLE = "MASKFLEET_SHRINK_AFTER"
"""Seconds after which fewer workers of a range go on. Set by ``--shrink-after``."""
PRESENT_VARIABLE = "MASKFLEET_PRESENT"
"""The workers of a range that train now: ``0,2-4``. Set by the supervisor for its training process."""
GPUS_VARIABLE = "MASKFLEET_GPUS"
"""GPUs that a pod was given. Set by ``--gpus-per-worker``; the training process refuses to go on with fewer."""
JOB_VARIABLE = "MASKFLEET_JOB"
"""Name of the Job that the chief's sidecar reports to. Set in a pod's manifest; without it nothing is reported."""
NAMESPACE_VARIABLE = "MASKFLEET_NAMESPACE"
"""Namespace of that Job. Set in a pod's manifest."""
ENCODER_WEIGHTS_VARIABLE = "MASKFLEET_ENCODER_WEIGHTS"
"""File with ImageNet's weights for an encoder. Set in the image; read where ``--encoder-weights imagenet`` is asked."""
CACHE_VARIABLE = "MASKFLEET_CACHE"
"""Folder of the decoded data and the cached features. Set by a user, and in pods."""
HEARTBEAT_VARIABLE = "MASKFLEET_HEARTBEAT_FD"
"""Descriptor of the pipe into which the training process writes that it is alive. Set by its supervisor."""
TOKEN_FILE_VARIABLE = "MASKFLEET_TOKEN_FILE"
"""File with the run's token, by which its supervisors know each other. Set by ``launcher run`` and in pods."""
DEBUG_VARIABLE = "MASKFLEET_DEBUG"
"""1 shows tracebacks and TensorFlow's own start-up lines. Set by who looks for a fault; read by every process."""


def is_debugging() -> bool:
    return os.environ.get(DEBUG_VARIABLE, "") not in ("", "0")
