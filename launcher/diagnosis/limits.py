"""What a LimitRange allows a container or pod to ask for, as the API server will hold it against a worker. Pure."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from launcher.diagnosis.capacity import worker_limits, worker_requests
from launcher.job.quantities import is_more, parse_quantity
from maskfleet.text import format_bytes

Object = Mapping[str, Any]

_FLAGS = {
    ("trainer", "cpu"): "--cpu",
    ("trainer", "memory"): "--memory",
    ("trainer", "ephemeral-storage"): "--scratch",
    ("streamer", "cpu"): "--streamer-cpu",
    ("streamer", "memory"): "--streamer-memory",
}


def limit_range_troubles(limit_range: Object, job: Object) -> Iterator[str]:
    """Each way in which a worker of ``job`` is outside of ``limit_range``, with the flag that mends it."""
    pod = job["spec"]["template"]["spec"]
    containers = [*pod["initContainers"], *pod["containers"]]
    for item in limit_range["spec"].get("limits", []):
        if item["type"] == "Container":
            for container in containers:
                if container["name"] == "prepare":  # the same as the streamer's
                    continue
                yield from _outside(item, container["name"], *_amounts(container["resources"]))
        elif item["type"] == "Pod":
            yield from _outside(item, "worker", worker_requests(dict(job)), worker_limits(dict(job)))


def _amounts(resources: Object) -> tuple[Mapping[str, float], Mapping[str, float]]:
    requests, limits = (
        {name: parse_quantity(amount) for name, amount in resources.get(which, {}).items()}
        for which in ("requests", "limits")
    )
    return requests, limits


def _outside(item: Object, who: str, requests: Mapping[str, float], limits: Mapping[str, float]) -> Iterator[str]:
    defaults = item.get("default") or {}
    for name, most in (item.get("max") or {}).items():
        limit = limits.get(name, parse_quantity(defaults[name]) if name in defaults else None)
        if limit is None:
            yield f"the {who} has no limit of {name}, at most {most} is allowed{_mend(who, name)}"
        elif is_more(limit, parse_quantity(most)):
            yield f"the {who}'s limit of {_show(name, limit)} {name} is more than {most}{_mend(who, name)}"
    for name, least in (item.get("min") or {}).items():
        request = requests.get(name, limits.get(name))
        if request is not None and is_more(parse_quantity(least), request):
            yield f"the {who} asks for {_show(name, request)} {name}, less than {least}{_mend(who, name)}"
    for name, most in (item.get("maxLimitRequestRatio") or {}).items():
        request, limit = requests.get(name), limits.get(name)
        if request and limit and limit / request > parse_quantity(most) * (1 + 1e-9):
            yield f"the {who}'s limit of {name} is more than {most} times what it asks for{_mend(who, name)}"


def fitted(pod: Object, limit_ranges: Iterable[Object]) -> dict[str, Any]:
    """``pod``, which has one container and no needs of its own, with as much of each resource as is allowed."""
    made = copy.deepcopy(dict(pod))
    (container,) = made["spec"]["containers"]
    requests, limits = (dict(container["resources"].get(which, {})) for which in ("requests", "limits"))
    items = [item for each in limit_ranges for item in each["spec"].get("limits", [])]
    for item in (item for item in items if item["type"] in ("Container", "Pod")):
        for name, most in (item.get("max") or {}).items():
            limits[name] = min(limits.get(name, most), most, key=parse_quantity)
            if name in requests:
                requests[name] = min(requests[name], most, key=parse_quantity)
        for name, least in (item.get("min") or {}).items():
            requests[name] = max(requests.get(name, least), least, key=parse_quantity)
            if name in limits:
                limits[name] = max(limits[name], least, key=parse_quantity)
        for name in item.get("maxLimitRequestRatio") or {}:
            if name in limits:
                requests[name] = limits[name]
    container["resources"] = {"requests": requests, "limits": limits}
    return made


def _show(name: str, amount: float) -> str:
    return format_bytes(amount) if name in ("memory", "ephemeral-storage") else f"{amount:g}"


def _mend(who: str, name: str) -> str:
    return f": {flag}" if (flag := _FLAGS.get((who, name))) else ""
