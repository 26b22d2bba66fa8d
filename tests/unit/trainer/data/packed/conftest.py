"""A small folder of pictures of many kinds, and what it is when it is packed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.fakes.gcs import FakeGcs
from tests.fakes.s3 import FakeS3
from tests.helpers.data_folders import picture, save, write_list
from trainer.data.opening import open_source
from trainer.data.packed.bucket import open_bucket
from trainer.data.packed.packing import pack
from trainer.data.source import Reading, Source

COLOURS = ((0, 0, 0), (255, 0, 0), (0, 0, 255))


def write_folder(folder: Path, count: int = 12) -> Path:
    """JPEG, PNG, BMP, grey of 16 bits and a photograph on its side, with masks in colours; three splits by lists."""
    generator = np.random.default_rng(0)
    for i in range(count):
        shown = picture(i)
        match i % 5:
            case 0 | 1:
                save(shown, folder / "images" / f"p{i}.jpg")
            case 2:
                save(shown, folder / "images" / f"p{i}.png")
            case 3:
                save(
                    Image.fromarray(generator.integers(0, 1 << 12, (30, 40), np.uint16)),
                    folder / "images" / f"p{i}.png",
                )
            case 4:
                exif = Image.Exif()
                exif[0x0112] = 6
                shown.transpose(Image.Transpose.ROTATE_90).save(folder / "images" / f"p{i}.jpg", exif=exif)
        mask = np.array(COLOURS, np.uint8)[generator.integers(0, 3, (3, 4))].repeat(10, 0).repeat(10, 1)
        save(mask, folder / "masks" / f"p{i}.png")
    (folder / "classes.txt").write_text("background 0 0 0\ncat 255 0 0\ndog 0 0 255\n")
    ends = (0, count // 2, count * 3 // 4, count)
    for name, start, end in zip(("train", "val", "test"), ends, ends[1:], strict=False):
        write_list(folder / f"{name}.txt", [f"p{i}" for i in range(start, end)])
    return folder


def open_folder(folder: Path) -> Source:
    return open_source(f"folder:{folder}", None)


def pack_folder(folder: Path, place: str, shard_bytes: int = 6000) -> None:
    bucket = open_bucket(place, writing=True)
    pack(open_folder(folder), Reading(), f"folder:{folder}", bucket, shard_bytes=shard_bytes)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("pictures") / "zoo")


@pytest.fixture(scope="session")
def packed(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder, packed into shards of two examples or so."""
    place: Path = tmp_path_factory.mktemp("packed") / "zoo"
    pack_folder(folder, str(place))
    return place


@pytest.fixture(params=["gs", "s3"])
def bucket_server(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[FakeGcs | FakeS3, str]]:
    """A server, and a place in its bucket."""
    server: FakeGcs | FakeS3 = FakeGcs() if request.param == "gs" else FakeS3()
    with server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        for name, value in (("ENDPOINT_URL", server.url), ("ACCESS_KEY_ID", "id"), ("SECRET_ACCESS_KEY", "key")):
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        yield server, f"{request.param}://bucket/zoo"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of each test its own."""
    monkeypatch.setenv("MASKFLEET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Tries again at once, where nothing is learned by waiting."""
    monkeypatch.setattr("trainer.data.packed.reading._SHORTEST_PAUSE", 0.001)
    monkeypatch.setattr("trainer.data.packed.reading._LONGEST_PAUSE", 0.01)
    return lambda: None
