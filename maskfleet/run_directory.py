"""Where each file of a run lies.

The trainer writes these files, the streamer copies them, the launcher reads them; all of them ask this module for the
names. What stands in them is :mod:`maskfleet.records`'.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from maskfleet.errors import BadInput
from maskfleet.text import printable

LEGEND = "classes.json"
"""Name of the file beside an exported network that says what its labels mean."""
_CHECKPOINT = re.compile(r"step-(\d{8,})\.json")


def check_name(path: Path) -> None:
    """Whether TensorFlow can read and write what lies at ``path``: it takes names in UTF-8 alone.

    Raises:
        BadInput: it can't.
    """
    name = str(path.absolute())
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise BadInput(
            f"{printable(name)}: expected a name in UTF-8, found other bytes; rename it (convmv renames many)"
        ) from error


def is_event_file(name: str) -> bool:
    """Whether TensorBoard takes a file of this name for one of its own, which only grows."""
    return "tfevents" in name


@dataclass(frozen=True)
class RunDirectory:
    """The layout of one run under ``path``."""

    path: Path

    @property
    def config(self) -> Path:
        """Resolved settings, versions, git commit and data fingerprint; a valid ``--config`` file."""
        return self.path / "config.json"

    @property
    def examples(self) -> Path:
        """Which pictures are in which split, with their digests."""
        return self.path / "examples.json"

    @property
    def code(self) -> Path:
        """The user's own code that the run was last started with: an archive that Python imports from."""
        return self.path / "code.zip"

    @property
    def tensorboard(self) -> Path:
        """The TensorBoard logdir, which holds event files and nothing else."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def checkpoint_manifests(self) -> Path:
        return self.checkpoints / "manifests"

    @property
    def unfinished_checkpoint(self) -> Path:
        """A folder that is there while a checkpoint is being written."""
        return self.checkpoints / ".writing"

    @property
    def metrics(self) -> Path:
        """One JSON object a line for each validation."""
        return self.path / "metrics.jsonl"

    @property
    def scores(self) -> Path:
        """What the run has come to, and on which split that was chosen."""
        return self.path / "scores.json"

    @property
    def events(self) -> Path:
        """One JSON object a line for each start, restart, checkpoint and end."""
        return self.path / "events.jsonl"

    @property
    def goodput(self) -> Path:
        """One JSON object a line for what the time was spent on, and what begins."""
        return self.path / "goodput.jsonl"

    @property
    def workers(self) -> Path:
        """How fast each worker is by itself, and who holds up the others; replaced atomically."""
        return self.path / "workers.json"

    @property
    def progress(self) -> Path:
        """Epoch, step, images/s, loss, mIoU, ETA; replaced atomically."""
        return self.path / "progress.json"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def pictures(self) -> Path:
        return self.path / "pictures"

    @property
    def export(self) -> Path:
        return self.path / "export"

    @property
    def streamer_notes(self) -> Path:
        """How far a streamer is. Hidden files are this machine's own, and copied nowhere."""
        return self.path / ".streamer.json"

    @property
    def streamer_log(self) -> Path:
        """What the streamer of a run on this machine says."""
        return self.path / ".streamer.log"

    @property
    def fetched_code(self) -> Path:
        """The user's own code, where a pod has fetched it from a bucket."""
        return self.path / ".code.zip"

    @property
    def start(self) -> Path:
        """What the run starts from, where that was fetched from a bucket."""
        return self.path / ".start"

    @property
    def reporter_mark(self) -> Path:
        """Up to where the run's events are on its Job."""
        return self.path / ".reporter.json"

    @property
    def report(self) -> Path:
        """One page about the run for a browser."""
        return self.path / "report.html"

    def worker_log(self, worker: int) -> Path:
        """Standard output and error of every attempt of one worker."""
        return self.logs / f"worker-{worker}.log"

    def checkpoint_prefix(self, step: int) -> Path:
        """The prefix of a checkpoint's data and index file."""
        return self.checkpoints / f"step-{step:08d}"

    def checkpoint_manifest(self, step: int) -> Path:
        """The file whose existence makes the checkpoint of ``step`` complete."""
        return self.checkpoint_manifests / f"step-{step:08d}.json"

    def checkpoint_steps(self) -> list[int]:
        """Steps that have a manifest, newest first."""
        if not self.checkpoint_manifests.is_dir():
            return []
        matches = (_CHECKPOINT.fullmatch(entry.name) for entry in self.checkpoint_manifests.iterdir())
        return sorted((int(match[1]) for match in matches if match), reverse=True)
