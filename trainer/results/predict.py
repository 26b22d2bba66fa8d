"""Masks of images at their own size, and the files they are written to.

No array of all classes at an image's size is ever made: what the network says is enlarged, or summed up over its
windows, a tile at a time.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import glob
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import PIL.Image
import tensorflow as tf
from numpy.typing import NDArray

from maskfleet.config import absolute_path
from maskfleet.errors import BadData, BadSettings
from maskfleet.files import scratch_folder
from maskfleet.image_size import Fit, Size
from maskfleet.out_setting import check_out
from trainer.data.fitting import scaled_image, within
from trainer.data.images import IMAGE_SUFFIXES, pixels_of, read_picture, without_arrays_beside
from trainer.data.rasters import Raster, is_raster, writes_tiff
from trainer.data.side_by_side import in_groups
from trainer.data.source import Reading
from trainer.data.windows import starts
from trainer.pictures import legend_strip, overlay, write_png
from trainer.results.enlarging import PART, enlarged_part
from trainer.results.evaluation import batch_that_fits
from trainer.results.legend import Legend
from trainer.results.raster_masks import write_raster_masks
from trainer.results.tiles import NumbersFile, Tile

Image = NDArray[np.uint8]
Network = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Images uint8 [b, H, W, bands] -> logits float32 [b, H, W, classes], of the network's size."""

_AS_BY_DEFAULT = Reading()
_BAND = 1 << 24
"""Pixels times classes of the windows that are summed up: 64 MiB. Narrower bands compute more windows twice."""
PIXELS_AT_ONCE = 1 << 26
"""Of the images that are in memory together, 192 MiB; a larger one is there alone."""
_STRIP = 1 << 18
"""Pixels of an overlay that are mixed at once."""
_OF_ONE_FILE = frozenset({errno.ENAMETOOLONG, errno.EISDIR, errno.EILSEQ, errno.EINVAL})
"""What goes wrong in writing a file because of its name; all else will go wrong with the next one too."""


class _Window(NamedTuple):
    """A part of an image that the network is shown."""

    row: int
    column: int
    tall: int
    wide: int

    def of(self, image: Image) -> Image:
        return image[self.row : self.row + self.tall, self.column : self.column + self.wide]


