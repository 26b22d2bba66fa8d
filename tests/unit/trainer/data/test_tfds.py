"""``oxford_iiit_pet`` through the installed TensorFlow Datasets: its own builder, over HTTP from this machine."""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import shutil
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.datasets.oxford_iiit_pet import oxford_iiit_pet_dataset_builder

from maskfleet.errors import BadData, BadSettings
from tests.helpers.data_folders import write_list, write_pets
from tests.helpers.shared import shared
from trainer.data.cache import load_dataset
from trainer.data.images import read_image, read_labels
from trainer.data.opening import Source, open_source


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def build(raw: Path, root: Path) -> Path:
    """Has ``open_source`` build the data set from archives of the folder ``raw``; returns the data directory."""
    site = root / "site"
    site.mkdir()
    for part in ("images", "annotations"):
        with tarfile.open(site / f"{part}.tar.gz", "w") as archive:
            archive.add(raw / part, part)
    handler = functools.partial(QuietHandler, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, pytest.MonkeyPatch.context() as patch:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        change_address(patch, f"http://127.0.0.1:{server.server_port}", site)
        open_source("oxford_iiit_pet", root / "data")
        server.shutdown()
    return root / "data"


def change_address(patch: pytest.MonkeyPatch, address: str, site: Path) -> None:
    """All that differs from a real build: where the archives are, their sizes and their checksums."""
    patch.setattr(oxford_iiit_pet_dataset_builder, "_BASE_URL", address)
    digests = {
        f"{address}/{file.name}": UrlInfo(file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest(), file.name)
        for file in sorted(site.iterdir())
    }
    patch.setattr(oxford_iiit_pet_dataset_builder.Builder, "url_infos", digests)
    patch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pets(tmp_path_factory.mktemp("raw"), train=6, test=4)


@pytest.fixture(scope="module")
def data_dir(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(raw, tmp_path_factory.mktemp("tfds"))


def contents(source: Source) -> dict[bytes, bytes]:
    """Mask by image, of all examples: TFDS puts them in an order of its own."""
    pairs = [split.read(i) for split in (source.train, source.test) for i in range(len(split))]
    return {pair.image.tobytes(): pair.mask.tobytes() for pair in pairs}


def test_what_the_builder_wrote_is_what_the_folder_holds(raw: Path, data_dir: Path) -> None:
    source = open_source("oxford_iiit_pet", data_dir)
    folder = open_source(f"folder:{raw}", None)
    assert (len(source.train), len(source.test)) == (6, 4)
    assert (source.classes, source.background) == (folder.classes, folder.background)
    assert contents(source) == contents(folder)


@pytest.mark.shared_data
def test_real_pets_with_files_whose_suffix_lies(tmp_path: Path) -> None:
    pets, odd = shared("data", "oxford_iiit_pet"), shared("data", "odd_files")
    names = [*sorted(file.stem for file in (pets / "images").iterdir())[:5], "Abyssinian_5"]
    raw = tmp_path / "raw"
    for place in ("images", "annotations/trimaps"):
        (raw / place).mkdir(parents=True)
    for name in names:
        image, trimap = pets / f"images/{name}.jpg", pets / f"annotations/trimaps/{name}.png"
        if not image.exists():
            image, trimap = odd / f"{name}.jpg", odd / f"{name}.png"
        (raw / f"images/{name}.jpg").write_bytes(image.read_bytes())
        (raw / f"annotations/trimaps/{name}.png").write_bytes(trimap.read_bytes())
    write_list(raw / "annotations/trainval.txt", [f"{name} 1 1 1" for name in names[:3]])
    write_list(raw / "annotations/test.txt", [f"{name} 1 1 1" for name in names[3:]])
    dataset = load_dataset("oxford_iiit_pet", build(raw, tmp_path), 64, tmp_path / "cache")
    from_folder = load_dataset(f"folder:{raw}", None, 64, tmp_path / "cache")
    for found, expected in ((dataset.train, from_folder.train), (dataset.test, from_folder.test)):
        assert sorted(mask.tobytes() for mask in found.masks) == sorted(mask.tobytes() for mask in expected.masks)
        for image, mask in zip(found.images, found.masks, strict=True):
            (same,) = (i for i, other in enumerate(expected.masks) if np.array_equal(mask, other))
            # TFDS writes the RGBA image anew, as JPEG; the others keep their bytes.
            assert np.abs(image.astype(int) - expected.images[same]).mean() < 3


@pytest.mark.parametrize("version", ["3.2.0", "3.*"])
def test_an_older_version_that_lies_there_is_read(version: str, raw: Path, tmp_path: Path) -> None:
    class OxfordIiitPet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """Version 3 of the data set, which the installed TFDS can no longer build."""

        VERSION = tfds.core.Version("3.2.0")

        def _info(self) -> tfds.core.DatasetInfo:
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(),
                        "label": tfds.features.ClassLabel(num_classes=37),
                        "species": tfds.features.ClassLabel(num_classes=2),
                        "file_name": tfds.features.Text(),
                        "segmentation_mask": tfds.features.Image(shape=(None, None, 1)),
                    }
                ),
            )

        def _split_generators(self, _: object) -> dict[str, Iterator]:
            return {"train": self._generate_examples(range(6)), "test": self._generate_examples(range(6, 10))}

        def _generate_examples(self, numbers: range) -> Iterator:
            for i in numbers:
                trimap = read_labels(raw / f"annotations/trimaps/cat_{i}.png").labels
                yield (
                    i,
                    {
                        "image": read_image(raw / f"images/cat_{i}.jpg"),
                        "label": 0,
                        "species": 0,
                        "file_name": f"cat_{i}.jpg",
                        "segmentation_mask": trimap[..., None].astype(np.uint8),
                    },
                )

    OxfordIiitPet(data_dir=tmp_path).download_and_prepare()
    assert (tmp_path / "oxford_iiit_pet" / "3.2.0").is_dir()
    source = open_source(f"oxford_iiit_pet:{version}", tmp_path)
    assert (len(source.train), len(source.test)) == (6, 4)
    assert contents(source) == contents(open_source(f"folder:{raw}", None))


