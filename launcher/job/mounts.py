"""Whether the mounts of a pod get in each other's way, which the API server finds out late or never. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from launcher.job.places import Mount
from maskfleet.errors import BadSettings

USER_VOLUME = "mount-"
"""How the name of a volume of ``--mount`` begins; its number follows."""
_IMAGES_OWN = tuple(
    map(PurePosixPath, ("/bin", "/dev", "/etc", "/lib", "/lib64", "/opt", "/proc", "/sbin", "/sys", "/usr"))
)
_KERNELS = tuple(map(PurePosixPath, ("/dev", "/proc", "/sys")))


def check_mounts(containers: Sequence[Mapping[str, Any]], asked: Sequence[Mount], written: Sequence[str]) -> None:
    """Looks at all mounts of a worker's containers; ``asked`` are those of ``--mount`` as they are ``written``.

    Raises:
        BadSettings: one hides what the image or the worker needs, or has no place where it shall be.
    """
    for mount, text in zip(asked, written, strict=True):
        path = PurePosixPath(mount.path)
        if path in _IMAGES_OWN or any(own in path.parents for own in _KERNELS):
            raise BadSettings(f"--mount {text}: {path} is the system's: expected another path, such as /mnt/data")
    for container in containers:
        for one in container["volumeMounts"]:
            for other in container["volumeMounts"]:
                if one is not other and one["name"].startswith(USER_VOLUME):
                    _check_pair(one, other, written)


def _check_pair(mine: Mapping[str, Any], other: Mapping[str, Any], written: Sequence[str]) -> None:
    path, its = PurePosixPath(mine["mountPath"]), PurePosixPath(other["mountPath"])
    is_own = not other["name"].startswith(USER_VOLUME)
    whose = f"the worker's own {other['name']}" if is_own else f"--mount {_of(other, written)}"
    why = None
    if path == its:
        why = f"{path} is the place of {whose}"
    elif path in its.parents and (is_own or mine.get("readOnly")):
        why = f"{its} below it is the place of {whose}"
    elif its in path.parents and other.get("readOnly"):
        why = f"nothing can be mounted below {its}, the place of {whose}, which is read-only"
    if why:
        raise BadSettings(f"--mount {_of(mine, written)}: {why}: choose another path")


def _of(mount: Mapping[str, Any], written: Sequence[str]) -> str:
    return written[int(mount["name"].removeprefix(USER_VOLUME))]
