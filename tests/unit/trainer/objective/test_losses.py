"""Each loss and its gradient against a slow reference in NumPy, and what holds for all of them."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from maskfleet.config import TrainConfig
from maskfleet.errors import BadSettings
from maskfleet.settings import Layer
from trainer.objective.losses import Loss, _minus_log_probability, build_loss, class_frequencies

GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.choice([0, 1, 2, 255], (4, 3, 4)).astype(np.uint8)
LABELS[3][LABELS[3] == 2] = 0  # one example does not show class 2
LOGITS = GENERATOR.normal(0, 2, (4, 3, 4, 3)).astype(np.float32)

Pixels = list[tuple[int, np.ndarray]]
"""The valid pixels of one example: label and probabilities."""


def cross_entropy(pixels: Pixels, weights: tuple[float, ...] = (1, 1, 1), smoothing: float = 0) -> float:
    total = 0.0
    for label, p in pixels:
        for c in range(3):
            q = smoothing / 3 + (1 - smoothing if c == label else 0)
            total -= weights[label] * q * np.log(p[c])
    return total / len(pixels)


def focal(pixels: Pixels, gamma: float, weights: tuple[float, ...] = (1, 1, 1)) -> float:
    return sum(-weights[label] * (1 - p[label]) ** gamma * np.log(p[label]) for label, p in pixels) / len(pixels)


def dice(pixels: Pixels) -> float:
    losses = []
    for c in {label for label, _ in pixels}:
        both = sum(p[c] for label, p in pixels if label == c)
        losses.append(1 - 2 * both / (sum(p[c] for _, p in pixels) + sum(label == c for label, _ in pixels)))
    return float(np.mean(losses))


def jaccard(pixels: Pixels) -> float:
    losses = []
    for c in {label for label, _ in pixels}:
        both = sum(p[c] for label, p in pixels if label == c)
        union = sum(p[c] for _, p in pixels) + sum(label == c for label, _ in pixels) - both
        losses.append(1 - both / union)
    return float(np.mean(losses))


def lovasz(pixels: Pixels) -> float:
    """By definition: the Jaccard loss as a set function of the wrong pixels, extended by sorting the errors."""

    def set_loss(wrong: set[int], c: int) -> float:
        truth = {i for i, (label, _) in enumerate(pixels) if label == c}
        return len(wrong) / len(truth | wrong)

    losses = []
    for c in {label for label, _ in pixels}:
        errors = [1 - p[c] if label == c else p[c] for label, p in pixels]
        order = sorted(range(len(pixels)), key=lambda i: -errors[i])
        losses.append(
            sum(
                errors[i] * (set_loss(set(order[: n + 1]), c) - set_loss(set(order[:n]), c))
                for n, i in enumerate(order)
            )
        )
    return float(np.mean(losses))


REFERENCES: list[tuple[dict[str, Any], Callable[[Pixels], float]]] = [
    ({}, cross_entropy),
    ({"class_weights": "1,0.5,3"}, lambda pixels: cross_entropy(pixels, (1, 0.5, 3))),
    ({"label_smoothing": 0.2}, lambda pixels: cross_entropy(pixels, smoothing=0.2)),
    (
        {"label_smoothing": 0.1, "class_weights": "2,1,0"},
        lambda pixels: cross_entropy(pixels, (2, 1, 0), smoothing=0.1),
    ),
    ({"loss": "focal"}, lambda pixels: focal(pixels, 2)),
    ({"loss": "focal", "focal_gamma": 1}, lambda pixels: focal(pixels, 1)),
    ({"loss": "focal", "class_weights": "0.5,2,1"}, lambda pixels: focal(pixels, 2, (0.5, 2, 1))),
    ({"loss": "dice"}, dice),
    ({"loss": "jaccard"}, jaccard),
    ({"loss": "lovasz"}, lovasz),
    ({"loss": "cross_entropy+dice"}, lambda pixels: cross_entropy(pixels) + dice(pixels)),
    (
        {"loss": "dice+cross_entropy", "class_weights": "1,0.5,3"},
        lambda pixels: cross_entropy(pixels, (1, 0.5, 3)) + dice(pixels),
    ),
]
SETTINGS = [settings for settings, _ in REFERENCES]


def build(**settings: Any) -> Loss:
    return build_loss(TrainConfig(**{"loss": "cross_entropy", **settings}), 3, LABELS)


def slow(reference: Callable[[Pixels], float], labels: np.ndarray, logits: np.ndarray) -> float:
    """The reference's loss of one example, in float64."""
    pixels = []
    for place in np.ndindex(labels.shape):
        if labels[place] != 255:
            exponentials = np.exp(logits[place].astype(np.float64))
            pixels.append((int(labels[place]), exponentials / exponentials.sum()))
    return reference(pixels) if pixels else 0.0


