"""Masks of images at their own size, and the files they are written to."""

from __future__ import annotations

import glob
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import PIL.Image
import tensorflow as tf
from numpy.typing import NDArray

from maskfleet.errors import BadData, BadSettings
from maskfleet.files import write_atomically
from trainer.data.images import IMAGE_SUFFIXES, read_image
from trainer.pictures import legend_strip, overlay, png
from trainer.results.legend import Legend

Image = NDArray[np.uint8]
Network = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Images uint8 [b, S, S, 3] -> probabilities float32 [b, S, S, classes]."""


@dataclass(frozen=True)
class Predictor:
    """A network as a function of images of any size.

    Attributes:
        size: S, the side of the network's input.
        window: slide it over the image at the image's own scale, instead of scaling the image to it.
        overlap: share of the window by which neighbours overlap.
        flip: average with the prediction of the mirrored image.
        batch_size: images, or windows of an image, at a time.
    """

    network: Network
    size: int
    window: bool = False
    overlap: float = 0.5
    flip: bool = False
    batch_size: int = 8

    def probabilities(self, images: Sequence[Image]) -> Iterator[NDArray[np.float32]]:
        """Images uint8 [H, W, 3], each of its own size -> probabilities float32 [H, W, classes], one after another."""
        if self.window:
            yield from map(self._slide, images)
            return
        for start in range(0, len(images), self.batch_size):
            some = images[start : start + self.batch_size]
            scaled = np.stack([_scaled(image, self.size) for image in some])
            for image, found in zip(some, self._run(scaled), strict=True):
                yield tf.image.resize(found, image.shape[:2]).numpy()

    def _slide(self, image: Image) -> NDArray[np.float32]:
        """Windows that overlap, weighted less towards their rims, where a network knows less of the surroundings."""
        height, width = image.shape[:2]
        size = self.size
        padded = np.pad(image, ((0, max(0, size - height)), (0, max(0, size - width)), (0, 0)), "edge")
        rows, columns = (_starts(side, size, self.overlap) for side in padded.shape[:2])
        corners = [(row, column) for row in rows for column in columns]
        line = np.minimum(np.arange(1, size + 1), np.arange(size, 0, -1)).astype(np.float32)
        weight = np.outer(line, line)[..., None]
        total = np.zeros((*padded.shape[:2], 1), np.float32)
        summed: NDArray[np.float32] | None = None
        for start in range(0, len(corners), self.batch_size):
            some = corners[start : start + self.batch_size]
            windows = np.stack([padded[row : row + size, column : column + size] for row, column in some])
            for (row, column), found in zip(some, self._run(windows), strict=True):
                if summed is None:
                    summed = np.zeros((*padded.shape[:2], found.shape[-1]), np.float32)
                summed[row : row + size, column : column + size] += weight * found
                total[row : row + size, column : column + size] += weight
        assert summed is not None
        return (summed / total)[:height, :width].astype(np.float32)

    def _run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = self.network(images)
        if self.flip:
            found = (found + self.network(images[:, :, ::-1])[:, :, ::-1]) / np.float32(2)
        return found


def network_of(model: keras.Model) -> Network:
    """A Keras model that gives logits, as a function that gives probabilities."""

    # Batches of any size: the last one, which is smaller, shall not be traced again.
    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8)])
    def run(images: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(model(images, training=False))

    return lambda images: run(tf.constant(images)).numpy()


def find_images(names: Sequence[str], out: Path) -> list[Path]:
    """The files that names of files, of folders, and patterns such as ``photos/**/*.jpg`` mean.

    A folder's hidden files are none of its images: macOS leaves ``._a.jpg`` beside ``a.jpg``.

    Args:
        out: where :func:`predict_files` will write.

    Raises:
        BadData: a name means no image, or two images would get the same output file.
        BadSettings: an image would be replaced by an output file.
    """
    found: dict[str, Path] = {}  # the image of each output file
    for name in names:
        files = list(_expand(name))
        if not files:
            suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
            raise BadData(f"{name}: expected an image, a folder of images ({suffixes}) or a pattern, found none")
        for file in files:
            for output in _outputs(file):
                other = found.setdefault(output, file)
                if other.resolve() != file.resolve():
                    raise BadData(
                        f"{file}: expected names that differ, but {other} gets the same {output}; "
                        "rename one, or predict them into different folders"
                    )
    images = list(dict.fromkeys(found.values()))  # each once, however often it is named
    places = {file.resolve(): file for file in images}
    for output in found:
        if replaced := places.get((out / output).resolve()):
            raise BadSettings(
                f"--out {out}: expected another folder than that of the images: {replaced} would be replaced"
            )
    return images


def predict_files(
    predictor: Predictor,
    legend: Legend,
    files: Sequence[Path],
    out: Path,
    *,
    with_probabilities: bool = False,
) -> Iterator[Path]:
    """Writes OUT/NAME.png and OUT/NAME_overlay.png for each file, if asked for NAME.npy too, and gives the mask's path.

    The mask is a palette image at the image's own size: its pixel values are the class indices, its palette
    their colours. NAME.npy holds the probabilities, float32 [H, W, classes].

    Raises:
        BadData: a file is no image; those before it have their masks.
        BadSettings: ``out`` can't be written.
    """
    for start in range(0, len(files), predictor.batch_size):
        images, bad = _read(files[start : start + predictor.batch_size])
        some = files[start : start + len(images)]
        for file, image, probabilities in zip(some, images, predictor.probabilities(images), strict=True):
            mask = np.argmax(probabilities, axis=-1).astype(np.uint8)
            laid_over = np.concatenate([overlay(image, mask, legend.colours), _strip(image, legend)])
            name_mask, name_overlay, name_probabilities = _outputs(file)
            contents = {name_mask: _palette_png(mask, legend), name_overlay: png(PIL.Image.fromarray(laid_over))}
            if with_probabilities:
                buffer = io.BytesIO()
                np.save(buffer, probabilities)
                contents[name_probabilities] = buffer.getvalue()
            try:
                for name, content in contents.items():
                    write_atomically(out / name, content, durable=False)
            except OSError as error:
                raise BadSettings(f"--out {out}: can't be written: {error.strerror or error}") from error
            yield out / name_mask
        if bad is not None:
            raise bad


def _outputs(file: Path) -> tuple[str, str, str]:
    """Names of an image's mask, overlay and probabilities."""
    return f"{file.stem}.png", f"{file.stem}_overlay.png", f"{file.stem}.npy"


