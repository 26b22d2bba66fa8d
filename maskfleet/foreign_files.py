"""Small files that somebody else has written: read whole, within bounds, or refused in a few words.

A few kilobytes of YAML may stand for gigabytes by aliases, a nesting of brackets may use up the stack, a name may be
that of a pipe. The settings of a run take some hundred values in three levels, so the bounds leave them much room.
"""

from __future__ import annotations

import codecs
import errno
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from maskfleet.files import open_plain
from maskfleet.text import format_bytes, one_line

LARGEST_FILE = 1 << 20
"""Bytes."""
MOST_VALUES, DEEPEST = 20_000, 32
"""Keys and values of a file, those that aliases repeat counted each time, and levels of nesting."""

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_WIDE = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: Path) -> str:
    """The text of a regular file in UTF-8, without the mark that Windows puts before it.

    Raises:
        ValueError: in words that go behind the file's name: it can't be read, is no text, or is too large.
    """
    try:
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(LARGEST_FILE + 1)
    except FileNotFoundError as error:
        raise ValueError("can't be read: there is no such file") from error
    except IsADirectoryError as error:
        raise ValueError("expected a file, found a folder") from error
    except OSError as error:
        what = error.strerror or str(error)
        raise ValueError(what if error.errno == errno.EINVAL else f"can't be read: {what}") from error
    if len(content) > LARGEST_FILE:
        raise ValueError(f"expected at most {format_bytes(LARGEST_FILE)}, found {format_bytes(size)}")
    if content.startswith(_WIDE) or b"\0" in content[:4]:
        raise ValueError("expected text in UTF-8, found UTF-16 or UTF-32; save it as UTF-8")
    if (place := content.find(b"\0")) >= 0:
        raise ValueError(f"expected text, found a NUL byte at position {place}")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line}: expected text in UTF-8, found the byte {content[error.start]:#04x}; save it as UTF-8"
        ) from error


def parse_json(text: str) -> Any:
    """What JSON says.

    Raises:
        ValueError: in words that go behind the file's name: it is no JSON, nested too deeply, or has a key twice.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"expected YAML or JSON: line {error.lineno}, column {error.colno}: {error.msg.lower()}"
        ) from error
    except RecursionError as error:
        raise ValueError(_too_deep()) from error
    except ValueError as error:
        raise ValueError(f"expected YAML or JSON: {_short(error)}") from error
    _check_depth(value)
    return value


def parse_yaml(text: str) -> Any:
    """What YAML says, of one document and of plain values.

    Raises:
        ValueError: in words that go behind the file's name: it is no YAML, stands for too much, or has a key twice.
    """
    try:
        _check_events(text)
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(
            f"expected YAML or JSON: {place}{_short(error.problem or error.context)}{_tab(text, mark)}"
        ) from error
    except _Refused as error:
        raise ValueError(str(error)) from error
    except RecursionError as error:
        raise ValueError(_too_deep()) from error
    except Exception as error:  # PyYAML's constructors raise a dozen types for dates and numbers that are none
        raise ValueError(f"expected plain values, found one that is not what it says: {_short(error)}") from error


class _Refused(ValueError):
    pass


@dataclass
class _Open:
    """A list or mapping that is being read; ``began`` is how many values were counted before it."""

    anchor: str | None
    began: int
    is_mapping: bool
    at_key: bool = True
    keys: dict[str, int] = field(default_factory=dict)


def _check_events(text: str) -> None:
    """Counts what a document stands for, before anything is made of it. Needs no stack."""
    count = 0
    sizes: dict[str, int] = {}  # of what each anchor names
    opened: list[_Open] = []
    documents = 0
    event: Any  # its attributes depend on its kind
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise _Refused(f"line {line}: expected one document, found a second one")
        elif isinstance(event, yaml.CollectionEndEvent):
            ended = opened.pop()
            if ended.anchor is not None:
                sizes[ended.anchor] = count - ended.began
        elif isinstance(event, yaml.NodeEvent):
            if opened and opened[-1].is_mapping:
                _check_key(opened[-1], event, line)
            began = count
            count += _size(event, sizes, opened, line)
            if count > MOST_VALUES:
                raise _Refused(f"line {line}: expected at most {MOST_VALUES} values, aliases counted each time")
            if isinstance(event, yaml.CollectionStartEvent):
                opened.append(_Open(event.anchor, began, isinstance(event, yaml.MappingStartEvent)))
                if len(opened) > DEEPEST:
                    raise _Refused(f"line {line}: {_too_deep()}")


def _size(event: Any, sizes: dict[str, int], opened: Sequence[_Open], line: int) -> int:
    if isinstance(event, yaml.AliasEvent):
        name = str(event.anchor)
        if any(name == each.anchor for each in opened):
            raise _Refused(f"line {line}: *{one_line(name, 120)} stands for what it is itself a part of")
        return sizes.get(name, 1)
    if isinstance(event, yaml.ScalarEvent) and event.anchor is not None:
        sizes[event.anchor] = 1
    return 1


def _check_key(mapping: _Open, event: Any, line: int) -> None:
    """Raises _Refused if the event is a key that the mapping has already: the first value would be lost silently."""
    if mapping.at_key and isinstance(event, yaml.ScalarEvent):
        key = str(event.value)
        if key in mapping.keys:
            first = mapping.keys[key]
            raise _Refused(f"line {line}: the key {one_line(key, 120)} stands on line {first} too; keep one")
        mapping.keys[key] = line
    mapping.at_key = not mapping.at_key


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {one_line(key, 120)} stands there twice; keep one")
        found[key] = value
    return found


def _check_depth(value: Any) -> None:
    left = [(value, 0)]
    while left:
        each, depth = left.pop()
        if depth > DEEPEST:
            raise ValueError(_too_deep())
        if isinstance(each, dict | list):
            left.extend((inner, depth + 1) for inner in (each.values() if isinstance(each, dict) else each))


def _too_deep() -> str:
    return f"expected at most {DEEPEST} levels of nesting, found more"


def _short(error: object) -> str:
    words = str(error).partition("; use sys.")[0]  # Python's advice about numbers of thousands of digits
    return one_line(words, 200) or type(error).__name__


def _tab(text: str, mark: Any) -> str:
    """What to do about the tab that YAML stumbles over, if it is one."""
    line: Sequence[str] = text.split("\n")[mark.line : mark.line + 1] if mark else ()
    return "; indent with spaces instead of tabs" if line and "\t" in line[0] else ""
