"""Why a pod is not running, or why it ended, in one line for somebody who does not want to dig with kubectl. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from launcher.diagnosis.pods import Object, event_time, memory_limit, requests, statuses, terminated
from maskfleet.errors import BAD_INPUT, PEER_LOST, STOPPED
from maskfleet.sentences import (
    ERROR,
    logged,
    told_out_of_memory,
    what_was_not_copied,
    without_error,
    worker_at_fault,
)
from maskfleet.text import one_line

SCHEDULER = "default-scheduler"
"""Kubernetes' own."""
_PULL_FAILURES = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
_CONFIG_FAILURES = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_DISRUPTIONS = {
    "EvictionByEvictionAPI": "evicted: its node is being drained",
    "PreemptionByScheduler": "preempted by a pod of higher priority",
    "DeletionByTaintManager": "node lost: it did not answer, or was tainted",
    "DeletionByPodGC": "node lost: it is gone from the cluster",
    "TerminationByKubelet": "evicted by its node",
}
TOLD_TO_STOP = "told to stop (its pod was deleted, or its node shut down)"
"""Of a pod that does not say by whom."""
WAITS = "waits "
"""How the reason of a pod begins that nothing but its turn hinders."""
WAITS_FOR_GANG = f"{WAITS}until its whole gang finds room"
"""Of a pod that has found room, while others of its gang have not."""
NO_NODE = "no node can take it"
_MOUNTING_TAKES_LONG = "Unable to attach or mount volumes: "
_OUT_OF_MEMORY = "OOMKilled"
SAID = "Said"
"""Reason of what stands among a pod's events and is the last line that its container has printed."""
_KILLED = 128 + 9
_KINDS = {"secret": "Secret", "configmap": "ConfigMap", "persistentvolumeclaim": "PersistentVolumeClaim"}


@dataclass(frozen=True)
class Ending:
    """How a container ended for other reasons than success; ``lines`` are its last words.

    ``time`` is RFC 3339, by the clock of its node or that of the API server.
    """

    code: int
    reason: str
    lines: tuple[str, ...]
    time: str
    node_clock: bool = True


def unschedulable(message: str, pod: Object) -> str:
    """The scheduler's message in words, with what the pod asks for."""
    if message.startswith("pod group is unschedulable"):  # said of those of a gang that have found room
        return WAITS_FOR_GANG
    match = re.match(r"0/(\d+) nodes are available: (.*?)(?:\.\s|\.$|$)", message)
    if not match:
        return f"not scheduled: {one_line(message)}"
    causes = one_line(match[2])
    if claim := re.search(r'persistentvolumeclaim "([^"]+)" not found', message):
        return f"PersistentVolumeClaim {claim[1]} is missing"
    causes = re.sub(r"node\(s\) ", "", causes)
    causes = re.sub(r"(\d+) Insufficient ([^\s,]+)", r"\1 with too little free \2", causes)
    nodes = "1 node" if match[1] == "1" else f"{match[1]} nodes"
    causes = re.sub(rf"^{match[1]} ", f"{nodes} ", causes)
    causes = causes.replace("1 node were ", "1 node was ")
    causes = re.sub(r"^(\d+) (?!nodes? )", rf"\1 of {nodes} ", causes)
    return f"{NO_NODE} ({causes}); a worker asks for {requests(pod)}"


# What differs from one try to the next and from worker to worker, and tells nothing: ids, names of pods, pauses, times.
_PASSING = re.compile(
    r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b"
    r"|\b[0-9a-f]{12,64}\b"
    r"|\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[.\d]*(Z|[+-]\d\d:?\d\d)?"
    r"|\b(\d+(\.\d+)?(d|h|m|s|ms|µs|us|ns))+\b"
    r"|(?<=:)\d+(?=->)"
    r"|(?<=-)\d+-[a-z0-9]{5}\b"
)


def steady(reason: str) -> str:
    """``reason`` without what changes though nothing has: two that are equal by this are the same."""
    return _PASSING.sub("*", reason)


def refused_creation(message: str) -> str:
    """Why the API server refused to make a pod, from the Job's FailedCreate event."""
    if match := re.search(r"exceeded quota: ([^,]+), (requested: .*)", message):
        return f"quota {match[1]} refuses its pods: {one_line(match[2])}"
    if match := re.search(r'violates PodSecurity "([^"]+)": (.*)', message):
        return f"Pod Security {match[1]} refuses its pods: {one_line(match[2])}"
    if match := re.search(r'serviceaccount "([^"]+)" not found', message):
        return f"ServiceAccount {match[1]} is missing"
    if match := re.search(r"no PriorityClass with name (\S+) was found", message):
        return f"PriorityClass {match[1]} is missing"
    return f"its pods can't be created: {one_line(message.removeprefix('Error creating: '))}"


