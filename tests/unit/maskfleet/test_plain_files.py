"""Files below a folder: through no link, whoever puts one there and when; and nothing waits for a FIFO."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskfleet.files import open_plain, read_plain, write_atomically
from maskfleet.plain_files import Entry, LeftOut, NotPlain, PlainFiles

SECRET = b"a private file"


@pytest.fixture
def files(tmp_path: Path) -> PlainFiles:
    (tmp_path / "outside" / "deep").mkdir(parents=True)
    (tmp_path / "outside" / "deep" / "secret").write_bytes(SECRET)
    (tmp_path / "root" / "a").mkdir(parents=True)
    (tmp_path / "root" / "a" / "plain").write_bytes(b"plain")
    return PlainFiles(tmp_path / "root")


def link_to_file(path: Path) -> None:
    path.symlink_to("../outside/deep/secret")


def hanging_link(path: Path) -> None:
    path.symlink_to("nowhere")


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listening(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's name has room for a short path alone
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


PLACED: list[tuple[Callable[[Path], None], str]] = [
    (link_to_file, "is a link"), (hanging_link, "is a link"), (link_to_itself, "is a link"), (device, "is a link"),
    (os.mkfifo, "is a FIFO"), (listening, "is a socket"),
]  # fmt: skip


@pytest.mark.parametrize(("place", "words"), PLACED)
def test_what_is_no_file_is_not_opened_in_any_way(
    files: PlainFiles, place: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    place(files.root / "x")
    with pytest.raises(NotPlain, match=words) as caught:
        files.open("x")
    assert caught.value.filename == str(files.root / "x")
    with pytest.raises(NotPlain):
        files.stat("x")
    with pytest.raises(NotPlain):
        files.open_to_append("x")
    with pytest.raises(NotPlain), files.replacing("x") as file:
        file.write(b"other")
    with pytest.raises(NotPlain):
        files.delete("x")
    assert [each for each in files.walk() if each.problem] == [Entry("x", words)]
    assert (tmp_path / "outside/deep/secret").read_bytes() == SECRET
    assert not (files.root / "nowhere").exists()
    assert sorted(path.name for path in files.root.iterdir()) == ["a", "x"]


@pytest.mark.parametrize("name", ["linked/secret", "linked/new", "a/linked/secret", "a/linked/deeper/new"])
def test_nothing_is_read_or_written_through_a_linked_folder(files: PlainFiles, name: str, tmp_path: Path) -> None:
    for folder in (files.root, files.root / "a"):
        (folder / "linked").symlink_to(tmp_path / "outside" / "deep")
    for action in (files.open, files.stat, files.open_to_append, files.delete):
        with pytest.raises(NotPlain, match=r"is a link"):
            action(name)
    with pytest.raises(NotPlain), files.replacing(name) as file:
        file.write(b"other")
    assert [each.name for each in files.walk() if each.problem is None] == ["a/plain"]
    assert list(files.walk("linked")) == [Entry("linked", "is a link, which is left alone")]
    assert [path.name for path in (tmp_path / "outside" / "deep").iterdir()] == ["secret"]
    assert (tmp_path / "outside/deep/secret").read_bytes() == SECRET


def test_a_root_may_be_a_link_since_the_user_named_it(files: PlainFiles, tmp_path: Path) -> None:
    (tmp_path / "named").symlink_to(files.root)
    with PlainFiles(tmp_path / "named").open("a/plain") as file:
        assert file.read() == b"plain"


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_link_that_is_put_there_between_two_looks_is_not_followed(
    files: PlainFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Whoever swaps at the worst moment: after the look at a name, before it is opened."""
    open_ = os.open

    def swap(name: str, *arguments, **how):  # type: ignore[no-untyped-def]
        if what == "file" and name == "plain":
            (tmp_path / "link").replace(files.root / "a" / "plain")
        if what == "folder" and name == "a":
            (files.root / "a").rename(tmp_path / "away")
            (tmp_path / "link").replace(files.root / "a")
        return open_(name, *arguments, **how)

    (tmp_path / "outside" / "deep" / "plain").write_bytes(SECRET)
    (tmp_path / "link").symlink_to(tmp_path / "outside" / "deep" / ("secret" if what == "file" else ""))
    monkeypatch.setattr(os, "open", swap)
    with pytest.raises(NotPlain):
        files.open("a/plain")


