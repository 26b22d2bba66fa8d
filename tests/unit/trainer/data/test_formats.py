"""Each format of annotation tools and data sets, from the raw folder to masks as numpy alone makes them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from maskfleet.config import TrainConfig
from maskfleet.errors import BadData
from tests.helpers.annotated_folders import (
    HEIGHT,
    NAMES,
    WIDTH,
    coco_document,
    cvat_text,
    inside,
    labelme_document,
    png_in_base64,
    run_lengths,
    scene,
    truth,
    write_ade20k,
    write_cityscapes,
    write_coco,
    write_cvat_images,
    write_json,
    write_labelme_json,
    write_roboflow,
    write_yolo,
    write_yolo_folder,
)
from tests.helpers.data_folders import labels, picture, save, write_pairs, write_voc
from trainer.data.opening import Source, open_source
from trainer.data.shapes import Polygons
from trainer.data.shapes import run_lengths as read_run_lengths
from trainer.data.source import IGNORED, Split
from trainer.data.verify import verify


class Format(NamedTuple):
    id: str
    write: Callable[[Path], Path]
    kind: str
    splits: tuple[int, int, int]
    """Pictures for training, validation and testing."""
    classes: tuple[str, ...] = ("background", *NAMES)


FORMATS = [
    Format("COCO", write_coco, "coco", (3, 2, 0)),
    Format("Roboflow's COCO", write_roboflow, "coco", (3, 1, 2)),
    Format("YOLO", write_yolo, "yolo", (3, 1, 2)),
    Format("YOLO without YAML", write_yolo_folder, "yolo", (5, 0, 1)),
    Format("labelme", write_labelme_json, "labelme", (4, 0, 1)),
    Format("CVAT", write_cvat_images, "cvat", (3, 1, 2)),
]


def seeds(split: Split) -> list[int]:
    return [int("".join(filter(str.isdigit, name.rpartition("/")[2]))) for name in split.names]


def parts(source: Source) -> list[Split]:
    return [split for split in (source.train, source.validation, source.test) if split is not None]


@pytest.mark.parametrize("prefix", ["with its kind", "by itself"])
@pytest.mark.parametrize("each", FORMATS, ids=lambda each: each.id)
def test_shapes_are_the_masks_that_numpy_makes(each: Format, prefix: str, tmp_path: Path) -> None:
    folder = each.write(tmp_path / "set")
    source = open_source(f"{each.kind}:{folder}" if prefix == "with its kind" else str(folder), None)
    assert source.classes == each.classes
    assert source.background == 0
    counted = (len(source.train), 0 if source.validation is None else len(source.validation), len(source.test))
    assert counted == each.splits
    for split in parts(source):
        for i, seed in enumerate(seeds(split)):
            example = split.read(i)
            image, mask = example.image, example.mask
            assert np.abs(image.astype(int) - np.asarray(picture(seed))).mean() < 9  # JPEG
            expected = truth(scene(seed)) if (each.kind, seed) != ("yolo", 5) else labels(0)
            np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("write", [write_yolo, write_labelme_json, write_cityscapes, write_ade20k, write_coco])
def test_links_to_folders_and_files_elsewhere_are_followed(write: Callable[[Path], Path], tmp_path: Path) -> None:
    """The data set is a folder of links, and the deepest folders and files in it are links again."""
    folder = write(tmp_path / "set")
    expected = open_source(str(folder), None)
    linked = tmp_path / "linked" / "set"
    linked.mkdir(parents=True)
    for entry in folder.iterdir():
        if entry.is_dir():
            (linked / entry.name).mkdir()
            for below in entry.iterdir():
                (linked / entry.name / below.name).symlink_to(below)
        else:
            (linked / entry.name).symlink_to(entry)
    found = open_source(str(linked), None)
    assert {name: split.names for name, split in found.splits.items()} == {
        name: split.names for name, split in expected.splits.items()
    }
    np.testing.assert_array_equal(found.train.read(0).mask, expected.train.read(0).mask)


@pytest.mark.parametrize("each", FORMATS, ids=lambda each: each.id)
def test_verify_data_reads_every_format(each: Format, tmp_path: Path) -> None:
    folder = each.write(tmp_path / "set")
    report = verify(TrainConfig(data=str(folder), image_size=32))
    assert report.first_bad is None
    assert report.train.pixels["cat"] > 0


@pytest.mark.parametrize("each", FORMATS, ids=lambda each: each.id)
def test_the_key_changes_with_the_annotations(each: Format, tmp_path: Path) -> None:
    folder = each.write(tmp_path / "set")
    before = open_source(str(folder), None).key
    assert open_source(str(folder), None).key == before
    for file in folder.rglob("*"):
        if file.suffix in (".json", ".xml", ".txt") and "captions" not in file.name:
            file.write_text(file.read_text() + "\n")
    assert open_source(str(folder), None).key != before


@given(points=st.lists(st.tuples(st.floats(-20, 60), st.floats(-20, 45)), min_size=3, max_size=8))
def test_any_polygon_is_drawn_to_a_pixel(points: list[tuple[float, float]]) -> None:
    """Pixels whose centres lie more than .8 pixels inside or outside are as numpy says; in a window or in all."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    Polygons((np.array(points),)).paint(mask, 1)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    centres = np.stack([x, y], axis=-1)
    distance = np.full((HEIGHT, WIDTH), np.inf)
    for start, end in zip(points, [*points[1:], points[0]], strict=True):
        along = np.subtract(end, start)
        share = ((centres - start) @ along / max(float(along @ along), 1e-12)).clip(0, 1)
        distance = np.minimum(distance, np.linalg.norm(centres - start - share[..., None] * along, axis=-1))
    sure = distance > 0.8
    np.testing.assert_array_equal(mask.astype(bool)[sure], inside(points)[sure])


