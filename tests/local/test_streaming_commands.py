"""stream, restore, ls and pull as a user calls them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from launcher.streaming.stream_metrics import StreamMetrics
from launcher.streaming.upload.priority import NICENESS
from maskfleet.errors import BAD_INPUT, DONE, FAILED, NOT_FOUND
from maskfleet.records import write_settings
from tests.fakes.gcs import FakeGcs, Fault
from tests.helpers.sample_run import EVENTS, SampleRun, assert_whole, copied_files

LAUNCHER = [sys.executable, "-c", "from launcher.cli import main; main()"]


@pytest.fixture
def sample(tmp_path: Path) -> SampleRun:
    return SampleRun(tmp_path / "run")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcs]:
    with FakeGcs() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield server


def launcher(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LAUNCHER, *map(str, arguments)], capture_output=True, text=True, timeout=60)


@contextmanager
def streaming(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [*LAUNCHER, "stream", *map(str, arguments)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_until(condition: Callable[[], object], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.05)


def test_a_run_goes_to_a_folder_and_comes_back(sample: SampleRun, tmp_path: Path) -> None:
    sample.everything()
    destination = tmp_path / "destination" / "mine"
    done = launcher("stream", sample.run.path, destination, "--once")
    assert (done.returncode, done.stdout) == (DONE, "")
    assert "drained" in done.stderr
    (row,) = json.loads(launcher("ls", destination.parent, "-o", "json").stdout)
    assert (row["name"], row["steps"], row["progress"]["step"]) == ("mine", [10, 20], 20)
    assert "mine: 0.0 MB in 19 files, 2 checkpoints, newest of step 20; epoch 1, step 20" in launcher(
        "ls", destination.parent
    ).stdout.replace("\n", "")
    back = tmp_path / "back"
    assert json.loads(launcher("restore", destination, back, "-o", "json").stdout) == {"step": 20, "epoch": 1}
    assert f"{tmp_path / 'pulled'}: 19 files" in launcher("pull", destination, tmp_path / "pulled").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["stream", "RUN", "http://nowhere/x"], BAD_INPUT, "http://nowhere/x: expected gs://BUCKET/PREFIX"),
        (["stream", "RUN", "gs://missing/x"], BAD_INPUT, "there is no bucket missing; create it first"),
        (["stream", "RUN", "gs://bucket/x", "--keep-checkpoints", "0"], BAD_INPUT, "0 is not in the range x>=1"),
        (["run", "--keep-checkpoints", "2"], BAD_INPUT, "is about the checkpoints in --output: expected --output too"),
        (["stream", "RUN", "gs://bucket/x", "--once"], NOT_FOUND, "run: there is no run to copy"),
        (["ls", "gs://bucket/x"], NOT_FOUND, "gs://bucket/x: there is no run"),
        (["pull", "gs://bucket/x", "DIR"], NOT_FOUND, "gs://bucket/x: there is nothing"),
        (["restore", "gs://bucket/x", "RUN", "--step", "7"], NOT_FOUND, "there is no checkpoint of step 7"),
    ],
)
def test_mistakes_are_told_in_one_line(
    fake: FakeGcs, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    places = {"RUN": str(tmp_path / "run"), "DIR": str(tmp_path / "pulled")}
    failed = launcher(*(places.get(argument, argument) for argument in arguments))
    assert failed.returncode == code
    assert message in failed.stderr
    assert failed.stderr.count("\n") == 1
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "run").exists()  # what is refused makes nothing
    assert not (tmp_path / "pulled").exists()


def test_the_streamer_gives_way_to_the_training(sample: SampleRun, fake: FakeGcs) -> None:
    sample.everything()
    with streaming(sample.run.path, "gs://bucket/run") as process:
        wait_until(lambda: len(copied_files(fake)) >= 10)
        threads = [int(path.name) for path in Path(f"/proc/{process.pid}/task").iterdir()]
        assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads} == {min(19, os.nice(0) + NICENESS)}
        assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_BATCH}


def test_sigterm_makes_it_copy_what_is_left(sample: SampleRun, fake: FakeGcs) -> None:
    sample.everything()
    with streaming(sample.run.path, "gs://bucket/run", "--interval", 600) as process:
        wait_until(lambda: len(copied_files(fake)) >= 10)
        sample.log_events()
        sample.log_lines()
        sample.append("logs/worker-0.log", b"the last words")
        sample.checkpoint(30)
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    assert process.returncode == DONE, log
    assert_whole(fake, sample)
    metrics = StreamMetrics.load(sample.run)
    assert metrics is not None
    assert (metrics.lag_bytes, metrics.destination) == (0, "gs://bucket/run")
    assert metrics.bytes_sent >= sum(map(len, sample.files().values()))


def test_what_could_not_be_copied_in_time_is_named(sample: SampleRun, fake: FakeGcs) -> None:
    sample.everything()
    with streaming(sample.run.path, "gs://bucket/run", "--interval", 0.1, "--grace", 1) as process:
        wait_until(lambda: EVENTS in copied_files(fake))
        fake.faults.add(Fault("status", status=503, times=100_000))
        sample.log_events()
        sample.checkpoint(30)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert process.returncode == FAILED
    assert "not copied: the checkpoint of step 30" in log
    assert "stopped before all was copied" in log


def test_a_damaged_file_is_named_and_the_rest_is_copied(sample: SampleRun, fake: FakeGcs) -> None:
    sample.everything()
    sample.append(EVENTS, bytes(100))
    done = launcher("stream", sample.run.path, "gs://bucket/run", "--once")
    assert done.returncode == FAILED
    assert "a block of zeros at byte" in done.stderr
    good = sample.files()
    good[EVENTS] = good[EVENTS][:-100]
    assert copied_files(fake) == good


def test_every_worker_adds_its_own_log_to_one_destination(tmp_path: Path, fake: FakeGcs) -> None:
    chief, second = SampleRun(tmp_path / "pod-0"), SampleRun(tmp_path / "pod-1", seed=1)
    chief.everything()
    second.log_lines(worker=1)
    assert launcher("stream", chief.run.path, "gs://bucket/run", "--once").returncode == DONE
    write_settings(second.run, {"epochs": 2})
    assert launcher("stream", second.run.path, "gs://bucket/run", "--worker", 1, "--once").returncode == DONE
    assert copied_files(fake) == {**second.files(), **chief.files()}
    second.log_lines(worker=1)  # the pod is replaced: its log goes on where the old one ended
    replacement = SampleRun(tmp_path / "pod-1-again", seed=2)
    assert launcher("restore", "gs://bucket/run", replacement.run.path, "--worker", 1).returncode == DONE
    replacement.log_lines(worker=1)
    assert launcher("stream", replacement.run.path, "gs://bucket/run", "--once").returncode == DONE
    assert copied_files(fake)["logs/worker-1.log"] == replacement.files()["logs/worker-1.log"]


def test_a_destination_that_holds_another_run_is_refused(tmp_path: Path, fake: FakeGcs) -> None:
    first, second = SampleRun(tmp_path / "first"), SampleRun(tmp_path / "second", seed=1)
    first.everything()
    second.everything()
    assert launcher("stream", first.run.path, "gs://bucket/run", "--once").returncode == DONE
    refused = launcher("stream", second.run.path, "gs://bucket/run", "--once")
    assert refused.returncode == FAILED
    assert "belongs to another run" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert copied_files(fake)["logs/worker-0.log"] == first.files()["logs/worker-0.log"]


def test_memory_does_not_grow_with_the_size_of_a_checkpoint(sample: SampleRun, fake: FakeGcs) -> None:
    for step in (1, 2, 3):
        sample.checkpoint(step, size=100 << 20)
    peak = 0
    with streaming(sample.run.path, "gs://bucket/run", "--once") as process:
        while process.poll() is None:
            status = Path(f"/proc/{process.pid}/status").read_text()
            if found := re.search(r"VmHWM:\s+(\d+) kB", status):
                peak = max(peak, int(found[1]))
            time.sleep(0.02)
    assert process.returncode == DONE
    assert 0 < peak < 100 * 1024  # kB, for 300 MiB in three uploads at once; the interpreter alone takes 60


@pytest.mark.parametrize("name", ["~/runs/mine", "runs/mine", "./runs/mine", "."])
def test_a_folder_of_any_spelling_stands_in_a_job_s_place(name: str, tmp_path: Path) -> None:
    folder = tmp_path if name == "." else tmp_path / "runs" / "mine"
    (folder / "logs").mkdir(parents=True)
    (folder / "logs" / "worker-0.log").write_text("a line\n")
    command = [sys.executable, "-m", "launcher.cli", "logs", name]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.stdout == "worker-0 | a line\n", done.stderr


def test_logs_of_a_job_that_is_gone_come_from_its_destination(tmp_path: Path, fake: FakeGcs) -> None:
    sample = SampleRun(tmp_path / "run")
    for worker, text in ((0, b"one\ntwo\nthree"), (1, b"other\n")):
        sample.append(f"logs/worker-{worker}.log", text)
    assert launcher("logs", "gs://bucket/run").returncode == NOT_FOUND
    assert launcher("stream", sample.run.path, "gs://bucket/run", "--once").returncode == DONE
    everything = "worker-0 | one\nworker-0 | two\nworker-0 | three\nworker-1 | other\n"
    assert launcher("logs", "gs://bucket/run").stdout == everything
    chosen = launcher("logs", "gs://bucket/run", "--worker", 0, "--tail", 2)
    assert chosen.stdout == "worker-0 | two\nworker-0 | three\n"
    refused = launcher("logs", "gs://bucket/run", "-f")
    assert (refused.returncode, refused.stderr.count("\n")) == (BAD_INPUT, 1)


def test_what_the_profiler_recorded_is_copied(sample: SampleRun, fake: FakeGcs) -> None:
    name = "tensorboard/train/plugins/profile/2026_11_25/host.xplane.pb"
    sample.log_events()
    sample.append(name, b"no records, and complete when it is there")
    assert launcher("stream", sample.run.path, "gs://bucket/run", "--once").returncode == DONE
    assert b"".join(fake.buckets.get("bucket", f"run/{name}").pieces) == sample.path(name).read_bytes()
