"""A trained network as files that need none of our code: Keras, HDF5, SavedModel, TFLite."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import tensorflow as tf

from maskfleet.errors import BadSettings, TrainingFailed, reason
from maskfleet.files import write_atomically, write_json
from trainer.data.cache import Dataset
from trainer.results.enlarging import enlarged_mask
from trainer.results.legend import LEGEND_FILE, Legend
from trainer.results.trained import Trained


def export(model: keras.Model, folder: Path, legend: Legend) -> None:
    """Writes NAME.keras, NAME.h5, saved_model/ and classes.json into ``folder``, NAME being the model's.

    Files of these names are replaced, one by one, when all are written.

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
        dataset: for TFLite; its training images calibrate int8, on its test images the files are compared with
            the network, and parity.json keeps what was found.
        images: how many of each, evenly spread over them.

    Raises:
        BadSettings: ``folder`` can't be written.
    """
    files: dict[str, bytes] = {}
    try:
        plain = [name for name in formats if not name.startswith("tflite-")]
        yield from (f"wrote {path}" for path in _export(trained.model, folder, trained.legend, plain))
        if dataset is None:
            return
        from trainer.results.tflite import KINDS, convert, parity, parity_table

        for kind in KINDS:
            if f"tflite-{kind}" in formats:
                path = folder / f"{trained.model.name}-{kind}.tflite"
                files[path.name] = convert(trained.model, kind, dataset.train.spread(images).images)
                write_atomically(path, files[path.name])
                yield f"wrote {path}"
        test = dataset.judges.spread(images)
        rows = parity(trained.model, files, test, trained.legend)
        write_json(folder / "parity.json", {"data": dataset.name, "images": len(test), "files": rows})
    except (OSError, tf.errors.OpError) as error:
        raise BadSettings(f"--out {folder}: can't be written: {reason(error)}") from error
    yield parity_table(rows)


def _export(model: keras.Model, folder: Path, legend: Legend, formats: Sequence[str]) -> list[Path]:
    whole = folder.resolve()  # '.' has no name
    writing = whole.parent / f".{whole.name}.writing"
    shutil.rmtree(writing, ignore_errors=True)
    try:
        writing.mkdir(parents=True)
        file = writing / f"{model.name}.keras"
        model.save(file)
        # Loaded anew, it has plain variables whatever strategy trained it, and the file is known to be good.
        loaded = keras.models.load_model(file, compile=False)
        if "h5" in formats:
            _save_h5(loaded, writing / f"{model.name}.h5")
        if "saved_model" in formats:
            _save_saved_model(loaded, writing / "saved_model")
        if "keras" not in formats:
            file.unlink()
        write_json(writing / LEGEND_FILE, legend.to_json())
        folder.mkdir(parents=True, exist_ok=True)
        written = []
        for path in sorted(writing.iterdir()):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                shutil.rmtree(folder / path.name)
            written.append(Path(shutil.move(path, folder / path.name)))  # the folder may be another file system
        return written
    finally:
        shutil.rmtree(writing, ignore_errors=True)


def _save_saved_model(model: keras.Model, folder: Path) -> None:
    """A SavedModel with all processing inside: images uint8 [b, H, W, 3] of any size -> see :class:`_Serving`."""
    serving = _Serving(model)
    images = tf.TensorSpec((None, None, None, 3), tf.uint8, name="images")
    signatures = {
        "serving_default": serving.masks.get_concrete_function(images),
        "probabilities": serving.probabilities.get_concrete_function(images),
    }
    tf.saved_model.save(serving, str(folder), signatures)


class _Serving(tf.Module):
    """The network behind the scaling of images to its input's size and of its output back to theirs.

    Masks and probabilities are two signatures: who calls one computes all that it gives, and the probabilities of all
    classes at a photograph's size are gigabytes.

    It tracks the network's variables and not its layers: else each layer's functions would be traced and saved.
    """

    def __init__(self, model: keras.Model):
        super().__init__()
        self.weights = [variable.value for variable in model.variables]
        size = model.input_shape[1:3]

        def small(images: tf.Tensor) -> tf.Tensor:
            return tf.nn.softmax(model(tf.image.resize(images, size, antialias=True), training=False))

        @tf.function(autograph=False)
        def masks(images: tf.Tensor) -> dict[str, tf.Tensor]:
            """``mask``: class indices uint8 [b, H, W]."""
            height, width = tf.unstack(tf.shape(images)[1:3])
            found = tf.map_fn(
                lambda probabilities: enlarged_mask(probabilities, height, width),
                small(images),
                fn_output_signature=tf.TensorSpec([None, None], tf.uint8),
                parallel_iterations=1,
            )
            return {"mask": found}

        @tf.function(autograph=False)
        def probabilities(images: tf.Tensor) -> dict[str, tf.Tensor]:
            """``probabilities``: float32 [b, H, W, classes]."""
            return {"probabilities": tf.image.resize(small(images), tf.shape(images)[1:3])}

        self.masks, self.probabilities = masks, probabilities


def _save_h5(model: keras.Model, path: Path) -> None:
    """Keras would advise against this format with each file, and users ask for it."""
    from absl import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        model.save(path)
    finally:
        logging.set_verbosity(before)
