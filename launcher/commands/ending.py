"""``launcher cancel`` and ``delete``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import click

from launcher.commands.options import Connect, ObjectName, on_cluster
from maskfleet.command_line import echo, report_error
from maskfleet.errors import DONE, MaskfleetError

T = TypeVar("T")

_NAMES = click.argument("names", metavar="NAME...", nargs=-1, required=True, type=ObjectName())


@click.command()
@_NAMES
@on_cluster
def cancel(connect: Connect, names: tuple[str, ...]) -> int:
    """Stop jobs, which save first, and keep their objects; 'resume' goes on.

    The exit code is the worst of all.
    """
    from launcher.operations import ending

    cluster = connect()

    def cancel_one(name: str) -> None:
        notes = ending.cancel(name, cluster)
        echo(f"job {name} is cancelled in {cluster.place}: its workers save and end; 'launcher resume {name}' goes on")
        for note in notes:
            echo(f"note: {note}", err=True)

    _, code = _each(names, cancel_one)
    return code


@click.command()
@_NAMES
@click.option("--yes", is_flag=True, help="do not ask")
@on_cluster
def delete(connect: Connect, names: tuple[str, ...], yes: bool) -> int:
    """Delete jobs with all their objects and pods; their output stays.

    The exit code is the worst of all.
    """
    from launcher.operations import ending

    cluster = connect()

    def find_one(name: str) -> str:
        ending.find_job(name, cluster)
        return name

    def delete_one(name: str) -> None:
        ending.delete(name, cluster, report_line=lambda text: echo(f"job {name}: {text}", err=True))
        echo(f"job {name} is deleted in {cluster.place}")

    there, missing = _each(names, find_one)
    if there and not yes:
        click.confirm(f"delete job{'s' * (len(there) > 1)} {', '.join(there)} in {cluster.place}?", abort=True)
    _, failed = _each(there, delete_one)
    return max(missing, failed)


def _each(names: Iterable[str], act: Callable[[str], T]) -> tuple[list[T], int]:
    """Acts on every name, whatever comes of the others: what came of those that went well, and the worst exit code."""
    done, worst = [], DONE
    for name in dict.fromkeys(names):
        try:
            done.append(act(name))
        except MaskfleetError as error:
            worst = max(worst, report_error(str(error), error.exit_code))
    return done, worst
