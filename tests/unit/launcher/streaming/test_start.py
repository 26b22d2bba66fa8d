"""What a run starts from comes out of a bucket."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from launcher.streaming.download.start import fetch_start
from launcher.streaming.stores.opening import open_store
from launcher.streaming.upload.streamer import Streamer
from maskfleet.errors import MaskfleetError
from maskfleet.records import FinalScores
from maskfleet.run_directory import RunDirectory
from maskfleet.start_setting import is_there, start_place
from tests.helpers.sample_run import SampleRun


@pytest.fixture
def stored(tmp_path: Path) -> str:
    """A run whose final scores are of its older checkpoint, in a folder that stands for a bucket."""
    sample = SampleRun(tmp_path / "run")
    sample.everything()
    FinalScores("test", 5, "validation", step=10, epoch=1, loss=0.5).write(sample.run)
    Streamer(sample.run, open_store(str(tmp_path / "stored"))).run(once=True)
    return str(tmp_path / "stored")


@pytest.mark.parametrize(
    ("what", "files"),
    [
        ("", {"config.json", "scores.json", "checkpoints/step-00000010.index"}),
        ("/checkpoints/step-00000020", {"config.json", "checkpoints/step-00000020.index"}),
        ("/checkpoints/manifests/step-00000020.json", {"config.json", "checkpoints/step-00000020.index"}),
        ("/export/unet.keras", {"unet.keras"}),
    ],
)
def test_only_what_is_needed_comes_and_lies_where_training_looks(
    what: str, files: set[str], stored: str, tmp_path: Path
) -> None:
    run = RunDirectory(tmp_path / "new")
    fetch_start(f"{stored}{what}", run.start)
    came = {path.relative_to(run.start).as_posix() for path in run.start.rglob("*") if path.is_file()}
    assert files <= came
    assert len([name for name in came if name.endswith(".index")]) == (0 if what.endswith("keras") else 1)
    assert is_there(start_place(f"gs://bucket/run{what}", run))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("/nowhere", "--start-from {}/nowhere: expected a run, one of its checkpoints (RUN/checkpoints/step-N) or an"),
        ("/export/other.keras", "expected an exported network, found nothing"),
        ("/checkpoints/step-00000011", "there is no checkpoint of step 11; it has 10, 20"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(what: str, message: str, stored: str, tmp_path: Path) -> None:
    with pytest.raises(MaskfleetError, match=re.escape(message.format(stored))):
        fetch_start(f"{stored}{what}", tmp_path / "start")
