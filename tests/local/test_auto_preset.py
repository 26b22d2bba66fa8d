"""``--preset auto`` in real runs: the same choices for all workers, kept in config.json, and never made anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskfleet.config import PLANNED, TrainConfig
from maskfleet.records import RunRecord
from maskfleet.run_directory import RunDirectory
from maskfleet.settings import Layer
from tests.helpers.data_folders import labels, write_pairs
from tests.helpers.processes import LocalRun, inspect, launcher, losses, trainer

AUTO = (
    "--preset=auto",
    "--encoder-weights=none",
    "--decoder-filters=16",
    "--epochs=2",
    "--global-batch=4",
    "--threads=1",
    "--no-export",
    "--spare=off",
)
CHOSEN = {"fit": "squash", "image_size": 128, "zoom": 0.1, "balance": False, "epochs": 2}
"""Of twelve small pictures: their size is theirs, and two epochs are short."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures for training and three for testing; a class has no pixel."""
    return write_pairs(tmp_path_factory.mktemp("data"), 15, labels(0, 1), ("ground", "thing", "nowhere"))


def trained(path: Path, *settings: str, workers: int = 1) -> RunDirectory:
    with LocalRun(path, f"--run-dir={path}", f"--workers={workers}", "--", *settings) as run:
        assert run.wait() == 0, run.output.read_text()
    return run.directory


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return trained(tmp_path_factory.mktemp("alone") / "run", *AUTO, f"--data={data}")


def test_a_run_prints_what_is_chosen_and_keeps_it(alone: RunDirectory, data: Path) -> None:
    settings = RunRecord.read(alone).settings
    assert {name: settings[name] for name in CHOSEN} == CHOSEN
    assert TrainConfig.resolve([Layer("{}", settings)]).unplanned == ()
    printed = alone.path.with_suffix(".out").read_text()
    seen = trainer("plan", "--data", str(data), *(flag for flag in AUTO if "preset" not in flag)).stdout
    assert len(seen.splitlines()) == 1 + len(set(PLANNED) - {"epochs", "unfreeze_from"})
    assert seen in printed


def test_two_workers_choose_the_same(alone: RunDirectory, data: Path, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", *AUTO, f"--data={data}", workers=2)
    ours, theirs = (RunRecord.read(each).settings for each in (run, alone))
    assert {name: ours[name] for name in PLANNED} == {name: theirs[name] for name in PLANNED}
    assert run.path.with_suffix(".out").read_text().count("--preset auto:") == 1


def test_a_run_s_config_repeats_it_without_another_look(alone: RunDirectory, tmp_path: Path) -> None:
    path = tmp_path / "run"
    with LocalRun(path, f"--run-dir={path}", f"--config={alone.config}") as run:
        assert run.wait() == 0, run.output.read_text()
    assert "--preset auto" not in run.output.read_text()
    assert losses(run.directory) == losses(alone)
    assert inspect(run.directory)["sha256_weights"] == inspect(alone)["sha256_weights"]


def test_a_run_goes_on_with_what_was_chosen(alone: RunDirectory, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    trained(path, *AUTO, f"--data={data}")
    done = launcher("run", f"--resume={path}", "--", "--epochs=3")
    assert done.returncode == 0, done.stdout
    assert "goes on from step 6 of 9" in done.stdout
    assert "--preset auto" not in done.stdout
    settings = RunRecord.read(RunDirectory(path)).settings
    assert {name: settings[name] for name in CHOSEN} == {**CHOSEN, "epochs": 3}


def test_a_comparison_and_an_estimate_know_what_was_chosen(alone: RunDirectory, data: Path, tmp_path: Path) -> None:
    told = launcher("estimate", str(alone.path), "--workers", "1,2", "-o", "json")
    assert told.returncode == 0, told.stdout
    grid = ("--models=fcn32s", "--upsampling=bilinear", f"--out={tmp_path / 'grid'}")
    settings = [flag for flag in AUTO if flag != "--no-export"]
    for _ in range(2):  # begun again it finds that all is done
        done = trainer("compare", *grid, *settings, f"--data={data}")
        assert done.returncode == 0, done.stderr
        assert "--preset auto: 12 training pictures" in done.stdout
        assert "--model" not in done.stdout.replace("--models", "")
    kept = json.loads((tmp_path / "grid" / "fcn32s-bilinear" / "config.json").read_text())["settings"]
    assert {name: kept[name] for name in CHOSEN} == CHOSEN
