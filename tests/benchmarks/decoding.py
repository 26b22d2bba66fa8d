"""Pictures per second into the cache of the network's input, against tf.data, TFDS and Grain over the same files.

Each decodes pictures and their masks, scales them to the network's size, and leaves them on the disk. tf.data does so
by its own cache in a file, on as many threads as it likes; TFDS first prepares a data set of the files, which tf.data
then reads likewise; Grain, where it is installed, by Pillow on threads, and what it gives is written into arrays.

Beside the clock stand the CPU seconds of each, which say more on a machine that others use too.
"""

from __future__ import annotations

import functools
import math
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
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
        make = {"ours": our_cache, "tf.data": tf_data_cache, "TFDS": tfds_cache}
        make |= {"Grain": grain_arrays} if find_spec("grain") else {}
        ways = {
            way: stack.enter_context(in_own_process(functools.partial(used, folder, function)))
            for way, function in make.items()
        }
        rates = {way: PICTURES / taken for way, taken in medians(ways, TURNS).items()}
        ours = rates.pop("ours")
        ours_used = cpu_of(folder, our_cache)
        for way, rate in rates.items():
            took = cpu_of(folder, make[way])
            note = f"{ours:.0f} against {rate:.0f} pictures/s of {SIZE[0]} x {SIZE[1]}, at {INPUT} pixels; CPU "
            note += f"{1e3 * ours_used:.1f} against {1e3 * took:.1f} ms a picture, {took / ours_used:.2f} times"
            yield Row(f"cache of the input, against {way}", ours / rate, "x", note)
        if "Grain" not in rates:
            yield Row("cache of the input, against Grain", math.nan, "x", "not run: Grain is not installed")


def used(folder: Path, make: Callable[[Path], Way]) -> Way:
    """The way that ``make`` makes; it notes the CPU seconds that each turn takes."""
    way = make(folder)

    def run() -> None:
        before = time.process_time()
        way()
        with (folder / f"{make.__name__}.txt").open("a") as notes:
            print(time.process_time() - before, file=notes)

    return run


def cpu_of(folder: Path, make: Callable[[Path], Way]) -> float:
    """Median CPU seconds of a picture, of all turns but the first."""
    turns = (folder / f"{make.__name__}.txt").read_text().split()
    return statistics.median(map(float, turns[1:])) / PICTURES


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
        pixels, labels = tf.io.decode_jpeg(tf.io.read_file(image), 3), tf.io.decode_png(tf.io.read_file(mask), 1)
        return scaled(pixels, labels)

    def run() -> None:
        data = tf.data.Dataset.from_tensor_slices((list(map(str, images)), list(map(str, masks))))
        fill(data.map(read, num_parallel_calls=tf.data.AUTOTUNE), folder / "tf.data")

    return run


def tfds_cache(folder: Path) -> Way:
    import tensorflow_datasets as tfds

    class Pairs(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[misc, call-arg]
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> tfds.core.DatasetInfo:
            image, mask = tfds.features.Image(encoding_format="jpeg"), tfds.features.Image(shape=(None, None, 1))
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(image=image, mask=mask))

        def _split_generators(self, dl_manager: object) -> dict[str, Iterable[tuple[int, dict[str, Path]]]]:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterable[tuple[int, dict[str, Path]]]:
            for i, (image, mask) in enumerate(zip(*files(folder), strict=True)):
                yield i, {"image": image, "mask": mask}

    tfds.disable_progress_bar()

    def run() -> None:
        shutil.rmtree(folder / "prepared", ignore_errors=True)
        builder = Pairs(data_dir=folder / "prepared")
        builder.download_and_prepare()
        data = builder.as_dataset(split="train")
        fill(data.map(lambda pair: scaled(pair["image"], pair["mask"]), tf.data.AUTOTUNE), folder / "TFDS")

    return run


def scaled(pixels: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    pixels = tf.cast(tf.round(tf.image.resize(pixels, (INPUT, INPUT), antialias=True)), tf.uint8)
    return pixels, tf.image.resize(labels, (INPUT, INPUT), method="nearest")[..., 0]


def fill(data: tf.data.Dataset, folder: Path) -> None:
    """Leaves all of ``data`` in a new ``folder``."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for _ in data.cache(str(folder / "cache")).batch(64).prefetch(tf.data.AUTOTUNE):
        pass


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
