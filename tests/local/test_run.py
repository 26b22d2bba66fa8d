"""``launcher run``: what it leaves behind, how it goes on, and what it refuses."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from launcher.local.local_run import new_run
from maskfleet.files import write_json
from maskfleet.goodput import CHECKPOINT, COMPUTING, DATA, OTHER, RECOVERY, REDONE, RESULTS, STARTUP, VALIDATION
from maskfleet.phase_log import ledger_of
from maskfleet.records import write_settings
from maskfleet.run_directory import RunDirectory
from maskfleet.settings import Layer
from tests.helpers.browser import look
from tests.helpers.data_folders import write_pets
from tests.helpers.processes import SETTINGS, LocalRun, inspect, launcher, leftovers, losses, trainer, until


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """A complete run of one process."""
    with LocalRun.start(tmp_path_factory.mktemp("done") / "run", "--export", workers=1) as run:
        assert run.wait() == 0, run.output.read_text()
    return run.directory


def test_it_leaves_a_run_directory(done: RunDirectory):
    names = {str(path.relative_to(done.path)) for path in done.path.rglob("*") if path.is_file()}
    assert {
        "config.json",
        "metrics.jsonl",
        "report.html",
        "progress.json",
        "events.jsonl",
        "goodput.jsonl",
        "logs/worker-0.log",
        "pictures/curves.png",
        "pictures/confusion.png",
        "pictures/predictions-epoch-001.png",
        "export/unet.keras",
        "export/unet.h5",
        "export/saved_model/saved_model.pb",
        "checkpoints/manifests/step-00000040.json",
    } <= names
    assert leftovers(done) == []


def test_its_time_is_booked(done: RunDirectory):
    spent = ledger_of(done).totals()
    assert spent.keys() >= {STARTUP, COMPUTING, DATA, VALIDATION, CHECKPOINT, RESULTS}
    assert not spent.keys() & {REDONE, RECOVERY, OTHER}
    assert "<h2>Time</h2>" in done.report.read_text()
    accumulator = EventAccumulator(str(done.tensorboard / "train"))
    accumulator.Reload()
    assert {"goodput", f"seconds/{COMPUTING}", f"seconds/{STARTUP}"} <= {*accumulator.Tags()["tensors"]}


def test_its_numbers_agree(done: RunDirectory):
    line = json.loads(done.metrics.read_text())
    progress = json.loads(done.progress.read_text())
    assert (line["epoch"], line["step"]) == (1, 40)
    assert progress["state"] == "done"
    assert progress["miou"] == line["miou"] == inspect(done)["miou"]
    assert set(line["iou"]) == {"object", "background", "border"}
    assert sorted(losses(done)) == list(range(1, 41))
    assert inspect(done)["parameters"] == 2_719_187


FIRST_LINE = "synthetic: 240 training and 60 test examples"


def test_its_log_has_no_line_of_tensorflow_s_start(done: RunDirectory):
    lines = [line for line in done.worker_log(0).read_text().splitlines() if not line.startswith("reading ")]
    assert lines[0].startswith(FIRST_LINE)
    assert not [line for line in lines if "absl::" in line or "oneDNN" in line or ".cc:" in line]


def test_who_looks_for_a_fault_sees_those_lines_and_the_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MASKFLEET_DEBUG", "1")
    path = tmp_path / "run"
    result = launcher("run", f"--run-dir={path}", "--", *SETTINGS, "--global-batch=999")
    log = result.stdout
    assert result.returncode == 2
    assert "absl::InitializeLog" in log
    assert "Traceback" in log
    assert "maskfleet.errors.BadSettings: the global batch of 999 is larger than the data's 240" in log
    assert "\nerror: the global batch of 999 is larger than the data's 240" in log


def test_inspect_prints_what_the_checkpoint_holds(done: RunDirectory):
    result = trainer("inspect", str(done.path), "-o", "json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == inspect(done)


def test_evaluate_repeats_the_last_validation(done: RunDirectory):
    line = json.loads(done.metrics.read_text())
    for place in (done.path, done.export / "unet.keras"):
        result = trainer("evaluate", str(place), "--data", "synthetic", "--size", "network", "-o", "json")
        assert result.returncode == 0, result.stderr
        assert json.loads(result.stdout)["miou"] == pytest.approx(line["miou"], abs=1e-4)


def test_predict_writes_masks_at_the_image_s_own_size(done: RunDirectory, tmp_path: Path):
    Image.fromarray(np.zeros((50, 70, 3), np.uint8)).save(tmp_path / "a.png")
    result = trainer("predict", str(done.path), str(tmp_path / "a.png"), "--out", str(tmp_path / "out"))
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "out" / "a.png") as mask:
        assert mask.size == (70, 50)
        assert set(np.unique(np.asarray(mask))) <= {0, 1, 2}


def test_export_writes_the_formats_that_are_asked_for(done: RunDirectory, tmp_path: Path):
    formats = ("--format=h5", "--format=tflite-float16", "--images=4")
    result = trainer("export", str(done.path), "--best", *formats, f"--out={tmp_path / 'out'}")
    assert result.returncode == 0, result.stderr
    files = {"unet.h5", "unet-float16.tflite", "classes.json", "export.json", "parity.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files
    parity = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert parity["images"] == 4
    assert parity["files"][1]["same_pixels"] > 0.99


def test_report_is_of_this_run_and_its_data(done: RunDirectory, tmp_path: Path):
    result = trainer("report", str(done.path), f"--out={tmp_path / 'report.html'}")
    assert result.returncode == 0, result.stderr
    for page in (done.report, tmp_path / "report.html"):
        content = page.read_text()
        assert f"{done.path.name}: best" in content
        assert "has changed" not in content


def test_a_browser_shows_the_run_s_report(done: RunDirectory, tmp_path: Path):
    seen = look(done.report.read_text(), tmp_path)
    assert f"{json.loads(done.metrics.read_text())['miou']:.4f}" in seen["text"]
    assert len(seen["images"]) == 3 * 2 * 4
    assert set(seen["images"]) == {128}  # pixels: the pictures' own size
    assert (len(seen["lines"]), seen["requests"]) == (4, 0)
    assert seen["outside"] <= 0


def test_verify_data_draws_what_training_sees(tmp_path: Path):
    picture = tmp_path / "pictures.png"
    result = trainer("verify-data", "--data=synthetic", "--image-size=32", f"--pictures={picture}")
    assert result.returncode == 0, result.stderr
    assert "every file is good" in result.stdout
    with Image.open(picture) as drawn:
        assert drawn.size == (4 * (2 * 32 + 4) + 4, 4 * (32 + 4) + 4)


def test_a_killed_run_goes_on_to_the_same_bits(done: RunDirectory, tmp_path: Path):
    step = random.randrange(1, 35)
    path = tmp_path / "run"
    with LocalRun.start(path, workers=1) as run:
        run.wait_for_step(step)
        run.process.kill()
    with LocalRun.resume(path, workers=1) as run:
        assert run.wait() == 0, run.output.read_text()
    assert inspect(run.directory)["sha256"] == inspect(done)["sha256"], f"killed at step {step}"
    assert len(run.directory.metrics.read_text().splitlines()) == 1
    assert losses(run.directory) == losses(done)


def test_a_run_s_config_repeats_it(done: RunDirectory, tmp_path: Path):
    config = json.loads(done.config.read_text())
    assert config["resolved"]["global_batch"] == 6
    assert config["versions"]["tensorflow"]
    with LocalRun(tmp_path / "run", f"--run-dir={tmp_path / 'run'}", f"--config={done.config}") as run:
        assert run.wait() == 0, run.output.read_text()
    assert inspect(run.directory)["sha256"] == inspect(done)["sha256"]


def test_a_complete_run_can_be_prolonged_and_not_repeated(done: RunDirectory):
    result = launcher("run", "--resume", str(done.path))
    assert result.returncode == 2
    assert "the run is complete (1 epochs); train on with '-- --epochs N'" in result.stdout


def refused(tmp_path: Path, *arguments: str) -> str:
    result = launcher("run", "--run-dir", str(tmp_path / "run"), "--", *SETTINGS, *arguments)
    assert result.returncode == 2, result.stdout
    assert "Traceback" not in result.stdout
    assert not (tmp_path / "run").exists()
    errors: list[str] = [line for line in result.stdout.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, result.stdout
    return errors[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epoch=3"], "--epoch: there is no such setting; did you mean --epochs?"),
        (["--global-batch=500"], "global batch of 500 is larger than the data's 240 training examples"),
        (["--data=folder:/nowhere"], "/nowhere"),
        (["--encoder-weights=/nowhere.h5"], "/nowhere.h5"),
        (["--data=nonsense"], "nonsense"),
    ],
)
def test_a_mistake_gets_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], message: str):
    assert message in refused(tmp_path, *arguments)


def test_what_was_trained_is_kept_when_its_data_is_gone(tmp_path: Path):
    data = write_pets(tmp_path / "pets", train=40, test=4)
    with LocalRun.start(tmp_path / "run", f"--data=folder:{data}", "--epochs=200", workers=1) as run:
        run.wait_for_step(7)
        data.rename(tmp_path / "gone")
        run.training_process(0).kill()
        assert run.wait() == 2, run.output.read_text()
    assert f"error: --data folder:{data}: expected a folder, found nothing at {data}" in run.output.read_text()
    assert run.directory.checkpoint_steps()


def test_a_directory_that_holds_a_run_is_refused(done: RunDirectory):
    result = launcher("run", "--run-dir", str(done.path))
    assert result.returncode == 2
    assert f"holds a run that is complete; go on with it by 'launcher run --resume {done.path}'" in result.stdout


@pytest.mark.parametrize("name", ["notes.txt", ".git"])
def test_a_directory_with_other_files_is_refused(tmp_path: Path, name: str):
    (tmp_path / name).touch()
    result = launcher("run", "--run-dir", str(tmp_path))
    assert result.returncode == 2
    assert "expected an empty or new directory" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_directory_that_a_streamer_watches_already_is_taken(tmp_path: Path):
    (tmp_path / ".streamer.json").touch()
    run, config = new_run(tmp_path, None, Layer("the command line", {}))
    write_settings(run, config.model_dump(mode="json"))
    assert run.config.exists()


def test_a_directory_in_use_is_refused(tmp_path: Path):
    path = tmp_path / "run"
    with LocalRun.start(path, workers=1) as run:
        run.training_process(0)
        result = launcher("run", "--resume", str(path))
        assert result.returncode == 2
        assert "in use by another process" in result.stdout
        assert run.interrupt() == 130


@pytest.mark.parametrize("word", [signal.SIGINT, signal.SIGHUP], ids=lambda word: word.name)
def test_a_run_whose_output_has_lost_its_reader_saves_when_it_is_told_to_stop(tmp_path: Path, word: signal.Signals):
    run = RunDirectory(tmp_path / "run")
    settings = [*SETTINGS, "--epochs=200", "--checkpoint-steps=0"]
    command = [sys.executable, "-m", "launcher.cli", "run", f"--run-dir={run.path}", "--", *settings]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # the tests may run under nohup
    ) as process:
        assert process.stdout
        assert process.stderr
        until(run.progress.exists, "the first step")
        process.stdout.close()
        process.send_signal(word)
        assert process.wait() == 130
        assert process.stderr.read() == b""
    assert run.checkpoint_steps()
    assert leftovers(run) == []


@pytest.mark.parametrize("by", ["launcher", "trainer"])
def test_a_resume_that_is_refused_changes_nothing_of_the_live_run(tmp_path: Path, by: str):
    path, copy = tmp_path / "run", tmp_path / "copy"
    with LocalRun.start(path, "--epochs=50", workers=1) as run:
        run.wait_for_step(6)
        before = run.directory.config.read_bytes()
        changes = ("--epochs=777", "--learning-rate=9")
        if by == "launcher":
            refused = launcher("run", f"--resume={path}", f"--output={copy}", "--", *changes)
        else:
            refused = trainer("train", f"--run-dir={path}", *changes)
        assert refused.returncode == 2
        assert "in use by another process" in refused.stdout + (refused.stderr or "")
        assert run.directory.config.read_bytes() == before
        assert not copy.exists()
        assert run.interrupt() == 130
    assert json.loads(before)["settings"]["epochs"] == 50


def test_runs_that_begin_in_one_second_have_a_folder_each(tmp_path: Path):
    (tmp_path / "empty").mkdir()  # which the trainer refuses, once it has a run
    command = [sys.executable, "-m", "launcher.cli", "run", "--", *SETTINGS, "--data=folder:empty"]
    some = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    folders = [process.communicate(timeout=300)[0].splitlines()[0].removeprefix("run directory: ") for process in some]
    assert len(set(folders)) == 4


def test_what_is_no_run_can_not_be_resumed(tmp_path: Path):
    result = launcher("run", "--resume", str(tmp_path))
    assert result.returncode == 3
    assert "there is no run" in result.stdout


@pytest.mark.parametrize(
    ("command", "setting", "message"),
    [
        (launcher, "--global-batch=500", "global batch of 500 is larger than the data's 240 training examples"),
        (launcher, "--model=fcn8s", "step-00000040: this checkpoint is of another network or optimizer than the"),
        (launcher, "--best-by=loss", "--best-by loss: the run's checkpoints have scores by miou"),
        (trainer, "--data=folder:/nowhere", "/nowhere"),
    ],
)
def test_a_run_is_as_it_was_after_a_setting_that_it_can_not_go_on_with(
    done: RunDirectory, tmp_path: Path, command: Callable[..., CompletedProcess[str]], setting: str, message: str
):
    path = tmp_path / "run"
    shutil.copytree(done.path, path)
    before = visible(path)
    how = ("run", f"--resume={path}", "--") if command is launcher else ("train", f"--run-dir={path}")
    result = command(*how, "--epochs=2", setting)
    assert result.returncode == 2, result.stdout
    last = (result.stdout.strip() or result.stderr.strip()).splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert visible(path) == before


def visible(path: Path) -> dict[str, bytes]:
    """What a run shows of itself, by name."""
    files = [path / "config.json", path / "metrics.jsonl", path / "progress.json", *(path / "pictures").iterdir()]
    return {file.name: file.read_bytes() for file in files}


def test_changed_data_is_noticed_before_anything_is_written(done: RunDirectory, tmp_path: Path):
    path = tmp_path / "run"
    shutil.copytree(done.path, path)
    write_json(path / "config.json", {**json.loads(done.config.read_text()), "data_fingerprint": "another"})
    before = visible(path)
    result = launcher("run", "--resume", str(path), "--", "--epochs=2")
    assert result.returncode == 2
    assert "the data has changed since the run began" in result.stdout
    assert visible(path) == before


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_batch(tmp_path: Path):
    errors = set()
    for steps in (1, 4):
        settings = (*SETTINGS, "--learning-rate=1e38", "--optimizer=sgd", f"--steps-per-call={steps}")
        result = launcher("run", "--run-dir", str(tmp_path / f"run-{steps}"), "--", *settings)
        assert result.returncode == 1
        errors.add(next(line for line in result.stdout.splitlines() if line.startswith("error: ")))
    assert len(errors) == 1, errors
    error = errors.pop()
    assert "the loss is" in error
    assert "train-" in error


def test_it_stops_early_when_nothing_gets_better(tmp_path: Path):
    settings = (
        "--export",
        "--model=fcn8s",
        "--epochs=5",
        "--learning-rate=1e-12",
        "--patience=2",
        "--best-by=pixel_accuracy",
    )
    with LocalRun.start(tmp_path / "run", *settings, workers=1) as run:
        assert run.wait() == 0, run.output.read_text()
    assert [json.loads(line)["epoch"] for line in run.directory.metrics.read_text().splitlines()] == [1, 2, 3]
    assert "stops after epoch 3: no better pixel_accuracy for 2" in run.directory.worker_log(0).read_text()
    assert (run.directory.export / "fcn8s.keras").exists()
