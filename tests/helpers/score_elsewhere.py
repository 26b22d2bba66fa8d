"""Scores an exported file on PETS by its runtime, NumPy and Pillow: a program that can't import this project.

``python -I -S score_elsewhere.py PACKAGES FILE PETS`` prints the confusion matrix of all test pictures at own size.
"""

import sys

sys.path.append(sys.argv[1])  # without the files there by which a checkout is installed

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image

SIDE = 224
Pictures = np.ndarray


def masks_of(file: Path) -> Callable[[Pictures], np.ndarray]:
    """Pictures uint8 [1, H, W, 3] -> class indices [1, H, W]."""
    if file.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(file)
        return lambda pictures: session.run(["mask"], {"images": pictures})[0]
    if file.suffix == ".xml":
        import openvino

        compiled = openvino.compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda pictures: compiled(pictures)["mask"]
    if file.suffix == ".tflite":
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(file))
        interpreter.allocate_tensors()
        (pixels,), (scores,) = interpreter.get_input_details(), interpreter.get_output_details()

        def run(images: np.ndarray) -> np.ndarray:
            interpreter.set_tensor(pixels["index"], images)
            interpreter.invoke()
            return interpreter.get_tensor(scores["index"])

        return lambda pictures: fitted(pictures, run)
    if file.is_dir():
        import tensorflow as tf

        loaded = tf.saved_model.load(str(file))
        return lambda pictures: loaded.signatures["serving_default"](images=tf.constant(pictures))["mask"].numpy()
    import keras

    network = keras.models.load_model(file, compile=False)
    return lambda pictures: fitted(pictures, lambda images: np.asarray(network(images)))


def fitted(pictures: Pictures, network: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """By a network that takes pixels of its own size and gives logits: what its user has to do."""
    _, height, width, _ = pictures.shape
    small = PIL.Image.fromarray(pictures[0]).resize((SIDE, SIDE), PIL.Image.Resampling.BILINEAR)
    logits = network(np.asarray(small, np.float32)[None])[0]
    for axis, side in enumerate((height, width)):
        place = (np.arange(side) + 0.5) * SIDE / side - 0.5
        before = np.floor(place).astype(int)
        first, second = (np.take(logits, np.clip(index, 0, SIDE - 1), axis) for index in (before, before + 1))
        share = (place - before).astype(np.float32)
        logits = first + (second - first) * (share[:, None, None] if axis == 0 else share[:, None])
    return logits.argmax(-1)[None]


def main(file: Path, pets: Path) -> None:
    assert not any(map(importlib.util.find_spec, ("trainer", "maskfleet", "launcher")))
    segment, matrix = masks_of(file), np.zeros((3, 3), int)
    for line in (pets / "annotations/test.txt").read_text().splitlines():
        name = line.split()[0]
        with PIL.Image.open(pets / f"images/{name}.jpg") as picture:
            mask = segment(np.asarray(picture.convert("RGB"))[None])[0]
        with PIL.Image.open(pets / f"annotations/trimaps/{name}.png") as trimap:
            truth = np.asarray(trimap) - 1
        matrix += np.bincount(3 * truth.ravel() + mask.ravel(), minlength=9).reshape(3, 3)
    print(json.dumps(matrix.tolist()))


main(Path(sys.argv[2]), Path(sys.argv[3]))
