"""A wrong ``--data`` is told at once by whoever is given it, and nothing is made."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from launcher.job.training_job import TrainingJob
from maskfleet.data_setting import existing_data
from maskfleet.errors import BadInput, BadSettings

WRONG = {
    "foo:/x": "oxford_iiit_pet[:VERSION], tfds:NAME, packed:PLACE, python:MODULE:FUNCTION or synthetic, found 'foo:/x'",
    "oxford_iiit_pets": "found 'oxford_iiit_pets'",
    "synthetic:3": "found 'synthetic:3'",
    "folder:": "found 'folder:'",
    "": "found ''",
    "packed:gs://": "--data packed:gs://: expected gs://BUCKET/PREFIX",
    "packed:s3://X!/x": "expected s3://BUCKET/PREFIX, BUCKET of lower-case letters, digits, '-', '_' and '.'",
    "nothing-here": "or synthetic, found 'nothing-here'; there is no /",
    "packed:s3:///x": "--data packed:s3:///x: expected s3://BUCKET/PREFIX",
    "packed:ftp://host/x": "--data packed:ftp://host/x: expected packed:gs://…, packed:s3://… or packed:FOLDER",
    "packed:nowhere": "--data packed:nowhere: expected a folder, found nothing at ",
    "folder:nowhere": "--data folder:nowhere: expected a folder, found nothing at ",
    "voc:a-file": "--data voc:a-file: expected a folder, found a file at ",
    "folder:a-file/below": "--data folder:a-file/below: expected a folder, found nothing at ",
    f"folder:{'x' * 300}": "can't be read: File name too long",
    "folder:~nobody-of-this-name/x": "there is no home of ~nobody-of-this-name",
}
KINDS = list(WRONG)[:5]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").touch()
    (tmp_path / "n.keras").touch()
    return tmp_path


@pytest.mark.parametrize("data", WRONG)
def test_what_names_no_data_is_refused_in_one_line(data: str, here: Path) -> None:
    with pytest.raises(BadInput) as error:
        existing_data(data)
    assert WRONG[data] in str(error.value)


def test_what_is_there_is_named_in_full(here: Path) -> None:
    (here / "pets").mkdir()
    assert existing_data("folder:pets") == here / "pets"
    assert existing_data("voc:./pets") == here / "pets"
    assert [existing_data(data) for data in ("synthetic", "oxford_iiit_pet", "oxford_iiit_pet:3.*")] == [None] * 3


@pytest.mark.parametrize("data", KINDS)
def test_a_job_is_refused_before_it_is_sent(data: str) -> None:
    with pytest.raises(BadSettings, match="--data: expected"):
        TrainingJob.from_sources(None, TrainingJob.parse_flags([]), [f"--data={data}"])


COMMANDS = [
    ("launcher.cli", "run", "--run-dir", "r", "--", "--data"),
    ("launcher.cli", "run", "--run-dir", "r", "--workers", "2", "--", "--data"),
    ("launcher.cli", "run", "--", "--data"),
    ("trainer.cli", "train", "--run-dir", "r", "--data"),
    ("trainer.cli", "verify-data", "--data"),
    ("trainer.cli", "compare", "--out", "r", "--data"),
    ("trainer.cli", "evaluate", "n.keras", "--data"),
    ("trainer.cli", "export", "n.keras", "--out", "e", "--data"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_imports_tensorflow_or_makes_anything_for_it(command: tuple[str, ...], here: Path) -> None:
    for data, expected in (("foo:/x", WRONG["foo:/x"]), ("folder:nowhere", "expected a folder, found nothing at ")):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", *command, data], capture_output=True, text=True, check=False
        )
        imports, told = [], []
        for line in done.stderr.splitlines():
            (imports if line.startswith("import time:") else told).append(line)
        assert (done.returncode, done.stdout) == (2, "")
        assert [expected in line for line in told] == [True]
        assert not [line for line in imports if line.rpartition("|")[2].strip() in ("tensorflow", "keras")]
    assert sorted(each.name for each in here.iterdir()) == ["a-file", "n.keras"]
