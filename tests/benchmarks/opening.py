"""Opening annotations of 20,000 pictures: the first start, which parses them, against a later one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from maskfleet.environment import CACHE_VARIABLE
from tests.benchmarks.row import Row
from tests.helpers.data_folders import SIZE, picture, save

PICTURES = 20_000
SHAPES, POINTS = 7, 25
"""Of a picture and of a polygon, as many as COCO has."""
REST = 3.0
"""Seconds until files may be remembered, see trainer/data/remembered.py."""

OPEN = """
import sys, time
from trainer.data.opening import open_source
began = time.process_time()
source = open_source(sys.argv[1], None)
print(time.process_time() - began, len(source.train))
"""


def write_coco(folder: Path) -> None:
    random = np.random.default_rng(0)
    first = save(picture(), folder / "train2017" / "0.jpg")
    for number in range(1, PICTURES):
        os.link(first, first.with_name(f"{number}.jpg"))
    images = [{"id": i, "file_name": f"{i}.jpg", "width": SIZE[0], "height": SIZE[1]} for i in range(PICTURES)]
    annotations = [
        {"id": i, "image_id": i % PICTURES, "category_id": 1 + i % 80, "iscrowd": 0,
         "segmentation": [random.uniform(0, 30, 2 * POINTS).round(2).tolist()]}
        for i in range(PICTURES * SHAPES)
    ]  # fmt: skip
    categories = [{"id": i, "name": f"c{i}"} for i in range(1, 81)]
    file = folder / "annotations" / "instances_train2017.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def rows() -> Iterable[Row]:
    with tempfile.TemporaryDirectory() as place:
        folder, cache = Path(place, "coco"), Path(place, "cache")
        write_coco(folder)
        time.sleep(REST)
        seconds = []
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", OPEN, f"coco:{folder}"],
                capture_output=True,
                text=True,
                check=True,
                env={**os.environ, CACHE_VARIABLE: str(cache)},
            )
            seconds.append(float(done.stdout.split()[0]))
    yield Row(
        f"COCO of {PICTURES} pictures opened again, against the first time",
        seconds[1] / seconds[0],
        "x CPU",
        f"{seconds[0]:.1f} and {seconds[1]:.1f} CPU seconds",
    )
