"""A circuit breaker: a server that fails is asked less and less often, one call at a time, until it answers again.

    closed     calls are made; a failed one is repeated after a wait
    open       `failures_max` calls in a row have failed, or all of them for `failing_s_max`: nothing is called
    half open  the wait is over: one call probes; it closes the breaker, or opens it for a longer wait

Waits double from the first to the longest, each with jitter: many scorers must not come back to a server in step. After
`give_up_after_s` without a single answer it gives up. It makes no call and starts no thread: its owner asks `allows`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Literal

from streaming.errors import ModelUnavailable

__all__ = ["STATES", "Breaker", "State"]

State = Literal["closed", "open", "half_open"]
STATES: tuple[State, ...] = ("closed", "open", "half_open")


class Breaker:
    """See the module.

    Args:
        failures_max: in a row, until it opens.
        failing_s_max: for how long calls may fail until it opens, however few they are.
        wait_s, wait_s_max: the first wait and the longest; each is cut by up to a half at random.
        give_up_after_s: since the first failure in a row.
        on_state: is called with each new state.
        clock: seconds, monotonic.
        jitter: draws from [a, b].
    """

    def __init__(
        self,
        *,
        failures_max: int,
        failing_s_max: float,
        wait_s: float,
        wait_s_max: float,
        give_up_after_s: float,
        on_state: Callable[[State], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.state: State = "closed"
        self._failures_max, self._failing_s_max = failures_max, failing_s_max
        self._wait_s, self._wait_s_max, self._give_up_after_s = wait_s, wait_s_max, give_up_after_s
        self._on_state, self._clock, self._jitter = on_state, clock, jitter
        self._failures = 0
        self._since = 0.0  # the first failure in a row
        self._again = 0.0  # when the wait is over

    def allows(self) -> bool:
        """May a call be made now? Where the breaker was open and the wait is over, this one is the probe."""
        if self._clock() < self._again:
            return False
        if self.state == "open":
            self._become("half_open")
        return True

    def wait_s(self) -> float:
        """Seconds until `allows` may say yes."""
        return max(0.0, self._again - self._clock())

    def succeeded(self) -> None:
        """The call was answered."""
        self._failures, self._again = 0, 0.0
        self._become("closed")

    def failed(self, error: Exception) -> None:
        """The call was not answered, or with an error that may pass.

        Raises:
            ModelUnavailable: for longer than `give_up_after_s`.
        """
        now = self._clock()
        if not self._failures:
            self._since = now
        self._failures += 1
        failing_s = now - self._since
        if failing_s > self._give_up_after_s:
            raise ModelUnavailable(
                f"gave up after {self._give_up_after_s:.0f} s, {self._failures} calls: {error}"
            ) from error
        # 2**30 is beyond any bound: no larger power is ever computed
        wait_s = min(self._wait_s * 2 ** min(self._failures - 1, 30), self._wait_s_max)
        self._again = now + self._jitter(wait_s / 2, wait_s)
        if self.state == "half_open" or self._failures >= self._failures_max or failing_s >= self._failing_s_max:
            self._become("open")

    def _become(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self._on_state(state)
