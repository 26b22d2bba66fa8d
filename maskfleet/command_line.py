"""How both command lines end: every mistake in one line, with the exit code that belongs to it.

MASKFLEET_DEBUG=1 puts the traceback, with all causes, before the line.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from maskfleet.environment import is_debugging
from maskfleet.errors import BAD_INPUT, DONE, FAILED, INTERRUPTED, MaskfleetError
from maskfleet.log_lines import show_warnings_in_lines
from maskfleet.quiet import leave_out_warnings
from maskfleet.sentences import ERROR
from maskfleet.text import one_line, printable

_OF_A_NAME = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EINVAL}
)
"""What goes wrong because of the file that the user has named: trying again can't help."""
_IN_ASCII = str.maketrans({"█": "#", "…": "..."})


def echo(text: str, *, err: bool = False, nl: bool = True) -> None:
    """Prints ``text``, whoever wrote it, so that a terminal obeys nothing in it, and whatever the output can take."""
    text = printable(text)
    encoding = getattr(sys.stderr if err else sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_IN_ASCII).encode(encoding, "backslashreplace").decode(encoding)
    try:
        click.echo(text, err=err, nl=nl)
    except BrokenPipeError:  # whoever read it has ended, as head does
        raise
    except OSError as error:
        name = "standard error" if err else "standard output"
        raise MaskfleetError(f"{name}: can't be written: {error.strerror or error}") from error


def echo_line(text: str) -> None:
    """Prints ``text`` to standard error in one line, also if a file's name in it has several."""
    echo(text.replace("\n", "\\n"), err=True)


def prepare_outputs() -> None:
    """To be called before anything is opened or printed.

    An output that was closed (``>&-``) goes nowhere from now on, instead of into the next file that is opened. What an
    output can't take, as a name in other letters, is printed as its code.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class UserPath(click.Path):
    """A file or folder; ``~`` and ``~USER`` mean what they do to the shell, which passes over ``--out=~/x``."""

    def __init__(self, *, file_okay: bool = True) -> None:
        super().__init__(file_okay=file_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):  # of a variable of the shell that is not set: Python takes it for the current folder
            self.fail("expected a path, found nothing", param, ctx)
        if str(value).startswith("~"):
            from maskfleet.config import absolute_path  # slow, and seldom needed

            value = absolute_path(value, param.opts[0] if isinstance(param, click.Option) else "the path")
        return super().convert(value, param, ctx)


class Group(click.Group):
    """A group of commands; what a command returns is the exit code, and None is 0."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        names = self.list_commands(ctx)
        if args and not args[0].startswith("-") and args[0] not in names:
            import difflib  # for a mistake alone

            near = difflib.get_close_matches(args[0], names, n=1)
            mend = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(names)}"
            raise click.UsageError(f"{one_line(args[0])}: there is no such command; {mend}", ctx)
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **extra: Any) -> None:  # type: ignore[override]
        prepare_outputs()
        leave_out_warnings()
        show_warnings_in_lines()
        sys.exit(_ended(lambda: super(Group, self).main(*args, **{**extra, "standalone_mode": False})))


def _ended(command: Callable[[], Any]) -> int:
    """The exit code of ``command``, when what there is to say has been said."""
    try:
        code = command() or DONE
        sys.stdout.flush()  # that it can't be written is told now, or Python does at its end
        return int(code)
    except MaskfleetError as error:
        return report_error(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return BAD_INPUT
    except click.ClickException as error:
        return report_error(_with_help(error), BAD_INPUT)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BrokenPipeError:
        leave_outputs()
        return FAILED
    except OSError as error:  # that no command knows more about
        what = "can't read or write" if error.filename is None else one_line(os.fsdecode(error.filename))
        return report_error(f"{what}: {error.strerror or error}", BAD_INPUT if error.errno in _OF_A_NAME else FAILED)


def _with_help(error: click.ClickException) -> str:
    """What click says, and where it does not say how to mend that, what does."""
    message = error.format_message()
    mute = (click.MissingParameter, click.NoSuchOption)
    ctx = error.ctx if isinstance(error, click.UsageError) else None
    if ctx is None or message.endswith("?") or not (isinstance(error, mute) or message.startswith("Got unexpected")):
        return message
    return f"{message.rstrip('.')}; '{ctx.command_path} --help' shows how it is called"


def report_error(message: str, code: int) -> int:
    """Tells the user in one line, after the traceback of the error that is being handled if that is wanted.

    Returns:
        ``code``, the exit code.
    """
    with contextlib.suppress(OSError, MaskfleetError):  # nobody reads it: the code says it all the same
        if is_debugging():
            traceback.print_exc()
        echo_line(ERROR + message)
    leave_outputs()
    return code


def leave_outputs() -> None:
    """An output that can't be written goes nowhere from now on: at its end, Python would try it again."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
