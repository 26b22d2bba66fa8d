"""The folder ``shared`` beside the checkout, with real images and tools that are no part of the repository."""

import os
from pathlib import Path

import pytest


def shared(*parts: str) -> Path:
    """A path in it; the test is skipped where there is none."""
    root = Path(os.environ.get("MASKFLEET_SHARED", Path(__file__).parents[3] / "shared"))
    path = root.joinpath(*parts)
    if not path.exists():
        pytest.skip(
            f"needs {'/'.join(parts)} in the folder 'shared' beside the checkout, or where MASKFLEET_SHARED says"
        )
    return path
