"""``launcher status``, ``list``, ``logs``, ``wait`` and ``describe``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

from launcher.commands.options import (
    Connect,
    JobOrDestination,
    ObjectName,
    is_destination,
    on_cluster,
    output_option,
    print_as,
)
from launcher.job.quantities import parse_duration
from maskfleet.command_line import echo
from maskfleet.errors import BadSettings, MaskfleetError
from maskfleet.text import printable

if TYPE_CHECKING:
    from launcher.cluster.kubernetes_api import Cluster
    from launcher.diagnosis.job_status import JobStatus
    from launcher.operations.pod_log import LogRequest


@click.command()
@click.argument("name", type=ObjectName())
@click.option("-w", "--watch", is_flag=True, help="go on showing it until the job has ended")
@output_option("json", "yaml", "wide")
@on_cluster
def status(connect: Connect, name: str, watch: bool, form: str | None) -> None:
    """Show where a job stands, and why."""
    from launcher.diagnosis.tables import describe_status
    from launcher.operations import following

    if watch and form in ("json", "yaml"):
        raise click.UsageError("--watch shows text; leave out -o, or ask again and again without --watch")
    if watch:
        _watch(name, connect(), wide=form == "wide")
        return
    now = following.status(name, connect())
    _note_unseen(now)
    if form in ("json", "yaml"):
        print_as(form, now.to_dict())
    else:
        echo("\n".join(describe_status(now, wide=form == "wide")))


def _note_unseen(*statuses: JobStatus) -> None:
    for unseen in filter(None, (status.unseen for status in statuses)):
        echo(f"note: you may not list {' and '.join(unseen)}: reasons that they would give are missing", err=True)


def _watch(name: str, cluster: Cluster, *, wide: bool) -> None:
    """Replaces the text in a terminal; elsewhere prints it when it has changed."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from launcher.diagnosis.reasons import steady
    from launcher.diagnosis.tables import describe_status
    from launcher.operations import following

    console = Console(highlight=False)
    before = ""
    with Live(console=console, auto_refresh=False) as live:
        for now in following.follow(name, cluster):
            text = printable("\n".join(describe_status(now, wide=wide)))
            if console.is_terminal:
                live.update(Text(text, overflow="fold"), refresh=True)
            elif (key := steady(text)) != before:
                before = key
                echo(text + "\n")
            if now.ended:
                return


@click.command(name="list")
@click.option("-A", "--all-namespaces", is_flag=True, help="of all namespaces, or of this one if no others may be seen")
@output_option("json", "yaml", "wide")
@on_cluster
def list_(connect: Connect, all_namespaces: bool, form: str | None) -> None:
    """List the jobs of a namespace, the newest first."""
    from launcher.diagnosis.tables import job_table
    from launcher.operations import following

    cluster = connect()
    where = "any namespace" if all_namespaces else f"namespace {cluster.namespace}"
    try:
        jobs = following.list_jobs(cluster, everywhere=all_namespaces)
    except MaskfleetError as error:
        if not all_namespaces or getattr(error, "status", None) != 403:
            raise
        where = f"namespace {cluster.namespace}"
        echo(f"note: only of {where}: {error}", err=True)
        jobs = following.list_jobs(cluster)
    _note_unseen(*jobs[:1])
    if form in ("json", "yaml"):
        print_as(form, [job.to_dict() for job in jobs])
    elif jobs:
        echo("\n".join(job_table(jobs, wide=form == "wide", namespaces=all_namespaces)))
    else:
        echo(f"no jobs in {where}", err=True)