@given(data=st.data())
def test_run_lengths_are_those_that_pycocotools_writes(data: st.DataObject) -> None:
    from pycocotools import mask as coco

    height, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    seed, share = data.draw(st.integers(0, 99)), data.draw(st.sampled_from([0.0, 0.02, 0.5, 1.0]))
    drawn = np.random.default_rng(seed).random((height, width)) < share
    text = coco.encode(np.asfortranarray(drawn.astype(np.uint8)))["counts"].decode()
    for counts in (text, run_lengths(drawn)):
        mask = np.zeros((height, width), np.uint8)
        read_run_lengths({"size": [height, width], "counts": counts}, width, height, "x").paint(mask, 1)
        np.testing.assert_array_equal(mask.astype(bool), drawn)


@given(text=st.text(st.characters(min_codepoint=0, max_codepoint=130), max_size=30))
def test_any_text_as_run_lengths_is_bad_data(text: str) -> None:
    with pytest.raises(BadData):
        read_run_lengths({"size": [300, 400], "counts": text}, 400, 300, "x")


def test_coco_runs_crowds_and_several_polygons(tmp_path: Path) -> None:
    """A crowd lies under the instances, whatever its size; a thing in two parts is one annotation."""
    box = {"a": [(2, 2), (8, 2), (8, 8), (2, 8)], "b": [(20, 2), (30, 2), (30, 20), (20, 20)]}
    crowd = np.zeros((HEIGHT, WIDTH), bool)
    crowd[4:7, 4:25] = True
    document = coco_document({f"p{i}.png": [] for i in range(2)})
    common = {"image_id": 100, "iscrowd": 0}
    document["annotations"] = [
        {**common, "id": 1, "category_id": 3, "segmentation": [[float(v) for p in box[key] for v in p] for key in box]},
        {**common, "id": 2, "category_id": 17, "iscrowd": 1,
         "segmentation": {"size": [HEIGHT, WIDTH], "counts": run_lengths(crowd)}},
    ]  # fmt: skip
    for i in range(2):
        save(picture(i), tmp_path / f"p{i}.png")
    source = open_source(str(write_json(tmp_path / "all.json", document)), None)
    expected = np.where(crowd, 2, 0)
    expected[inside(box["a"]) | inside(box["b"])] = 1
    found = {name: split.read(i).mask for split in parts(source) for i, name in enumerate(split.names)}
    np.testing.assert_array_equal(found["p0"], expected)
    np.testing.assert_array_equal(found["p1"], labels(0))


def test_every_shape_of_labelme(tmp_path: Path) -> None:
    square = np.zeros((6, 5), bool)
    square[1:5, 1:4] = True
    shapes: list[dict[str, Any]] = [
        {"label": "cat", "shape_type": "rectangle", "points": [[12, 14], [2, 4]]},
        {"label": "dog", "shape_type": "circle", "points": [[30.0, 15.0], [30.0, 21.0]]},
        {"label": "cat", "shape_type": "mask", "points": [[33, 2], [37, 7]], "mask": png_in_base64(square)},
        {"label": "dog", "shape_type": "linestrip", "points": [[5, 25], [20, 25]]},
        {"label": "__ignore__", "points": [[0, 0], [3, 0], [3, 2], [0, 2]]},
    ]
    for name in ("a", "b"):
        save(picture(0), tmp_path / f"{name}.png")
        write_json(tmp_path / f"{name}.json", {**labelme_document(f"{name}.png", []), "shapes": shapes})
    source = open_source(f"labelme:{tmp_path}", None)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[4:14, 2:12] = 1
    expected[(x - 30) ** 2 + (y - 15) ** 2 <= 36] = 2
    expected[3:7, 34:37] = 1
    expected[20:30, 5:20] = 2
    expected[0:2, 0:3] = IGNORED
    found = source.train.read(0).mask
    assert (found != expected).sum() <= 30, "the rounds of circle and line alone differ"
    for region in (np.s_[0:14, 0:20], np.s_[0:9, 32:], np.s_[22:28, 6:19]):
        np.testing.assert_array_equal(found[region], expected[region])


