"""The GPU memory that a step of a job will take, where the trainer's packages are installed here."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable

from launcher.job.training_job import TrainingJob
from maskfleet.child_processes import end_with_parent
from maskfleet.gpu_memory import StepMemory
from maskfleet.own_code import is_own
from maskfleet.text import one_line

_SECONDS = 120
_CLASSES = 2
"""As few as data can have: how many it has, only the pods see."""
_MOST_BESIDE, _MOST_OF_A_PIXEL = 4 << 30, 32 << 10
"""Bytes that no network of ours needs: for weights and optimizer, and for each pixel of an example."""


def step_memory(job: TrainingJob) -> StepMemory | str:
    """By a dry run in a process of its own, which imports TensorFlow and takes some seconds; or why it is not known."""
    config = job.training
    if config.unplanned:
        return "--preset auto chooses by the data"
    if config.batch_per_replica == "auto" and config.global_batch is None:
        return "--batch-per-replica auto takes what fits"
    if config.xla:
        return "what --xla keeps, its compiler decides"
    if importlib.util.find_spec("tensorflow") is None:
        return "it is computed where TensorFlow is: pip install 'maskfleet[trainer]'"
    # 'auto' is float32 on older cards, which takes more.
    precision = "bfloat16" if config.precision == "auto" else config.precision
    settings = config.model_copy(update={"precision": precision, "code": job.code or config.code})
    try:
        done = subprocess.run(
            [sys.executable, "-m", "trainer.training.memory", str(_examples(job)), str(_CLASSES)],
            input=json.dumps(settings.model_dump(mode="json")), text=True, errors="replace", capture_output=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}, check=False,
            timeout=_SECONDS, preexec_fn=end_with_parent(signal.SIGKILL),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"the network could not be looked at in {_SECONDS} s"
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
        return f"the network can't be built here: {one_line(said[-1])}"
    return StepMemory(**json.loads(done.stdout.splitlines()[-1]))


def may_be_too_much(job: TrainingJob, memories: Iterable[int]) -> bool:
    """Whether a step may take more than the smallest of ``memories``, bytes, by a bound that costs no time."""
    config = job.training
    height, width = config.image_size
    most = _MOST_BESIDE + _examples(job) * height * width * _MOST_OF_A_PIXEL
    return is_own(config.model) or config.decoder_filters is not None or most > min(memories, default=most)


def _examples(job: TrainingJob) -> int:
    """That a replica computes at a time, with as many workers as there may be."""
    replicas = job.count.most * max(1, job.gpus_per_worker)
    return max(1, job.global_batch // (replicas * job.training.accumulate))
