"""What a shared cache is read for at a start, and its locks in folders of other users."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest

from trainer import cache_folder
from trainer.cache_folder import damage, locked, note_files


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    folder = tmp_path / "cache"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_bytes(name.encode() * 1000)
    note_files(folder)
    return folder


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read whole."""
    names: list[str] = []
    of = cache_folder.FileDigest.of
    monkeypatch.setattr(cache_folder.FileDigest, "of", lambda file: names.append(file.name) or of(file))
    return names


def spoil(file: Path, *, keep_time: bool) -> None:
    before = file.stat()
    with file.open("r+b") as content:
        content.write(b"x")
    if keep_time:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    else:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))


def test_a_small_cache_is_read_at_every_start(cache: Path, reads: list[str]) -> None:
    assert damage(cache) is None
    assert sorted(reads) == ["a", "b"]
    spoil(cache / "b", keep_time=True)
    assert damage(cache) == "b has other bytes"


def test_of_a_large_cache_only_what_has_changed_is_read(
    cache: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_folder, "_ALWAYS_READ", 100)
    assert damage(cache) is None
    assert reads == []
    spoil(cache / "b", keep_time=False)
    assert damage(cache) == "b has other bytes"
    assert reads == ["b"]
    os.truncate(cache / "a", 999)
    assert damage(cache) == "a has 999 bytes instead of 1000"


def test_a_copy_of_a_large_cache_is_read_once(
    cache: Path, tmp_path: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_folder, "_ALWAYS_READ", 100)
    copy = shutil.copytree(cache, tmp_path / "copy", copy_function=shutil.copyfile)
    assert damage(copy) is None
    assert sorted(reads) == ["a", "b"]
    assert damage(copy) is None
    assert sorted(reads) == ["a", "b"]
    assert sorted(entry.name for entry in copy.iterdir()) == ["a", "b", "digests.json"]


def test_a_note_of_an_earlier_version_is_believed_for_what_it_says(cache: Path) -> None:
    digest = cache_folder.FileDigest.of(cache / "a")
    (cache / "digests.json").write_text(f'{{"a": {{"size": {digest.size}, "crc32c": "{digest.crc32c}"}}}}')
    assert damage(cache) is None


def test_a_lock_can_be_opened_by_other_users_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        with locked(tmp_path / "new" / ".lock") as alone:
            assert alone
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new" / ".lock").stat().st_mode) == 0o666


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "below a file"])
def test_what_is_no_lock_holds_nobody_up_and_is_not_touched(tmp_path: Path, kind: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("")
    victim.chmod(0o600)
    lock = tmp_path / ".lock"
    match kind:
        case "link":
            lock.symlink_to(victim)
        case "pipe":
            os.mkfifo(lock)
        case "folder":
            lock.mkdir()
        case "below a file":
            lock = victim / ".lock"
    with locked(lock):
        pass
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600
