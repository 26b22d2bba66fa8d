"""A folder for what is being written: empty, one's own, and gone at the end."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from maskfleet.files import scratch_folder


def test_what_a_kill_has_left_goes_and_what_others_write_stays(tmp_path: Path) -> None:
    place = tmp_path / ".mask.new"
    place.mkdir()
    (place / "numbers").write_bytes(b"of a process that was killed")
    (place / "folder").mkdir()
    (place / "link").symlink_to(tmp_path)
    with scratch_folder(place) as first:
        assert [*first.iterdir()] == []
        (first / "numbers").write_bytes(b"first")
        with scratch_folder(place) as second:
            assert second != first
            (second / "numbers").write_bytes(b"second")
        assert (first / "numbers").read_bytes() == b"first"
    assert [*tmp_path.iterdir()] == []


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with suppress(OSError), scratch_folder(tmp_path / "place") as place:
        (place / "half").write_bytes(b"half")
        raise OSError("full")
    assert [*tmp_path.iterdir()] == []


def test_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kept").write_bytes(b"kept")
    (tmp_path / "place").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="place"), scratch_folder(tmp_path / "place"):
        pass
    assert (tmp_path / "mine" / "kept").read_bytes() == b"kept"
