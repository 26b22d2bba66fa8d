"""What TensorFlow does not find by itself is opened before it is imported, and hinders nothing where it is not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
TELL = "import trainer; print(open('/proc/self/maps').read())"


def loaded(folder: Path) -> str:
    """What a process that imports ``trainer`` beside the wheels in ``folder`` has mapped."""
    done = subprocess.run(
        [sys.executable, "-c", TELL], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": f"{ROOT}:{folder}"},
    )  # fmt: skip
    assert done.stderr == ""
    return done.stdout


def wheel(folder: Path) -> Path:
    package = folder / "nvidia" / "cusolver"
    (package / "lib").mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    return package / "lib" / "libcusolver.so.11"


def test_the_wheel_s_library_is_opened(tmp_path: Path) -> None:
    library = wheel(tmp_path)
    maps = Path("/proc/self/maps").read_text().splitlines()
    some = next(line.split()[-1] for line in maps if "/libz.so" in line or "/libm.so" in line or "/libm-" in line)
    library.write_bytes(Path(some).read_bytes())
    assert str(library) in loaded(tmp_path)


def test_one_that_can_not_be_opened_hinders_nothing(tmp_path: Path) -> None:
    wheel(tmp_path).write_text("no library")
    assert "libcusolver" not in loaded(tmp_path)


def test_without_it_there_is_nothing_to_open(tmp_path: Path) -> None:
    assert "libcusolver" not in loaded(tmp_path)