def waiting(pod: Object, events: Sequence[Object]) -> tuple[str, str]:
    """Phase (Pending, Pulling, Starting) and reason of a pod none of whose trainer has started."""
    for condition in pod.get("status", {}).get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return "Pending", unschedulable(condition.get("message", ""), pod)
    if not pod["spec"].get("nodeName"):
        return "Pending", f"{WAITS}for the scheduler{_other_scheduler(pod)}"
    for status in statuses(pod):
        state = status.get("state", {}).get("waiting") or {}
        reason, message = state.get("reason", ""), state.get("message", "")
        if reason in _PULL_FAILURES:
            detail = one_line(message.split("ErrImagePull: ")[-1], 200) or reason
            return "Pulling", f"image {status['image']} can't be pulled: {detail}"
        if reason in _CONFIG_FAILURES:
            return "Starting", missing_object(message) or f"container {status['name']}: {reason}: {one_line(message)}"
    newest = max(_telling(events), key=event_time, default=None)
    if is_preparing(pod):
        said = next((event["message"] for event in events if event["reason"] == SAID), "")
        return "Starting", _prepares(pod) + (f": {one_line(said)}" if said else "")
    if newest and newest["reason"] in ("FailedMount", "FailedAttachVolume"):
        return "Starting", missing_object(newest["message"]) or _not_mounted(newest["message"], pod)
    if newest and newest["reason"] == "Pulling":
        return "Pulling", one_line(newest["message"])
    if newest and newest["reason"] == "FailedCreatePodSandBox":
        return "Starting", one_line(newest["message"])
    return "Starting", "containers are being created"


def _telling(events: Sequence[Object]) -> Sequence[Object]:
    """Without the kubelet's that mounting takes long, said every two minutes, where there are others that say why."""
    return [event for event in events if not event["message"].startswith(_MOUNTING_TAKES_LONG)] or events


def _not_mounted(message: str, pod: Object) -> str:
    """Why a volume can't be mounted, and where it should have been."""
    match = re.match(r'\w+\.\w+ failed for volume "([^"]+)" : (.*)', message, re.DOTALL)
    if not match:
        return f"volumes can't be mounted: {one_line(message.removeprefix(_MOUNTING_TAKES_LONG))}"
    containers = (*pod["spec"].get("containers", []), *pod["spec"].get("initContainers", []))
    mounts = (mount for container in containers for mount in container.get("volumeMounts", []))
    place = next((mount["mountPath"] for mount in mounts if mount["name"] == match[1]), match[1])
    return f"volume {place} can't be mounted: {one_line(match[2])}"


def _other_scheduler(pod: Object) -> str:
    """The name of one that is not Kubernetes' own: if it does not run, the pod waits for ever and nothing tells."""
    name = str(pod["spec"].get("schedulerName") or SCHEDULER)
    return "" if name == SCHEDULER else f" {name}, which has not looked at it: does it run?"


def is_preparing(pod: Object) -> bool:
    """Whether its data and checkpoint are being fetched."""
    return any(each["name"] == "prepare" and each.get("state", {}).get("running") for each in statuses(pod))


def _prepares(pod: Object) -> str:
    """What the container that prepares a pod fetches, by its arguments."""
    containers = pod["spec"].get("initContainers", [])
    args: Sequence[str] = next((each.get("args", []) for each in containers if each["name"] == "prepare"), [])
    given = dict(pairwise(args))
    parts = [given["--data"]] if "--data" in given else []
    parts += [f"the newest checkpoint in {given['--restore']}"] if "--restore" in given else []
    return f"fetches {' and '.join(parts) or 'its data and its last checkpoint'}"


def missing_object(message: str) -> str | None:
    """``secret "x" not found`` -> ``Secret x is missing``; None if the message tells of something else."""
    if match := re.search(r'\b(secret|configmap|persistentvolumeclaim)s? "([^"]+)" not found', message):
        return f"{_KINDS[match[1]]} {match[2].rsplit('/', 1)[-1]} is missing"
    if match := re.search(r"couldn't find key (\S+) in Secret (\S+)", message):
        return f"Secret {match[2].rsplit('/', 1)[-1]} has no key {match[1]}"
    return None


def ending(pod: Object) -> Ending | None:
    """How a pod ended, if not well; None while it runs or when it succeeded."""
    status = pod.get("status", {})
    ended = next((s for s in map(terminated, statuses(pod)) if s and s[1].get("exitCode")), None)
    at = ended[1].get("finishedAt") or "" if ended else ""
    disruption = next((c for c in status.get("conditions", []) if c["type"] == "DisruptionTarget"), None)
    if disruption and disruption["status"] == "True":
        words = _DISRUPTIONS.get(disruption.get("reason", ""), "disrupted")
        by_kubelet = disruption.get("reason") == "TerminationByKubelet"
        if by_kubelet:
            words = f"{words}: {one_line(status.get('message') or disruption.get('message', ''))}"
        since = disruption.get("lastTransitionTime", "")
        return Ending(STOPPED, words, (), since or at, node_clock=by_kubelet or not since)
    if status.get("reason") == "Evicted":
        return Ending(STOPPED, f"evicted by its node: {one_line(status.get('message', ''))}", (), at)
    if status.get("phase") != "Failed" and not (ended and ended[0] == "trainer"):
        return None
    if ended is None:
        reason = one_line(": ".join(filter(None, (status.get("reason"), status.get("message"))))) or "failed"
        return Ending(1, reason, (), at)
    name, state = ended
    code = int(state["exitCode"])
    lines = tuple((state.get("message") or "").strip().splitlines()[-20:])
    if (
        pod["metadata"].get("deletionTimestamp")
        and code in (STOPPED, _KILLED)
        and state.get("reason") != _OUT_OF_MEMORY
    ):
        killed = ", and it was killed at the end of its grace" if code == _KILLED else ""
        return Ending(STOPPED, f"its pod was deleted{killed}", lines, at)
    if state.get("reason") == _OUT_OF_MEMORY:
        words = f"out of memory: {name} was killed at its limit of {memory_limit(pod, name)}{_peak(lines)}"
        return Ending(code, f"{words}; ask for more with --memory", (), at)
    return Ending(code, _words(name, code, state.get("reason", ""), lines), lines, at)


