"""How a command ends when its outputs are closed, full, unread or know few letters, and of errors nobody foresaw."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from maskfleet.log_lines import show_warnings_in_lines

COMMAND = """
import click
from maskfleet.command_line import Group, UserPath, echo
from maskfleet.errors import BadSettings

main = Group("main")

@main.command()
@click.argument("text")
def say(text): echo(text)

@main.command()
def fail(): raise BadSettings("no such █")

@main.command()
@click.option("--out", type=UserPath())
def read(out): out.read_bytes()

@main.command()
@click.argument("file")
def write(file):
    with open(file, "w") as f: f.write("whole")
    print("printed")

main()
"""


def command(*arguments: str, shell: str = "", **variables: str) -> tuple[int, str, str]:
    """Exit code and what is left on both outputs; ``shell`` is put behind the command, as ``>&-``."""
    done = subprocess.run(
        ["bash", "-c", f'"$0" -c "$1" "${{@:2}}" {shell}', sys.executable, COMMAND, *arguments],
        env={**os.environ, "PYTHONUNBUFFERED": "", **variables},
        capture_output=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


@pytest.mark.parametrize(("arguments", "shell", "variables", "ended"), [
    (["say", "█ä…"], "", {"PYTHONIOENCODING": "ascii"}, (0, "#\\xe4...\n", "")),
    (["say", "█ä…"], "", {"PYTHONIOENCODING": "latin-1"}, (0, "#\ufffd...\n", "")),
    (["fail"], "", {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, (2, "", "error: no such #\n")),
    (["say"], "", {}, (2, "", "error: Missing argument 'TEXT'; '-c say --help' shows how it is called\n")),
    (["read", "--out"], "", {}, (2, "", "error: Option '--out' requires an argument.\n")),
    (["fail", "x"], "", {}, (
        2, "", "error: Got unexpected extra argument (x); '-c fail --help' shows how it is called\n"
    )),
    (["fail", "--x"], "", {}, (2, "", "error: No such option '--x'; '-c fail --help' shows how it is called\n")),
    (["read", "--oot", "x"], "", {}, (2, "", "error: No such option '--oot'. Did you mean '--out'?\n")),
    (["sya", "x"], "", {}, (2, "", "error: sya: there is no such command; did you mean say?\n")),
    (["train"], "", {}, (2, "", "error: train: there is no such command; expected one of fail, read, say, write\n")),
    (["say", "x"], ">&-", {}, (0, "", "")),
    (["say", "x"], ">&- 2>&- <&-", {}, (0, "", "")),
    (["fail"], "2>&-", {}, (2, "", "")),
    (["fail"], "2>/dev/full", {}, (2, "", "")),
    (["say", "x"], ">/dev/full", {}, (1, "", "error: standard output: can't be written: No space left on device\n")),
    (["--help"], ">/dev/full", {}, (1, "", "error: can't read or write: No space left on device\n")),
    (["read", "--out", "/no/such"], "", {}, (1, "", "error: /no/such: No such file or directory\n")),
    (["read", "--out", "/"], "", {}, (2, "", "error: /: Is a directory\n")),
    (["read", "--out="], "", {}, (2, "", "error: Invalid value for '--out': expected a path, found nothing\n")),
    (["read", "--out=~nosuch/x"], "", {}, (
        2, "", "error: --out ~nosuch/x: there is no home of ~nosuch; name the place in full\n")),
    (["read", "--out=~/nosuch"], "", {"HOME": "/h"}, (1, "", "error: /h/nosuch: No such file or directory\n")),
])  # fmt: skip
def test_every_ending_is_one_line_and_a_code(
    arguments: list[str], shell: str, variables: dict[str, str], ended: tuple[int, str, str]
) -> None:
    assert command(*arguments, shell=shell, **variables) == ended


def test_an_output_that_nobody_reads_is_no_traceback() -> None:
    code, _, said = command("say", "x" * 100_000, shell="| head -c 1 >/dev/null; exit ${PIPESTATUS[0]}")
    assert (code, said) == (1, "")


def test_a_name_that_is_too_long_is_told_in_short() -> None:
    code, _, said = command("read", "--out", "x" * 5000)
    assert code == 2
    assert said.endswith("File name too long\n")
    assert len(said) < 400


def test_what_is_printed_does_not_go_into_a_file_that_was_opened_where_an_output_was_closed(tmp_path: Path) -> None:
    assert command("write", str(tmp_path / "file"), shell=">&- 2>&-")[0] == 0
    assert (tmp_path / "file").read_text() == "whole"


def test_a_warning_of_a_process_without_a_log_is_one_line_for_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = logging.StreamHandler()
    monkeypatch.setattr(logging, "lastResort", shown)
    show_warnings_in_lines()
    record = logging.LogRecord("launcher.restore", logging.WARNING, "", 0, "%s\rworker-9 | a\nb", ("\x1b[2J",), None)
    assert shown.format(record) == r"\x1b[2J\rworker-9 | a\nb"
