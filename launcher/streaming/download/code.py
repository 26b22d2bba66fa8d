"""A user's own code in a bucket: sent there by who submits, fetched by each pod."""

from __future__ import annotations

import io

from launcher.streaming.download.arrival import download
from launcher.streaming.stores.opening import open_store
from launcher.streaming.stores.store import Changed
from maskfleet.errors import BadData
from maskfleet.files import FileDigest
from maskfleet.plain_files import PlainFiles
from maskfleet.run_directory import RunDirectory


def send_code(destination: str, name: str, archive: bytes) -> None:
    """Writes the archive into the object of this name, unless it is there: its name says what it holds.

    Raises:
        StoreUnavailable, StoreRefused: the store can't be written.
    """
    try:
        open_store(destination).put(name, io.BytesIO(archive), FileDigest.read(io.BytesIO(archive)), None)
    except Changed:
        return


def fetch_code(address: str, run: RunDirectory) -> None:
    """Brings the archive into the run.

    Raises:
        BadData: it is not there, or damaged.
        StoreUnavailable, StoreRefused: the store can't be read.
    """
    folder, _, name = address.rpartition("/")
    store = open_store(folder)
    if (found := store.find(name)) is None:
        raise BadData(f"--code {address}: there is nothing: expected what 'launcher submit --code' has put there")
    run.path.mkdir(parents=True, exist_ok=True)
    download(store, found, PlainFiles(run.path), run.fetched_code.name)
