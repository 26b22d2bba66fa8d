"""A command in the pod of a worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from launcher.cluster.namespace import Namespace
from launcher.cluster.pod_command import PodCommand
from launcher.diagnosis.pods import statuses
from launcher.job.labels import instance
from launcher.operations.submitted import get_job
from launcher.operations.surroundings import NamespaceView
from maskfleet.errors import BadInput, MaskfleetError

Container = Literal["trainer", "streamer"]


def run_in_worker(
    name: str, cluster: Namespace, command: Sequence[str], *, worker: int, container: Container, tty: bool
) -> PodCommand:
    """Starts ``command`` in the newest pod of a worker.

    Raises:
        NotFound: there is no such job.
        BadInput: it has no such worker.
        MaskfleetError: the container does not run; the message has the pod's state, and why.
        ApiError: the server refuses it.
    """
    job = get_job(cluster, name)
    pods = cluster.list("Pod", labels=instance(name))
    now = NamespaceView.of(cluster, [job]).status(job, pods)
    if worker >= len(now.workers):
        raise BadInput(f"--worker {worker}: expected one from 0 to {len(now.workers) - 1}, which job {name} has")
    row = now.workers[worker]
    pod = next((pod for pod in pods if pod["metadata"]["name"] == row.pod), None)
    states = {each["name"]: each.get("state", {}) for each in statuses(pod)} if pod else {}
    if pod is None or "running" not in states.get(container, {}):
        why = f" – {row.reason}" if row.reason else ""
        raise MaskfleetError(f"the {container} of worker {worker} of job {name} does not run: {row.phase}{why}")
    return cluster.run_in_pod(pod["metadata"]["name"], container, command, tty=tty)
