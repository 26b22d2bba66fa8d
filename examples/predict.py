"""Masks of images by the SavedModel of a run, which needs TensorFlow and nothing of this project.

python predict.py RUN MASKS IMAGE...
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image


def main(run: Path, out: Path, images: list[Path]) -> None:
    """Writes OUT/NAME.png for each image, at its own size, and prints the share of each class."""
    network = tf.saved_model.load(str(run / "export" / "saved_model")).signatures["serving_default"]
    legend = json.loads((run / "export" / "classes.json").read_text())
    out.mkdir(parents=True, exist_ok=True)
    for path in images:
        image = np.asarray(Image.open(path).convert("RGB"))
        # Images uint8 [batch, H, W, 3] -> mask uint8 [batch, H, W]. The signature "probabilities" gives those of all
        # classes, float32 [batch, H, W, classes], which of a photograph can be gigabytes.
        mask = network(images=tf.constant(image[np.newaxis]))["mask"][0].numpy()
        picture = Image.fromarray(mask)
        picture.putpalette(np.ravel(legend["colours"]).tolist())
        picture.save(out / f"{path.stem}.png")
        shares = np.bincount(mask.ravel(), minlength=len(legend["classes"])) / mask.size
        found = zip(legend["classes"], shares, strict=True)
        print(path.name, *(f"{name} {share:.1%}" for name, share in found), sep="  ")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
