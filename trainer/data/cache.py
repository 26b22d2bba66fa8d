"""Images and masks at the network's input size, decoded once and then memory-mapped.

The folder of one data set is written under a temporary name and renamed, so it is complete or absent. What lies there
is checked against the sizes and checksums that were noted then, and made anew if it has suffered since. All processes
of a machine share its pages. Imports no TensorFlow.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from maskfleet.errors import BadData
from maskfleet.files import read_plain
from maskfleet.image_size import Size
from trainer.cache_folder import cache_root, damage, how_to_mend, locked, note_files
from trainer.data.images import check_label_sets, labels_in
from trainer.data.opening import open_source
from trainer.data.side_by_side import side_by_side
from trainer.data.source import IGNORED, Example, Reading, Source, Split
from trainer.data.splits import AS_IT_IS, Division, check_whole, divide_anew

if TYPE_CHECKING:
    from trainer.data.packed.reading import Reader
    from trainer.data.stream import Stream

_FORMAT = 4
"""To be raised when the cache's content changes for the same files."""
_REPORT_SECONDS = 10.0
"""Seconds between two lines about a long build."""
_AS_BY_DEFAULT = Reading()
_MOST_BYTES = 1 << 30
"""Of what is kept of a cache: a name for each example."""
_CONTENT = "content.json"
"""Fingerprint and names of the examples."""


@dataclass(frozen=True)
class Arrays:
    """One split: names, images uint8 (N, H, W, 3) and masks uint8 (N, H, W), read-only.

    They are memory-mapped; or, with a ``stream``, read when they are asked for, which raises BadData.
    """

    names: Sequence[str]
    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    stream: Stream | None = None

    def __len__(self) -> int:
        return len(self.names)

    def spread(self, count: int) -> Arrays:
        """At most ``count`` examples, evenly spread: the first ones might be of one class, as data is often sorted."""
        chosen = np.linspace(0, len(self) - 1, min(count, len(self))).astype(int)
        return Arrays(tuple(self.names[i] for i in chosen), *self.read(chosen))

    def read(self, examples: NDArray[np.integer[Any]] | slice) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Images and masks of these examples."""
        if self.stream is not None:
            return self.stream.read(np.arange(len(self))[examples].tolist())
        return np.asarray(self.images[examples]), np.asarray(self.masks[examples])


@dataclass(frozen=True)
class Dataset:
    """A data set at one input size.

    ``fingerprint`` is a hash of classes, names and pixels: equal on every machine that sees the same data.
    ``colours`` and ``background`` are those of :class:`Source`; ``test`` is empty and ``validation`` None where it has
    no such split. ``packed`` is where the examples are read while training goes on; None where all are here.
    """

    name: str
    classes: tuple[str, ...]
    colours: NDArray[np.uint8]
    background: int | None
    train: Arrays
    test: Arrays
    fingerprint: str
    validation: Arrays | None = None
    packed: Reader | None = None

    @property
    def splits(self) -> dict[str, Arrays]:
        """Those that have examples, by name."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in splits.items() if split}

    @property
    def chooser(self) -> str:
        """The split on which epochs are validated, so that whatever is chosen among them is chosen on it."""
        return "test" if self.validation is None else "validation"

    @property
    def chooses(self) -> Arrays:
        """The split that :attr:`chooser` names."""
        return self.splits[self.chooser]

    @property
    def judge(self) -> str:
        """The split that says how good the result is: test, or validation where there is no test split."""
        return "test" if self.test else "validation"

    @property
    def judges(self) -> Arrays:
        """The split that :attr:`judge` names."""
        return self.splits[self.judge]


def open_divided(
    data: str, data_dir: Path | None, reading: Reading = _AS_BY_DEFAULT, division: Division = AS_IT_IS
) -> Source:
    """Opens the data that the settings name, in the splits that they ask for.

    Raises:
        BadSettings, BadData: as :func:`load_dataset`; a group is in two splits.
    """
    source = divide_anew(open_source(data, data_dir, reading), division)
    check_whole(source, division)
    return source


def load_dataset(
    data: str,
    data_dir: Path | None,
    image_size: Size | int,
    cache_dir: Path | None = None,
    report_line: Callable[[str], object] = lambda line: None,
    reading: Reading = _AS_BY_DEFAULT,
    division: Division = AS_IT_IS,
    cache: int | None = None,
    local_workers: int = 1,
) -> Dataset:
    """Opens the data that the settings name, and has :func:`cached` scale it.

    Args:
        cache, local_workers: of packed data, see :func:`trainer.data.stream.streamed`.

    Raises:
        BadSettings: ``data`` names no kind of data.
        BadData: there is no usable data; as :func:`cached`.
    """
    source = open_divided(data, data_dir, reading, division)
    return cached(source, image_size, data, cache_dir, report_line, reading, cache, local_workers)


