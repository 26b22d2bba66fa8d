"""``launcher cancel`` and ``delete``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from launcher.commands.options import on_cluster
from maskfleet.command_line import echo

if TYPE_CHECKING:
    from launcher.cluster.kubernetes_api import Cluster


@click.command()
@click.argument("name")
@on_cluster
def cancel(cluster: Cluster, name: str) -> None:
    """Stop a job, which saves first, and keep its objects; 'resume' goes on."""
    from launcher.operations import ending

    notes = ending.cancel(name, cluster)
    echo(f"job {name} is cancelled in {cluster.place}: its workers save and end; 'launcher resume {name}' goes on")
    for note in notes:
        echo(f"note: {note}", err=True)


@click.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="do not ask")
@on_cluster
def delete(cluster: Cluster, name: str, yes: bool) -> None:
    """Delete a job with all its objects and pods; its output stays."""
    from launcher.operations import ending

    ending.find_job(name, cluster)
    if not yes:
        click.confirm(f"delete job {name} in {cluster.place}?", abort=True)
    ending.delete(name, cluster, report_line=lambda text: echo(f"job {name}: {text}", err=True))
    echo(f"job {name} is deleted in {cluster.place}")
