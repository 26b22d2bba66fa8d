"""TFLite files say what the network says."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskfleet.errors import BadSettings
from trainer.data.cache import Arrays, Dataset
from trainer.data.source import palette
from trainer.results.evaluation import masker
from trainer.results.exporting import export_formats
from trainer.results.legend import Legend
from trainer.results.tflite import Kind, convert, parity, parity_table, tflite_masker
from trainer.results.trained import Trained

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """As the real networks are made, but small: converting those takes minutes."""
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Rescaling(1 / 127.5, -1),
        keras.layers.Conv2D(64, 3, strides=2, padding="same"),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.Conv2D(64, 3, padding="same"),
        keras.layers.Conv2DTranspose(3, 3, strides=2, padding="same"),
    ]
    return keras.Sequential([keras.Input((32, 32, 3)), *layers])


@pytest.fixture(scope="module")
def files(model: keras.Model) -> dict[str, bytes]:
    return {kind: convert(model, kind, IMAGES) for kind in ("float32", "float16", "int8")}


def test_floats_give_the_networks_masks_and_int8_nearly(model: keras.Model, files: dict[str, bytes]) -> None:
    expected = masker(model)(IMAGES)
    assert len(np.unique(expected)) > 1
    for kind, share in (("float32", 0.999), ("float16", 0.99), ("int8", 0.9)):
        assert np.mean(tflite_masker(files[kind])(IMAGES) == expected) >= share, kind


@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_an_input_need_be_no_square(kind: Kind) -> None:
    small = keras.Sequential([keras.Input((16, 24, 3)), keras.layers.Conv2D(3, 1)])
    images = IMAGES[:, :16, :24]
    expected, found = masker(small)(images), tflite_masker(convert(small, kind, images))(images)
    assert found.shape == (6, 16, 24)
    assert np.mean(found == expected) >= (0.999 if kind == "float32" else 0.9)


def test_fewer_bits_make_smaller_files(files: dict[str, bytes]) -> None:
    assert len(files["int8"]) < 0.4 * len(files["float32"])
    assert len(files["float16"]) < 0.6 * len(files["float32"])


def test_parity_compares_each_file_with_the_network(model: keras.Model, files: dict[str, bytes]) -> None:
    split = Arrays(tuple("abcdef"), IMAGES, masker(model)(IMAGES))
    rows = parity(model, {"small-int8.tflite": files["int8"]}, split, Legend.unnamed(3))
    assert [row["name"] for row in rows] == ["keras", "small-int8.tflite"]
    assert (rows[0]["miou"], rows[0]["same_pixels"], rows[0]["miou_difference"]) == (1, 1, 0)
    assert rows[1]["miou"] == pytest.approx(1 + rows[1]["miou_difference"])
    assert 0.9 < rows[1]["same_pixels"] <= 1
    assert len(parity_table(rows).splitlines()) == 3


def test_int8_takes_bytes_as_they_are_whatever_the_calibration_shows(model: keras.Model) -> None:
    """Else a program that gives it an image's bytes would give it an image of other brightness."""
    content = convert(model, "int8", IMAGES // 3 + 20)
    (pixels,) = tf.lite.Interpreter(model_content=content).get_input_details()
    assert (pixels["dtype"], pixels["quantization"]) == (np.uint8, (1.0, 0))


def test_calibration_and_parity_see_the_whole_split(
    model: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = Arrays(tuple("abcdef"), IMAGES, np.zeros((6, 32, 32), np.uint8))
    dataset = Dataset("drawn", ("a", "b", "c"), palette(3), None, split, split, "fingerprint")
    seen: list[np.ndarray] = []
    monkeypatch.setattr("trainer.results.tflite.convert", lambda model, kind, images: seen.append(images) or b"")
    monkeypatch.setattr(
        "trainer.results.tflite.parity", lambda model, files, split, legend: seen.append(split.images) or []
    )
    list(export_formats(Trained(model, Legend.of(dataset), None), tmp_path, ["tflite-int8"], dataset, images=3))
    assert len(seen) == 2
    for images in seen:
        np.testing.assert_array_equal(images, IMAGES[[0, 2, 5]])


def test_exported_files_come_with_their_parity_and_nothing_else(model: keras.Model, tmp_path: Path) -> None:
    masks = masker(model)(IMAGES)
    split = Arrays(tuple("abcdef"), IMAGES, masks)
    dataset = Dataset("drawn", ("a", "b", "c"), palette(3), None, split, split, "fingerprint")
    trained = Trained(model, Legend.of(dataset), None)
    lines = list(export_formats(trained, tmp_path / "out", ["keras", "tflite-float16"], dataset, images=4))
    name = model.name
    names = ["classes.json", "export.json", "parity.json", f"{name}-float16.tflite", f"{name}.keras"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert sorted(lines[:5]) == [f"wrote {tmp_path / 'out' / name}" for name in sorted(names)]
    assert len(lines) == 6  # and the table
    parity = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert (parity["data"], parity["images"]) == ("drawn", 4)
    assert [row["name"] for row in parity["files"]] == ["keras", f"{name}-float16.tflite"]


def test_data_without_a_test_split_compares_on_its_validation_split(model: keras.Model, tmp_path: Path) -> None:
    split = Arrays(tuple("abcdef"), IMAGES, masker(model)(IMAGES))
    none = Arrays((), IMAGES[:0], split.masks[:0])
    dataset = Dataset("drawn", ("a", "b", "c"), palette(3), None, split, none, "fingerprint", split)
    list(export_formats(Trained(model, Legend.of(dataset), None), tmp_path / "out", ["tflite-float16"], dataset, 4))
    assert json.loads((tmp_path / "out" / "parity.json").read_text())["images"] == 4


def test_a_folder_that_can_not_be_written_is_one_line(model: keras.Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    trained = Trained(model, Legend.unnamed(3), None)
    with pytest.raises(BadSettings, match=r"--out .*file/out: can't be written: Not a directory"):
        list(export_formats(trained, tmp_path / "file" / "out", ["keras"], None, images=1))
