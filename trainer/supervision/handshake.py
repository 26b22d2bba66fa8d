"""Both ends of a connection between supervisors prove that they know the run's token, without sending it.

A challenge and a response by HMAC-SHA256 (RFC 2104) over the worker's index and both sides' nonces. The side's name is
under the hash too, so that a proof can't be sent back to where it came from.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from maskfleet.environment import TOKEN_FILE_VARIABLE
from maskfleet.errors import BadSettings
from maskfleet.files import read_plain
from trainer.supervision.rendezvous import parse, serialize

_LONGEST_TOKEN = 1 << 16
"""Bytes of a file with a token."""
HANDSHAKE_SECONDS = 10.0
"""For the other side to prove itself."""


class Stranger(Exception):
    """The other side does not know the run's token, or is no supervisor at all."""


def read_token(environment: Mapping[str, str] = os.environ) -> bytes:
    """The run's token, from the file that :data:`~maskfleet.environment.TOKEN_FILE_VARIABLE` names.

    Raises:
        BadSettings: no file is named, or it can't be read, or is empty.
    """
    file = environment.get(TOKEN_FILE_VARIABLE)
    mend = "several workers need a file with a random line, the same for all ('openssl rand -hex 32')"
    if not file:
        raise BadSettings(f"{TOKEN_FILE_VARIABLE}: is not set; {mend}")
    try:
        token = read_plain(Path(file), _LONGEST_TOKEN).strip()
    except OSError as error:
        raise BadSettings(f"{TOKEN_FILE_VARIABLE}={file}: {error.strerror}; {mend}") from error
    if not token:
        raise BadSettings(f"{TOKEN_FILE_VARIABLE}={file}: is empty; {mend}")
    return token


async def admit(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    token: bytes,
    workers: int,
    check: Callable[[int], Awaitable[None]],
) -> int:
    """The chief's side; the index of the worker that has proven itself.

    Args:
        check: raises Stranger if the worker that knows the token may not come from where it does.

    Raises:
        Stranger: it has not, within :data:`HANDSHAKE_SECONDS`.
    """
    try:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            challenge = secrets.token_hex(16)
            writer.write(serialize({"challenge": challenge}))
            answer = parse(await reader.readline()) or {}
            worker, nonce, given = answer.get("worker"), answer.get("nonce"), answer.get("proof")
            if type(worker) is not int or not 0 <= worker < workers:
                raise Stranger(f"expected a worker of 0 to {workers - 1}")
            if not isinstance(nonce, str) or not isinstance(given, str):
                raise Stranger("expected a nonce and a proof")
            if not _agree(given, _proof(token, "worker", worker, challenge, nonce)):
                raise Stranger(f"worker {worker} does not know the run's token")
            await check(worker)
            writer.write(serialize({"proof": _proof(token, "chief", worker, challenge, nonce)}))
            return worker
    except (TimeoutError, OSError, ValueError) as error:
        raise Stranger("it did not answer as a worker of this run does") from error


async def introduce(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: bytes, worker: int) -> None:
    """The worker's side: returns when both have proven themselves.

    Raises:
        Stranger: the chief has not, within :data:`HANDSHAKE_SECONDS`.
    """
    try:
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            challenge = (parse(await reader.readline()) or {}).get("challenge")
            if not isinstance(challenge, str):
                raise Stranger("it does not begin as the chief of a run does")
            nonce = secrets.token_hex(16)
            proof = _proof(token, "worker", worker, challenge, nonce)
            writer.write(serialize({"worker": worker, "nonce": nonce, "proof": proof}))
            given = (parse(await reader.readline()) or {}).get("proof")
            if not isinstance(given, str) or not _agree(given, _proof(token, "chief", worker, challenge, nonce)):
                raise Stranger("it does not know this run's token, or takes this worker for a stranger")
    except (TimeoutError, OSError, ValueError) as error:
        raise Stranger("it did not answer as the chief of a run does") from error


def _proof(token: bytes, side: str, worker: int, challenge: str, nonce: str) -> str:
    return hmac.digest(token, f"{side} {worker} {challenge} {nonce}".encode(), "sha256").hex()


def _agree(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(), expected.encode())
