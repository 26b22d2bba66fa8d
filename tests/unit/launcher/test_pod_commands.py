"""What a pod that prepares prints, which ``launcher status`` shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from launcher.commands import pod


def test_a_fetch_says_how_much_of_how_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "store").mkdir()
    for number in range(3):
        (tmp_path / "store" / f"{number}.png").write_bytes(bytes(1024))
    monkeypatch.setattr(pod, "_REPORT_SECONDS", -1.0)
    told = pod._fetch_data(str(tmp_path / "store"), tmp_path / "data")
    assert capsys.readouterr().out.splitlines() == [
        "fetched 0 of 3 files, 0 B of 3.0 KiB",
        "fetched 1 of 3 files, 1.0 KiB of 3.0 KiB",
        "fetched 2 of 3 files, 2.0 KiB of 3.0 KiB",
        "fetched 3 of 3 files, 3.0 KiB of 3.0 KiB",
    ]
    assert told.startswith(f"fetched {tmp_path / 'store'}: 3 files, 3.0 KiB")
