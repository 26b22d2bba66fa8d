"""How both command lines end: every mistake in one line, with the exit code that belongs to it.

MASKFLEET_DEBUG=1 puts the traceback, with all causes, before the line.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any

import click

from maskfleet.environment import is_debugging
from maskfleet.errors import BAD_INPUT, INTERRUPTED, MaskfleetError
from maskfleet.sentences import ERROR
from maskfleet.text import printable


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Prints ``text``, whoever wrote it, so that a terminal obeys nothing in it."""
    click.echo(printable(text), err=err, nl=nl)


class Group(click.Group):
    """A group of commands; what a command returns is the exit code, and None is 0."""

    def main(self, *args: Any, **extra: Any) -> None:  # type: ignore[override]
        extra["standalone_mode"] = False
        try:
            sys.exit(super().main(*args, **extra) or 0)
        except MaskfleetError as error:
            if is_debugging():
                traceback.print_exc()
            echo(ERROR + str(error), err=True)
            sys.exit(error.exit_code)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(BAD_INPUT)
        except click.ClickException as error:
            echo(ERROR + error.format_message(), err=True)
            sys.exit(BAD_INPUT)
        except (click.Abort, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
