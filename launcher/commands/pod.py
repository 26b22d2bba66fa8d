"""``launcher prepare`` and ``sidecar``: what the launcher's own containers in a worker's pod run."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from launcher.commands.destinations import keep_checkpoints_option
from maskfleet.command_line import echo
from maskfleet.errors import BadData, NotFound, Stopped
from maskfleet.goodput import PREPARING
from maskfleet.phase_log import PhaseLog
from maskfleet.run_directory import RunDirectory
from maskfleet.text import format_bytes

if TYPE_CHECKING:
    from launcher.streaming.stores.store import StoredObject

T = TypeVar("T")

_REPORT_SECONDS = 10.0
"""Between two lines about a long fetch, which status shows."""


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", help="address of the data set's folder")
@click.option("--data-path", type=click.Path(path_type=Path), default=Path("/data"), help="where it goes")
@click.option("--code", help="address of the user's own code, an archive")
@click.option("--restore", help="address of the run's streamed copy")
@click.option("--start-from", help="address of what the run starts from if it has no checkpoint yet")
def prepare(
    run: Path, data: str | None, data_path: Path, code: str | None, restore: str | None, start_from: str | None
) -> None:
    """Bring data and the newest checkpoint into the pod; an outage of the store is waited out."""
    from launcher.pod.sidecar import is_chief, restore_run
    from launcher.streaming.download.code import fetch_code
    from launcher.streaming.download.start import fetch_start

    def stop(*_: object) -> None:
        raise Stopped("told to stop before all was brought into the pod")

    signal.signal(signal.SIGTERM, stop)  # as process 1 of its container it would not hear of it otherwise
    began = time.monotonic()
    if data:
        echo(_fetch_data(data, data_path))
    if code:
        _waited_for(lambda: fetch_code(code, RunDirectory(run)))
        echo(f"fetched {code}")
    if restore:
        echo(_waited_for(lambda: restore_run(RunDirectory(run), restore)))
    if is_chief():  # which has the lines of the pod before only now
        PhaseLog(RunDirectory(run)).take_over(cause=PREPARING, at=began)
    if start_from and is_chief() and not RunDirectory(run).checkpoint_steps():
        echo(_waited_for(lambda: fetch_start(start_from, RunDirectory(run).start)))


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("destination", required=False)
@click.option("--grace", type=click.FloatRange(min=0), default=25.0, help="seconds to send what is left after SIGTERM")
@keep_checkpoints_option
def sidecar(run: Path, destination: str | None, grace: float, keep_checkpoints: int | None) -> int:
    """Report to the Job and stream RUN to DESTINATION until SIGTERM."""
    from launcher.pod.sidecar import accompany
    from launcher.streaming.upload.priority import lower_priority

    lower_priority()
    return accompany(RunDirectory(run), destination, grace=grace, keep_checkpoints=keep_checkpoints)


def _waited_for(action: Callable[[], T]) -> T:
    """What ``action`` gives; a pod that failed for each outage would use up the restarts that its job has."""
    from launcher.streaming.stores.patience import retry_until_reachable
    from launcher.streaming.stores.store import StoreUnavailable

    def wait(seconds: float) -> bool:
        time.sleep(seconds)
        return False

    def failed(error: StoreUnavailable) -> None:
        echo(f"{error}; trying again", err=True)

    return retry_until_reachable(action, wait, failed)


def _fetch_data(url: str, folder: Path) -> str:
    """Downloads every object below ``url`` into ``folder``; returns what was done, in a sentence.

    Raises:
        BadData: there is nothing at ``url``, or a file is not what the store says it is.
        StoreRefused: the store does not let us.
    """
    from launcher.streaming.download.pull import Fetched, pull, verification
    from launcher.streaming.stores.opening import open_store

    fetched: dict[str, Fetched] = {}
    whole: list[int] = []

    def report(objects: Sequence[StoredObject] = ()) -> None:
        whole[:] = [each.size for each in objects] or whole
        got = format_bytes(sum(each.size for each in fetched.values()))
        echo(f"fetched {len(fetched)} of {len(whole)} files, {got} of {format_bytes(sum(whole))}")

    def fetch() -> None:
        reported = time.monotonic()
        for each in pull(open_store(url), folder, report):  # keeps what an interrupted attempt brought
            fetched[each.name] = each
            if time.monotonic() - reported > _REPORT_SECONDS:
                reported = time.monotonic()
                report()

    try:
        _waited_for(fetch)
    except NotFound as error:
        raise BadData(f"--data {url}: there is nothing: expected the data set's files") from error
    size = format_bytes(sum(each.size for each in fetched.values()))
    return f"fetched {url}: {len(fetched)} files, {size}, {verification(fetched.values())}"
