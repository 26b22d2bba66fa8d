"""What TensorBoard shows of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray

from maskfleet.pace import FleetPace, Pace, Steps, Usage
from maskfleet.records import FinalScores, MetricsLine, RunRecord, SplitScores
from maskfleet.run_directory import RunDirectory
from trainer.data.cache import Arrays, Dataset
from trainer.data.source import palette
from trainer.objective.metrics import Scores
from trainer.training.plan import Plan
from trainer.training.summaries import Summaries, Validation


def summaries(
    run: RunDirectory, first_step: int = 0, classes: int = 2, validated: int | None = None, validation: bool = False
) -> Summaries:
    """Of a run of 20 steps, five an epoch."""
    images = np.zeros((2, 32, 32, 3), np.uint8)
    split = Arrays(("a", "b"), images, images[..., 0])
    names = tuple(f"class {number}" for number in range(classes))
    dataset = Dataset("set", names, palette(classes), None, split, split, "", split if validation else None)
    plan = Plan(examples=10, global_batch=2, epochs=4, slices=(slice(0, 2),))
    return Summaries(
        run, plan, dataset, lambda images: images[..., 0], first_step, first_step if validated is None else validated
    )


def steps(told: Summaries, last: int, loss: float) -> None:
    told.steps(last, np.full(last, loss), np.ones(last), 1.0)


def curve(run: RunDirectory, name: str = "loss") -> list[tuple[int, float]]:
    """Steps and values in the order in which TensorBoard has them."""
    accumulator = EventAccumulator(str(run.tensorboard / "train"), size_guidance={"tensors": 0})
    accumulator.Reload()
    return [(event.step, float(make_ndarray(event.tensor_proto))) for event in accumulator.Tensors(name)]


def test_a_start_before_the_first_checkpoint_takes_back_what_an_earlier_one_told(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    for last, loss in ((4, 1.0), (3, 2.0)):
        told = summaries(run)
        told.settings({"epochs": 4}, "")
        steps(told, last, loss)
        told.end("stopped")
    assert curve(run) == [(1, 2.0), (2, 2.0), (3, 2.0)]
    accumulator = EventAccumulator(str(run.tensorboard / "train"))
    accumulator.Reload()
    assert len(accumulator.Tensors("settings")) == 1


def test_a_run_that_goes_on_takes_back_what_was_told_of_later_steps(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    told = summaries(run)
    steps(told, 4, 1.0)
    told.end("stopped")
    summaries(run, first_step=2).end("stopped")
    assert curve(run) == [(1, 1.0), (2, 1.0)]


def test_each_worker_and_the_time_have_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.training.summaries.WORKERS_SECONDS", 0.0)
    run = RunDirectory(tmp_path)
    taken, idle = Steps(10, 4.0, 0.5, 2.0, 1.0), Steps(0, 0.0, 0.0, 0.0, 0.0)
    FleetPace(1.0, (), {"0": Pace(idle, Usage(cpus=1.5)), "1": Pace(taken, Usage(throttled=0.25), 0.01)}).write(run)
    told = summaries(run)
    steps(told, 3, 1.0)
    told.end("stopped")
    assert curve(run, "workers/compute/1") == [(3, pytest.approx(0.2))]
    assert curve(run, "workers/throttled/1") == [(3, 0.25)]
    assert curve(run, "workers/round_trip/1") == [(3, pytest.approx(0.01))]
    accumulator = EventAccumulator(str(run.tensorboard / "train"))
    accumulator.Reload()
    assert {tag for tag in accumulator.Tags()["tensors"] if tag.endswith("/0")} == {"workers/cpus/0"}


@pytest.mark.parametrize("split", ["test", "validation"])
def test_final_scores_are_shown_at_both_sizes(tmp_path: Path, split: str) -> None:
    run = RunDirectory(tmp_path)
    RunRecord({}).write(run)
    told = summaries(run, validation=True)
    told.final(FinalScores(split, 2, None, 5, 1, 0.5, miou=0.75, iou={"a": None}, size="own",
                           at_network_size=SplitScores(miou=0.25, iou={"a": 0.5})))  # fmt: skip
    told.end("done")
    accumulator = EventAccumulator(str(run.tensorboard / split))
    accumulator.Reload()
    names = {"own_size/miou": 0.75, "own_size/iou/a": np.nan, "miou": 0.25, "iou/a": 0.5, "loss": 0.5}
    if split == "validation":  # a validation has shown these
        names = {name: value for name, value in names.items() if name.startswith("own_size/")}
    tags = accumulator.Tags()["tensors"]
    assert {name for name in tags if name in ("miou", "loss") or "iou/a" in name or name == "own_size/miou"} == {*names}
    for name, value in names.items():
        np.testing.assert_array_equal(make_ndarray(accumulator.Tensors(name)[0].tensor_proto), np.float32(value))
    accumulator = EventAccumulator(str(run.tensorboard / "train"))
    accumulator.Reload()
    text = make_ndarray(accumulator.Tensors("scores")[0].tensor_proto).item()
    assert text.decode().startswith("mIoU 0.7500 at the images' own size, 0.2500 at the network's, on the ")


@pytest.mark.parametrize(("validated", "kept"), [(5, 1), (-1, 0)])
def test_a_validation_that_the_state_does_not_know_of_is_taken_back(tmp_path: Path, validated: int, kept: int) -> None:
    """The state was saved between the epoch's last step and the end of its validation."""
    run = RunDirectory(tmp_path)
    result = Validation(Scores(np.eye(2, dtype=np.int64), ("a", "b"), None), 1.0)
    told = summaries(run)
    told.epoch(1, 5, 1.0, result, result)
    told.end("stopped")
    summaries(run, first_step=5, validated=validated).end("stopped")
    assert len(MetricsLine.read_all(run)) == kept


@pytest.mark.parametrize("classes", [2, 255])
def test_any_number_of_classes_has_a_confusion_matrix(tmp_path: Path, classes: int) -> None:
    run = RunDirectory(tmp_path)
    told = summaries(run, classes=classes)
    names = tuple(f"class {number}" for number in range(classes))
    result = Validation(Scores(np.eye(classes, dtype=np.int64), names, None), 1.0)
    told.epoch(1, 5, 1.0, result, result)
    told.end("done")
    accumulator = EventAccumulator(str(run.tensorboard / "validation"))
    accumulator.Reload()
    width, height, _ = make_ndarray(accumulator.Tensors("confusion")[0].tensor_proto)
    assert max(int(width), int(height)) <= 2000


@pytest.mark.parametrize("set_by", [-86_400, -1, 0, 1, 86_400])
def test_a_clock_that_is_set_neither_hides_nor_mixes_up_the_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, set_by: int
) -> None:
    """TensorBoard sees each step at once, and takes the later process's for the later one."""
    run, clock = RunDirectory(tmp_path), 1795428000.0
    monkeypatch.setattr("time.time", lambda: clock)
    told = summaries(run)
    steps(told, 4, 1.0)
    clock += set_by
    told.steps(5, np.full(1, 2.0), np.ones(1), 1.0)
    assert curve(run) == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0), (5, 2.0)]
    summaries(run, first_step=3).steps(4, np.full(1, 3.0), np.ones(1), 1.0)
    assert curve(run) == [(1, 1.0), (2, 1.0), (3, 1.0), (4, 3.0)]
