"""``trainer``: what runs in the container. Thin: parse, call, print."""

from __future__ import annotations

import dataclasses
import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO, TypeVar

import click

from maskfleet.child_processes import end_with_parent
from maskfleet.command_line import Group, UserPath, echo, echo_line
from maskfleet.config import DEFAULT_MAX_PIXELS, TrainConfig, is_address
from maskfleet.data_setting import existing_data
from maskfleet.errors import BAD_INPUT, DONE, BadSettings
from maskfleet.files import check_writable
from maskfleet.places_here import check_places
from maskfleet.quiet import quiet_stderr
from maskfleet.records import write_settings
from maskfleet.run_directory import RunDirectory
from maskfleet.sentences import ERROR
from maskfleet.settings import flag_layer
from maskfleet.text import format_bytes

if TYPE_CHECKING:
    from trainer.data.cache import Dataset
    from trainer.data.source import Reading, Source
    from trainer.data.splits import Division
    from trainer.results.predict import Predictor
    from trainer.results.trained import Trained

T = TypeVar("T")

EXPORT_FORMATS = ("keras", "h5", "saved_model", "tflite-float32", "tflite-float16", "tflite-int8")


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Trains, evaluates and exports segmentation networks."""


RUN_OR_CHECKPOINT = click.argument("place", metavar="RUN|CHECKPOINT", type=UserPath())
BEST = click.option(
    "--best", is_flag=True, help="the run's checkpoint with the best score, instead of the one that counts at its end"
)


def _scales(context: click.Context, option: click.Parameter, value: str) -> tuple[float, ...]:
    try:
        scales = tuple(map(float, value.split(",")))
    except ValueError:
        scales = ()
    if not scales or not all(SMALLEST_SCALE <= scale <= LARGEST_SCALE for scale in scales):
        raise click.UsageError(
            f"--scales {value}: expected numbers from {SMALLEST_SCALE:g} to {LARGEST_SCALE:g}, joined by commas, "
            "as 0.75,1,1.5"
        )
    return scales


SMALLEST_SCALE, LARGEST_SCALE = 0.25, 4.0
TEST_TIME = [
    click.Option(
        ["--window"],
        is_flag=True,
        help="slide the network over large images instead of scaling them to its input; after --fit crop always",
    ),
    click.Option(
        ["--overlap"], type=click.FloatRange(0, 0.9), default=0.5, show_default=True, help="of neighbouring windows"
    ),
    click.Option(["--flip"], is_flag=True, help="average with the prediction of the mirrored image"),
    click.Option(
        ["--scales"],
        callback=_scales,
        default="1",
        show_default=True,
        help="average the predictions at these scales, joined by commas, as 0.75,1,1.5",
    ),
]
_OF_READING = ("data", "data_dir", "mask_pattern", "mask_threshold", "max_pixels", "masks_drawn_on")
"""Settings that say what the files of a data set hold."""
OUTPUT = click.option("-o", "output", type=click.Choice(["text", "json"]), default="text", help="output format")


@main.command(
    params=[
        click.Option(["--run-dir"], type=UserPath(), required=True, help="where the run's files go"),
        click.Option(["--config"], type=UserPath(), help="settings as YAML or JSON; flags win"),
        *TrainConfig.flags(),
    ]
)
def train(run_dir: Path, config: Path | None, **flags: Any) -> int:
    """Train the run in --run-dir, going on from its newest checkpoint if there is one.

    This process is one worker of several when TF_CONFIG or MASKFLEET_PEERS say so.
    """
    from maskfleet.peers import Peers
    from maskfleet.run_lock import open_worker_log
    from trainer.supervision.supervisor import supervise

    run, peers, layer = RunDirectory(run_dir), Peers.from_environment(), flag_layer(flags)

    def resolve() -> TrainConfig:
        files = [file for file in (run.config, config) if file is not None and (file is config or file.exists())]
        return TrainConfig.from_sources(files, layer)

    check_places(resolve(), begun=bool(run.checkpoint_steps()))  # before anything is made
    code = BAD_INPUT
    with open_worker_log(run, peers.worker) as log:  # before anything is changed
        settings = resolve()
        put_back = write_settings(run, settings.model_dump(mode="json"))
        command = [sys.executable, "-m", "trainer.training.process", str(run.path)]
        try:
            code = supervise(command, settings, peers, run, log)
        finally:
            if code == BAD_INPUT:
                put_back()
    return code


@main.command(
    params=[
        click.Argument(["places"], metavar="RUN|CHECKPOINT|MODEL...", type=UserPath(), nargs=-1, required=True),
        click.Option(["--data"], help="data of which a split is scored  [default: the first run's]"),
        click.Option(["--data-dir"], type=UserPath(), help="where TensorFlow Datasets lie"),
        click.Option(
            ["--split"],
            type=click.Choice(["train", "validation", "test"]),
            help="of the data  [default: test, or validation where there is no test split]",
        ),
        click.Option(
            ["--size"],
            type=click.Choice(["own", "network"]),
            default="own",
            show_default=True,
            help="count pixels at the images' own size, or at the network's input size, as training does",
        ),
        *TEST_TIME,
        click.Option(
            ["--batch-size"], type=click.IntRange(min=1), default=16, show_default=True, help="images at a time"
        ),
        click.Option(["-o", "output"], type=click.Choice(["text", "json"]), default="text", help="output format"),
    ]
)
@BEST
def evaluate(
    places: tuple[Path, ...],
    best: bool,
    data: str | None,
    data_dir: Path | None,
    split: str | None,
    size: str,
    batch_size: int,
    output: str,
    **choices: Any,
) -> None:
    """Score a trained network on a whole split, by default that for testing.

    Several are an ensemble: the mean of their probabilities is scored.
    """
    given = [name for name in ("window", "flip", "scales") if choices[name] not in (False, (1.0,))]
    if size == "network" and given:
        raise click.UsageError(f"--{given[0]} predicts at the images' own size: leave out --size")
    quiet_stderr()
    if data is not None:
        existing_data(data)  # before TensorFlow is imported
    from trainer.data.cache import counted
    from trainer.results.evaluation import evaluate as evaluate_split
    from trainer.results.evaluation import masker, table
    from trainer.results.own_size import evaluate_at_own_size
    from trainer.results.trained import run_of
    from trainer.results.trained_on import Overlap, compare_with_training

    trained = _joined(places, best)
    source, dataset = _opened(places[0], trained, data, data_dir)
    name = split or dataset.judge
    if name not in dataset.splits:
        there = " and ".join(dataset.splits)
        raise BadSettings(f"--split {name}: {dataset.name} has no such split, it has {there}; name one of them")
    if split is None and name != "test":
        echo_line(f"{dataset.name} has no test split: this is the {name} split, on which the checkpoint may be chosen")
    runs = [run for run in map(run_of, places) if run is not None]
    tested = [compare_with_training(run, dataset, name) for run in runs] or [Overlap(None, None)]
    for warning in dict.fromkeys(overlap.warning for overlap in tested if overlap.warning):
        echo_line(f"warning: {warning}")
    if size == "network":
        result = evaluate_split(masker(trained.model), dataset.seen_whole(name), trained.legend, batch_size)
    else:
        predictor = _predictor(trained, batch_size, choices)
        result = evaluate_at_own_size(predictor, source.splits[name], trained.legend)
    if output == "json":
        known = [overlap.trained_on for overlap in tested if overlap.trained_on is not None]
        seen = len(set().union(*known)) if len(known) == len(places) else None
        pictures = dataset.pictures
        counts = {"split": name, "images": len(pictures[name]), "test_images": len(pictures.get("test", ()))}
        echo(json.dumps({**result.to_json(), "size": size, **counts, "of_these_trained_on": seen}))
    else:
        at = "at their own size" if size == "own" else f"at {trained.size.across} pixels"
        echo(f"{counted({name: dataset.pictures[name]})} images, {at}\n\n{table(result)}")


@main.command(
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
    places, images = _members_and_images(names)
    terminal = quiet_stderr()
    from trainer.data.source import Reading
    from trainer.results.predict import find_images, is_done, predict_files

    files = find_images(images, out)
    done = {file for file in files if skip_done and is_done(file, out, with_probabilities=probabilities)}
    left = [file for file in files if file not in done]
    trained = _joined(places, best)
    predictor = _predictor(trained, batch_size, choices)
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


@main.command()
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
@click.option("--data", help="for TFLite: data to calibrate and to compare with  [default: the run's]")
@click.option("--data-dir", type=UserPath(), help="where TensorFlow Datasets lie")
@click.option("--images", type=click.IntRange(min=1), default=100, show_default=True, help="for TFLite: how many")
def export(
    place: Path,
    out: Path | None,
    best: bool,
    formats: tuple[str, ...],
    data: str | None,
    data_dir: Path | None,
    images: int,
) -> None:
    """Write a trained network as Keras, HDF5, SavedModel and TFLite files.

    TFLite files are compared with the network on test images; OUT/parity.json keeps what was found.
    """
    quiet_stderr()
    if data is not None:
        existing_data(data)  # before TensorFlow is imported
    from trainer.results.exporting import export_formats

    if out is None:
        if not RunDirectory(place).config.is_file():
            raise click.UsageError(f"{place} is no run directory; say with --out where the files go")
        out = RunDirectory(place).export
    trained = _trained(place, best, precision="float32")
    tflite = any(name.startswith("tflite-") for name in formats)
    dataset = _dataset(place, trained, data, data_dir) if tflite else None
    for line in export_formats(trained, out, formats or EXPORT_FORMATS[:3], dataset, images):
        echo(line)


@main.command(
    params=[
        click.Option(["-o", "output"], type=click.Choice(["text", "json"]), default="text", help="output format"),
        click.Option(["--pictures"], type=UserPath(), help="write a picture of 16 augmented examples"),
        *TrainConfig.flags(),
    ]
)
def verify_data(output: str, pictures: Path | None, **flags: Any) -> int:
    """Read every image and mask of --data, and count; ends with exit code 2 if one is bad."""
    from trainer.data.verify import verify
    from trainer.own_code import use_code

    config = TrainConfig.from_sources([], flag_layer(flags))
    check_places(config)
    use_code(config.code)
    if pictures is not None:  # before everything is read
        check_writable(pictures)
    report = verify(config)
    echo(json.dumps(report.as_json()) if output == "json" else report.text())
    if pictures is not None and report.first_bad is None:
        quiet_stderr()
        from trainer.data.samples import write_samples

        write_samples(config, pictures)
        echo(f"pictures: {pictures}", err=True)
    return DONE if report.first_bad is None else BAD_INPUT


@main.command(
    params=[
        click.Argument(["destination"], metavar="DESTINATION"),
        click.Option(
            ["--max-side"],
            type=click.IntRange(min=1),
            help="make larger pictures smaller, pixels of the larger side  [default: they stay as they are]",
        ),
        *(option for option in TrainConfig.flags() if option.name in _OF_READING),
    ]
)
def pack(destination: str, max_side: int | None, **flags: Any) -> None:
    """Write --data into a folder, gs://BUCKET/PATH or s3://BUCKET/PATH, as shards that training reads by position.

    Interrupted and begun again it goes on. '--data packed:DESTINATION' trains on it without a copy.
    """
    from maskfleet.child_processes import report_line
    from trainer.data.cache import counted
    from trainer.data.opening import open_source
    from trainer.data.packed.bucket import open_bucket
    from trainer.data.packed.packing import pack as pack_source
    from trainer.data.source import Reading
    from trainer.own_code import use_code

    config = TrainConfig.from_sources([], flag_layer(flags))
    use_code(config.code)
    if config.bands != 3:
        raise BadSettings(f"--bands {config.bands}: packed data has three bands; train on the folder itself")
    existing_data(config.data)  # before a folder is made
    bucket = open_bucket(destination, writing=True)
    reading = Reading.of(config)
    source = open_source(config.data, config.data_dir, reading)
    manifest = pack_source(source, reading, config.data, bucket, max_side, report_line)
    sizes = [shard.size for split in manifest.splits.values() for shard in split.shards]
    echo(
        f"{counted(source.splits)} images in {len(sizes)} shards, {format_bytes(sum(sizes))}; "
        f"'--data packed:{bucket.url}' trains on them"
    )


@main.command(
    params=[
        click.Option(["--out"], type=UserPath(), help="PNG file of the curve"),
        click.Option(["--steps"], type=click.IntRange(min=20), default=100, show_default=True, help="training steps"),
        click.Option(["-o", "output"], type=click.Choice(["text", "json"]), default="text", help="output format"),
        *(option for option in TrainConfig.flags() if option.name not in ("learning_rate", "schedule", "epochs")),
    ]
)
def find_lr(out: Path | None, steps: int, output: str, **flags: Any) -> int:
    """Find a --learning-rate: train for some steps while it grows, and look where the loss is lowest.

    Takes the settings that the run shall have. Nothing of it is kept but the picture.
    """
    settings = TrainConfig.from_sources([], flag_layer(flags))
    check_places(settings)
    if settings.start_from is not None and is_address(settings.start_from):
        raise BadSettings(
            f"--start-from {settings.start_from}: expected a place on this machine, as nothing is fetched for so few "
            "steps; bring it here with 'launcher pull'"
        )
    if out is not None:
        try:
            check_writable(out)
        except OSError as error:
            raise BadSettings(f"--out {out}: can't be written: {error.strerror or error}") from error
    with tempfile.TemporaryDirectory() as folder:
        write_settings(RunDirectory(Path(folder)), settings.model_dump(mode="json"))
        command = [sys.executable, "-m", "trainer.training.learning_rate_finder", folder, str(steps), output]
        command += [] if out is None else [str(out)]
        return subprocess.run(command, check=False, preexec_fn=end_with_parent(signal.SIGKILL)).returncode


@main.command(
    params=[
        click.Option(
            ["--models"],
            default="unet,fcn32s,fcn16s,fcn8s,deeplabv3plus,lraspp,pspnet,segformer",
            show_default=True,
            help="networks, joined by commas",
        ),
        click.Option(
            ["--upsampling"],
            default="transposed,nearest,bilinear,bicubic",
            show_default=True,
            help="ways to enlarge, joined by commas",
        ),
        click.Option(["--out"], type=UserPath(), required=True, help="folder for runs and tables"),
        click.Option(
            ["--images"], type=click.IntRange(min=1), default=6, show_default=True, help="in the picture's rows"
        ),
        *(option for option in TrainConfig.flags() if option.name not in ("model", "upsampling", "export")),
    ]
)
def compare(models: str, upsampling: str, out: Path, images: int, **flags: Any) -> None:
    """Train every network with every up-sampling, and put what they reach into one table and one picture.

    None is exported; 'trainer export' does that with the one of your choice.
    Begun again with the same settings it goes on with what is not done.
    """
    quiet_stderr()
    settings = TrainConfig.from_sources([], flag_layer(flags))
    check_places(settings)  # before TensorFlow is imported
    from trainer.results.compare import chooser, grid, train_all, write_comparison

    configs = grid(settings, models.split(","), upsampling.split(","))
    for line in train_all(configs, out):
        echo(line)
    echo("\n" + write_comparison(configs, out, images))
    echo(f"scores are of the {chooser(configs, out)} split")
    echo(f"{out / 'compare.png'}, {out / 'compare.csv'}; tensorboard --logdir {out}")


@main.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=UserPath())
@click.option("--out", type=UserPath(), required=True, help="the HTML file")
@BEST
def report(runs: tuple[Path, ...], out: Path, best: bool) -> None:
    """Write one self-contained page about runs: curves, classes, predictions, and what differs between them."""
    quiet_stderr()
    from trainer.results.report import write_report

    write_report([RunDirectory(run) for run in runs], out, best=best)
    echo(f"report: {out}")


@main.command(
    params=[
        click.Argument(["place"], metavar="RUN|CHECKPOINT|MODEL", type=UserPath()),
        click.Option(["--data"], help="data whose masks are looked at  [default: the run's]"),
        click.Option(["--data-dir"], type=UserPath(), help="where TensorFlow Datasets lie"),
        click.Option(
            ["--split"], type=click.Choice(["train", "validation", "test"]), help="of the data  [default: all]"
        ),
        click.Option(["--top"], type=click.IntRange(min=1), default=20, show_default=True, help="how many are shown"),
        click.Option(["--out"], type=UserPath(), help="HTML file with the pictures of these"),
        click.Option(["-o", "output"], type=click.Choice(["text", "json"]), default="text", help="output format"),
    ]
)
@BEST
def rank_labels(
    place: Path,
    best: bool,
    data: str | None,
    data_dir: Path | None,
    split: str | None,
    top: int,
    out: Path | None,
    output: str,
) -> None:
    """List the pictures whose masks look wrong to a trained network, worst first.

    It can't tell a wrong mask from a picture that it has not learnt to read: look at them. A network that was trained
    on the pictures themselves finds most, one of another fold (--folds, --fold) all the same and more.
    """
    quiet_stderr()
    if data is not None:
        existing_data(data)  # before TensorFlow is imported
    from trainer.data.cache import Arrays
    from trainer.results.label_quality import rank, table
    from trainer.results.label_report import check_out, write_label_report

    if out is not None:
        check_out(out)
    trained = _trained(place, best)
    dataset = _dataset(place, trained, data, data_dir)
    if split is not None and split not in dataset.splits:
        there = " and ".join(dataset.splits)
        raise BadSettings(f"--split {split}: {dataset.name} has no such split, it has {there}; name one of them")
    asked = {name: each for name, each in dataset.splits.items() if split in (None, name)}
    splits = {name: each for name, each in asked.items() if isinstance(each, Arrays)}
    for name in asked.keys() - splits.keys():
        echo_line(f"the {name} pictures are left out: after --fit crop they are only seen in parts")
    suspects = rank(trained.model, splits, trained.legend)
    if output == "json":
        echo(json.dumps([dataclasses.asdict(suspect) for suspect in suspects]))
    else:
        echo(table(suspects, top))
    if out is not None:
        write_label_report(suspects[:top], trained, dataset, out)
        echo(f"report: {out}", err=output == "json")


@main.command()
@RUN_OR_CHECKPOINT
@OUTPUT
def inspect(place: Path, output: str) -> None:
    """Show a checkpoint's step, epoch and parameters, and a SHA-256 over all its variables."""
    quiet_stderr()
    from trainer.checkpoints.inspection import inspect_checkpoint

    facts = inspect_checkpoint(place)
    if output == "json":
        echo(json.dumps(facts))
    else:
        for key, value in facts.items():
            echo(f"{key:20} {value}")


