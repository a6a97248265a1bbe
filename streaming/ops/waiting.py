"""Waiting for a server that is away: with jitter, up to a limit, and with something to do meanwhile.

Many scorers must not come back to a server in step, so each wait is drawn. `Waiting` only counts: its owner makes the
attempts, sorts their errors and says what is done in the waits (`threading.Event.wait` of the flag that stops the
process, `Clock.sleep`, polls that keep a consumer in its group).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from streaming.ops.clock import SYSTEM_CLOCK, Clock

__all__ = ["Waiting", "doubling", "jittered", "steady"]


def jittered(wait_s: float) -> float:
    """A wait cut by up to a half at random."""
    return wait_s * random.uniform(0.5, 1)


def doubling(first_s: float, max_s: float) -> Iterator[float]:
    """Waits from the first to the longest, each twice the one before, cut by up to a half at random."""
    wait_s = first_s
    while True:
        yield jittered(wait_s)
        wait_s = min(2 * wait_s, max_s)


def steady(min_s: float, max_s: float) -> Iterator[float]:
    """Waits of about the same length."""
    while True:
        yield random.uniform(min_s, max_s)


class Waiting:
    """The waits between attempts.

    Args:
        limit_s: after so many seconds `is_over`; 0 or less: from the beginning.
        waits: seconds of each wait.
        rest: waits for so many seconds; what it returns, `rest` does.
        clock: what counts the limit.
    """

    def __init__(
        self,
        limit_s: float,
        waits: Iterator[float],
        rest: Callable[[float], object] | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._waits, self._clock = waits, clock
        self._rest = rest or clock.sleep
        self._deadline = clock.monotonic() + limit_s
        self._next_s: float | None = None

    @property
    def is_over(self) -> bool:
        """The limit is reached: the next failure is the last."""
        return self._clock.monotonic() > self._deadline

    @property
    def next_s(self) -> float:
        """How long the next `rest` will be, for messages."""
        if self._next_s is None:
            self._next_s = next(self._waits)
        return self._next_s

    def shorten(self, limit_s: float) -> None:
        """From now on at most so many seconds are left."""
        self._deadline = min(self._deadline, self._clock.monotonic() + limit_s)

    def rest(self) -> object:
        """Waits once: what the `rest` of the constructor returns, so True where a flag to stop was set."""
        wait_s, self._next_s = self.next_s, None
        return self._rest(wait_s)

    def rest_polling(self, poll: Callable[[float], None]) -> None:
        """Waits once, by polls: `poll` is called until the wait is over, with the whole wait's seconds."""
        wait_s, self._next_s = self.next_s, None
        until = self._clock.monotonic() + wait_s
        while self._clock.monotonic() < until:
            poll(wait_s)
