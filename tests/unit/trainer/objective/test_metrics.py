"""The confusion matrix and its scores, against counting by hand."""

import math
from typing import get_args

import numpy as np
import pytest
import tensorflow as tf

from maskfleet.config import TrainConfig
from trainer.objective.metrics import FEW_CLASSES, Scores, confusion_matrix, most_likely


def test_rows_are_truth_and_ignored_pixels_do_not_count() -> None:
    labels = np.array([[[0, 0], [1, 255]]], np.uint8)
    predictions = np.array([[[0, 1], [1, 1]]])
    matrix = confusion_matrix(labels, predictions, 2)
    assert matrix.dtype == tf.int64
    np.testing.assert_array_equal(matrix, [[1, 1], [0, 1]])


@pytest.mark.parametrize("classes", [1, 2, FEW_CLASSES, FEW_CLASSES + 1])
def test_the_most_likely_class_is_the_first_of_the_largest(classes: int) -> None:
    logits = np.random.default_rng(0).integers(-2, 3, (2, 9, 7, classes)).astype(np.float32)
    logits[logits == -2] = -np.inf
    for kind in (tf.float32, tf.bfloat16, tf.float16):
        found = most_likely(tf.cast(logits, kind))
        assert found.dtype == tf.int32
        np.testing.assert_array_equal(found, logits.argmax(-1))


def test_it_counts_every_pair_and_adds_up_over_parts() -> None:
    generator = np.random.default_rng(0)
    labels = generator.choice([0, 1, 2, 3, 255], (6, 9, 7))
    predictions = generator.integers(0, 4, (6, 9, 7))
    expected = [[np.sum((labels == t) & (predictions == p)) for p in range(4)] for t in range(4)]
    np.testing.assert_array_equal(confusion_matrix(labels, predictions, 4), expected)
    halves = [tf.function(confusion_matrix)(labels[part], predictions[part], 4) for part in (slice(2), slice(2, 6))]
    np.testing.assert_array_equal(halves[0] + halves[1], expected)


def test_the_best_checkpoint_can_be_chosen_by_every_mean() -> None:
    names = {
        "miou",
        "miou_without_background",
        "frequency_weighted_iou",
        "pixel_accuracy",
        "mean_class_accuracy",
        "mean_dice",
    }
    assert set(get_args(TrainConfig.model_fields["best_by"].annotation)) == {*names, "loss"}
    assert set(Scores(np.eye(2, dtype=np.int64), ["a", "b"]).means) == names


def test_scores_by_hand() -> None:
    scores = Scores(np.array([[6, 2, 0], [1, 3, 0], [2, 0, 6]]), ["object", "background", "border"], "background")
    assert scores.iou == pytest.approx({"object": 6 / 11, "background": 3 / 6, "border": 6 / 8})
    assert scores.dice == pytest.approx({"object": 12 / 17, "background": 6 / 9, "border": 12 / 14})
    assert scores.miou == pytest.approx((6 / 11 + 3 / 6 + 6 / 8) / 3)
    assert scores.miou_without_background == pytest.approx((6 / 11 + 6 / 8) / 2)
    assert scores.pixel_accuracy == pytest.approx(15 / 20)
    assert scores.mean_dice == pytest.approx(np.mean(list(scores.dice.values())))
    assert scores.mean_class_accuracy == pytest.approx((6 / 8 + 3 / 4 + 6 / 8) / 3)
    assert scores.frequency_weighted_iou == pytest.approx((8 * 6 / 11 + 4 * 3 / 6 + 8 * 6 / 8) / 20)


def test_a_class_in_neither_truth_nor_prediction_does_not_count() -> None:
    scores = Scores(np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]]), ["a", "b", "c"])
    assert math.isnan(scores.iou["c"])
    assert scores.miou == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert scores.mean_class_accuracy == pytest.approx((3 / 4 + 1) / 2)


def test_a_class_that_is_predicted_but_never_true_counts_as_missed() -> None:
    scores = Scores(np.array([[3, 1], [0, 0]]), ["a", "b"])
    assert scores.iou == {"a": 0.75, "b": 0}
    assert scores.miou == 0.375
    assert scores.mean_class_accuracy == 0.75


def test_an_empty_matrix_has_no_scores() -> None:
    scores = Scores(np.zeros((2, 2), np.int64), ["a", "b"])
    for value in (scores.miou, scores.pixel_accuracy, scores.frequency_weighted_iou, scores.mean_class_accuracy):
        assert math.isnan(value)
