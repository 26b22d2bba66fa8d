"""What of a run has to be as it was before it goes on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from maskfleet.config import TrainConfig
from maskfleet.errors import BadSettings
from maskfleet.files import write_json
from maskfleet.records import Examples, Resolved, RunRecord
from maskfleet.run_directory import RunDirectory
from trainer.training.run_record import check_goes_on


def data(fingerprint: str) -> Any:
    return SimpleNamespace(fingerprint=fingerprint, pictures={"train": "ab"})


@pytest.mark.parametrize(("config", "examples"), [("one", None), ("one", "two"), (None, "one")])
def test_a_run_goes_on_with_the_data_that_it_began_with(
    tmp_path: Path, config: str | None, examples: str | None
) -> None:
    run = RunDirectory(tmp_path)
    write_json(run.config, {"settings": {}, **({"data_fingerprint": config} if config else {})})
    if examples:
        Examples(examples, {}, {}).write(run)
    check_goes_on(run, TrainConfig(), data("one"))
    with pytest.raises(BadSettings, match="or how it is divided: expected fingerprint one"):
        check_goes_on(run, TrainConfig(), data("other"))


def test_a_run_that_begins_takes_any_data(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    write_json(run.config, {"settings": {}})
    check_goes_on(run, TrainConfig(), data("one"))


@pytest.mark.parametrize(("kept", "size", "fingerprint", "message"), [
    (128, 96, "other", "--image-size 96: the run began with 128, .*; leave it out or start a new run"),
    (128, 128, "other", "or how it is divided: expected fingerprint begun, found other"),
    (0, 96, "other", "the data has changed since the run began"),
    (128, 128, "begun", None),
])  # fmt: skip
def test_another_size_is_not_told_as_other_data(
    tmp_path: Path, kept: int, size: int, fingerprint: str, message: str | None
) -> None:
    run, config = RunDirectory(tmp_path), TrainConfig(image_size=size)
    record = RunRecord(config.model_dump(mode="json"), Resolved(image_size=kept), "begun")
    record.write(run)
    dataset: Any = SimpleNamespace(fingerprint=fingerprint, pictures={"train": "ab"})
    if message is None:
        check_goes_on(run, config, dataset)
    else:
        with pytest.raises(BadSettings, match=message):
            check_goes_on(run, config, dataset)
