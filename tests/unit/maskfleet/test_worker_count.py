"""A number of workers, or a range of them."""

import pytest

from maskfleet.worker_count import WorkerCount


@pytest.mark.parametrize(
    ("text", "count", "written"),
    [("8", (8, 8), "8"), (8, (8, 8), "8"), ("2..8", (2, 8), "2..8"), (" 1..3 ", (1, 3), "1..3"), ("3..3", (3, 3), "3")],
)
def test_a_number_or_a_range(text, count, written):
    found = WorkerCount.parse(text)
    assert (found.least, found.most, str(found)) == (*count, written)
    assert found.is_range == (".." in written)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("many", "expected a number such as 8, or a range such as 2..8"),
        ("2-8", "expected a number such as 8, or a range such as 2..8"),
        ("2...8", "expected a number such as 8, or a range such as 2..8"),
        ("-1", "expected a number such as 8, or a range such as 2..8"),
        ("\u0662", "expected a number such as 8, or a range such as 2..8"),
        ("0", "expected a number from 1 to 2147483647"),
        ("0..3", "expected numbers from 1 to 2147483647, the smaller first, as in 2..8"),
        ("8..2", "expected numbers from 1 to 2147483647, the smaller first, as in 2..8"),
        ("9999999999", "expected a number from 1 to 2147483647"),
    ],
)
def test_what_is_neither(text, message):
    with pytest.raises(ValueError, match=message):
        WorkerCount.parse(text)
