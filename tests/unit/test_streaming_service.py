"""The watch loop: whose files it copies."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.streaming.folder import FolderStore
from launcher.streaming.service import Streamer
from tests.sample_run import SampleRun
from trainer.run_directory import write_json


@pytest.fixture
def sample(tmp_path: Path) -> SampleRun:
    return SampleRun(tmp_path / "run")


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "destination")


def test_a_worker_but_the_chief_leaves_alone_what_the_chief_wrote(
    sample: SampleRun, store: FolderStore, tmp_path: Path
) -> None:
    sample.everything()
    assert Streamer(sample.run, store, worker=0).run(once=True) == 0
    half_way = store.path / "checkpoints/step-00000015.index"  # the newest went first; its manifest comes last
    half_way.write_bytes(b"on its way")
    before = {found.name: found.version for found in store.list()}
    second = SampleRun(tmp_path / "second", seed=1)
    write_json(second.run.config, {"settings": {"epochs": 1}, "resolved": "nothing"})
    second.log_lines(worker=1)
    assert Streamer(second.run, store, worker=1).run(once=True) == 0
    after = {found.name: found.version for found in store.list()}
    assert after.pop("logs/worker-1.log")
    assert after == before
