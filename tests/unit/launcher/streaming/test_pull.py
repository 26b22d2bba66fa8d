"""Everything of a destination onto this disk: how many requests it takes, and what is compared."""

from __future__ import annotations

import io
import itertools
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.streaming.download.pull import Fetched, pull, verification
from launcher.streaming.download.restore import restore
from launcher.streaming.stores.folder import FolderStore
from launcher.streaming.stores.opening import open_store
from launcher.streaming.stores.store import StoreRefused
from maskfleet.data_setting import existing_data
from maskfleet.errors import BadData, BadSettings
from maskfleet.files import FileDigest
from maskfleet.run_directory import RunDirectory
from tests.fakes.gcs import FakeGcs, Fault, Preconditions, Request
from tests.fakes.s3 import FakeS3, Stored
from tests.helpers.streamer_process import variables
from trainer.data.source import files_key

COUNT = 60


@pytest.fixture(params=[FakeGcs, FakeS3])
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcs | FakeS3]:
    with request.param() as server:
        for name, value in variables(server.url).items():
            monkeypatch.setenv(name, value)
        yield server


def url(fake: FakeGcs | FakeS3) -> str:
    return f"{'gs' if isinstance(fake, FakeGcs) else 's3'}://bucket/data"


def fill(fake: FakeGcs | FakeS3, count: int) -> dict[str, bytes]:
    store = open_store(url(fake))
    contents = {f"images/{number:04d}.jpg": bytes([number]) * (number + 1) for number in range(count)}
    for name, content in contents.items():
        store.put(name, io.BytesIO(content), FileDigest.read(io.BytesIO(content)), None)
    fake.requests.clear()
    return contents


def object_requests(fake: FakeGcs | FakeS3) -> int:
    """How many requests there were, which are forgotten with it."""
    # Google's library asks for the bucket once, in a thread of its own, for its traces.
    count = sum(request.path != "/storage/v1/b/bucket" for request in fake.requests)
    fake.requests.clear()
    return count


def test_a_pull_that_is_interrupted_says_so_to_who_reads_the_folder(tmp_path: Path) -> None:
    there = tmp_path / "there"
    for name in ("a.png", "images/b.png", "images/c.png"):
        (there / name).parent.mkdir(parents=True, exist_ok=True)
        (there / name).write_bytes(b"x")
    here = tmp_path / "here"
    fetching = pull(FolderStore(there), here)
    next(fetching)
    fetching.close()  # as Ctrl-C does
    for data in (f"folder:{here}", f"{here}", f"folder:{here}/images"):
        if Path(data.removeprefix("folder:")).is_dir():
            with pytest.raises(BadData, match=f"only a part of {here} was fetched, as 'launcher pull' was interrupted"):
                existing_data(data)
    list(pull(FolderStore(there), here))
    assert existing_data(f"folder:{here}") == here
    assert sorted(path.name for path in here.rglob("*") if path.is_file()) == ["a.png", "b.png", "c.png"]


def test_a_folder_whose_name_is_not_utf_8_is_pulled(tmp_path: Path) -> None:
    there = tmp_path / os.fsdecode(b"\xff")
    there.mkdir()
    (there / "a.png").write_bytes(b"x")
    list(pull(FolderStore(there), tmp_path / "here"))
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["a.png"]


def test_the_logs_of_more_workers_than_files_may_be_open_are_fetched_again(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    logs = there / "logs"
    logs.mkdir(parents=True)
    for worker in range(300):
        (logs / f"worker-{worker}.log").write_bytes(b"line\n")
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 100, limits[1]))
    try:
        for count in (300, 1):
            assert len(list(pull(FolderStore(there), here))) == count
            (here / "logs/worker-7.log").unlink()
        restore(FolderStore(there), RunDirectory(here))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert len(list(here.glob("logs/*"))) == 300


def test_many_objects_take_one_request_each(fake: FakeGcs | FakeS3, tmp_path: Path) -> None:
    contents = fill(fake, COUNT)
    fetched = list(pull(open_store(url(fake)), tmp_path))
    assert {each.name: (tmp_path / each.name).read_bytes() for each in fetched} == contents
    assert verification(fetched) == "all verified"
    assert object_requests(fake) == COUNT + 1  # and the listing
    assert list(pull(open_store(url(fake)), tmp_path)) == []
    assert object_requests(fake) == 1


def test_after_an_error_nothing_more_is_begun_and_nothing_is_fetched_twice(
    fake: FakeGcs | FakeS3, tmp_path: Path
) -> None:
    contents = fill(fake, COUNT)
    fake.faults.add(Fault("status", "0010.jpg", status=403, times=1))
    fake.before = lambda request: time.sleep(
        0.5 * any(f"{number:04d}.jpg" in request.path for number in range(11, COUNT))
    )
    first: list[str] = []
    with pytest.raises(StoreRefused, match="access was denied"):
        first.extend(each.name for each in pull(open_store(url(fake)), tmp_path))
    fake.before = lambda request: None
    assert 0 < len(first) < COUNT // 2
    second = [each.name for each in pull(open_store(url(fake)), tmp_path)]
    assert sorted(first + second) == sorted(contents)


def test_what_is_here_and_differs_is_fetched_again(fake: FakeGcs | FakeS3, tmp_path: Path) -> None:
    contents = fill(fake, 5)
    for _ in pull(open_store(url(fake)), tmp_path):
        pass
    for name, other in (("images/0003.jpg", b"xyz"), ("images/0004.jpg", b"x")):
        (tmp_path / name).write_bytes(other)
    names = sorted(each.name for each in pull(open_store(url(fake)), tmp_path))
    assert names == ["images/0003.jpg", "images/0004.jpg"]
    assert {name: (tmp_path / name).read_bytes() for name in contents} == contents


