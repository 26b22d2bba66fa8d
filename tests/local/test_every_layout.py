"""Layouts and formats by the launcher's whole way: trained, stopped and resumed, by two workers, evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from maskfleet.run_directory import RunDirectory
from tests.helpers.layouts import LAYOUTS, Layout
from tests.helpers.processes import LocalRun, inspect, losses, trainer

pytestmark = pytest.mark.long

# As in test_workers: what no number of workers changes.
SETTINGS = ("--epochs=8", "--global-batch=2", "--checkpoint-steps=2", "--normalization=frozen", "--optimizer=sgd")
WHOLE_WAY = ("COCO", "folders of splits above")


def trained(layout: Layout, folder: Path, workers: int = 1) -> RunDirectory:
    place = layout.write(folder / "set")
    data = (f"--data={place}", *layout.flags)
    with LocalRun.start(folder / "run", *data, *SETTINGS, "--learning-rate=0.01", workers=workers) as run:
        assert run.wait() == 0, run.output.read_text()
    return run.directory


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.id)
def test_a_raw_folder_is_trained_on_and_scored(layout: Layout, tmp_path: Path) -> None:
    run = trained(layout, tmp_path)
    found = trainer("evaluate", str(run.path), "-o", "json")
    assert found.returncode == 0, found.stderr
    scores = json.loads(found.stdout)
    assert 0 <= scores["miou"] <= 1
    assert scores["of_these_trained_on"] == 0
    assert scores["size"] == "own"


@pytest.mark.parametrize("layout", [each for each in LAYOUTS if each.id in WHOLE_WAY], ids=lambda layout: layout.id)
def test_a_stop_changes_no_bit_and_two_workers_learn_the_same(layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    alone = trained(layout, tmp_path / "alone")
    data = (f"--data={layout.write(tmp_path / 'set')}", *layout.flags)
    with LocalRun.start(tmp_path / "stopped", *data, *SETTINGS, "--learning-rate=0.01", workers=1) as run:
        run.wait_for_step(4)
        stopped = run.interrupt()
    if stopped == 130:
        with LocalRun.resume(tmp_path / "stopped", workers=1) as run:
            assert run.wait() == 0, run.output.read_text()
    assert inspect(run.directory)["sha256"] == inspect(alone)["sha256"]
    (tmp_path / "two").mkdir()
    two, one = losses(trained(layout, tmp_path / "two", workers=2)), losses(alone)
    assert two.keys() == one.keys()
    for step, loss in one.items():
        assert two[step] == pytest.approx(loss, abs=1e-4), f"step {step}"
