"""Numbers and messages as people read them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_MARKUP = re.compile(r"[\\`*_\[\]|]")
SECONDS_OF_UNIT = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def format_bytes(amount: float) -> str:
    """``4294967296`` -> ``4.0 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([kKMGT]?)(i?)B?")


def parse_bytes(text: object) -> int:
    """``500MB`` -> 500000000, ``2GiB`` or ``2Gi`` -> 2147483648; a number is one of bytes.

    Raises:
        ValueError: it is no size.
    """
    match = _SIZE.fullmatch(str(text).strip())
    if match is None or (match[3] and not match[2]):
        raise ValueError("expected a size such as 500MB, 20GB or 2GiB")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** " KMGT".index(match[2].upper() or " "))


def format_duration(seconds: float) -> str:
    """The two largest units: ``5400`` -> ``1h30m``. Less than nothing, as between two machines' clocks, is nothing."""
    left = max(0, round(seconds))
    parts = []
    for unit, size in reversed(SECONDS_OF_UNIT.items()):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
        if len(parts) == 2:
            break
    return "".join(parts) or "0s"


def one_line(text: str, limit: int = 300) -> str:
    """``text`` without line ends, cut in the middle of what is too long for a line."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= limit else f"{line[: limit - 100]} … {line[-90:]}"


def some_of(names: Sequence[str], most: int = 5, separator: str = ", ") -> str:
    """``a, b, c and 12 more``: a list that does not grow with what is in it."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return separator.join(names[:most]) + more


def ranges(numbers: Iterable[int], most: int | None = None) -> str:
    """``[0, 1, 2, 5]`` -> ``0-2,5``; of more than ``most`` ranges the first ones and …"""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    words = [f"{first}-{last}" if last > first else str(first) for first, last in found]
    return ",".join(words[:most] + (["…"] if most is not None and len(words) > most else []))


def numbers_in(text: str, most: int) -> list[int]:
    """``0-2,5`` -> [0, 1, 2, 5].

    Raises:
        ValueError: it is no such text, or has a number of ``most`` or more.
    """
    found: list[int] = []
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()) or not int(first) <= int(last or first) < most:
            raise ValueError(f"expected numbers below {most} such as 0-2,5, found {part[:40]!r}")
        found.extend(range(int(first), int(last or first) + 1))
    return found


def cut_to_bytes(text: str, limit: int) -> str:
    """``text``, or as much of its beginning as has ``limit`` bytes in UTF-8 together with a …"""
    content = text.encode(errors="replace")
    return text if len(content) <= limit else content[: limit - 3].decode(errors="ignore") + "…"


def printable(text: str) -> str:
    """``text`` with what a terminal would obey, and what would turn around the direction of writing, as its code.

    Names and lines of files, buckets and clusters are other people's: an escape sequence in one could forge the next.
    Ends of lines and tabs stay.
    """
    if text.isprintable():
        return text
    return "".join(
        each if each in "\n\t" or each.isprintable() else each.encode("unicode_escape", "surrogatepass").decode()
        for each in text
    )


def printable_line(line: bytes) -> bytes:
    """:func:`printable` of a line of some process, whatever bytes it has."""
    return printable(line.decode(errors="backslashreplace")).encode()


def as_markdown(text: str) -> str:
    """``text``, whoever wrote it, as a cell of a Markdown table that shows it as it is."""
    line = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace("~", "&#126;")
    return _MARKUP.sub(r"\\\g<0>", line)
