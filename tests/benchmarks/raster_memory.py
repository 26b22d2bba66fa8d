"""Resident memory of ``predict`` on rasters and photographs that are larger than what it may take.

Each runs in a process of its own, on a network whose time is next to none: what counts here is memory.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.benchmarks.row import Row

SIDE, CLASSES = 20_000, 20
PREDICT = """
import resource, sys
from pathlib import Path
import numpy as np
from maskfleet.image_size import Size
from trainer.results.legend import Legend
from trainer.results.predict import Predictor
from trainer.results.predict_files import predict_files

file, window, classes = Path(sys.argv[1]), sys.argv[2] == "window", int(sys.argv[3])
slopes = np.arange(classes, dtype=np.float32)
network = lambda images: images[..., :1] / np.float32(64) * slopes
predictor = Predictor(network, Size.of(512), classes, window=window, overlap=0.0)
((_, problem),) = predict_files(predictor, Legend.unnamed(classes), [file], file.parent / "out")
assert problem is None, problem
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
WRITE = """
import sys
import numpy as np
from pathlib import Path
from trainer.data.rasters import create

file, side = Path(sys.argv[1]), int(sys.argv[2])
part = np.random.default_rng(0).integers(0, 256, (3, 256, side), np.uint8)
with create(file, side, side, 3) as raster:
    for top in range(0, side, 256):
        raster.write(part[:, : min(256, side - top)], window=((top, min(top + 256, side)), (0, side)))
"""
PHOTOGRAPH = """
import sys
import numpy as np
import PIL.Image
part = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
picture = PIL.Image.fromarray(part).resize((int(sys.argv[2]), int(sys.argv[3])))
picture.save(sys.argv[1], **({"compress_level": 1} if sys.argv[1].endswith("png") else {}))
"""
PHOTOGRAPHS = (("x.jpg", 10_000, 6_000), ("x.jpg", 15_000, 11_900), ("x.png", 15_000, 11_900))


def rows() -> Iterable[Row]:
    with tempfile.TemporaryDirectory() as folder:
        raster = Path(folder) / "raster.tif"
        _python(WRITE, raster, SIDE)
        peak = _python(PREDICT, raster, "window", CLASSES)
        yield Row("predict --window, raster", peak, "GB", f"{SIDE} x {SIDE} pixels, {CLASSES} classes")
        raster.unlink()
        for name, width, height in PHOTOGRAPHS:
            file = Path(folder) / name
            _python(PHOTOGRAPH, file, width, height)
            peak = _python(PREDICT, file, "whole", 3)
            yield Row(f"predict, {file.suffix[1:].upper()}", peak, "GB", f"{width * height / 1e6:.0f} megapixels")


def _python(program: str, *arguments: object) -> float:
    """Runs it to its end; what it has printed last, in gigabytes where that are kilobytes."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout or 0) * 1024 / 1e9
