"""Photographs per second of ``trainer predict``, against a loop over plain Keras and over ONNX Runtime; and of scoring.

Each decodes all photographs of a folder, computes them in float32, enlarges what is found to each one's size, and
writes a mask with a palette and an overlay. The two loops are what somebody writes who knows the libraries: files are
decoded ahead by several threads, and computed in batches.
"""

from __future__ import annotations

import functools
import itertools
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import keras
import numpy as np
import PIL.Image
import tensorflow as tf
from numpy.typing import NDArray

from maskfleet.config import TrainConfig
from tests.benchmarks.row import Row
from tests.benchmarks.turns import Way, in_own_process, medians
from tests.helpers.street import CLASSES, street, write_street
from tests.helpers.training_steps import losses, set_up
from trainer.cgroup import cpu_limit
from trainer.data.cache import Dataset, load_dataset
from trainer.data.source import palette
from trainer.results.evaluation import evaluate, masker
from trainer.results.exporting import export_formats
from trainer.results.legend import Legend
from trainer.results.trained import Trained, load_trained

PHOTOGRAPHS = int(os.environ.get("MASKFLEET_BENCHMARK_PHOTOGRAPHS", "2000"))
TURNS = 3
SIZE = (640, 480)
SCORED, STEPS = 128, 60
"""Images that are scored; and of training, so that masks have areas as those of a trained network have."""
KERAS_BATCH = 32
"""That of Keras's own ``predict``, unless it is told another."""
COLOURS = palette(len(CLASSES))
Mask = NDArray[np.uint8]


def rows() -> Iterable[Row]:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        draw_photographs(folder / "photographs")
        train(folder)
        ways = {
            way.__name__: stack.enter_context(in_own_process(functools.partial(way, folder)))
            for way in (trainer_predict, keras_loop, keras_masks_alone, onnx_loop)
        }
        rates = {way: PHOTOGRAPHS / taken for way, taken in medians(ways, TURNS).items()}
        yield Row("trainer predict", rates["trainer_predict"], "images/s", "mask and overlay, 640 x 480")
        for way, what in (
            ("keras_loop", "a plain Keras loop that writes the same"),
            ("keras_masks_alone", "a plain Keras loop that writes no overlay"),
            ("onnx_loop", "ONNX Runtime on the exported file, which writes the same"),
        ):
            note = f"{rates[way]:.1f} images/s; {same_pixels(folder, way):.5f} of the masks' pixels are the same"
            yield Row(f"trainer predict, against {what}", rates["trainer_predict"] / rates[way], "x", note)
        pair = {
            way.__name__: stack.enter_context(in_own_process(functools.partial(way, folder)))
            for way in (trainer_evaluate, keras_evaluate)
        }
        seconds = medians(pair, TURNS)
        ratio = seconds["keras_evaluate"] / seconds["trainer_evaluate"]
        note = f"{SCORED / seconds['trainer_evaluate']:.1f} images/s of 224 pixels; Keras has loss and mean IoU alone"
        yield Row("trainer evaluate --size network, against Keras's evaluate", ratio, "x", note)


def draw_photographs(folder: Path) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    scenes = [PIL.Image.fromarray(street(random)[0]).resize(SIZE) for _ in range(min(PHOTOGRAPHS, 50))]
    for number, scene in zip(range(PHOTOGRAPHS), itertools.cycle(scenes)):
        noise = random.normal(0, 6, (SIZE[1], SIZE[0], 1))
        pixels = (np.asarray(scene) + noise).clip(0, 255).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(folder / f"{number:05d}.jpg", quality=90)


def train(folder: Path) -> None:
    """A network of the default's settings, in float32, as Keras and ONNX files."""
    write_street(folder / "street", 40, SCORED)
    dataset = street_arrays(folder)
    training = set_up(TrainConfig(encoder_weights="none", image_size=224), dataset)
    for _ in itertools.islice(losses(training), STEPS):
        pass
    trained = Trained(training.network.model, Legend(dataset.classes, COLOURS, None), None)
    for _ in export_formats(trained, folder / "export", ("keras", "onnx"), None, None):
        pass


def photographs(folder: Path) -> list[Path]:
    return sorted((folder / "photographs").iterdir())


