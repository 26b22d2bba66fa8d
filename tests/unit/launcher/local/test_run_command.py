"""``launcher run`` that is refused leaves nothing behind, here and in the destination."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from launcher.cli import main
from maskfleet.records import write_settings
from maskfleet.run_directory import RunDirectory
from maskfleet.run_lock import launcher_lock


@pytest.mark.parametrize(("arguments", "problem"), [
    (["--resume", "live"], "in use by another process"),
    (["--run-dir", "live"], "holds a run that has begun"),
    (["--resume", "none"], "there is no run"),
    (["--run-dir", "new", "--", "--data", "folder:nowhere"], "expected a folder, found nothing"),
    (["--run-dir", "new", "--", "--epochs", "0"], "greater than or equal to 1"),
    (["--run-dir", "new", "--workers", "2..8"], "expected a number here, found the range 2..8: 'launcher submit'"),
    (["--run-dir", "new", "--workers", "0"], "0 is not in the range x>=1"),
])  # fmt: skip
def test_what_is_refused_makes_no_destination(
    arguments: list[str], problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = RunDirectory(tmp_path / "live")
    write_settings(run, {"data": "synthetic"})
    with launcher_lock(run):
        result = CliRunner().invoke(main, ["run", "--output", "destination", *arguments])
    assert problem in result.stderr
    assert result.exit_code in (2, 3)
    assert {path.name for path in tmp_path.iterdir()} == {"live"}


@pytest.mark.parametrize("new", [["--run-dir", "new"], []])
def test_a_destination_that_can_not_be_written_makes_no_run(
    new: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["run", "--output", "/dev/null", *new])
    assert result.stderr == "error: /dev/null: can't be written: Not a directory\n"
    assert not [path for path in tmp_path.rglob("*") if path != tmp_path / "runs"]


def test_a_run_is_not_copied_into_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["run", "--run-dir", "new", "--output", "new/copy"])
    assert "new/copy: lies in new, which would be copied into itself" in result.stderr
    assert result.exit_code == 2
    assert [*tmp_path.iterdir()] == []


def test_a_run_below_a_name_that_is_not_utf_8_is_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / os.fsdecode(b"\xff")
    here.mkdir()
    monkeypatch.chdir(here)
    result = CliRunner().invoke(main, ["run"])
    assert "udcff: expected a name in UTF-8, found other bytes; rename it" in result.stderr
    assert result.exit_code == 2
    assert [*here.iterdir()] == []
