"""A trained network as TFLite files, and how far they are from it on real images."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import Literal

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from trainer.cgroup import cpu_limit
from trainer.data.cache import Arrays
from trainer.results.evaluation import Masker, evaluate, masker
from trainer.results.legend import Legend

Kind = Literal["float32", "float16", "int8"]
KINDS: tuple[Kind, ...] = ("float32", "float16", "int8")


def convert(model: keras.Model, kind: Kind, calibration: NDArray[np.uint8]) -> bytes:
    """The network as a TFLite model: pixels 0..255 [b, H, W, 3] -> logits [b, H, W, classes].

    float32 and float16 (weights alone) take and give float32; int8 takes the pixels as uint8 and gives int8.

    Args:
        calibration: images uint8 [N, H, W, 3], from which int8 learns the range of every activation.
    """
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    builtins = tf.lite.OpsSet.TFLITE_BUILTINS_INT8 if kind == "int8" else tf.lite.OpsSet.TFLITE_BUILTINS
    # TFLite has no bicubic interpolation of its own; nothing else needs TensorFlow's operations.
    converter.target_spec.supported_ops = [builtins, tf.lite.OpsSet.SELECT_TF_OPS]
    if kind != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if kind == "int8":
        # The input's range shall be that of bytes, scale 1 and zero point 0, so that a program can give it an image's
        # bytes as they are; real images need not have a black and a white pixel.
        calibration = np.array(calibration)
        calibration[0, 0, 0], calibration[0, -1, -1] = 0, 255
        converter.representative_dataset = lambda: ([image[None].astype(np.float32)] for image in calibration)
        converter.inference_input_type = tf.uint8
        converter.inference_output_type = tf.int8
    with _quiet():
        return bytes(converter.convert())


def tflite_masker(content: bytes) -> Masker:
    """A TFLite model as a function from images to masks, one image at a time."""
    with _quiet():
        interpreter = tf.lite.Interpreter(model_content=content, num_threads=cpu_limit())
        interpreter.allocate_tensors()
    (pixels,), (logits,) = interpreter.get_input_details(), interpreter.get_output_details()
    assert pixels["dtype"] == np.float32 or pixels["quantization"] == (1, 0)  # as convert() sees to

    def predict(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        masks = []
        for image in images:
            interpreter.set_tensor(pixels["index"], image[None].astype(pixels["dtype"]))
            interpreter.invoke()
            masks.append(np.argmax(interpreter.get_tensor(logits["index"])[0], axis=-1))
        return np.array(masks, np.uint8)

    return predict


def parity(model: keras.Model, files: dict[str, bytes], split: Arrays, legend: Legend) -> list[dict[str, float | str]]:
    """A row for the Keras model and one for each TFLite file: what they reach on ``split``.

    Each has ``name``, ``bytes``, ``miou``, ``miou_difference``, ``same_pixels`` (share of the pixels for which
    the file says what the Keras model says) and ``images_per_second``.
    """
    parameters = sum(int(np.prod(variable.shape)) * variable.dtype.size for variable in _values(model))
    rows: list[dict[str, float | str]] = []
    reference: list[NDArray[np.uint8]] = []
    for name, size, predict in [
        ("keras", parameters, masker(model)),
        *((name, len(content), tflite_masker(content)) for name, content in files.items()),
    ]:
        masks: list[NDArray[np.uint8]] = []
        evaluation = evaluate(_recorded(predict, masks), split, legend, batch_size=1)
        reference = reference or masks
        rows.append(
            {
                "name": name,
                "bytes": size,
                "miou": evaluation.scores.miou,
                "miou_difference": evaluation.scores.miou - float(rows[0]["miou"] if rows else evaluation.scores.miou),
                "same_pixels": float(np.mean([np.mean(a == b) for a, b in zip(masks, reference, strict=True)])),
                "images_per_second": evaluation.images_per_second,
            }
        )
    return rows


def parity_table(rows: list[dict[str, float | str]]) -> str:
    """The rows of :func:`parity` as lines of text."""
    lines = [f"{'file':24} {'MB':>6} {'mIoU':>7} {'difference':>10} {'same pixels':>11} {'images/s':>8}"]
    lines += [
        f"{row['name']:24} {float(row['bytes']) / 1e6:6.2f} {row['miou']:7.4f} {row['miou_difference']:+10.4f} "
        f"{row['same_pixels']:11.4f} {row['images_per_second']:8.1f}"
        for row in rows
    ]
    return "\n".join(lines)


def _recorded(predict: Masker, masks: list[NDArray[np.uint8]]) -> Masker:
    def predict_and_keep(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        found = predict(images)
        masks.append(found)
        return found

    return predict_and_keep


def _values(model: keras.Model) -> list[tf.Variable]:
    return [variable.value for variable in model.variables]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the converter's prints, and the notice that the interpreter will move to another package."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
