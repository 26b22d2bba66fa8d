"""Writes settings.md and commands.md beside this file, from the code: ``python docs/reference.py``.

``--check`` writes nothing and ends with exit code 1 if a page is not what it would write.

The pages are committed, so that they can be read without building the site. Usage and options come from click itself;
a setting's type and limits come from pydantic's JSON schema, its group from the comment above it in the code.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

# These lines name all that is documented here.
from launcher import TrainingJob
from launcher.cli import COMMANDS
from launcher.cli import main as launcher
from launcher.job.quantities import Duration
from maskfleet.config import MOST, PLANNED, PRESETS, SYNTHETIC, TrainConfig
from maskfleet.image_size import LARGEST_SIDE, SMALLEST_SIDE
from maskfleet.settings import Settings
from trainer.cli import main as trainer

FOLDER = Path(__file__).parent
SETTINGS: Mapping[str, type[Settings]] = {"Training": TrainConfig, "Jobs on Kubernetes": TrainingJob}
"""Those of each heading of settings.md."""
MADE = "<!-- Made by docs/reference.py from the code: change the code, then run 'make docs'. -->"


def main(arguments: Sequence[str]) -> int:
    """Writes or checks the pages; returns the exit code."""
    for name, text in (("settings.md", settings_page()), ("commands.md", commands_page())):
        page = FOLDER / name
        if arguments != ["--check"]:
            page.write_text(text)
        elif not page.exists() or page.read_text() != text:
            print(f"error: docs/{name} is not what the code says: 'make docs' writes it anew", file=sys.stderr)
            return 1
    return 0


def settings_page() -> str:
    parts = [
        "# Settings",
        MADE,
        "A setting has one name: with `-` it is a flag, with `_` a key in a file of settings (YAML or JSON). "
        "Flags win over the file. A name that does not exist is an error that tells the nearest one that does.",
        "## Training",
        "They follow `--` in `launcher run`, `submit`, `render`, `preflight` and `resume`, and are plain flags of "
        "`trainer train`, `verify-data` and `compare`. `--config` reads a file of them; in a job's file they stand "
        "under the key `training`.",
        *groups(TrainConfig),
        "### Defaults that depend on others",
        f"`--preset tutorial`, the recipe of TensorFlow's tutorial: {values(PRESETS['tutorial'])}.",
        f"`--preset auto` chooses by the data what of these is not given: {', '.join(map(flag, PLANNED))}.",
        f"`--data synthetic`, which is the default: {values(SYNTHETIC)}.",
        "`--encoder-weights none`: `--unfreeze-from all`, since nothing else would ever train what is random.",
        "## Jobs on Kubernetes",
        "They are flags of `launcher submit`, `render` and `preflight`, and the keys of a job's file "
        "(`launcher submit -f JOB.yaml`; `launcher render --job` writes one).",
        *groups(TrainingJob),
    ]
    return "\n\n".join(parts) + "\n"


def commands_page() -> str:
    parts = [
        "# Commands",
        MADE,
        "`-h` or `--help` after any of them shows the same in the terminal. What a command's exit code means stands in "
        "[Errors and exit codes](errors.md).",
    ]
    for name, group in (("launcher", launcher), ("trainer", trainer)):
        assert isinstance(group, click.Group)
        context = click.Context(group, info_name=name, terminal_width=500)
        parts += [f"## {name}", inspect.cleandoc(group.help or ""), overview(group, context)]
        for command_name in group.list_commands(context):
            command = group.get_command(context, command_name)
            assert command is not None
            parts += command_section(command, context, command_name)
    return "\n\n".join(parts) + "\n"


def groups(settings: type[Settings]) -> Iterator[str]:
    """A heading for each comment that stands above fields, and under it a table of these fields."""
    schema = settings.model_json_schema()
    rows: list[list[str]] = []
    heading: str | None = None
    headings = comments_above(settings)
    for name, field in settings.model_fields.items():
        if name == "training":  # the settings above
            continue
        if name in headings:
            if rows:
                yield titled(heading, rows)
            heading, rows = headings[name], []
        of_time = Duration in (field.annotation, *getattr(field.annotation, "__args__", ()))
        kind = "a time: 90s, 30m, 12h, 2d" if of_time else kind_of(schema["properties"][name])
        rows.append([f"`--{name.replace('_', '-')}`", kind, default_of(field), field.description or ""])
    yield titled(heading, rows)


def comments_above(settings: type[Settings]) -> dict[str, str]:
    """Of each field with a comment of its own line above it: that comment."""
    found = re.findall(r"^    # (.+)\n    (\w+): ", inspect.getsource(settings), re.MULTILINE)
    return {name: comment for comment, name in found}


def titled(heading: str | None, rows: Sequence[Sequence[str]]) -> str:
    return (f"### {heading}\n\n" if heading else "") + table(("setting", "value", "default", "what it does"), rows)


def kind_of(schema: Mapping[str, Any]) -> str:
    """What may be given, in words, from a field's JSON schema."""
    if "anyOf" in schema:
        return " or ".join(kind_of(each) for each in schema["anyOf"] if each.get("type") != "null")
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    match schema["type"]:
        case "array":
            return kind_of(schema["items"])
        case "boolean":
            return "flag, or `--no-…`"
        case "integer" | "number" as kind:
            return " ".join(("whole number" if kind == "integer" else "number", limits(schema))).strip()
        case _:
            return _TEXTS.get(schema.get("format", ""), "text")


