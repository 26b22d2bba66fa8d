"""The boundary F1 score on squares whose boundaries can be counted, and against a slow reference."""

import math

import numpy as np
import pytest

from trainer.objective.boundary import boundary_f1


def square(top: int, left: int, side: int, size: int = 20) -> np.ndarray:
    mask = np.zeros((size, size), np.uint8)
    mask[top : top + side, left : left + side] = 1
    return mask


def test_the_right_boundary_scores_1_and_a_far_one_0() -> None:
    np.testing.assert_array_equal(boundary_f1(square(5, 5, 6), square(5, 5, 6), 2), [1, 1])
    np.testing.assert_array_equal(boundary_f1(square(1, 1, 4), square(14, 14, 4), 2, tolerance=1), [0, 0])


def test_the_tolerance_forgives_a_shift() -> None:
    shifted = boundary_f1(square(5, 5, 6), square(6, 5, 6), 2, tolerance=1)
    np.testing.assert_array_equal(shifted, [1, 1])
    assert boundary_f1(square(5, 5, 6), square(6, 5, 6), 2, tolerance=0)[1] < 1


def test_a_class_without_boundary_has_no_score_and_a_missed_one_0() -> None:
    nothing = np.zeros((20, 20), np.uint8)
    assert all(math.isnan(score) for score in boundary_f1(nothing, nothing, 2))
    np.testing.assert_array_equal(boundary_f1(square(5, 5, 6), nothing, 2), [0, 0])


def test_ignored_pixels_are_no_part_of_the_image() -> None:
    truth = square(5, 5, 6)
    truth[:, 11:] = 255
    prediction = square(5, 5, 6)
    prediction[:, 11:] = 1
    np.testing.assert_array_equal(boundary_f1(truth, prediction, 2), [1, 1])


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 1.5, 2.3])
def test_it_is_what_pairwise_distances_say(tolerance: float) -> None:
    generator = np.random.default_rng(0)
    truth, prediction = generator.choice([0, 1, 2, 255], (2, 9, 11), p=[0.5, 0.3, 0.1, 0.1]).astype(np.uint8)
    prediction[prediction == 255] = 0

    def boundary(labels: np.ndarray, c: int) -> list[tuple[int, int]]:
        def differs(row: int, column: int) -> bool:
            inside = 0 <= row < 9 and 0 <= column < 11
            return inside and truth[row, column] != 255 and labels[row, column] != c

        return [
            (row, column)
            for row, column in np.ndindex(9, 11)
            if truth[row, column] != 255
            and labels[row, column] == c
            and any(differs(row + r, column + k) for r, k in ((0, 1), (1, 0), (0, -1), (-1, 0)))
        ]

    def share(of: list[tuple[int, int]], near: list[tuple[int, int]]) -> float:
        return float(np.mean([any(math.dist(a, b) <= tolerance for b in near) for a in of]))

    expected = []
    for c in range(3):
        true, predicted = boundary(truth, c), boundary(prediction, c)
        precision, recall = share(predicted, true), share(true, predicted)
        expected.append(2 * precision * recall / (precision + recall) if precision + recall else 0)
    np.testing.assert_allclose(boundary_f1(truth, prediction, 3, tolerance), expected)
