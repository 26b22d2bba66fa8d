"""``launcher submit``, ``render``, ``resume`` and ``preflight``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from launcher.commands.options import (
    WithSettings,
    on_cluster,
    on_cluster_unless_checked_here,
    output_option,
    print_as,
)
from launcher.job.training_job import TrainingJob
from maskfleet.command_line import UserPath, echo
from maskfleet.errors import DONE, FAILED
from maskfleet.settings import flag_layer

if TYPE_CHECKING:
    from launcher.cluster.kubernetes_api import Cluster
    from launcher.operations.submission import Submission

Command = TypeVar("Command", bound=click.Command)


def job_settings(command: Command) -> Command:
    """Adds a flag for each setting of a job, -f for a file of them, and the trainer's settings after ``--``."""
    file = click.Option(
        ["-f", "--file"],
        type=UserPath(),
        help="the job as a file ('render --job' writes it); flags win",
    )
    settings = click.Argument(["settings"], nargs=-1, type=click.UNPROCESSED, metavar="[-- SETTINGS]", required=False)
    command.params = [*TrainingJob.flags(), file, *command.params, settings]
    return command


def asked_for(arguments: dict[str, Any]) -> TrainingJob:
    """The job of a command line; takes its own keys out of ``arguments``."""
    flags = {name: arguments.pop(name) for name in TrainingJob.model_fields if name in arguments}
    return TrainingJob.from_sources(arguments.pop("file"), flag_layer(flags), arguments.pop("settings"))


@job_settings
@click.command(cls=WithSettings)
@click.option("--wait", "waits", is_flag=True, help="return when the job has ended, with its exit code")
@click.option("--follow", is_flag=True, help="print the workers' output until the job has ended")
@click.option("--dry-run", type=click.Choice(["client", "server"]), help="check, here or on the server; change nothing")
@on_cluster_unless_checked_here
def submit(cluster: Cluster | None, waits: bool, follow: bool, dry_run: str | None, **arguments: Any) -> int:
    """Train on Kubernetes.

    SETTINGS are the trainer's; 'trainer train --help' lists them. The same command again with the same
    --name changes nothing, or finishes what was interrupted.
    """
    from launcher.operations import submission

    job = asked_for(arguments)
    if cluster is None:  # --dry-run client
        from launcher.job.manifests import manifests

        for manifest in manifests(job):
            echo(f"{manifest['kind']} {job.name}: would be created")
        return DONE
    done = submission.submit(job, cluster, dry_run=dry_run == "server")
    if dry_run:
        answer = "the server would take it" if done.new else "is there already; submit would change no setting of it"
        echo(f"job {done.name}: {answer}")
        return DONE
    echo(_submitted(done, job, cluster.place))
    for note in done.notes:
        echo(f"note: {note}", err=True)
    if follow:
        from launcher.commands.watching import print_logs

        print_logs(done.name, cluster)
    if waits or follow:
        from launcher.commands.watching import wait_for_end

        return wait_for_end(done.name, cluster, None)
    return DONE


def _submitted(done: Submission, job: TrainingJob, place: str) -> str:
    what = "submitted" if done.new else "is there already"
    where = f"job {done.name} {what} in {place}: {job.workers} worker(s) of {job.cpu} CPU, {job.memory}"
    gpus = f", {job.gpus_per_worker} GPU(s)" if job.gpus_per_worker else ""
    return f"{where}{gpus}\nlauncher status {done.name} | launcher logs -f {done.name} | launcher wait {done.name}"


@job_settings
@click.command(cls=WithSettings)
@click.option("--job", "as_job", is_flag=True, help="the job as a file for -f, instead of its objects")
@output_option("json")
def render(as_job: bool, form: str | None, **arguments: Any) -> None:
    """Print what submit would send, as YAML."""
    job = asked_for(arguments)
    if as_job:
        echo(job.to_yaml() if form is None else f"{job.to_json()}\n", nl=False)
        return
    from launcher.job.rendering import render, render_json

    echo(render(job) if form is None else f"{render_json(job)}\n", nl=False)


@click.command(cls=WithSettings)
@click.argument("name")
@click.argument("settings", nargs=-1, type=click.UNPROCESSED, metavar="[-- SETTINGS]")
@on_cluster
def resume(cluster: Cluster, name: str, settings: tuple[str, ...]) -> None:
    """Go on with a cancelled, failed or complete job from its newest checkpoint.

    SETTINGS change the trainer's, for example '-- --epochs 40' for a job that is complete.
    """
    from launcher.operations import ending

    done = ending.resume(name, cluster, training=settings)
    echo(f"job {name} goes on in {cluster.place}")
    for note in done.notes:
        echo(f"note: {note}", err=True)


@job_settings
@click.command(cls=WithSettings)
@click.option("--try-network", is_flag=True, help="find out by two small pods whether NetworkPolicies are enforced")
@output_option("json", "yaml")
@on_cluster
def preflight(cluster: Cluster, form: str | None, try_network: bool, **arguments: Any) -> int:
    """Check whether a job would start, without starting it; exit code 1 if not.

    Takes the flags of submit.
    """
    from dataclasses import asdict

    from launcher.diagnosis.tables import table
    from launcher.operations.preflight import preflight

    checks = preflight(asked_for(arguments), cluster, try_network=try_network)
    if form:
        print_as(form, [asdict(check) for check in checks])
    else:
        echo("\n".join(table(["CHECK", "RESULT", "DETAIL"], [(c.what, c.result, c.detail) for c in checks])))
    return FAILED if any(check.result == "no" for check in checks) else DONE