def _read(files: Sequence[Path]) -> tuple[list[Image], BadData | None]:
    """The images up to the first bad file, and what is bad about it: the good ones shall not be lost with it."""
    images: list[Image] = []
    for file in files:
        try:
            images.append(read_image(file))
        except BadData as error:
            return images, error
    return images, None


def _expand(name: str) -> Iterator[Path]:
    path = Path(name)
    if path.is_dir():
        files = (file for file in path.iterdir() if not file.name.startswith("."))
        yield from sorted(file for file in files if file.suffix.lower() in IMAGE_SUFFIXES)
    elif path.exists():
        yield path
    else:  # Path.glob takes no absolute pattern
        yield from sorted(file for file in map(Path, glob.glob(name, recursive=True)) if file.is_file())  # noqa: PTH207


def _scaled(image: Image, size: int) -> Image:
    """As the data cache scales training images."""
    return np.asarray(PIL.Image.fromarray(image).resize((size, size), PIL.Image.Resampling.BILINEAR))


def _starts(side: int, size: int, overlap: float) -> list[int]:
    """First pixels of windows that cover ``side``, evenly spread, overlapping by at least ``overlap``."""
    step = max(1, int(size * (1 - overlap)))
    count = 1 + -(-(side - size) // step)
    return [round(start) for start in np.linspace(0, side - size, count)]


def _palette_png(mask: NDArray[np.uint8], legend: Legend) -> bytes:
    image = PIL.Image.fromarray(mask, "L")
    image.putpalette(legend.colours.tobytes())
    return png(image)


def _strip(image: Image, legend: Legend) -> Image:
    return np.asarray(legend_strip(image.shape[1], legend.classes, legend.colours))
