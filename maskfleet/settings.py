"""Settings that are at once flag, configuration-file key, documentation and validation.

A subclass of :class:`Settings` declares each setting once, as a pydantic field with a description. Its
name with ``-`` is the flag, with ``_`` the key in a file; its type is the validation. Imports no
TensorFlow.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import click
import pydantic
from pydantic.fields import FieldInfo

from maskfleet.errors import BadSettings
from maskfleet.foreign_files import parse_json, parse_yaml, read_text
from maskfleet.text import one_line


class Layer(NamedTuple):
    """Settings from one place; ``origin`` says which in an error message, with ``{}`` for the key."""

    origin: str
    values: Mapping[str, Any]


class Settings(pydantic.BaseModel):
    """Base of all settings: unknown keys are errors, values never change after validation."""

    named_elsewhere: ClassVar[Mapping[str, str]] = {}
    """The settings that other programs call so."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _says_what_it_means(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        """True would pass for the number 1, and a path with a NUL for none that the system knows."""
        annotation = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and bool not in (annotation, *typing.get_args(annotation)):
            raise ValueError("expected a number or text; YAML takes yes, no, on and off for true and false: quote text")
        for text in value if isinstance(value, list | tuple) else (value,):
            if isinstance(text, str) and "\0" in text:
                raise ValueError("expected text without a NUL character")
            if isinstance(text, str) and not text.isascii() and text.encode(errors="replace").decode() != text:
                raise ValueError("expected text in UTF-8; rename what has other bytes in its name (convmv does)")
        return value

    @classmethod
    def resolve(cls, layers: Sequence[Layer]) -> Self:
        """Validates the layers laid over each other, the last one on top.

        Raises:
            BadSettings: in one line, with the flag or key, what was expected and what was found.
        """
        merged: dict[str, Any] = {}
        origins: dict[str, str] = {}
        for layer in layers:
            for key, value in layer.values.items():
                if key not in cls.model_fields:
                    raise BadSettings(cls._unknown(layer.origin.format(key), key))
                merged[key] = value
                origins[key] = layer.origin
        try:
            return cls(**merged)
        except pydantic.ValidationError as error:
            raise BadSettings(_explain(error, origins)) from error

    @classmethod
    def check_each(cls, layer: Layer) -> None:
        """Validates each setting of ``layer`` by itself, as long as it is not known what they will be laid over.

        Raises:
            BadSettings: as :meth:`resolve`, but not for a rule about several settings.
        """
        try:
            cls.resolve([layer])
        except BadSettings as error:
            cause = error.__cause__
            if not isinstance(cause, pydantic.ValidationError) or cause.errors()[0]["loc"]:
                raise

    @classmethod
    def flags(cls) -> list[click.Parameter]:
        """A click option for each field. A flag that is not given yields None, and so does not override."""
        return [_option(name, field) for name, field in cls.model_fields.items()]

    @classmethod
    def parse_flags(cls, arguments: Sequence[str]) -> Layer:
        """Reads ``--key value`` arguments, as they stand after ``--`` on a launcher's command line.

        Raises:
            BadSettings: an unknown flag (the nearest is named), a missing value, a word that is no flag.
        """
        command = click.Command("settings", params=cls.flags(), add_help_option=False)
        try:
            context = command.make_context("settings", list(arguments))
        except click.NoSuchOption as error:
            key = error.option_name.lstrip("-").replace("-", "_")
            raise BadSettings(cls._unknown(error.option_name, key, flag=True)) from error
        except click.UsageError as error:
            raise BadSettings(_usage(error, command, arguments)) from error
        return flag_layer(context.params)

    @classmethod
    def _unknown(cls, place: str, key: str, *, flag: bool = False) -> str:
        known = {**cls.named_elsewhere, **{name: name for name in cls.model_fields}}
        near = difflib.get_close_matches(key[:_LONGEST_SHOWN], known, n=1, cutoff=0.7)
        place = one_line(place, 2 * _LONGEST_SHOWN)
        if not near:
            return f"{place}: there is no such setting; 'trainer train --help' lists them"
        name = known[near[0]]
        return f"{place}: there is no such setting; did you mean {'--' + name.replace('_', '-') if flag else name}?"


def flag_layer(parameters: Mapping[str, Any]) -> Layer:
    """The layer of those click parameters that were given."""
    given = {key: value for key, value in parameters.items() if value is not None and value != ()}
    return Layer("--{}", given)


def read_settings_file(path: Path) -> Layer:
    """Reads a YAML or JSON file of settings; a run's ``config.json`` keeps them under ``settings``.

    A null stands for a setting that is not made.

    Raises:
        BadSettings: the file is missing, is no YAML, stands for too much, or holds no keys and values.
    """
    try:
        text = read_text(path)
        content = parse_json(text) if path.suffix == ".json" else parse_yaml(text)
    except ValueError as error:
        raise BadSettings(f"{path}: {error}") from error
    place = str(path)
    if isinstance(content, dict) and content.get("settings") is not None:
        content, place = content["settings"], f"{path}: settings"
    if content is None:
        content = {}
    if not isinstance(content, dict):
        kind = {list: "a list", str: "text", bool: "true or false"}.get(type(content), "a single value")
        raise BadSettings(f"{place}: expected keys and values such as 'epochs: 20', found {kind}")
    return Layer(f"{path}: {{}}", {str(key): value for key, value in content.items() if value is not None})


def _option(name: str, field: FieldInfo) -> click.Option:
    flag = "--" + name.replace("_", "-")
    annotation = _without_none(field.annotation)
    help_text = field.description or ""
    shown = not field.is_required() and field.default_factory is None and not isinstance(field.default, tuple)
    if shown and field.default is not None:
        help_text += f"  [default: {field.default}]"
    if annotation is bool:
        return click.Option([f"{flag}/--no-{flag[2:]}", name], default=None, help=help_text)
    metavar = name.rsplit("_", 1)[-1].upper()
    choices = [
        value
        for part in (typing.get_args(annotation) if _is_union(annotation) else (annotation,))
        if typing.get_origin(part) is typing.Literal
        for value in typing.get_args(part)
    ]
    if choices:
        metavar = "|".join(map(str, choices)) if not _is_union(annotation) else f"{metavar}|" + "|".join(choices)
    multiple = typing.get_origin(annotation) in (tuple, list)
    return click.Option(
        [flag, name], default=None, multiple=multiple, help=help_text, metavar=metavar, type=click.UNPROCESSED
    )


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _without_none(annotation: Any) -> Any:
    """``X | None`` -> ``X``; any other annotation as it is."""
    if _is_union(annotation):
        parts = [part for part in typing.get_args(annotation) if part is not type(None)]
        if len(parts) == 1:
            return parts[0]
    return annotation


def _usage(error: click.UsageError, command: click.Command, arguments: Sequence[str]) -> str:
    """What click says, and how a word is meant that belongs to no flag."""
    message = error.format_message()
    if "unexpected extra argument" not in message:
        return message
    _, words, _ = command.make_parser(click.Context(command)).parse_args(list(arguments))
    place = arguments.index(words[0])
    before = arguments[place - 1] if place else ""
    if any(option.is_flag and before in option.opts for option in command.params if isinstance(option, click.Option)):
        return f"{message}; {before} takes no value, and --no-{before[2:]} is its contrary"
    return f"{message}; settings are written as --epochs 20"


def _explain(error: pydantic.ValidationError, origins: Mapping[str, str]) -> str:
    """The first problem of a validation, as one line."""
    problem, *others = error.errors(include_url=False)
    message = _OURS.get(problem["type"]) or problem["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if not problem["loc"]:  # a rule about several settings names them itself
        return message
    key = str(problem["loc"][0])
    origin = origins.get(key, "--{}")
    place = origin.format(key.replace("_", "-") if origin == "--{}" else key)
    if problem["type"] == "missing":
        return f"{place}: is needed"
    # Of a number or a word such as 'auto' the first problem tells of the number alone.
    for other in others:
        if other["loc"][:1] == problem["loc"][:1] and other["type"] == "literal_error":
            message += f", or {other['ctx']['expected']}"
    if problem["type"] in ("tuple_type", "list_type"):
        # What was found is not shown: it may be a secret that stands in the wrong place.
        found = "keys and values" if isinstance(problem["input"], dict) else "a single value"
        return f"{place}: expected a list, in YAML a line '- VALUE' for each value, found {found}"
    return f"{place}: {message}, found {one_line(repr(problem['input']), _LONGEST_SHOWN)}"


_OURS = {
    "path_type": "expected a path",
    "finite_number": "expected a finite number",
    "string_type": "expected text; quote what YAML takes for a number, a date or a list",
}
"""In place of pydantic's words, by its name of the problem."""
_LONGEST_SHOWN = 160
"""Characters of a value in a message."""
