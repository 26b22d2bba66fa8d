"""The grid of a comparison, and its table from runs that are complete."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskfleet.config import TrainConfig
from maskfleet.errors import BadSettings, TrainingFailed
from maskfleet.records import Progress, write_settings
from trainer.results.compare import (
    Row,
    _is_done,
    as_csv,
    as_markdown,
    comparison_picture,
    grid,
    run_of,
    train_all,
    write_comparison,
)
from trainer.results.legend import Legend

ROWS = [
    Row("unet", "transposed", 6_504_227, 60.25, 0.91, 0.76, {"object": 0.8, "border": 0.51234}),
    Row("fcn8s", "bicubic", 12_345, 99.0, 0.85, 0.64, {"object": 0.7, "border": float("nan")}),
]


def test_the_grid_has_every_pair_under_the_same_settings() -> None:
    configs = grid(TrainConfig(epochs=7), ["unet", "fcn8s"], ["nearest", "bicubic"])
    pairs = [(config.model, config.upsampling) for config in configs]
    assert pairs == [("unet", "nearest"), ("unet", "bicubic"), ("fcn8s", "nearest"), ("fcn8s", "bicubic")]
    assert {config.epochs for config in configs} == {7}


@pytest.mark.parametrize(
    ("models", "upsamplings", "message"),
    [
        (
            ["unet", "fcn"],
            ["nearest"],
            "--models: expected some of unet,fcn32s,fcn16s,fcn8s,deeplabv3plus,lraspp,pspnet,segformer, found 'fcn'",
        ),
        (["unet"], [""], "--upsampling: expected some of transposed,nearest,bilinear,bicubic, found ''"),
    ],
)
def test_an_unknown_part_of_the_grid_is_one_line(models: list[str], upsamplings: list[str], message: str) -> None:
    with pytest.raises(BadSettings) as caught:
        grid(TrainConfig(), models, upsamplings)
    assert str(caught.value) == message


def test_the_markdown_has_a_row_each_and_the_best_in_bold() -> None:
    assert as_markdown(ROWS) == (
        "| model | up-sampling | parameters | images/s | pixel accuracy | mIoU | IoU object | IoU border |\n"
        "| - | - | -: | -: | -: | -: | -: | -: |\n"
        "| **unet** | **transposed** | **6504227** | **60.2** | **0.9100** | **0.7600** | **0.8000** | **0.5123** |\n"
        "| fcn8s | bicubic | 12345 | 99.0 | 0.8500 | 0.6400 | 0.7000 | nan |\n"
    )


def test_a_name_of_a_class_is_text_in_the_table() -> None:
    row = replace(ROWS[0], iou={"a|b <img src=x>": 1.0, "x\n\x1b[2J": 1.0})
    header = as_markdown([row]).splitlines()[0]
    assert header.endswith(r"| IoU a\|b &lt;img src=x> | IoU x \\x1b\[2J |")


def test_a_network_that_has_diverged_is_not_the_best() -> None:
    assert as_markdown([replace(ROWS[1], miou=float("nan")), *ROWS]).splitlines()[3].startswith("| **unet**")


def test_the_csv_holds_the_same() -> None:
    first, *lines = csv.reader(as_csv(ROWS).splitlines())
    assert first[:3] == ["model", "up-sampling", "parameters"]
    assert lines[1] == ["fcn8s", "bicubic", "12345", "99.0", "0.8500", "0.6400", "0.7000", "nan"]


def test_the_picture_shows_the_same_images_in_every_row() -> None:
    legend = Legend(("a", "b"), np.array([[255, 0, 0], [0, 0, 255]], np.uint8), None)
    images = np.full((3, 20, 20, 3), 77, np.uint8)
    truths = np.zeros((3, 20, 20), np.uint8)
    masks = {"unet nearest": np.ones((3, 20, 20), np.uint8)}
    picture = np.asarray(comparison_picture(images, truths, masks, legend))
    for row, colour in enumerate(([77, 77, 77], [255, 0, 0], [0, 0, 255])):
        for column in range(3):
            np.testing.assert_array_equal(picture[row * 24 + 10, 150 + column * 24 + 10], colour)


def test_a_folder_with_a_run_of_other_settings_is_one_line(tmp_path: Path) -> None:
    config = TrainConfig(epochs=3)
    run = run_of(tmp_path, config)
    run.path.mkdir()
    write_settings(run, TrainConfig(epochs=5).model_dump(mode="json"))
    with pytest.raises(BadSettings, match=r"--out .*unet-bilinear: holds a run with epochs 5, expected 3"):
        list(train_all([config], tmp_path))


def test_an_output_that_is_a_file_is_one_line_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadSettings) as caught:
        list(train_all([TrainConfig()], tmp_path / "file"))
    assert str(caught.value) == f"--out {tmp_path / 'file'}: can't be written: Not a directory"


def test_tables_that_can_not_be_written_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.results.compare.read_row", lambda run, config: ROWS[0])
    monkeypatch.setattr("trainer.results.compare._picture", lambda *_: Image.new("RGB", (9, 9)))
    (tmp_path / "compare.csv").mkdir()
    with pytest.raises(BadSettings, match=r"--out .*: can't be written: Is a directory"):
        write_comparison([TrainConfig()], tmp_path, 1)


def test_a_batch_that_training_has_resolved_is_no_other_setting(tmp_path: Path) -> None:
    config = TrainConfig(batch_per_replica="auto")
    run = run_of(tmp_path, config)
    write_settings(run, {**config.model_dump(mode="json"), "batch_per_replica": 9, "global_batch": 18})
    Progress("done", epoch=7, epochs=7, step=40, steps=40).write(run)
    assert _is_done(run, config)


def test_what_can_not_be_compared_is_refused_before_the_first_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.results.compare.subprocess", None)
    configs = grid(TrainConfig(), ["unet", "fcn8s"], ["nearest"])
    write_settings(run_of(tmp_path, configs[1]), {**configs[1].model_dump(mode="json"), "epochs": 99})
    with pytest.raises(BadSettings, match="holds a run with epochs 99, expected 4"):
        next(train_all(configs, tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(BadSettings, match=r"--out .*file/x: can't be written: Not a directory"):
        next(train_all(configs, tmp_path / "file" / "x"))


def test_settings_that_are_refused_are_not_in_the_way_of_others(tmp_path: Path) -> None:
    refused, good = (grid(TrainConfig(data=data), ["unet"], ["nearest"])[0] for data in ("folder:/nosuch", "synthetic"))
    with pytest.raises(TrainingFailed, match="ended with 2: error: --data folder:/nosuch"):
        next(train_all([refused], tmp_path))
    assert not _is_done(run_of(tmp_path, good), good)
