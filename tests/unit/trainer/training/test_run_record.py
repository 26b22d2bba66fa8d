"""What a run that goes on may not change, and what is said of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from maskfleet.config import TrainConfig
from maskfleet.errors import BadSettings
from maskfleet.records import Resolved, RunRecord
from maskfleet.run_directory import RunDirectory
from trainer.training.run_record import check_goes_on


@pytest.mark.parametrize(("kept", "size", "fingerprint", "message"), [
    (128, 96, "other", "--image-size 96: the run began with 128, .*; leave it out or start a new run"),
    (128, 128, "other", "the data has changed since the run began: expected fingerprint begun, found other"),
    (0, 96, "other", "the data has changed since the run began"),
    (128, 128, "begun", None),
])  # fmt: skip
def test_another_size_is_not_told_as_other_data(
    tmp_path: Path, kept: int, size: int, fingerprint: str, message: str | None
) -> None:
    run, config = RunDirectory(tmp_path), TrainConfig(image_size=size)
    record = RunRecord(config.model_dump(mode="json"), Resolved(image_size=kept), "begun")
    record.write(run)
    dataset: Any = SimpleNamespace(fingerprint=fingerprint)
    if message is None:
        check_goes_on(run, config, dataset)
    else:
        with pytest.raises(BadSettings, match=message):
            check_goes_on(run, config, dataset)
