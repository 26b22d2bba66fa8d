"""Networks from runs, checkpoints and files, and their evaluation."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from maskfleet.config import TrainConfig
from maskfleet.errors import BadInput, BadSettings, NotFound
from maskfleet.files import write_json
from maskfleet.run_directory import RunDirectory
from trainer.checkpoints.reading import optimizer_by_path, weights_by_path
from trainer.checkpoints.store import CheckpointStore
from trainer.data.cache import Arrays, Dataset
from trainer.data.source import palette
from trainer.models.network import Network, build_network
from trainer.objective.optimizers import build_optimizer
from trainer.objective.schedules import learning_rate
from trainer.results.evaluation import check_classes, evaluate, masker, table
from trainer.results.exporting import export
from trainer.results.legend import Legend
from trainer.results.trained import load_trained

LEGEND = Legend(("pet", "ground", "rim"), np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.uint8), "ground")
CONFIG = TrainConfig(
    encoder_weights="none", unfreeze_from="none", image_size=32, model="fcn8s", upsampling="transposed", ema_decay=0.5
)
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def network() -> Network:
    """Its own weights are 1 where it is trained, the averages of them 2."""
    network = build_network(CONFIG, classes=3)
    for variable in network.model.trainable_variables:
        variable.assign(tf.ones_like(variable))
    return network


@pytest.fixture(scope="module")
def run(network: Network, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = RunDirectory(tmp_path_factory.mktemp("run"))
    optimizer = build_optimizer(CONFIG, learning_rate(CONFIG, steps_per_epoch=1, total_steps=9, scale=1))
    optimizer.build(network.model.trainable_variables)
    for name, variable in optimizer_by_path(optimizer).items():
        if name.endswith("_average"):
            variable.assign(2 * tf.ones_like(variable))
    state = tf.train.Checkpoint(weights=weights_by_path(network.model), optimizer=optimizer_by_path(optimizer))
    store = CheckpointStore(run, state, keep=2)
    store.save(3, 1, 1.0, 0.5, 0.5)
    store.save(7, 2, 2.0, 0.6, 0.6)
    store.wait()
    write_json(run.config, {"settings": CONFIG.model_dump(mode="json"), "resolved": LEGEND.to_json()})
    return run


def test_a_run_gives_its_averaged_weights_with_its_legend_and_settings(run: RunDirectory, network: Network) -> None:
    for place in (run.path, run.checkpoint_prefix(3), run.checkpoint_manifest(7)):
        trained = load_trained(place)
        assert (trained.legend.classes, trained.legend.background) == (LEGEND.classes, "ground")
        assert trained.config == CONFIG
        assert trained.size == (32, 32)
        values = {variable.path: float(np.mean(variable)) for variable in trained.model.variables}
        assert values["score_32/kernel"] == values["logits/kernel"] == 2
        assert values["Conv1/kernel"] == float(np.mean(network.encoder.get_layer("Conv1").kernel))


def test_a_file_has_the_legend_beside_it_or_numbers(network: Network, tmp_path: Path) -> None:
    export(network.model, tmp_path / "export", LEGEND)
    trained = load_trained(tmp_path / "export" / "fcn8s.keras")
    assert (trained.legend.classes, trained.config) == (LEGEND.classes, None)
    np.testing.assert_array_equal(trained.model(IMAGES), network.model(IMAGES))
    (tmp_path / "export" / "classes.json").unlink()
    assert load_trained(tmp_path / "export" / "fcn8s.h5").legend.classes == ("class 0", "class 1", "class 2")
    (tmp_path / "export" / "classes.json").write_text(
        '{"classes": ["one"], "colours": [[1, 2, 3]], "background": null}'
    )
    with pytest.raises(BadInput, match=r"classes\.json: expected the 3 classes of fcn8s\.keras, found 1"):
        load_trained(tmp_path / "export" / "fcn8s.keras")


def test_a_network_of_another_export_than_its_classes_is_refused(network: Network, tmp_path: Path) -> None:
    export(network.model, tmp_path / "export", Legend.unnamed(3))
    file = tmp_path / "export" / f"{network.model.name}.h5"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(
        BadInput, match=r"is not of the export that export\.json beside it names .*'trainer export' again"
    ):
        load_trained(file)
    file.write_bytes(content)
    (tmp_path / "export" / "export.json").write_text("{}")  # somebody else's
    assert load_trained(file).legend.classes == Legend.unnamed(3).classes


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_file_computes_in_the_precision_that_is_asked_for(suffix: str, tmp_path: Path) -> None:
    """TFLite's converter knows no bfloat16."""
    mixed = build_network(CONFIG.model_copy(update={"precision": "bfloat16"}), classes=3)
    export(mixed.model, tmp_path, LEGEND)
    file = tmp_path / f"fcn8s{suffix}"
    assert "bfloat16" in {layer.compute_dtype for layer in load_trained(file).model._flatten_layers()}
    single = load_trained(file, precision="float32").model
    assert {layer.compute_dtype for layer in single._flatten_layers()} == {"float32"}
    expected = build_network(CONFIG, classes=3).model
    expected.set_weights(mixed.model.get_weights())
    np.testing.assert_array_equal(single(IMAGES), expected(IMAGES))
    assert single.name == "fcn8s"


