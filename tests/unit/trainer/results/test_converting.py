"""Files of other runtimes say what the network says, in programs that know nothing of us."""

import dataclasses
import json
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from maskfleet.errors import BadInput, BadSettings
from maskfleet.image_size import Fit, Size
from trainer.data.source import Example, Split
from trainer.results.converting import Converted, check_packages, write_converted
from trainer.results.exported import load_exported
from trainer.results.exporting import Judges, export_formats
from trainer.results.in_graph import in_windows
from trainer.results.legend import Legend
from trainer.results.predict import Predictor, network_of
from trainer.results.trained import Trained

SIZE = Size(16, 24)
ALL: tuple[Converted, ...] = ("onnx", "openvino", "tflite-float32", "tflite-float16", "tflite-int8")
NAMES = {
    "onnx": "small.onnx", "openvino": "small.xml", "tflite-float32": "small-float32.tflite",
    "tflite-float16": "small-float16.tflite", "tflite-int8": "small-int8.tflite",
}  # fmt: skip
CALIBRATION = np.random.default_rng(0).integers(0, 256, (6, *SIZE, 3), dtype=np.uint8)


def pictures(height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (2, 6, 9, 3), dtype=np.uint8)
    return tf.image.resize(coarse, (height, width), "bicubic").numpy().clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Small, with what converters lack: bicubic enlarging, the mean of an image everywhere, GELU."""
    keras.utils.set_random_seed(0)
    pixels = keras.Input((*SIZE, 3), name="pixels")
    x = layers.Rescaling(1 / 127.5, -1)(pixels)
    x = layers.Conv2D(16, 3, strides=2, padding="same")(x)
    x = layers.Activation("gelu")(layers.BatchNormalization()(x))
    everywhere = layers.UpSampling2D((8, 12))(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.Concatenate()([x, everywhere]))
    head = keras.Model(pixels, layers.UpSampling2D(2, interpolation="bicubic")(x), name="features")
    return keras.Model(pixels, layers.Conv2D(3, 1)(head(pixels)), name="small")


@pytest.fixture(scope="module")
def written(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Fit], Path]:
    """The folder with files of all formats, of a network that sees pictures by a ``fit``."""
    folders: dict[str, Path] = {}

    def write(fit: Fit) -> Path:
        if fit not in folders:
            folders[fit] = tmp_path_factory.mktemp(fit)
            legend = dataclasses.replace(Legend.unnamed(3), fit=fit)
            formats = ALL if fit == "squash" else ALL[:2]
            list(export_formats(Trained(model, legend, None), folders[fit], formats, CALIBRATION, None))
        return folders[fit]

    return write


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_pictures_of_any_size_go_in_and_their_masks_come_out(
    kind: str, fit: Fit, model: keras.Model, written: Callable[[Fit], Path]
) -> None:
    exported = load_exported(written(fit) / NAMES[kind])
    assert (exported.size, exported.bands, exported.fit) == (SIZE, 3, fit)
    predictor = Predictor(network_of(model), SIZE, 3, padded=fit == "pad")
    for height, width in ((16, 24), (50, 41), (10, 90)):
        images = pictures(height, width)
        if fit == "crop":
            expected = in_windows(tf.constant(images), SIZE, lambda part: tf.argmax(model(part), -1), tf.int64, 3)
        else:
            expected = np.array(list(predictor.masks(list(images))))
        found = exported.masks_of(images)
        assert (found.dtype, found.shape) == (np.uint8, (2, height, width))
        assert len(np.unique(found)) > 1
        assert np.mean(found == expected) > 0.99


@pytest.mark.parametrize(("kind", "share"), [("tflite-float32", 0.999), ("tflite-float16", 0.99), ("tflite-int8", 0.9)])
def test_litert_takes_pixels_of_the_networks_size(
    kind: str, share: float, model: keras.Model, written: Callable[[Fit], Path]
) -> None:
    exported = load_exported(written("squash") / NAMES[kind])
    assert (exported.size, exported.bands) == (SIZE, 3)
    assert exported.network is not None
    expected = model(CALIBRATION).numpy().argmax(-1)
    assert np.mean(exported.masks_of(CALIBRATION) == expected) >= share


def test_fewer_bits_make_smaller_files(tmp_path: Path) -> None:
    wide = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(64, 3), layers.Conv2D(64, 5)], name="wide")
    images = CALIBRATION[:, :8, :8]
    sizes = [
        write_converted(wide, "squash", kind, tmp_path, images).stat().st_size
        for kind in ("tflite-float32", "tflite-float16", "tflite-int8")
    ]
    assert sizes[2] < 0.4 * sizes[0]
    assert sizes[1] < 0.6 * sizes[0]


PROGRAM = """
import sys
sys.path.append(sys.argv[1])  # where packages are; what is installed in place of them stays out
import importlib.util, json
from pathlib import Path
import numpy as np
assert not any(map(importlib.util.find_spec, ("trainer", "maskfleet", "launcher")))
folder, images = Path(sys.argv[2]), np.load("images.npy")
masks = {}
import onnxruntime
session = onnxruntime.InferenceSession(folder / "small.onnx")
(masks["onnx"],) = session.run(["mask"], {"images": images})
import openvino
compiled = openvino.compile_model(folder / "small.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
masks["openvino"] = compiled(images)["mask"]
from ai_edge_litert.interpreter import Interpreter
for kind in ("float32", "float16", "int8"):
    interpreter = Interpreter(str(folder / f"small-{kind}.tflite"))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images[:1].astype(np.float32))
    interpreter.invoke()
    masks[f"tflite-{kind}"] = interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).argmax(-1)