def streamer_trouble(pod: Object) -> str:
    """What the streamer does not bring to the destination, and why; empty if nothing hinders it.

    While the trainer runs, a streamer that does not last is started again and again. Once it has ended, the streamer
    does too, and its exit code says whether it was able to send the rest; the pod succeeds all the same.
    """
    for status in pod.get("status", {}).get("initContainerStatuses", []):
        if status["name"] == "streamer" and _streams(pod) and not status.get("state", {}).get("running"):
            states = (status.get("state", {}), status.get("lastState", {}))
            ended: Object = next((state["terminated"] for state in states if "terminated" in state), {})
            if ended.get("exitCode"):
                over = pod["status"].get("phase") == "Succeeded"
                what = "not all of the run was streamed" if over else "nothing is streamed"
                return f"{what}: {_why_not_streamed(ended)}"
    return ""


def _streams(pod: Object) -> bool:
    """Whether the run has a destination: the sidecar's second argument."""
    containers = pod["spec"].get("initContainers", [])
    args: Sequence[str] = next((each.get("args", []) for each in containers if each["name"] == "streamer"), [])
    if "sidecar" not in args:  # not ours to read
        return True
    return not [*args, "--"][args.index("sidecar") + 2].startswith("--")


def what_it_still_does(pod: Object) -> str:
    """In words, what a pod does whose trainer has ended and its streamer not yet; empty if that has too."""
    states = {status["name"]: status.get("state", {}) for status in statuses(pod)}
    over = "terminated" in states.get("trainer", {}) and "running" in states.get("streamer", {})
    # Of a pod whose node is gone, the last known states stay for ever.
    if not over or pod["status"].get("phase") != "Running":
        return ""
    return "the streamer sends the rest" if _streams(pod) else "its pod still ends"


def _why_not_streamed(ended: Object) -> str:
    """The first thing that a streamer says it has not copied, or else its last words."""
    lines = (ended.get("message") or "").strip().splitlines()
    if left := what_was_not_copied(lines):
        return one_line(left[0]) + (f" and {len(left) - 1} more" if len(left) > 1 else "")
    if ended.get("reason") == _OUT_OF_MEMORY:
        return "out of memory: the streamer was killed at its limit"
    words = without_error(one_line(logged(lines[-1]))) if lines else ""
    if ended["exitCode"] == _KILLED:
        return "the streamer was killed at the end of its grace" + (f"; its last words: {words}" if words else "")
    return words or f"exit code {ended['exitCode']}"


def _words(container: str, code: int, reason: str, lines: Sequence[str]) -> str:
    last = one_line(lines[-1]) if lines else ""
    if code in (BAD_INPUT, PEER_LOST) and last:
        return without_error(last)
    if code == STOPPED:
        return TOLD_TO_STOP
    if 128 < code < 160:  # whatever it said before, of an earlier attempt perhaps
        return f"{container} was killed by signal {code - 128}"
    if last.startswith(ERROR) and worker_at_fault(last) is not None:
        return without_error(last)
    if told := next(filter(None, map(told_out_of_memory, reversed(lines))), None):
        return one_line(told[0])
    if cause := traceback_cause(lines):
        return cause
    if reason == "StartError":
        return f"{container} could not be started: {last}"
    return f"{container} ended with exit code {code}" + (f": {last}" if last else "")


def traceback_cause(lines: Sequence[str]) -> str | None:
    """``ValueError: … (loop.py, line 12)`` of the last traceback in ``lines``; None without one."""
    place = None
    for line in lines:
        if match := re.match(r'\s*File "([^"]+)", line (\d+)', line):
            place = f"{match[1].rsplit('/', 1)[-1]}, line {match[2]}"
        elif place and re.match(
            r"[A-Za-z_][\w.]*(Error|Exception|Interrupt|Exit|Failed|Lost|Warning|[A-Z]\w+)?(:|$)", line
        ):
            return f"{one_line(line)} ({place})"
    return None


def _peak(lines: Sequence[str]) -> str:
    """How far the memory's use went, where the supervisor lived to say so."""
    told = next(filter(None, map(told_out_of_memory, reversed(lines))), None)
    return f", of which it used {told[1]} MiB at its peak" if told else ""
