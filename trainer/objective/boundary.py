"""How well boundaries are met: the boundary F1 score. Imports no TensorFlow."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from trainer.data.source import IGNORED

_STRIP = 1 << 20
"""Pixels that are looked at together: each takes some dozen bytes meanwhile."""


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
    height, width = truth.shape
    halo = int(tolerance) + 1  # of rows that decide about a strip's own
    rows = max(halo, _STRIP // width)
    counts = np.zeros((classes, 4), np.int64)
    for top in range(0, height, rows):
        first, last = max(0, top - halo), min(height, top + rows + halo)
        own = slice(top - first, min(top + rows, height) - first)
        counts += _counts(truth[first:last], prediction[first:last], own, classes, tolerance)
    true, found, predicted, right = counts.T
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = right / predicted, found / true
        scores = 2 * precision * recall / (precision + recall)
    scores[(true + predicted > 0) & (right + found == 0)] = 0
    scores[true + predicted == 0] = np.nan
    return np.asarray(scores, np.float64)


def _counts(
    truth: NDArray[np.uint8], prediction: NDArray[np.uint8], own: slice, classes: int, tolerance: float
) -> NDArray[np.int64]:
    """Of each class, in the rows ``own``: boundary pixels of the truth, those found; of the prediction, those right."""
    valid = truth != IGNORED
    counts = np.zeros((classes, 4), np.int64)
    for c in sorted({*np.unique(truth).tolist(), *np.unique(prediction).tolist()} & {*range(classes)}):
        true, predicted = (_boundary(labels == c, valid) for labels in (truth, prediction))
        found, right = true & _grown(predicted, tolerance), predicted & _grown(true, tolerance)
        counts[c] = [pixels[own].sum() for pixels in (true, found, predicted, right)]
    return counts


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
    if not pixels.any():
        return grown
    (height, width), most = pixels.shape, int(radius)
    before = np.zeros((height, width + 2 * most + 1), np.int32)  # how many lie to the left
    np.cumsum(pixels, axis=1, out=before[:, most + 1 : most + 1 + width])
    before[:, most + 1 + width :] = before[:, most + width, None]
    for row in range(min(most + 1, height)):
        reach = math.isqrt(int(radius * radius - row * row))
        left, right = most - reach, most + reach + 1
        near = before[:, right : right + width] > before[:, left : left + width]
        grown[row:] |= near[: height - row]
        grown[: height - row] |= near[row:]
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
