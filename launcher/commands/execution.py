"""``launcher exec``."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import click

from launcher.commands.options import Connect, ObjectName, on_cluster
from maskfleet.command_line import echo

if TYPE_CHECKING:
    from launcher.operations.execution import Container


class _Exec(click.Command):
    """Says of an option that it does not know that it may be the command's."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            told = f"{error.option_name}: is no option of exec; a command and its options come after --"
            raise click.UsageError(f"{told}: 'launcher exec NAME -- COMMAND {error.option_name}'", ctx) from error


@click.command(cls=_Exec)
@click.argument("name", type=ObjectName())
@click.option("--worker", type=click.IntRange(min=0), default=0, show_default=True, help="in the pod of this worker")
@click.option(
    "--container", type=click.Choice(["trainer", "streamer"]), default="trainer", show_default=True, help="of the pod"
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@on_cluster
def exec_(connect: Connect, name: str, worker: int, container: Container, command: tuple[str, ...]) -> int:
    """Run COMMAND in the pod of a worker, and end with its exit code.

    Standard input goes there. In a terminal the command gets one too.
    """
    from launcher.cluster.attached import is_terminal, pass_through
    from launcher.operations.execution import run_in_worker

    terminal = is_terminal()
    running = run_in_worker(name, connect(), command, worker=worker, container=container, tty=terminal)
    try:
        return pass_through(running, terminal=terminal, report_line=lambda text: echo(f"note: {text}", err=True))
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