def test_a_version_that_can_not_be_built_is_told_in_one_line(data_dir: Path) -> None:
    with pytest.raises(BadSettings) as raised:
        open_source("oxford_iiit_pet:3.*", data_dir)
    assert str(raised.value) == (
        f"--data oxford_iiit_pet:3.*: there is no such version in {data_dir}, and the installed TensorFlow Datasets "
        "builds 4.0.0 only; ask for oxford_iiit_pet"
    )


def test_no_network_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "images.tar.gz").touch()
    change_address(monkeypatch, "http://127.0.0.1:9", tmp_path / "site")  # where nobody listens
    started = time.monotonic()
    with pytest.raises(BadData) as raised:
        open_source("oxford_iiit_pet", tmp_path)
    assert time.monotonic() - started < 30
    message = str(raised.value)
    assert "\n" not in message
    assert message.startswith(f"oxford_iiit_pet is not in {tmp_path} and can't be downloaded and built (")
    assert message.endswith(
        "): connect to the network, name the folder that has it with --data-dir, or unpack its images.tar.gz and "
        "annotations.tar.gz into a folder PETS and use --data folder:PETS"
    )


def test_a_build_that_fails_leaves_nothing_half_written(tmp_path: Path) -> None:
    raw = write_pets(tmp_path / "raw")
    (raw / "annotations" / "test.txt").write_text("cat_9 1 1 1\n")  # the second split, after the first is written
    with pytest.raises(BadData, match="No such file or directory"):
        build(raw, tmp_path)
    assert not list((tmp_path / "data").rglob("*.tmp.*"))
    assert not list((tmp_path / "data").rglob("*incomplete*"))


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 100)


@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_a_cut_folder_is_built_again_and_said_so(
    damage: Callable[[Path], None], raw: Path, data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(data_dir.parent, tmp_path / "there")
    data, site = tmp_path / "there" / "data", tmp_path / "there" / "site"
    (file,) = data.rglob("*-train.tfrecord-*")
    damage(file)
    handler = functools.partial(QuietHandler, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        change_address(monkeypatch, f"http://127.0.0.1:{server.server_port}", site)
        source = open_source("oxford_iiit_pet", data)
        server.shutdown()
    (note,) = source.notes
    assert note.startswith(f"{file.parent}: ")
    assert note.endswith(", so it was built again")
    assert contents(source) == contents(open_source(f"folder:{raw}", None))
    assert not list(data.rglob("*damaged*"))


def test_a_cut_folder_that_can_not_be_built_again_stays_and_is_told_in_one_line(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shutil.copytree(data_dir, tmp_path / "data")
    shutil.rmtree(data / "downloads")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "images.tar.gz").touch()
    change_address(monkeypatch, "http://127.0.0.1:9", tmp_path / "site")
    (file,) = data.rglob("*-train.tfrecord-*")
    cut(file)
    with pytest.raises(BadData) as raised:
        open_source("oxford_iiit_pet", data)
    size = file.stat().st_size
    assert str(raised.value).startswith(
        f"{file.parent}: the files of train have {size} bytes, expected {size + 100}; oxford_iiit_pet is not in {data} "
    )
    assert "\n" not in str(raised.value)
    assert not list(data.rglob("*damaged*"))


def test_a_record_that_is_damaged_is_told_in_one_line(raw: Path, data_dir: Path, tmp_path: Path) -> None:
    (file,) = shutil.copytree(data_dir, tmp_path / "data").rglob("*-train.tfrecord-*")
    with file.open("r+b") as content:
        content.write(b"\xff" * 4)  # the length of the first
    with pytest.raises(BadData) as raised:
        load_dataset("oxford_iiit_pet", tmp_path / "data", 32, tmp_path / "cache")
    assert str(raised.value).startswith(f"{file}: ")
    assert str(raised.value).endswith(f"; delete {file.parent} to have it built again")


def test_what_can_not_be_built_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "images.tar.gz").touch()
    change_address(monkeypatch, "http://127.0.0.1:9", tmp_path / "site")
    with pytest.raises(BadData, match="can't be downloaded and built"):
        open_source("oxford_iiit_pet", tmp_path / "new" / "data")
    assert not (tmp_path / "new").exists()
