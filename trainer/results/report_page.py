"""The report's HTML: one page without scripts that needs nothing from elsewhere. Pure; imports no TensorFlow."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from maskfleet.goodput import CAUSES, goodput
from maskfleet.records import CURVES, Resolved
from maskfleet.text import one_line, printable
from trainer.pictures import confusion_shares
from trainer.results.run_facts import EVALUATED

if TYPE_CHECKING:
    from maskfleet.records import RunRecord
    from trainer.results.run_facts import Example, RunFacts

_COLOURS = ("#2563a8", "#c2501c", "#2d8659", "#8a4fa3", "#b8860b", "#5f6b76")
_BEYOND = 1e30
"""Losses of more are drawn as this one."""
_STYLE = """
body { font: 15px/1.45 system-ui, "DejaVu Sans", sans-serif; color: #1c2733; background: #fff;
       max-width: 1100px; margin: 0 auto; padding: 24px; overflow-wrap: anywhere; }
h1 { font-size: 26px; margin: 0 0 4px } h2 { font-size: 19px; margin: 32px 0 8px; border-bottom: 1px solid #d5dce3 }
h3 { font-size: 15px; margin: 16px 0 6px } p { margin: 4px 0 } .note { color: #667788 }
.wide { overflow-x: auto; overflow-wrap: normal } table { border-collapse: collapse; margin: 4px 0 }
th, td { padding: 3px 12px 3px 0; text-align: left; vertical-align: top } td.n, th.n { text-align: right }
th:first-child, td:first-child { max-width: 360px; overflow-wrap: anywhere }
thead th { border-bottom: 1px solid #9aa7b4 } tbody tr:nth-child(even) { background: #f4f6f8 }
.confusion td { padding: 6px 10px; text-align: right; background: none } .confusion tr { background: none !important }
.side { display: flex; flex-wrap: wrap; gap: 24px } svg { max-width: 100% } svg text { font-size: 12px; fill: #44525f }
.dot { display: inline-block; width: 10px; height: 10px; border-radius: 5px; margin-right: 6px }
.examples { display: flex; flex-wrap: wrap; gap: 16px } figure { margin: 0; max-width: 100% }
.examples figure { max-width: 326px } figcaption { font-size: 13px }
figure img { width: 104px; height: auto; margin-right: 2px; image-rendering: auto }
.key { display: inline-block; width: 12px; height: 12px; border: 1px solid #44525f; margin: 0 5px 0 12px }
details { margin: 6px 0 } summary { cursor: pointer }
"""


def page(runs: Sequence[RunFacts]) -> str:
    """The whole document."""
    title = ", ".join(run.name for run in runs)
    sections = [
        section("Result", _results(runs)),
        section("Curves", _curves(runs)),
        section("Classes", _classes(runs)),
        section("Confusion", "".join(map(_confusion, runs)), "Rows are the truth; shares of each true class."),
        section(
            "Predictions",
            "".join(map(_predictions, runs)),
            "Image, truth, prediction, and the mIoU of the image by itself, at its own size. Of "
            f"{EVALUATED} images at most, evenly spread, and of fewer where they are large; so is boundary F1.",
        ),
        _time(runs),
        section("Settings", _settings(runs)),
        section("Origin", _origin(runs)),
    ]
    return document(title, "".join(sections))


def document(title: str, content: str) -> str:
    """A whole page around ``content``, HTML."""
    title = f"Maskfleet: {title}"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{_html(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><h1>{_html(title)}</h1>{content}</body></html>\n"
    )


def section(title: str, content: str, note: str = "") -> str:
    """A part of the page under a heading; all three are HTML."""
    note = f'<p class="note">{note}</p>' if note else ""
    return f'<section id="{title.lower()}"><h2>{title}</h2>{note}{content}</section>\n'


def _results(runs: Sequence[RunFacts]) -> str:
    header = [
        "run",
        "network",
        "parameters",
        "epochs",
        "mIoU",
        "at network size",
        "best mIoU",
        "pixel accuracy",
        "images/s",
        "training",
    ]
    lines, notes = [], ""
    for number, run in enumerate(runs):
        settings, last = run.record.settings, run.metrics[-1]
        chooser = (run.record.resolved or Resolved()).chooser
        notes += f'<p class="note">{_dot(number)}{_html(run.name)}: scores {run.title}; {run.sizes}.</p>'
        best = max(run.metrics, key=lambda line: -math.inf if math.isnan(line.miou) else line.miou)
        restarts = f", {run.restarts} restart(s)" if run.restarts else ""
        lines.append(
            [
                _dot(number) + _html(run.name),
                _html(f"{settings.get('model')}, {settings.get('encoder')}, {settings.get('image_size')} px"),
                f"{run.parameters:,}",
                f"{last.epoch} of {_value(settings.get('epochs'))}",
                f"<b>{run.final.miou:.4f}</b>",
                f"{run.at_network_size.miou:.4f}",
                f"{best.miou:.4f} (epoch {best.epoch}, {chooser})",
                f"{run.final.pixel_accuracy:.4f}",
                f"{np.median([line.images_per_second for line in run.metrics]):.1f}",
                f"{last.training_seconds:.0f} s{restarts}",
            ]
        )
    return _table(header, lines, first_number=2) + notes


def _curves(runs: Sequence[RunFacts]) -> str:
    charts = []
    for title, training, validation in CURVES:
        lines = []
        for number, run in enumerate(runs):
            epochs = [float(line.epoch) for line in run.metrics]
            for key, dashed in ((training, True), (validation, False)):
                lines.append((_colour(number), dashed, epochs, [float(getattr(line, key)) for line in run.metrics]))
        charts.append(f"<figure><h3>{title}</h3>{_chart(lines)}</figure>")
    key = " ".join(f"<span>{_dot(number)}{_html(run.name)}</span>" for number, run in enumerate(runs))
    return f'<div class="side">{"".join(charts)}</div><p class="note">Dashed: training. Solid: validation. {key}</p>'


def _classes(runs: Sequence[RunFacts]) -> str:
    header = ["class"]
    for number, run in enumerate(runs):
        prefix = f"{_dot(number)}{_html(run.name)}: " if len(runs) > 1 else ""
        header += [prefix + "IoU", "Dice", "precision", "recall", *(["boundary F1"] if run.boundary_f1 else [])]
    names = list(dict.fromkeys(name for run in runs for name in run.legend.classes))
    lines = []
    for name in names:
        line = [_html(name)]
        for run in runs:
            line += [_score(getattr(run.final, kind).get(name)) for kind in ("iou", "dice", "precision", "recall")]
            line += [_score(run.boundary_f1.get(name))] if run.boundary_f1 else []
        lines.append(line)
    return _table(header, lines, first_number=1)


def _confusion(run: RunFacts) -> str:
    matrix = run.final.confusion
    names = [_html(name) for name in run.legend.classes]
    if {len(matrix), *map(len, matrix)} != {len(names)}:  # of a line that is not the trainer's
        return f"<h3>{_html(run.name)}</h3><p>The last validation has no confusion matrix of these classes.</p>"
    shares = confusion_shares(np.array(matrix, np.int64))
    rows = [f"<tr><th></th>{''.join(f'<th class=n>{name}</th>' for name in names)}</tr>"]
    for name, line in zip(names, shares, strict=True):
        cells = "".join(
            f'<td style="background:rgba(37,99,168,{share:.3f});color:{"#fff" if share > 0.55 else "#1c2733"}">'
            f"{share:.3f}</td>"
            for share in line
        )
        rows.append(f"<tr><th>{name}</th>{cells}</tr>")
    return f'<h3>{_html(run.name)}</h3><div class="wide"><table class="confusion">{"".join(rows)}</table></div>'


def _predictions(run: RunFacts) -> str:
    note = f'<h3>{_html(run.name)}</h3><p class="note">{_html(run.note)}</p>' if run.note else ""
    if note and not run.best:
        return note
    keys = "".join(
        f'<span class="key" style="background:rgb{tuple(colour)}"></span>{_html(name)}'
        for name, colour in zip(run.legend.classes, run.legend.colours.tolist(), strict=True)
    )
    return (
        f"{note}<h3>{_html(run.name)}: best {keys}</h3>{gallery(run.best)}"
        f"<h3>{_html(run.name)}: worst</h3>{gallery(run.worst)}"
    )


def gallery(examples: Sequence[Example]) -> str:
    """Image, truth and prediction of each, with its name and score."""
    figures = "".join(
        "<figure>"
        + "".join(
            f'<img src="{uri}" alt="{kind} of {_html(example.name)}">'
            for kind, uri in (("image", example.image), ("truth", example.truth), ("prediction", example.prediction))
        )
        + f"<figcaption>{_html(example.name)}: {example.miou:.3f}</figcaption></figure>"
        for example in examples
    )
    return f'<div class="examples">{figures}</div>'


def _time(runs: Sequence[RunFacts]) -> str:
    """What each run's time was spent on, a row for each cause that there was; nothing of runs of an older version."""
    causes = [cause for cause in CAUSES if any(run.seconds.get(cause) for run in runs)]
    if not causes:
        return ""
    header = ["", *(_dot(number) + _html(run.name) for number, run in enumerate(runs))]
    rows = [["goodput", *(_score(goodput(run.seconds)) for run in runs)]]
    rows += [[CAUSES[cause], *(f"{run.seconds.get(cause, 0.0):.1f} s" for run in runs)] for cause in causes]
    rows.append(["all", *(f"{sum(run.seconds.values()):.1f} s" for run in runs)])
    note = "Each second is booked once. Goodput is the share of computing and all-reduce."
    return section("Time", _table(header, rows, first_number=1), note)


def _settings(runs: Sequence[RunFacts]) -> str:
    keys = list(dict.fromkeys(key for run in runs for key in run.record.settings))
    differ = [key for key in keys if len({repr(run.record.settings.get(key)) for run in runs}) > 1]
    header = ["setting", *(_dot(number) + _html(run.name) for number, run in enumerate(runs))]

    def table(chosen: Sequence[str]) -> str:
        return _table(header, [[_html(key), *(_value(run.record.settings.get(key)) for run in runs)] for key in chosen])

    if len(runs) == 1:
        return table(keys)
    shown = table(differ) if differ else "<p>The runs have the same settings.</p>"
    same = [key for key in keys if key not in differ]
    return f"<h3>What differs</h3>{shown}<details><summary>What is the same</summary>{table(same)}</details>"


def _origin(runs: Sequence[RunFacts]) -> str:
    parts: dict[str, Callable[[RunRecord, Resolved], Any]] = {
        "workers": lambda record, resolved: resolved.workers,
        "global batch": lambda record, resolved: resolved.global_batch,
        "scaled learning rate": lambda record, resolved: resolved.scaled_learning_rate,
        "training images": lambda record, resolved: resolved.training_examples,
        "validation images": lambda record, resolved: resolved.validation_examples,
        "test images": lambda record, resolved: resolved.test_examples,
        "data fingerprint": lambda record, resolved: record.data_fingerprint,
        "git commit": lambda record, resolved: record.git_commit,
        "versions": lambda record, resolved: ", ".join(f"{name} {v}" for name, v in record.versions.items()),
    }
    header = ["", *(_dot(number) + _html(run.name) for number, run in enumerate(runs))]
    records = [(run.record, run.record.resolved or Resolved()) for run in runs]
    return _table(header, [[name, *(_value(find(*each)) for each in records)] for name, find in parts.items()])


def _table(header: Sequence[str], lines: Sequence[Sequence[str]], first_number: int = 10**6) -> str:
    """Cells are HTML already; columns from ``first_number`` on are aligned to the right."""

    def row(cells: Sequence[str], tag: str) -> str:
        kinds = (' class="n"' if column >= first_number else "" for column in range(len(cells)))
        return (
            "<tr>" + "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)) + "</tr>"
        )

    body = "".join(row(line, "td") for line in lines)
    return f'<div class="wide"><table><thead>{row(header, "th")}</thead><tbody>{body}</tbody></table></div>'


def _chart(lines: Sequence[tuple[str, bool, list[float], list[float]]]) -> str:
    """An SVG of lines (colour, whether dashed, x, y); values that are not finite are left out."""
    width, height, left, bottom, rim = 500, 260, 44, 26, 10
    points = [
        (x, y) for _, _, xs, ys in lines for x, y in zip(xs, ys, strict=True) if math.isfinite(x) and math.isfinite(y)
    ]
    if not points:
        return "<p>No finite values.</p>"
    lowest_x, highest_x = min(x for x, _ in points), max(x for x, _ in points)
    ticks = _ticks(min(y for _, y in points), max(y for _, y in points))
    low, high = ticks[0], ticks[-1]

    def across(x: float) -> float:
        return left + (width - left - rim) * ((x - lowest_x) / (highest_x - lowest_x) if highest_x > lowest_x else 0.5)

    def up(y: float) -> float:
        return height - bottom - (height - bottom - rim) * (y - low) / (high - low)

    parts = []
    for tick in ticks:
        parts.append(f'<line x1="{left}" x2="{width - rim}" y1="{up(tick):.1f}" y2="{up(tick):.1f}" stroke="#e1e6eb"/>')
        parts.append(f'<text x="{left - 6}" y="{up(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    parts += [
        f'<text x="{across(x):.1f}" y="{height - 8}" text-anchor="middle">{x:g}</text>'
        for x in sorted({lowest_x, round((lowest_x + highest_x) / 2), highest_x})
    ]
    for colour, dashed, xs, ys in lines:
        path = " ".join(
            f"{across(x):.1f},{up(y):.1f}" for x, y in zip(xs, ys, strict=True) if math.isfinite(x) and math.isfinite(y)
        )
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        if " " not in path and path:  # a single point would not be seen as a line
            column, row = path.split(",")
            parts.append(f'<circle cx="{column}" cy="{row}" r="3" fill="{colour}"/>')
    return f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">{"".join(parts)}</svg>'


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, four to eight of them, from at most ``low`` to at least ``high``."""
    low, high = (min(max(end, -_BEYOND), _BEYOND) for end in (low, high))  # of a file that is not the trainer's
    span = max(high - low or abs(high) or 1.0, 1e-9)
    step = 10 ** math.floor(math.log10(span))
    step *= next(factor for factor in (0.2, 0.25, 0.5, 1, 2) if span / (step * factor) <= 6)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(step * number, 10) for number in range(first, max(last, first + 1) + 1)]


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _dot(number: int) -> str:
    return f'<span class="dot" style="background:{_colour(number)}"></span>'


def _score(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"


def _value(value: Any) -> str:
    return "-" if value is None else html.escape(printable(str(value)))


def _html(text: str) -> str:
    """A name, which somebody else chose: a line of it, without what is no letter, as HTML."""
    return html.escape(one_line(text))