def _with_progress(work: Iterable[T], count: int, terminal: TextIO) -> Iterator[T]:
    """``work`` with a bar that grows, if ``terminal`` is one, and is gone at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    console = Console(file=terminal)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield from progress.track(work, total=count)


def _trained(place: Path, best: bool, precision: Literal["float32"] | None = None) -> Trained:
    """The network, after a line where it was chosen on the test split."""
    from trainer.results.trained import chosen_on_test, load_trained

    trained = load_trained(place, precision, best=best)
    if best and (warning := chosen_on_test(RunDirectory(place))):
        echo_line(f"warning: {warning}")
    return trained


def _joined(places: Sequence[Path], best: bool) -> Trained:
    """The one network, or all as an ensemble."""
    from trainer.results.ensemble import joined

    return joined([_trained(place, best) for place in places], places)


def _members_and_images(names: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The first of ``names`` and every other network that comes before the images, and those."""
    places = [Path(UserPath().convert(name, None, None)) for name in names]
    count = 1
    while count < len(places) and _is_network(places[count]):
        count += 1
    if count == len(names):
        raise click.UsageError("Missing argument 'IMAGES...': name files, folders or patterns after the network")
    return places[:count], list(names[count:])


def _is_network(place: Path) -> bool:
    """By its name, or as a run has its settings in it."""
    named = place.suffix in (".keras", ".h5") or re.fullmatch(r"step-\d+(\..*)?", place.name) is not None
    return named or RunDirectory(place).config.is_file()


