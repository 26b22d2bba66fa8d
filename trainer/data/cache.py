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
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskfleet.config import TrainConfig
from maskfleet.errors import BadData, BadSettings
from maskfleet.files import read_plain
from maskfleet.image_size import Fit, Size
from trainer.cache_folder import cache_root, damage, how_to_mend, locked, note_files
from trainer.data.array_files import ArrayFiles
from trainer.data.fitting import Pair, inputs_of
from trainer.data.images import check_label_sets, labels_in
from trainer.data.opening import open_source
from trainer.data.side_by_side import side_by_side
from trainer.data.source import IGNORED, Reading, Source, Split
from trainer.data.splits import AS_IT_IS, Division, check_whole, divide_anew

if TYPE_CHECKING:
    from trainer.data.packed.reading import Reader
    from trainer.data.stream import Stream

FORMAT = 5
"""To be raised when the cache's content changes for the same files."""
_REPORT_SECONDS = 10.0
"""Seconds between two lines about a long build."""
_AS_BY_DEFAULT = Reading()
_MOST_BYTES = 1 << 30
"""Of what is kept of a cache: a name for each example."""
_CONTENT = "content.json"
"""Fingerprint, names of the examples, and digests of pictures that are kept whole or in windows."""
_DIGITS = 16
"""Of a picture's digest: enough to tell pictures apart, and few enough to keep for each."""


