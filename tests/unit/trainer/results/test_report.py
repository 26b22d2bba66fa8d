"""The report's page, as a real browser renders it."""

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from maskfleet.errors import BadSettings, NotFound
from maskfleet.files import write_json
from maskfleet.records import MetricsLine, Resolved, RunRecord
from maskfleet.run_directory import RunDirectory
from tests.helpers.browser import look
from tests.helpers.data_folders import write_list, write_pairs
from trainer.data.cache import load_dataset
from trainer.data.source import palette
from trainer.pictures import confusion_picture, legend_strip
from trainer.results.legend import Legend
from trainer.results.report import write_report
from trainer.results.report_page import _ticks, page
from trainer.results.run_facts import Example, RunFacts
from trainer.results.trained import Trained

LEGEND = Legend(
    ("object", "back<ground", "border"), np.array([[232, 119, 34], [38, 70, 83], [9, 9, 9]], np.uint8), None
)


def facts(name: str, **changes: Any) -> RunFacts:
    def line(epoch: int) -> MetricsLine:
        return MetricsLine(
            epoch,
            80 * epoch,
            training_seconds=12.5 * epoch,
            images_per_second=60.0,
            loss=1 / epoch,
            validation_loss=1.2 / epoch,
            training_miou=0.55 + 0.1 * epoch,
            miou=0.5 + 0.1 * epoch,
            pixel_accuracy=0.8,
            iou={"object": 0.7123, "back<ground": 0.9, "border": None},
            dice={"object": 0.8, "back<ground": 0.95, "border": None},
            confusion=[[70, 20, 10], [5, 90, 5], [0, 0, 0]],
        )

    settings = {"model": "unet", "encoder": "mobilenet_v2", "image_size": 128, "epochs": 3, "seed": 0, "loss": "dice"}
    everything: dict[str, Any] = {
        "name": name,
        "record": RunRecord(settings, Resolved(workers=2), versions={"keras": "3.15"}, git_commit="abc123"),
        "legend": LEGEND,
        "metrics": [line(epoch) for epoch in (1, 2, 3)],
        "restarts": 1,
        "parameters": 6_504_227,
        "boundary_f1": {"object": 0.4321, "back<ground": 0.5, "border": float("nan")},
        "best": [example("Abyssinian_1", 0.91)],
        "worst": [example("Bengal_<7>", 0.12)],
        "note": "",
        "seconds": {"computing": 90.0, "program_startup": 7.5, "infrastructure_recovery_from_disruption": 2.5},
    }
    return RunFacts(**{**everything, **changes})


def example(name: str, miou: float) -> Example:
    from trainer.results.report import _uri

    pixels = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    return Example(name, miou, _uri(pixels, "JPEG"), _uri(pixels // 200 * 200, "PNG"), _uri(pixels * 0, "PNG"))


def test_a_browser_shows_every_part_of_one_run(tmp_path: Path) -> None:
    seen = look(page([facts("pets")]), tmp_path)
    for part in ("Result", "Curves", "Classes", "Confusion", "Predictions", "Time", "Settings", "Origin"):
        assert f"\n{part}\n" in "\n" + seen["text"]
    for value in ("6,504,227", "0.8000", "0.7123", "0.4321", "back<ground", "Bengal_<7>: 0.120", "1 restart", "abc123",
                  "0.9000", "90.0 s", "100.0 s"):  # fmt: skip
        assert value in seen["text"], value
    assert seen["images"] == [107, 107, 107, 107, 107, 107]  # all decoded, none larger than a thumbnail
    assert len(seen["lines"]) == 4
    assert all(width > 100 and height > 10 for width, height in seen["lines"])
    assert seen["outside"] <= 0
    assert seen["requests"] == 0


def test_several_runs_stand_side_by_side_with_what_differs(tmp_path: Path) -> None:
    one = facts("one")
    record = replace(one.record, settings={**one.record.settings, "seed": 1})
    other = facts("other", record=record, best=[], worst=[], note="No predictions: gone.")
    content = page([one, other])
    seen = look(content, tmp_path)
    differs = seen["text"].partition("What differs")[2].partition("What is the same")[0]
    assert "seed" in differs
    assert "loss" not in differs
    assert "No predictions: gone." in seen["text"]
    assert len(seen["lines"]) == 8
    assert seen["outside"] <= 0


def test_twenty_runs_of_large_images_stay_under_five_megabytes() -> None:
    four = [example(f"image {number}", 0.5) for number in range(4)]
    assert len(page([replace(facts(f"run {n}"), best=four, worst=four) for n in range(20)])) < 5e6


HOSTILE = [
    "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "a\nb\tc", "\x1b[2J\x00\x07", "\udcff.png",
    "x" * 5000, "\u202egnp.exe", "$\\frac$ $", "{}", "%s", "漢字", "", " ",
]  # fmt: skip
"""Names of classes, files and runs, as somebody may choose them."""


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_text_and_nothing_else_whatever_is_in_it(name: str) -> None:
    legend = Legend((name, "other"), palette(2), None)
    known = facts("run")
    record = replace(known.record, settings={**known.record.settings, "data": name})
    metrics = [replace(line, iou={name: 0.5}, dice={}, confusion=[[1, 2], [3, 4]]) for line in known.metrics]
    hostile = replace(
        known, name=name, legend=legend, best=[example(name, 0.5)], worst=[], note=name, record=record, metrics=metrics
    )
    content = page([hostile, known])
    content.encode()
    assert not {"\x00", "\x07", "\x1b", "\u202e"} & set(content)
    assert "<script" not in content
    assert "<img src=x" not in content
    assert content.count("<img ") == 3 + page([known]).count("<img ")
    assert len(content) < 150_000


def test_names_of_any_length_stay_inside_the_page(tmp_path: Path) -> None:
    long, known = "x" * 5000, facts("run")
    legend = Legend((long, "other"), palette(2), None)
    metrics = [replace(line, confusion=[[1, 2], [3, 4]]) for line in known.metrics]
    run = replace(known, name=long, legend=legend, best=[example(long, 0.5)], note=long, metrics=metrics)
    assert look(page([run, known]), tmp_path)["outside"] <= 0


@pytest.mark.parametrize("name", HOSTILE)
def test_a_class_of_any_name_is_drawn_without_a_warning(name: str, recwarn: pytest.WarningsRecorder) -> None:
    strip = legend_strip(300, [name, "other"], palette(2))
    assert strip.height < 100
    with Image.open(io.BytesIO(confusion_picture(np.eye(2, dtype=np.int64), [name, "other"]))) as picture:
        assert picture.width < 1000
    assert [str(warning.message) for warning in recwarn] == []


def test_metrics_of_other_classes_are_told() -> None:
    metrics = [replace(line, confusion=[[1]]) for line in facts("run").metrics]
    assert "has no confusion matrix of these classes" in page([facts("run", metrics=metrics)])


def test_losses_that_are_not_finite_leave_a_gap() -> None:
    metrics = [replace(line, validation_loss=float("nan")) for line in facts("run").metrics]
    assert "nan" not in page([facts("run", metrics=metrics)]).partition("<svg")[2].partition("</svg>")[0]


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.8), (0, 1), (1.3e-5, 4.4e-5), (3, 3), (0, 0), (-2, 1234)])
def test_ticks_are_few_and_enclose_the_values(low: float, high: float) -> None:
    ticks = _ticks(low, high)
    assert 2 <= len(ticks) <= 9
    assert ticks[0] <= low <= high <= ticks[-1]
    assert len(set(ticks)) == len(ticks)


