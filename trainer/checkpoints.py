"""Write, verify, restore, broadcast.

A checkpoint is complete once its manifest exists and every file has the size and CRC32C that the manifest
gives. The chief alone writes and restores; the other workers get the state through the strategy, so that all
hold the same bits whatever each has on disk.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from trainer.exit_codes import BadInput, BadSettings, NotFound, TrainingFailed, reason
from trainer.run_directory import CheckpointManifest, FileDigest, RunDirectory, wait_for_disk, write_atomically


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
    steps = run.checkpoint_steps()
    if not steps or (step is not None and step not in steps):
        wanted = "a complete checkpoint" if step is None else f"a checkpoint of step {step}"
        raise NotFound(f"{run.path}: expected {wanted}, found steps {steps}")
    try:
        manifest = CheckpointManifest.parse(run.checkpoint_manifest(step or steps[0]).read_bytes())
        problem = manifest.problem(run.checkpoints)
    except (OSError, ValueError) as error:
        problem = str(error)
    if problem is not None:
        raise BadInput(f"checkpoint of step {step or steps[0]} in {run.path} is damaged: {problem}")
    status = tf.train.Checkpoint(weights=weights_by_path(model)).read(str(run.checkpoint_prefix(manifest.step)))
    try:
        status.assert_existing_objects_matched().expect_partial()
    except AssertionError:
        raise BadInput(f"checkpoint of step {manifest.step} in {run.path} is of another network") from None
    return manifest


def best_checkpoint(run: RunDirectory) -> CheckpointManifest | None:
    """The checkpoint with the highest score, the newest of equals; None if none was validated.

    A score that is no number, as of a network that has diverged, counts as none.
    """
    validated = []
    for step in run.checkpoint_steps():
        with contextlib.suppress(OSError, ValueError):
            manifest = CheckpointManifest.parse(run.checkpoint_manifest(step).read_bytes())
            if manifest.score is not None and not math.isnan(manifest.score):
                validated.append((manifest.score, step, manifest))
    return max(validated, key=lambda entry: entry[:2])[2] if validated else None


def values_by_name(state: tf.train.Checkpoint) -> dict[str, np.ndarray]:
    """The values that a checkpoint of ``state`` would hold, by the names that it would give them."""
    groups = {"weights": state.weights, "optimizer": state.optimizer}
    named = {f"{group}/{path}": variable for group, variables in groups.items() for path, variable in variables.items()}
    named |= {f"state/{name}": value for name, value in vars(state.state).items() if isinstance(value, tf.Variable)}
    return {name: variable.numpy() for name, variable in named.items()}


class CheckpointStore:
    """The checkpoints of one run, as the chief sees them.

    Args:
        run: where they lie.
        state: all that training needs to go on: weights, optimizer, step.
        keep: how many of the newest stay; the best by its score always does.
    """

    def __init__(self, run: RunDirectory, state: tf.train.Checkpoint, keep: int):
        self._run = run
        self._state = state
        self._keep = keep

    def save(self, step: int, epoch: int, training_seconds: float, miou: float | None, score: float | None) -> None:
        """Writes data, then index, then manifest, each under a temporary name first.

        Raises:
            TrainingFailed: the disk is full or not writable. Earlier checkpoints are untouched.
        """
        name = self._run.checkpoint_prefix(step).name
        folder = self._run.checkpoints / ".writing"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._state.write(str(folder / name))
            files = sorted(folder.glob(f"{name}.*"), key=lambda path: path.suffix == ".index")
            digests = {path.name: FileDigest.of(path) for path in files}
            for path in files:
                wait_for_disk(path)  # the manifest vouches for them, and older checkpoints are deleted for it
                path.replace(self._run.checkpoints / path.name)
            wait_for_disk(self._run.checkpoints)
            manifest = CheckpointManifest(step, epoch, training_seconds, miou, digests, score)
            write_atomically(self._run.checkpoint_manifest(step), manifest.serialize())
        except (OSError, tf.errors.OpError) as error:
            raise TrainingFailed(
                f"{self._run.checkpoint_prefix(step)}: the checkpoint could not be written ({reason(error)}); "
                f"{self._last_good()}"
            ) from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self._delete_old()

    def restore(self) -> CheckpointManifest | None:
        """Restores the newest checkpoint that verifies; None if there is none. Says which it passed over.

        Raises:
            BadSettings: its variables are not those of the state.
        """
        for step in self._run.checkpoint_steps():
            try:
                manifest = CheckpointManifest.parse(self._run.checkpoint_manifest(step).read_bytes())
                problem = manifest.problem(self._run.checkpoints)
            except (OSError, ValueError) as error:
                problem = str(error)
            if problem is None:
                prefix = self._run.checkpoint_prefix(step)
                status = None
                try:
                    status = self._state.read(str(prefix))
                    status.assert_consumed()
                except (AssertionError, ValueError):  # other names, other shapes
                    if status is not None:
                        status.expect_partial()  # else TensorFlow lists each of them
                    raise BadSettings(
                        f"{prefix}: this checkpoint is of another network or optimizer than the settings ask for; "
                        "resume the run without the settings that change it, or start a new one"
                    ) from None
                return manifest
            print(f"checkpoint of step {step} is not used: {problem}", flush=True)
        return None

    def delete_incomplete(self) -> None:
        """Removes files that belong to no manifest, as a kill during a save leaves them."""
        complete = set(self._run.checkpoint_steps())
        for path in self._run.checkpoints.glob("step-*"):
            step = path.name.removeprefix("step-").partition(".")[0]
            if step.isdigit() and int(step) not in complete:
                path.unlink(missing_ok=True)
        for path in self._run.checkpoint_manifests.glob(".*.tmp"):
            path.unlink(missing_ok=True)
        shutil.rmtree(self._run.checkpoints / ".writing", ignore_errors=True)

    def _delete_old(self) -> None:
        best = best_checkpoint(self._run)
        for step in self._run.checkpoint_steps()[self._keep :]:
            if best is not None and step == best.step:
                continue
            self._run.checkpoint_manifest(step).unlink(missing_ok=True)
            for path in self._run.checkpoints.glob(f"{self._run.checkpoint_prefix(step).name}.*"):
                path.unlink(missing_ok=True)

    def _last_good(self) -> str:
        steps = self._run.checkpoint_steps()
        if not steps:
            return "there is no earlier one; free some space and start again"
        return f"that of step {steps[0]} is good: free some space and resume the run"


def broadcast_from_chief(strategy: tf.distribute.Strategy, variables: Sequence[tf.Variable], *, is_chief: bool) -> None:
    """Gives every worker the chief's values, bit for bit.

    The values are summed as integers, with zeros from everybody but the chief: a sum of floats would turn
    -0.0 into 0.0.
    """
    if strategy.num_replicas_in_sync == 1:
        return

    @tf.function(autograph=False)
    def exchange() -> tf.Tensor:
        def in_replica() -> tf.Tensor:
            context = tf.distribute.get_replica_context()
            flat = tf.concat([_to_bits(variable) for variable in variables], axis=0)
            is_source = tf.logical_and(is_chief, tf.equal(context.replica_id_in_sync_group, 0))
            return context.all_reduce(tf.distribute.ReduceOp.SUM, tf.where(is_source, flat, 0))

        return strategy.run(in_replica)

    bits = strategy.experimental_local_results(exchange())[0]
    position = 0
    for variable in variables:
        size = math.prod(variable.shape) * variable.dtype.size // tf.int32.size
        variable.assign(_from_bits(bits[position : position + size], variable))
        position += size


def _to_bits(variable: tf.Variable) -> tf.Tensor:
    value = tf.convert_to_tensor(variable)
    if value.dtype != tf.int32:
        value = tf.bitcast(value, tf.int32)
    return tf.reshape(value, [-1])


def _from_bits(bits: tf.Tensor, variable: tf.Variable) -> tf.Tensor:
    words = variable.dtype.size // tf.int32.size
    shape = [*variable.shape, words] if words > 1 else variable.shape
    value = tf.reshape(bits, shape)
    return value if variable.dtype == tf.int32 else tf.bitcast(value, variable.dtype)
