"""Texts as people read them: one line, and nothing that a terminal would obey."""

from __future__ import annotations

import html
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskfleet.text import as_markdown, format_duration, numbers_in, one_line, printable, printable_line, ranges


@pytest.mark.parametrize(("text", "shown"), [
    ("as it is: ümläut, 漢字, ×", "as it is: ümläut, 漢字, ×"),
    ("a\nb\tc", "a\nb\tc"),
    ("\x1b[2J\x1b[1;31mred", "\\x1b[2J\\x1b[1;31mred"),
    ("worker 0\rworker-9 | forged", "worker 0\\rworker-9 | forged"),
    ("\x9b31m", "\\x9b31m"),
    ("\x07\x08\x00", "\\x07\\x08\\x00"),
    ("gnp.\u202eexe", "gnp.\\u202eexe"),
    ("\udcff", "\\udcff"),
])  # fmt: skip
def test_what_a_terminal_would_obey_is_shown_as_its_code(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters()))
def test_no_control_character_is_left(text: str) -> None:
    left = printable(text).replace("\n", "").replace("\t", "")
    assert not [each for each in left if unicodedata.category(each) in ("Cc", "Cf", "Cs")]
    assert one_line(text).splitlines() in ([], [one_line(text)])


@pytest.mark.parametrize(("seconds", "shown"), [
    (0, "0s"), (59.4, "59s"), (5400, "1h30m"), (90061, "1d1h"), (-0.4, "0s"), (-5, "0s"), (-86400, "0s"),
])  # fmt: skip
def test_a_duration_is_never_less_than_nothing(seconds: float, shown: str) -> None:
    assert format_duration(seconds) == shown


@pytest.mark.parametrize("text", [
    "a|b", "<img src=x onerror=alert(1)>", "![x](http://example.com/x.png)", "[a](b)", "**bold** _it_ `code`",
    "a\nb", "&lt;", "back\\slash", "\\|", "~~gone~~", "$x$", "\x1b[31m", "gnp.\u202eexe",
])  # fmt: skip
def test_a_cell_of_markdown_shows_the_text_as_it_is(text: str) -> None:
    from tensorboard.plugin_util import markdown_to_safe_html

    shown = markdown_to_safe_html(f"|name|value|\n|-|-|\n|{as_markdown(text)}|1|")
    cells = [html.unescape(cell) for cell in re.findall("<td[^>]*>(.*?)</td>", shown, re.DOTALL)]
    assert cells == [one_line(text), "1"]


@given(st.binary())
def test_a_line_of_any_bytes_is_text_that_a_terminal_does_not_obey(line: bytes) -> None:
    text = printable_line(line).decode()
    assert not [each for each in text if each not in "\n\t" and not each.isprintable()]


def test_numbers_as_ranges_and_back():
    assert ranges([0, 1, 2, 5]) == "0-2,5"
    assert ranges([0, 2, 4], 2) == "0,2,…"
    assert numbers_in("0-2,5", 6) == [0, 1, 2, 5]
    assert numbers_in("", 6) == []


@pytest.mark.parametrize("text", ["0-6", "6", "2-1", "a", "1-b", "-", "0-99999999999999999999", "²"])
def test_numbers_that_are_none_of_few_are_refused(text):
    with pytest.raises(ValueError, match="expected numbers below 6 such as 0-2,5"):
        numbers_in(text, 6)