def test_every_shape_of_cvat(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 1], [1, 1, 0]], bool)
    counts = "1,4,1"
    shapes = (
        '<box label="cat" xtl="2" ytl="4" xbr="12" ybr="10" z_order="0"/>'
        '<box label="dog" xtl="4" ytl="14" xbr="10" ybr="24" rotation="90" z_order="0"/>'
        '<ellipse label="dog" cx="30" cy="15" rx="8" ry="5" z_order="0"/>'
        f'<mask label="cat" rle="{counts}" left="20" top="2" width="3" height="2" z_order="1"/>'
        '<polyline label="cat" points="1,1;5,5"/><points label="cat" points="1,1"/>'
    )
    names = ["a.png", "b.png"]
    for name in names:
        save(picture(0), tmp_path / "images" / "default" / name)
    text = cvat_text(dict.fromkeys(names, ())).replace("</image>", f"{shapes}</image>")
    (tmp_path / "annotations.xml").write_text(text)
    source = open_source(f"cvat:{tmp_path}", None)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[4:10, 2:12] = 1
    expected[16:22, 2:12] = 2
    expected[((x - 30) / 8) ** 2 + ((y - 15) / 5) ** 2 <= 1] = 2
    expected[2:4, 20:23][mask] = 1
    found = source.train.read(0).mask
    assert (found != expected).sum() <= 16, "the round of the ellipse alone differs"
    np.testing.assert_array_equal(found[:, :20], expected[:, :20])
    np.testing.assert_array_equal(found[:8], expected[:8])
    assert source.colours[1].tolist() == [250, 50, 3]
    assert any("passed over 2 of polyline" in note for note in source.notes)


@pytest.mark.parametrize("kind", ["labelIds", "labelTrainIds"])
def test_cityscapes(kind: str, tmp_path: Path) -> None:
    source = open_source(str(write_cityscapes(tmp_path, kind)), None)
    assert len(source.classes) == 19
    assert (source.classes[0], source.classes[13], source.classes[18]) == ("road", "car", "bicycle")
    assert source.train.names == ("aachen_000000_000000", "bochum_000000_000001")
    assert len(source.test) == 0
    assert source.validation is not None
    assert source.validation.names == ("munster_000000_000002",)
    np.testing.assert_array_equal(source.validation.read(0).mask, np.roll(labels(0, 13, 18, 255), 2, axis=1))


def test_ade20k(tmp_path: Path) -> None:
    source = open_source(str(write_ade20k(tmp_path)), None)
    assert len(source.classes) == 150
    assert (source.classes[0], source.classes[1], source.classes[149]) == ("wall", "building", "flag")
    assert source.validation is not None
    assert (len(source.train), len(source.validation), len(source.test)) == (3, 2, 0)
    np.testing.assert_array_equal(source.validation.read(1).mask, np.roll(labels(255, 0, 1, 149), 4, axis=1))


def masks_of(folder: Path, text: str) -> tuple[Source, NDArray[np.uint8]]:
    (folder / "data.yaml").write_text(text)
    source = open_source(str(folder / "data.yaml"), None)
    return source, source.train.read(0).mask