@tf.function
def gradient(loss: Loss, labels: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
    with tf.GradientTape() as tape:
        tape.watch(logits)
        total = tf.reduce_sum(loss(labels, logits))
    return tape.gradient(total, logits)


@pytest.mark.parametrize(("settings", "reference"), REFERENCES)
def test_it_is_the_references_loss(settings: dict[str, Any], reference: Callable[[Pixels], float]) -> None:
    losses = build(**settings)(LABELS, LOGITS)
    assert losses.dtype == tf.float32
    expected = [slow(reference, labels, logits) for labels, logits in zip(LABELS, LOGITS, strict=True)]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)


@pytest.mark.parametrize(("settings", "reference"), REFERENCES)
def test_its_gradient_is_the_references_slope(settings: dict[str, Any], reference: Callable[[Pixels], float]) -> None:
    labels, logits = LABELS[:1], LOGITS[:1]
    found = gradient(build(**settings), tf.constant(labels), tf.constant(logits))
    slopes = np.zeros(logits.shape)
    for place in np.ndindex(logits.shape):
        nudge = np.zeros(logits.shape)
        nudge[place] = 1e-6
        above, below = (slow(reference, labels[0], (logits + sign * nudge)[0]) for sign in (1, -1))
        slopes[place] = (above - below) / 2e-6
    np.testing.assert_allclose(found, slopes, atol=2e-6)


