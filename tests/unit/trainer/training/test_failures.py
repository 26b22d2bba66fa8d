"""What errors in the middle of training mean to the user."""

import pytest
import tensorflow as tf

from maskfleet.errors import PeerLost, TrainingFailed
from maskfleet.peers import Peers
from maskfleet.run_directory import RunDirectory
from trainer.training.failures import meaning_of

ALONE, TWO = Peers(), Peers(worker=1, addresses=("a:1", "b:1"))
MENDED_BY = (
    "; lower --batch-per-replica (a larger --accumulate keeps the examples of a step) or --image-size, or take "
    "--precision bfloat16"
)


def error_of(kind, words):
    return kind(None, None, words)


@pytest.mark.parametrize(
    ("kind", "words", "said"),
    [
        (tf.errors.ResourceExhaustedError,
         "Graph execution error:\n\nDetected at node mul defined at (most recent call last):\n<stack traces "
         "unavailable>\nOOM when allocating tensor with shape[64,256,256,32] and type float on "
         "/job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc\n\t [[{{node mul}}]]\nHint: If you want",
         "OOM when allocating tensor with shape[64,256,256,32] and type float on "
         "/job:localhost/replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc"),
        (tf.errors.ResourceExhaustedError, "Out of memory while trying to allocate 9663676416 bytes.", "Out of memory"),
        (tf.errors.InternalError, "Failed call to cudaMalloc: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
         "CUDA_ERROR_OUT_OF_MEMORY"),
        (tf.errors.InternalError, "cuDNN launch failure: CUDNN_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED"),
        (tf.errors.InternalError, "Failed to allocate scratch buffer", "Failed to allocate"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("peers", [ALONE, TWO])
def test_too_little_memory_says_what_to_change(kind, words, said, peers, tmp_path):
    found = meaning_of(error_of(kind, words), RunDirectory(tmp_path), peers)
    of = "worker 1: " if peers is TWO else ""
    assert isinstance(found, TrainingFailed)
    assert str(found) == f"{of}a step does not fit the memory of the GPU or the machine: {said}{MENDED_BY}"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tf.errors.UnavailableError, "socket closed"),
        (tf.errors.InternalError, "the collective was aborted"),
        (tf.errors.InternalError, "[_Derived_] OOM when allocating tensor with shape[64] on another worker"),
    ],
)
def test_among_several_workers_a_peer_was_lost(kind, words, tmp_path):
    found = meaning_of(error_of(kind, words), RunDirectory(tmp_path), TWO)
    assert isinstance(found, PeerLost)
    assert str(found) == f"worker 1 lost a peer ({kind.__name__}: {words})"


def test_alone_an_internal_error_keeps_its_traceback(tmp_path):
    assert meaning_of(error_of(tf.errors.InternalError, "wrong kernel"), RunDirectory(tmp_path), ALONE) is None
    assert meaning_of(error_of(tf.errors.InvalidArgumentError, "shapes"), RunDirectory(tmp_path), TWO) is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(28, "No space left on device", "RUN/progress.json"),
         "RUN/progress.json: No space left on device; free some space, if that is it, and resume the run"),
        (error_of(tf.errors.ResourceExhaustedError, "RUN/events; No space left on device"),
         "there is no room under RUN: RUN/events; No space left on device; free some space and resume the run"),
    ],
)  # fmt: skip
def test_a_full_disk(error, said, tmp_path):
    assert str(meaning_of(error, RunDirectory(tmp_path), ALONE)).replace(str(tmp_path), "RUN") == said
