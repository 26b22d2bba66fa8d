"""``trainer predict`` and ``export``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

from maskfleet.command_line import UserPath, echo, echo_line
from maskfleet.config import DEFAULT_MAX_PIXELS
from maskfleet.data_setting import existing_data
from maskfleet.errors import BAD_INPUT, DONE, MaskfleetError
from maskfleet.quiet import quiet_stderr
from maskfleet.run_directory import RunDirectory, check_name
from maskfleet.sentences import ERROR
from maskfleet.start_setting import existing_network
from trainer.commands.networks import (
    joined_network,
    load,
    members_and_images,
    open_both,
    open_source,
    predictor_of,
)
from trainer.commands.options import BEST, TEST_TIME

T = TypeVar("T")

EXPORT_FORMATS = ("keras", "h5", "saved_model", "onnx", "openvino", "tflite-float32", "tflite-float16", "tflite-int8")


@click.command(
    params=[
        click.Argument(["names"], metavar="RUN|CHECKPOINT|MODEL... IMAGES...", nargs=-1, required=True),
        click.Option(["--out"], type=UserPath(), required=True, help="folder for the masks"),
        *TEST_TIME,
    ]
)
@BEST
@click.option("--probabilities", is_flag=True, help="write NAME.npy, float32 [H, W, classes], too")
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="images at a time")
@click.option("--skip-done", is_flag=True, help="leave out images whose files are in --out and no older than they are")
@click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=DEFAULT_MAX_PIXELS,
    show_default=True,
    help="largest image that is read",
)
def predict(
    names: tuple[str, ...],
    out: Path,
    best: bool,
    probabilities: bool,
    batch_size: int,
    skip_done: bool,
    max_pixels: int,
    **choices: Any,
) -> int:
    """Write the mask of each of IMAGES (files, folders, patterns) at its own size, and an overlay.

    Several networks are an ensemble: the mean of their probabilities decides.

    An image that can't be read is left out, and named at the end; the exit code is 2 then.

    Takes some 0.6 GB of memory, whatever the number of classes, and 7 bytes for each pixel of the largest image: 4 in
    which it is decoded, and 3 of its colours. With rasterio (maskfleet[raster]) what is larger than 33 megapixels is
    read and written a part at a time, and georeferenced TIFFs have their masks as TIFFs in the same place.
    """
    places, images = members_and_images(names)
    terminal = quiet_stderr()
    for place in places:  # before TensorFlow is imported
        existing_network(place)
    from trainer.data.source import Reading
    from trainer.results.predict_files import find_images, is_done, predict_files

    files = find_images(images, out)
    done = {file for file in files if skip_done and is_done(file, out, with_probabilities=probabilities)}
    left = [file for file in files if file not in done]
    trained = joined_network(places, best)
    predictor = predictor_of(trained, batch_size, choices)
    written = predict_files(
        predictor,
        trained.legend,
        left,
        out,
        with_probabilities=probabilities,
        reading=Reading(max_pixels, bands=trained.bands),
    )
    bad, count = [], 0
    try:
        for _, problem in _with_progress(written, len(left), terminal):
            count += problem is None
            if problem is not None:
                bad.append(problem)
    except KeyboardInterrupt:
        echo(
            f"stopped: {len(done) + count} of {len(files)} mask(s) are in {out}; --skip-done goes on from there",
            err=True,
        )
        raise
    finally:
        for problem in bad:
            echo_line(f"bad: {problem}")
    echo(f"{count} mask(s) in {out}" + (f", {len(done)} were there" if done else ""))
    if bad:
        echo(f"{ERROR}{len(bad)} of {len(files)} image(s) have no mask, as said above", err=True)
    return BAD_INPUT if bad else DONE


@click.command()
@click.argument("place", metavar="RUN|CHECKPOINT|MODEL", type=UserPath())
@click.option("--out", type=UserPath(), help="folder to write to  [default: RUN/export]")
@BEST
@click.option(
    "--format",
    "formats",
    multiple=True,
    type=click.Choice(EXPORT_FORMATS),
    help="repeatable  [default: keras, h5 and saved_model]",
)
@click.option("--data", help="data to calibrate int8 and to compare with  [default: the run's]")
@click.option("--data-dir", type=UserPath(), help="where TensorFlow Datasets lie")
@click.option(
    "--images", type=click.IntRange(min=1), default=100, show_default=True, help="how many of each, evenly spread"
)
def export(
    place: Path,
    out: Path | None,
    best: bool,
    formats: tuple[str, ...],
    data: str | None,
    data_dir: Path | None,
    images: int,
) -> None:
    """Write a trained network as Keras, HDF5, SavedModel, ONNX, OpenVINO and LiteRT (TFLite) files.

    What each file makes of test pictures is held against what the network does, by class; OUT/parity.json keeps what
    was found. Without the run's data, and without --data, that is left out.

    ONNX, OpenVINO and LiteRT need maskfleet[export].
    """
    quiet_stderr()
    existing_network(place)  # before TensorFlow is imported
    if data is not None:
        existing_data(data)
    from trainer.results.converting import PACKAGES, check_packages
    from trainer.results.exporting import PLAIN, Judges, export_formats
    from trainer.results.parity import spread

    if out is None:
        if not RunDirectory(place).config.is_file():
            raise click.UsageError(f"{place} is no run directory; say with --out where the files go")
        out = RunDirectory(place).export
    check_name(out)
    for name in formats:
        check_packages(f"--format {name}", PACKAGES.get(name, ()))
    trained = load(place, best, precision="float32")
    source, calibration = None, None
    try:
        if "tflite-int8" in formats:
            source, dataset = open_both(place, trained, data, data_dir)
            calibration = dataset.train.spread(images).images
        else:
            source = open_source(place, trained, data, data_dir)
    except (MaskfleetError, click.UsageError) as error:
        if data is not None or "tflite-int8" in formats:
            raise
        echo_line(f"the files are not compared with the network: {error}")
    judges = None
    if source is not None:
        judges = Judges(source.name, spread(source.test or source.validation or source.train, images))
    for line in export_formats(trained, out, formats or PLAIN, calibration, judges):
        echo(line)


def _with_progress(work: Iterable[T], count: int, terminal: TextIO) -> Iterator[T]:
    """``work`` with a bar that grows, if ``terminal`` is one, and is gone at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(file=terminal)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield from progress.track(work, total=count)