def trainer_predict(folder: Path) -> Way:
    from trainer.commands.networks import predictor_of
    from trainer.results.predict_files import find_images, predict_files

    trained = load_trained(folder / "export" / "unet.keras")
    predictor = predictor_of(trained, 8, {})

    def run() -> None:
        out = folder / "trainer_predict"
        files = find_images([str(folder / "photographs")], out)
        assert all(problem is None for _, problem in predict_files(predictor, trained.legend, files, out))

    return run


def keras_loop(folder: Path, overlays: bool = True, name: str = "keras_loop") -> Way:
    model = keras.models.load_model(folder / "export" / "unet.keras", compile=False)
    (folder / name).mkdir()

    def decoded(file: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.io.decode_jpeg(tf.io.read_file(file), 3)
        return image, tf.round(tf.image.resize(tf.cast(image, tf.float32), (224, 224), antialias=True))

    def run() -> None:
        files = photographs(folder)
        data = tf.data.Dataset.from_tensor_slices([str(file) for file in files])
        data = data.map(decoded, num_parallel_calls=tf.data.AUTOTUNE).batch(KERAS_BATCH).prefetch(tf.data.AUTOTUNE)
        starts = range(0, len(files), KERAS_BATCH)
        for start, (images, inputs) in zip(starts, data, strict=True):
            some = files[start : start + KERAS_BATCH]
            for image, logits, file in zip(images.numpy(), model.predict_on_batch(inputs), some, strict=True):
                mask = np.argmax(tf.image.resize(logits, image.shape[:2]), axis=-1).astype(np.uint8)
                write(folder / name / f"{file.stem}.png", image, mask, overlays)

    return run


def keras_masks_alone(folder: Path) -> Way:
    return keras_loop(folder, overlays=False, name="keras_masks_alone")


def onnx_loop(folder: Path) -> Way:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cpu_limit()
    file = folder / "export" / "unet.onnx"
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    (folder / "onnx_loop").mkdir()

    def read(file: Path) -> Mask:
        return np.asarray(PIL.Image.open(file).convert("RGB"))

    def run() -> None:
        files = photographs(folder)
        with ThreadPoolExecutor(cpu_limit()) as threads:
            for file, image in zip(files, ahead(threads, read, files), strict=True):
                (masks,) = session.run(["mask"], {"images": image[None]})
                write(folder / "onnx_loop" / f"{file.stem}.png", image, masks[0], overlay=True)

    return run


def street_arrays(folder: Path) -> Dataset:
    os.environ["MASKFLEET_CACHE"] = str(folder / "cache")
    return load_dataset(f"folder:{folder / 'street'}", None, 224)


def trainer_evaluate(folder: Path) -> Way:
    """All that ``trainer evaluate --size network`` scores, boundaries too."""
    trained, dataset = load_trained(folder / "export" / "unet.keras"), street_arrays(folder)
    predict = masker(trained.model)
    return lambda: evaluate(predict, dataset.test, trained.legend)


def keras_evaluate(folder: Path) -> Way:
    model, test = keras.models.load_model(folder / "export" / "unet.keras", compile=False), street_arrays(folder).test
    score = keras.metrics.MeanIoU(len(CLASSES), sparse_y_pred=False)
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=[score])
    data = tf.data.Dataset.from_tensor_slices((test.images, test.masks[..., None])).batch(KERAS_BATCH)
    return lambda: model.evaluate(data, verbose=0)


def ahead(threads: ThreadPoolExecutor, read: Callable[[Path], Mask], files: list[Path]) -> Iterator[Mask]:
    """What ``read`` makes of each file, some of them before they are asked for."""
    for start in range(0, len(files), KERAS_BATCH):
        yield from threads.map(read, files[start : start + KERAS_BATCH])


def write(file: Path, image: NDArray[np.uint8], mask: Mask, overlay: bool) -> None:
    """The mask with a palette, and beside it the image with the classes' colours laid over it."""
    picture = PIL.Image.fromarray(mask)
    picture.putpalette(COLOURS.tobytes())
    picture.save(file)
    if overlay:
        mixed = PIL.Image.blend(PIL.Image.fromarray(image), picture.convert("RGB"), 0.5)
        mixed.save(file.with_name(f"{file.stem}_overlay.png"))


def same_pixels(folder: Path, other: str) -> float:
    """Share of the pixels to which ``trainer predict`` and the other give the same class."""

    def mask(way: str, file: Path) -> Mask:
        return np.asarray(PIL.Image.open(folder / way / f"{file.stem}.png"))

    return float(
        np.mean([np.mean(mask("trainer_predict", file) == mask(other, file)) for file in photographs(folder)[:100]])
    )
