"""``launcher prepare`` and ``sidecar``: what the launcher's own containers in a worker's pod run."""

from __future__ import annotations

from pathlib import Path

import click

from launcher.quantities import format_bytes
from trainer.run_directory import RunDirectory


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", help="address of the data set's folder")
@click.option("--data-path", type=click.Path(path_type=Path), default=Path("/data"), help="where it goes")
@click.option("--restore", help="address of the run's streamed copy")
def prepare(run: Path, data: str | None, data_path: Path, restore: str | None) -> None:
    """Bring data and the newest checkpoint into the pod."""
    from launcher.sidecar import fetch_data, restore_run

    if data:
        count, size = fetch_data(data, data_path)
        click.echo(f"fetched {data}: {count} files, {format_bytes(size)}, all verified")
    if restore:
        click.echo(restore_run(RunDirectory(run), restore))


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("destination", required=False)
@click.option("--grace", type=click.FloatRange(min=0), default=25.0, help="seconds to send what is left after SIGTERM")
def sidecar(run: Path, destination: str | None, grace: float) -> int:
    """Report to the Job and stream RUN to DESTINATION until SIGTERM."""
    from launcher.sidecar import accompany

    return accompany(RunDirectory(run), destination, grace=grace)
