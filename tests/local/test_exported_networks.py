"""Every network's files give what the network gives, to programs that know nothing of this project."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from maskfleet.config import TrainConfig
from tests.helpers.processes import trainer
from tests.helpers.shared import shared
from trainer.models.network import build_network
from trainer.objective.metrics import Scores
from trainer.results.converting import PACKAGES
from trainer.results.exported import load_exported
from trainer.results.exporting import PLAIN, export, export_formats
from trainer.results.legend import Legend
from trainer.results.trained import Trained

READER = """
import sys, keras, numpy as np, tensorflow as tf
folder, name = sys.argv[1:]
images, logits = np.load(f"{folder}/images.npy"), np.load(f"{folder}/logits.npy")
for suffix in ("keras", "h5"):
    found = keras.models.load_model(f"{folder}/export/{name}.{suffix}", compile=False)(images)
    np.testing.assert_allclose(found, logits, atol=1e-4)
masks = tf.saved_model.load(f"{folder}/export/saved_model").signatures["serving_default"](images=images)["mask"]
assert (masks == np.argmax(logits, -1)).numpy().mean() > 0.999
assert "trainer" not in sys.modules
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "encoder"),
    [
        ("deeplabv3plus", "mobilenet_v2"),
        ("lraspp", "mobilenet_v2"),
        ("pspnet", "efficientnet_v2_b0"),
        ("segformer", "mit_b0"),
    ],
)
def test_files_of_every_network_are_read_elsewhere(model: str, encoder: str, tmp_path: Path) -> None:
    settings = {"encoder_weights": "none", "image_size": "64x96"}
    network = build_network(TrainConfig(model=model, encoder=encoder, **settings), classes=3).model
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    export(network, tmp_path / "export", Legend.unnamed(3))
    np.save(tmp_path / "images.npy", images)
    np.save(tmp_path / "logits.npy", network(tf.constant(images), training=False))
    command = [sys.executable, "-I", "-c", READER, str(tmp_path), model]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    ("model", "encoder", "upsampling"),
    [
        ("unet", "mobilenet_v2", "bicubic"),
        ("fcn8s", "resnet50", "transposed"),
        ("deeplabv3plus", "mobilenet_v2", "transposed"),
        ("lraspp", "mobilenet_v3", "transposed"),
        ("pspnet", "efficientnet_v2_b0", "transposed"),
        ("segformer", "mit_b0", "transposed"),
    ],
)
def test_every_network_is_written_for_every_runtime(model: str, encoder: str, upsampling: str, tmp_path: Path) -> None:
    settings = {"encoder": encoder, "upsampling": upsampling, "encoder_weights": "none", "image_size": "64x96"}
    network = build_network(TrainConfig(model=model, **settings), classes=3).model
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 96, 3), dtype=np.uint8)
    expected = network(tf.constant(images), training=False).numpy().argmax(-1)
    list(export_formats(Trained(network, Legend.unnamed(3), None), tmp_path, list(PACKAGES), images, None))
    for name in ("onnx", "xml", "float32.tflite", "float16.tflite", "int8.tflite"):
        (file,) = tmp_path.glob(f"{model}*{name}")
        found = load_exported(file).masks_of(images)
        assert found.shape == expected.shape
        if "16" not in name and "8" not in name:  # logits of an untrained network are too small for half of the bits
            assert np.mean(found == expected) > 0.99, name


@pytest.mark.long
@pytest.mark.shared_data
def test_the_files_of_a_trained_network_are_as_good_elsewhere(tmp_path: Path) -> None:
    pets, weights = shared("data", "oxford_iiit_pet"), next(shared("data", "weights").glob("mobilenet_v2_*.h5"))
    run, out = tmp_path / "run", tmp_path / "out"
    settings = (f"--data=folder:{pets}", f"--encoder-weights={weights}", "--epochs=8", "--no-export")
    for command in (
        ("train", f"--run-dir={run}", *settings),
        ("export", str(run), f"--out={out}", "--images=298", *(f"--format={name}" for name in (*PLAIN, *PACKAGES))),
    ):
        done = trainer(*command, timeout=3000)
        assert done.returncode == 0, done.stderr
    checkpoint, *rows = json.loads((out / "parity.json").read_text())["files"]
    assert len(rows) == 8
    program = Path(__file__).parents[1] / "helpers/score_elsewhere.py"
    for row in rows:
        arguments = [sysconfig.get_path("purelib"), out / row["name"], pets]
        done = subprocess.run(
            [sys.executable, "-I", "-S", program, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        elsewhere = Scores(np.array(json.loads(done.stdout)), tuple(row["iou"])).miou
        most = 0.01 if "int8" in row["name"] else 0.0005
        assert elsewhere == pytest.approx(checkpoint["miou"], abs=most), row["name"]
        assert abs(row["miou_difference"]) <= most, row["name"]
