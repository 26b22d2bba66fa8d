"""The cost model of a step, and how it is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from launcher.cli import main
from launcher.estimate import Link, Measured, estimate
from maskfleet.errors import BadInput
from maskfleet.files import write_json
from maskfleet.records import MetricsLine
from maskfleet.run_directory import RunDirectory

ALONE = Measured(step_seconds=0.5, global_batch=16, workers=1, gradient_bytes=20_000_000, examples=1600, epochs=10)
LINK = Link(bandwidth=1e8, latency=1e-3)


def run_of(folder: Path, rates: list[float], **facts: Any) -> RunDirectory:
    run = RunDirectory(folder)
    resolved = {"global_batch": 16, "workers": 1, "trainable_parameters": 5_000_000, "training_examples": 1600, **facts}
    write_json(run.config, {"settings": {"epochs": 10}, "resolved": resolved})
    for epoch, rate in enumerate(rates):
        MetricsLine(epoch + 1, 100 * (epoch + 1), 1.0, rate, loss=1.0, validation_loss=1.0).append(run)
    return run


def test_a_ring_sends_nearly_twice_the_gradients_whatever_the_number_of_workers() -> None:
    fast = Link(bandwidth=1e8, latency=0.0)
    seconds = [fast.all_reduce_seconds(workers, 20_000_000) for workers in (1, 2, 4, 256)]
    assert seconds == pytest.approx([0, 0.2, 0.3, 0.3984375])
    assert LINK.all_reduce_seconds(4, 0) == pytest.approx(0.006)


def test_each_worker_keeps_its_batch_unless_the_global_batch_is_fixed() -> None:
    one, four = estimate(ALONE, [1, 4], LINK)
    assert (one.step_seconds, one.images_per_second, one.efficiency, one.seconds) == (0.5, 32, 1, 500)
    assert (four.global_batch, four.seconds) == (64, pytest.approx(250 * 0.806))
    assert four.efficiency == pytest.approx(0.5 / 0.806)
    (fixed,) = estimate(ALONE, [4], LINK, global_batch=16)
    assert fixed.step_seconds == pytest.approx(0.125 + 0.306)


def test_a_run_of_many_workers_is_freed_of_its_own_all_reduce() -> None:
    many = Measured(0.806, 64, 4, 20_000_000, 1600, 10)
    (one,) = estimate(many, [1], LINK)
    assert one.step_seconds == pytest.approx(0.5)


def test_the_first_epoch_counts_only_where_there_is_no_other(tmp_path: Path) -> None:
    assert Measured.of(run_of(tmp_path / "long", [5, 32, 30, 34])).step_seconds == 0.5
    run = run_of(tmp_path / "short", [16])
    with run.metrics.open("a") as metrics:
        metrics.write('{"images_per_sec')  # the next epoch's line is on its way
    assert Measured.of(run).step_seconds == 1


def test_the_command_prints_a_row_for_each_number(tmp_path: Path) -> None:
    run_of(tmp_path, [5, 32])
    result = CliRunner().invoke(
        main, ["estimate", str(tmp_path), "--workers", "1,2", "--bandwidth", "0.8", "--latency=1"]
    )
    assert result.output.splitlines() == [
        "WORKERS  GLOBAL BATCH  STEP    IMAGES/S  EFFICIENCY  10 EPOCHS",
        "1        16            500 ms  32.0      100%        8m20s",
        "2        32            702 ms  45.6      71%         5m51s",
    ]


@pytest.mark.parametrize(
    ("rates", "arguments", "message"),
    [
        ([], [], "metrics.jsonl: expected at least one epoch, found none; let the run train for two or more"),
        ([5, 32], ["--workers=0"], "expected whole numbers from 1 on, joined by commas, found '0'"),
        ([5, 32], ["--workers=2,x"], "expected whole numbers from 1 on, joined by commas, found '2,x'"),
        (
            [5, 32],
            ["--workers=8", "--global-batch=4"],
            "--workers 8: expected at most one for each of --global-batch 4",
        ),
        ([5, 32], ["--bandwidth=0"], "0.0 is not in the range x>0"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, rates: list[float], arguments: list[str], message: str) -> None:
    run_of(tmp_path, rates)
    result = CliRunner().invoke(main, ["estimate", str(tmp_path), *arguments])
    assert result.exit_code == 2
    assert message in result.output


def test_what_is_no_run_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("none", "file"):
        result = CliRunner().invoke(main, ["estimate", str(tmp_path / name)])
        assert result.exit_code == 3
        assert "there is no run: expected" in result.output


def test_a_link_that_the_run_can_t_have_had_is_refused() -> None:
    with pytest.raises(BadInput, match="over such a link the all-reduce of 4 workers alone would take longer than"):
        estimate(Measured(0.2, 64, 4, 20_000_000, 1600, 10), [1], LINK)


def test_a_bucket_that_is_slower_than_the_workers_is_the_limit() -> None:
    packed = Measured(0.5, 16, 1, 20_000_000, 1600, 10, record_bytes=1_000_000)
    one, four, eight = estimate(packed, [1, 4, 8], LINK, bucket=64e6)
    assert (one.limit, one.step_seconds, one.read_bytes_per_second) == ("workers", 0.5, 32e6)
    assert (four.limit, four.step_seconds, four.read_bytes_per_second) == ("bucket", 1, 64e6)
    assert eight.images_per_second == four.images_per_second == 64


def test_the_command_says_what_is_read_and_what_the_limit_is(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", [32, 32], record_bytes=1_000_000)
    done = CliRunner().invoke(main, ["estimate", str(run.path), "--workers", "1,8", "--bucket-bandwidth", "0.5"])
    assert done.exit_code == 0, done.output
    header, one, eight, mend = done.output.splitlines()
    assert header.split()[-2:] == ["READ", "LIMIT"]
    assert one.split()[-3:] == ["30.5", "MiB/s", "workers"]
    assert eight.split()[-3:] == ["59.6", "MiB/s", "bucket"]
    assert "workers wait for 976.6 KiB an image over 0.5 Gbit/s" in mend
