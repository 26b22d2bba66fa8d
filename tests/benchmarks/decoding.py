"""Pictures per second into the cache of the network's input, against tf.data and Grain over the same files.

Each decodes pictures and their masks, scales them to the network's size, and leaves them on the disk. tf.data does so
by its own cache in a file, on as many threads as it likes; Grain, where it is installed, by Pillow on threads, and what
it gives is written into arrays.
"""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import PIL.Image
import tensorflow as tf
from numpy.typing import NDArray

from maskfleet.image_size import Size
from tests.benchmarks.row import Row
from tests.benchmarks.turns import Way, in_own_process, medians
from tests.helpers.data_folders import write_list
from trainer.cgroup import cpu_limit
from trainer.data.array_files import ArrayFiles
from trainer.data.cache import cached
from trainer.data.opening import open_source

PICTURES = int(os.environ.get("MASKFLEET_BENCHMARK_PICTURES", "20000"))
SIZE, INPUT, TURNS = (480, 360), 224, 3


def rows() -> Iterable[Row]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        draw(folder / "set")
        make = {"ours": our_cache, "tf.data": tf_data_cache} | ({"Grain": grain_arrays} if find_spec("grain") else {})
        ways = {
            way: stack.enter_context(in_own_process(functools.partial(function, folder)))
            for way, function in make.items()
        }
        rates = {way: PICTURES / taken for way, taken in medians(ways, TURNS).items()}
        ours = rates.pop("ours")
        for way, rate in rates.items():
            note = f"{ours:.0f} against {rate:.0f} pictures/s of {SIZE[0]} x {SIZE[1]}, at {INPUT} pixels"
            yield Row(f"cache of the input, against {way}", ours / rate, "x", note)


def draw(folder: Path) -> None:
    """Pairs of a JPEG and a mask; few are drawn, and linked under many names."""
    random = np.random.default_rng(0)
    drawn = []
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number in range(min(PICTURES, 50)):
        small = random.integers(0, 256, (12, 16, 3), np.uint8)
        pixels = np.asarray(PIL.Image.fromarray(small).resize(SIZE, PIL.Image.Resampling.BICUBIC))
        noisy = (pixels + random.normal(0, 6, (SIZE[1], SIZE[0], 1))).clip(0, 255).astype(np.uint8)
        drawn.append((folder / f"{number}.jpg", folder / f"{number}.png"))
        PIL.Image.fromarray(noisy).save(drawn[-1][0], quality=90)
        PIL.Image.fromarray((pixels[..., 0] > 128).astype(np.uint8)).save(drawn[-1][1])
    names = [f"{number:06d}" for number in range(PICTURES)]
    for number, name in enumerate(names):
        image, mask = drawn[number % len(drawn)]
        (folder / "images" / f"{name}.jpg").hardlink_to(image)
        (folder / "masks" / f"{name}.png").hardlink_to(mask)
    for file in (file for pair in drawn for file in pair):
        file.unlink()
    write_list(folder / "classes.txt", ("ground", "thing"))
    write_list(folder / "train.txt", names[:-1])
    write_list(folder / "test.txt", names[-1:])


def our_cache(folder: Path) -> Way:
    source = open_source(f"folder:{folder / 'set'}", None)

    def run() -> None:
        shutil.rmtree(folder / "ours", ignore_errors=True)
        cached(source, INPUT, "the pictures", folder / "ours")

    return run


def tf_data_cache(folder: Path) -> Way:
    images, masks = files(folder)

    def read(image: tf.Tensor, mask: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        pixels = tf.io.decode_jpeg(tf.io.read_file(image), 3)
        pixels = tf.cast(tf.round(tf.image.resize(pixels, (INPUT, INPUT), antialias=True)), tf.uint8)
        labels = tf.io.decode_png(tf.io.read_file(mask), 1)
        return pixels, tf.image.resize(labels, (INPUT, INPUT), method="nearest")[..., 0]

    def run() -> None:
        shutil.rmtree(folder / "tf.data", ignore_errors=True)
        (folder / "tf.data").mkdir()
        data = tf.data.Dataset.from_tensor_slices((list(map(str, images)), list(map(str, masks))))
        data = data.map(read, num_parallel_calls=tf.data.AUTOTUNE).cache(str(folder / "tf.data" / "cache"))
        for _ in data.batch(64).prefetch(tf.data.AUTOTUNE):
            pass

    return run


def grain_arrays(folder: Path) -> Way:
    import grain

    pairs = list(zip(*files(folder), strict=True))

    def read(pair: tuple[Path, Path]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        image, mask = (PIL.Image.open(file) for file in pair)
        pixels = image.convert("RGB").resize((INPUT, INPUT), PIL.Image.Resampling.BILINEAR)
        return np.asarray(pixels), np.asarray(mask.resize((INPUT, INPUT), PIL.Image.Resampling.NEAREST))

    def run() -> None:
        shutil.rmtree(folder / "grain", ignore_errors=True)
        (folder / "grain").mkdir()
        options = grain.ReadOptions(num_threads=cpu_limit(), prefetch_buffer_size=64)
        with ArrayFiles(folder / "grain", "train", Size.of(INPUT), 3) as arrays:
            for image, mask in grain.MapDataset.source(pairs).map(read).to_iter_dataset(options):
                arrays.add(image, mask)

    return run


def files(folder: Path) -> tuple[list[Path], list[Path]]:
    return sorted((folder / "set" / "images").iterdir()), sorted((folder / "set" / "masks").iterdir())
