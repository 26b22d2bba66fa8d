"""How both command lines end: every mistake in one line, with the exit code that belongs to it.

MASKFLEET_DEBUG=1 puts the traceback, with all causes, before the line.
"""

from __future__ import annotations

import io
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from maskfleet.environment import is_debugging
from maskfleet.errors import BAD_INPUT, INTERRUPTED, MaskfleetError
from maskfleet.quiet import leave_out_warnings
from maskfleet.sentences import ERROR
from maskfleet.text import printable

_IN_ASCII = str.maketrans({"█": "#", "…": "..."})


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Prints ``text``, whoever wrote it, so that a terminal obeys nothing in it, and whatever the output can take."""
    text = printable(text)
    encoding = (sys.stderr if err else sys.stdout).encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_IN_ASCII).encode(encoding, "backslashreplace").decode(encoding)
    click.echo(text, err=err, nl=nl)


def echo_line(text: str) -> None:
    """Prints ``text`` to standard error in one line, also if a file's name in it has several."""
    echo(text.replace("\n", "\\n"), err=True)


def report_error(error: MaskfleetError) -> int:
    """Tells the user in one line, and returns the exit code."""
    if is_debugging():
        traceback.print_exception(error)
    echo_line(ERROR + str(error))
    return error.exit_code


class UserPath(click.Path):
    """A file or folder; ``~`` and ``~USER`` mean what they do to the shell, which passes over ``--out=~/x``."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value).startswith("~"):
            from maskfleet.config import absolute_path  # slow, and seldom needed

            value = absolute_path(value, param.opts[0] if isinstance(param, click.Option) else "the path")
        return super().convert(value, param, ctx)


class Group(click.Group):
    """A group of commands; what a command returns is the exit code, and None is 0."""

    def main(self, *args: Any, **extra: Any) -> None:  # type: ignore[override]
        extra["standalone_mode"] = False
        leave_out_warnings()
        for stream in (sys.stdout, sys.stderr):  # what an output can't take, as a name in other letters, is no reason
            if isinstance(stream, io.TextIOWrapper):  # to end
                stream.reconfigure(errors="backslashreplace")
        try:
            sys.exit(super().main(*args, **extra) or 0)
        except MaskfleetError as error:
            sys.exit(report_error(error))
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(BAD_INPUT)
        except click.ClickException as error:
            echo(ERROR + error.format_message(), err=True)
            sys.exit(BAD_INPUT)
        except (click.Abort, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
