"""Masks that NumPy has saved. Imports no TensorFlow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskfleet.errors import BadData
from maskfleet.text import one_line
from trainer.data.source import IGNORED

ARRAY = ".npy"
_LARGEST_LABEL = 1 << 40


def read_array(file: Path, max_pixels: int, *, soft: bool = False) -> NDArray[Any]:
    """Whole numbers (H, W), or with ``soft`` any numbers; or uint8 (H, W, 3), colours.

    Raises:
        BadData: the file is missing, damaged or larger than ``max_pixels``, or holds other things: objects, fractions,
            a channel for each class.
    """
    try:
        values = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise BadData(f"{file}: there is no such file") from error
    except PermissionError as error:
        raise BadData(f"{file}: can't be read: {error.strerror}; let this user read it (chmod a+r)") from error
    except Exception as error:  # NumPy's parser raises what it meets in a damaged head
        reason = one_line(str(error))[:120]
        raise BadData(f"{file}: expected a NumPy array of numbers, replace or remove it: {reason}") from error
    if not isinstance(values, np.ndarray):
        raise BadData(f"{file}: expected one array of height x width, found several; save it by numpy.save")
    shape = " x ".join(map(str, values.shape)) or "a single number"
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise BadData(f"{file}: expected an array of height x width, found {shape}")
    if values.ndim == 3 and (values.shape[2] != 3 or values.dtype != np.uint8):
        raise BadData(
            f"{file}: expected an array of height x width, found {shape} of {values.dtype}; "
            "take the place of the largest, if it has a channel for each class (numpy.argmax)"
        )
    if values.shape[0] * values.shape[1] > max_pixels:
        raise BadData(
            f"{file}: has {shape} pixels, and --max-pixels allows {max_pixels}; give a larger one, or save it smaller"
        )
    if values.dtype.kind == "f":
        return finite(np.array(values), str(file)) if soft else whole_numbers(np.array(values), str(file))
    if values.dtype.kind not in "biu" or int(values.max()) > _LARGEST_LABEL:
        raise BadData(f"{file}: expected labels as whole numbers, found {values.dtype}")
    return np.array(values, np.uint8 if values.dtype in (np.bool_, np.uint8) else np.int64)


def whole_numbers(values: NDArray[np.floating[Any]], name: str) -> NDArray[np.int32]:
    """Raises BadData for the first that is none."""
    wrong = ~np.isfinite(values) | (values != np.rint(values)) | (np.abs(values) > np.float64(1 << 30))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise BadData(
            f"{name}: expected labels as whole numbers, found {values[row, column]:g} at row {row}, column {column}; "
            f"save it as PNG with a value for each class, and {IGNORED} where none is known"
            + ("; --mask-threshold 0.5 reads shares of one class" if _are_shares(values) else "")
        )
    return values.astype(np.int32)


def finite(values: NDArray[np.floating[Any]], name: str) -> NDArray[np.floating[Any]]:
    """Raises BadData for the first that is no number."""
    wrong = ~np.isfinite(values)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise BadData(f"{name}: expected numbers, found {values[row, column]} at row {row}, column {column}")
    return values


def _are_shares(values: NDArray[np.floating[Any]]) -> bool:
    return bool(np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1)