def test_folders_that_a_console_made_are_no_files(fake: FakeGcs | FakeS3, tmp_path: Path) -> None:
    for name in ("data/", "data/images/", "data/images/cats/"):
        put_marker(fake, name)
    contents = fill(fake, 3) | {"images-2": b""}
    open_store(url(fake)).put("images-2", io.BytesIO(), FileDigest.read(io.BytesIO()), None)
    open_store(url(fake)).put("images/cats/1", io.BytesIO(), FileDigest.read(io.BytesIO()), None)
    fetched = {each.name for each in pull(open_store(url(fake)), tmp_path)}
    assert fetched == {*contents, "images/cats/1"}


def put_marker(fake: FakeGcs | FakeS3, name: str) -> None:
    if isinstance(fake, FakeGcs):
        fake.buckets.write("bucket", name, b"", Preconditions())
    else:
        fake.buckets["bucket"][name] = Stored(b"", '"d41d8cd98f00b204e9800998ecf8427e"')


@pytest.mark.parametrize("outside", ["/{}/x", "../x", "a/../../x"])
def test_nothing_is_written_outside_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outside: str) -> None:
    with FakeGcs() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        store, name = open_store(url(server)), outside.format(tmp_path)
        store.put(name, io.BytesIO(b"x"), FileDigest.read(io.BytesIO(b"x")), None)
        with pytest.raises(BadSettings, match=r"gs://bucket/data/.*: is no name of a file in .*; rename the object"):
            list(pull(store, tmp_path / "pulled"))
    assert not list(tmp_path.rglob("x"))


def test_what_is_replaced_while_it_is_read_is_read_again_and_what_is_deleted_is_left_out(
    fake: FakeGcs | FakeS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = fill(fake, 3)
    store = open_store(url(fake))
    _, replaced, deleted = listed = list(store.list())
    monkeypatch.setattr(store, "list", lambda: iter(listed))
    contents[replaced.name] = b"longer than before"
    new = io.BytesIO(contents[replaced.name])
    store.put(replaced.name, new, FileDigest.read(io.BytesIO(contents[replaced.name])), replaced)
    store.delete(deleted)
    del contents[deleted.name]
    fetched = {each.name: each.size for each in pull(store, tmp_path)}
    assert fetched == {name: len(content) for name, content in contents.items()}
    assert (tmp_path / replaced.name).read_bytes() == contents[replaced.name]


@pytest.fixture
def amazon(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    with FakeS3() as server:
        for name, value in variables(server.url).items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.mark.parametrize("tag", [f'"{"0" * 32}"', f'"{"0" * 32}-2"'])
def test_the_size_is_all_there_is_to_compare_where_the_tag_is_no_md5(amazon: FakeS3, tmp_path: Path, tag: str) -> None:
    for name in ("a", "b"):  # written by others: in a bucket with a key of its own, or in several parts
        amazon.buckets["bucket"][f"data/{name}"] = Stored(b"content", tag)
    fetched = list(pull(open_store("s3://bucket/data"), tmp_path))
    assert {(each.name, each.verified) for each in fetched} == {("a", False), ("b", False)}
    assert (tmp_path / "a").read_bytes() == b"content"
    assert verification(fetched) == "sizes verified; the store has no checksum of 2 of them"


def test_our_own_objects_are_verified_where_the_tag_is_no_md5(amazon: FakeS3, tmp_path: Path) -> None:
    fill(amazon, 4)
    objects = amazon.buckets["bucket"]
    for name, stored in list(objects.items()):
        objects[name] = Stored(stored.content, f'"{"0" * 32}"', stored.metadata)
    assert verification(pull(open_store("s3://bucket/data"), tmp_path)) == "all verified"


def test_what_comes_differently_each_time_is_damaged(amazon: FakeS3, tmp_path: Path) -> None:
    receipts = itertools.count()

    def damage(request: Request) -> None:
        if request.method == "GET":
            amazon.buckets["bucket"]["data/a"] = Stored(b"%07d" % next(receipts), f'"{"0" * 32}"')

    amazon.buckets["bucket"]["data/a"] = Stored(b"content", f'"{"0" * 32}"')
    amazon.before = damage
    with pytest.raises(BadData, match=r"s3://bucket/data/a: received .*, which is not what the store holds"):
        list(pull(open_store("s3://bucket/data"), tmp_path))
    assert not (tmp_path / "a").exists()


def test_the_words_for_what_was_verified() -> None:
    assert verification([Fetched("a", 1, True)]) == "all verified"
    assert verification([Fetched("a", 1, True), Fetched("b", 1, False)]).endswith("no checksum of 1 of them")


def test_every_copy_has_the_objects_times_so_that_all_pods_find_the_same_cache(
    fake: FakeGcs | FakeS3, tmp_path: Path
) -> None:
    contents = fill(fake, 3)
    keys = set()
    for folder in (tmp_path / "first", tmp_path / "second"):
        list(pull(open_store(url(fake)), folder))
        keys.add(files_key(folder / name for name in contents))
    assert len(keys) == 1
    listed = {found.name: found.updated for found in open_store(url(fake)).list()}
    assert {name: (folder / name).stat().st_mtime for name in contents} == pytest.approx(listed)
