"""The objects of a job as text, for who sends them by other means. Pure."""

from __future__ import annotations

import json
from typing import Any

import yaml

from launcher.job.code import Code
from launcher.job.manifests import manifests
from launcher.job.training_job import TrainingJob


def render(job: TrainingJob) -> str:
    """What ``submit`` sends, as YAML; its last request, the release of the Job, is a comment."""
    text = yaml.dump_all(manifests(job, Code.of(job)), sort_keys=False, width=120, Dumper=_Dumper) + (
        f"# The pods wait for the token by which the workers know each other, which submit makes at random:\n"
        f'# kubectl patch secret {job.name} --patch \'{{"stringData": {{"token": "\'$(openssl rand -hex 32)\'"}}}}\'\n'
    )
    if job.queue:
        return text + "# Kueue releases the Job once it is admitted.\n"
    return text + (
        f"# When all of these exist, the Job is released:\n"
        f'# kubectl patch job {job.name} --type merge --patch \'{{"spec": {{"suspend": false}}}}\'\n'
    )


def render_json(job: TrainingJob) -> str:
    """The same objects as one List in JSON, as ``kubectl create -f -`` takes it."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests(job, Code.of(job))}, indent=1)


class _Dumper(yaml.SafeDumper):
    """Writes shared parts out in full, and texts of several lines as such."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)
