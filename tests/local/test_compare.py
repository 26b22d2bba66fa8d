"""``trainer compare`` from its command line: a small grid, its table and picture, and going on with it."""

from __future__ import annotations

import csv
from pathlib import Path

import PIL.Image

from tests.helpers.processes import trainer

GRID = ("compare", "--models=fcn32s", "--upsampling=transposed,bilinear", "--images=3")
SETTINGS = ("--image-size=32", "--encoder-weights=none", "--unfreeze-from=none", "--epochs=1", "--batch-per-replica=16")


def test_a_grid_ends_in_one_table_and_one_picture_and_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    out = tmp_path / "grid"
    first = trainer(*GRID, f"--out={out}", *SETTINGS)
    assert first.returncode == 0, first.stderr
    assert "1/2 fcn32s transposed: mIoU 0." in first.stdout
    rows = list(csv.DictReader((out / "compare.csv").open()))
    assert [(row["model"], row["up-sampling"]) for row in rows] == [("fcn32s", "transposed"), ("fcn32s", "bilinear")]
    # The transposed convolution of factor 32 is all that the second network does without.
    assert int(rows[0]["parameters"]) - int(rows[1]["parameters"]) == 64 * 64 * 3 * 3
    markdown = (out / "compare.md").read_text()
    assert all(row["mIoU"] in markdown and 0 < float(row["mIoU"]) < 1 for row in rows)
    assert (out / "compare.md").read_text() in first.stdout
    with PIL.Image.open(out / "compare.png") as picture:
        assert picture.width == 150 + 3 * (32 + 4)
    assert len(list((out / "tensorboard").glob("events.*"))) == 1

    weights = out / "fcn32s-transposed" / "checkpoints"
    before = {path: path.stat().st_mtime_ns for path in weights.iterdir()}
    (out / "fcn32s-bilinear" / "progress.json").unlink()  # as if it had not come to its end
    again = trainer(*GRID, f"--out={out}", *SETTINGS)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in weights.iterdir()} == before
    assert (out / "compare.md").read_text() == markdown


def test_other_settings_in_the_same_folder_are_one_line(tmp_path: Path) -> None:
    out = tmp_path / "grid"
    assert trainer(*GRID[:2], "--upsampling=bilinear", f"--out={out}", *SETTINGS).returncode == 0
    refused = trainer(*GRID[:2], "--upsampling=bilinear", f"--out={out}", *SETTINGS, "--seed=1")
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[-1].endswith("holds a run with seed 0, expected 1; choose another folder")