def test_the_best_checkpoint_is_the_one_with_the_highest_score(network: Network, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    write_json(
        run.config,
        {"settings": {**CONFIG.model_dump(mode="json"), "ema_decay": 0}, "resolved": LEGEND.to_json()},
    )
    weights = {path: tf.Variable(variable) for path, variable in weights_by_path(network.model).items()}
    store = CheckpointStore(run, tf.train.Checkpoint(weights=weights), keep=9)

    def save(step: int, score: float | None) -> None:
        kernel = weights["logits/kernel"]
        kernel.assign(tf.fill(kernel.shape, float(step)))
        store.save(step, 1, 1.0, None, score)
        store.wait()

    def loaded(*, best: bool) -> float:
        return float(np.mean(weights_by_path(load_trained(tmp_path, best=best).model)["logits/kernel"]))

    save(1, None)
    with pytest.raises(NotFound) as caught:
        load_trained(tmp_path, best=True)
    assert str(caught.value) == (
        f"{tmp_path}: --best: expected a checkpoint that was validated, found none among the steps [1]; leave --best "
        "out for the newest"
    )
    save(2, 0.5)
    save(3, 0.4)
    save(4, float("nan"))
    assert (loaded(best=True), loaded(best=False)) == (2, 4)


@pytest.mark.parametrize("place", ["checkpoints/step-00000003", "unet.keras"])
def test_only_a_run_has_a_best_checkpoint(place: str, tmp_path: Path) -> None:
    (tmp_path / "unet.keras").touch()
    with pytest.raises(BadSettings, match=r"--best: expected a run directory, found .*; leave --best out"):
        load_trained(tmp_path / place, best=True)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, NotFound, "place: expected a run directory, or a .keras or .h5 file, found nothing"),
        ({}, BadInput, "place: expected a run directory with config.json, or a .keras or .h5 file"),
        ({}, BadInput, "or a .keras or .h5 file, found a folder without config.json"),
        (
            {"place.png": "text"},
            BadInput,
            "place.png: expected a run directory with config.json, or a .keras or .h5 file, found another file",
        ),
        ({"place.keras": "text"}, BadInput, "place.keras: expected a network that 'trainer export' wrote"),
        ({"config.json": "{"}, BadInput, "config.json: expected YAML or JSON"),
        ({"config.json": '{"settings": {}}'}, BadInput, "config.json: expected classes, colours and background"),
        (
            {"config.json": json.dumps({"settings": {}, "resolved": LEGEND.to_json()})},
            NotFound,
            "place: expected a complete checkpoint, found steps []",
        ),
    ],
)
def test_anything_else_is_one_line(
    content: dict[str, str] | None, error: type[Exception], message: str, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    if content is not None:
        place.mkdir()
        for name, text in content.items():
            (place / name).write_text(text)
            if name.startswith("place."):
                place = place / name
    with pytest.raises(error) as caught:
        load_trained(place)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_evaluation_counts_every_image_once() -> None:
    masks = np.zeros((5, 8, 8), np.uint8)
    masks[:, 4:] = 1
    masks[4, 0, 0] = 255
    images = np.repeat(masks[..., None], 3, axis=-1)
    images[0, :4] = 1  # predicted wrongly
    seen = []

    def predict(images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return images[..., 0] % 255

    result = evaluate(predict, Arrays(tuple("abcde"), images, masks), LEGEND, batch_size=2)
    assert seen == [2, 2, 1]
    np.testing.assert_array_equal(result.scores.matrix, [[4 * 32 - 1, 32, 0], [0, 5 * 32, 0], [0, 0, 0]])
    np.testing.assert_allclose(result.image_miou, [0.25, 1, 1, 1, 1])
    assert result.boundary_f1["pet"] == pytest.approx(4 / 5)
    assert math.isnan(result.boundary_f1["rim"])
    facts = result.to_json()
    assert (facts["iou"]["rim"], facts["boundary_f1"]["rim"]) == (None, None)
    assert json.loads(json.dumps(facts)) == facts
    assert "pet" in table(result)


def test_an_evaluation_asks_for_as_many_images_as_memory_holds() -> None:
    seen = []

    def predict(images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return images[..., 0]

    split = Arrays(tuple("abc"), np.zeros((3, 512, 512, 3), np.uint8), np.zeros((3, 512, 512), np.uint8))
    evaluate(predict, split, Legend.unnamed(150))
    evaluate(predict, split, Legend.unnamed(2))
    assert seen == [1, 1, 1, 3]


def data(*classes: str) -> Dataset:
    nothing = Arrays((), IMAGES[:0], IMAGES[:0, ..., 0])
    return Dataset("set", classes, palette(len(classes)), None, nothing, nothing, "")


@pytest.mark.parametrize(
    ("classes", "end"),
    [
        (["pet", "ground"], "(pet, ground, rim), found 2 in set (pet, ground)"),
        (["ground", "pet", "rim"], "in this order, found 3 in set (ground, pet, rim); give each class the label that"),
        (["pet", "rim", "sky"], "in this order, found 3 in set (pet, rim, sky); give each class the label that"),
    ],
)
def test_data_whose_labels_mean_something_else_is_refused(classes: list[str], end: str) -> None:
    with pytest.raises(BadSettings) as caught:
        check_classes(LEGEND, data(*classes), "runs/a")
    assert str(caught.value).startswith("--data: expected the 3 classes of runs/a (pet, ground, rim)")
    assert end in str(caught.value)


def test_data_whose_classes_have_other_names_is_told() -> None:
    assert check_classes(LEGEND, data("pet", "ground", "edge"), "runs/a") == (
        "--data: expected the 3 classes of runs/a (pet, ground, rim), found 3 in set (pet, ground, edge): they are "
        "taken for the same, in this order"
    )
    assert check_classes(LEGEND, data(*LEGEND.classes), "runs/a") is None
    assert check_classes(Legend.unnamed(3), data(*LEGEND.classes), "unet.keras") is None


def test_a_predictor_gives_the_class_of_the_highest_logit(network: Network) -> None:
    masks = masker(network.model)(IMAGES)
    assert masks.dtype == np.uint8
    np.testing.assert_array_equal(masks, np.argmax(network.model(IMAGES), axis=-1))
