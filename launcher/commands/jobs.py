"""``launcher submit``, ``render``, ``resume``, ``scale`` and ``preflight``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeVar

import click

from launcher.commands.options import (
    Connect,
    ObjectName,
    WithSettings,
    Workers,
    end_as_by_ctrl_c,
    on_cluster,
    output_option,
    print_as,
)
from launcher.job.training_job import TrainingJob
from maskfleet.command_line import UserPath, echo
from maskfleet.config import TrainConfig
from maskfleet.errors import DONE, FAILED
from maskfleet.settings import flag_layer
from maskfleet.worker_count import WorkerCount

if TYPE_CHECKING:
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
@output_option("json", "yaml")
@on_cluster
def submit(connect: Connect, waits: bool, follow: bool, dry_run: str | None, form: str | None, **arguments: Any) -> int:
    """Train on Kubernetes.

    SETTINGS are the trainer's; 'trainer train --help' lists them. The same command again with the same
    --name changes nothing, or finishes what was interrupted.
    """
    from launcher.operations import submission

    job = asked_for(arguments)
    if dry_run == "client":
        _show_checked_here(job, form)
        return DONE
    cluster = connect()
    done = submission.submit(job, cluster, dry_run=dry_run == "server")
    if dry_run:
        answer = "the server would take it" if done.new else "is there already; submit would change no setting of it"
        _show(done, f"job {done.name}: {answer}", form)
        return DONE
    if not (waits or follow):
        _show(done, _submitted(done, job, cluster.place), form)
        return DONE
    from launcher.commands.watching import print_logs, wait_for_end

    echo(_submitted(done, job, cluster.place), err=form is not None)
    _print_notes(done)
    if follow:
        print_logs(done.name, cluster, err=form is not None)
    end = wait_for_end(done.name, cluster, None)
    if form:
        print_as(form, {**asdict(done), **end.to_dict()})
    return end.exit_code


def _show_checked_here(job: TrainingJob, form: str | None) -> None:
    from launcher.job.code import Code
    from launcher.job.manifests import manifests
    from launcher.operations.submission import notes

    if form:  # as of a Submission, as far as it is known without a cluster
        print_as(form, {"name": job.name, "namespace": None, "new": None, "notes": list(notes(job))})
        return
    for manifest in manifests(job, Code.of(job)):
        echo(f"{manifest['kind']} {job.name}: would be created")


def _show(done: Submission, text: str, form: str | None) -> None:
    if form:
        print_as(form, asdict(done))
    else:
        echo(text)
    _print_notes(done)


def _print_notes(done: Submission) -> None:
    for note in done.notes:
        echo(f"note: {note}", err=True)


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
@click.argument("name", type=ObjectName())
@click.argument("settings", nargs=-1, type=click.UNPROCESSED, metavar="[-- SETTINGS]")
@click.option("--workers", type=Workers(), help="another number, or range; a step keeps its examples")
@on_cluster
def resume(connect: Connect, name: str, workers: WorkerCount | None, settings: tuple[str, ...]) -> None:
    """Go on with a cancelled, failed or complete job from its newest checkpoint.

    SETTINGS change the trainer's, for example '-- --epochs 40' for a job that is complete.
    """
    from launcher.operations import ending

    TrainConfig.check_each(TrainConfig.parse_flags(settings))
    cluster = connect()
    done = ending.resume(name, cluster, training=settings, workers=workers)
    echo(f"job {name} goes on in {cluster.place}")
    _print_notes(done)


@click.command()
@click.argument("name", type=ObjectName())
@click.option("--workers", type=Workers(), required=True, help="how many there shall be, or a range as 2..8")
@on_cluster
def scale(connect: Connect, name: str, workers: WorkerCount) -> None:
    """Go on with another number of workers: all save and end, and as many as asked for go on at the next example.

    A step has as many examples as before, and the learning rate stays. A cancelled job stays cancelled until 'resume'.
    """
    from launcher.operations.scaling import scale

    cluster = connect()
    done = scale(name, workers, cluster, report_line=lambda line: echo(f"job {name}: {line}", err=True))
    if done.before == workers:
        echo(f"job {name} in {cluster.place} has {workers} worker(s) already")
        return
    goes_on = "goes on" if done.goes_on else f"will go on by 'launcher resume {name}'"
    echo(
        f"job {name} {goes_on} in {cluster.place} with {workers} worker(s) instead of {done.before}; "
        "a step keeps its examples, and the learning rate stays"
    )


@job_settings
@click.command(cls=WithSettings)
@click.option("--try-network", is_flag=True, help="find out by two small pods whether NetworkPolicies are enforced")
@output_option("json", "yaml")
@on_cluster
def preflight(connect: Connect, form: str | None, try_network: bool, **arguments: Any) -> int:
    """Check whether a job would start, without starting it; exit code 1 if not.

    Takes the flags of submit.
    """
    from launcher.diagnosis.tables import table
    from launcher.operations.preflight import preflight

    job = asked_for(arguments)
    if try_network:
        end_as_by_ctrl_c()
    checks = preflight(job, connect(), try_network=try_network)
    if form:
        print_as(form, [asdict(check) for check in checks])
    else:
        echo("\n".join(table(["CHECK", "RESULT", "DETAIL"], [(c.what, c.result, c.detail) for c in checks])))
    return FAILED if any(check.result == "no" for check in checks) else DONE
