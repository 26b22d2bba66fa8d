"""What an error of TensorFlow's, or of the disk, in the middle of training means to the user. Pure."""

from __future__ import annotations

import re

import tensorflow as tf

from maskfleet.errors import MaskfleetError, PeerLost, TrainingFailed, reason
from maskfleet.peers import Peers
from maskfleet.run_directory import RunDirectory

_LOST = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
_LOST_IF_THERE_ARE_PEERS = (tf.errors.InternalError, tf.errors.DeadlineExceededError, tf.errors.UnknownError)
_NO_MEMORY = re.compile(
    r"OOM when allocating tensor with shape\S+(?: and type \w+)?(?: on \S+ by allocator \S+)?"
    r"|\w+_ALLOC_FAILED|\w+_OUT_OF_MEMORY|out of memory|failed to (?:re)?allocate",
    re.IGNORECASE,
)
"""As TensorFlow's allocators, cuDNN, cuBLAS, CUDA and XLA say it, all but the first by an InternalError too."""
_OF_A_PEER = "[_Derived_]"
"""In what a worker is told of another one's failure."""


def meaning_of(error: Exception, run: RunDirectory, peers: Peers) -> MaskfleetError | None:
    """What to end with; None for what may be a bug, whose traceback somebody needs."""
    words = str(getattr(error, "message", error))
    if isinstance(error, OSError):
        place = error.filename or run.path
        return TrainingFailed(f"{place}: {reason(error)}; free some space, if that is it, and resume the run")
    device = isinstance(error, tf.errors.ResourceExhaustedError | tf.errors.InternalError)
    if device and _OF_A_PEER not in words and (found := _NO_MEMORY.search(words)):
        return TrainingFailed(_no_memory(peers, " ".join(found[0].split())))
    if isinstance(error, _LOST) or (peers.workers > 1 and isinstance(error, _LOST_IF_THERE_ARE_PEERS)):
        found_words = " ".join(words.split())[:200]
        return PeerLost(f"worker {peers.worker} lost a peer ({type(error).__name__}: {found_words})")
    if isinstance(error, tf.errors.ResourceExhaustedError):  # so it says of a full disk too
        return TrainingFailed(f"there is no room under {run.path}: {reason(error)}; free some space and resume the run")
    return None


def _no_memory(peers: Peers, said: str) -> str:
    of = f"worker {peers.worker}: " if peers.workers > 1 else ""
    return (
        f"{of}a step does not fit the memory of the GPU or the machine: {said}; lower --batch-per-replica (a larger "
        "--accumulate keeps the examples of a step) or --image-size, or take --precision bfloat16"
    )
