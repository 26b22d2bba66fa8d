"""``launcher estimate``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from launcher.commands.options import output_option, print_as
from launcher.diagnosis.tables import table
from launcher.estimate import Link, Measured, estimate
from maskfleet.command_line import UserPath, echo
from maskfleet.run_directory import RunDirectory
from maskfleet.text import format_bytes, format_duration


class _Counts(click.ParamType[tuple[int, ...]]):
    name = "N,N,…"

    def convert(self, value: str, param: click.Parameter | None, context: click.Context | None) -> tuple[int, ...]:
        parts = value.split(",")
        if not all(part.isdigit() and int(part) > 0 for part in parts):
            self.fail(f"expected whole numbers from 1 on, joined by commas, found {value!r}", param, context)
        return tuple(map(int, parts))


@click.command("estimate")
@click.argument("run", type=UserPath())
@click.option("--workers", type=_Counts(), default="1,2,4,8,16,32,64,128,256", show_default=True, help="to compare")
@click.option("--global-batch", type=click.IntRange(min=1), help="fixed  [default: each worker keeps RUN's batch]")
@click.option(
    "--bandwidth",
    type=click.FloatRange(min=0, min_open=True),
    default=2.5,
    show_default=True,
    help="between two workers, Gbit/s; TensorFlow's gRPC reaches some 2 to 4 even where the network has more",
)
@click.option(
    "--latency", type=click.FloatRange(min=0), default=0.5, show_default=True, help="of one message, milliseconds"
)
@click.option(
    "--bucket-bandwidth",
    type=click.FloatRange(min=0, min_open=True),
    default=10.0,
    show_default=True,
    help="from the bucket of packed data to all workers together, Gbit/s",
)
@output_option("json", "yaml")
def estimate_(
    run: Path,
    workers: tuple[int, ...],
    global_batch: int | None,
    bandwidth: float,
    latency: float,
    bucket_bandwidth: float,
    form: str | None,
) -> None:
    """Tell how fast RUN would be on other numbers of workers like those that it ran on."""
    measured = Measured.of(RunDirectory(run))
    link = Link(bandwidth * 1e9 / 8, latency / 1e3)
    found = estimate(measured, workers, link, global_batch, bucket_bandwidth * 1e9 / 8)
    if form:
        print_as(form, [asdict(each) for each in found])
        return
    rows: list[tuple[str, ...]] = [
        (str(e.workers), str(e.global_batch), f"{1e3 * e.step_seconds:.0f} ms", f"{e.images_per_second:.1f}",
         f"{e.efficiency:.0%}", format_duration(e.seconds))
        for e in found
    ]  # fmt: skip
    header: tuple[str, ...] = ("WORKERS", "GLOBAL BATCH", "STEP", "IMAGES/S", "EFFICIENCY", f"{measured.epochs} EPOCHS")
    if measured.record_bytes:
        header = (*header, "READ", "LIMIT")
        rows = [
            (*row, f"{format_bytes(each.read_bytes_per_second)}/s", each.limit)
            for row, each in zip(rows, found, strict=True)
        ]
    echo("\n".join(table(header, rows)))
    if any(each.limit == "bucket" for each in found):
        echo(
            f"where the limit is the bucket, workers wait for {format_bytes(measured.record_bytes)} an image over "
            f"{bucket_bandwidth:g} Gbit/s, until they have kept what they read (--cache); "
            "'trainer pack --max-side' makes images smaller"
        )
