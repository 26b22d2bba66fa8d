"""From a destination to its store."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from launcher.streaming.stores.store import Store
from maskfleet.config import absolute_path
from maskfleet.data_places import BUCKET_NAME, is_bucket
from maskfleet.errors import BadSettings


def open_store(destination: str) -> Store:
    """The store of ``gs://BUCKET/PREFIX``, ``s3://BUCKET/PREFIX`` or a folder's path. Sends no request.

    Raises:
        BadSettings: the destination can't be understood.
        StoreRefused: there are no credentials.
    """
    parts = urlsplit(destination)
    if parts.scheme in ("gs", "s3"):
        prefix = parts.path.strip("/")
        if not is_bucket(parts.netloc) or parts.query or parts.fragment or "//" in prefix:
            raise BadSettings(f"{destination}: expected {parts.scheme}://BUCKET/PREFIX, {BUCKET_NAME}")
        if parts.scheme == "gs":
            from launcher.streaming.stores.gcs import GcsStore

            return GcsStore(parts.netloc, prefix)
        from launcher.streaming.stores.s3 import S3Store

        return S3Store(parts.netloc, prefix)
    if parts.scheme == "folder":  # as --data has it
        path = destination.partition(":")[2]
        raise BadSettings(f"{destination}: a folder as destination has no word before it; write {path or 'its path'}")
    if parts.scheme == "file" or "://" not in destination:
        from launcher.streaming.stores.folder import FolderStore

        path = parts.path if parts.scheme == "file" else destination
        if not path:
            raise BadSettings("the destination is empty: expected gs://BUCKET/PREFIX, s3://BUCKET/PREFIX or a folder")
        return FolderStore(absolute_path(path, "the destination") if path.startswith("~") else Path(path))
    raise BadSettings(f"{destination}: expected gs://BUCKET/PREFIX, s3://BUCKET/PREFIX or a folder's path")


def check_apart(source: Store | Path, target: Store | Path) -> None:
    """Whether ``target`` lies outside of ``source``, if both are folders: else what is copied there is copied again.

    Raises:
        BadSettings: it does not.
    """
    from launcher.streaming.stores.folder import FolderStore

    within, place = (each.path if isinstance(each, FolderStore) else each for each in (source, target))
    if isinstance(within, Path) and isinstance(place, Path) and place.resolve().is_relative_to(within.resolve()):
        raise BadSettings(
            f"{place}: lies in {within}, which would be copied into itself; choose a folder outside of it"
        )
