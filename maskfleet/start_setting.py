"""What the setting ``start_from`` may say, told before anything that is slow is imported."""

from __future__ import annotations

import re
from pathlib import Path

from maskfleet.config import is_address
from maskfleet.errors import BadInput, BadSettings, NotFound
from maskfleet.run_directory import RunDirectory, check_name

NETWORK_FILES = (".keras", ".h5")
"""How the name of an exported network ends that can be read again."""
_CHECKPOINT = re.compile(r"step-(\d+)(\..*)?")
_EXPECTED = "expected a run, one of its checkpoints (RUN/checkpoints/step-N) or an exported network (.keras, .h5)"


def checkpoint_at(place: str) -> tuple[str, int] | None:
    """``RUN/checkpoints/step-00000171``, with or without a suffix, or its manifest -> ``RUN`` and 171; else None."""
    folder, _, name = place.rstrip("/").rpartition("/")
    match = _CHECKPOINT.fullmatch(name)
    run, _, checkpoints = folder.removesuffix("/manifests").rpartition("/")
    return (run or ".", int(match[1])) if match and checkpoints == "checkpoints" else None


def start_place(start_from: str, run: RunDirectory) -> Path:
    """Where ``start_from`` lies on this disk; what is in a bucket has been brought to ``run.start``."""
    if not is_address(start_from):
        return Path(start_from)
    name = start_from.rstrip("/").rpartition("/")[2]
    if name.endswith(NETWORK_FILES):
        return run.start / name
    found = checkpoint_at(start_from)
    return run.start if found is None else RunDirectory(run.start).checkpoint_prefix(found[1])


def check_start(start_from: str | None) -> None:
    """Whether there is what ``start_from`` names, as far as that can be told without asking a store.

    Raises:
        BadSettings: there is no such thing.
    """
    if start_from is None:
        return
    if is_address(start_from):
        if not re.match(r"(gs|s3)://[^/]+/.", start_from):
            raise BadSettings(f"--start-from {start_from}: expected gs://BUCKET/PATH or s3://BUCKET/PATH")
        return
    if not is_there(Path(start_from)):
        raise BadSettings(f"--start-from {start_from}: {_EXPECTED}, found {_found(Path(start_from))}")


def is_there(place: Path) -> bool:
    """Whether ``place`` is a run, a complete checkpoint or a file of a network."""
    if place.name.endswith(NETWORK_FILES):
        return place.is_file()
    found = checkpoint_at(str(place))
    if found is None:
        return RunDirectory(place).config.is_file()
    return RunDirectory(Path(found[0])).checkpoint_manifest(found[1]).is_file()


def existing_network(place: Path, files: str = "a .keras or .h5 file") -> None:
    """Whether ``place`` may be a trained network; what a file holds is not looked at.

    ``files`` are those that the user may name beside a run.

    Raises:
        NotFound: there is nothing.
        BadInput: it is a folder without a run, another file, or has a name that TensorFlow does not take.
    """
    check_name(place)
    is_network = place.is_file() and place.name.endswith(NETWORK_FILES)
    if checkpoint_at(str(place)) or RunDirectory(place).config.is_file() or is_network:
        return
    if place.exists():
        raise BadInput(f"{place}: expected a run directory with config.json, or {files}, found {_found(place)}")
    raise NotFound(f"{place}: expected a run directory, or {files}, found nothing")


def _found(place: Path) -> str:
    if place.is_dir():
        return "a folder without config.json"
    return "another file" if place.exists() else "nothing"