def test_a_fifo_that_is_put_there_between_two_looks_holds_up_nobody(
    files: PlainFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_ = os.open

    def swap(name: str, *arguments, **how):  # type: ignore[no-untyped-def]
        if name == "plain":
            (tmp_path / "fifo").replace(files.root / "a" / "plain")
        return open_(name, *arguments, **how)

    os.mkfifo(tmp_path / "fifo")
    monkeypatch.setattr(os, "open", swap)
    with pytest.raises(NotPlain, match="is a FIFO"):
        files.open("a/plain")


def test_a_link_in_the_place_of_a_temporary_file_is_not_written_through(files: PlainFiles, tmp_path: Path) -> None:
    hidden = []
    with files.replacing("a/new") as file:
        file.write(b"one")
        hidden = [path for path in (files.root / "a").iterdir() if path.name.startswith(".")]
    hidden[0].symlink_to(tmp_path / "outside" / "deep" / "secret")
    with files.replacing("a/new") as file:
        file.write(b"two")
    assert (files.root / "a" / "new").read_bytes() == b"two"
    for path in (tmp_path / "json", tmp_path / "other"):
        path.with_name(f".{path.name}.{os.getpid()}.tmp").symlink_to(tmp_path / "outside/deep/secret")
        write_atomically(path, b"three")
    assert (tmp_path / "outside/deep/secret").read_bytes() == SECRET


@pytest.mark.parametrize("name", ["", "/x", "../x", "a/../../x", "a//b", "a/", "a\0b", "./x"])
def test_names_that_lead_elsewhere_are_none(files: PlainFiles, name: str, tmp_path: Path) -> None:
    for action in (files.open, files.stat, files.open_to_append, files.delete):
        with pytest.raises(OSError, match="is no name of a file"):
            action(name)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(("name", "number"), [("x" * 256, errno.ENAMETOOLONG), ("\ud800", errno.EILSEQ)])
def test_names_that_no_disk_here_can_hold_are_errors_of_the_disk(files: PlainFiles, name: str, number: int) -> None:
    for action in (files.open_to_append, files.open):
        with pytest.raises(OSError) as caught:  # noqa: PT011
            action(name)
        assert caught.value.errno == number


def test_a_nest_of_folders_is_walked_as_deep_as_an_object_s_name_may_be(files: PlainFiles) -> None:
    part = "x" * 100
    files.open_to_append(f"{part}/" * 20 + "x").close()
    (found,) = files.walk(part)
    assert found.name == "/".join([part] * 11)
    assert "have more than 1024 bytes" in str(found.problem)


def test_the_longest_name_of_this_disk_is_written(files: PlainFiles) -> None:
    for name in ("x" * 255, "ä" * 127):
        with files.replacing(name) as file:
            file.write(b"content")
        assert files.read(name, 100) == b"content"


def test_a_block_that_fails_leaves_what_was_there_and_nothing_else(files: PlainFiles) -> None:
    for name in ("a/plain", "a/new"):
        with suppress(KeyError), files.replacing(name) as file:
            file.write(b"half")
            raise KeyError
    with suppress(KeyError), files.replacing("new/deep/x", temporary=".aside/x"):
        raise KeyError
    assert files.read("a/plain", 100) == b"plain"
    assert [each.name for each in files.walk()] == ["a/plain"]


def test_a_walk_tells_of_all_that_is_there(files: PlainFiles) -> None:
    (files.root / "deep").joinpath(*"12345678").mkdir(parents=True)
    (files.root / "deep").joinpath(*"12345678", "end").touch()
    (files.root / "top").touch()
    assert sorted(each.name for each in files.walk()) == ["a/plain", "deep/1/2/3/4/5/6/7/8/end", "top"]
    assert [each.name for each in files.walk(deep=False)] == ["top"]
    assert list(files.walk("nowhere")) == []
    assert list(files.walk("top")) == [Entry("top", "is a file, expected a folder")]


def test_a_larger_file_than_expected_is_not_read(files: PlainFiles) -> None:
    with pytest.raises(OSError, match="has more than 4 bytes"):
        files.read("a/plain", 4)
    with pytest.raises(OSError, match="has more than 4 bytes"):
        read_plain(files.root / "a" / "plain", 4)


def test_a_fifo_in_the_place_of_a_record_holds_up_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="is no file"):
        open_plain(tmp_path / "fifo")
    with pytest.raises(OSError, match="is no file"):
        open_plain(tmp_path)


@given(st.lists(st.integers(0, 9), max_size=30))
def test_each_is_told_of_once_and_of_many_the_first(numbers: list[int]) -> None:
    left, told = LeftOut(), ""
    for number in numbers:
        line = left.line([Entry(f"file-{number}", "is a link"), Entry("plain")])
        assert (line is None) == (f"file-{number} " in told)
        told += line or ""
    assert len(left) == len(set(numbers))
    many = LeftOut().line(Entry(f"{number}\n\x1b[31m", "is a link") for number in range(5000))
    assert many is not None
    assert many.endswith(", and 4990 more")
    assert "\n" not in many
    assert "\x1b" not in many