SMALL = Legend(("ground", "object", "edge"), palette(3), None)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """A run whose data lies beside it and has not changed."""
    monkeypatch.setenv("MASKFLEET_CACHE", str(tmp_path / "cache"))
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    data = f"folder:{write_pairs(tmp_path / 'data', classes=SMALL.classes)}"
    write_json(
        run.config,
        {
            "settings": {**facts("run").record.settings, "data": data, "data_dir": None},
            "resolved": SMALL.to_json(),
            "data_fingerprint": load_dataset(data, None, 32).fingerprint,
        },
    )
    half = dict.fromkeys(SMALL.classes, 0.5)
    for line in facts("run").metrics:
        replace(line, iou=half, dice=half).append(run)
    return run


def reported(run: RunDirectory, monkeypatch: pytest.MonkeyPatch, *, best: bool = False) -> str:
    """The page about the run, with a network that needs no checkpoint."""
    network = keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Conv2D(3, 1)])
    asked: list[bool] = []

    def load(place: Path, *, best: bool) -> Trained:
        assert place == run.path
        asked.append(best)
        return Trained(network, SMALL, None)

    monkeypatch.setattr("trainer.results.trained.load_trained", load)
    write_report([run], run.report, best=best)
    assert asked == [best]
    return run.report.read_text()


def test_the_run_s_data_needs_no_note(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    content = reported(run, monkeypatch)
    assert "<h3>run: best" in content
    assert "<h3>run</h3>" not in content.partition('<section id="predictions">')[2]


def test_data_that_has_changed_is_told_above_its_predictions(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = json.loads(run.config.read_text())
    write_json(run.config, {**config, "data_fingerprint": "another"})
    content = reported(run, monkeypatch)
    told, _, after = content.partition("The data is not what ")
    assert "<h3>run: best" not in told
    assert "<h3>run: best" in after


def test_data_of_other_classes_is_not_predicted(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    write_list(run.path.parent / "data" / "classes.txt", [*SMALL.classes, "sky"])
    content = reported(run, monkeypatch)
    assert f"No predictions: --data: expected the 3 classes of {run.path} (ground, object, edge), found 4 in" in content
    assert "<h3>run: best" not in content


def test_the_best_checkpoint_is_named(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    content = reported(run, monkeypatch, best=True)
    assert "Predictions and boundary F1 are those of the best checkpoint." in content


def test_a_folder_that_is_no_run_is_one_line_and_leaves_no_page(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="expected a run, found no"):
        write_report([RunDirectory(tmp_path)], tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_can_not_be_written_is_told_before_anything_is_predicted(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.results.trained.load_trained", None)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    for out, message in ((tmp_path / "folder", "Is a directory"), (tmp_path / "file" / "x.html", "Not a directory")):
        with pytest.raises(BadSettings, match=rf"--out {out}: can't be written: {message}"):
            write_report([run], out)


@pytest.mark.parametrize(("low", "high"), [(-1e308, 1e308), (0, 5e-324), (1e308, 1e308), (0.5, 0.5), (0.0, 0.0)])
def test_a_loss_beyond_sense_has_an_axis_too(low: float, high: float) -> None:
    ticks = _ticks(low, high)
    assert 2 <= len(ticks) <= 10
    assert ticks[0] < ticks[-1]
