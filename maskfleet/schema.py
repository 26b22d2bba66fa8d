"""What is read back from a disk or a bucket, by its type: as if anybody had written it, since anybody may have.

A number beyond sense is refused with the rest: what a type's field allows stands at the field.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import pydantic
from pydantic_core import PydanticCustomError

T = TypeVar("T")

LATEST = 253402300799.0
"""The end of the year 9999 in Unix seconds, beyond which a time is none."""

Count = Annotated[int, pydantic.Field(ge=0, lt=1 << 63)]
Seconds = Annotated[float, pydantic.Field(ge=0, le=LATEST, allow_inf_nan=False)]
"""A duration, or a time since 1970."""


def _share(value: float) -> float:
    if value < 0 or value > 1:
        raise PydanticCustomError("share", "Input should be between 0 and 1")
    return value


Share = Annotated[float, pydantic.AfterValidator(_share)]
"""From 0 to 1; NaN is the share of nothing."""

_adapters: dict[Any, pydantic.TypeAdapter[Any]] = {}


def validated(kind: type[T], content: bytes | Mapping[str, Any]) -> T:
    """The record of type ``kind`` in the bytes of a JSON file, or in an object that holds its keys among others.

    Raises:
        ValueError: it is none; the message says where and why, in one line.
    """
    adapter: pydantic.TypeAdapter[T] = _adapter(kind)
    try:
        # As JSON in any case: of Python's objects it would take an instance of the type alone.
        text = content if isinstance(content, bytes) else json.dumps(content)
        return adapter.validate_json(text, strict=True)
    except pydantic.ValidationError as error:
        problem = error.errors(include_input=False)[0]
        place = ".".join(map(str, problem["loc"])) or "its content"
        raise ValueError(f"{place}: {problem['msg']}") from error


def parsed(kind: type[T], content: bytes | Mapping[str, Any]) -> T | None:
    """As :func:`validated`; None for what is no such record."""
    try:
        return validated(kind, content)
    except ValueError:
        return None


def _adapter(kind: Any) -> pydantic.TypeAdapter[Any]:
    """Made once for a type, and only for one that is read: each takes a millisecond."""
    if kind not in _adapters:
        _adapters[kind] = pydantic.TypeAdapter(kind)
    return _adapters[kind]
