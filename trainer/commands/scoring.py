"""``trainer evaluate``, ``rank-labels``, ``report`` and ``inspect``."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from maskfleet.command_line import UserPath, echo, echo_line
from maskfleet.data_setting import existing_data
from maskfleet.errors import BadSettings
from maskfleet.export_manifest import is_exported
from maskfleet.out_setting import check_out
from maskfleet.quiet import quiet_stderr
from maskfleet.run_directory import RunDirectory
from maskfleet.start_setting import existing_network
from trainer.commands.networks import load, open_both, open_dataset, predictor_of, scored_network
from trainer.commands.options import BEST, OUTPUT, RUN_OR_CHECKPOINT, TEST_TIME

if TYPE_CHECKING:
    from trainer.data.cache import Dataset


@click.command(
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
        OUTPUT,
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

    An exported file is scored by its own runtime: .keras, .h5, .onnx, .xml (OpenVINO), .tflite, or a SavedModel's
    folder. Several networks are an ensemble: the mean of their probabilities is scored.
    """
    given = [name for name in ("window", "flip", "scales") if choices[name] not in (False, (1.0,))]
    if size == "network" and given:
        raise click.UsageError(f"--{given[0]} predicts at the images' own size: leave out --size")
    quiet_stderr()
    for place in places:  # before TensorFlow is imported
        if not is_exported(place):
            existing_network(place, "a .keras, .h5, .onnx, .xml or .tflite file, or a SavedModel's folder")
    if data is not None:
        existing_data(data)
    from trainer.data.cache import counted
    from trainer.results.evaluation import evaluate as evaluate_split
    from trainer.results.evaluation import masker, table
    from trainer.results.exported import Exported
    from trainer.results.own_size import evaluate_at_own_size

    trained = scored_network(places, best)
    if given and isinstance(trained, Exported) and trained.network is None:
        raise BadSettings(
            f"--{given[0]}: {places[0]} prepares pictures by itself; leave --{given[0]} out, or score the run"
        )
    source, dataset = open_both(places[0], trained, data, data_dir)
    name = split or dataset.judge
    _check_split(name, dataset)
    if split is None and name != "test":
        echo_line(f"{dataset.name} has no test split: this is the {name} split, on which the checkpoint may be chosen")
    trained_on = _warn_of_overlap(places, dataset, name)
    if size == "network":
        masks_of = trained.masks_of if isinstance(trained, Exported) else masker(trained.model)
        result = evaluate_split(masks_of, dataset.seen_whole(name), trained.legend, batch_size)
    else:
        predictor = (
            trained.segmenter(batch_size=batch_size, **choices)
            if isinstance(trained, Exported)
            else predictor_of(trained, batch_size, choices)
        )
        result = evaluate_at_own_size(predictor, source.splits[name], trained.legend)
    if output == "json":
        pictures = dataset.pictures
        counts = {"split": name, "images": len(pictures[name]), "test_images": len(pictures.get("test", ()))}
        echo(json.dumps({**result.to_json(), "size": size, **counts, "of_these_trained_on": trained_on}))
    else:
        at = "at their own size" if size == "own" else f"at {trained.size.across} pixels"
        echo(f"{counted({name: dataset.pictures[name]})} images, {at}\n\n{table(result)}")


@click.command(
    params=[
        click.Argument(["place"], metavar="RUN|CHECKPOINT|MODEL", type=UserPath()),
        click.Option(["--data"], help="data whose masks are looked at  [default: the run's]"),
        click.Option(["--data-dir"], type=UserPath(), help="where TensorFlow Datasets lie"),
        click.Option(
            ["--split"], type=click.Choice(["train", "validation", "test"]), help="of the data  [default: all]"
        ),
        click.Option(["--top"], type=click.IntRange(min=1), default=20, show_default=True, help="how many are shown"),
        click.Option(["--out"], type=UserPath(), help="HTML file with the pictures of these"),
        OUTPUT,
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
    existing_network(place)  # before TensorFlow is imported
    if data is not None:
        existing_data(data)
    from trainer.data.cache import Arrays
    from trainer.results.label_quality import rank, table
    from trainer.results.label_report import write_label_report

    if out is not None:
        check_out(out)
    trained = load(place, best)
    dataset = open_dataset(place, trained, data, data_dir)
    if split is not None:
        _check_split(split, dataset)
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


@click.command()
@click.argument("runs", metavar="RUN...", nargs=-1, required=True, type=UserPath())
@click.option("--out", type=UserPath(), required=True, help="the HTML file")
@BEST
def report(runs: tuple[Path, ...], out: Path, best: bool) -> None:
    """Write one self-contained page about runs: curves, classes, predictions, and what differs between them."""
    quiet_stderr()
    from trainer.results.report import write_report

    write_report([RunDirectory(run) for run in runs], out, best=best)
    echo(f"report: {out}")


@click.command(params=[OUTPUT])
@RUN_OR_CHECKPOINT
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


def _warn_of_overlap(places: Sequence[Path], dataset: Dataset, split: str) -> int | None:
    """How many pictures of the split any of the networks was trained on; None where a network does not say."""
    from trainer.results.trained import run_of
    from trainer.results.trained_on import compare_with_training

    overlaps = [compare_with_training(run, dataset, split) for run in map(run_of, places) if run is not None]
    for warning in dict.fromkeys(overlap.warning for overlap in overlaps if overlap.warning):
        echo_line(f"warning: {warning}")
    known = [overlap.trained_on for overlap in overlaps if overlap.trained_on is not None]
    return len(set().union(*known)) if len(known) == len(places) else None


def _check_split(split: str, dataset: Dataset) -> None:
    if split not in dataset.splits:
        there = " and ".join(dataset.splits)
        raise BadSettings(f"--split {split}: {dataset.name} has no such split, it has {there}; name one of them")
