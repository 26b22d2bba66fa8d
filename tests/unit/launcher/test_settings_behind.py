"""On which side of ``--`` a flag belongs."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from launcher.commands.jobs import render
from launcher.commands.run import run


@pytest.mark.parametrize(("arguments", "message"), [
    (["--data", "synthetic"], "--data: is a setting of the training: write it behind --, as in 'run -- --data …'"),
    (["--epochs=3"], "--epochs: is a setting of the training: write it behind --"),
    (["--no-export"], "--no-export: is a setting of the training: write it behind --"),
    (["--", "--run-dir", "x"], "--run-dir: is a flag of 'run': write it before --"),
    (["--", "--epochs", "3", "--workers=2"], "--workers: is a flag of 'run': write it before --"),
    (["--", "--output", "x"], "--output: is a flag of 'run': write it before --"),
    (["--wrokers", "2"], "No such option"),
])  # fmt: skip
def test_a_flag_on_the_wrong_side_is_told_its_side(arguments: list[str], message: str) -> None:
    done = CliRunner().invoke(run, arguments)
    assert done.exit_code == 2
    assert message in done.output


def test_a_job_s_file_is_no_config() -> None:
    done = CliRunner().invoke(render, ["--config", "x.yaml"])
    assert (done.exit_code, "-f names the job's file" in done.output) == (2, True)


def test_data_is_a_flag_on_both_sides_of_a_job() -> None:
    done = CliRunner().invoke(render, ["--data", "synthetic", "--image", "x", "--", "--data", "synthetic"])
    assert done.exit_code == 0, done.output
