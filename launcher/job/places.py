"""Where files that a pod needs come from or go to, as a flag's value says it: ``pvc:CLAIM/PATH`` and the like.

Pure; ``--data``, ``--output`` and ``--mount`` all read their values here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from maskfleet.data_places import BUCKET_NAME, is_bucket

Kind = Literal["pvc", "host", "secret", "configmap", "gs", "s3"]

BUCKETS = ("gs", "s3")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_FORMS = {
    "pvc": "pvc:CLAIM[/PATH]",
    "host": "host:/PATH",
    "secret": "secret:NAME",
    "configmap": "configmap:NAME",
    "gs": "gs://BUCKET[/PATH]",
    "s3": "s3://BUCKET[/PATH]",
}


@dataclass(frozen=True)
class Place:
    """A place outside the pod. ``path`` lies below the claim or bucket ``name``; a host's path is absolute."""

    kind: Kind
    name: str
    path: str

    @property
    def url(self) -> str:
        """The address of a bucket's folder."""
        return f"{self.kind}://{self.name}/{self.path}".rstrip("/")

    def volume(self, name: str, *, read_only: bool) -> dict[str, Any]:
        """The pod's volume called ``name`` for anything but a bucket."""
        match self.kind:
            case "pvc":
                return {"name": name, "persistentVolumeClaim": {"claimName": self.name, "readOnly": read_only}}
            case "host":
                # Of another type, a folder that is not there would be made, empty and root's.
                return {"name": name, "hostPath": {"path": self.path, "type": "Directory"}}
            case "secret":
                return {"name": name, "secret": {"secretName": self.name}}
            case "configmap":
                return {"name": name, "configMap": {"name": self.name}}
        raise ValueError(f"{self.url} is no volume")

    def mount(self, name: str, path: str, *, read_only: bool) -> dict[str, Any]:
        """The mount at ``path`` of the volume called ``name``."""
        mount: dict[str, Any] = {"name": name, "mountPath": path}
        if read_only:
            mount["readOnly"] = True
        if self.kind == "pvc" and self.path:
            mount["subPath"] = self.path
        return mount


@dataclass(frozen=True)
class Mount:
    """``PLACE=PATH[:rw]``: a volume at an absolute path of every container, read-only unless ``:rw``."""

    place: Place
    path: str
    read_only: bool


def parse_place(text: str, kinds: tuple[Kind, ...]) -> Place:
    """Reads a place of one of ``kinds``.

    Raises:
        ValueError: it is of no such form; the message says which are.
    """
    expected = " or ".join(_FORMS[kind] for kind in kinds)
    scheme, separator, rest = text.partition(":")
    kind = next((kind for kind in kinds if kind == scheme), None)
    if kind is None or not separator:
        raise ValueError(f"expected {expected}")
    if kind == "host":
        if not rest.startswith("/") or ".." in rest.split("/"):
            raise ValueError("expected an absolute path without '..' after host:")
        return Place(kind, "", rest.rstrip("/") or "/")
    if kind in BUCKETS:
        if not rest.startswith("//"):
            raise ValueError(f"expected {_FORMS[kind]}")
        rest = rest[2:]
    name, _, path = rest.partition("/")
    path = path.strip("/")
    if kind in BUCKETS and not is_bucket(name):
        raise ValueError(f"expected {_FORMS[kind]}, {BUCKET_NAME}")
    if kind not in BUCKETS and not _NAME.fullmatch(name):
        raise ValueError(f"expected {_FORMS[kind]}")
    if ".." in path.split("/") or (path and kind in ("secret", "configmap")):
        raise ValueError(f"expected {_FORMS[kind]}")
    return Place(kind, name, path)


def parse_mount(text: str) -> Mount:
    """Reads ``PLACE=PATH[:rw]``.

    Raises:
        ValueError: the place or the path is of another form.
    """
    place, _, path = text.partition("=")
    read_only = not path.endswith(":rw")
    path = path.removesuffix(":rw").removesuffix(":ro")
    absolute = path.startswith("/")
    path = "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
    if not absolute or path == "/" or ":" in path or ".." in path.split("/"):
        raise ValueError(
            "expected SOURCE=/PATH or SOURCE=/PATH:rw, with pvc:CLAIM/PATH, host:/PATH, secret:NAME or "
            "configmap:NAME for SOURCE"
        )
    return Mount(parse_place(place, ("pvc", "host", "secret", "configmap")), path, read_only)