def cached(
    source: Source,
    image_size: Size | int,
    data: str,
    cache_dir: Path | None = None,
    report_line: Callable[[str], object] = lambda line: None,
    reading: Reading = _AS_BY_DEFAULT,
    cache: int | None = None,
    local_workers: int = 1,
) -> Dataset:
    """All examples of ``source`` at one input size, from the cache if their files are unchanged.

    Images are scaled to ``image_size`` (the side of a square, if it is a number; the aspect is not kept) with an
    antialiased bilinear filter, masks with nearest neighbour. Safe to call from several processes at once.

    Args:
        data: what the user called it, for messages.
        cache_dir: by default ``$MASKFLEET_CACHE`` or ``~/.cache/maskfleet``.
        report_line: gets a line when images have to be read, and every ten seconds while they are; and one for what
            was passed over or lost.
        reading: how the files of ``source`` are read.
        cache, local_workers: of packed data, see :func:`trainer.data.stream.streamed`.

    Raises:
        BadData: names the first bad file, or the cache folder if it can't be written. Nothing is left behind.
    """
    if source.packed is not None:
        from trainer.data.stream import streamed

        return streamed(source, image_size, cache, local_workers)
    root = cache_dir or cache_root()
    size = Size.of(image_size)
    folder = root / f"{source.name}-{size}-{_key(source, reading)}"
    try:
        if not folder.is_dir() or damage(folder):
            root.mkdir(parents=True, exist_ok=True)
            with locked(root / f".{folder.name}.lock") as alone:
                problem = damage(folder) if folder.is_dir() else None  # unless another process has made it meanwhile
                if problem:
                    report_line(f"{folder}: this data cache is damaged ({problem}) and made anew")
                    folder.rename(Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=root)) / "damaged")
                if not folder.is_dir():
                    if alone:
                        _remove(root.glob(f".{folder.name}.*/"))  # of a process that was killed
                    _build(data, source, size, folder, report_line)
        return _load(source, folder)
    except OSError as error:
        raise BadData(
            f"{error.filename or folder}: the data cache can't be kept here: {error.strerror}; {how_to_mend(error)}"
        ) from error


def _build(data: str, source: Source, size: Size, folder: Path, report_line: Callable[[str], object]) -> None:
    reported = time.monotonic()
    report_line(f"reading {counted(source.splits)} images of {data} into {folder}, this once")
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        digest = hashlib.sha256("\n".join(source.classes).encode())
        if len(source.splits) == 3 or source.split_by == "settings":  # two that the layout has: as it always was
            digest.update(json.dumps({name: len(split) for name, split in source.splits.items()}).encode())
        found: set[frozenset[int]] = set()
        lost: Counter[int] = Counter()
        for name, split in source.splits.items():
            with (
                (temporary / f"{name}-images.npy").open("wb") as images,
                (temporary / f"{name}-masks.npy").open("wb") as masks,
            ):
                _write_header(images, (len(split), *size, 3))
                _write_header(masks, (len(split), *size))
                for i, (image, mask, labels) in enumerate(_resized(split, size)):
                    if time.monotonic() - reported > _REPORT_SECONDS:
                        reported = time.monotonic()
                        report_line(f"read {i} of {len(split)} {name} images")
                    digest.update(split.names[i].encode())
                    lost.update(labels - set(np.unique(mask).tolist()) - {IGNORED})
                    for array, file in ((image, images), (mask, masks)):
                        digest.update(array.tobytes())
                        file.write(array.tobytes())
                    found.add(labels)
        if source.read_by_label:
            check_label_sets(found, data)
        for line in source.notes:
            report_line(line)
        if lost:
            classes = ", ".join(f"{source.classes[label]} in {count}" for label, count in lost.most_common(5))
            report_line(
                f"at {size.across} pixels, images lose all pixels of a class ({classes}); "
                "'trainer verify-data' names them; a larger --image-size keeps more"
            )
        content = {
            "fingerprint": digest.hexdigest(),
            "names": {name: split.names for name, split in source.splits.items()},
        }
        (temporary / _CONTENT).write_text(json.dumps(content))
        note_files(temporary)
        temporary.chmod(0o755)
        try:
            temporary.rename(folder)
        except OSError:
            if damage(folder):  # else the race is lost against a machine that can't see our lock
                raise
    finally:
        _remove([temporary])


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _key(source: Source, reading: Reading) -> str:
    """Differs whenever the cache's content may."""
    parts = [str(_FORMAT), source.name, str(source.classes), source.key, reading.masks_drawn_on]
    if source.validation is not None or not source.test:
        parts.append(json.dumps({name: split.names for name, split in source.splits.items()}))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _load(source: Source, folder: Path) -> Dataset:
    def arrays(name: str) -> Arrays:
        if name not in content["names"]:
            return Arrays((), train.images[:0], train.masks[:0])
        images, masks = (np.load(folder / f"{name}-{part}.npy", mmap_mode="r") for part in ("images", "masks"))
        return Arrays(tuple(content["names"][name]), images, masks)

    content = json.loads(read_plain(folder / _CONTENT, _MOST_BYTES))
    train = arrays("train")
    return Dataset(
        source.name,
        source.classes,
        source.colours,
        source.background,
        train,
        arrays("test"),
        content["fingerprint"],
        arrays("validation") if source.validation is not None else None,
    )


ADJECTIVES = {"train": "training", "validation": "validation", "test": "test"}
"""Of what is in a split."""


def counted(splits: Mapping[str, Sized]) -> str:
    """'240 training, 30 validation and 60 test', of splits by name."""
    *most, last = (f"{len(split)} {ADJECTIVES[name]}" for name, split in splits.items())
    return f"{', '.join(most)} and {last}" if most else last


def _resized(split: Split, size: Size) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8], frozenset[int]]]:
    """Images, masks and the labels that these had before they were scaled."""

    def read(i: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], frozenset[int]]:
        example = split.read(i)
        return *scaled(example, size), labels_in(example.mask)

    return side_by_side(read, len(split), split.pixels)


def scaled(example: Example, size: Size) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image uint8 (H, W, 3) and mask uint8 (H, W), of ``size``."""
    image = PIL.Image.fromarray(example.image).resize((size.width, size.height), PIL.Image.Resampling.BILINEAR)
    return np.asarray(image), scaled_mask(example.mask, size)


def scaled_mask(mask: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """uint8, of ``size``: each pixel the label of the nearest one in ``mask``."""
    return np.asarray(PIL.Image.fromarray(mask).resize((size.width, size.height), PIL.Image.Resampling.NEAREST))


def _write_header(file: IO[bytes], shape: tuple[int, ...]) -> None:
    header: dict[str, Any] = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
