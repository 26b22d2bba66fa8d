"""The manifest that makes a checkpoint complete, and which checkpoints stay."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from maskfleet.files import FileDigest, read_plain, stays_inside
from maskfleet.records import RunRecord
from maskfleet.run_directory import RunDirectory
from maskfleet.schema import Count, Seconds, Share, validated
from maskfleet.text import one_line

MANIFEST_BYTES = 16 << 20
"""What a manifest has at most; one takes a kilobyte."""


@dataclass(frozen=True)
class CheckpointManifest:
    """What makes a checkpoint complete: its files with their digests, and where training stood.

    ``files`` are named relative to the folder ``checkpoints``. ``training_seconds`` is the time spent in
    training steps up to ``step``; ``miou`` and ``score``, by which the best
    checkpoint is chosen, are None where the step was not validated. ``run_id`` is that of the run's config.json; None
    in what an older version wrote.
    """

    step: Count
    epoch: Count
    training_seconds: Seconds
    miou: Share | None
    files: Mapping[str, FileDigest]
    score: float | None = None
    run_id: str | None = None

    @classmethod
    def parse(cls, content: bytes) -> CheckpointManifest:
        """The inverse of :meth:`serialize`.

        Raises:
            ValueError: the content is no manifest.
        """
        try:
            manifest = validated(cls, content)
        except ValueError as error:
            raise ValueError(f"no checkpoint manifest: {error}") from error
        if outside := [name for name in manifest.files if not stays_inside(name)]:
            raise ValueError(f"no checkpoint manifest: {outside[0]!r} is no file in the folder checkpoints")
        return manifest

    @classmethod
    def of_step(cls, content: bytes, step: int, run_id: str | None = None) -> CheckpointManifest:
        """What :meth:`parse` gives, if it is one of ``step``: that names it, and a checkpoint has an index and data.

        ``run_id`` is that of the run whose checkpoint it has to be, if that is known.

        Raises:
            ValueError: it is none.
        """
        manifest = cls.parse(content)
        if manifest.step != step:
            raise ValueError(f"no checkpoint manifest of step {step}: it says step {manifest.step}")
        prefix = f"step-{step:08d}"
        if f"{prefix}.index" not in manifest.files or not any(
            name.startswith(f"{prefix}.data-") for name in manifest.files
        ):
            raise ValueError(f"no checkpoint manifest: expected {prefix}.index and {prefix}.data-… among its files")
        if foreign := [name for name in manifest.files if not name.startswith(f"{prefix}.")]:
            raise ValueError(f"no checkpoint manifest: {foreign[0]!r} is of no checkpoint of step {step}")
        if run_id is not None and manifest.run_id not in (None, run_id):
            raise ValueError(f"it is of another run: expected run_id {run_id}, found {one_line(manifest.run_id, 40)}")
        return manifest

    @classmethod
    def read(cls, run: RunDirectory, step: int) -> CheckpointManifest:
        """That of ``step`` in ``run``, of that run.

        Raises:
            OSError: it can't be read, or is a pipe or device.
            ValueError: it is no manifest of this step.
        """
        content = read_plain(run.checkpoint_manifest(step), MANIFEST_BYTES)
        return cls.of_step(content, step, RunRecord.id_of(run))

    def serialize(self) -> bytes:
        return (json.dumps(asdict(self), indent=1) + "\n").encode()

    def problem(self, checkpoints: Path) -> str | None:
        """The first file under ``checkpoints`` that is missing or differs, in a sentence; None if all verify."""
        for name, expected in self.files.items():
            path = checkpoints / name
            if not path.is_file():
                return f"{path} is missing"
            found = FileDigest.of(path)
            if found != expected:
                return (
                    f"{path} has {found.size} bytes with crc32c {found.crc32c}, "
                    f"expected {expected.size} with {one_line(expected.crc32c, 40)}"
                )
        return None


def best_step(manifests: Mapping[int, CheckpointManifest]) -> int | None:
    """The step with the highest score, the newest of equals; None if none was validated.

    Runs of an older version noted mean IoU alone. A score that is not finite, as of a network that has diverged, counts
    as none.
    """
    scores = {step: each.miou if each.score is None else each.score for step, each in manifests.items()}
    judged = [(score, step) for step, score in scores.items() if score is not None and math.isfinite(score)]
    return max(judged)[1] if judged else None


def kept_steps(manifests: Mapping[int, CheckpointManifest], keep: int) -> set[int]:
    """Which checkpoints stay, on disk and in a destination: the newest ``keep``, and the best."""
    best = best_step(manifests)
    return {*sorted(manifests)[-keep:], *(() if best is None else (best,))}
