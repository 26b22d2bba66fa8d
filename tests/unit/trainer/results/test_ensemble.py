"""Several networks say the mean of what they say, through everything that predicts."""

from __future__ import annotations

from pathlib import Path

import click
import keras
import numpy as np
import pytest
import tensorflow as tf

from maskfleet.errors import BadSettings
from maskfleet.run_directory import RunDirectory
from maskfleet.text import one_line
from trainer.commands.networks import members_and_images
from trainer.data.source import palette
from trainer.results.ensemble import joined
from trainer.results.evaluation import masker
from trainer.results.legend import Legend
from trainer.results.predict import Predictor, network_of
from trainer.results.trained import Trained

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 40, 56, 3), np.uint8)


def member(seed: int, classes: tuple[str, ...] = ("a", "b", "c"), size: int = 32, bands: int = 3) -> Trained:
    """A network of one layer; all have the same name, as the runs of one recipe."""
    pixels = keras.Input((size, size, bands))
    layer = keras.layers.Conv2D(
        len(classes), 3, padding="same", kernel_initializer=keras.initializers.RandomNormal(seed=seed)
    )
    model = keras.Model(pixels, layer(keras.layers.Rescaling(1 / 50)(pixels)), name="unet")
    return Trained(model, Legend(classes, palette(len(classes)), None), None)


def probabilities(trained: Trained, **choices: object) -> list[np.ndarray]:
    """Of each image at its own size."""
    predictor = Predictor.fitted(
        trained.fit,
        network_of(trained.model),
        trained.size,
        len(trained.legend.classes),
        **choices,  # type: ignore[arg-type]
    )
    found = []
    for image, tiles in zip(IMAGES, predictor.tiles(list(IMAGES)), strict=True):
        whole = np.zeros((*image.shape[:2], len(trained.legend.classes)), np.float32)
        for tile in tiles:
            whole[tile.rows, tile.columns] = tile.scores
        found.append(whole)
    return found


def test_an_ensemble_says_the_mean_of_its_members_probabilities() -> None:
    members = [member(seed) for seed in range(3)]
    images = tf.constant(IMAGES[:, :32, :32])
    alone = [tf.nn.softmax(each.model(images)).numpy() for each in members]
    whole = joined(members, [Path(str(seed)) for seed in range(3)])
    np.testing.assert_allclose(tf.nn.softmax(whole.model(images)), np.mean(alone, axis=0), atol=1e-6)
    np.testing.assert_array_equal(masker(whole.model)(IMAGES[:, :32, :32]), np.mean(alone, axis=0).argmax(-1))


def test_windows_of_an_ensemble_are_the_mean_of_its_members_windows() -> None:
    members = [member(seed) for seed in range(2)]
    alone = [probabilities(each, window=True, flip=True) for each in members]
    whole = probabilities(joined(members, [Path("a"), Path("b")]), window=True, flip=True)
    for number, found in enumerate(whole):
        np.testing.assert_allclose(found, (alone[0][number] + alone[1][number]) / 2, atol=1e-5)


def test_sure_networks_draw_the_boundary_where_each_of_them_draws_it() -> None:
    """Their logits lie further apart than the logarithm of any float32: a boundary lies where they cross."""
    members = [member(0), member(0)]
    for each in members:
        each.model.layers[-1].set_weights([1000 * weights for weights in each.model.layers[-1].get_weights()])
    alone = probabilities(members[0])
    for choices in ({}, {"flip": True}):
        both = joined(members, [Path("a"), Path("b")])
        for image, found in zip(probabilities(members[0], **choices), probabilities(both, **choices), strict=True):
            np.testing.assert_array_equal(found.argmax(-1), image.argmax(-1))
    assert np.mean(alone[0].max(-1) > 0.999) > 0.9


def test_one_network_is_no_ensemble() -> None:
    only = member(0)
    assert joined([only], [Path("a")]) is only


@pytest.mark.parametrize(("other", "message"), [
    (member(1, ("a", "b", "d")), "B: expected the classes of A (a, b, c), found a, b, d"),
    (member(1, ("a", "c", "b")), "B: expected the classes of A (a, b, c), found a, c, b"),
    (member(1, ("a", "b")), "B: expected the classes of A (a, b, c), found a, b"),
    (member(1, size=48), "B: expected the input size of A (32 x 32), found 48 x 48"),
    (member(1, bands=4), "B: expected the --bands of A (3), found 4"),
])  # fmt: skip
def test_networks_that_are_not_of_one_kind_are_refused(other: Trained, message: str) -> None:
    with pytest.raises(BadSettings) as refused:
        joined([member(0), other], [Path("A"), Path("B")])
    assert str(refused.value) == f"{message}; name networks that have the same"
    assert one_line(str(refused.value)) == str(refused.value)


def test_networks_come_before_the_images(tmp_path: Path) -> None:
    runs = [tmp_path / name for name in ("one", "two")]
    for run in runs:
        run.mkdir()
        (run / "config.json").write_text("{}")
    photos = tmp_path / "photos"
    photos.mkdir()
    checkpoint, exported = runs[1] / "checkpoints/step-00000007", tmp_path / "unet.keras"
    manifest = RunDirectory(runs[1]).checkpoint_manifest(7)
    manifest.parent.mkdir(parents=True)
    pictures = [photos / "step-1.png", photos / "step-2.tar.png"]
    for file in (manifest, exported, *pictures):
        file.touch()
    for places, images in (
        ([runs[0]], ["a.jpg", "b.jpg"]),
        ([runs[0], runs[1]], [str(photos)]),
        ([runs[0], checkpoint, exported], ["a.jpg", str(runs[1])]),
        ([runs[0]], [*map(str, pictures)]),
        ([Path("missing")], ["a.jpg"]),  # what it is, is said where it is read
    ):
        assert members_and_images([*map(str, places), *images]) == (places, images)
    with pytest.raises(click.UsageError, match="IMAGES"):
        members_and_images([*map(str, runs)])
