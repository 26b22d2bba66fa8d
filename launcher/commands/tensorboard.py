"""``launcher tensorboard``."""

from __future__ import annotations

import webbrowser

import click

from launcher.commands.options import Connect, JobOrDestination, end_as_by_ctrl_c, is_destination, on_cluster
from maskfleet.command_line import echo


@click.command()
@click.argument("name", metavar="NAME|DESTINATION", type=JobOrDestination())
@click.option("--port", type=click.IntRange(0, 65535), default=6006, show_default=True, help="on this machine")
@click.option("--in-cluster", is_flag=True, help="run it in the cluster; so it is for a claim or a folder")
@click.option("--browser/--no-browser", default=False, help="open it in a browser")
@on_cluster
def tensorboard(connect: Connect, name: str, port: int, in_cluster: bool, browser: bool) -> None:
    """Show the curves of a job, or of the run in DESTINATION, in TensorBoard until Ctrl-C."""
    from launcher.operations import tensorboard as board
    from launcher.operations.submitted import asked_job, get_job

    def report_line(address: str) -> None:
        echo(f"TensorBoard on {name}: {address} (Ctrl-C ends it)")
        if browser:
            webbrowser.open(address)

    end_as_by_ctrl_c()
    if is_destination(name):
        board.serve(name, port, report_line)
        return
    cluster = connect()
    made = get_job(cluster, name)
    job = asked_job(made)
    if board.is_local(job) and not in_cluster:
        board.serve(str(job.destination), port, report_line)
        return
    from launcher.cluster import port_forward

    port_forward.listen(port).close()  # a port that is taken is known before a pod is made
    echo(f"TensorBoard's pod comes up in {cluster.place}", err=True)
    with board.in_cluster(job, made, cluster) as pod:
        port_forward.forward(pod, cluster, port, report_line)
