"""The largest batch that fits."""

import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from maskfleet.config import DEFAULT_BATCH, TrainConfig
from maskfleet.peers import Peers
from maskfleet.records import write_settings
from maskfleet.run_directory import RunDirectory
from trainer.training.assembly import Worker, _with_found_batch
from trainer.training.batch_size import choose_batch, largest_that_fits


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
    for examples, batch in ((100, DEFAULT_BATCH), (2, 2), (0, 1)):
        assert choose_batch(RunDirectory(tmp_path), classes=3, examples=examples) == batch


@pytest.mark.parametrize(("examples", "batch"), [(263, 32), (7, 1), (0, 1)])
def test_all_gpus_of_a_worker_share_its_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, examples: int, batch: int
):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [object()] * 8)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: subprocess.CompletedProcess([], returncode=0))
    assert choose_batch(RunDirectory(tmp_path), classes=3, examples=examples) == batch


@pytest.mark.parametrize(("settings", "fitting", "batch", "growth"), [
    ({"batch_per_replica": "auto"}, 128, 128, 1),
    ({"batch_per_replica": "auto", "global_batch": 64}, None, 64, 1),
    ({"batch_per_replica": 16, "global_batch": 64}, None, 16, 4),
])  # fmt: skip
def test_the_learning_rate_is_that_of_the_batch_that_was_found(settings, fitting, batch, growth):
    strategy = tf.distribute.get_strategy()
    run, chosen = RunDirectory(Path("run")), TrainConfig(**settings)
    worker = Worker(run, chosen, Peers(), strategy, None, None, fitting, lambda: None)
    config = _with_found_batch(worker)
    assert config.batch_per_replica == batch
    rate = config.scaled_learning_rate(config.effective_global_batch(1))
    assert rate == pytest.approx(growth * config.learning_rate)


@pytest.mark.parametrize(("batch", "code"), [(2, 0), (0, 1)])
def test_a_size_is_tried_in_a_process_of_its_own(tmp_path: Path, batch: int, code: int):
    run = RunDirectory(tmp_path)
    write_settings(run, TrainConfig(image_size=32).model_dump(mode="json"))
    command = [sys.executable, "-m", "trainer.training.batch_size", str(run.path), str(batch), "3"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == code
