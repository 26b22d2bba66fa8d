"""Decoded once, complete or absent, the same for every process."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskfleet.errors import BadData
from tests.helpers.data_folders import labels, picture, save, write_pairs, write_pets
from trainer.data.cache import load_dataset

LOAD = """
import sys
from pathlib import Path
from trainer.data.cache import load_dataset
from maskfleet.errors import MaskfleetError
try:
    print(load_dataset(sys.argv[1], None, 64, Path(sys.argv[2])).fingerprint)
except MaskfleetError as error:
    sys.exit(str(error))
"""


def test_images_and_masks_are_scaled_to_a_square(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "set", classes=["a", "b", "c"])
    dataset = load_dataset(f"folder:{folder}", None, 32, tmp_path / "cache")
    assert dataset.train.images.shape == (4, 32, 32, 3)
    assert dataset.test.masks.shape == (1, 32, 32)
    assert isinstance(dataset.train.images, np.memmap)
    number = dataset.train.names.index("p2")
    with Image.open(folder / "images" / "p2.jpg") as image:
        expected = image.resize((32, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(dataset.train.images[number], expected)
    np.testing.assert_array_equal(dataset.train.masks[number], np.repeat([0, 1, 2], [11, 11, 10])[None].repeat(32, 0))


def test_it_is_read_from_the_cache_until_a_file_changes(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "set", classes=["a", "b", "c"])
    lines: list[str] = []
    first = load_dataset(f"folder:{folder}", None, 32, tmp_path / "cache", lines.append)
    (place,) = (tmp_path / "cache").glob("[!.]*-32-*")
    assert lines == [f"reading 4 training and 1 test images of folder:{folder} into {place}, this once"]
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.npy")}
    again = load_dataset(f"folder:{folder}", None, 32, tmp_path / "cache", lines.append)
    assert len(lines) == 1
    assert written == {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*.npy")}
    assert again.fingerprint == first.fingerprint
    save(labels(2, 1, 1, 0), folder / "masks" / "p2.png")
    changed = load_dataset(f"folder:{folder}", None, 32, tmp_path / "cache")
    assert changed.fingerprint != first.fingerprint
    assert changed.train.masks[changed.train.names.index("p2"), 0, 0] == 2


def test_the_fingerprint_tells_content_not_place_or_time(tmp_path: Path) -> None:
    first = write_pets(tmp_path / "first")
    second = shutil.copytree(first, tmp_path / "second", copy_function=shutil.copyfile)
    prints = [
        load_dataset(f"folder:{folder}", None, 32, tmp_path / folder.name).fingerprint for folder in (first, second)
    ]
    assert prints[0] == prints[1]
    save(picture(99), second / "images" / "cat_4.jpg")
    assert load_dataset(f"folder:{second}", None, 32, tmp_path / "second").fingerprint != prints[0]


def test_several_processes_may_start_at_once(tmp_path: Path) -> None:
    folder = write_pets(tmp_path / "set", train=30, test=10)
    command = [sys.executable, "-c", LOAD, f"folder:{folder}", str(tmp_path / "cache")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    outputs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert len(set(outputs)) == 1
    assert len([entry for entry in (tmp_path / "cache").iterdir() if entry.suffix != ".lock"]) == 1


def test_a_killed_build_leaves_no_half_cache(tmp_path: Path) -> None:
    folder = write_pets(tmp_path / "set", train=200, test=10)
    command = [sys.executable, "-c", LOAD, f"folder:{folder}", str(tmp_path / "cache")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    while process.poll() is None and not list((tmp_path / "cache").glob(".*/train-masks.npy")):
        pass
    process.kill()
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not [entry for entry in (tmp_path / "cache").iterdir() if not entry.name.startswith(".")]
    assert len(load_dataset(f"folder:{folder}", None, 64, tmp_path / "cache").train) == 200
    assert not list((tmp_path / "cache").glob(".*/*.npy")), "the killed build's files are still there"


def test_a_full_disk_is_told_in_one_line(tmp_path: Path) -> None:
    """A limit on the size of files makes the same writes fail as a full disk does."""
    folder = write_pets(tmp_path / "set")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    command = [sys.executable, "-c", LOAD, f"folder:{folder}", str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 1
    assert done.stderr.strip().count("\n") == 0
    assert "the data cache can't be kept here: File too large; make room or name another folder in MASKFLEET_CACHE" in (
        done.stderr
    )
    assert not [entry for entry in (tmp_path / "cache").iterdir() if entry.suffix != ".lock"]


def test_a_cache_folder_that_can_not_be_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_pets(tmp_path / "set")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MASKFLEET_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(BadData) as raised:
        load_dataset(f"folder:{folder}", None, 32)
    assert str(raised.value) == (
        f"{tmp_path}/file/cache: the data cache can't be kept here: Not a directory; "
        "make room or name another folder in MASKFLEET_CACHE"
    )


def test_a_damaged_cache_is_told_in_one_line(tmp_path: Path) -> None:
    folder = write_pets(tmp_path / "set")
    load_dataset(f"folder:{folder}", None, 32, tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("*/train-images.npy")
    os.truncate(file, 1000)
    with pytest.raises(BadData) as raised:
        load_dataset(f"folder:{folder}", None, 32, tmp_path / "cache")
    assert str(raised.value) == f"{file.parent}: this data cache is damaged; delete the folder to have it built again"
