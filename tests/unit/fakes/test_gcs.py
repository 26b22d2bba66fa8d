"""The fake is only worth something if it refuses what Google Cloud Storage refuses."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import google_crc32c
import pytest
import requests

from tests.fakes.gcs import FakeGcs, Fault


@pytest.fixture
def fake() -> Iterator[FakeGcs]:
    with FakeGcs() as server:
        yield server


def upload(fake: FakeGcs, name: str, content: bytes = b"abc", **query: object) -> requests.Response:
    url = f"{fake.url}/upload/storage/v1/b/bucket/o"
    return requests.post(url, params={"uploadType": "media", "name": name, **query}, data=content, timeout=5)


def url(fake: FakeGcs, name: str) -> str:
    return f"{fake.url}/storage/v1/b/bucket/o/{name}"


def compose(fake: FakeGcs, name: str, sources: list[dict[str, object]], **query: object) -> requests.Response:
    return requests.post(f"{url(fake, name)}/compose", params=query, json={"sourceObjects": sources}, timeout=5)


WRONG = [
    ({"ifGenerationMatch": 0}, 412),
    ({"ifGenerationMatch": 1}, 412),
    ({"ifMetagenerationMatch": 7}, 412),
    ({"ifGenerationMatch": "x"}, 400),
    ({"ifGenerationmatch": 1}, 400),
]


@pytest.mark.parametrize(("query", "status"), WRONG)
@pytest.mark.parametrize("verb", ["upload", "resumable", "get", "download", "delete", "patch", "compose"])
def test_a_condition_that_does_not_hold_prevents_the_effect(
    fake: FakeGcs, verb: str, query: dict[str, object], status: int
) -> None:
    upload(fake, "a")
    before = fake.buckets.snapshot("bucket")
    answers = {
        "upload": lambda: upload(fake, "a", b"new", **query),
        "resumable": lambda: upload(fake, "a", b"{}", **{"uploadType": "resumable", **query}),
        "get": lambda: requests.get(url(fake, "a"), params=query, timeout=5),
        "download": lambda: requests.get(url(fake, "a"), params={"alt": "media", **query}, timeout=5),
        "delete": lambda: requests.delete(url(fake, "a"), params=query, timeout=5),
        "patch": lambda: requests.patch(url(fake, "a"), params=query, json={"metadata": {"k": "v"}}, timeout=5),
        "compose": lambda: compose(fake, "a", [{"name": "a"}, {"name": "a"}], **query),
    }
    assert answers[verb]().status_code == status
    assert fake.buckets.snapshot("bucket") == before


def test_a_condition_that_holds_lets_the_effect_happen_once(fake: FakeGcs) -> None:
    first = upload(fake, "a", ifGenerationMatch=0).json()
    second = upload(fake, "a", b"new", ifGenerationMatch=first["generation"]).json()
    assert int(second["generation"]) > int(first["generation"])
    assert upload(fake, "a", b"newer", ifGenerationMatch=first["generation"]).status_code == 412
    patched = requests.patch(url(fake, "a"), params={"ifMetagenerationMatch": 1}, json={"metadata": {}}, timeout=5)
    assert patched.json()["metageneration"] == "2"
    assert (
        requests.get(url(fake, "a"), params={"ifGenerationNotMatch": second["generation"]}, timeout=5).status_code
        == 304
    )
    assert requests.get(url(fake, "a"), params={"generation": first["generation"]}, timeout=5).status_code == 404
    assert requests.delete(url(fake, "a"), params={"ifGenerationMatch": second["generation"]}, timeout=5).ok
    assert fake.buckets.names("bucket") == []


def test_compose_joins_its_sources_and_checks_each(fake: FakeGcs) -> None:
    for name, content in (("a", b"one "), ("b", b"two "), ("c", b"three")):
        upload(fake, name, content)
    joined = compose(fake, "a", [{"name": "a"}, {"name": "b"}, {"name": "c"}]).json()
    assert fake.content("a") == b"one two three"
    assert base64.b64decode(joined["crc32c"]) == google_crc32c.Checksum(b"one two three").digest()
    assert joined["componentCount"] == 3
    assert "md5Hash" not in joined
    wrong = {"name": "b", "objectPreconditions": {"ifGenerationMatch": 1}}
    assert compose(fake, "a", [{"name": "a"}, wrong]).status_code == 412
    assert compose(fake, "a", [{"name": "a"}, {"name": "missing"}]).status_code == 404
    assert compose(fake, "a", [{"name": "b"}] * 33).status_code == 400
    assert fake.content("a") == b"one two three"


def test_content_that_differs_from_its_checksum_is_refused(fake: FakeGcs) -> None:
    boundary, right = "xyz", base64.b64encode(google_crc32c.Checksum(b"abc").digest()).decode()
    for crc32c, status in ((right, 200), ("AAAAAA==", 400)):
        parts = [json.dumps({"name": "a", "crc32c": crc32c}).encode(), b"abc"]
        kinds = [b"application/json; charset=UTF-8", b"text/plain"]
        body = b"".join(b"--xyz\r\ncontent-type: %s\r\n\r\n%s\r\n" % pair for pair in zip(kinds, parts, strict=True))
        answer = requests.post(
            f"{fake.url}/upload/storage/v1/b/bucket/o?uploadType=multipart",
            data=body + b"--xyz--",
            headers={"content-type": f'multipart/related; boundary="{boundary}"'},
            timeout=5,
        )
        assert answer.status_code == status
    assert fake.content("a") == b"abc"


def test_a_resumable_upload_survives_interruptions_and_finishes_once(fake: FakeGcs) -> None:
    quantum = 256 * 1024
    content = bytes(range(256)) * (quantum // 64) + b"end"  # four quanta and a bit
    start = upload(fake, "a", b"{}", uploadType="resumable", ifGenerationMatch=0)
    session = start.headers["Location"]

    def put(first: int, data: bytes, total: object = len(content)) -> requests.Response:
        part = f"bytes {first}-{first + len(data) - 1}/{total}" if data else f"bytes */{total}"
        return requests.put(session, data=data, headers={"Content-Range": part}, timeout=5)

    assert put(0, content[: quantum + 1], "*").status_code == 400  # no multiple of 256 KiB
    assert put(0, content[:quantum], "*").headers["Range"] == f"bytes=0-{quantum - 1}"
    fake.faults.add(Fault("drop-middle", "PUT"))
    with pytest.raises(requests.ConnectionError):
        put(quantum, content[quantum : 4 * quantum])
    status = put(0, b"")
    assert (status.status_code, status.headers["Range"]) == (308, f"bytes=0-{2 * quantum - 1}")
    assert put(3 * quantum, content[3 * quantum :]).status_code == 400  # a gap
    finished = put(quantum, content[quantum:])  # an overlap is ignored
    assert finished.json()["size"] == str(len(content))
    assert fake.content("a") == content
    generation = finished.json()["generation"]
    assert put(quantum, content[quantum:]).json()["generation"] == generation  # after a lost acknowledgement
    assert put(0, b"").json()["generation"] == generation


def test_a_resumable_upload_checks_its_condition_again_at_the_end(fake: FakeGcs) -> None:
    session = upload(fake, "a", b"{}", uploadType="resumable", ifGenerationMatch=0).headers["Location"]
    upload(fake, "a", b"somebody else")
    late = requests.put(session, data=b"x", headers={"Content-Range": "bytes 0-0/1"}, timeout=5)
    assert late.status_code == 412
    assert fake.content("a") == b"somebody else"


def test_listings_come_in_pages_with_prefixes() -> None:
    with FakeGcs(page_size=2) as fake:
        for name in ("a/1", "a/2", "b", "c/1", "c/2", "d"):
            upload(fake, name)
        for query, names, prefixes in (
            ({}, ["a/1", "a/2", "b", "c/1", "c/2", "d"], []),
            ({"prefix": "c/"}, ["c/1", "c/2"], []),
            ({"delimiter": "/"}, ["b", "d"], ["a/", "c/"]),
        ):
            found: tuple[list[str], list[str]] = ([], [])
            token, pages = "", 0
            while pages == 0 or token:
                page = requests.get(url(fake, "").rstrip("/"), params={**query, "pageToken": token}, timeout=5).json()
                found[0].extend(item["name"] for item in page.get("items", []))
                found[1].extend(page.get("prefixes", []))
                token, pages = page.get("nextPageToken", ""), pages + 1
            assert found == (names, prefixes)
            assert pages == (len(names) + len(prefixes) + 1) // 2


def test_ranges_are_served_and_impossible_ones_refused(fake: FakeGcs) -> None:
    upload(fake, "a", b"0123456789")
    for asked, status, content in (("bytes=2-4", 206, b"234"), ("bytes=8-", 206, b"89"), ("bytes=10-", 416, None)):
        answer = requests.get(url(fake, "a") + "?alt=media", headers={"Range": asked}, timeout=5)
        assert answer.status_code == status
        assert content is None or answer.content == content


def test_one_object_takes_one_write_a_second() -> None:
    with FakeGcs(limit_write_rate=True) as fake:
        assert upload(fake, "a").ok
        assert upload(fake, "a").status_code == 429
        assert upload(fake, "b").ok


def test_a_lost_acknowledgement_leaves_the_effect(fake: FakeGcs) -> None:
    for kind, there in (("drop-before", []), ("drop-after", ["a"])):
        fake.faults.add(Fault(kind, "POST"))  # type: ignore[arg-type]
        with pytest.raises(requests.ConnectionError):
            upload(fake, "a")
        assert fake.buckets.names("bucket") == there