def test_cross_entropy_by_planes_is_that_of_tensorflow() -> None:
    generator = tf.random.Generator.from_seed(0)
    logits = generator.normal((2, 50, 3), 0.0, 30.0)
    ruled_out = tf.concat([logits[..., :2], tf.fill([2, 50, 1], -math.inf)], -1)
    labels = generator.uniform((2, 50), 0, 2, tf.int32)
    for given in (logits, ruled_out):
        found = []
        for function in (_minus_log_probability, tf.nn.sparse_softmax_cross_entropy_with_logits):
            with tf.GradientTape() as tape:
                tape.watch(given)
                value = function(labels, given)
            found.append((value, tape.gradient(value, given)))
        for ours, theirs in zip(*found, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_gradient_of_cross_entropy_is_probability_less_truth() -> None:
    labels, logits = LABELS[:1], LOGITS[:1]
    found = gradient(build(), tf.constant(labels), tf.constant(logits))
    valid = labels != 255
    truth = np.eye(3)[np.where(valid, labels, 0)]
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = (probabilities - truth) * valid[..., None] / valid.sum()
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("settings", SETTINGS)
def test_an_example_without_valid_pixels_has_neither_loss_nor_gradient(settings: dict[str, Any]) -> None:
    labels = LABELS.copy()
    labels[1] = 255
    loss = build(**settings)
    assert loss(labels, LOGITS)[1] == 0
    slopes = gradient(loss, tf.constant(labels), tf.constant(LOGITS)).numpy()
    np.testing.assert_array_equal(slopes[labels == 255], 0)
    assert np.isfinite(slopes).all()


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("parts", [[1, 3], [1, 1, 1, 1]])
def test_examples_have_the_same_loss_however_they_are_spread(settings: dict[str, Any], parts: list[int]) -> None:
    loss = build(**settings)
    ends = np.cumsum(parts)
    losses = [loss(LABELS[end - part : end], LOGITS[end - part : end]) for part, end in zip(parts, ends, strict=True)]
    np.testing.assert_allclose(tf.concat(losses, 0), loss(LABELS, LOGITS), rtol=1e-6)


@pytest.mark.parametrize("settings", SETTINGS)
def test_certainty_right_or_wrong_stays_finite(settings: dict[str, Any]) -> None:
    logits = 1e4 * (np.eye(3)[np.where(LABELS == 255, 0, LABELS)]).astype(np.float32)
    for certain in (logits, -logits):
        loss = build(**settings)
        assert np.isfinite(loss(LABELS, certain)).all()
        assert np.isfinite(gradient(loss, tf.constant(LABELS), tf.constant(certain))).all()


def test_frequencies_are_of_the_images_that_show_the_class() -> None:
    masks = np.array([[[0, 0, 0, 1]], [[0, 0, 255, 255]]], np.uint8)
    np.testing.assert_allclose(class_frequencies(masks, 3), [5 / 6, 1 / 4, 0])


def test_median_frequency_weights_each_class_with_the_median_over_its_own_frequency() -> None:
    masks = np.repeat([0, 1, 2, 255], [60, 30, 10, 7]).astype(np.uint8)[None, None]
    median = build_loss(TrainConfig(loss="cross_entropy", class_weights="median_frequency"), 4, masks)
    given = build_loss(TrainConfig(loss="cross_entropy", class_weights="0.5,1,3,0"), 4, masks)
    logits = np.concatenate([LOGITS, LOGITS[..., :1]], axis=-1)
    np.testing.assert_allclose(median(LABELS, logits), given(LABELS, logits), rtol=1e-6)


def test_another_number_of_weights_than_classes_is_one_line() -> None:
    with pytest.raises(BadSettings) as caught:
        build(class_weights="1,2")
    assert str(caught.value) == "--class-weights 1,2: expected 3 numbers, one for each class, found 2"


@pytest.mark.parametrize("loss", ["dice", "jaccard", "lovasz", "dice+lovasz"])
@pytest.mark.parametrize("weights", ["1,2,3", "median_frequency"])
def test_weights_that_no_loss_would_heed_are_one_line(loss: str, weights: str) -> None:
    with pytest.raises(BadSettings) as caught:
        build(loss=loss, class_weights=weights)
    assert str(caught.value) == (
        f"--class-weights {weights}: expected a loss that weighs classes (cross_entropy, focal), found --loss {loss}; "
        f"leave the weights out, or add one: --loss {loss}+cross_entropy"
    )


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("loss", "dise", "--loss: expected cross_entropy, focal, dice, jaccard, lovasz or MODULE:FUNCTION, or a sum"),
        ("loss", "dice+dice", "--loss: expected cross_entropy, focal,"),
        ("class_weights", "1,,2", "--class-weights: expected median_frequency, or a number from 0 on for each class"),
        ("class_weights", "1,-2", "--class-weights: expected median_frequency, or a number"),
        ("class_weights", "0,0", "--class-weights: expected median_frequency, or a number"),
        ("class_weights", "nan,1", "--class-weights: expected median_frequency, or a number"),
        ("label_smoothing", "1", "--label-smoothing: input should be less than 1"),
        ("focal_gamma", "0.5", "--focal-gamma: input should be greater than or equal to 1"),
    ],
)
def test_bad_settings_are_one_line(flag: str, value: str, message: str) -> None:
    with pytest.raises(BadSettings) as caught:
        TrainConfig.resolve([Layer("--{}", {flag: value})])
    assert str(caught.value).startswith(message)
