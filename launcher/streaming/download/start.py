"""What a new run starts from, from a bucket to this disk: a run's checkpoint and settings, or an exported network."""

from __future__ import annotations

from pathlib import Path

from launcher.streaming.download.arrival import download
from launcher.streaming.download.restore import bring_checkpoint
from launcher.streaming.stores.opening import open_store
from launcher.streaming.stores.store import Store, newest
from maskfleet.errors import BadSettings, NotFound
from maskfleet.plain_files import PlainFiles
from maskfleet.records import FinalScores
from maskfleet.run_directory import LEGEND, RunDirectory
from maskfleet.start_setting import NETWORK_FILES, checkpoint_at


def fetch_start(address: str, folder: Path) -> str:
    """Brings the run, the checkpoint or the file at ``address`` into ``folder``; returns what came, in a sentence.

    Of a run comes the checkpoint that its final scores are of, or the newest, with what says what it is.

    Raises:
        BadSettings: there is no such thing.
        BadData: it is damaged.
        StoreUnavailable, StoreRefused: the store can't be read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    head, _, name = address.rstrip("/").rpartition("/")
    if name.endswith(NETWORK_FILES):
        store = open_store(head)
        if not _fetch(store, name, folder):
            raise BadSettings(f"--start-from {address}: expected an exported network, found nothing")
        _fetch(store, LEGEND, folder)
        return f"fetched {address}"
    found = checkpoint_at(address)
    store, run = open_store(found[0] if found else address.rstrip("/")), RunDirectory(folder)
    if not _fetch(store, run.config.name, folder):
        raise BadSettings(
            f"--start-from {address}: expected a run, one of its checkpoints (RUN/checkpoints/step-N) or an exported "
            f"network (.keras, .h5), found no {store.url}/{run.config.name}"
        )
    _fetch(store, run.scores.name, folder)
    scores = FinalScores.read(run)
    step = found[1] if found else scores.step if scores is not None else None
    try:
        manifest = bring_checkpoint(store, run, step, needed=found is not None)
    except NotFound as error:
        raise BadSettings(f"--start-from {address}: {error}") from error
    if manifest is None:
        raise BadSettings(f"--start-from {address}: expected a run with a complete checkpoint, found none")
    return f"fetched the checkpoint of step {manifest.step} of {store.url} to start from"


def _fetch(store: Store, name: str, folder: Path) -> bool:
    """Whether the object is there; then it is in ``folder``."""
    found = store.find(name)
    if found is None:
        return False
    return newest(store, found, lambda version: download(store, version, PlainFiles(folder))) is not None
