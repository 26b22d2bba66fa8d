"""Exported files that another runtime than Keras computes: SavedModel, ONNX, OpenVINO, LiteRT."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskfleet.errors import BadInput
from maskfleet.export_manifest import EXPORT_FILE, ExportManifest
from maskfleet.files import FileDigest
from maskfleet.foreign_files import parse_json, read_text
from maskfleet.image_size import Fit, Size
from maskfleet.run_directory import LEGEND
from maskfleet.text import one_line
from trainer.cgroup import cpu_limit
from trainer.results.converting import PACKAGES, check_packages, import_openvino
from trainer.results.evaluation import Masker
from trainer.results.legend import Legend
from trainer.results.own_size import Segmenter
from trainer.results.predict import Image, Network, Predictor

_PACKAGES = {".onnx": PACKAGES["onnx"][1:2], ".xml": PACKAGES["openvino"], ".tflite": PACKAGES["tflite-float32"]}


@dataclass(frozen=True)
class Exported:
    """A network in a file, computed by the file's own runtime.

    Attributes:
        size: of the network's input.
        bands: of the pictures.
        masks_of: images uint8 [b, H, W, bands] -> class indices uint8 [b, H, W], of any size if there is no ``network``
            and else of ``size``.
        network: of a file that takes images of its own size alone, what gives the logits of them.
    """

    legend: Legend
    size: Size
    bands: int
    masks_of: Masker
    network: Network | None = None
    config: None = None

    @property
    def fit(self) -> Fit:
        """How pictures become its input."""
        return self.legend.fit

    def segmenter(self, **choices: Any) -> Segmenter:
        """For pictures of any size; ``choices``, further attributes of a Predictor, count for a ``network`` alone."""
        if self.network is None:
            return WholePictures(self.masks_of)
        return Predictor.fitted(self.fit, self.network, self.size, len(self.legend.classes), **choices)


@dataclass(frozen=True)
class WholePictures:
    """Masks of pictures by a function that prepares them itself."""

    masks_of: Masker
    batch_size: int = 1
    images_at_once: int = 1

    def masks(self, images: Sequence[Image]) -> Iterator[NDArray[np.uint8]]:
        """As :meth:`Segmenter.masks`."""
        return (self.masks_of(np.ascontiguousarray(image)[None])[0] for image in images)


def load_exported(place: Path) -> Exported:
    """Opens a ``.onnx``, ``.xml`` or ``.tflite`` file, or a SavedModel's folder.

    Raises:
        BadSettings: its runtime is not installed.
        BadInput: it is damaged, of an interrupted export, or none that 'trainer export' wrote.
    """
    check_packages(str(place), _PACKAGES.get(place.suffix, ()))
    _check_whole(place)
    opened = {".onnx": _onnx, ".xml": _openvino, ".tflite": _litert}.get(place.suffix, _saved_model)
    try:
        return opened(place)
    except BadInput:
        raise
    except Exception as error:  # each runtime raises what it likes of a file that is none of its own
        raise BadInput(
            f"{place}: expected a network that 'trainer export' wrote: {one_line(str(error)) or type(error).__name__}"
        ) from error


def _check_whole(place: Path) -> None:
    manifest = ExportManifest.read(place.absolute().parent)
    if manifest is None:
        return
    names = [name for name in manifest.files if name == place.name or name.startswith(f"{place.name}/")]
    names += [name for name in manifest.files if place.suffix == ".xml" and name == f"{place.stem}.bin"]
    found = {name: _digest(place.absolute().parent / name) for name in names}
    if problem := manifest.problem(found):
        raise BadInput(
            f"{place}: is not of the export that {EXPORT_FILE} beside it names ({problem}): it was interrupted, or the "
            f"file changed; run 'trainer export' again, or delete {EXPORT_FILE}"
        )


def _digest(file: Path) -> FileDigest | None:
    with contextlib.suppress(OSError):
        return FileDigest.of(file)
    return None


def _pictures(place: Path, shape: Sequence[Any], masks_of: Masker) -> Exported:
    """Of a network that takes images of any size, whose own is beside it."""
    beside = place.absolute().parent / LEGEND
    try:
        size = Size(*map(int, parse_json(read_text(beside))["size"]))
    except (OSError, BadInput, ValueError, KeyError, TypeError) as error:
        raise BadInput(
            f"{beside}: expected the classes and the input size of {place.name}, as 'trainer export' wrote them: "
            f"{type(error).__name__}: {one_line(str(error))}"
        ) from error
    *_, bands = shape
    return Exported(Legend.read(beside), size, int(bands), masks_of)


def _onnx(file: Path) -> Exported:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpu_limit()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    return _pictures(file, images.shape, lambda pixels: np.asarray(session.run(["mask"], {images.name: pixels})[0]))


def _openvino(file: Path) -> Exported:
    openvino = import_openvino()
    # In float32: on processors that multiply bfloat16 it takes that unless it is told not to.
    wanted = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": cpu_limit()}
    compiled = openvino.Core().compile_model(file, "CPU", wanted)
    shape = [None if side.is_dynamic else side.get_length() for side in compiled.input(0).partial_shape]
    return _pictures(file, shape, lambda pixels: np.array(compiled(pixels)["mask"]))


def _saved_model(folder: Path) -> Exported:
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))
    masks = loaded.signatures["serving_default"]
    shape = masks.structured_input_signature[1]["images"].shape
    exported = _pictures(folder, shape, lambda pixels: masks(images=tf.constant(pixels))["mask"].numpy())
    masks.network = loaded  # which else would be gone, with its variables
    return exported


def _litert(file: Path) -> Exported:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(file), num_threads=cpu_limit())
    interpreter.allocate_tensors()
    (pixels,), (scores,) = interpreter.get_input_details(), interpreter.get_output_details()
    _, height, width, bands = map(int, pixels["shape"])
    classes = int(scores["shape"][-1])
    if pixels["dtype"] != np.float32 or scores["dtype"] != np.float32:
        raise BadInput(f"{file}: expected pixels and logits of float32, as 'trainer export' writes them")

    def network(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        logits = []
        for image in images:
            interpreter.set_tensor(pixels["index"], image[None].astype(np.float32))
            interpreter.invoke()
            logits.append(interpreter.get_tensor(scores["index"])[0])
        return np.array(logits)

    beside = file.with_name(LEGEND)
    legend = Legend.read(beside) if beside.is_file() else Legend.unnamed(classes)
    if len(legend.classes) != classes:
        raise BadInput(f"{beside}: expected the {classes} classes of {file.name}, found {len(legend.classes)}")
    return Exported(
        legend, Size(height, width), bands, lambda images: network(images).argmax(-1).astype(np.uint8), network
    )