@dataclass(frozen=True)
class Arrays:
    """One split as a network sees it: images uint8 (N, H, W, bands) and masks uint8 (N, H, W), read-only.

    They are memory-mapped; or, with a ``stream``, read when they are asked for, which raises BadData. ``names`` are of
    the picture that each is, or is a window of; then ``digests`` are those of the whole pictures, by name.
    """

    names: Sequence[str]
    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    stream: Stream | None = None
    digests: Mapping[str, str] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def pictures(self) -> Sequence[str]:
        """The name of each picture, once."""
        return self.names if self.digests is None else tuple(dict.fromkeys(self.names))

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
class Pictures:
    """The training split of a network that sees parts of pictures: each at its own size, memory-mapped.

    Attributes:
        sizes: int64 (N, 2), height and width of each.
        pixels: uint8 (P, bands), of all pictures one after another.
        labels: uint8 (P,), of their masks.
        window: the size of the network's input.
        digests: of the pictures by name.
    """

    names: tuple[str, ...]
    sizes: NDArray[np.int64]
    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    window: Size
    digests: Mapping[str, str]
    stream: ClassVar[None] = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def pictures(self) -> Sequence[str]:
        """As of :class:`Arrays`."""
        return self.names

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        return np.cumsum(self.sizes.prod(axis=1))

    def image(self, i: int) -> NDArray[np.uint8]:
        """uint8 (H, W, bands), a view."""
        return self._of(self.pixels, i).reshape(*self.sizes[i], self.pixels.shape[1])

    def mask(self, i: int) -> NDArray[np.uint8]:
        """uint8 (H, W), a view."""
        return self._of(self.labels, i).reshape(self.sizes[i])

    def _of(self, array: NDArray[np.uint8], i: int) -> NDArray[np.uint8]:
        return array[self._ends[i] - self.sizes[i].prod() : self._ends[i]]

    @property
    def masks(self) -> Sequence[NDArray[np.uint8]]:
        return [self.mask(i) for i in range(len(self))]

    def spread(self, count: int) -> Arrays:
        """As :meth:`Arrays.spread`: the middle window of each."""
        chosen = np.linspace(0, len(self) - 1, min(count, len(self))).astype(int).tolist()
        images, masks = zip(*map(self._middle, chosen), strict=True)
        return Arrays(tuple(self.names[i] for i in chosen), np.stack(images), np.stack(masks))

    def _middle(self, i: int) -> Pair:
        """The middle window of a picture and its mask."""
        windows = [*inputs_of(self.image(i), self.mask(i), self.window, "crop")]
        return windows[len(windows) // 2]


@dataclass(frozen=True)
class Dataset:
    """A data set at one input size.

    ``fingerprint`` is a hash of classes, names and pixels: equal on every machine that sees the same data.
    ``colours`` and ``background`` are those of :class:`Source`; ``train`` are whole pictures where a network is trained
    on parts of them, and the other splits then windows of their pictures; ``test`` is empty and ``validation`` None
    where it has no such split. ``packed`` is where the examples are read while training goes on; None where all are
    here.
    """

    name: str
    classes: tuple[str, ...]
    colours: NDArray[np.uint8]
    background: int | None
    train: Arrays | Pictures
    test: Arrays
    fingerprint: str
    validation: Arrays | None = None
    packed: Reader | None = None

    @property
    def splits(self) -> dict[str, Arrays | Pictures]:
        """Those that have examples, by name."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: split for name, split in splits.items() if split}

    @property
    def pictures(self) -> dict[str, Sequence[str]]:
        """Their names in each of the :attr:`splits`."""
        return {name: split.pictures for name, split in self.splits.items()}

    def seen_whole(self, name: str) -> Arrays:
        """The inputs that a network sees all of a split's pictures by.

        Raises:
            BadSettings: it sees only parts of them.
        """
        split = self.splits[name]
        if isinstance(split, Pictures):
            raise BadSettings(f"--size network: after --fit crop the {name} pictures are seen in parts; leave it out")
        return split

    @property
    def chooser(self) -> str:
        """The split on which epochs are validated, so that whatever is chosen among them is chosen on it."""
        return "test" if self.validation is None else "validation"

    @property
    def chooses(self) -> Arrays:
        """The split that :attr:`chooser` names."""
        return self.test if self.validation is None else self.validation

    @property
    def judge(self) -> str:
        """The split that says how good the result is: test, or validation where there is no test split."""
        return "test" if self.test else "validation"

    @property
    def judges(self) -> Arrays:
        """The split that :attr:`judge` names."""
        return self.test if self.test or self.validation is None else self.validation


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
    fit: Fit = "squash",
) -> Dataset:
    """Opens the data that the settings name, and has :func:`cached` scale it.

    Args:
        cache, local_workers: of packed data, see :func:`trainer.data.stream.streamed`.

    Raises:
        BadSettings: ``data`` names no kind of data.
        BadData: there is no usable data; as :func:`cached`.
    """
    source = open_divided(data, data_dir, reading, division)
    return cached(source, image_size, data, cache_dir, report_line, reading, cache, local_workers, fit)


def dataset_of(config: TrainConfig, image_size: Size | None = None) -> Dataset:
    """:func:`load_dataset` with the settings of a run; ``image_size`` where it is not the settings'."""
    return load_dataset(
        config.data,
        config.data_dir,
        image_size or config.image_size,
        reading=Reading.of(config),
        division=Division.of(config),
        cache=config.cache,
        fit=config.fit,
    )


def cached(
    source: Source,
    image_size: Size | int,
    data: str,
    cache_dir: Path | None = None,
    report_line: Callable[[str], object] = lambda line: None,
    reading: Reading = _AS_BY_DEFAULT,
    cache: int | None = None,
    local_workers: int = 1,
    fit: Fit = "squash",
) -> Dataset:
    """All examples of ``source`` at one input size, from the cache if their files are unchanged.

    Images become inputs of ``image_size`` (the side of a square, if it is a number) as ``fit`` says, see
    :mod:`trainer.data.fitting`. Safe to call from several processes at once.

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

        if fit == "crop":
            raise BadSettings(
                "--fit crop: parts are cut out of pictures that are here, and packed data is read while training goes "
                "on; train on the data that was packed, or with --fit squash or pad"
            )
        return streamed(source, image_size, cache, local_workers, fit)
    root = cache_dir or cache_root()
    size = Size.of(image_size)
    how = "" if fit == "squash" else f"-{fit}"
    folder = root / f"{source.name}-{size}{how}-{_key(source, reading)}"
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
                    _build(data, source, size, fit, reading.bands, folder, report_line)
        return _load(source, size, fit, reading.bands, folder)
    except OSError as error:
        raise BadData(
            f"{error.filename or folder}: the data cache can't be kept here: {error.strerror}; {how_to_mend(error)}"
        ) from error


def _build(
    data: str, source: Source, size: Size, fit: Fit, bands: int, folder: Path, report_line: Callable[[str], object]
) -> None:
    report_line(f"reading {counted(source.splits)} images of {data} into {folder}, this once")
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        filled = _fill(source, size, fit, bands, temporary, report_line)
        if source.read_by_label:
            check_label_sets(filled.label_sets, data)
        for line in source.notes:
            report_line(line)
        if filled.lost:
            classes = ", ".join(f"{source.classes[label]} in {count}" for label, count in filled.lost.most_common(5))
            report_line(
                f"at {size.across} pixels, images lose all pixels of a class ({classes}); "
                "'trainer verify-data' names them; a larger --image-size keeps more"
            )
        content = {"fingerprint": filled.fingerprint, "names": filled.names, "digests": filled.digests}
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


@dataclass
class _Filled:
    """What is known of all examples when their files are written.

    Attributes:
        names: of each array of a split.
        digests: of the pictures of a split by name, where its arrays are parts of them.
        label_sets: the labels that masks have.
        lost: the number of masks that lose all pixels of a class.
    """

    fingerprint: str = ""
    names: dict[str, list[str]] = field(default_factory=dict)
    digests: dict[str, dict[str, str]] = field(default_factory=dict)
    label_sets: set[frozenset[int]] = field(default_factory=set)
    lost: Counter[int] = field(default_factory=Counter)


def _fill(
    source: Source, size: Size, fit: Fit, bands: int, folder: Path, report_line: Callable[[str], object]
) -> _Filled:
    """Writes the images and masks of all splits into ``folder``."""
    reported = time.monotonic()
    digest = hashlib.sha256("\n".join(source.classes).encode())
    if len(source.splits) == 3 or source.split_by == "settings":  # two that the layout has: as it always was
        digest.update(json.dumps({name: len(split) for name, split in source.splits.items()}).encode())
    filled = _Filled()
    for name, split in source.splits.items():
        whole = fit == "crop" and name == "train"
        names = filled.names[name] = []
        with ArrayFiles(folder, name, None if whole else size, bands) as files:
            for i, example in enumerate(_fitted(split, size, fit, whole)):
                if time.monotonic() - reported > _REPORT_SECONDS:
                    reported = time.monotonic()
                    report_line(f"read {i} of {len(split)} {name} images")
                digest.update(split.names[i].encode())
                if fit == "crop":  # pictures of any size, one after another
                    digest.update(example.digest.encode())
                    filled.digests.setdefault(name, {})[split.names[i]] = example.digest[:_DIGITS]
                filled.lost.update(example.labels - example.seen - {IGNORED})
                for image, mask in example.inputs:
                    for pixels in (image, mask):
                        digest.update(pixels.ravel().data)  # no copy of what is in one piece
                    files.add(image, mask)
                    names.append(split.names[i])
                filled.label_sets.add(example.labels)
    filled.fingerprint = digest.hexdigest()
    return filled


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _key(source: Source, reading: Reading) -> str:
    """Differs whenever the cache's content may."""
    parts = [str(FORMAT), source.name, str(source.classes), source.key, reading.masks_drawn_on]
    if reading.bands != 3:
        parts.append(f"{reading.bands} bands")
    if source.validation is not None or not source.test:
        parts.append(json.dumps({name: split.names for name, split in source.splits.items()}))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _load(source: Source, size: Size, fit: Fit, bands: int, folder: Path) -> Dataset:
    def array(name: str, part: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(folder / f"{name}-{part}.npy", mmap_mode="r")
        return array

    def arrays(name: str) -> Arrays:
        if name not in content["names"]:
            return Arrays((), np.empty((0, *size, bands), np.uint8), np.empty((0, *size), np.uint8))
        names, digests = tuple(content["names"][name]), content.get("digests", {}).get(name)
        return Arrays(names, array(name, "images"), array(name, "masks"), None, digests)

    def pictures(name: str) -> Pictures:
        names, sizes = tuple(content["names"][name]), np.array(array(name, "sizes"))
        return Pictures(names, sizes, array(name, "images"), array(name, "masks"), size, content["digests"][name])

    content = json.loads(read_plain(folder / _CONTENT, _MOST_BYTES))
    return Dataset(
        source.name,
        source.classes,
        source.colours,
        source.background,
        pictures("train") if fit == "crop" else arrays("train"),
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


class _Fitted(NamedTuple):
    """One example: its inputs, the labels that its mask had before, and those that training sees."""

    inputs: Sequence[Pair]
    labels: frozenset[int]
    seen: frozenset[int]
    digest: str


def _fitted(split: Split, size: Size, fit: Fit, whole: bool) -> Iterator[_Fitted]:
    """All examples, as they are if ``whole``."""

    def read(i: int) -> _Fitted:
        example = split.read(i)
        labels = labels_in(example.mask)
        inputs = [(example.image, example.mask)] if whole else [*inputs_of(example.decoded, example.mask, size, fit)]
        if fit != "crop":
            return _Fitted(inputs, labels, labels_in(inputs[0][1]), "")
        digest = hashlib.sha256(f"{example.image.shape}".encode() + example.image.tobytes()).hexdigest()
        return _Fitted(inputs, labels, labels, digest)

    return side_by_side(read, len(split), split.pixels)
