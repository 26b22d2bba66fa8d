"""A command that runs in a container of a pod, through a websocket of the API server.

The messages are those of Kubernetes' v4.channel.k8s.io and v5.channel.k8s.io: the first byte says which of the
command's streams the rest belongs to.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from launcher.cluster.websockets import WITH_CLOSE
from maskfleet.errors import MaskfleetError
from maskfleet.text import one_line

if TYPE_CHECKING:
    from websocket import WebSocket

STDIN, STDOUT, STDERR, _STATUS, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_MOST_MESSAGES = 32
_RUNTIME = "unable to start container process: "
"""What runc says last before the cause; who has passed it on stands before."""
_WAITS = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def exec_query(container: str, command: Sequence[str], *, tty: bool) -> list[tuple[str, str]]:
    """What a pod's exec subresource is asked for."""
    streams = [("container", container), ("stdin", "true"), ("stdout", "true"), ("tty" if tty else "stderr", "true")]
    return [*streams, *(("command", word) for word in command)]


class PodCommand:
    """The streams and the end of a running command. Nothing waits here: :meth:`fileno` is there to be waited for.

    ``takes_end_of_input`` is whether the server can tell the command that there is no more (Kubernetes 1.30 and later).
    """

    def __init__(self, websocket: WebSocket) -> None:
        websocket.settimeout(0)
        self._websocket: Any = websocket
        self._outgoing = bytearray()
        self._channel = _CLOSE
        self._status = bytearray()
        agreed = (websocket.getheaders() or {}).get("sec-websocket-protocol")
        self.takes_end_of_input = agreed == WITH_CLOSE
        self.is_open = True

    def fileno(self) -> int:
        """Of the socket: readable when :meth:`receive` has something, and writable when :meth:`flush` can go on."""
        return int(self._websocket.sock.fileno())

    @property
    def unsent(self) -> int:
        """Bytes that the socket has not taken yet."""
        return len(self._outgoing)

    def write(self, data: bytes) -> None:
        """Puts ``data`` on the command's standard input."""
        self._queue(bytes([STDIN]) + data)

    def end_input(self) -> None:
        """Ends the command's standard input, where the server can."""
        if self.takes_end_of_input:
            self._queue(bytes([_CLOSE, STDIN]))

    def resize(self, columns: int, lines: int) -> None:
        """Tells the command's terminal its size."""
        self._queue(bytes([_RESIZE]) + json.dumps({"Width": columns, "Height": lines}).encode())

    def flush(self) -> None:
        """Sends as much as the socket takes; what nobody there wants any more is dropped."""
        try:
            while self._outgoing:
                del self._outgoing[: self._websocket.sock.send(self._outgoing)]
        except _WAITS:
            pass
        except OSError:
            self._outgoing.clear()

    def receive(self) -> Iterator[tuple[int, bytes]]:
        """What has come of the command's output, as STDOUT or STDERR and bytes; not more than a turn's worth."""
        from websocket import ABNF, WebSocketException

        for _ in range(_MOST_MESSAGES):
            try:
                frame = self._websocket.recv_frame()
            except _WAITS:
                return
            except (WebSocketException, OSError):
                self.is_open = False
                return
            data = bytes(frame.data)
            match frame.opcode:
                case ABNF.OPCODE_CLOSE:
                    self.is_open = False
                    return
                case ABNF.OPCODE_PING:
                    self._outgoing += ABNF.create_frame(data, ABNF.OPCODE_PONG).format()
                    continue
                case ABNF.OPCODE_PONG:
                    continue
                case ABNF.OPCODE_BINARY | ABNF.OPCODE_TEXT if data:  # any other continues the message before
                    self._channel, data = data[0], data[1:]
            if self._channel == _STATUS:
                self._status += data
            elif self._channel in (STDOUT, STDERR) and data:
                yield self._channel, data

    @property
    def has_ended(self) -> bool:
        """Whether the server has told how the command ended, which it does after all output."""
        return self._read_status() is not None

    def exit_code(self) -> int:
        """That of the command.

        Raises:
            MaskfleetError: it could not be started, or the connection broke off before its end.
        """
        status = self._read_status()
        if status is None:
            raise MaskfleetError("the connection broke off; the command may still run")
        if status.get("status") == "Success":
            return 0
        causes = (status.get("details") or {}).get("causes") or []
        code = next((each.get("message", "") for each in causes if each.get("reason") == "ExitCode"), "")
        if code.isdigit():
            return int(code)
        said = str(status.get("message") or "the command failed, and nobody said why")
        raise MaskfleetError(one_line(said.rpartition(_RUNTIME)[2], 500))

    def close(self) -> None:
        self._websocket.shutdown()

    def _queue(self, message: bytes) -> None:
        from websocket import ABNF

        self._outgoing += ABNF.create_frame(message, ABNF.OPCODE_BINARY).format()

    def _read_status(self) -> Mapping[str, Any] | None:
        try:
            status = json.loads(self._status)
        except ValueError:  # not all of it has come
            return None
        return status if isinstance(status, dict) else None
