"""Websockets of the API server, by the kubernetes package's configuration and with the headers of any other request.

The package's own carry no header but the credentials', so that nobody could act as another user.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlencode

from maskfleet.text import one_line

if TYPE_CHECKING:
    from websocket import WebSocket

WITH_CLOSE, WITHOUT_CLOSE = "v5.channel.k8s.io", "v4.channel.k8s.io"
"""Kubernetes' protocols: the first byte of a message says to which of several streams the rest belongs."""


class Refused(Exception):
    """The server's answer was no websocket; ``answer`` has its ``status``, ``headers`` and ``data``."""

    def __init__(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        super().__init__(f"HTTP {status}")
        named = {name.title(): value for name, value in headers.items()}
        self.answer: Any = SimpleNamespace(status=status, headers=named, data=data)


def open_websocket(
    configuration: Any, url: str, query: Sequence[tuple[str, str]], headers: Sequence[tuple[str, str]]
) -> WebSocket:
    """A websocket at ``url``, which begins with http.

    Raises:
        Refused: the server answered, and opens none.
        ConnectionError: it did not answer.
    """
    from kubernetes.stream.ws_client import get_websocket_url, websocket_proxycare
    from websocket import WebSocket, WebSocketBadStatusException, WebSocketException

    sent = [*headers, ("Sec-WebSocket-Protocol", f"{WITH_CLOSE},{WITHOUT_CLOSE}")]
    options: dict[str, Any] = {"header": [f"{name}: {value}" for name, value in sent]}
    if configuration.proxy or configuration.proxy_headers:
        options = websocket_proxycare(options, configuration, url, None)
    websocket: Any = WebSocket(sslopt=_tls(configuration), skip_utf8_validation=False)
    try:
        websocket.connect(f"{get_websocket_url(url)}?{urlencode(query)}", **options)
    except WebSocketBadStatusException as error:
        raise Refused(error.status_code, error.resp_headers or {}, error.resp_body or b"") from error
    except (WebSocketException, OSError) as error:
        raise ConnectionError(one_line(str(error))) from error
    return cast("WebSocket", websocket)


def _tls(configuration: Any) -> dict[str, Any]:
    """websocket-client's options for what the configuration says of the server's certificate and ours."""
    options: dict[str, Any] = {"cert_reqs": ssl.CERT_REQUIRED if configuration.verify_ssl else ssl.CERT_NONE}
    if configuration.verify_ssl:
        options["ca_certs"] = configuration.ssl_ca_cert or _certifi()
        if configuration.assert_hostname is not None:
            options["check_hostname"] = configuration.assert_hostname
    named = {
        "certfile": configuration.cert_file,
        "keyfile": configuration.key_file,
        "server_hostname": configuration.tls_server_name,
    }
    return options | {option: value for option, value in named.items() if value}


def _certifi() -> str:
    import certifi

    return certifi.where()
