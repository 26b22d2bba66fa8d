"""Forty pictures of another animal with two classes: from a network of cats, against from ImageNet's weights.

Both take the same steps of the same network, so the same seconds, and are scored on all test pictures of the animal,
which the network of cats has not seen either.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import yaml

from tests.benchmarks.row import Row
from tests.helpers.processes import LocalRun
from tests.helpers.shared import shared

CATS, DOGS = ("Abyssinian", "Bengal"), ("american_bulldog",)
PICTURES = 40
SEEDS = (0, 1, 2)
EPOCHS = 7
BUDGETS = (1, 3, EPOCHS)
"""Epochs after which both are compared: ten steps each."""
SIZE = int(os.environ.get("FINE_TUNING_SIZE", "224"))
"""Of the input, pixels: less on a machine that has other things to do."""
PET_BACKGROUND_BORDER = ((1, 2, 3), ("pet", "background", "border"))
DOG_BACKGROUND = ((1, 2), ("dog", "background"))
"""Values of a trimap in the order of the classes; others are ignored."""
IGNORED = 255
"""What no class has in a mask."""


def rows() -> Iterable[Row]:
    pets, weights = shared("data", "oxford_iiit_pet"), shared("data", "weights")
    (file,) = weights.glob("*.h5")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cats = write_data(folder / "cats", pets, CATS, 10**6, *PET_BACKGROUND_BORDER)
        dogs = write_data(folder / "dogs", pets, DOGS, PICTURES, *DOG_BACKGROUND)
        imagenet = f"--encoder-weights={file}"
        train(folder / "run-cats", cats, imagenet)
        starts = {"ImageNet's weights": imagenet, "a network of cats": f"--start-from={folder / 'run-cats'}"}
        found: dict[str, list[list[float]]] = {start: [] for start in starts}
        seconds: dict[str, list[float]] = {start: [] for start in starts}
        for seed in SEEDS:
            for number, (start, setting) in enumerate(starts.items()):
                scores, took = train(folder / f"run-{seed}-{number}", dogs, setting, f"--seed={seed}")
                found[start].append(scores)
                seconds[start].append(took)
    theirs, ours = found.values()
    for epoch in BUDGETS:
        for start, runs in found.items():
            each = [scores[epoch - 1] for scores in runs]
            took = statistics.median(seconds[start]) * epoch / EPOCHS
            note = f"{', '.join(f'{score:.4f}' for score in each)}; {took:.0f} s each"
            yield Row(f"mIoU of {PICTURES} dogs after {epoch} epoch(s) from {start}", statistics.mean(each), "", note)
        worst = min(b[epoch - 1] - a[epoch - 1] for a, b in zip(theirs, ours, strict=True))
        note = "the smallest of the seeds, at equal steps; over 0 is wanted"
        yield Row(f"gain of the network of cats after {epoch} epoch(s)", worst, "mIoU", note)


def train(path: Path, data: Path, *settings: str) -> tuple[list[float], float]:
    """mIoU on the test split after each epoch, and seconds of training."""
    common = (f"--data={data}", f"--image-size={SIZE}", f"--epochs={EPOCHS}", "--no-export")
    with LocalRun(path, f"--run-dir={path}", "--", *common, *settings) as run:
        assert run.wait() == 0, run.output.read_text()
    epochs = [json.loads(line) for line in run.directory.metrics.read_text().splitlines()]
    return [epoch["miou"] for epoch in epochs], epochs[-1]["training_seconds"]


def write_data(
    folder: Path, pets: Path, breeds: Sequence[str], most: int, values: Sequence[int], classes: Sequence[str]
) -> Path:
    """At most ``most`` training pictures of the breeds and all test pictures, as a data file."""
    for part, split in (("trainval", "train"), ("test", "test")):
        listed = [line.split()[0] for line in (pets / "annotations" / f"{part}.txt").read_text().splitlines()]
        names = [name for name in listed if name.rpartition("_")[0] in breeds]
        for kind in ("images", "masks"):
            (folder / kind / split).mkdir(parents=True)
        for name in names[:most] if split == "train" else names:
            trimap = np.asarray(PIL.Image.open(pets / "annotations" / "trimaps" / f"{name}.png"))
            table = np.full(256, IGNORED, np.uint8)
            table[list(values)] = range(len(values))
            PIL.Image.fromarray(table[trimap]).save(folder / "masks" / split / f"{name}.png")
            (folder / "images" / split / f"{name}.jpg").symlink_to(pets / "images" / f"{name}.jpg")
    file = folder / "data.yaml"
    file.write_text(yaml.safe_dump({"train": "images/train", "test": "images/test", "names": list(classes)}))
    return file
