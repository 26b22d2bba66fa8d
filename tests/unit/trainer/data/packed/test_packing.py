"""What ``trainer pack`` writes, and that no interruption changes it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from maskfleet.errors import BadData, BadSettings, MaskfleetError
from maskfleet.records import Examples
from maskfleet.run_directory import RunDirectory
from tests.helpers.data_folders import labels, save
from tests.unit.trainer.data.packed.conftest import open_folder, pack_folder, write_folder
from trainer.cli import main
from trainer.data.cache import load_dataset
from trainer.data.opening import open_source
from trainer.data.packed.bucket import Bucket, Unavailable, open_bucket
from trainer.data.packed.packing import pack
from trainer.data.source import Reading, Source
from trainer.results.trained_on import record_examples


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def assert_same_examples(found: Source, expected: Source) -> None:
    assert found.classes == expected.classes
    assert list(found.splits) == list(expected.splits)
    for name, split in expected.splits.items():
        assert list(found.splits[name].names) == list(split.names)
        for i in range(len(split)):
            example, other = split.read(i), found.splits[name].read(i)
            assert np.array_equal(example.image, other.image), split.names[i]
            assert np.array_equal(example.mask, other.mask), split.names[i]


def test_each_example_is_that_of_the_folder(folder: Path, packed: Path) -> None:
    assert_same_examples(open_source(f"packed:{packed}", None), open_folder(folder))


def test_files_are_kept_as_they_are_where_that_is_possible(folder: Path, packed: Path) -> None:
    shards = b"".join(content for name, content in contents(packed).items() if name.endswith(".tfrecord"))
    for i, kept in enumerate((True, True, True, False, True)):
        (file,) = (folder / "images").glob(f"p{i}.*")
        assert (file.read_bytes() in shards) == kept, file


def test_plain_tf_data_reads_the_shards(folder: Path, packed: Path) -> None:
    import tensorflow as tf

    features = {
        key: tf.io.FixedLenFeature([], kind)
        for key, kind in (
            ("image/filename", tf.string),
            ("image/height", tf.int64),
            ("image/segmentation/class/encoded", tf.string),
        )
    }
    shards = sorted(map(str, packed.glob("train-*.tfrecord")))
    assert len(shards) > 1
    rows = [tf.io.parse_single_example(data, features) for data in tf.data.TFRecordDataset(shards)]
    train = open_folder(folder).train
    assert [row["image/filename"].numpy().decode() for row in rows] == list(train.names)
    for i, row in enumerate(rows):
        mask = tf.io.decode_png(row["image/segmentation/class/encoded"]).numpy()[..., 0]
        assert np.array_equal(mask, train.read(i).mask)
        assert row["image/height"].numpy() == len(mask)


def test_the_manifest_counts(packed: Path, folder: Path) -> None:
    manifest = json.loads((packed / "manifest.json").read_text())
    train = open_folder(folder).train
    masks = [train.read(i).mask for i in range(len(train))]
    assert manifest["splits"]["train"]["pixels"] == [sum(int((m == c).sum()) for m in masks) for c in range(3)]
    assert {name: split["examples"] for name, split in manifest["splits"].items()} == {
        "train": 6,
        "validation": 3,
        "test": 3,
    }
    for split in manifest["splits"].values():
        for file in (*split["shards"], split["index"], split["names"]):
            assert (packed / file["name"]).stat().st_size == file["size"]
    assert not (packed / "parts").exists()


def test_larger_pictures_are_made_smaller_with_their_masks(tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    for i, side in enumerate((64, 16, 64, 64)):
        save(np.zeros((side, side // 2, 3), np.uint8), folder / "images" / f"p{i}.{'jpg' if i else 'png'}")
        save(np.eye(side, side // 2, dtype=np.uint8), folder / "masks" / f"p{i}.png")
    (folder / "classes.txt").write_text("background\nline\n")
    pack(open_folder(folder), Reading(), "", open_bucket(str(tmp_path / "out"), writing=True), max_side=32)
    source = open_source(f"packed:{tmp_path / 'out'}", None)
    sizes = {
        name: split.read(i).image.shape[:2] for split in source.splits.values() for i, name in enumerate(split.names)
    }
    assert sizes == {"p0": (32, 16), "p1": (16, 8), "p2": (32, 16), "p3": (32, 16)}


class Torn(Bucket):
    """Of which the connection breaks for good at some write."""

    def __init__(self, place: Path, writes: int):
        whole = open_bucket(str(place), writing=True)
        super().__init__(whole.url, whole._store, whole.folder)
        self.writes = writes

    def put(self, name: str, content: object) -> None:
        self.writes -= 1
        if self.writes < 0:
            raise Unavailable(f"{name}: gone")
        super().put(name, content)  # type: ignore[arg-type]


@pytest.mark.parametrize("writes", [0, 1, 4, 7, 11, 14])
def test_what_an_interruption_has_left_is_gone_on_with(folder: Path, packed: Path, tmp_path: Path, writes: int) -> None:
    place, source = tmp_path / "out", open_folder(folder)
    with pytest.raises(Unavailable):
        pack(source, Reading(), "", Torn(place, writes), shard_bytes=6000)
    before = {name: (place / name).stat().st_mtime_ns for name in contents(place) if name.startswith("parts/")}
    shards = [name.removeprefix("parts/").removesuffix(".json") for name in before]
    times = {name: (place / name).stat().st_mtime_ns for name in shards}
    pack_folder(folder, str(place))
    assert contents(place) == contents(packed)
    assert {name: (place / name).stat().st_mtime_ns for name in shards} == times  # and not written again


def test_what_a_kill_has_cut_short_goes(folder: Path, packed: Path, tmp_path: Path) -> None:
    place = tmp_path / "out"
    with pytest.raises(Unavailable):
        pack(open_folder(folder), Reading(), "", Torn(place, 5), shard_bytes=6000)
    for name in ("train-00002-of-00003.tfrecord#1", "parts/train-00002-of-00003.tfrecord.json#2", "notes#1"):
        (place / name).write_bytes(b"half")
    pack_folder(folder, str(place))
    assert contents(place) == {**contents(packed), "notes#1": b"half"}


def test_what_changed_meanwhile_is_packed_anew(tmp_path: Path) -> None:
    folder, place = write_folder(tmp_path / "pictures"), tmp_path / "out"
    with pytest.raises(Unavailable):
        pack(open_folder(folder), Reading(), "", Torn(place, 5), shard_bytes=6000)
    save(labels(0, 0), folder / "images" / "p2.png")
    pack_folder(folder, str(place))
    assert_same_examples(open_source(f"packed:{place}", None), open_folder(folder))


def test_the_same_again_writes_nothing(folder: Path, packed: Path, tmp_path: Path) -> None:
    place = tmp_path / "out"
    shutil.copytree(packed, place)
    pack(open_folder(folder), Reading(), "", Torn(place, 0), shard_bytes=6000)
    assert contents(place) == contents(packed)


def test_other_data_in_the_place_is_refused(packed: Path, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "other", count=8)
    with pytest.raises(BadSettings, match=r"expected an empty place or the same data, found manifest.json of other"):
        pack_folder(folder, str(packed))


def test_a_picture_that_can_t_be_read_is_named_and_nothing_is_complete(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pictures")
    (folder / "images" / "p1.jpg").write_bytes(b"no picture")
    with pytest.raises(BadData, match=r"p1\.jpg"):
        pack_folder(folder, str(tmp_path / "out"))
    assert not (tmp_path / "out" / "manifest.json").exists()
    with pytest.raises(BadData, match=r"found no manifest.json, which comes last"):
        open_source(f"packed:{tmp_path / 'out'}", None)


def test_masks_whose_255_means_the_object_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    for i in range(4):
        save(np.zeros((30, 40, 3), np.uint8), folder / "images" / f"p{i}.png")
        save(labels(0, 255), folder / "masks" / f"p{i}.png")
    (folder / "classes.txt").write_text("background\nobject\n")
    with pytest.raises(BadData, match="masks hold only the labels 0 and 255"):
        pack_folder(folder, str(tmp_path / "out"))
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_the_command_packs_what_the_settings_name(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "out"
    done = CliRunner().invoke(main, ["pack", "--data", f"folder:{folder}", str(place)])
    assert done.exit_code == 0, done.output
    assert "6 training, 3 validation and 3 test images in 3 shards" in done.output
    assert f"--data packed:{place}" in done.output
    assert_same_examples(open_source(f"packed:{place}", None), open_folder(folder))


def test_data_that_is_not_there_leaves_nothing_behind(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["pack", "--data", f"folder:{tmp_path / 'none'}", str(tmp_path / "out")])
    assert done.exit_code == 2, done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda place: (place / "manifest.json").write_text("{"), r"manifest\.json: is no manifest of packed data"),
        (lambda place: (place / "manifest.json").write_text("{}"), r"format: Field required"),
        (lambda place: (place / "train.index.npy").unlink(), r"train\.index\.npy"),
        (lambda place: (place / "train.index.npy").write_bytes(b"x" * 272), r"expected the \d+ bytes that manifest"),
    ],
    ids=["no JSON", "empty", "no index", "another index"],
)
def test_bad_packed_data_is_refused_in_one_line(packed: Path, tmp_path: Path, damage, message: str) -> None:
    place = tmp_path / "out"
    shutil.copytree(packed, place)
    damage(place)
    with pytest.raises(MaskfleetError, match=message) as refused:
        open_source(f"packed:{place}", None)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("packed:/nowhere/at/all", "expected a folder, found nothing"),
        ("packed:ftp://host/data", r"expected packed:gs://…, packed:s3://… or packed:FOLDER"),
        ("packed:", "--data: expected a PATH"),
        ("packed:gs://", "expected gs://BUCKET/PREFIX"),
    ],
)
def test_a_place_that_is_none_is_refused(data: str, message: str) -> None:
    with pytest.raises((BadSettings, BadData), match=message):
        open_source(data, None)


def test_a_mask_that_does_not_fit_its_picture_is_named(packed: Path) -> None:
    from trainer.data.packed.record import _IMAGE, _MASK, _NAME, _encoded, _serialized, example_of

    image, mask = (_encoded(Image.new(mode, (4, 3)), "png") for mode in ("RGB", "L"))
    record = {_NAME: b"cat", _IMAGE: image, _MASK: mask}
    assert example_of(_serialized(record), "shard", 100).mask.shape == (3, 4)
    for key, value, message in (
        (_MASK, image, "shard, cat: expected a mask of 4 x 3 labels"),
        (_MASK, b"none", "shard, cat: its mask can't be read"),
        (_IMAGE, b"none", "shard, cat"),
    ):
        with pytest.raises(BadData, match=message):
            example_of(_serialized({**record, key: value}), "shard", 100)
    with pytest.raises(BadData, match="shard: expected an example with image and mask"):
        example_of(b"none", "shard", 100)


def test_the_command_packs_what_one_s_own_function_gives(folder: Path, tmp_path: Path) -> None:
    code, place = tmp_path / "code", tmp_path / "out"
    code.mkdir()
    (code / "mine_to_pack.py").write_text(
        "from trainer.data.opening import open_source\n"
        f"def data(data_dir): return open_source('folder:{folder}', data_dir)\n"
    )
    done = CliRunner().invoke(main, ["pack", "--code", str(code), "--data", "python:mine_to_pack:data", str(place)])
    assert done.exit_code == 0, done.output
    assert_same_examples(open_source(f"packed:{place}", None), open_folder(folder))


def test_a_run_records_packed_data_once_and_whose_code_it_was_with(packed: Path, tmp_path: Path) -> None:
    run, dataset = RunDirectory(tmp_path / "run"), load_dataset(f"packed:{packed}", None, 32)
    record_examples(run, dataset, "code")
    assert Examples.read(run) == Examples(dataset.fingerprint, {}, {}, {}, "code")
    before = run.examples.stat().st_mtime_ns
    record_examples(run, dataset, "code")
    assert run.examples.stat().st_mtime_ns == before
