"""Twenty random kills in one run; ``python -m tests.local.soak --kills 100`` for more."""

from pathlib import Path

import pytest

from tests.local.soak import Soak, soak


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_twenty_kills_change_nothing(tmp_path: Path):
    assert soak(tmp_path, Soak(kills=20, seed=20)) == []