def _predictor(trained: Trained, batch_size: int, choices: Mapping[str, Any]) -> Predictor:
    """The network with the choices of :data:`TEST_TIME`."""
    from trainer.results.predict import Predictor, network_of

    classes = len(trained.legend.classes)
    network = network_of(trained.model)
    return Predictor.fitted(trained.fit, network, trained.size, classes, batch_size=batch_size, **choices)


def _dataset(place: Path, trained: Trained, data: str | None, data_dir: Path | None) -> Dataset:
    """The data that the flags name, or the run's, at the network's input size."""
    return _opened(place, trained, data, data_dir)[1]


def _opened(place: Path, trained: Trained, data: str | None, data_dir: Path | None) -> tuple[Source, Dataset]:
    """The data as it lies, and at the network's input size."""
    from trainer.data.cache import cached, open_divided
    from trainer.results.evaluation import check_classes

    data, data_dir, reading, division = _place_of_data(place, trained, data, data_dir)
    source = open_divided(data, data_dir, reading, division)
    dataset = cached(source, trained.size, data, reading=reading, fit=trained.fit)
    if warning := check_classes(trained.legend, dataset, str(place)):
        echo_line(f"warning: {warning}")
    return source, dataset


def _place_of_data(
    place: Path, trained: Trained, data: str | None, data_dir: Path | None
) -> tuple[str, Path | None, Reading, Division]:
    """What the flags name, or what the run was trained on; other data has names and splits of its own."""
    from trainer.data.source import Reading
    from trainer.data.splits import AS_IT_IS, Division

    reading = Reading.of(trained.config) if trained.config else Reading(bands=trained.bands)
    if data is not None:
        return data, data_dir, dataclasses.replace(reading, mask_pattern=None, mask_threshold=None), AS_IT_IS
    if trained.config is None:
        raise click.UsageError(f"{place} does not say what data it was trained on; name some with --data")
    return trained.config.data, data_dir or trained.config.data_dir, reading, Division.of(trained.config)


if __name__ == "__main__":
    main()
