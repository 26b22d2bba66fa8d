"""The largest batch that fits."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.batch_size import choose_batch, largest_that_fits
from trainer.config import DEFAULT_BATCH, TrainConfig
from trainer.run_directory import RunDirectory


@given(limit=st.integers(0, 5000), largest=st.integers(1, 4000))
def test_the_search_ends_close_below_the_limit(limit, largest):
    tried = []

    def fits(batch):
        tried.append(batch)
        return batch <= limit

    found = largest_that_fits(fits, largest)
    best = min(limit, largest)
    assert found <= best
    assert best - found <= max(0, found // 8)
    assert max(tried) <= largest
    assert len(tried) < 20


def test_a_machine_without_gpu_takes_the_documented_default(tmp_path: Path):
    assert choose_batch(RunDirectory(tmp_path), classes=3, largest=100) == DEFAULT_BATCH
    assert choose_batch(RunDirectory(tmp_path), classes=3, largest=2) == 2


@pytest.mark.parametrize(("batch", "code"), [(2, 0), (0, 1)])
def test_a_size_is_tried_in_a_process_of_its_own(tmp_path: Path, batch: int, code: int):
    run = RunDirectory(tmp_path)
    run.write_settings(TrainConfig(image_size=32).model_dump(mode="json"))
    command = [sys.executable, "-m", "trainer.batch_size", str(run.path), str(batch), "3"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == code
