"""The commands of the launcher that deal with a destination: stream, restore, ls, pull."""

from __future__ import annotations

import dataclasses
import json
import signal
from pathlib import Path
from typing import Literal

import click

from maskfleet.child_processes import set_up_logging
from maskfleet.command_line import UserPath, echo
from maskfleet.errors import NotFound
from maskfleet.records import Progress
from maskfleet.run_directory import RunDirectory

_RUN = click.argument("run", type=UserPath(file_okay=False))
_DESTINATION = click.argument("destination")
_WORKER = click.IntRange(min=0)
_OUTPUT = click.option("-o", "output", type=click.Choice(["text", "json"]), default="text", help="form of the answer")
keep_checkpoints_option = click.option(
    "--keep-checkpoints",
    type=click.IntRange(min=1),
    metavar="N",
    help="delete checkpoints in the destination beyond the N newest and the best  [default: keep all]",
)


@click.command()
@_RUN
@_DESTINATION
@click.option("--worker", type=_WORKER, metavar="I", help="only what worker I of a run on several writes")
@click.option("--once", is_flag=True, help="copy what is there now and end, naming what was refused")
@keep_checkpoints_option
@click.option(
    "--interval",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    metavar="S",
    help="seconds between two looks at the run, and at least between two appends to a file",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=25.0,
    show_default=True,
    metavar="S",
    help="seconds in which to copy what is left after SIGTERM or Ctrl-C",
)
def stream(
    run: Path,
    destination: str,
    worker: int | None,
    once: bool,
    keep_checkpoints: int | None,
    interval: float,
    grace: float,
) -> int:
    """Copy RUN to DESTINATION (gs://BUCKET/PREFIX, s3://BUCKET/PREFIX or a folder) while it grows.

    Ends on SIGTERM or Ctrl-C, once what is left is copied. RUN may be empty. Workers that have a disk each stream into
    the same DESTINATION, each with its --worker: worker 0 all, the others their logs.
    """
    from launcher.streaming.stores.opening import check_apart, open_store
    from launcher.streaming.upload.priority import lower_priority
    from launcher.streaming.upload.streamer import Streamer

    lower_priority()
    set_up_logging()
    store = open_store(destination)
    check_apart(run, store)
    if once and not run.exists():
        raise NotFound(f"{run}: there is no run to copy: expected a run's folder")
    streamer = Streamer(
        RunDirectory(run.absolute()),
        store,
        worker=worker,
        interval=interval,
        keep_checkpoints=keep_checkpoints,
        grace=grace,
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: streamer.stop())
    return streamer.run(once=once)


@click.command()
@_DESTINATION
@_RUN
@click.option("--step", type=click.IntRange(min=0), metavar="N", help="this checkpoint  [default: the newest complete]")
@click.option("--worker", type=_WORKER, metavar="I", help="only what worker I of a run on several needs")
@_OUTPUT
def restore(destination: str, run: Path, step: int | None, worker: int | None, output: Literal["text", "json"]) -> None:
    """Bring back from DESTINATION into RUN the newest complete checkpoint, the best, and the logs that go on.

    That there is no checkpoint yet is no error: the training then starts from the beginning.
    """
    from launcher.streaming.download.restore import restore as restore_run
    from launcher.streaming.stores.opening import open_store

    manifest = restore_run(open_store(destination), RunDirectory(run.absolute()), step, worker)
    if output == "json":
        echo(json.dumps({"step": manifest.step, "epoch": manifest.epoch} if manifest else {"step": None}))
    elif manifest:
        echo(f"{run} has the checkpoint of step {manifest.step}, epoch {manifest.epoch}")
    else:
        echo(f"no checkpoint was brought back from {destination}")


@click.command()
@_DESTINATION
@_OUTPUT
def ls(destination: str, output: Literal["text", "json"]) -> None:
    """List the runs in DESTINATION: checkpoints, size, last progress."""
    from launcher.streaming.download.stored_runs import list_runs
    from launcher.streaming.stores.opening import open_store

    runs = list_runs(open_store(destination))
    if output == "json":
        echo(json.dumps([dataclasses.asdict(run) for run in runs], indent=1))
        return
    for run in runs:
        steps = f"{len(run.steps)} checkpoints, newest of step {run.steps[-1]}" if run.steps else "no checkpoint"
        progress = "" if run.progress is None else _progress_line(run.progress)
        echo(
            f"{run.name or '.'}: {run.size / 1e6:.1f} MB in {run.files} files, {steps}"
            + (f"; {progress}" if progress else "")
        )


def _progress_line(progress: Progress) -> str:
    measured = (("loss", progress.loss), ("mIoU", progress.miou))
    known = [f"{name} {value:.4f}" for name, value in measured if value is not None]
    return ", ".join([f"epoch {progress.epoch}", f"step {progress.step}", *known])


@click.command()
@_DESTINATION
@click.argument("folder", type=UserPath(file_okay=False))
def pull(destination: str, folder: Path) -> None:
    """Copy everything in DESTINATION into FOLDER, checksums compared; what is there already is kept."""
    from launcher.streaming.download.pull import pull as pull_all
    from launcher.streaming.download.pull import verification
    from launcher.streaming.stores.opening import check_apart, open_store

    store = open_store(destination)
    check_apart(store, folder)
    fetched = list(pull_all(store, folder))
    size = sum(each.size for each in fetched)
    echo(
        f"{folder}: {len(fetched)} files, {size / 1e6:.1f} MB fetched from {destination}"
        + (f", {verification(fetched)}" if fetched else "")
    )
