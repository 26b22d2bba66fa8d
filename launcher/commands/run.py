"""``launcher run``."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from launcher.commands.destinations import keep_checkpoints_option
from launcher.commands.options import WithSettings
from launcher.local.local_run import LocalRun, check_empty, discard_refused, new_run, resumed_run
from launcher.local.streamer_process import StreamerProcess
from maskfleet.command_line import UserPath, echo
from maskfleet.config import TrainConfig, is_address
from maskfleet.errors import BAD_INPUT, MaskfleetError
from maskfleet.records import write_settings
from maskfleet.run_directory import RunDirectory
from maskfleet.run_lock import launcher_lock, not_in_use


class NumberOfWorkers(click.IntRange):
    """Of this machine, which has room for all of them or for none."""

    def __init__(self) -> None:
        super().__init__(min=1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if ".." in str(value):
            self.fail(f"expected a number here, found the range {value}: 'launcher submit' takes one", param, ctx)
        return int(super().convert(value, param, ctx))


@click.command(cls=WithSettings)
@click.option("--run-dir", type=UserPath(), help="where the run's files go  [default: runs/DATE-TIME]")
@click.option("--resume", type=UserPath(), help="go on with the run in this directory")
@click.option("--workers", type=NumberOfWorkers(), default=1, show_default=True, help="processes on this machine")
@click.option("--output", metavar="DESTINATION", help="copy the run there while it trains: gs://, s3:// or a folder")
@keep_checkpoints_option
@click.option("--config", type=UserPath(), help="settings as YAML or JSON; flags win")
@click.argument("settings", nargs=-1, type=click.UNPROCESSED, metavar="[-- SETTINGS]")
def run(
    run_dir: Path | None,
    resume: Path | None,
    workers: int,
    output: str | None,
    keep_checkpoints: int | None,
    config: Path | None,
    settings: tuple[str, ...],
) -> int:
    """Train here, in the foreground; Ctrl-C saves a checkpoint and says how to go on.

    SETTINGS are the trainer's; 'trainer train --help' lists them.
    """
    flags = TrainConfig.parse_flags(settings)
    if keep_checkpoints is not None and output is None:
        raise click.UsageError("--keep-checkpoints is about the checkpoints in --output: expected --output too")
    if resume is not None:
        if run_dir is not None or config is not None:
            raise click.UsageError("--resume names the run and its settings; leave out --run-dir and --config")
        directory, resolved = resumed_run(resume, flags)
    else:
        directory, resolved = new_run(run_dir, config, flags)
    if output is not None:
        check_output(output, directory)
    with contextlib.ExitStack() as stack:
        start = stack.enter_context(fetched_start(directory, resolved))  # before anything is made
        stack.enter_context(launcher_lock(directory))
        if resume is None:
            check_empty(directory)  # nobody has been faster
            write_settings(directory, resolved.model_dump(mode="json"))
        if start is not None:
            shutil.copytree(start, directory.start, dirs_exist_ok=True)
        with contextlib.ExitStack() as running:
            local = LocalRun(directory, resolved, workers, settings if resume is not None else ())
            begun = None
            if output is not None:
                streamer = StreamerProcess(directory, output, local.report_line, keep_checkpoints)
                begun = running.enter_context(streamer).start
            code = local.run(begun)
        if code == BAD_INPUT and resume is None:
            discard_refused(directory)
    return code


def check_output(output: str, run: RunDirectory) -> None:
    """A run that can't be copied is not begun, and one that is refused leaves nothing in the destination."""
    from launcher.streaming.stores.opening import check_apart, open_store

    try:
        with not_in_use(run):
            store = open_store(output)
            check_apart(run.path, store)
            for warning in store.check():
                echo(f"warning: {warning}", err=True)
    except MaskfleetError:
        with contextlib.suppress(OSError):  # of one that is not new, and empty
            run.path.rmdir()
        raise


@contextlib.contextmanager
def fetched_start(run: RunDirectory, config: TrainConfig) -> Iterator[Path | None]:
    """A copy of what the run starts from, for as long as the block lasts, if that is in a bucket and is needed."""
    if config.start_from is None or not is_address(config.start_from) or run.checkpoint_steps():
        yield None
        return
    from launcher.streaming.download.start import fetch_start

    with tempfile.TemporaryDirectory(prefix="maskfleet-start-") as folder:
        try:
            echo(fetch_start(config.start_from, Path(folder)))
        except MaskfleetError:
            with contextlib.suppress(OSError):  # of one that is not new, and empty
                run.path.rmdir()
            raise
        yield Path(folder)
