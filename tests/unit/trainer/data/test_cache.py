"""Decoded once, complete or absent, the same for every process."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from maskfleet.errors import BadData, BadSettings
from maskfleet.image_size import Fit, Size
from tests.helpers.data_folders import labels, picture, save, write_pairs, write_pets
from trainer.data import cache
from trainer.data.cache import Pictures, load_dataset
from trainer.data.fitting import inputs_of
from trainer.data.source import IGNORED

FITS: tuple[Fit, ...] = ("squash", "pad", "crop")
LOAD = """
import sys
from collections.abc import Callable
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


def test_images_are_scaled_to_height_and_width_padded_or_kept_whole(tmp_path: Path) -> None:
    """All pictures are of 40 x 30 pixels."""
    data = f"folder:{write_pairs(tmp_path / 'set', classes=['a', 'b', 'c'])}"
    own = np.asarray(picture(int(load_dataset(data, None, 32, tmp_path / "cache").train.names[0][1:])))
    found = {fit: load_dataset(data, None, Size(32, 64), tmp_path / "cache", fit=fit) for fit in FITS}
    assert len({dataset.fingerprint for dataset in found.values()}) == 3
    squashed, padded, kept = found["squash"].train, found["pad"].train, found["crop"].train
    assert squashed.images.shape == padded.images.shape == (4, 32, 64, 3)
    assert not (squashed.masks == IGNORED).any()
    assert (padded.masks[:, :, :43] != IGNORED).all()
    assert (padded.masks[:, :, 43:] == IGNORED).all()
    assert isinstance(kept, Pictures)
    assert kept.image(0).shape == own.shape == (30, 40, 3)
    assert np.abs(kept.image(0).astype(int) - own).mean() < 8, "but for what JPEG changes"
    np.testing.assert_array_equal(kept.masks[3], labels(0, 1, 2))
    assert kept.spread(2).images.shape == (2, 32, 64, 3)


