"""JSON, YAML and XML as annotation tools write them, and what is wrong with them in one line. Imports no TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from maskfleet.errors import BadData
from maskfleet.files import open_plain
from maskfleet.text import format_bytes, one_line
from trainer.data.walk import check_is_file

_LARGEST = 1 << 31
"""Bytes of a file that is read whole; COCO's own annotations have a quarter of it."""

_T = TypeVar("_T")


def read_json(file: Path, hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The content of a JSON file.

    Args:
        hook: gets every object when it has been read, and gives what takes its place.

    Raises:
        BadData: the file is missing, too large or no JSON; with the line and column.
    """
    text = read_text(file)
    try:
        return json.loads(text, object_hook=hook)
    except json.JSONDecodeError as error:
        what = one_line(error.msg).removesuffix(" at")
        raise BadData(
            f"{file}: line {error.lineno}, column {error.colno}: expected JSON: {what}; is the file complete? "
            "export it again"
        ) from error
    except RecursionError as error:
        raise BadData(f"{file}: expected JSON of annotations, found lists nested without end") from error
    except ValueError as error:  # a number of thousands of digits
        raise BadData(f"{file}: expected JSON of annotations, found a number of thousands of digits") from error


def head(file: Path) -> bytes:
    """The first 64 KiB of a file, by which its kind is told; nothing of what is no file, or can't be read."""
    try:
        with open_plain(file) as content:
            return content.read(1 << 16)
    except OSError:
        return b""


def read_text(file: Path) -> str:
    """Text in UTF-8, with or without a byte order mark.

    Raises:
        BadData: it is missing, no text, or larger than any annotations.
    """
    try:
        if not file.exists() and not file.is_symlink():
            raise BadData(f"{file}: there is no such file")
        check_is_file(file)
        if (size := file.stat().st_size) > _LARGEST:
            raise BadData(f"{file}: expected annotations, found a file of {format_bytes(size)}")
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadData(f"{file}: expected text in UTF-8, found byte {error.object[error.start]:#04x}") from error
    except OSError as error:
        raise BadData(f"{file}: can't be read: {error.strerror}") from error


def field(record: Any, key: str, kind: type[_T] | tuple[type[_T], ...], where: str) -> _T:
    """``record[key]``.

    Raises:
        BadData: ``record`` is no object, has no such key, or something else there.
    """
    if type(record) is not dict and not isinstance(record, Mapping):
        raise BadData(f"{where}: expected an object with {key}, found {one_line(repr(record))[:60]}")
    kinds = kind if isinstance(kind, tuple) else (kind,)
    value = record.get(key)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        found = one_line(repr(value))[:60] if key in record else "none"
        raise BadData(
            f"{where}: expected {key} as {' or '.join(_NAMES.get(each, each.__name__) for each in kinds)}, "
            f"found {found}"
        )
    return value


_NAMES: Mapping[type, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "an object",
    bool: "true or false",
}