_TEXTS = {
    "path": "path",
    "image-size": f"whole number from {SMALLEST_SIDE} to {LARGEST_SIDE}, or two of them: HEIGHTxWIDTH",
    "workers": "whole number from 1 on, or a range such as 2..8",
    "size": "bytes, or a size such as 500MB or 20GiB",
}
"""What is written, by the format that the schema names."""


def limits(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if "exclusiveMinimum" in schema:
        return f"above {schema['exclusiveMinimum']:g}"
    if "exclusiveMaximum" in schema:
        return f"from {low:g}, below {schema['exclusiveMaximum']:g}"
    if high is not None:
        return f"from {low:g} on" if high >= MOST else f"from {low:g} to {high:g}"
    return "" if low is None else f"from {low:g} on"


def default_of(field: Any) -> str:
    if field.default_factory is not None:
        return "made from the time"
    if field.default is None or field.default == ():
        return ""
    value = field.default
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def values(settings: Mapping[str, Any]) -> str:
    return ", ".join(flag(f"no_{name}") if value is False else flag(name, value) for name, value in settings.items())


def flag(name: str, *value: Any) -> str:
    return f"`{' '.join(map(str, ('--' + name.replace('_', '-'), *value)))}`"


def overview(group: click.Group, context: click.Context) -> str:
    rows = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        summary = COMMANDS[name][1] if group is launcher else command.get_short_help_str(200)
        rows.append([f"[`{name}`](#{context.info_name}-{name})", summary])
    return table(("command", "what it does"), rows)


def command_section(command: click.Command, parent: click.Context, name: str) -> Iterator[str]:
    context = click.Context(command, info_name=name, parent=parent, terminal_width=500)
    yield f"### {parent.info_name} {name}"
    yield inspect.cleandoc(command.help or "")
    yield f"```text\n{' '.join(command.get_usage(context).split()).removeprefix('Usage: ')}\n```"
    rows = []
    for parameter in command.params:
        if not isinstance(parameter, click.Option) or parameter.hidden:
            continue
        if heading := settings_of(parameter):
            row = [some_settings(command, heading), "as a flag"]
        else:
            record = parameter.get_help_record(context)
            assert record is not None  # it is not hidden
            row = [f"`{record[0]}`", record[1]]
        if row not in rows:
            rows.append(row)
    if rows:
        yield table(("option", "what it does"), rows)


def some_settings(command: click.Command, heading: str) -> str:
    """Which settings under ``heading`` the command has: all, all but a few, or a few."""
    of_command = [option for option in command.params if isinstance(option, click.Option)]
    there = [option.opts[0] for option in of_command if settings_of(option) == heading]
    missing = [option.opts[0] for option in SETTINGS[heading].flags() if option.opts[0] not in there]
    link = f"(settings.md#{heading.lower().replace(' ', '-')})"
    if len(missing) > len(there):
        return f"[settings under {heading}]{link}: {code_of(there)}"
    return f"[each setting under {heading}]{link}" + (f" but {code_of(missing)}" if missing else "")


def code_of(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def settings_of(option: click.Option) -> str | None:
    """The heading of settings.md that ``option`` stands under; None if it is the command's own."""
    for part, settings in SETTINGS.items():
        made = {flag.name: flag for flag in settings.flags()}.get(option.name)
        if isinstance(made, click.Option) and made.help == option.help and made.opts == option.opts:
            return part
    return None


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["-"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(' '.join(cell.split()) for cell in line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
