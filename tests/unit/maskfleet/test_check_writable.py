"""Whether something may be written is told without writing."""

from __future__ import annotations

from pathlib import Path

import pytest

from maskfleet.files import check_writable


@pytest.mark.parametrize(("name", "folder", "message"), [
    ("new", False, None),
    ("new", True, None),
    ("deep/er/new", True, None),
    ("file", False, None),
    ("folder", True, None),
    ("folder", False, "expected the name of a file, found a folder"),
    ("file", True, "file is no folder"),
    ("file/below", False, "file is no folder"),
    ("nowhere/below", True, "nowhere is no folder"),
])  # fmt: skip
def test_a_place_is_told_to_be_none_and_nothing_is_made(
    tmp_path: Path, name: str, folder: bool, message: str | None
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    if message is None:
        check_writable(tmp_path / name, folder=folder)
    else:
        with pytest.raises(OSError, match=message):
            check_writable(tmp_path / name, folder=folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "nowhere"]
