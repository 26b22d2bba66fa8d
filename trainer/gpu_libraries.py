"""What TensorFlow's wheels do not find by themselves of the wheels of NVIDIA's libraries."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
from pathlib import Path

_LEFT_OUT = "nvidia.cusolver"
"""TensorFlow 2.21 looks for its library in the folders of all others, and then registers no GPU at all: the run path of
libtensorflow_framework.so, which opens it, lacks this one (that of libtensorflow_cc.so has it)."""


def open_those_left_out() -> None:
    """Opens the library, so that TensorFlow finds it loaded; without the wheel, or if it can't be opened, nothing.

    ``make gpu-check`` says whether TensorFlow finds all.
    """
    try:
        found = importlib.util.find_spec(_LEFT_OUT)
    except ModuleNotFoundError:  # no wheel of NVIDIA's at all
        return
    for folder in (found and found.submodule_search_locations) or ():
        for file in sorted(Path(folder, "lib").glob("libcusolver.so.*")):
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(file))
