"""A run that begins with the weights of another network."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from maskfleet.config import TrainConfig
from maskfleet.errors import BadSettings
from maskfleet.files import write_json
from maskfleet.run_directory import RunDirectory
from maskfleet.start_setting import check_start, start_place
from trainer.checkpoints.reading import optimizer_by_path, weights_by_path
from trainer.checkpoints.store import CheckpointStore
from trainer.data.source import palette
from trainer.models.network import Network, build_network
from trainer.objective.optimizers import build_optimizer
from trainer.objective.schedules import learning_rate
from trainer.results.exporting import export
from trainer.results.legend import Legend
from trainer.training.starting import class_axes, match, start_from

CLASSES = ("pet", "ground", "rim")
LEGEND = Legend(CLASSES, palette(3), "ground")
OLD = TrainConfig(encoder_weights="none", unfreeze_from="all", image_size=32, decoder_filters=16, ema_decay=0.5)


@pytest.fixture(scope="module")
def old() -> Network:
    network = build_network(OLD, 3)
    for variable in network.model.variables:
        variable.assign(tf.random.stateless_normal(variable.shape, (1, len(variable.path))))
    return network


@pytest.fixture(scope="module")
def run(old: Network, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """Whose averages are its weights doubled."""
    run = RunDirectory(tmp_path_factory.mktemp("run"))
    optimizer = build_optimizer(OLD, learning_rate(OLD, steps_per_epoch=1, total_steps=9, scale=1))
    optimizer.build(old.model.trainable_variables)
    slots = {variable.path.rpartition("/")[2]: variable for variable in optimizer.variables}
    for variable in old.model.trainable_variables:
        slots[f"{variable.path.replace('/', '_')}_average"].assign(2 * variable)
    state = tf.train.Checkpoint(weights=weights_by_path(old.model), optimizer=optimizer_by_path(optimizer))
    store = CheckpointStore(run, state, keep=2)
    store.save(7, 2, 2.0, 0.6, 0.6)
    store.wait()
    write_json(run.config, {"settings": OLD.model_dump(mode="json"), "resolved": LEGEND.to_json()})
    export(old.model, run.export, LEGEND)
    return run


def started(place: Path, classes: tuple[str, ...], **settings: object) -> tuple[str, dict[str, np.ndarray], Network]:
    config = TrainConfig(image_size=32, decoder_filters=16, start_from=str(place), **settings)
    network = build_network(config, len(classes))
    line = start_from(place, config, network, classes)
    return line, {variable.path: variable.numpy() for variable in network.model.variables}, network


def test_the_same_classes_take_every_weight_and_the_encoder_counts_as_trained(run: RunDirectory, old: Network) -> None:
    for place, factor in ((run.path, 2), (run.checkpoint_prefix(7), 2), (run.export / "unet.keras", 1)):
        line, values, network = started(place, CLASSES)
        trainable = {variable.path for variable in old.model.trainable_variables}
        for variable in old.model.variables:
            expected = variable.numpy() * (factor if variable.path in trainable else 1)
            np.testing.assert_array_equal(values[variable.path], expected, variable.path)
        assert f": {len(values)} of {len(values)} variables taken" in line
        assert line.endswith("taken")
    assert any(not layer.trainable for layer in network.encoder.layers if "bn" in layer.name.lower())
    config = TrainConfig(start_from="x")
    assert (config.encoder_weights, config.unfreeze_from, config.encoder_is_trained) == ("none", "stride-8", True)


def test_classes_of_the_same_name_keep_their_rows_wherever_they_stand(run: RunDirectory, old: Network) -> None:
    line, values, network = started(run.export / "unet.keras", ("rim", "tail", "pet"))
    fresh = {variable.path: variable.numpy() for variable in build_network(network_config(), 3).model.variables}
    given = {variable.path: variable.numpy() for variable in old.model.variables}
    kernel = next(path for path in values if path.startswith("logits") and path.endswith("kernel"))
    (axis,) = class_axes(network_config(), network, 3)[kernel]
    for new, source in ((0, 2), (2, 0)):
        np.testing.assert_array_equal(np.take(values[kernel], new, axis), np.take(given[kernel], source, axis))
    np.testing.assert_array_equal(np.take(values[kernel], 1, axis), np.take(fresh[kernel], 1, axis))
    assert "of the 2 with a row for each class those of rim, pet" in line


def network_config() -> TrainConfig:
    return TrainConfig(image_size=32, decoder_filters=16, start_from="x")


def test_other_classes_get_a_new_head_and_the_line_names_it(run: RunDirectory) -> None:
    line, values, _ = started(run.path, ("cell", "glass"))
    assert re.search(rf": {len(values) - 2} of {len(values)} variables taken; not taken, and as new: logits", line)
    assert "; not used: logits" in line


def test_another_decoder_takes_the_encoder(run: RunDirectory) -> None:
    line, values, network = started(run.path, CLASSES, model="fcn8s")
    assert f": {len(network.encoder.variables)} of {len(values)} variables taken" in line


def test_rows_along_two_axes_are_those_of_the_same_two_classes() -> None:
    own, given = {"up": np.zeros((2, 2))}, {"up": np.arange(9).reshape(3, 3)}
    found = match(own, given, {"up": (0, 1)}, ("c", "a"), ("a", "b", "c"))
    np.testing.assert_array_equal(found.values["up"], [[8, 6], [2, 0]])
    assert match(own, given, {"up": (0, 1)}, ("x", "y"), ("a", "b", "c")).left == ("up",)
    assert match(own, {"up": np.zeros((2, 3))}, {}, ("a",), ("a",)).left == ("up",)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"encoder": "vgg16"},
            "expected weights of this network, those of --encoder vgg16 at least, found 0 of 26 by name and shape in "
            "step 7, which was trained with mobilenet_v2; name the network that it is of",
        ),
    ],
)
def test_what_does_not_fit_is_refused(settings: dict[str, object], message: str, run: RunDirectory) -> None:
    with pytest.raises(BadSettings, match=re.escape(message)):
        started(run.path, CLASSES, **settings)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            "{}/nowhere",
            "expected a run, one of its checkpoints (RUN/checkpoints/step-N) or an exported network (.keras",
        ),
        ("{}", "found a folder without config.json"),
        ("{}/notes.txt", "found another file"),
        ("{}/checkpoints/step-00000009", "found nothing"),
        ("gs://bucket", "expected gs://BUCKET/PATH or s3://BUCKET/PATH"),
        ("http://host/run", "expected gs://BUCKET/PATH or s3://BUCKET/PATH"),
    ],
)
def test_a_start_that_is_not_there_is_refused_before_anything_is_made(place: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(BadSettings, match=re.escape(message)):
        check_start(place.format(tmp_path))


def test_what_came_from_a_bucket_lies_in_the_run(run: RunDirectory) -> None:
    for address, place in (
        ("gs://bucket/runs/a", ""),
        ("s3://bucket/runs/a/checkpoints/step-00000007", "checkpoints/step-00000007"),
        ("gs://bucket/runs/a/checkpoints/manifests/step-00000007.json", "checkpoints/step-00000007"),
        ("gs://bucket/net.keras", "net.keras"),
    ):
        check_start(address)
        assert start_place(address, run) == run.start / place
    assert start_place("/runs/a", run) == Path("/runs/a")
