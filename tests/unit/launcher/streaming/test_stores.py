"""What every store promises, over the real client libraries; and what each says when it can't."""

from __future__ import annotations

import io
import random
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import pytest

from launcher.streaming.stores import gcs, patience, s3
from launcher.streaming.stores.opening import check_apart, open_store
from launcher.streaming.stores.store import Changed, ContentDiffers, Store, StoredObject, StoreRefused, StoreUnavailable
from launcher.streaming.upload.checkpoint_uploads import CheckpointUploads
from launcher.streaming.upload.streamer import Streamer
from maskfleet.errors import BAD_INPUT, BadSettings
from maskfleet.files import FileDigest
from tests.fakes.gcs import FakeGcs, Fault, Request
from tests.fakes.s3 import FakeS3, Stored
from tests.helpers.sample_run import SampleRun, assert_manifests_verify


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "SHORTEST_PAUSE", 0.01)
    monkeypatch.setattr(patience, "READ_SECONDS", 0.3)


@pytest.fixture
def fake_gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeGcs]:
    monkeypatch.setattr(gcs, "RETRY_INITIAL", 0.01)
    with FakeGcs(page_size=3) as fake:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
        yield fake


@pytest.fixture
def fake_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    with FakeS3() as fake:
        for name, value in (("ENDPOINT_URL", fake.url), ("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b")):
            monkeypatch.setenv(f"AWS_{name}", value)
        yield fake


