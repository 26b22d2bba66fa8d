"""Submits a job to the cluster of the current kubeconfig, shows each of its phases and waits for its end.

python submit.py job.yaml [NAME]
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from launcher import JobStatus, TrainingJob, submit, wait


def show(status: JobStatus) -> None:
    """Prints a new phase of the job, and why it is in it."""
    print(f"{status.name}: {status.phase}  {status.reason}".rstrip(), flush=True)


def main(file: Path, name: str | None = None) -> int:
    """The exit code of the training: 0 if it went well."""
    settings = yaml.safe_load(file.read_text())
    if name:
        settings["name"] = name
    job = TrainingJob(**settings)  # or TrainingJob(name="shapes", workers=2, training={"epochs": 30}, …)
    for note in submit(job).notes:
        print(f"note: {note}")
    end = wait(job.name, on_change=show)
    for line in end.evidence:  # of a failure: the last lines of the worker that failed first
        print(line)
    return end.exit_code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
