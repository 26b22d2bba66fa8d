"""The trainer's commands as a user meets them: in a process of their own, with its outputs and its exit code."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import PIL.Image
import pytest

from maskfleet.errors import BadInput
from tests.helpers.data_folders import labels, picture, save, write_list, write_pairs
from trainer.results.legend import Legend
from trainer.results.trained import load_trained


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "trainer.cli", *map(str, arguments)]


def trainer(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    everything = {**os.environ, **environment}
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, env=everything, timeout=300,
        errors="surrogateescape",
    )  # fmt: skip


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network as a file, with its legend."""
    file = tmp_path_factory.mktemp("network") / "small.keras"
    kernel = keras.initializers.GlorotUniform(seed=0)
    layer = keras.layers.Conv2D(2, 3, padding="same", kernel_initializer=kernel)
    keras.Sequential([keras.Input((32, 32, 3)), layer], name="small").save(file)
    (file.parent / "classes.json").write_text(
        json.dumps(Legend(("ground", "Käfer\x1b[2J"), Legend.unnamed(2).colours, None).to_json())
    )
    return file


def photos(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        pixels = np.random.default_rng(len(name)).integers(0, 256, (40, 50, 3), dtype=np.uint8)
        PIL.Image.fromarray(pixels).save(Path(os.fsdecode(os.fsencode(folder) + b"/" + os.fsencode(name))))
    return folder


def test_a_network_beside_itself_predicts_as_it_does_alone(network: Path, tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", "a.png")
    masks = []
    for number in (1, 2):
        out = tmp_path / f"out-{number}"
        done = trainer("predict", *[network] * number, folder, "--out", out)
        assert done.returncode == 0, done.stderr
        masks.append(np.asarray(PIL.Image.open(out / "a.png")))
    np.testing.assert_array_equal(*masks)
    none = trainer("predict", network, network, "--out", tmp_path / "out")
    assert none.returncode == 2
    assert "Missing argument 'IMAGES...'" in none.stderr


def test_bad_photographs_are_named_at_the_end_whatever_their_names_and_the_output(
    network: Path, tmp_path: Path
) -> None:
    folder, out = photos(tmp_path / "photos", "a.png", "é\udce9.png", "z.png"), tmp_path / "out"
    for name in (b"b\xff.png", b"c\x1b[31m\n.png"):
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(b"no picture")
    done = trainer("predict", network, folder, "--out", out, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 2
    assert done.stdout == f"3 mask(s) in {out}\n"
    first, second, last = done.stderr.splitlines()
    assert first.startswith(f"bad: {folder}/b\\udcff.png: expected an image, found something else")
    assert second.startswith(f"bad: {folder}/c\\x1b[31m\\n.png: expected an image")
    assert last == "error: 2 of 5 image(s) have no mask, as said above"
    assert len(list(out.iterdir())) == 6

    again = trainer("predict", network, folder, "--out", out, "--skip-done")
    assert again.returncode == 2
    assert again.stdout == f"0 mask(s) in {out}, 3 were there\n"


def test_a_prediction_that_was_killed_goes_on_with_what_is_left(network: Path, tmp_path: Path) -> None:
    names = [f"{number:03d}{'x' * (number % 7)}.png" for number in range(300)]
    folder, out = photos(tmp_path / "photos", *names), tmp_path / "out"
    with subprocess.Popen(command("predict", network, folder, "--out", out), stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 120
        while len(list(out.glob("*_overlay.png"))) < 5 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.kill()
    there = {file: file.stat().st_mtime_ns for file in out.glob("*_overlay.png")}
    assert 5 <= len(there) < 300
    again = trainer("predict", network, folder, "--out", out, "--skip-done")
    assert again.returncode == 0, again.stderr
    made, were = map(int, re.findall(r"\d+", again.stdout.replace(str(out), "")))
    assert made + were == 300
    assert were >= len(there) - 2  # whose masks were not in their places yet
    whole = tmp_path / "whole"
    assert trainer("predict", network, folder, "--out", whole).returncode == 0
    assert sorted(file.name for file in out.iterdir()) == sorted(file.name for file in whole.iterdir())
    assert [file.name for file in whole.iterdir() if file.read_bytes() != (out / file.name).read_bytes()] == []
    assert sum(file.stat().st_mtime_ns == changed for file, changed in there.items()) >= were


def test_a_terminal_shows_progress_and_a_pipe_none(network: Path, tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", "a.png", "b.png")
    leader, follower = pty.openpty()
    arguments = command("predict", network, folder, "--out", tmp_path / "out")
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=follower, env={**os.environ, "TERM": "xterm"}
    ) as process:
        os.close(follower)
        shown = b""
        while True:
            try:
                piece = os.read(leader, 1 << 16)
            except OSError:  # the other end is closed
                break
            shown += piece
        assert process.wait(timeout=60) == 0
    os.close(leader)
    assert b"0/2" in shown
    assert b"I0000" not in shown
    assert b"Warning" not in shown
    done = trainer("predict", network, folder, "--out", tmp_path / "out")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"2 mask(s) in {tmp_path / 'out'}\n", "")


def test_an_export_says_what_it_wrote_and_nothing_else(network: Path, tmp_path: Path) -> None:
    formats = [f"--format={name}" for name in ("keras", "h5", "saved_model")]
    done = trainer("export", network, "--out", tmp_path / "out", *formats)
    assert done.returncode == 0
    assert done.stderr.startswith("the files are not compared with the network: ")
    assert len(done.stderr.splitlines()) == 1
    assert all(line.startswith("wrote ") for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    "content",
    [b"", b"{" * 100_000, b"<html>", b"PK\x03\x04" + bytes(100), b"\x89HDF\r\n\x1a\n" + bytes(2000)],
)
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_a_file_that_is_no_network_is_one_line(content: bytes, suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"net.{suffix}").write_bytes(content)
    with pytest.raises(BadInput, match=rf"net\.{suffix}: expected a network that 'trainer export' wrote") as caught:
        load_trained(tmp_path / f"net.{suffix}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments", [["evaluate", "{}"], ["predict", "{}", "{}", "--out", "o"], ["export", "{}"], ["rank-labels", "{}"]]
)
def test_a_network_that_is_not_there_is_told_of_before_tensorflow_comes(arguments: list[str], tmp_path: Path) -> None:
    place = tmp_path / "run"
    command = [sys.executable, "-X", "importtime", "-m", "trainer.cli", *(word.format(place) for word in arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 3
    files = "a .keras, .h5, .onnx" if arguments[0] == "evaluate" else "a .keras or .h5 file"
    assert f"error: {place}: expected a run directory, or {files}" in ended.stderr
    assert "tensorflow" not in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["trainer", "train", "--run-dir"], ["trainer", "evaluate"], ["trainer", "inspect"], ["trainer", "export"],
        ["trainer", "export", "{}", "--out"],
        ["launcher", "run", "--run-dir"], ["launcher", "run", "--resume"],
    ],
)  # fmt: skip
def test_a_name_that_tensorflow_does_not_take_is_told_at_once(
    arguments: list[str], network: Path, tmp_path: Path
) -> None:
    place = tmp_path / os.fsdecode(b"\xff")
    place.mkdir()
    package, *words = (word.format(network) for word in arguments)
    command = [sys.executable, "-m", f"{package}.cli", *words, str(place)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ended.returncode == 2
    assert ended.stderr.endswith(
        "\\udcff: expected a name in UTF-8, found other bytes; rename it (convmv renames many)\n"
    )
    assert ended.stderr.count("\n") == 1


def test_a_network_of_other_shapes_is_one_line(tmp_path: Path) -> None:
    layers = keras.layers
    for number, (shape, layer) in enumerate([
        ((None, None, 3), layers.Conv2D(2, 1)),
        ((32, 48, 3), layers.Conv2DTranspose(2, 1, strides=(1, 2))),
        ((32, 32, 3), layers.Conv2D(300, 1)), ((32, 32, 3), layers.Conv2D(2, 1, strides=2)), ((8,), layers.Dense(2)),
    ]):  # fmt: skip
        file = tmp_path / f"{number}.keras"
        keras.Sequential([keras.Input(shape), layer]).save(file)
        with pytest.raises(BadInput, match=r"expected a network from images \[b, H, W, bands\] to logits"):
            load_trained(file)


@pytest.mark.parametrize(
    "legend",
    [
        "[" * 100_000, "3", "[]", '{"classes": "ab", "colours": [[0, 0, 0], [1, 1, 1]], "background": null}',
        '{"classes": ["a", 2], "colours": [[0, 0, 0], [1, 1, 1]], "background": null}',
        '{"classes": ["a", "b"], "colours": [[0, 0, 0], [1, 1, 256]], "background": null}',
        '{"classes": ["a", "b"], "colours": [[0, 0, 0]], "background": null}',
        '{"classes": ["a", "b"], "colours": [[0, 0, 0], [1, 1, 1]], "background": "c"}',
        '{"classes": ["a", "b"], "colours": [[0, 0, 0], [1, 1, 1]], "background": [1]}',
    ],
)  # fmt: skip
def test_a_legend_that_is_none_is_one_line(legend: str, network: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.json").write_text(legend)
    (tmp_path / "small.keras").write_bytes(network.read_bytes())
    with pytest.raises(BadInput, match=r"classes\.json: ") as caught:
        load_trained(tmp_path / "small.keras")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_a_home_is_meant_in_every_path(network: Path, tmp_path: Path) -> None:
    photos(tmp_path / "photos", "a.png")
    network.rename(tmp_path / "small.keras")
    done = trainer("predict", "~/small.keras", "~/photos/*.png", "--out=~/out", HOME=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out" / "a.png").is_file()
    (tmp_path / "small.keras").rename(network)
    nobody = trainer("predict", "~nosuch/small.keras", "~/photos/*.png", "--out=~/out", HOME=str(tmp_path))
    assert (nobody.returncode, nobody.stderr) == (
        2, "error: the path ~nosuch/small.keras: there is no home of ~nosuch; name the place in full\n",
    )  # fmt: skip


def test_what_is_printed_goes_through_an_output_that_knows_no_such_letters(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(4):
        pixels = np.full((40, 40, 3), 50 * number, np.uint8)
        pixels[0, 0] = 255
        PIL.Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        PIL.Image.fromarray(np.eye(40, dtype=np.uint8)).save(folder / "masks" / f"{number}.png")
    (folder / "classes.txt").write_text("ground\nKäfer\n")
    done = trainer("verify-data", "--data", f"folder:{folder}", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, "")
    assert "K\\xe4fer" in done.stdout
    assert "####" in done.stdout


def test_a_run_that_is_tested_on_what_it_was_trained_on_says_so(tmp_path: Path) -> None:
    folder, run = write_pairs(tmp_path / "data", 10), tmp_path / "run"
    cache = {"MASKFLEET_CACHE": str(tmp_path / "cache")}
    flags = ("--image-size", "32", "--encoder-weights", "none", "--epochs", "1", "--no-export")
    trained = trainer("train", "--run-dir", run, "--data", f"folder:{folder}", *flags, **cache)
    assert trained.returncode == 0, trained.stdout
    before = trainer("evaluate", run, "-o", "json", **cache)
    assert (before.returncode, before.stderr) == (0, "")
    assert json.loads(before.stdout)["of_these_trained_on"] == 0

    # A fifth is for testing, those with the lowest hashes: with ten more of high ones, two that were trained on.
    high = sorted((f"new{i}" for i in range(999)), key=lambda name: hashlib.sha256(name.encode()).digest())[-10:]
    for name in high:
        save(picture(len(name)), folder / "images" / f"{name}.jpg")
        save(labels(0, 1, 2), folder / "masks" / f"{name}.png")
    after = trainer("evaluate", run, "-o", "json", **cache)
    (warning,) = after.stderr.splitlines()
    assert warning.startswith(f"warning: the data is not what {run} was trained on: ")
    assert "2 of 4 test pictures were trained on" in warning
    facts = json.loads(after.stdout)
    assert (facts["test_images"], facts["of_these_trained_on"]) == (4, 2)
    reported = trainer("report", run, "--out", tmp_path / "report.html", **cache)
    assert (reported.returncode, reported.stderr) == (0, "")
    assert f"The data is not what {run} was trained on" in (tmp_path / "report.html").read_text()


def test_which_split_is_scored_and_what_was_chosen_on_it(tmp_path: Path) -> None:
    folder, cache = write_pairs(tmp_path / "data", 20), {"MASKFLEET_CACHE": str(tmp_path / "cache")}
    flags = ("--data", f"folder:{folder}", "--image-size=32", "--encoder-weights=none", "--epochs=1", "--no-export")
    run, plain = tmp_path / "run", tmp_path / "plain"
    assert trainer("train", "--run-dir", run, "--validation-share=.25", *flags, **cache).returncode == 0
    for split, count in ((None, 4), ("validation", 4), ("train", 12)):
        found = trainer("evaluate", run, "-o", "json", "--best", *(["--split", split] if split else []), **cache)
        facts = json.loads(found.stdout)
        assert (facts["split"], facts["images"]) == (split or "test", count)
        expected = "warning: these 12 pictures were trained on, and the scores are too good\n" if count == 12 else ""
        assert found.stderr == expected
    scores = json.loads((run / "scores.json").read_text())
    again = trainer("evaluate", run, "--size", "network", "-o", "json", **cache)
    assert scores["at_network_size"]["miou"] == pytest.approx(json.loads(again.stdout)["miou"])
    own = json.loads(trainer("evaluate", run, "-o", "json", **cache).stdout)
    assert (scores["size"], scores["confusion"]) == ("own", own["confusion"])

    trained = trainer("train", "--run-dir", plain, "--patience=1", *flags, **cache)
    (warning,) = (line for line in trained.stdout.splitlines() if "warning" in line)
    assert "--patience 1 chooses the end of training on the test split" in warning
    refused = trainer("evaluate", plain, "--split=validation", **cache)
    assert (refused.returncode, refused.stderr) == (
        2, "error: --split validation: data has no such split, it has train and test; name one of them\n",
    )  # fmt: skip
    warned = trainer("evaluate", plain, "--best", **cache)
    assert warned.stderr.startswith("warning: --best chooses on the test split, as the run has no validation split")

    for name, names in (("train", [f"p{i}" for i in range(12)]), ("val", ["p12", "p13", "p14"])):
        write_list(folder / f"{name}.txt", names)
    refused = trainer("train", "--run-dir", plain, "--epochs=2", **cache)
    assert refused.returncode == 2
    assert "the data has changed since the run began, or how it is divided" in refused.stdout
    other = trainer("evaluate", plain, "-o", "json", **cache)
    assert json.loads(other.stdout)["split"] == "validation"
    assert "data has no test split: this is the validation split, on which the checkpoint may be chosen" in other.stderr


def test_an_exported_file_is_scored_by_its_own_runtime(network: Path, tmp_path: Path) -> None:
    folder, out = write_pairs(tmp_path / "data", mask=labels(0, 1), classes=("ground", "beetle")), tmp_path / "out"
    cache = {"MASKFLEET_CACHE": str(tmp_path / "cache")}
    formats = ("onnx", "openvino", "tflite-float32", "saved_model")
    done = trainer("export", network, "--out", out, *(f"--format={name}" for name in formats), "--images=2")
    assert done.returncode == 0, done.stderr
    scores = []
    names = [f"small{end}" for end in (".onnx", ".xml", "-float32.tflite")]
    for place in (network, *(out / name for name in (*names, "saved_model"))):
        found = trainer("evaluate", place, "--data", f"folder:{folder}", "-o", "json", **cache)
        assert found.returncode == 0, found.stderr
        scores.append(json.loads(found.stdout)["miou"])
    assert scores == pytest.approx([scores[0]] * 5, abs=2e-3)
    for arguments, problem in (
        ([out / "small.onnx", "--flip"], "--flip: .*small.onnx prepares pictures by itself; leave --flip out"),
        (
            [out / "small.onnx", network],
            ".*small.onnx: expected runs, checkpoints, .keras or .h5 files, of which alone",
        ),
        (["--best", out / "small.xml"], "--best: expected a run directory, found .*small.xml"),
    ):
        refused = trainer("evaluate", *arguments, "--data", f"folder:{folder}", **cache)
        assert refused.returncode == 2
        assert re.match(f"error: {problem}", refused.stderr)
        assert len(refused.stderr.splitlines()) == 1
