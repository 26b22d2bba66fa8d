"""Whether the cluster keeps others from the ports of a job's workers, as the job's NetworkPolicy asks it to.

A cluster takes a NetworkPolicy also where its network does not enforce it, and no part of the API tells. So two small
pods find out, and a ConfigMap of the namespace keeps what they found, for submit to warn.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from launcher.cluster.kubernetes_api import ApiError, Object
from launcher.cluster.namespace import Namespace
from launcher.diagnosis import reasons
from launcher.diagnosis.limits import fitted
from launcher.job import network_probe
from launcher.job.labels import APPLICATION, COMPONENT_LABEL, MANAGED_BY_LABEL, MANAGER, NAME_LABEL
from launcher.job.network_probe import policy, probed_pod, probing_pod
from launcher.job.training_job import TrainingJob
from launcher.operations.surroundings import limit_ranges
from maskfleet.backoff import pauses
from maskfleet.errors import MaskfleetError

NOTE = "maskfleet.network"
"""Name of the ConfigMap; the dot keeps it apart from any job's."""
NOT_ENFORCED = "is not enforced, or another one lets others in: whoever reaches a worker may run code in it"
POD_SECONDS = 180.0
"""For one of the pods to come as far as it shall; its image may have to be pulled."""

T = TypeVar("T")


@dataclass(frozen=True)
class Enforcement:
    """``enforced`` is None where it is not known, and ``why`` says more."""

    enforced: bool | None
    why: str


def known(cluster: Namespace) -> Enforcement:
    """What was found in this namespace before."""
    try:
        data = cluster.get("ConfigMap", NOTE).get("data") or {}
    except MaskfleetError:  # it is not there, or may not be read: no reason to fail
        data = {}
    if data.get("enforced") not in ("true", "false"):
        return Enforcement(None, "not tried; --try-network does, with two small pods that live for a minute")
    return Enforcement(data["enforced"] == "true", f"as two pods found at {data.get('found', 'some time')!s:.40}")


def try_policy(job: TrainingJob, cluster: Namespace) -> Enforcement:
    """Has a pod that is none of the job's knock at one that a NetworkPolicy guards; both are gone afterwards."""
    name = f"maskfleet-probe-{secrets.token_hex(3)}"
    with contextlib.suppress(MaskfleetError):
        _remove_abandoned(cluster)
    try:
        code = _knock(job, cluster, name)
    except MaskfleetError as error:
        return Enforcement(None, f"could not be tried: {error}")
    finally:
        for pod in (f"{name}-stranger", name):
            with contextlib.suppress(MaskfleetError):  # the cluster ends them by itself, and the answer counts more
                cluster.delete("Pod", pod)
    if code not in (network_probe.ENFORCED, network_probe.NOT_ENFORCED):
        return Enforcement(None, "could not be tried: the pods of this namespace do not reach each other at all")
    found = Enforcement(code == network_probe.ENFORCED, "as two pods found now")
    with contextlib.suppress(MaskfleetError):  # it was to be found out, not to be kept
        _keep(found, cluster)
    return found


def _remove_abandoned(cluster: Namespace) -> None:
    """Deletes the pods, and with them what they own, whose maker was killed: the cluster has ended them since."""
    for pod in cluster.list("Pod", labels=f"{NAME_LABEL}={APPLICATION},{COMPONENT_LABEL}={network_probe.COMPONENT}"):
        if pod.get("status", {}).get("reason") == "DeadlineExceeded":
            cluster.delete("Pod", pod["metadata"]["name"])


def _knock(job: TrainingJob, cluster: Namespace, name: str) -> int:
    """The exit code of the pod that knocks.

    Raises:
        MaskfleetError: the server refuses an object, or a pod does not come up.
    """
    ranges = limit_ranges(cluster)
    probed = cluster.create(fitted(probed_pod(job, name), ranges))
    cluster.create(policy(probed))
    address = _wait_for(cluster, name, _address)
    stranger = cluster.create(fitted(probing_pod(job, probed, address), ranges))
    return _wait_for(cluster, stranger["metadata"]["name"], _exit_code)


def _wait_for(cluster: Namespace, name: str, answer: Callable[[Object], T | None]) -> T:
    waits = pauses(0.2, 1.0, timeout=POD_SECONDS)
    while True:
        pod = cluster.get("Pod", name)
        if (found := answer(pod)) is not None:
            return found
        if ended := reasons.ending(pod):
            raise MaskfleetError(f"pod {name} ended: {ended.reason}")
        pause = next(waits, None)
        if pause is None:
            phase, why = reasons.waiting(pod, [])
            raise MaskfleetError(f"pod {name} did not come up within {POD_SECONDS:.0f} s: {phase}: {why}")
        time.sleep(pause)


def _address(pod: Object) -> str | None:
    status = pod.get("status", {})
    return status.get("podIP") if status.get("phase") == "Running" else None


def _exit_code(pod: Object) -> int | None:
    for container in pod.get("status", {}).get("containerStatuses", []):
        if ended := container.get("state", {}).get("terminated"):
            return int(ended["exitCode"])
    return None


def _keep(found: Enforcement, cluster: Namespace) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    data = {"enforced": str(found.enforced).lower(), "found": now}
    labels = {NAME_LABEL: APPLICATION, MANAGED_BY_LABEL: MANAGER}
    try:
        cluster.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NOTE, "labels": labels}, "data": data}
        )
    except ApiError as error:
        if error.status != 409:
            raise
        cluster.patch("ConfigMap", NOTE, {"data": data})
