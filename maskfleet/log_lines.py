"""Log messages as lines for a terminal, whoever's names and words are in them."""

from __future__ import annotations

import logging

from maskfleet.text import printable


class OneLine(logging.Formatter):
    """A message is one line, whatever names of files and words of servers are in it."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = printable(record.message).replace("\n", "\\n")
        return super().formatMessage(record)


def show_warnings_in_lines() -> None:
    """For a process that sets up no log of its own: Python prints warnings and errors as they are, escapes too."""
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(OneLine("%(message)s"))
