"""How a resumed log is told apart from what was received before."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.logs import LogLine, Seen


def stamp(milliseconds: int) -> str:
    return f"2026-11-23T10:{milliseconds // 60000:02}:{milliseconds % 60000 // 1000:02}.{milliseconds % 1000:03}000000Z"


@settings(deadline=None)
@given(
    # Standard output and error are nearly in order: a line is at most a margin older than the one before.
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 900), st.sampled_from("ab")), max_size=60),
    st.lists(st.integers(0, 20), max_size=6),
)
def test_a_log_that_breaks_off_anywhere_goes_on_without_loss_or_repetition(
    steps: list[tuple[int, int, str]], pieces: list[int]
) -> None:
    log, clock = [], 10_000
    for step, back, text in steps:
        clock += step
        log.append(LogLine(stamp(clock - back), 0, text))
    received: list[LogLine] = []
    seen = Seen()
    place = 0
    for piece in [*pieces, len(log)]:
        place += piece
        since = seen.since()
        again = [line for line in log if line.time[:19] >= since[:19]]  # what the API gives: a filter, line by line
        repeated = seen.repeated()
        for line in again:
            if len(received) >= place:
                break  # the connection is lost
            key = (line.time, line.text)
            if repeated[key]:
                repeated[key] -= 1
                continue
            seen.add(line)
            received.append(line)
    assert received == log


def test_a_long_log_is_not_kept() -> None:
    seen = Seen()
    for number in range(50_000):
        seen.add(LogLine(stamp(number), 0, "x"))
    assert sum(seen.repeated().values()) < 2100
