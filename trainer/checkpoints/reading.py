"""Weights from a checkpoint into a network."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskfleet.checkpoint_manifest import CheckpointManifest, best_step
from maskfleet.errors import BadInput, NotFound
from maskfleet.run_directory import RunDirectory
from trainer.checkpoints.averaging import averages_in
from trainer.checkpoints.inspection import VALUE, plain_name

_WEIGHTS = "weights/"
"""Before the names of a network's variables in a checkpoint."""
_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
"""Under this name a checkpoint tells which objects its variables belong to; without it none is read."""


def weights_by_path(model: keras.Model) -> dict[str, tf.Variable]:
    """All variables of the model under their Keras paths, by which a checkpoint names them.

    Names that do not depend on the shape of Keras's objects let any other program read the file.
    """
    return _by_path(model.variables)


def optimizer_by_path(optimizer: keras.optimizers.Optimizer) -> dict[str, tf.Variable]:
    """All variables of the optimizer under their Keras paths."""
    return _by_path(optimizer.variables)


def _by_path(variables: Sequence[keras.Variable]) -> dict[str, tf.Variable]:
    named = {variable.path: variable.value for variable in variables}
    if len(named) != len(variables):
        raise ValueError("two variables have the same path")
    return named


def load_weights(run: RunDirectory, model: keras.Model, step: int | None = None) -> CheckpointManifest:
    """Reads the weights of the newest checkpoint, or that of ``step``, into ``model``.

    Raises:
        NotFound: there is no such checkpoint.
        BadInput: it is damaged, or of another network.
    """
    manifest = _verified(run, step)
    status = tf.train.Checkpoint(weights=weights_by_path(model)).read(str(run.checkpoint_prefix(manifest.step)))
    try:
        status.assert_existing_objects_matched().expect_partial()
    except AssertionError as error:
        raise BadInput(f"checkpoint of step {manifest.step} in {run.path} is of another network") from error
    return manifest


def read_weights(
    run: RunDirectory, step: int | None = None, *, averaged: bool = False
) -> tuple[CheckpointManifest, dict[str, NDArray[Any]]]:
    """The weights of the newest checkpoint, or that of ``step``, by their paths, without building the network.

    Args:
        averaged: those that were trained as their moving averages, which the optimizer has kept.

    Raises:
        NotFound, BadInput: as :func:`load_weights`.
    """
    manifest = _verified(run, step)
    reader = tf.train.load_checkpoint(str(run.checkpoint_prefix(manifest.step)))
    averages = averages_in(reader) if averaged else {}
    names = {plain_name(name).removeprefix(_WEIGHTS): name for name in reader.get_variable_to_shape_map()
             if name.startswith(_WEIGHTS)}  # fmt: skip
    weights = {path: reader.get_tensor(averages.get(path.replace("/", "_"), name)) for path, name in names.items()}
    return manifest, weights


def _verified(run: RunDirectory, step: int | None) -> CheckpointManifest:
    steps = run.checkpoint_steps()
    if not steps or (step is not None and step not in steps):
        wanted = "a complete checkpoint" if step is None else f"a checkpoint of step {step}"
        raise NotFound(f"{run.path}: expected {wanted}, found steps {steps}")
    try:
        chosen = step or steps[0]
        manifest = CheckpointManifest.read(run, chosen)
        problem = manifest.problem(run.checkpoints)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
    if problem is not None:
        raise BadInput(f"checkpoint of step {step or steps[0]} in {run.path} is damaged: {problem}")
    return manifest


def manifests_of(run: RunDirectory) -> dict[int, CheckpointManifest]:
    """The manifests of the run's checkpoints by step, but for those that are none."""
    manifests = {}
    for step in run.checkpoint_steps():
        with contextlib.suppress(OSError, ValueError):
            manifests[step] = CheckpointManifest.read(run, step)
    return manifests


def best_checkpoint(run: RunDirectory) -> CheckpointManifest | None:
    """The checkpoint with the highest score, the newest of equals; None if none was validated."""
    manifests = manifests_of(run)
    step = best_step(manifests)
    return None if step is None else manifests[step]


def values_by_name(state: tf.train.Checkpoint) -> dict[str, np.ndarray]:
    """The values that a checkpoint of ``state`` would hold, by the names that it would give them."""
    return {name: variable.numpy() for name, variable in _by_name(state).items()}


def names_of(state: tf.train.Checkpoint) -> set[str]:
    """The names that a checkpoint of ``state`` would give its variables."""
    return set(_by_name(state))


def copy_of(state: tf.train.Checkpoint) -> dict[str, tf.Tensor]:
    """The values of ``state`` as they are now, which later steps do not change, by their names; on the CPU.

    There it takes neither time nor memory yet: TensorFlow copies a variable's buffer when it is next written to while
    somebody else still has it.
    """
    with tf.device("CPU:0"):
        return {path: tf.identity(variable.read_value()) for path, variable in _by_name(state).items()}


class StateWriter:
    """Writes states of one run, whose variables stay the same.

    TensorFlow goes through all objects for each checkpoint, for a tenth of a second. What it finds is the same each
    time, so the later ones take the names and the graph of objects from the first.
    """

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._graph = b""

    def write(self, values: Mapping[str, tf.Tensor], prefix: str) -> None:
        """Writes what :func:`copy_of` has given as ``tf.train.Checkpoint.write`` would write the state itself.

        Raises:
            tf.errors.OpError: the disk is full or not writable.
        """
        if self._names:
            names, tensors = [self._names[path] for path in values], list(values.values())
            with tf.device("CPU:0"):
                tf.raw_ops.SaveV2(
                    prefix=prefix,
                    tensor_names=[*names, _OBJECT_GRAPH],
                    shape_and_slices=[""] * (len(names) + 1),
                    tensors=[*tensors, tf.constant(self._graph)],
                )
            return
        _state_of(values).write(prefix)
        reader = tf.train.load_checkpoint(prefix)
        self._graph = reader.get_tensor(_OBJECT_GRAPH)
        self._names = {plain_name(name): name for name in reader.get_variable_to_shape_map() if name.endswith(VALUE)}


def _state_of(values: Mapping[str, tf.Tensor]) -> tf.train.Checkpoint:
    """A state with such values, under the same names."""
    groups: dict[str, dict[str, tf.Variable]] = {}
    state = tf.Module()
    with tf.device("CPU:0"):
        for path, value in values.items():
            group, _, name = path.partition("/")
            variable = tf.Variable(value, trainable=False)
            if group == "state":
                setattr(state, name, variable)
            else:
                groups.setdefault(group, {})[name] = variable
    return tf.train.Checkpoint(**groups, state=state)


def _by_name(state: tf.train.Checkpoint) -> dict[str, tf.Variable]:
    groups = {group: getattr(state, group, {}) for group in ("weights", "optimizer")}
    groups["state"] = vars(getattr(state, "state", tf.Module()))
    return {
        f"{group}/{name}": value
        for group, members in groups.items()
        for name, value in members.items()
        if isinstance(value, tf.Variable)
    }
