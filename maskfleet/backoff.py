"""Pauses between tries: each twice as long as the one before, up to a limit and until a deadline.

What is tried again here is shared by many: an API server, a bucket. So of each pause a random part, up to a half, is
left out, and those that were refused in one moment do not come back in one.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator

_spread = random.Random()
"""Not the module's own generator: threads wait here while another builds a network from that one's numbers."""


def pauses(first: float, longest: float, *, timeout: float = math.inf) -> Iterator[float]:
    """Seconds to wait before each further try; whoever may be told to stop waits with ``Event.wait``.

    They end ``timeout`` seconds after this call. The last one is cut so that the last try comes then, and not before::

        waits = pauses(0.1, 2.0, timeout=30)
        while not done():
            pause = next(waits, None)
            if pause is None:
                raise TimedOut(...)
            time.sleep(pause)
    """
    return _pauses(first, longest, time.monotonic() + timeout)


def _pauses(pause: float, longest: float, deadline: float) -> Iterator[float]:
    while (left := deadline - time.monotonic()) > 0:
        yield min(pause * _spread.uniform(0.5, 1), left)
        pause = min(2 * pause, longest)
