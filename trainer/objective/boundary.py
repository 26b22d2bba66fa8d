"""How well boundaries are met: the boundary F1 score. Imports no TensorFlow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.data.source import IGNORED


def boundary_f1(
    truth: NDArray[np.uint8], prediction: NDArray[np.uint8], classes: int, tolerance: float | None = None
) -> NDArray[np.float64]:
    """F1 [classes] of one image's boundary pixels, truth and prediction being class indices [H, W].

    A predicted boundary pixel is right if one of the true boundary lies within ``tolerance`` pixels, and a true
    one is found likewise; by default .75% of the diagonal. Ignored pixels are no part of the image. nan for a
    class without boundary in both. Csurka, Larlus, Perronnin, BMVC 2013.
    """
    if tolerance is None:
        tolerance = 0.0075 * float(np.hypot(*truth.shape))
    valid = truth != IGNORED
    scores = np.full(classes, np.nan)
    for c in range(classes):
        if not (truth == c).any() and not (prediction == c).any():
            continue
        true, predicted = (_boundary(labels == c, valid) for labels in (truth, prediction))
        if not true.any() and not predicted.any():
            continue
        if not true.any() or not predicted.any():
            scores[c] = 0
            continue
        precision = np.mean(_grown(true, tolerance)[predicted])
        recall = np.mean(_grown(predicted, tolerance)[true])
        scores[c] = 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0
    return scores


def _boundary(inside: NDArray[np.bool_], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Valid pixels inside that touch, by a side, a valid one outside; the image's rim is no boundary."""
    outside = ~inside & valid
    touching = np.zeros_like(inside)
    for row, column in ((0, 1), (0, -1), (1, 0), (-1, 0)):
        touching |= _shifted(outside, row, column)
    return inside & valid & touching


def _grown(pixels: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """All pixels at most ``radius`` away from one of ``pixels``."""
    grown = np.zeros_like(pixels)
    reach = int(radius)
    for row in range(-reach, reach + 1):
        for column in range(-reach, reach + 1):
            if row * row + column * column <= radius * radius:
                grown |= _shifted(pixels, row, column)
    return grown


def _shifted(pixels: NDArray[np.bool_], rows: int, columns: int) -> NDArray[np.bool_]:
    """Moved down and right, with False moving in."""
    height, width = pixels.shape
    moved = np.zeros_like(pixels)
    if abs(rows) < height and abs(columns) < width:
        moved[max(rows, 0) : height + min(rows, 0), max(columns, 0) : width + min(columns, 0)] = pixels[
            max(-rows, 0) : height + min(-rows, 0), max(-columns, 0) : width + min(-columns, 0)
        ]
    return moved
