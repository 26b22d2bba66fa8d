"""What lies in a destination: its runs, and a copy of everything on this disk."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from launcher.streaming.download.arrival import InTheWay, check_folder, download, writing
from launcher.streaming.layout import MANIFEST, OF_A_RUN
from launcher.streaming.stores.store import INTERNAL, Store, StoredObject, newest
from maskfleet.data_places import FETCHING
from maskfleet.errors import BadData, BadInput, BadSettings, NotFound
from maskfleet.files import FileDigest, stays_inside
from maskfleet.plain_files import PlainFiles
from maskfleet.run_directory import RunDirectory
from maskfleet.run_lock import not_in_use
from maskfleet.text import one_line

AT_ONCE = 8
"""Objects that are fetched at a time: small ones wait for answers, not for the network. Each holds a piece of 8 MiB."""


_NAMED = 3
"""Objects that a line names."""


class NotAllFetched(BadInput):
    """All but some objects were fetched."""


@dataclass(frozen=True)
class Fetched:
    """An object that was fetched: its name in the store and its size in bytes.

    ``verified`` is whether a checksum was compared; the store may know none, and then the size was all there is.
    """

    name: str
    size: int
    verified: bool


def pull(
    store: Store, folder: Path, listed: Callable[[Sequence[StoredObject]], object] = lambda objects: None
) -> Iterator[Fetched]:
    """Copies all objects into ``folder``; yields each one that was fetched. What is there already is kept.

    ``listed`` gets all of them before the first one is fetched.

    Manifests come last, as they went up. Meanwhile a file :data:`FETCHING` says that what is there is a part. Nothing
    is written through a link: an object in whose place one is, or a folder, or whose name this disk can't hold, is left
    out.

    Raises:
        NotFound: the destination is empty.
        BadSettings: an object's name is not that of a file in the folder; the folder is none or can't be written; a
            run in it is in use.
        BadData: what came is not what the store says the object holds.
        DiskFailed: the disk is full.
        NotAllFetched: at the end: not all objects have their file here.
    """
    objects = [found for found in store.list() if not found.name.startswith(INTERNAL)]
    if not objects:
        raise NotFound(f"{store.url}: there is nothing")
    listed(objects)
    for found in objects:
        if not stays_inside(found.name):
            raise BadSettings(f"{store.url}/{found.name}: is no name of a file in {folder}; rename the object")
    check_folder(folder)
    manifests = [found for found in objects if MANIFEST.fullmatch(found.name)]
    others = [found for found in objects if not MANIFEST.fullmatch(found.name)]
    work = _Pull(store, folder)
    with ExitStack() as locks:
        for run in sorted({match["run"] or "" for found in objects if (match := OF_A_RUN.fullmatch(found.name))}):
            locks.enter_context(not_in_use(RunDirectory(folder / run)))
        work.mark(store.url)
        for each in (others, manifests):
            yield from work.fetch_all(each)
        work.unmark()
    if work.left_out:
        names = sorted(work.left_out)
        more = f", and {len(names) - _NAMED} more" if names[_NAMED:] else ""
        named = "; ".join(f"{one_line(name, 120)}: {work.left_out[name]}" for name in names[:_NAMED])
        raise NotAllFetched(
            f"{folder}: the rest is here, but {len(names)} of {len(objects)} objects were left out: {named}{more}"
        )


def verification(fetched: Iterable[Fetched]) -> str:
    """What was compared with what the store says, in a few words."""
    unknown = sum(not each.verified for each in fetched)
    return f"sizes verified; the store has no checksum of {unknown} of them" if unknown else "all verified"


class _Pull:
    def __init__(self, store: Store, folder: Path):
        self._store = store
        self.left_out: dict[str, InTheWay] = {}
        self._files = PlainFiles(folder)
        self._tags_are_md5 = True
        self._stop = False

    def mark(self, url: str) -> None:
        """Says that the folder holds a part of what is at ``url``."""
        with writing(self._files), self._files.replacing(FETCHING) as file:
            file.write(f"'launcher pull {url}' is bringing files here\n".encode(errors="backslashreplace"))

    def unmark(self) -> None:
        with writing(self._files):
            self._files.delete(FETCHING)

    def fetch_all(self, objects: Iterable[StoredObject]) -> Iterator[Fetched]:
        """Those that were fetched, in the order in which they came; after an error, also what was on its way then."""
        failed: BaseException | None = None
        self._stop = False
        with ThreadPoolExecutor(AT_ONCE) as threads:
            try:
                for done in as_completed([threads.submit(self._fetch, found) for found in objects]):
                    if (error := done.exception()) is not None:
                        failed, self._stop = error, True
                    elif (fetched := done.result()) is not None:
                        yield fetched
            finally:
                self._stop = True  # Ctrl-C, too, begins nothing more
        if failed is not None:
            raise failed

    def _fetch(self, found: StoredObject) -> Fetched | None:
        if self._stop:
            return None
        try:
            return newest(self._store, found, self._fetch_version)
        except InTheWay as error:
            self.left_out[found.name] = error
            return None

    def _fetch_version(self, found: StoredObject) -> Fetched | None:
        known = found
        if found.crc32c is None and (found.md5 is None or not self._tags_are_md5):
            known = self._store.find(found.name) or found
        with writing(self._files), suppress(FileNotFoundError):
            if self._files.stat(found.name).st_size == found.size and self._is_known_as(known):
                return None
        digest = download(self._store, known, self._files)
        with writing(self._files):
            verified = self._is_known_as(known)
        if not verified and known.md5 is not None:
            verified = self._settle(known, digest)
        if found.updated:  # a cache that goes by the files' times is that of every pod that fetches them
            with writing(self._files):
                self._files.set_time(found.name, found.updated)
        return Fetched(found.name, found.size, verified)

    def _settle(self, found: StoredObject, digest: FileDigest) -> bool:
        """The file's MD5 is not the object's tag: it was damaged on its way, or the tag is no MD5.

        The latter is so in a bucket that encrypts with a key of its own. Then the object holds what its own checksum
        says, or, without one, comes the same way twice.

        Raises:
            BadData: it was damaged.
        """
        known = self._store.find(found.name) or found
        verified = known.crc32c == digest.crc32c
        if not verified and (known.crc32c is not None or download(self._store, known, self._files) != digest):
            self._files.delete(found.name)
            raise BadData(f"{self._store.url}/{found.name}: received {digest}, which is not what the store holds")
        self._tags_are_md5 = False
        return verified

    def _is_known_as(self, known: StoredObject) -> bool:
        """Whether a checksum says that the file is the object."""
        with self._files.open(known.name) as file:
            if known.crc32c is not None:
                return known.matches(FileDigest.read(file))
            return known.md5 is not None and hashlib.file_digest(file, "md5").hexdigest() == known.md5  # type: ignore[arg-type]
