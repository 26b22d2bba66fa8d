"""A trained network as files that need none of our code: Keras, HDF5, SavedModel, ONNX, OpenVINO, LiteRT."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskfleet.errors import BadSettings, TrainingFailed, reason
from maskfleet.export_manifest import EXPORT_FILE, ExportManifest, is_exported
from maskfleet.files import check_writable, write_json
from maskfleet.image_size import Fit, Size
from maskfleet.run_directory import LEGEND
from trainer.data.source import Split
from trainer.results.converting import PACKAGES, Converted, write_converted
from trainer.results.enlarging import enlarged_masks
from trainer.results.exported import load_exported
from trainer.results.in_graph import classes_of, grown, in_windows, scaled_in_bands, size_within
from trainer.results.legend import Legend
from trainer.results.parity import Candidate, parity, parity_table
from trainer.results.predict import Predictor, network_of
from trainer.results.trained import Trained, load_trained

PLAIN = ("keras", "h5", "saved_model")
"""Formats of Keras and TensorFlow, which a run ends with."""


def export(model: keras.Model, folder: Path, legend: Legend) -> None:
    """Writes NAME.keras, NAME.h5, saved_model/, classes.json and export.json into ``folder``, NAME being the model's.

    Files of these names are replaced when all are written.

    Raises:
        TrainingFailed: the files can't be written; what was there stays.
    """
    try:
        _export(model, folder, legend, PLAIN)
    except (OSError, tf.errors.OpError) as error:
        raise TrainingFailed(
            f"{folder}: the network could not be exported ({reason(error)}); the checkpoints are good: free some "
            "space and run 'trainer export'"
        ) from error


@dataclass(frozen=True)
class Judges:
    """Pictures at their own size that files are held against the network on; ``data`` is what they are called."""

    data: str
    split: Split


def export_formats(
    trained: Trained, folder: Path, formats: Sequence[str], calibration: NDArray[np.uint8] | None, judges: Judges | None
) -> Iterator[str]:
    """Writes the network in ``formats``; gives lines to be printed.

    Args:
        formats: of :data:`PLAIN` and :data:`trainer.results.converting.PACKAGES`.
        calibration: training images uint8 [N, H, W, bands] of the network's size, for tflite-int8.
        judges: if given, what each file makes of them is held against what the network does, and parity.json keeps it.

    Raises:
        BadSettings: ``folder`` can't be written, or the network is not for a format; what was
            there stays.
    """
    rows: list[dict[str, Any]] = []
    try:
        check_writable(folder, folder=True)
        with _staged(folder) as staging:
            files = _write_plain(trained.model, staging.path, trained.legend, formats)
            for kind in (kind for kind in PACKAGES if kind in formats):
                converted = cast(Converted, kind)
                files.append(write_converted(trained.model, trained.fit, converted, staging.path, calibration))
            if judges is not None:
                rows = _parity(trained, files, judges)
                write_json(
                    staging.path / "parity.json",
                    {"data": judges.data, "images": len(judges.split), "size": "own", "files": rows},
                )
        yield from (f"wrote {path}" for path in staging.written)
    except (OSError, tf.errors.OpError) as error:
        raise BadSettings(f"--out {folder}: can't be written: {reason(error)}") from error
    if rows:
        yield parity_table(rows)


def _parity(trained: Trained, files: Sequence[Path], judges: Judges) -> list[dict[str, Any]]:
    def segmenter(trained: Trained) -> Predictor:
        network = network_of(trained.model)
        return Predictor.fitted(trained.fit, network, trained.size, len(trained.legend.classes), batch_size=1)

    candidates = {
        file.name: Candidate(
            _bytes(file),
            load_exported(file).segmenter(batch_size=1) if is_exported(file) else segmenter(load_trained(file)),
        )
        for file in files
    }
    parameters = sum(int(np.prod(variable.shape)) * variable.value.dtype.size for variable in trained.model.variables)
    return parity(Candidate(parameters, segmenter(trained)), candidates, judges.split, trained.legend)


def _bytes(file: Path) -> int:
    """With what belongs to it: a folder's files, and OpenVINO's weights."""
    parts = [file, *file.rglob("*"), *([file.with_suffix(".bin")] if file.suffix == ".xml" else [])]
    return sum(part.stat().st_size for part in parts if part.is_file())


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


def _write_plain(model: keras.Model, folder: Path, legend: Legend, formats: Sequence[str]) -> list[Path]:
    """Those of :data:`PLAIN` that ``formats`` names, which are returned, and classes.json."""
    file = folder / f"{model.name}.keras"
    files = {"keras": file, "h5": folder / f"{model.name}.h5", "saved_model": folder / "saved_model"}
    model.save(file)
    # Loaded anew, it has plain variables whatever strategy trained it, and the file is known to be good.
    loaded = keras.models.load_model(file, compile=False)
    if "h5" in formats:
        _save_h5(loaded, files["h5"])
    if "saved_model" in formats:
        _save_saved_model(loaded, files["saved_model"], legend.fit)
    if "keras" not in formats:
        file.unlink()
    write_json(folder / LEGEND, {**legend.to_json(), "size": list(map(int, model.input_shape[1:3]))})
    return [path for name, path in files.items() if name in formats]


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
            shape = (None, *size, images.shape[-1])  # as pspnet has to know
            if fit == "squash":
                return network(tf.ensure_shape(scaled_in_bands(images, tf.constant(size)), shape))
            within = size_within(tf.shape(images)[1:3], size)
            inputs = grown(scaled_in_bands(images, within), size)
            return network(tf.ensure_shape(inputs, shape))[:, : within[0], : within[1]]

        @tf.function(autograph=False)
        def masks(images: tf.Tensor) -> dict[str, tf.Tensor]:
            """``mask``: class indices uint8 [b, H, W]."""
            if fit == "crop":
                found = in_windows(images, size, lambda part: classes_of(network(part)), tf.uint8, 3)
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