@click.command()
@click.argument("name", metavar="NAME|DESTINATION", type=JobOrDestination())
@click.option("-f", "--follow", is_flag=True, help="go on until the job has ended")
@click.option("--worker", "workers", type=click.IntRange(min=0), multiple=True, help="only this worker; repeatable")
@click.option("--tail", type=click.IntRange(min=0), help="only the last lines of each worker")
@click.option("--since", help="only lines of the last 90s, 30m, 12h, …")
@click.option("-p", "--previous", is_flag=True, help="of the attempt before each worker's newest")
@click.option("--timestamps", is_flag=True, help="with the time of each line")
@on_cluster
def logs(
    connect: Connect,
    name: str,
    follow: bool,
    workers: tuple[int, ...],
    tail: int | None,
    since: str | None,
    previous: bool,
    timestamps: bool,
) -> None:
    """Print what the workers of a job print, or printed: of a job that is gone, name the destination of its run."""
    from launcher.operations.logs import stored_lines
    from launcher.operations.pod_log import LogRequest

    if is_destination(name):
        if follow or since or previous or timestamps:
            raise click.UsageError(f"of what is stored in {name}, only --worker and --tail choose")
        for line in stored_lines(name, LogRequest(frozenset(workers) or None, tail)):
            _print_line(line.worker, line.text)
        return
    if follow and previous:
        raise click.UsageError("--previous is over: leave out --follow")
    try:
        seconds = parse_duration(since) if since else None
    except ValueError as error:
        raise BadSettings(f"--since: {error}, found {since!r}") from error
    request = LogRequest(frozenset(workers) or None, tail, seconds)
    print_logs(name, connect(), request, follow=follow, previous=previous, timestamps=timestamps)


def print_logs(
    name: str,
    cluster: Cluster,
    request: LogRequest | None = None,
    *,
    follow: bool = True,
    previous: bool = False,
    timestamps: bool = False,
    err: bool = False,
) -> None:
    """Prints the lines of all workers, each with its worker's prefix in its colour."""
    from launcher.operations.logs import follow_logs, logs
    from launcher.operations.pod_log import LogRequest

    request = request or LogRequest()
    if follow:
        lines = follow_logs(name, cluster, request, report_line=lambda text: echo(f"note: {text}", err=True))
    else:
        lines = logs(name, cluster, request, previous=previous)
    for line in lines:
        _print_line(line.worker, f"{line.time} {line.text}" if timestamps else line.text, err=err)


def _print_line(worker: int, text: str, *, err: bool = False) -> None:
    from launcher.local.console import COLOURS

    prefix = f"worker-{worker} | "
    if (sys.stderr if err else sys.stdout).isatty() and "NO_COLOR" not in os.environ:
        prefix = click.style(prefix, fg=COLOURS[worker % len(COLOURS)])
    click.echo(prefix + printable(text), err=err)


@click.command()
@click.argument("name", type=ObjectName())
@click.option("--timeout", help="give up after this long (90s, 30m, 12h) with exit code 124")
@output_option("json", "yaml")
@on_cluster
def wait(connect: Connect, name: str, timeout: str | None, form: str | None) -> int:
    """Return when a job has ended: 0 if it succeeded and all of it is in its output, 1 if not."""
    try:
        seconds = parse_duration(timeout) if timeout else None
    except ValueError as error:
        raise BadSettings(f"--timeout: {error}, found {timeout!r}") from error
    end = wait_for_end(name, connect(), seconds)
    if form:
        print_as(form, end.to_dict())
    return end.exit_code


def wait_for_end(name: str, cluster: Cluster, timeout: float | None) -> JobStatus:
    """Prints each new phase to standard error until the job has ended; returns how."""
    from launcher.operations import following

    def show(now: JobStatus) -> None:
        why = f" – {now.reason}" if now.reason else ""
        echo(f"{now.name}: {now.phase}{why}", err=True)

    end = following.wait(name, cluster, timeout=timeout, on_change=show)
    for line in end.evidence:
        echo(f"  {line}", err=True)
    return end


@click.command()
@click.argument("name", type=ObjectName())
@output_option("json", "yaml")
@on_cluster
def describe(connect: Connect, name: str, form: str | None) -> None:
    """Show all that is known of a job: its settings, status and what has happened to it."""
    from launcher.operations.description import describe as describe_job
    from launcher.operations.description import describe_lines

    found = describe_job(name, connect())
    if form:
        print_as(form, found)
    else:
        echo("\n".join(describe_lines(found)))
