"""A trained network as files of other runtimes than TensorFlow: ONNX, OpenVINO, LiteRT."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from maskfleet.errors import BadSettings
from maskfleet.files import write_atomically
from maskfleet.image_size import Fit
from maskfleet.text import one_line
from trainer.cgroup import cpu_limit
from trainer.results.portable import masks_of_pictures, portable

Converted = Literal["onnx", "openvino", "tflite-float32", "tflite-float16", "tflite-int8"]
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxruntime", "tf2onnx"),
    "openvino": ("openvino",),
    "tflite-float32": ("ai_edge_litert",),
    "tflite-float16": ("ai_edge_litert",),
    "tflite-int8": ("ai_edge_litert", "ai_edge_quantizer"),
}
"""What each format is written with, and read again by."""
_OPSET = 17
"""Of ONNX: what onnxruntime has from 1.12 (2022) on."""


def check_packages(what: str, packages: Iterable[str]) -> None:
    """Raises BadSettings, in one line, if a package that ``what`` needs is not installed."""
    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise BadSettings(
                f"{what}: needs {name.replace('_', '-')}, which is not installed: pip install 'maskfleet[export]'"
            )


def write_converted(
    model: keras.Model, fit: Fit, kind: Converted, folder: Path, calibration: NDArray[np.uint8] | None
) -> Path:
    """Writes the network into ``folder``; returns the file, beside which OpenVINO's has its weights.

    ONNX and OpenVINO: images uint8 [b, H, W, bands] of any size -> ``mask``, class indices uint8 [b, H, W]. LiteRT:
    pixels 0..255 float32 [1, H, W, bands] of the network's size -> logits float32 [1, H, W, classes].

    Args:
        calibration: images uint8 [N, H, W, bands] of the network's size, from which int8 learns the range of every
            activation.

    Raises:
        BadSettings: the network has an operation that the format lacks.
        OSError: the file can't be written.
    """
    assert kind in get_args(Converted)
    try:
        with _quiet():
            if kind == "onnx":
                return _write_onnx(model, fit, folder / f"{model.name}.onnx")
            if kind == "openvino":
                return _write_openvino(model, fit, folder / f"{model.name}.xml")
            file = folder / f"{model.name}-{kind.removeprefix('tflite-')}.tflite"
            write_atomically(file, _litert(model, kind, calibration))
            return file
    except OSError:
        raise
    except Exception as error:  # each converter raises what it likes
        raise BadSettings(
            f"--format {kind}: {model.name} can't be converted: {one_line(str(error), 300)}; choose another format"
        ) from error


def _write_onnx(model: keras.Model, fit: Fit, file: Path) -> Path:
    import onnxruntime
    import tf2onnx

    masks = masks_of_pictures(model, fit)
    converted, _ = tf2onnx.convert.from_function(masks, masks.input_signature, opset=_OPSET)
    for value in (*converted.graph.input, *converted.graph.output):
        for dimension, name in zip(value.type.tensor_type.shape.dim, ("images", "height", "width"), strict=False):
            dimension.dim_param = name
    content = converted.SerializeToString()
    onnxruntime.InferenceSession(content)  # which tells what the converter has left as it was
    write_atomically(file, content)
    return file


def import_openvino() -> Any:
    """The package, without the one by which it would report each conversion to its makers unless it is told not to."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _write_openvino(model: keras.Model, fit: Fit, file: Path) -> Path:
    openvino = import_openvino()
    openvino.save_model(openvino.convert_model(masks_of_pictures(model, fit)), file, compress_to_fp16=False)
    return file


def _litert(model: keras.Model, kind: str, calibration: NDArray[np.uint8] | None) -> bytes:
    converter = tf.lite.TFLiteConverter.from_keras_model(portable(model))
    if kind == "tflite-float16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    content = bytes(converter.convert())
    if kind != "tflite-int8":
        return content
    assert calibration is not None
    return _quantized(content, calibration)


def _quantized(content: bytes, calibration: NDArray[np.uint8]) -> bytes:
    """Weights and activations of 8 bits; what goes in and comes out stays float32, so that all files are used alike."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import qtyping, quantizer, recipe

    (signature, sides) = next(iter(Interpreter(model_content=content).get_signature_list().items()))
    (pixels,) = sides["inputs"]
    quantizing = quantizer.Quantizer(content)
    quantizing.load_quantization_recipe(recipe.static_wi8_ai8())
    for side in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        quantizing.update_quantization_recipe(".*", side, algorithm_key="no_quantize")
    calibration = np.array(calibration)
    calibration[0, 0, 0], calibration[0, -1, -1] = 0, 255  # a black and a white pixel, which real images need not have
    images = [{pixels: image[None].astype(np.float32)} for image in calibration]
    ranges = quantizing.calibrate({signature: images}, num_threads=cpu_limit())
    return bytes(quantizing.quantize(ranges, enable_progress_report=False).quantized_model)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what the converters print and log of their progress, some of them past Python."""
    before, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    disabled = logging.root.manager.disable
    try:
        os.dup2(nothing, 2)
        logging.disable(logging.CRITICAL)
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        os.dup2(before, 2)
        os.close(before)
        os.close(nothing)
