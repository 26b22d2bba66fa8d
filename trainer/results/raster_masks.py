"""Masks of pictures that are larger than memory: written a part at a time, in the place on the earth of the picture."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskfleet.files import scratch_folder
from trainer.data.bands import rasterio
from trainer.data.rasters import SIDE, Raster, create, opened
from trainer.pictures import legend_strip, overlay, write_png
from trainer.results.legend import Legend
from trainer.results.tiles import NumbersFile, Tile

_LONGEST = 4096
"""Side of the overlay of a TIFF, pixels: to be looked at."""


def write_raster_masks(
    file: Path,
    bands: int,
    max_pixels: int,
    tiles_of: Callable[[Raster], Iterator[Tile]],
    legend: Legend,
    outputs: Sequence[Path],
) -> None:
    """The mask, the overlay and, if ``outputs`` has a third name, the probabilities.

    The mask of a TIFF is a TIFF of its size and georeference with the classes' colours; its overlay is at most 4096
    pixels long. Those of a photograph are as of any other.

    Raises:
        BadData: the file is damaged, or of other bands.
        OSError: they can't be written. Nothing is left behind.
    """
    library = rasterio()
    assert library is not None  # as is_raster() says
    folder = outputs[0].parent
    folder.mkdir(parents=True, exist_ok=True)
    with (
        scratch_folder(folder / f".{outputs[0].name}.new") as place,
        opened(file, bands, max_pixels, place) as raster,
    ):
        written = [place / name for name in ("mask", "overlay", "numbers")[: len(outputs)]]
        store = written[0] if raster.is_tiff else place / "mask.tif"
        _write_mask(raster, tiles_of(raster), legend, store, written[2:])
        with library.open(store) as mask:
            if raster.is_tiff:
                _write_small_overlay(raster, mask, legend, written[1])
            else:
                _write_photographs(raster, mask, legend, written[0], written[1])
        for path, output in zip(written, outputs, strict=True):
            path.replace(output)


def _write_mask(raster: Raster, tiles: Iterator[Tile], legend: Legend, store: Path, numbers: Sequence[Path]) -> None:
    height, width, _ = raster.shape
    source = raster.dataset
    placed = {"crs": source.crs, "transform": source.transform} if raster.is_tiff else {}
    with create(store, height, width, 1, compress="deflate", **placed) as mask:
        if raster.is_tiff and source.gcps[0]:
            mask.gcps = source.gcps
        mask.write_colormap(1, dict(enumerate((*colour, 255) for colour in legend.colours.tolist())))
        with contextlib.ExitStack() as files:
            kept = [
                NumbersFile(files.enter_context(path.open("wb")), (height, width, len(legend.classes)))
                for path in numbers
            ]
            for tile in tiles:
                for each in kept:
                    each.write(tile)
                found = np.argmax(tile.scores, axis=-1).astype(np.uint8)
                mask.write(found, 1, window=(_ends(tile.rows), _ends(tile.columns)))


def _write_small_overlay(raster: Raster, mask: Any, legend: Legend, file: Path) -> None:
    height, width, _ = raster.shape
    shrink = max(1.0, max(height, width) / _LONGEST)
    size = max(1, round(height / shrink)), max(1, round(width / shrink))
    image, labels = raster.smaller(*size), mask.read(1, out_shape=size)
    strip = np.asarray(legend_strip(size[1], legend.classes, legend.colours))
    parts = (slice(top, top + SIDE) for top in range(0, size[0], SIDE))
    overlays = (overlay(image[part], labels[part], legend.colours) for part in parts)
    with file.open("wb") as content:
        write_png(content, size[1], size[0] + len(strip), itertools.chain(overlays, [strip]))


def _write_photographs(raster: Raster, mask: Any, legend: Legend, mask_file: Path, overlay_file: Path) -> None:
    height, width, _ = raster.shape

    def labels() -> Iterator[NDArray[np.uint8]]:
        for top in range(0, height, SIDE):
            yield mask.read(1, window=((top, min(top + SIDE, height)), (0, width)))

    def overlays() -> Iterator[NDArray[np.uint8]]:
        for top, part in zip(range(0, height, SIDE), labels(), strict=True):
            yield overlay(raster[top : top + len(part)], part, legend.colours)

    with mask_file.open("wb") as file:
        write_png(file, width, height, labels(), legend.colours)
    with overlay_file.open("wb") as file:
        strip = np.asarray(legend_strip(width, legend.classes, legend.colours))
        write_png(file, width, height + len(strip), itertools.chain(overlays(), [strip]))


def _ends(part: slice) -> tuple[int, int]:
    return part.start, part.stop
