"""A user's own code on its way into pods: packed here, and small enough for the job's ConfigMap or in its bucket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from launcher.job.places import BUCKETS
from launcher.job.training_job import TrainingJob
from maskfleet.errors import BadSettings
from maskfleet.own_code import check_functions, fingerprint, pack, read_sources
from maskfleet.text import format_bytes

FILE = "code.zip"
"""Its key in the ConfigMap, beside config.json."""
MOST_IN_CONFIGMAP = 768 << 10
"""Bytes; all of a ConfigMap may have 1 MiB, and the settings are in it too."""


@dataclass(frozen=True)
class Code:
    """Python files as one archive, which Python imports from.

    Attributes:
        fingerprint: of the files; other code has another one.
        archive: None of code that is in the job's bucket already.
    """

    fingerprint: str
    archive: bytes | None

    @classmethod
    def of(cls, job: TrainingJob) -> Self | None:
        """What ``--code`` of the job names, here on this machine; None of a job without.

        Raises:
            BadSettings: it is no code, lacks a function that a setting names, or is too large without a bucket.
        """
        if job.code is None:
            return None
        sources = read_sources(job.code)
        check_functions(job.training.own_functions, sources, job.code)
        code = cls(fingerprint(sources), pack(sources))
        if not code.is_small and (job.output_place is None or job.output_place.kind not in BUCKETS):
            raise BadSettings(
                f"--code {job.code}: expected at most {format_bytes(MOST_IN_CONFIGMAP)} of packed Python files, which "
                f"a ConfigMap takes beside the settings, found {format_bytes(len(code.archive or b''))}; leave out "
                "what is not yours, or name an --output in a bucket, which takes it"
            )
        return code

    @property
    def is_small(self) -> bool:
        """Whether it goes into the ConfigMap."""
        return self.archive is not None and len(self.archive) <= MOST_IN_CONFIGMAP

    def address(self, job: TrainingJob) -> str:
        """Where in the job's bucket it is, if it is not small."""
        return f"{job.destination}/{self.object_name}"

    @property
    def object_name(self) -> str:
        """In the job's destination: other code is another object."""
        return f"code/{self.fingerprint}.zip"
