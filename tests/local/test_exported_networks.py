"""Every network's files give what the network gives, to programs that know nothing of this project."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from maskfleet.config import TrainConfig
from trainer.models.network import build_network
from trainer.results.exporting import export
from trainer.results.legend import Legend

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
