"""The networks that a command names, and the data that belongs to them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from maskfleet.command_line import UserPath, echo_line
from maskfleet.errors import BadSettings
from maskfleet.export_manifest import is_exported
from maskfleet.run_directory import RunDirectory
from maskfleet.start_setting import is_there

if TYPE_CHECKING:
    from trainer.data.cache import Dataset
    from trainer.data.source import Reading, Source
    from trainer.data.splits import Division
    from trainer.results.exported import Exported
    from trainer.results.predict import Predictor
    from trainer.results.trained import Trained


def load(place: Path, best: bool, precision: Literal["float32"] | None = None) -> Trained:
    """The network, after a line where it was chosen on the test split."""
    from trainer.results.trained import chosen_on_test, load_trained

    trained = load_trained(place, precision, best=best)
    if best and (warning := chosen_on_test(RunDirectory(place))):
        echo_line(f"warning: {warning}")
    return trained


def joined_network(places: Sequence[Path], best: bool) -> Trained:
    """The one network, or all as an ensemble."""
    from trainer.results.ensemble import joined

    return joined([load(place, best) for place in places], places)


def scored_network(places: Sequence[Path], best: bool) -> Trained | Exported:
    """The one network, which may be a file of any format, or all as an ensemble.

    Raises:
        BadSettings: an ensemble of what other runtimes compute, or the best of what is no run.
    """
    from trainer.results.exported import load_exported

    others = [place for place in places if is_exported(place)]
    if not others:
        return joined_network(places, best)
    if len(places) > 1:
        raise BadSettings(
            f"{others[0]}: expected runs, checkpoints, .keras or .h5 files, of which alone an ensemble is made; "
            "score this one by itself"
        )
    if best:
        raise BadSettings(f"--best: expected a run directory, found {others[0]}; leave --best out, or name the run")
    return load_exported(others[0])


def members_and_images(names: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The first of ``names`` and every other network that is there before the images, and those."""
    places = [Path(UserPath().convert(name, None, None)) for name in names]
    count = 1
    while count < len(places) and is_there(places[count]):
        count += 1
    if count == len(names):
        raise click.UsageError("Missing argument 'IMAGES...': name files, folders or patterns after the network")
    return places[:count], list(names[count:])


def predictor_of(trained: Trained, batch_size: int, choices: Mapping[str, Any]) -> Predictor:
    """The network with the choices of :data:`TEST_TIME`."""
    from trainer.results.predict import Predictor, network_of

    classes = len(trained.legend.classes)
    network = network_of(trained.model)
    return Predictor.fitted(trained.fit, network, trained.size, classes, batch_size=batch_size, **choices)


def open_dataset(place: Path, trained: Trained | Exported, data: str | None, data_dir: Path | None) -> Dataset:
    """The data that the flags name, or the run's, at the network's input size."""
    return open_both(place, trained, data, data_dir)[1]


def open_source(place: Path, trained: Trained | Exported, data: str | None, data_dir: Path | None) -> Source:
    """The data that the flags name, or the run's, as it lies."""
    return _opened(place, trained, data, data_dir)[0]


def _opened(
    place: Path, trained: Trained | Exported, data: str | None, data_dir: Path | None
) -> tuple[Source, str, Reading]:
    """The data, what names it, and how it is read."""
    from trainer.data.cache import open_divided
    from trainer.results.evaluation import check_classes

    data, data_dir, reading, division = _place_of_data(place, trained, data, data_dir)
    source = open_divided(data, data_dir, reading, division)
    if warning := check_classes(trained.legend, source, str(place)):
        echo_line(f"warning: {warning}")
    return source, data, reading


def open_both(
    place: Path, trained: Trained | Exported, data: str | None, data_dir: Path | None
) -> tuple[Source, Dataset]:
    """The data as it lies, and at the network's input size."""
    from trainer.data.cache import cached

    source, named, reading = _opened(place, trained, data, data_dir)
    return source, cached(source, trained.size, named, reading=reading, fit=trained.fit)


def _place_of_data(
    place: Path, trained: Trained | Exported, data: str | None, data_dir: Path | None
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
