"""What the operations ask of a namespace of a cluster, whoever answers."""

from __future__ import annotations

from collections.abc import Iterator, MutableSequence, Sequence
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    import socket

    from launcher.cluster.kubernetes_api import Object
    from launcher.cluster.pod_command import PodCommand


class Namespace(Protocol):
    """See :class:`~launcher.cluster.kubernetes_api.Cluster`, which is one, for what each does and raises."""

    @property
    def namespace(self) -> str: ...

    @property
    def place(self) -> str: ...

    def patient(self, seconds: float) -> Self: ...

    def get(self, kind: str, name: str) -> Object: ...

    def list(
        self, kind: str, *, labels: str = "", fields: str = "", metadata_only: bool = False, everywhere: bool = False
    ) -> Sequence[Object]: ...

    def create(
        self, manifest: Object, *, dry_run: bool = False, warnings: MutableSequence[str] | None = None
    ) -> Object: ...

    def patch(self, kind: str, name: str, change: Object) -> Object: ...

    def delete(self, kind: str, name: str, *, propagation: str = "Background") -> None: ...

    def watch(self, kind: str, *, labels: str = "", fields: str = "") -> Iterator[tuple[str, Object]]: ...

    def log(self, pod: str, container: str, **query: str) -> Iterator[bytes]: ...

    def connect_to_pod(self, pod: str, port: int) -> socket.socket: ...

    def run_in_pod(self, pod: str, container: str, command: Sequence[str], *, tty: bool) -> PodCommand: ...