@pytest.mark.parametrize(
    ("text", "classes", "stripes"),
    [
        pytest.param("names: [a, b, c]", "abc", (0, 1, 2), id="names"),
        pytest.param("names: {0: a, 1: ignored, 2: c}", "ac", (0, 255, 1), id="ignored"),
        pytest.param("names: [a, b]\nmapping: {0: b, 1: a, 2: ignored}", "ab", (1, 0, 255), id="mapping"),
        pytest.param("names: [a, b]\nmapping: {1: a, 2: b, '*': ignored}", "ab", (255, 0, 1), id="the others"),
        pytest.param("names: {0: a, 1: b, 2: b}", "ab", (0, 1, 1), id="merged"),
        pytest.param(
            "nc: 3\nnames:\n  0: a\n  1: b\n  2: c\nlabel_mapping: {2: 0, 0: 255}", "abc", None, id="c is lost"
        ),
        pytest.param(
            "names: [a, b, c]\ncolours: {a: [1, 2, 3]}\nmapping: {0: a, 1: b, 2: c}", "abc", (0, 1, 2), id="colour"
        ),
    ],
)
def test_a_data_file_says_what_values_mean(
    text: str, classes: str, stripes: tuple[int, ...] | None, tmp_path: Path
) -> None:
    folder = write_pairs(tmp_path, mask=labels(0, 1, 2), classes=["x", "y", "z"])
    if stripes is None:
        with pytest.raises(BadData, match="no value is mapped to the class 'c'"):
            masks_of(folder, text)
        return
    source, mask = masks_of(folder, text)
    assert source.classes == tuple(classes)
    np.testing.assert_array_equal(mask, labels(*stripes))


@pytest.mark.parametrize(
    ("text", "move"),
    [
        pytest.param("train: images/train\nval: images/val\nmasks_dir: masks", {}, id="Ultralytics' semantic"),
        pytest.param("train: images/train\nval: images/val\nmasks: gt", {"masks": "gt"}, id="another name"),
        pytest.param(
            "path: set\ntrain: train/img\nval: val/img\nmasks: gt",
            {"images/train": "set/train/img", "images/val": "set/val/img", "masks/train": "set/train/gt",
             "masks/val": "set/val/gt"},
            id="below each split",
        ),
        pytest.param(
            "train: a\nval: b\nmasks: {train: c, val: d}",
            {"images/train": "a", "images/val": "b", "masks/train": "c", "masks/val": "d"},
            id="a folder each",
        ),
        pytest.param("train: train.txt\nval: val.txt", {}, id="lists"),
    ],
)  # fmt: skip
def test_a_data_file_says_where_pictures_and_masks_are(text: str, move: dict[str, str], tmp_path: Path) -> None:
    for split, numbers in (("train", range(3)), ("val", range(3, 5))):
        for i in numbers:
            save(picture(i), tmp_path / "images" / split / f"p{i}.jpg")
            save(np.roll(labels(0, 1), i, axis=1), tmp_path / "masks" / split / f"p{i}.png")
        (tmp_path / f"{split}.txt").write_text("".join(f"./images/{split}/p{i}.jpg\r\n" for i in numbers))
    for old, new in move.items():
        (tmp_path / new).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / old).rename(tmp_path / new)
    source, _ = masks_of(tmp_path, f"{text}\nnames: [a, b]\n")
    assert [seeds(split) for split in source.splits.values()] == [[0, 1, 2], [3, 4]]
    for split in parts(source):
        for i, seed in enumerate(seeds(split)):
            np.testing.assert_array_equal(split.read(i).mask, np.roll(labels(0, 1), seed, axis=1))


def test_pictures_and_masks_in_one_folder(tmp_path: Path) -> None:
    for i in range(4):
        save(picture(i), tmp_path / "all" / f"{i}_sat.jpg")
        save(labels(0, 1), tmp_path / "all" / f"{i}_mask.png")
    text = "images: all\nmasks: all\nmask_pattern: '{name}_sat={name}_mask'\nnames: [a, b]"
    source, mask = masks_of(tmp_path, text)
    assert len(source.train) + len(source.test) == 4
    np.testing.assert_array_equal(mask, labels(0, 1))


@pytest.mark.parametrize(
    ("text", "classes", "covered"),
    [
        ("mapping: {dog: cat}", ("background", "cat"), {"cat": 1, "dog": 1}),
        ("mapping: {dog: ignored}", ("background", "cat"), {"cat": 1, "dog": 255}),
        ("mapping: {cat: background}", ("background", "dog"), {"cat": 0, "dog": 1}),
        ("names: [dog, cat]", ("background", "dog", "cat"), {"cat": 2, "dog": 1}),
    ],
)
@pytest.mark.parametrize("uncovered", ["background", "ignored"])
def test_a_data_file_says_what_categories_mean(
    text: str, classes: tuple[str, ...], covered: dict[str, int], uncovered: str, tmp_path: Path
) -> None:
    folder = write_coco(tmp_path)
    if uncovered == "ignored":
        if text != "names: [dog, cat]":
            return
        classes, covered = classes[1:], {"cat": 1, "dog": 0}
    annotations = "train: annotations/instances_train2017.json\nval: annotations/instances_val2017.json"
    source, mask = masks_of(folder, f"{annotations}\n{text}\nuncovered: {uncovered}")
    assert source.classes == classes
    expected = np.full((HEIGHT, WIDTH), 0 if uncovered == "background" else 255, np.uint8)
    for shape in scene(0):
        expected[inside(shape.points)] = covered[shape.category]
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "int64", "uint16", "float32"])
def test_masks_that_numpy_has_saved(dtype: str, tmp_path: Path) -> None:
    folder = write_pairs(tmp_path)
    for file in list((folder / "masks").iterdir()):
        np.save(
            file.with_suffix(".npy"),
            labels(0, 1).astype(dtype)[..., None] if dtype == "int16" else labels(0, 1).astype(dtype),
        )
        file.unlink()
    source = open_source(f"folder:{folder}", None)
    assert source.classes == ("class_0", "class_1")
    np.testing.assert_array_equal(source.train.read(0).mask, labels(0, 1))


