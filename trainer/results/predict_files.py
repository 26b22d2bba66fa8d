"""The files that images' masks are written to."""

from __future__ import annotations

import contextlib
import errno
import functools
import glob
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from maskfleet.config import absolute_path
from maskfleet.errors import BadData, BadSettings
from maskfleet.files import scratch_folder
from maskfleet.out_setting import check_out
from trainer.data.images import IMAGE_SUFFIXES, pixels_of, read_picture, without_arrays_beside
from trainer.data.rasters import Raster, is_raster, writes_tiff
from trainer.data.side_by_side import in_groups, in_stages
from trainer.data.source import Reading
from trainer.pictures import legend_strip, overlay, write_png
from trainer.results.legend import Legend
from trainer.results.predict import PIXELS_AT_ONCE, PIXELS_OF_GROUP, Image, Predictor
from trainer.results.raster_masks import write_raster_masks
from trainer.results.tiles import NumbersFile, Tile

_AS_BY_DEFAULT = Reading()
_STRIP = 1 << 18
"""Pixels of an overlay that are mixed at once."""
_OF_ONE_FILE = frozenset({errno.ENAMETOOLONG, errno.EISDIR, errno.EILSEQ, errno.EINVAL})
"""What goes wrong in writing a file because of its name; all else will go wrong with the next one too."""


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

    While the network computes some images, those after them are read and the masks of those before are written.

    Returns:
        Each file when it is done, with what is wrong with it if it has no mask for that.

    Raises:
        BadSettings: ``out`` can't be written; the files before have their masks.
    """
    check_out(out, folder=True)
    writing = _Writing(predictor, legend, out, with_probabilities, reading)
    pixels = functools.cache(lambda i: _pixels(files[i]))
    groups = in_groups(len(files), pixels, predictor.images_at_once, PIXELS_OF_GROUP)
    return in_stages(groups, lambda i: writing.begin(files[i]), writing.together, _Job.end, pixels, PIXELS_AT_ONCE)


@dataclass(frozen=True)
class _Begun:
    """A file's image, or what is wrong with it; None of a raster. ``shown``: to a network that sees images whole."""

    file: Path
    image: Image | BadData | None
    shown: Image | None = None


@dataclass(frozen=True)
class _Job:
    """What is left to do for a file; ``write`` is None where it is done, with ``problem``."""

    file: Path
    write: Callable[[], BadData | None] | None
    problem: BadData | None = None

    def end(self) -> tuple[Path, BadData | None]:
        return self.file, self.write() if self.write else self.problem

    def done(self) -> _Job:
        return _Job(self.file, None, self.end()[1])


@dataclass(frozen=True)
class _Writing:
    """The stages of :func:`predict_files`."""

    predictor: Predictor
    legend: Legend
    out: Path
    with_probabilities: bool
    reading: Reading

    def begin(self, file: Path) -> _Begun:
        if is_raster(file):
            return _Begun(file, None)
        image = _read(file, self.reading)
        if isinstance(image, BadData) or not self.predictor.sees_whole:
            return _Begun(file, image)
        return _Begun(file, image, self.predictor.shown(image))

    def together(self, begun: Sequence[_Begun]) -> Iterator[_Job]:
        """What takes long is done here, where the user can interrupt it: rasters, windows, large images."""
        images = [each.image for each in begun if isinstance(each.image, np.ndarray)]
        shown = [each.shown for each in begun if each.shown is not None]
        tiles = self.predictor.tiles(images, shown, logits=not self.with_probabilities)
        for each in begun:
            if isinstance(each.image, BadData):
                yield _Job(each.file, None, each.image)
                continue
            outputs = [self.out / name for name in _outputs(each.file)[: 2 + self.with_probabilities]]
            in_background = False
            if each.image is None:
                write = functools.partial(_write_raster, self.predictor, self.reading, self.legend, outputs)
            else:
                in_background = each.shown is not None and math.prod(each.image.shape[:2]) <= PIXELS_OF_GROUP
                write = functools.partial(_write, each.image, next(tiles), self.legend, outputs)
            job = _Job(each.file, functools.partial(_written, each.file, self.out, write))
            yield job if in_background else job.done()


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
                mask[tile.rows, tile.columns] = np.argmax(tile.scores, axis=-1)
                for path in written[2:]:
                    if numbers is None:
                        shape = (height, width, tile.scores.shape[-1])
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


def _palette_image(mask: NDArray[np.uint8], legend: Legend) -> PIL.Image.Image:
    image = PIL.Image.fromarray(mask)
    image.putpalette(legend.colours.tobytes())
    return image


def _overlay(image: Image, mask: NDArray[np.uint8], legend: Legend) -> Iterator[Image]:
    """The image under its mask, in strips from the top."""
    rows = max(1, _STRIP // mask.shape[1])
    for top in range(0, len(mask), rows):
        yield overlay(image[top : top + rows], mask[top : top + rows], legend.colours)
