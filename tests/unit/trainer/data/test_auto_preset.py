"""``--preset auto``: what a look at a data set says of it, and what is chosen by that."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from maskfleet.config import PLANNED, TrainConfig
from maskfleet.errors import BadData
from maskfleet.image_size import Size
from tests.helpers.data_folders import SIZE, labels, save, write_list, write_pairs
from tests.unit.trainer.data.packed.conftest import pack_folder
from trainer.cli import main
from trainer.data.auto_preset import RULES, Choice, choices, planned
from trainer.data.looking import SAMPLE, Look, look
from trainer.data.opening import open_source
from trainer.data.source import Example, Source, Split, palette

PETS = Look(
    examples=300, sampled=200, classes=("object", "background", "border"), shares=(0.28, 0.6, 0.12),
    kept=(0.99, 0.99, 0.96), height=256, width=316, aspects=(0.67, 1.5), spread=(0.8, 1.2),
    bands=3, bits=8, packed=False,
)  # fmt: skip
STREETS = dataclasses.replace(
    PETS, examples=160, sampled=160, classes=("sky", "pole", "sign"), shares=(0.994, 0.0054, 0.0006),
    kept=(0.99, 0.79, 0.87), height=360, width=480, aspects=(1.33, 1.33), spread=(1.0, 1.0),
)  # fmt: skip


def chosen(seen: Look, **given: object) -> dict[str, Choice]:
    return {choice.name: choice for choice in choices(seen, given)}


def test_there_is_a_rule_for_each_setting_that_waits_for_the_data() -> None:
    assert tuple(RULES) == PLANNED


@pytest.mark.parametrize(
    ("seen", "changed", "given", "name", "flag", "reason"),
    [
        (PETS, {}, {}, "epochs", "--epochs 30", "2,250 steps"),
        (PETS, {"examples": 3000}, {}, "epochs", "--epochs 7", "5,250 steps"),
        (PETS, {"examples": 600}, {}, "epochs", "--epochs 15", "2,250 steps"),
        (PETS, {"examples": 1}, {}, "epochs", "--epochs 30", "8 steps"),
        (PETS, {}, {"batch_per_replica": 16}, "epochs", "--epochs 30", "562 steps"),
        (PETS, {}, {}, "fit", "--fit squash", "all keep an IoU of 0.96"),
        (PETS, {}, {}, "balance", "--no-balance", "no class has under 1% of the pixels"),
        (PETS, {}, {}, "image_size", "--image-size 224", "trained at"),
        (PETS, {"height": 128, "width": 128}, {}, "image_size", "--image-size 128", "no more to show"),
        (PETS, {"height": 28, "width": 28}, {}, "image_size", "--image-size 128", "no more to show"),
        (PETS, {"aspects": (1.3, 1.4)}, {}, "image_size", "--image-size 192x256", "aspect, 1.35"),
        (STREETS, {"height": 30, "width": 40}, {}, "image_size", "--image-size 128", "40 x 30 have no more to show"),
        (PETS, {"aspects": (0.5, 0.5)}, {}, "image_size", "--image-size 320x160", "aspect, 0.50"),
        (PETS, {}, {}, "zoom", "--zoom 0.25", "seen 30 times"),
        (PETS, {}, {"epochs": 7}, "zoom", "--zoom 0.1", "short"),
        (PETS, {"bands": 5}, {}, "colour", "--colour 0.15", "of 5 band(s) brightness and contrast alone"),
        (PETS, {"classes": ("Left hand", "right hand", "x")}, {}, "flip", "--flip none", "would be right hand"),
        (PETS, {"classes": ("left hand", "x", "y")}, {}, "flip", "--flip random", "left or right"),
        (STREETS, {}, {}, "fit", "--fit crop", "sign has 0.06% of the pixels, pole has 0.54% of the pixels"),
        (STREETS, {}, {}, "balance", "--balance", "6.8 points"),
        (STREETS, {}, {}, "image_size", "--image-size 224", "of the parts"),
        (STREETS, {}, {}, "zoom", "--zoom 0", "scales of their own"),
        (STREETS, {}, {}, "epochs", "--epochs 30", "1,200 steps"),
        (STREETS, {"examples": 60}, {}, "epochs", "--epochs 80", "rare classes only began"),
        (STREETS, {"examples": 60}, {"fit": "squash"}, "epochs", "--epochs 30", "450 steps"),
        (STREETS, {"examples": 20}, {}, "epochs", "--epochs 30", "150 steps"),
        (STREETS, {"examples": 20}, {}, "fit", "--fit squash", "150 steps are too few for parts to pay, though sign"),
        (STREETS, {}, {"epochs": 7}, "fit", "--fit squash", "280 steps are too few"),
        (STREETS, {"packed": True}, {}, "fit", "--fit squash", "packed data"),
        (STREETS, {"packed": True}, {}, "balance", "--no-balance", "with --fit crop alone"),
        (STREETS, {"height": 240, "width": 320}, {}, "fit", "--fit squash", "too small for parts of 224 x 224"),
        (STREETS, {}, {"image_size": Size(360, 480)}, "fit", "--fit squash", "too small for parts of 480 x 360"),
        (STREETS, {"spread": (0.1, 3.0)}, {}, "fit", "--fit squash", "sizes from 0.1 to 3.0 times"),
        (STREETS, {"shares": (0.9, 0.08, 0.02)}, {}, "fit", "--fit crop", "pole keeps an IoU of 0.79 at 224 x 224"),
        (STREETS, {"shares": (0.9, 0.08, 0.02)}, {}, "balance", "--no-balance", "no class has under 1%"),
    ],
)
def test_each_choice_follows_from_the_data_and_says_so(
    seen: Look, changed: dict[str, object], given: dict[str, object], name: str, flag: str, reason: str
) -> None:
    choice = chosen(dataclasses.replace(seen, **changed), **given)[name]  # type: ignore[arg-type]
    assert choice.flag == flag
    assert reason in choice.reason


@pytest.mark.parametrize("seen", [PETS, STREETS])
def test_what_is_given_is_not_chosen(seen: Look) -> None:
    assert set(chosen(seen, epochs=3, fit="squash", balance=True)) == set(PLANNED) - {"epochs", "fit", "balance"}


@pytest.mark.parametrize("seen", [PETS, STREETS, dataclasses.replace(STREETS, packed=True)])
def test_all_that_is_chosen_goes_together(seen: Look) -> None:
    data = "packed:x" if seen.packed else "folder:x"
    values = {name: choice.value for name, choice in chosen(seen).items()}
    config = TrainConfig(preset="auto", data=data, **values)  # type: ignore[arg-type]
    assert config.unplanned == ()
    assert TrainConfig.parse_flags([word for c in chosen(seen).values() for word in c.flag.split()]).values


def lines() -> NDArray[np.uint8]:
    """A mask with lines of one pixel."""
    mask = np.zeros((64, 80), np.uint8)
    mask[:, ::8] = 1
    return mask


def drawn(count: int, mask: NDArray[np.uint8]) -> Source:
    """Pictures that have all the same mask."""
    image = np.zeros((*mask.shape, 3), np.uint8)
    split = Split(tuple(map(str, range(count))), lambda i: Example(image, mask))
    return Source("drawn", ("ground", "line", "nowhere"), palette(3), None, split, split, "key")


def test_a_look_counts_classes_and_what_they_keep_when_scaled() -> None:
    seen = look(drawn(3, lines()), pixels=16 * 20)
    assert (seen.examples, seen.sampled, seen.height, seen.width) == (3, 3, 64, 80)
    assert seen.shares == (0.875, 0.125, 0.0)
    assert seen.kept[0] > 0.7
    assert seen.kept[1] < 0.4
    assert seen.kept[2] == 1.0
    assert look(drawn(3, lines()), pixels=64 * 80).kept == (1.0, 1.0, 1.0)


def test_a_look_at_many_pictures_is_one_at_some_of_them_and_the_same_again() -> None:
    seen = look(drawn(5000, lines()), pixels=100)
    assert (seen.examples, seen.sampled) == (5000, SAMPLE)
    assert seen == look(drawn(5000, lines()), pixels=100)


def test_pixels_that_are_ignored_count_nowhere() -> None:
    mask = np.full((8, 8), 255, np.uint8)
    assert look(drawn(2, mask), pixels=16).shares == (0.0, 0.0, 0.0)


def flags_of(config: TrainConfig) -> tuple[dict[str, object], list[str]]:
    told: list[str] = []
    found = planned(config, told.append)
    return {name: getattr(found, name) for name in PLANNED}, told


def test_one_picture_is_enough(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "one", count=2, classes=("a", "b", "c"))
    write_list(folder / "train.txt", ["p0"])
    write_list(folder / "test.txt", ["p1"])
    values, told = flags_of(TrainConfig(preset="auto", data=f"folder:{folder}"))
    assert values["image_size"] == Size(128, 128)
    assert told[0].startswith(f"--preset auto: 1 training pictures: {SIZE[0]} x {SIZE[1]} pixels")


def test_a_class_without_a_pixel_is_not_a_rare_one(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "missing", mask=labels(0, 1), classes=("a", "b", "nowhere"))
    values, told = flags_of(TrainConfig(preset="auto", data=f"folder:{folder}"))
    assert values["fit"] == "squash"
    assert "no class has under 1% of the pixels" in "\n".join(told)


@pytest.mark.parametrize(("bands", "bits"), [(1, 16), (5, 8), (5, 16)])
def test_pictures_of_other_bands_and_bits(tmp_path: Path, bands: int, bits: int) -> None:
    for i in range(3):
        values = np.random.default_rng(i).integers(0, 1 << bits, (30, 40, bands))
        (tmp_path / "images").mkdir(exist_ok=True)
        np.save(tmp_path / "images" / f"p{i}.npy", values.astype(np.uint8 if bits == 8 else np.uint16))
        save(labels(0, 1), tmp_path / "masks" / f"p{i}.png")
    write_list(tmp_path / "classes.txt", ["a", "b"])
    _, told = flags_of(TrainConfig(preset="auto", data=f"folder:{tmp_path}", bands=bands))
    assert f"{bands} band(s) of {bits} bits" in told[0]


def test_packed_data_is_told_as_the_folder_that_it_was(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "folder", classes=("a", "b", "c"))
    pack_folder(folder, str(tmp_path / "packed"))
    here, there = (open_source(data, None) for data in (f"folder:{folder}", f"packed:{tmp_path / 'packed'}"))
    assert dataclasses.replace(look(here, 100), packed=True) == look(there, 100)


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "bad", mask=np.zeros((3, 3), np.uint8), classes=("a", "b", "c"))
    with pytest.raises(BadData, match=r"p\d.*40 x 30"):
        planned(TrainConfig(preset="auto", data=f"folder:{folder}"), lambda line: None)


def test_a_plan_can_be_seen_without_training(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "pairs", classes=("a", "b", "c"))
    told = CliRunner().invoke(main, ["plan", "--preset", "auto", "--data", str(folder), "--epochs", "3"])
    assert told.exit_code == 0, told.output
    assert "--epochs" not in told.stdout
    assert "\n  --image-size 128 " in told.stdout
    done = CliRunner().invoke(main, ["plan", "--data", str(folder), "-o", "json"])
    found = json.loads(done.stdout)
    assert found["seen"]["examples"] == 4
    assert [choice["name"] for choice in found["chosen"]] == [*PLANNED]
    assert all(choice["reason"] and choice["flag"].startswith("--") for choice in found["chosen"])