@dataclass(frozen=True)
class Predictor:
    """A network as a function of images of any size.

    Attributes:
        size: of the network's input.
        classes: how many the network tells apart.
        window: slide it over the image at the image's own scale, instead of scaling the image to it.
        padded: scale the image with its aspect kept, and fill the rest of the input by repeating its edge.
        overlap: share of the window by which neighbours overlap.
        flip: average with the prediction of the mirrored image.
        scales: average the predictions of the image at these scales, as shares of that at which it is seen otherwise.
        batch_size: images, or windows of an image, at a time; fewer where so many would take too much memory.
    """

    network: Network
    size: Size
    classes: int
    window: bool = False
    overlap: float = 0.5
    flip: bool = False
    batch_size: int = 8
    scales: tuple[float, ...] = (1.0,)
    padded: bool = False

    @classmethod
    def fitted(
        cls, fit: Fit, network: Network, size: Size, classes: int, *, window: bool = False, **choices: Any
    ) -> Predictor:
        """That sees images as training with ``fit`` did; ``choices`` are further attributes."""
        return cls(network, size, classes, window=window or fit == "crop", padded=fit == "pad", **choices)

    def tiles(self, images: Sequence[Image]) -> Iterator[Iterator[Tile]]:
        """For one image [H, W, 3] after another, each of its own size, the tiles that cover it, each pixel once."""
        if self.window:
            yield from map(self._slide, images)
            return
        if self.scales != (1.0,):
            yield from map(self._at_scales, images)
            return
        for start in range(0, len(images), self._at_once):
            some = images[start : start + self._at_once]
            sizes = [self._scaled_size(image) for image in some]
            scaled = [_scaled(image, size) for image, size in zip(some, sizes, strict=True)]
            inputs = np.stack([_grown(image, self.size) for image in scaled])
            for image, (height, width), found in zip(some, sizes, self._run(inputs), strict=True):
                yield _enlarge(found[:height, :width], *image.shape[:2])

    def masks(self, images: Sequence[Image]) -> Iterator[NDArray[np.uint8]]:
        """Class indices [H, W] of one image [H, W, 3] after another."""
        for image, tiles in zip(images, self.tiles(images), strict=True):
            mask = np.empty(image.shape[:2], np.uint8)
            for tile in tiles:
                mask[tile.rows, tile.columns] = np.argmax(tile.probabilities, axis=-1)
            yield mask

    def _scaled_size(self, image: Image) -> Size:
        return within(Size(*image.shape[:2]), self.size) if self.padded else self.size

    def _at_scales(self, image: Image) -> Iterator[Tile]:
        """The image scaled to several sides, each seen through windows where the network does not see it whole."""
        parts = []
        for scale in self.scales:
            sides = Size(*(max(1, round(scale * side)) for side in self._scaled_size(image)))
            found = np.empty((*sides, self.classes), np.float32)
            for tile in replace(self, scales=(1.0,))._slide(_scaled(image, sides)):
                found[tile.rows, tile.columns] = tile.probabilities
            parts.append(_enlarge(_logs(found), *image.shape[:2]))
        for tiles in zip(*parts, strict=True):
            mean = sum(tile.probabilities for tile in tiles) / np.float32(len(tiles))
            yield tiles[0]._replace(probabilities=mean)

    def _slide(self, image: Image) -> Iterator[Tile]:
        """Windows that overlap, weighted less towards their rims, where a network knows less of the surroundings.

        For a scale over 1 the windows are smaller parts of the image, enlarged to the network, and for one under
        1 larger parts, made smaller. All of them are summed up together.
        """
        height, width = image.shape[:2]
        sides = [(max(1, round(self.size[0] / scale)), max(1, round(self.size[1] / scale))) for scale in self.scales]
        tallest, widest = (max(lengths) for lengths in zip(*sides, strict=True))
        image = _grown(image, Size(tallest, widest))
        windows = []
        for tall, wide in sides:
            rows = starts(image.shape[0], tall, self.overlap)
            columns = starts(image.shape[1], wide, self.overlap)
            windows += [_Window(row, column, tall, wide) for row in rows for column in columns]
        windows.sort(key=lambda window: window.row)  # those of a row stay in their order
        at_once = max(1, _BAND // (tallest * self.classes))
        for left in range(0, width, at_once):
            right = min(left + at_once, width)
            some = [window for window in windows if left - window.wide < window.column < right]
            yield from self._slide_down(image, some, slice(0, height), slice(left, right))

    def _slide_down(self, image: Image, windows: Sequence[_Window], rows: slice, columns: slice) -> Iterator[Tile]:
        """The part of the image in ``columns``; ``windows`` are those that reach into it, from the top."""
        tallest, (left, right) = max(window.tall for window in windows), (columns.start, columns.stop)
        summed = np.zeros((tallest, right - left, self.classes), np.float32)  # of the rows from ``top`` on
        total = np.zeros((tallest, right - left, 1), np.float32)
        top = rows.start

        def done(end: int) -> Iterator[Tile]:
            rows_at_once = max(1, PART // ((right - left) * self.classes))
            for first in range(top, min(end, rows.stop), rows_at_once):
                last = min(first + rows_at_once, end, rows.stop)
                part = slice(first - top, last - top)
                found = (summed[part] / total[part]).astype(np.float32, copy=False)
                yield Tile(slice(first, last), columns, found)

        for start in range(0, len(windows), self._at_once):
            some = windows[start : start + self._at_once]
            seen = np.stack([_resized(window.of(image), self.size[1], self.size[0]) for window in some])
            for (row, column, tall, wide), found in zip(some, _softmax(self._run(seen)), strict=True):
                if row > top:  # no other window reaches above
                    yield from done(row)
                    for sums in (summed, total):
                        _move_up(sums, row - top)
                    top = row
                if (tall, wide) != self.size:
                    found = tf.image.resize(found, (tall, wide)).numpy()
                weight = _weight(tall, wide, self.size)
                here = slice(max(column - left, 0), min(column + wide, right) - left)
                inside = slice(here.start + left - column, here.stop + left - column)
                summed[:tall, here] += weight[:, inside] * found[:, inside]
                total[:tall, here] += weight[:, inside]
        yield from done(top + tallest)

    @property
    def images_at_once(self) -> int:
        """How many images it takes to make use of :attr:`batch_size`."""
        return 1 if self.window else self.batch_size

    @property
    def _at_once(self) -> int:
        return batch_that_fits(self.batch_size, self.size.pixels, self.classes)

    def _run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits; of several predictions those of the mean of their probabilities."""
        logits = self.network(images)
        if not self.flip:
            return logits
        mirrored = self.network(images[:, :, ::-1])[:, :, ::-1]
        both = np.logaddexp(tf.nn.log_softmax(logits), tf.nn.log_softmax(mirrored))
        return np.asarray(both - np.log(np.float32(2)))


def network_of(model: keras.Model) -> Network:
    """A Keras model as a function of arrays."""

    # Batches of any size: the last one, which is smaller, shall not be traced again.
    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None, *model.input_shape[1:]], tf.uint8)])
    def run(images: tf.Tensor) -> tf.Tensor:
        return tf.cast(model(images, training=False), tf.float32)

    return lambda images: run(tf.constant(images)).numpy()


def find_images(names: Sequence[str], out: Path) -> list[Path]:
    """The files that names of files, of folders, and patterns such as ``photos/**/*.jpg`` mean.

    A folder's hidden files are none of its images: macOS leaves ``._a.jpg`` beside ``a.jpg``.

    Args:
        out: where :func:`predict_files` will write.

    Raises:
        BadData: a name means no image or can't be read, or two images would get the same output file.
        BadSettings: an image would be replaced by an output file.
    """
    found: dict[str, Path] = {}  # the image of each output file
    for name in names:
        try:
            files = list(_expand(name))
        except OSError as error:
            raise BadData(f"{name}: can't be read: {error.strerror or error}; let this user read it") from error
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


def is_done(file: Path, out: Path, *, with_probabilities: bool = False) -> bool:
    """Whether all that :func:`predict_files` would write for the image is there, and no older than the image."""
    try:
        changed = file.stat().st_mtime_ns
        return all((out / name).stat().st_mtime_ns >= changed for name in _outputs(file)[: 2 + with_probabilities])
    except OSError:
        return False


def predict_files(
    predictor: Predictor,
    legend: Legend,
    files: Sequence[Path],
    out: Path,
    *,
    with_probabilities: bool = False,
    reading: Reading = _AS_BY_DEFAULT,
) -> Iterator[tuple[Path, BadData | None]]:
    """Writes OUT/NAME.png and OUT/NAME_overlay.png for each file, and NAME.npy too if asked for.

    The mask is a palette image at the image's own size: its pixel values are the class indices, its palette
    their colours. NAME.npy holds the probabilities, float32 [H, W, classes]. What :mod:`trainer.data.rasters` reads a
    part at a time has its mask written so, a TIFF as NAME.tif.

    Returns:
        Each file when it is done, with what is wrong with it if it has no mask for that.

    Raises:
        BadSettings: ``out`` can't be written; the files before have their masks.
    """
    check_out(out, folder=True)
    for group in in_groups(len(files), lambda i: _pixels(files[i]), predictor.images_at_once, PIXELS_AT_ONCE):
        some = [files[i] for i in group]
        if is_raster(some[0]):  # which is in no group with others
            outputs = [out / name for name in _outputs(some[0])[: 2 + with_probabilities]]
            yield some[0], _written(some[0], out, functools.partial(_write_raster, predictor, reading, legend, outputs))
            continue
        found = [_read(file, reading) for file in some]
        tiles = predictor.tiles([image for image in found if not isinstance(image, BadData)])
        for file, image in zip(some, found, strict=True):
            if isinstance(image, BadData):
                yield file, image
                continue
            outputs = [out / name for name in _outputs(file)[: 2 + with_probabilities]]
            yield file, _written(file, out, functools.partial(_write, image, next(tiles), legend, outputs))


def _written(file: Path, out: Path, write: Callable[..., None]) -> BadData | None:
    """What is wrong with the file if it has no mask for that."""
    try:
        write(file)
    except BadData as error:
        return error
    except OSError as error:
        why = f"can't be written: {error.strerror or error}"
        if error.errno not in _OF_ONE_FILE:
            raise BadSettings(f"--out {out}: {why}") from error
        return BadData(f"{file}: its mask in {out} {why}; rename one of the two")
    return None


def _write_raster(predictor: Predictor, reading: Reading, legend: Legend, outputs: Sequence[Path], file: Path) -> None:
    def tiles_of(raster: Raster) -> Iterator[Tile]:
        return next(predictor.tiles([raster]))  # type: ignore[list-item]  # of which it takes slices alone

    write_raster_masks(file, reading.bands, reading.max_pixels, tiles_of, legend, outputs)


def _pixels(file: Path) -> int:
    if not file.is_file():
        return 0  # to open a pipe could take for ever
    return PIXELS_AT_ONCE + 1 if is_raster(file) else pixels_of(file)


def _read(file: Path, reading: Reading) -> Image | BadData:
    """The image, or what is wrong with it: the others shall not be lost with it."""
    if file.exists() and not file.is_file():
        return BadData(f"{file}: expected an image, found {'a folder' if file.is_dir() else 'no regular file'}")
    try:
        return read_picture(file, max_pixels=reading.max_pixels, bands=reading.bands).pixels
    except BadData as error:
        return error
    except MemoryError:
        return BadData(f"{file}: does not fit in this machine's memory; save it smaller")


def _write(image: Image, tiles: Iterator[Tile], legend: Legend, outputs: Sequence[Path], file: Path) -> None:
    """The mask, the overlay and, if ``outputs`` has a third name, the probabilities."""
    height, width = image.shape[:2]
    mask = np.empty((height, width), np.uint8)
    outputs[0].parent.mkdir(parents=True, exist_ok=True)
    with scratch_folder(outputs[0].with_name(f".{outputs[0].name}.new")) as place:
        written = [place / name for name in ("mask", "overlay", "numbers")[: len(outputs)]]
        with contextlib.ExitStack() as files:
            numbers = None
            for tile in tiles:
                mask[tile.rows, tile.columns] = np.argmax(tile.probabilities, axis=-1)
                for path in written[2:]:
                    if numbers is None:
                        shape = (height, width, tile.probabilities.shape[-1])
                        numbers = NumbersFile(files.enter_context(path.open("wb")), shape)
                    numbers.write(tile)
        with written[0].open("wb") as content:
            _palette_image(mask, legend).save(content, "PNG")
        with written[1].open("wb") as content:
            strip = legend_strip(width, legend.classes, legend.colours)
            strips = itertools.chain(_overlay(image, mask, legend), [np.asarray(strip)])
            write_png(content, width, height + strip.height, strips)
        for path, output in zip(written, outputs, strict=True):
            path.replace(output)


def _outputs(file: Path) -> tuple[str, str, str]:
    """Names of an image's mask, overlay and probabilities."""
    return f"{file.stem}{'.tif' if writes_tiff(file) else '.png'}", f"{file.stem}_overlay.png", f"{file.stem}.npy"


def _expand(name: str) -> Iterator[Path]:
    path = Path(name)
    if name.startswith("~"):
        path = absolute_path(name, "IMAGES:")
    if path.is_dir():
        files = [file for file in path.iterdir() if not file.name.startswith(".")]
        yield from without_arrays_beside(sorted(file for file in files if file.suffix.lower() in IMAGE_SUFFIXES))
    elif path.exists():
        yield path
    else:  # Path.glob takes no absolute pattern
        found = map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207
        yield from sorted(file for file in found if file.is_file())


def _enlarge(found: NDArray[np.float32], height: int, width: int) -> Iterator[Tile]:
    """What the network says of a scaled image, [h, w, classes], at the image's size."""
    classes = found.shape[-1]
    columns = max(1, min(width, PART // classes))
    rows = max(1, min(height, PART // (columns * classes)))
    logits = tf.constant(found)
    for left in range(0, width, columns):
        for top in range(0, height, rows):
            tall, wide = min(rows, height - top), min(columns, width - left)
            part = _enlarged_part(logits, height, width, top, tall, left, wide)
            yield Tile(slice(top, top + tall), slice(left, left + wide), part.numpy())


_enlarged_part = tf.function(
    lambda *arguments: tf.nn.softmax(enlarged_part(*arguments)),
    autograph=False,
    input_signature=[tf.TensorSpec([None, None, None], tf.float32), *[tf.TensorSpec([], tf.int32)] * 6],
)


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(tf.nn.softmax(logits))


def _logs(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits of which they are the softmax."""
    return np.asarray(np.log(probabilities + np.finfo(np.float32).tiny))


def _grown(image: Image, size: Size) -> Image:
    """At least of ``size``: below and to the right its edge is repeated."""
    missing = [(0, max(0, side - there)) for side, there in zip(size, image.shape, strict=False)]
    return np.pad(image[:], (*missing, (0, 0)), "edge") if any(after for _, after in missing) else image


@functools.cache
def _weight(tall: int, wide: int, size: Size) -> NDArray[np.float32]:
    """How much each pixel of a window counts, [tall, wide, 1]: at its middle as much as one of ``size``."""
    lines = [
        np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1)).astype(np.float32) * np.float32(whole / side)
        for side, whole in zip((tall, wide), size, strict=True)
    ]
    return np.outer(*lines)[..., None]


def _scaled(image: Image, size: Size) -> Image:
    """As the data cache scales training images, bit for bit, without a second copy of a large one.

    Pillow scales along the rows first and then along the columns, so it may have the rows in strips; of an image that
    is over a hundred times as tall as wide, the other way round.
    """
    height, width = image.shape[:2]
    if height > 100 * width:
        return _resized(image, size.width, size.height)
    rows = max(1, _STRIP // width)
    strips = (image[top : top + rows] for top in range(0, height, rows))
    narrow = np.concatenate([_resized(strip, size.width, len(strip)) for strip in strips])
    return _resized(narrow, size.width, size.height)


def _resized(image: Image, width: int, height: int) -> Image:
    if image.shape[:2] == (height, width):
        return image
    return scaled_image(image[:], Size(height, width))


def _move_up(sums: NDArray[np.float32], rows: int) -> None:
    """Without a copy of the whole."""
    for start in range(0, len(sums) - rows, rows):
        end = min(start + rows, len(sums) - rows)
        sums[start:end] = sums[start + rows : end + rows]
    sums[-rows:] = 0


def _palette_image(mask: NDArray[np.uint8], legend: Legend) -> PIL.Image.Image:
    image = PIL.Image.fromarray(mask)
    image.putpalette(legend.colours.tobytes())
    return image


def _overlay(image: Image, mask: NDArray[np.uint8], legend: Legend) -> Iterator[Image]:
    """The image under its mask, in strips from the top."""
    rows = max(1, _STRIP // mask.shape[1])
    for top in range(0, len(mask), rows):
        yield overlay(image[top : top + rows], mask[top : top + rows], legend.colours)