def test_of_pictures_in_windows_one_at_a_time_is_held_for_a_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = f"folder:{write_pairs(tmp_path / 'set', count=10, classes=['a', 'b', 'c'])}"
    kept = load_dataset(data, None, 16, tmp_path / "cache", fit="crop").train
    held: list[weakref.ref[object]] = []
    most = 0

    def counted(*arguments: object) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        nonlocal most
        for image, mask in inputs_of(*arguments):  # type: ignore[arg-type]
            held.append(weakref.ref(image))
            most = max(most, sum(each() is not None for each in held))
            yield image, mask

    monkeypatch.setattr(cache, "inputs_of", counted)
    found = kept.spread(6)
    windows = len(held) // 6
    assert most < windows + 6
    middle = [*inputs_of(kept.image(0), kept.mask(0), Size(16, 16), "crop")][windows // 2]  # type: ignore[union-attr]
    np.testing.assert_array_equal(found.images[0], middle[0])


def test_a_split_in_windows_counts_each_pixel_once_under_its_picture_s_name(tmp_path: Path) -> None:
    data = f"folder:{write_pairs(tmp_path / 'set', count=10, classes=['a', 'b', 'c'])}"
    lines: list[str] = []
    dataset = load_dataset(data, None, 16, tmp_path / "cache", lines.append, fit="crop")
    again = load_dataset(data, None, 16, tmp_path / "cache", lines.append, fit="crop")
    assert len(lines) == 1
    assert again.fingerprint == dataset.fingerprint
    pictures = dataset.test.pictures
    assert len(dataset.test) == len(pictures) * 3 * 3
    counts = np.bincount(dataset.test.masks.ravel(), minlength=256)
    np.testing.assert_array_equal(counts[:3], len(pictures) * np.bincount(labels(0, 1, 2).ravel()))
    assert (set(again.test.digests or ()), set(again.train.digests or ())) == ({*pictures}, {*dataset.train.names})
    assert len({*(again.test.digests or {}).values(), *(again.train.digests or {}).values()}) == 10
    with pytest.raises(BadSettings, match="after --fit crop the train pictures are seen in parts"):
        dataset.seen_whole("train")


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


def flip_a_byte(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("train-images.npy", lambda file: os.truncate(file, 1000), "has 1000 bytes instead of 9344"),
    ("train-masks.npy", lambda file: file.write_bytes(file.read_bytes() + b"x"), "has 3201 bytes instead of 3200"),
    ("test-images.npy", lambda file: file.write_bytes(bytes(file.stat().st_size)), "has other bytes"),
    ("test-masks.npy", flip_a_byte, "has other bytes"),
    ("test-masks.npy", Path.unlink, "is missing"),
    ("content.json", flip_a_byte, "has other bytes"),
    ("content.json", Path.unlink, "is missing"),
    ("digests.json", Path.unlink, "is missing"),
    ("digests.json", lambda file: file.write_text("[1, 2]"), "can't be read"),
    ("digests.json", lambda file: file.write_text('{"a": 1}'), "can't be read"),
]


@pytest.mark.parametrize(("name", "spoil", "problem"), DAMAGES)
def test_a_damaged_cache_is_made_anew(name: str, spoil: Callable[[Path], object], problem: str, tmp_path: Path) -> None:
    data = f"folder:{write_pets(tmp_path / 'set')}"
    first = load_dataset(data, None, 32, tmp_path / "cache")
    images = first.train.images.copy()
    (file,) = (tmp_path / "cache").glob(f"*/{name}")
    spoil(file)
    lines: list[str] = []
    again = load_dataset(data, None, 32, tmp_path / "cache", lines.append)
    assert lines[0] == f"{file.parent}: this data cache is damaged ({name} {problem}) and made anew"
    assert again.fingerprint == first.fingerprint
    np.testing.assert_array_equal(again.train.images, images)
    assert [entry.name for entry in (tmp_path / "cache").iterdir() if entry.suffix != ".lock"] == [file.parent.name]


def test_several_processes_mend_a_damaged_cache_at_once(tmp_path: Path) -> None:
    folder = write_pets(tmp_path / "set", train=30, test=10)
    load_dataset(f"folder:{folder}", None, 64, tmp_path / "cache")
    (file,) = (tmp_path / "cache").glob("*/train-images.npy")
    os.truncate(file, 1000)
    command = [sys.executable, "-c", LOAD, f"folder:{folder}", str(tmp_path / "cache")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 3
    assert len(outputs) == 1


def test_users_share_a_cache_and_its_lock(tmp_path: Path) -> None:
    """The second user can write neither the first one's lock nor, in the end, the folder, and reads what is there."""
    if os.getuid() != 0:
        pytest.skip("only root can be two other users")
    for folder in (tmp_path, *tmp_path.parents):
        if folder != Path("/") and folder.owner() == "root" and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o055)
    data = write_pets(tmp_path / "set")
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)

    def load(user: int) -> subprocess.CompletedProcess[str]:
        # Another user may not be able to start this Python: it changes to them when all is imported.
        change = (
            "import os\nload_dataset(sys.argv[1], None, 32, Path(sys.argv[3]))\n"
            f"os.setgroups([])\nos.setgid({user})\nos.setuid({user})\ntry:"
        )
        program = LOAD.replace("try:", change)
        command = [
            sys.executable,
            "-c",
            program,
            f"folder:{data}",
            str(cache),
            str(tmp_path / f"root-{len(list(tmp_path.iterdir()))}"),
        ]
        return subprocess.run(command, capture_output=True, text=True)

    first = load(20001)
    assert first.returncode == 0, first.stderr
    (folder,) = (entry for entry in cache.iterdir() if entry.suffix != ".lock")
    folder.chmod(0o777)
    (folder / "content.json").unlink()
    second = load(20002)
    assert (second.stdout, second.stderr) == (first.stdout, ""), (
        "the second user makes it anew, behind the first one's lock"
    )
    cache.chmod(0o755)
    assert load(20001).stdout == first.stdout
    (folder / "content.json").unlink()
    refused = load(20001)
    assert refused.returncode == 1
    assert "the data cache can't be kept here: Permission denied" in refused.stderr


def test_what_was_passed_over_or_lost_is_said_when_it_is_read(tmp_path: Path) -> None:
    folder = write_pairs(tmp_path / "set", classes=["a", "b", "c"])
    mask = labels(0, 1)
    mask[7, 2] = 2
    save(mask, folder / "masks" / "p3.png")
    (folder / "images" / "p9.jxl").write_bytes(b"")
    lines: list[str] = []
    load_dataset(f"folder:{folder}", None, 32, tmp_path / "cache", lines.append)
    assert lines[1:] == [
        f"{folder}/images: passed over p9.jxl",
        "at 32 x 32 pixels, images lose all pixels of a class (c in 1); 'trainer verify-data' names them; "
        "a larger --image-size keeps more",
    ]