@pytest.fixture(params=["gs", "s3", "folder"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(str(tmp_path / "destination"))
    request.getfixturevalue({"gs": "fake_gcs", "s3": "fake_s3"}[request.param])
    return open_store(f"{request.param}://bucket/some/run")


def digest(content: bytes) -> FileDigest:
    return FileDigest.read(io.BytesIO(content))


def put(store: Store, name: str, content: bytes, expected: StoredObject | None = None) -> StoredObject:
    return store.put(name, io.BytesIO(content), digest(content), expected)


def content_of(store: Store, name: str, start: int = 0) -> bytes:
    found = store.find(name)
    assert found is not None
    return b"".join(store.read(found, start))


def test_a_probe_leaves_nothing_behind(store: Store) -> None:
    assert store.check() == []
    assert list(store.list()) == []


def test_an_object_is_created_once(store: Store) -> None:
    assert store.find("a/b.json") is None
    created = put(store, "a/b.json", b"first")
    found = store.find("a/b.json")
    assert found is not None
    assert found.matches(digest(b"first"))
    assert found.version == created.version
    with pytest.raises(Changed, match=r"b\.json"):
        put(store, "a/b.json", b"second")
    assert content_of(store, "a/b.json") == b"first"


def test_only_the_expected_version_is_replaced(store: Store) -> None:
    first = put(store, "a", b"first")
    second = put(store, "a", b"second", first)
    with pytest.raises(Changed):
        put(store, "a", b"third", first)
    put(store, "a", b"third", second)
    assert content_of(store, "a") == b"third"


def test_only_the_expected_version_is_deleted(store: Store) -> None:
    first = put(store, "a", b"first")
    second = put(store, "a", b"second", first)
    with pytest.raises(Changed):
        store.delete(first)
    store.delete(second)
    assert store.find("a") is None
    store.delete(second)  # gone already is as good


def test_an_object_grows_by_appends_that_know_its_version(store: Store) -> None:
    source, whole, current = random.Random(0), b"", None
    versions = []
    for _ in range(6):
        piece = source.randbytes(300_000)
        whole += piece
        current = store.append("logs/a.log", piece, digest(whole), current)
        versions.append(current)
    assert content_of(store, "logs/a.log") == whole
    assert content_of(store, "logs/a.log", 299_999) == whole[299_999:]
    found = store.find("logs/a.log")
    assert found is not None
    assert found.matches(digest(whole))
    assert found.version == current.version if current else False
    assert [each.name for each in store.list()] == ["logs/a.log"]
    for stale in (None, versions[0], versions[-2]):
        with pytest.raises(Changed):
            store.append("logs/a.log", b"zombie", digest(b"zombie"), stale)
    assert content_of(store, "logs/a.log") == whole


def test_a_file_that_is_not_what_its_digest_says_is_refused(store: Store) -> None:
    for size in (100, 9 << 20):  # in one request and in several
        content = random.Random(size).randbytes(size)
        wrong = FileDigest(size, digest(b"other").crc32c)
        with pytest.raises(ContentDiffers, match="a: "):
            store.put("a", io.BytesIO(content), wrong, None)
        assert store.find("a") is None


def test_only_the_version_that_was_found_is_read(store: Store) -> None:
    first = put(store, "a", b"first")
    put(store, "a", b"another", first)
    with pytest.raises(Changed):
        list(store.read(first))


def test_large_objects_come_back_in_pieces(store: Store) -> None:
    content = random.Random(1).randbytes(33 << 20)
    found = put(store, "a", content)
    pieces = list(store.read(found))
    assert b"".join(pieces) == content
    assert max(map(len, pieces)) <= 8 << 20


def test_listings_are_complete_and_in_order(store: Store) -> None:
    names = ["a", "b/1", "b/2", "b/c/3", "d"]
    for name in names:
        put(store, name, name.encode())
    assert [each.name for each in store.list()] == names
    assert [each.name for each in store.list("b/")] == ["b/1", "b/2", "b/c/3"]


def lines(fake: FakeGcs | FakeS3) -> list[str]:
    """The requests so far, which are forgotten with it."""
    # Google's library asks for the bucket once, in a thread of its own, for its traces.
    found = [request.line for request in fake.requests if request.path != "/storage/v1/b/bucket"]
    fake.requests.clear()
    return found


def test_a_large_object_is_one_request_and_goes_on_where_it_was_cut(fake_gcs: FakeGcs) -> None:
    store, content = open_store("gs://bucket/run"), random.Random(3).randbytes(20_000_000)
    retries: list[Exception] = []
    store.on_retry = retries.append
    fake_gcs.faults.add(Fault("drop-middle", "PUT"))
    put(store, "a", content)
    assert fake_gcs.content("run/a") == content
    whole, status, rest = [request for request in fake_gcs.requests if request.method == "PUT"]
    assert (whole.length, status.length) == (len(content), 0)
    assert 0 < rest.length <= len(content) // 2 + (256 << 10)  # the half that came is not sent again
    assert len(retries) == 1


def test_a_lost_answer_to_a_large_object_is_asked_for_again(fake_gcs: FakeGcs) -> None:
    fake_gcs.faults.add(Fault("drop-after", "PUT"))
    found = put(open_store("gs://bucket/run"), "a", bytes(9 << 20))
    assert found.version == str(fake_gcs.buckets.get("bucket", "run/a").generation)
    assert [request.length for request in fake_gcs.requests if request.method == "PUT"] == [9 << 20, 0]


@pytest.mark.parametrize("status", [404, 410, 503])
def test_a_large_object_that_does_not_get_on_is_given_up_in_time(
    fake_gcs: FakeGcs, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(gcs, "RETRY_TIMEOUT", 0.1)
    fake_gcs.faults.add(Fault("status", "PUT", status=status, times=1000))
    with pytest.raises(StoreUnavailable, match="gs://bucket/run/a: "):
        put(open_store("gs://bucket/run"), "a", bytes(9 << 20))
    assert fake_gcs.buckets.names("bucket") == []


@pytest.mark.parametrize(("kind", "status"), [("status", 400), ("status", 403), ("status", 503), ("drop-before", 0)])
def test_the_address_of_an_upload_is_told_to_nobody(
    fake_gcs: FakeGcs, monkeypatch: pytest.MonkeyPatch, kind: Literal["status", "drop-before"], status: int
) -> None:
    monkeypatch.setattr(gcs, "RETRY_TIMEOUT", 0.05)
    fake_gcs.faults.add(Fault(kind, "PUT", status=status, times=99))
    with pytest.raises((StoreRefused, StoreUnavailable)) as caught:
        put(open_store("gs://bucket/run"), "a", bytes(9 << 20))
    (session,) = {request.query["upload_id"] for request in fake_gcs.requests if request.method == "PUT"}
    assert session not in str(caught.value)


def test_nor_is_that_of_one_whose_server_is_gone(fake_gcs: FakeGcs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs, "RETRY_TIMEOUT", 0.05)

    def leave(request: Request) -> None:
        if "uploadType=resumable" in request.line:
            fake_gcs.__exit__()

    fake_gcs.after = leave
    with pytest.raises(StoreUnavailable, match="upload_id=…"):
        put(open_store("gs://bucket/run"), "a", bytes(9 << 20))


@pytest.mark.parametrize("size", [100, 9 << 20])
def test_a_file_that_ends_before_its_size_is_refused(store: Store, size: int) -> None:
    with pytest.raises(ContentDiffers, match="a: "):
        store.put("a", io.BytesIO(bytes(size - 1)), digest(bytes(size)), None)
    assert store.find("a") is None


def test_a_new_checkpoint_costs_four_requests(fake_gcs: FakeGcs, tmp_path: Path) -> None:
    sample = SampleRun(tmp_path / "run")
    uploads = CheckpointUploads(open_store("gs://bucket/run"), sample.run, None)
    uploads.start()
    lines(fake_gcs)
    sample.checkpoint(1, size=9 << 20)
    uploads.upload(1)
    assert_manifests_verify(fake_gcs)
    assert [line.split("?")[0] for line in lines(fake_gcs)] == [
        "POST /upload/storage/v1/b/bucket/o",  # the data: begins, and is sent
        "PUT /upload/storage/v1/b/bucket/o",
        "POST /upload/storage/v1/b/bucket/o",  # the index
        "POST /upload/storage/v1/b/bucket/o",  # the manifest
    ]


def test_on_s3_a_plain_object_is_found_and_read_without_a_listing(fake_s3: FakeS3) -> None:
    store = open_store("s3://bucket/run")
    put(store, "folder/a", b"content")
    lines(fake_s3)
    assert content_of(store, "folder/a", 3) == b"tent"
    assert lines(fake_s3) == ["HEAD /bucket/run/folder/a", "GET /bucket/run/folder/a"]


def test_on_s3_a_growing_object_is_found_by_its_parts_alone_however_full_the_folder_is(fake_s3: FakeS3) -> None:
    store = open_store("s3://bucket/run")
    stored = [f"run/folder/{name}" for name in ("log.part", "log.part-", *(f"z{i:04d}" for i in range(2500)))]
    fake_s3.buckets["bucket"] = {name: Stored(b"", '"tag"') for name in stored}
    whole, current = b"", None
    for piece in (b"a" * s3.SEAL, b"b" * 10):
        whole += piece
        current = store.append("folder/log", piece, digest(whole), current)
    lines(fake_s3)
    assert content_of(store, "folder/log") == whole
    assert sum("list-type" in line for line in lines(fake_s3)) == 2  # of find and of read, a page each
    assert store.find("folder/none") is None


def test_lost_acknowledgements_do_not_damage_what_is_there(fake_gcs: FakeGcs) -> None:
    store = open_store("gs://bucket/run")
    retries: list[Exception] = []
    store.on_retry = retries.append
    first = store.append("a", b"one", digest(b"one"), None)
    fake_gcs.faults.add(Fault("drop-after", "compose"))
    with pytest.raises(Changed):  # the retry finds another generation: RemoteObject sorts that out
        store.append("a", b"two", digest(b"onetwo"), first)
    assert fake_gcs.buckets.names("bucket") == ["run/a"]
    assert fake_gcs.content("run/a") == b"onetwo"
    assert retries


def test_what_an_interrupted_append_left_is_tidied_up(fake_gcs: FakeGcs) -> None:
    store = open_store("gs://bucket/run")
    put(store, ".maskfleet/deltas/logs/a.log/1234", b"left")
    put(store, ".maskfleet/deltas/logs/b.log/1234", b"another file's")
    store.tidy("logs/a.log")
    assert fake_gcs.buckets.names("bucket") == ["run/.maskfleet/deltas/logs/b.log/1234"]


def test_soft_delete_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeGcs(soft_delete_seconds=7 * 86400) as fake:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
        (warning,) = open_store("gs://bucket/run").check()
        assert "7 days by soft delete" in warning
        assert "--clear-soft-delete" in warning


@pytest.mark.parametrize(
    ("destination", "message"),
    [
        ("gs://", "gs://: expected gs://BUCKET/PREFIX"),
        ("gs:///run", "gs:///run: expected gs://BUCKET/PREFIX"),
        ("s3://My_Bucket!/run", "s3://My_Bucket!/run: expected s3://BUCKET/PREFIX, BUCKET of lower-case letters"),
        ("s3://bucket/a?b", "expected s3://BUCKET/PREFIX"),
        ("http://bucket/run", "expected gs://BUCKET/PREFIX, s3://BUCKET/PREFIX or a folder's path"),
        ("folder:runs/pets", "a folder as destination has no word before it; write runs/pets"),
        ("", "the destination is empty"),
    ],
)
def test_a_destination_that_can_not_be_understood_is_refused(destination: str, message: str) -> None:
    with pytest.raises(BadSettings, match=message):
        open_store(destination)


@pytest.mark.parametrize("target", ["run", "run/copy", "link/copy"])
def test_nothing_is_copied_into_itself(target: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    with pytest.raises(BadSettings, match="which would be copied into itself; choose a folder outside of it"):
        check_apart(tmp_path / "run", open_store(str(tmp_path / target)))
    with pytest.raises(BadSettings, match="copied into itself"):
        check_apart(open_store(str(tmp_path / "run")), tmp_path / target)
    check_apart(tmp_path / "run", open_store(str(tmp_path / "run2")))
    check_apart(tmp_path / "run", open_store(str(tmp_path)))


def refused_by_gcs(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    fake = FakeGcs().__enter__()
    fake.faults.add(Fault("status", status=status, times=99))
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)


def refused_by_s3(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    fake = FakeS3().__enter__()
    fake.faults.add(Fault("status", status=status, times=99))
    for name, value in (("ENDPOINT_URL", fake.url), ("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b")):
        monkeypatch.setenv(f"AWS_{name}", value)


@pytest.mark.parametrize(
    ("refuse", "destination", "message"),
    [
        (lambda patch: refused_by_gcs(patch, 403), "gs://bucket/run", "gs://bucket/run/.*: access was denied"),
        (lambda patch: refused_by_gcs(patch, 401), "gs://bucket/run", "access was denied"),
        (lambda patch: refused_by_s3(patch, 403), "s3://bucket/run", "s3://bucket/run/.*: access was denied"),
    ],
)
def test_a_denied_probe_says_so_in_one_line(
    monkeypatch: pytest.MonkeyPatch, refuse: Callable[[pytest.MonkeyPatch], None], destination: str, message: str
) -> None:
    refuse(monkeypatch)
    with pytest.raises(StoreRefused, match=message) as caught:
        open_store(destination).check()
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == BAD_INPUT


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (301, "PermanentRedirect", "s3://bucket/run: the bucket is in another region; set AWS_REGION"),
        (400, "AuthorizationHeaderMalformed", "s3://bucket/run: the bucket is in another region; set AWS_REGION"),
        (400, "ExpiredToken", "s3://bucket/run/.*: the request was refused: ExpiredToken: ExpiredToken"),
        (403, "AccessDenied", "s3://bucket/run/.*: .*: AccessDenied: AccessDenied"),
        (405, "MethodNotAllowed", "the request was refused: MethodNotAllowed"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_what_would_be_refused_again_is_no_outage(
    fake_s3: FakeS3, method: str, status: int, code: str, message: str
) -> None:
    fake_s3.faults.add(Fault("status", method, status=status, code=code, times=99))
    with pytest.raises(StoreRefused, match=message) as caught:
        open_store("s3://bucket/run").check()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "RequestTimeout"), (400, "IncompleteBody"), (408, ""), (409, ""), (429, ""), (503, "")],
)
def test_what_may_pass_is_an_outage(fake_s3: FakeS3, status: int, code: str) -> None:
    fake_s3.faults.add(Fault("status", "GET", status=status, code=code, times=99))
    with pytest.raises(StoreUnavailable):
        list(open_store("s3://bucket/run").list())


def test_a_name_on_s3_that_is_no_path_is_told(fake_s3: FakeS3) -> None:
    fake_s3.buckets["bucket"]["run//tmp/x"] = Stored(b"", '"0"')
    with pytest.raises(StoreRefused, match=r'"run//tmp/x" .*; rename the object'):
        list(open_store("s3://bucket/run").list())


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_bucket_that_is_not_there_is_named(fake_gcs: FakeGcs, fake_s3: FakeS3, scheme: str) -> None:
    with pytest.raises(StoreRefused, match=r"there is no (such )?bucket.*create it first"):
        open_store(f"{scheme}://missing/run").check()


def test_missing_google_credentials_say_how_to_get_some(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(StoreRefused, match="gcloud auth application-default login"):
        open_store("gs://bucket/run")


def test_a_folder_that_can_not_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreRefused, match="can't be written"):
        open_store(str(tmp_path / "file" / "run")).check()


def test_a_server_that_does_not_answer_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeGcs() as gone:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gone.url)
    monkeypatch.setattr(gcs, "RETRY_TIMEOUT", 0.1)
    with pytest.raises(StoreUnavailable, match="gs://bucket/run"):
        open_store("gs://bucket/run").find("a")


def test_the_last_part_on_s3_is_sealed_at_a_megabyte(fake_s3: FakeS3) -> None:
    store, whole, current = open_store("s3://bucket/run"), b"", None
    for piece in (b"a" * 1000, b"b" * s3.SEAL, b"c" * 10, b"d" * 10):
        whole += piece
        current = store.append("x.log", piece, digest(whole), current)
    parts = {name: len(stored.content) for name, stored in fake_s3.buckets["bucket"].items()}
    assert parts == {"run/x.log.part-00000": 1000 + s3.SEAL, "run/x.log.part-00001": 20}


def begin_upload(fake: FakeS3, key: str) -> None:
    """What a streamer has done that was killed then."""
    begin = urllib.request.Request(f"{fake.url}/bucket/{quote(key)}?uploads", method="POST")
    urllib.request.urlopen(begin).close()


def test_uploads_that_a_killed_streamer_has_begun_are_given_up(fake_s3: FakeS3, tmp_path: Path) -> None:
    sample = SampleRun(tmp_path / "run")
    sample.everything()
    ours = [f"some/run/checkpoints/step-{step:08d}.data & <x>" for step in range(5)] + ["some/run/export/a b.keras"]
    others = ["some/run2/checkpoints/x", "some/run/logs/x", "checkpoints/x"]
    for key in ours + others:
        begin_upload(fake_s3, key)
    assert Streamer(sample.run, open_store("s3://bucket/some/run")).run(once=True) == 0
    assert fake_s3.unfinished_uploads() == sorted(others)
    assert_manifests_verify(fake_s3, "some/run/")


@pytest.mark.parametrize("status", [403, 501, 400])
def test_uploads_that_can_not_be_listed_hinder_nothing(fake_s3: FakeS3, tmp_path: Path, status: int) -> None:
    sample = SampleRun(tmp_path / "run")
    sample.everything()
    begin_upload(fake_s3, "some/run/checkpoints/x")
    fake_s3.faults.add(Fault("status", "GET /bucket\\?.*uploads", status=status, times=100))
    assert Streamer(sample.run, open_store("s3://bucket/some/run")).run(once=True) == 0
    assert fake_s3.unfinished_uploads() == ["some/run/checkpoints/x"]
    assert_manifests_verify(fake_s3, "some/run/")