def test_colours_that_numpy_has_saved(tmp_path: Path) -> None:
    colours = np.array([(0, 0, 0), (9, 8, 7)], np.uint8)
    folder = write_pairs(tmp_path, classes=["a 0 0 0", "b 9 8 7"])
    for file in list((folder / "masks").iterdir()):
        np.save(file.with_suffix(".npy"), colours[labels(0, 1)])
        file.unlink()
    np.testing.assert_array_equal(open_source(f"folder:{folder}", None).train.read(0).mask, labels(0, 1))


def test_photographs_in_heic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    folder = write_pairs(tmp_path, mask=labels(0, 1), classes=["a", "b"])
    for seed in range(5):
        file = folder / "images" / f"p{seed}.jpg"
        pillow_heif.from_pillow(picture(seed)).save(file.with_suffix(".heic"), quality=95)
        file.unlink()
    source = open_source(f"folder:{folder}", None)
    seed = seeds(source.train)[0]
    image = source.train.read(0).image
    assert np.abs(image.astype(int) - np.asarray(picture(seed))).mean() < 9
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(PIL.Image, "ID", [kind for kind in PIL.Image.ID if kind != "HEIF"])
    with pytest.raises(BadData) as caught:
        source.train.read(0)
    assert str(caught.value) == (
        f"{folder}/images/p{seed}.heic: is HEIC, which pillow-heif reads: pip install 'maskfleet[heic]', "
        "or save it as JPEG"
    )


@pytest.mark.parametrize("write", [write_yolo, write_labelme_json, write_voc])
def test_an_array_beside_a_picture_of_its_name_is_passed_over(write: Callable[[Path], Path], tmp_path: Path) -> None:
    """As Ultralytics leaves its cache."""
    before = contents(open_source(str(write(tmp_path)), None))
    for i, file in enumerate(sorted(tmp_path.rglob("*.jpg"))):
        np.save(file.with_suffix(".npy"), np.zeros((30, 40, 3), np.uint8))
        if write is not write_yolo and i == 0:
            file.rename(file.with_suffix(".png"))
    assert contents(open_source(str(tmp_path), None)) == before


def contents(source: Source) -> list[tuple[str, bytes]]:
    return [(split.names[i], split.read(i).image.tobytes()) for split in parts(source) for i in range(len(split.names))]


def test_a_data_file_of_names_alone(tmp_path: Path) -> None:
    folder = write_yolo_folder(tmp_path)
    (folder / "classes.txt").unlink()
    source, _ = masks_of(folder, "names: [cat, dog]")
    assert source.classes == ("background", "cat", "dog")
    assert len(source.train) + len(source.test) == 6


def test_what_may_be_several_kinds_is_asked_for(tmp_path: Path) -> None:
    write_pairs(tmp_path)
    write_coco(tmp_path)
    with pytest.raises(BadData) as caught:
        open_source(str(tmp_path), None)
    assert str(caught.value) == (
        f"--data {tmp_path}: may be of several kinds; say which: --data folder:{tmp_path} or --data coco:{tmp_path}"
    )


def test_a_path_from_here_is_kept_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_coco(tmp_path / "set")
    monkeypatch.chdir(tmp_path)
    for data, expected in (
        ("set", "{}/set"),
        ("./set", "{}/set"),
        ("coco:set", "coco:{}/set"),
        ("gone/set", "{}/gone/set"),
        ("gone.yaml", "{}/gone.yaml"),
        ("tfds:set", "tfds:set"),
        ("oxford_iiit_pet:4.*", "oxford_iiit_pet:4.*"),
    ):
        config = TrainConfig.from_sources([], TrainConfig.parse_flags(["--data", data]))
        assert config.data == expected.format(tmp_path)
