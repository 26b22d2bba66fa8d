"""Exported files give what the network gives."""

import contextlib
import dataclasses
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from maskfleet.config import TrainConfig
from maskfleet.errors import BadSettings, TrainingFailed
from maskfleet.export_manifest import ExportManifest
from maskfleet.files import FileDigest
from maskfleet.image_size import Fit, Size
from trainer.data.windows import windows
from trainer.models.network import Network, build_network
from trainer.results.enlarging import enlarged_masks
from trainer.results.exporting import _staged, export, export_formats
from trainer.results.in_graph import in_windows, scaled, scaled_in_bands
from trainer.results.legend import Legend
from trainer.results.predict import Predictor, network_of
from trainer.results.trained import Trained, load_trained

NAMES = ["classes.json", "export.json", "saved_model", "unet.h5", "unet.keras"]


@pytest.fixture(scope="module")
def network() -> Network:
    return build_network(TrainConfig(encoder_weights="none", image_size=32), classes=3)


@pytest.fixture(scope="module")
def folder(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "export"
    export(network.model, folder, Legend.unnamed(3))
    return folder


def images(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)


def test_only_the_exports_are_left(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    assert [path.name for path in folder.parent.iterdir()] == ["export"]


@pytest.mark.parametrize("name", ["unet.keras", "unet.h5"])
def test_keras_files_give_the_same_logits(name: str, network: Network, folder: Path) -> None:
    model = keras.models.load_model(folder / name)
    np.testing.assert_array_equal(model(images(32, 32)), network.model(images(32, 32)))


def test_an_hdf5_file_loads_what_its_reader_would_take_for_layers(tmp_path: Path) -> None:
    """MobileNetV3 adds a number, which is not the layer of that name, and ResNet50 turns the colours round."""
    pixels = keras.Input((8, 8, 3))
    half = keras.layers.ReLU(6.0)(keras.ops.flip(pixels, axis=-1) + 3.0) * (1 / 6)
    encoder = keras.Model(pixels, keras.layers.Conv2D(4, 1)(half), name="encoder")
    model = keras.Model(pixels, keras.layers.Conv2D(3, 1)(encoder(pixels)), name="small")
    export(model, tmp_path, Legend.unnamed(3))
    loaded = load_trained(tmp_path / "small.h5").model
    np.testing.assert_array_equal(loaded(images(8, 8)), model(images(8, 8)))


def test_the_saved_model_takes_bytes_of_any_size_and_gives_masks_of_that_size(network: Network, folder: Path) -> None:
    signatures = tf.saved_model.load(str(folder / "saved_model")).signatures
    same_size = images(32, 32)
    mask = signatures["serving_default"](images=tf.constant(same_size))["mask"]
    assert mask.dtype == tf.uint8
    np.testing.assert_array_equal(mask, np.argmax(network.model(same_size), axis=-1))
    other = tf.constant(images(50, 81))
    probabilities = signatures["probabilities"](images=other)["probabilities"]
    assert probabilities.shape == (2, 50, 81, 3)
    np.testing.assert_allclose(tf.reduce_sum(probabilities, -1), 1, rtol=1e-5)
    np.testing.assert_array_equal(signatures["serving_default"](images=other)["mask"], tf.argmax(probabilities, -1))


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_the_saved_model_prepares_images_as_training_did(fit: Fit, tmp_path: Path) -> None:
    """With a network that looks at each pixel alone, and an input that is no square."""
    small = keras.Sequential([keras.Input((32, 48, 3)), keras.layers.Conv2D(3, 1)], name="small")
    legend = dataclasses.replace(Legend.unnamed(3), fit=fit)
    export(small, tmp_path, legend)
    trained = load_trained(tmp_path / "small.keras")
    assert (trained.fit, trained.size) == (fit, (32, 48))
    signatures = tf.saved_model.load(str(tmp_path / "saved_model")).signatures
    predictor = Predictor(network_of(small), Size(32, 48), 3, window=fit == "crop", padded=fit == "pad")
    for height, width in ((32, 48), (50, 81), (20, 30), (90, 40), (100, 300)):
        pixels = tf.image.resize(images(6, 9), (height, width), "bicubic").numpy().clip(0, 255).astype(np.uint8)
        masks = signatures["serving_default"](images=tf.constant(pixels))["mask"].numpy()
        found = signatures["probabilities"](images=tf.constant(pixels))["probabilities"].numpy()
        assert masks.shape == (2, height, width)
        np.testing.assert_array_equal(masks, found.argmax(-1))
        for mask, tiles in zip(masks, predictor.tiles(list(pixels)), strict=True):
            expected = np.empty_like(mask)
            for tile in tiles:
                expected[tile.rows, tile.columns] = tile.scores.argmax(-1)
            assert np.mean(mask == expected) > (0.999 if fit == "crop" else 0.95)


@pytest.mark.parametrize(("height", "width"), [(8, 12), (20, 50), (5, 7), (9, 100), (40, 12)])
def test_windows_in_a_saved_model_are_those_of_validation(height: int, width: int) -> None:
    size = Size(8, 12)
    place = tf.reshape(tf.range(96, dtype=tf.float32), (1, 8, 12, 1))  # of a pixel in its window
    found = in_windows(tf.zeros((2, height, width, 3)), size, lambda part: tf.repeat(place, 2, axis=0), tf.float32, 4)
    expected = np.zeros((height, width))
    for window in windows(Size(height, width), size):
        own = window.own_rows, window.own_columns
        expected[window.rows, window.columns][own] = place.numpy()[0, ..., 0][own]
    np.testing.assert_array_equal(found[..., 0], [expected, expected])


def test_masks_are_enlarged_in_strips_to_the_bit_what_they_are_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.results.enlarging.PART", 1000)
    found = np.random.default_rng(0).random((2, 24, 24, 7), np.float32)
    for height, width in ((24, 24), (90, 41), (5, 300), (1, 1), (13, 9)):
        expected = tf.argmax(tf.image.resize(found, (height, width)), -1)
        np.testing.assert_array_equal(enlarged_masks(tf.constant(found), height, width), expected)


def test_the_masks_of_a_saved_model_take_little_memory(tmp_path: Path) -> None:
    """3 megapixels and 150 classes are 1.8 GB."""
    small = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(150, 1)], name="small")
    export(small, tmp_path, Legend.unnamed(150))
    program = (
        "import resource, sys, tensorflow as tf; peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; "
        "network = tf.saved_model.load(sys.argv[1]).signatures['serving_default']; before = peak(); "
        "assert network(images=tf.zeros((1, 1500, 2000, 3), tf.uint8))['mask'].shape == (1, 1500, 2000); "
        "print(peak() - before)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "saved_model")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 350_000, "KiB"


def test_the_working_directory_may_be_written_to(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    export(network.model, Path(), Legend.unnamed(3))
    assert (tmp_path / "here" / "unet.keras").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_the_folder_may_be_another_file_system(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def across(move: Callable[[Any, Any], None], source: Any, target: Any) -> None:
        if Path(target).parent == out:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        move(source, target)

    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, partial(across, getattr(os, name)))
    for _ in range(2):
        export(network.model, out, Legend.unnamed(3))
    assert sorted(path.name for path in out.iterdir()) == NAMES


def put(folder: Path, text: str) -> None:
    """An export of small files."""
    with _staged(folder) as staging:
        for name in ("classes.json", "net.h5", "net.keras", "saved_model/variables/v", "saved_model/graph.pb"):
            (staging.path / name).parent.mkdir(parents=True, exist_ok=True)
            (staging.path / name).write_text(text)


@pytest.mark.parametrize("moves", range(8))
def test_a_mixture_that_a_kill_leaves_is_known_for_one(
    moves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    put(out, "old")
    (out / "users.txt").write_text("mine")
    left = iter(range(moves))

    def killed(source: Path, target: Path) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        move(source, target)

    move = shutil.move
    monkeypatch.setattr(shutil, "move", killed)
    with contextlib.suppress(KeyboardInterrupt):
        put(out, "new")
    monkeypatch.undo()
    files = [path for path in out.rglob("*") if path.is_file() and path.name not in ("export.json", "users.txt")]
    found = {path.relative_to(out).as_posix(): FileDigest.of(path) for path in files}
    manifest = ExportManifest.read(out)
    assert manifest is not None
    whole = manifest.problem({name: found.get(name) for name in manifest.files}) is None
    assert whole == (len(found) == 5 and len({path.read_text() for path in files}) == 1 and moves in (0, 7, 6))
    put(out, "newer")
    assert {path.read_text() for path in out.rglob("*") if path.is_file() and path.name != "export.json"} == {
        "newer", "mine",
    }  # fmt: skip


def test_a_folder_that_can_not_be_written_is_one_line(network: Network, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingFailed, match="could not be exported"):
        export(network.model, tmp_path / "file" / "export", Legend.unnamed(3))


@pytest.mark.parametrize("step", ["_save_h5", "_save_saved_model", "write_json"])
def test_an_export_that_fails_changes_nothing(
    step: str, network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export(network.model, out, Legend.unnamed(3))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(f"trainer.results.exporting.{step}", full)
    with pytest.raises(TrainingFailed, match="No space left"):
        export(network.model, out, Legend.unnamed(3))
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    with pytest.raises(TrainingFailed, match="No space left"):
        export(network.model, tmp_path / "new", Legend.unnamed(3))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_is_refused_before_anything_is_computed(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("trainer.results.exporting._write_plain", None)
    trained = Trained(network.model, Legend.unnamed(3), None)
    with pytest.raises(BadSettings, match=r"can't be written: Not a directory"):
        list(export_formats(trained, tmp_path / "file/x", ["keras"], None, None))


def test_a_network_that_has_to_know_its_sides_is_exported_with_what_fills_them(tmp_path: Path) -> None:
    network = build_network(TrainConfig(model="pspnet", encoder_weights="none", image_size=32), classes=3)
    export(network.model, tmp_path, dataclasses.replace(Legend.unnamed(3), fit="pad"))
    signatures = tf.saved_model.load(str(tmp_path / "saved_model")).signatures
    assert signatures["serving_default"](images=tf.constant(images(50, 81)))["mask"].shape == (2, 50, 81)


def test_a_tall_picture_is_scaled_the_same_some_rows_at_a_time() -> None:
    tall = images(600, 40)
    size = tf.constant((32, 24))
    np.testing.assert_array_equal(scaled_in_bands(tall, size), scaled(tf.cast(tall, tf.float32), size))
