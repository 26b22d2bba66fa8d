"""What is printed is read back, whatever stands in it."""

from __future__ import annotations

import logging

from hypothesis import given
from hypothesis import strategies as st

from maskfleet.sentences import LOG_FORMAT, logged, not_copied, out_of_memory, told_out_of_memory, what_was_not_copied

LINE = st.text(st.characters(blacklist_categories=["Cc", "Cs"], blacklist_characters="\u2028\u2029\x85"), max_size=80)


@given(peak=st.integers(0, 2**45), limit=st.integers(0, 2**45), before=st.sampled_from(["", "worker 3: ", "error: "]))
def test_the_peak_is_read_from_the_sentence(peak: int, limit: int, before: str) -> None:
    sentence = out_of_memory(peak, limit)
    told = told_out_of_memory(before + sentence)
    assert told is not None
    assert told[0].endswith(sentence)
    assert told[1] == peak >> 20


def test_other_lines_tell_of_no_memory() -> None:
    assert told_out_of_memory("ValueError: 4 MiB of memory") is None


def in_log(message: str, name: str = "launcher.stream") -> str:
    return logging.Formatter(LOG_FORMAT).format(logging.LogRecord(name, 40, "", 0, message, None, None))


@given(LINE)
def test_the_log_s_prefix_is_taken_off(message: str) -> None:
    assert logged(in_log(message)) == message


def test_a_line_without_it_stays() -> None:
    assert logged("Traceback (most recent call last):") == "Traceback (most recent call last):"


@given(st.lists(LINE))
def test_all_that_was_not_copied_is_found_among_other_lines(what: list[str]) -> None:
    lines = [in_log("20 MB sent"), *(in_log(not_copied(each)) for each in what), "error: not copied"]
    assert what_was_not_copied(lines) == what