assert not {"tensorflow", "keras"} & sys.modules.keys()
np.savez("masks.npz", **masks)
"""


def test_a_program_needs_the_runtime_and_nothing_of_ours(written: Callable[[Fit], Path], tmp_path: Path) -> None:
    folder, images = written("squash"), pictures(*SIZE)
    np.save(tmp_path / "images.npy", images)
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, sysconfig.get_path("purelib"), str(folder)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    masks = np.load(tmp_path / "masks.npz")
    for kind in ALL:
        expected = load_exported(folder / NAMES[kind]).masks_of(images)
        np.testing.assert_array_equal(masks[kind], expected[: len(masks[kind])])


def test_files_are_held_against_the_network_by_class(model: keras.Model, tmp_path: Path) -> None:
    images = [pictures(40, 30)[0], pictures(20, 50)[1]]
    masks = list(Predictor(network_of(model), SIZE, 3).masks(images))
    judges = Judges("drawn", Split(("a", "b"), lambda i: Example(images[i], masks[i])))
    trained = Trained(model, Legend.unnamed(3), None)
    *lines, table = export_formats(trained, tmp_path / "out", ["keras", "onnx"], None, judges)
    names = ["classes.json", "export.json", "parity.json", "small.keras", "small.onnx"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    assert sorted(lines) == [f"wrote {tmp_path / 'out' / name}" for name in names]
    parity = json.loads((tmp_path / "out/parity.json").read_text())
    assert (parity["data"], parity["images"], parity["size"]) == ("drawn", 2, "own")
    checkpoint, same, other = parity["files"]
    assert [row["name"] for row in parity["files"]] == ["checkpoint", "small.keras", "small.onnx"]
    assert (checkpoint["miou"], same["same_pixels"], same["miou_difference"]) == (1, 1, 0)
    assert other["iou_difference"] == {name: value - 1 for name, value in other["iou"].items()}
    assert len(table.splitlines()) == 4 + 1 + 4
    assert other["same_pixels"] > 0.99


def test_what_a_format_lacks_is_one_line(tmp_path: Path) -> None:
    pixels = keras.Input((8, 8, 3))
    strange = keras.Model(pixels, keras.ops.erfinv(layers.Conv2D(3, 1)(pixels)), name="strange")
    for kind in ("tflite-float32", "onnx"):
        problem = rf"^--format {kind}: strange can't be converted: .*; choose another format$"
        with pytest.raises(BadSettings, match=problem) as raised:
            write_converted(strange, "squash", kind, tmp_path, None)
        assert "\n" not in str(raised.value)


def test_a_package_that_is_missing_is_named_with_its_extra() -> None:
    with pytest.raises(BadSettings, match=r"^--format x: needs no-such-thing, .*pip install 'maskfleet\[export\]'$"):
        check_packages("--format x", ["json", "no_such_thing"])


@pytest.mark.parametrize("suffix", ["onnx", "xml", "tflite"])
def test_a_file_that_is_no_network_is_one_line(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"net.{suffix}").write_bytes(b"<html>" + bytes(100))
    with pytest.raises(BadInput, match=rf"net\.{suffix}: expected a network that 'trainer export' wrote") as raised:
        load_exported(tmp_path / f"net.{suffix}")
    assert "\n" not in str(raised.value)


def test_a_file_of_another_export_is_refused(written: Callable[[Fit], Path], tmp_path: Path) -> None:
    for name in ("small.xml", "export.json", "classes.json"):
        (tmp_path / name).write_bytes((written("pad") / name).read_bytes())
    with pytest.raises(BadInput, match=r"small\.xml: is not of the export that .*small\.bin is missing"):
        load_exported(tmp_path / "small.xml")


def test_masks_need_the_classes_beside_them(written: Callable[[Fit], Path], tmp_path: Path) -> None:
    (tmp_path / "small.onnx").write_bytes((written("pad") / "small.onnx").read_bytes())
    with pytest.raises(BadInput, match=r"classes\.json: expected the classes and the input size of small\.onnx"):
        load_exported(tmp_path / "small.onnx")


def test_openvino_reports_nothing_to_its_makers() -> None:
    program = """
import sys
from trainer.results.converting import import_openvino
import_openvino().convert_model
assert "openvino.tools.ovc.telemetry_stub" in sys.modules
assert sys.modules["openvino_telemetry"] is None
"""
    subprocess.run([sys.executable, "-c", program], check=True)
