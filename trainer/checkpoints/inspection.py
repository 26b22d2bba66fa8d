"""What a checkpoint holds, told without building the network."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from maskfleet.checkpoint_manifest import CheckpointManifest
from maskfleet.errors import BadInput, NotFound
from maskfleet.run_directory import RunDirectory, check_name

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


def inspect_checkpoint(place: Path) -> dict[str, Any]:
    """Facts about a run's newest checkpoint, or about one checkpoint named by its prefix or manifest.

    ``sha256`` is over all variables (weights, optimizer slots, step) in the order of their names, so two
    states are equal, bit for bit, where it is; ``sha256_weights`` is over the model's variables alone.

    Raises:
        NotFound: there is no checkpoint at ``place``.
        BadInput: it does not verify, or has a name that TensorFlow does not take.
    """
    check_name(place)
    manifest, checkpoints = _find(place)
    problem = manifest.problem(checkpoints)
    if problem is not None:
        raise BadInput(f"checkpoint of step {manifest.step} is damaged: {problem}")
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(checkpoints / f"step-{manifest.step:08d}"))
    shapes = reader.get_variable_to_shape_map()
    values = {plain_name(name): reader.get_tensor(name) for name in shapes if name.endswith(VALUE)}
    weights = {name: value for name, value in values.items() if name.startswith("weights/")}
    return {
        "step": manifest.step,
        "epoch": manifest.epoch,
        "miou": manifest.miou,
        "training_seconds": manifest.training_seconds,
        "variables": len(values),
        "parameters": sum(value.size for value in weights.values()),
        "sha256": state_digest(values),
        "sha256_weights": state_digest(weights),
    }


def names_in(prefix: str) -> set[str]:
    """The names of the variables in the checkpoint with this prefix, as the program gave them."""
    import tensorflow as tf

    names = tf.train.load_checkpoint(prefix).get_variable_to_shape_map()
    return {plain_name(name) for name in names if name.endswith(VALUE)}


def state_digest(values: Mapping[str, np.ndarray]) -> str:
    """SHA-256, in hexadecimal, over the bytes of all values in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(values):
        digest.update(np.ascontiguousarray(values[name]).tobytes())
    return digest.hexdigest()


def plain_name(name: str) -> str:
    """A variable's name as the program gave it: TensorFlow writes '/' as '.S' and '.' as '..'."""
    name = name.removesuffix(VALUE)
    return re.sub(r"\.([.S])", lambda match: "/" if match[1] == "S" else ".", name)


def _find(place: Path) -> tuple[CheckpointManifest, Path]:
    match = re.fullmatch(r"step-(\d+)(\..*)?", place.name)
    if match:
        checkpoints = place.parent.parent if place.parent.name == "manifests" else place.parent
        run, step = RunDirectory(checkpoints.parent), int(match[1])
    else:
        run = RunDirectory(place)
        steps = run.checkpoint_steps()
        if not steps:
            raise NotFound(f"{place}: expected a run with a complete checkpoint, found none in {run.checkpoints}")
        step = steps[0]
    try:
        return CheckpointManifest.read(run, step), run.checkpoints
    except FileNotFoundError as error:
        raise NotFound(f"{place}: there is no manifest {run.checkpoint_manifest(step)}") from error
    except (OSError, ValueError) as error:
        raise BadInput(f"{run.checkpoint_manifest(step)}: {getattr(error, 'strerror', None) or error}") from error
