"""A trained network as files that need none of our code: Keras, HDF5, SavedModel, TFLite."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from maskfleet.errors import BadSettings, TrainingFailed, reason
from maskfleet.export_manifest import EXPORT_FILE, ExportManifest
from maskfleet.files import check_writable, write_atomically, write_json
from maskfleet.image_size import Fit, Size
from maskfleet.run_directory import LEGEND
from trainer.data.cache import Dataset
from trainer.results.enlarging import enlarged_masks
from trainer.results.in_graph import grown, in_windows, size_within
from trainer.results.legend import Legend
from trainer.results.trained import Trained


def export(model: keras.Model, folder: Path, legend: Legend) -> None:
    """Writes NAME.keras, NAME.h5, saved_model/, classes.json and export.json into ``folder``, NAME being the model's.

    Files of these names are replaced when all are written.

    Raises:
        TrainingFailed: the files can't be written; what was there stays.
    """
    try:
        _export(model, folder, legend, ("keras", "h5", "saved_model"))
    except (OSError, tf.errors.OpError) as error:
        raise TrainingFailed(
            f"{folder}: the network could not be exported ({reason(error)}); the checkpoints are good: free some "
            "space and run 'trainer export'"
        ) from error


def export_formats(
    trained: Trained, folder: Path, formats: Sequence[str], dataset: Dataset | None, images: int
) -> Iterator[str]:
    """Writes the network in ``formats`` (keras, h5, saved_model, tflite-KIND); gives lines to be printed.

    Args:
        dataset: for TFLite; its training images calibrate int8, on the images that judge it the files are compared with
            the network, and parity.json keeps what was found.
        images: how many of each, evenly spread over them.

    Raises:
        BadSettings: ``folder`` can't be written; what was there stays.
    """
    try:
        check_writable(folder, folder=True)
        with _staged(folder) as staging:
            _write_plain(trained.model, staging.path, trained.legend, formats)
            rows = None if dataset is None else _write_tflite(trained, staging.path, formats, dataset, images)
        yield from (f"wrote {path}" for path in staging.written)
    except (OSError, tf.errors.OpError) as error:
        raise BadSettings(f"--out {folder}: can't be written: {reason(error)}") from error
    if rows is not None:
        from trainer.results.tflite import parity_table

        yield parity_table(rows)


def _export(model: keras.Model, folder: Path, legend: Legend, formats: Sequence[str]) -> list[Path]:
    with _staged(folder) as staging:
        _write_plain(model, staging.path, legend, formats)
    return staging.written


@dataclass
class _Staging:
    """Where files are written until all of them are, and where they lie then."""

    path: Path
    written: list[Path]


@contextlib.contextmanager
def _staged(folder: Path) -> Iterator[_Staging]:
    """A hidden folder whose files take their places in ``folder`` when all are written; else nothing changes.

    The file that names and measures them comes first, so that a mixture that a kill leaves is known for one.
    """
    whole = folder.resolve()  # '.' has no name
    beside = whole.parent / f".{whole.name}.writing"
    staging = _Staging(whole / ".writing" if whole.exists() else beside, [])  # on the same file system
    shutil.rmtree(staging.path, ignore_errors=True)
    try:
        staging.path.mkdir(parents=True)
        yield staging
        ExportManifest.of(staging.path).write(staging.path)
        if not whole.exists():
            names = sorted(path.name for path in staging.path.iterdir())
            staging.path.rename(whole)
            staging.written += [folder / name for name in names]
            return
        replaced = staging.path / ".replaced"
        replaced.mkdir()
        parts = sorted(path for path in staging.path.iterdir() if path != replaced)
        for path in sorted(parts, key=lambda path: (path.name != EXPORT_FILE, path.name != LEGEND)):
            if (whole / path.name).is_dir():  # which can't be replaced at once
                shutil.move(whole / path.name, replaced / path.name)
            shutil.move(path, whole / path.name)
            staging.written.append(folder / path.name)
    finally:
        shutil.rmtree(staging.path, ignore_errors=True)


def _write_plain(model: keras.Model, folder: Path, legend: Legend, formats: Sequence[str]) -> None:
    """Those of keras, h5 and saved_model that ``formats`` names, and classes.json."""
    file = folder / f"{model.name}.keras"
    model.save(file)
    # Loaded anew, it has plain variables whatever strategy trained it, and the file is known to be good.
    loaded = keras.models.load_model(file, compile=False)
    if "h5" in formats:
        _save_h5(loaded, folder / f"{model.name}.h5")
    if "saved_model" in formats:
        _save_saved_model(loaded, folder / "saved_model", legend.fit)
    if "keras" not in formats:
        file.unlink()
    write_json(folder / LEGEND, legend.to_json())


def _write_tflite(
    trained: Trained, folder: Path, formats: Sequence[str], dataset: Dataset, images: int
) -> list[dict[str, float | str]]:
    """The TFLite files that ``formats`` names, and parity.json, whose rows are returned."""
    from trainer.results.tflite import KINDS, convert, parity

    files: dict[str, bytes] = {}
    for kind in KINDS:
        if f"tflite-{kind}" in formats:
            path = folder / f"{trained.model.name}-{kind}.tflite"
            files[path.name] = convert(trained.model, kind, dataset.train.spread(images).images)
            write_atomically(path, files[path.name])
    test = dataset.judges.spread(images)
    rows = parity(trained.model, files, test, trained.legend)
    write_json(folder / "parity.json", {"data": dataset.name, "images": len(test), "files": rows})
    return rows


def _save_saved_model(model: keras.Model, folder: Path, fit: Fit) -> None:
    """A SavedModel with all processing inside: images uint8 [b, H, W, 3] of any size -> see :class:`_Serving`."""
    serving = _Serving(model, fit)
    images = tf.TensorSpec((None, None, None, model.input_shape[-1]), tf.uint8, name="images")
    signatures = {
        "serving_default": serving.masks.get_concrete_function(images),
        "probabilities": serving.probabilities.get_concrete_function(images),
    }
    tf.saved_model.save(serving, str(folder), signatures)


class _Serving(tf.Module):
    """The network behind what makes images its input, as they were in training, and of its output masks of their size.

    Masks and probabilities are two signatures: who calls one computes all that it gives, and the probabilities of all
    classes at a photograph's size are gigabytes.

    It tracks the network's variables and not its layers: else each layer's functions would be traced and saved.
    """

    def __init__(self, model: keras.Model, fit: Fit):
        super().__init__()
        self.weights = [variable.value for variable in model.variables]
        size = Size(*model.input_shape[1:3])

        def network(images: tf.Tensor) -> tf.Tensor:
            return model(images, training=False)

        def small(images: tf.Tensor) -> tf.Tensor:
            if fit == "squash":
                return network(tf.image.resize(images, size, antialias=True))
            within = size_within(tf.shape(images)[1:3], size)
            scaled = tf.image.resize(images, within, antialias=True)
            inputs = tf.ensure_shape(grown(scaled, size), (None, *size, images.shape[-1]))  # as pspnet has to know
            return network(inputs)[:, : within[0], : within[1]]

        @tf.function(autograph=False)
        def masks(images: tf.Tensor) -> dict[str, tf.Tensor]:
            """``mask``: class indices uint8 [b, H, W]."""
            if fit == "crop":
                found = in_windows(images, size, lambda part: _classes(network(part)), tf.uint8, 3)
            else:
                found = enlarged_masks(small(images), *tf.unstack(tf.shape(images)[1:3]))
            return {"mask": found}

        @tf.function(autograph=False)
        def probabilities(images: tf.Tensor) -> dict[str, tf.Tensor]:
            """``probabilities``: float32 [b, H, W, classes]."""
            if fit == "crop":
                found = in_windows(images, size, lambda part: tf.nn.softmax(network(part)), tf.float32, 4)
            else:
                found = tf.nn.softmax(tf.image.resize(small(images), tf.shape(images)[1:3]))
            return {"probabilities": found}

        self.masks, self.probabilities = masks, probabilities


def _classes(logits: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.argmax(logits, axis=-1), tf.uint8)


def _save_h5(model: keras.Model, path: Path) -> None:
    """Keras would advise against this format with each file, and users ask for it."""
    import h5py
    from absl import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        model.save(path)
    finally:
        logging.set_verbosity(before)
    with h5py.File(path, "r+") as file:
        description = json.loads(file.attrs["model_config"])
        _say_what_is_an_operation(model, description["config"])
        file.attrs["model_config"] = json.dumps(description)


def _say_what_is_an_operation(model: keras.Model, config: Any) -> None:
    """In HDF5 Keras writes classes without their modules, and takes ``keras.ops.add`` for the layer ``Add``.

    What has a module is read as from a Keras file, so operations that are no layers get theirs.
    """
    operations = {operation.name: operation for operation in getattr(model, "operations", ())}
    for entry in config["layers"]:
        operation = operations.get(entry.get("name"))
        if isinstance(operation, keras.Model):
            _say_what_is_an_operation(operation, entry["config"])
        elif isinstance(operation, keras.Operation) and not isinstance(operation, keras.Layer):
            entry.update(keras.saving.serialize_keras_object(operation))
