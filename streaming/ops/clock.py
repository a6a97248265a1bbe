"""The time, handed in: the process has the system's, the simulator of the tests its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["SYSTEM_CLOCK", "Clock"]


@dataclass(frozen=True)
class Clock:
    """What is asked for the time.

    Args:
        monotonic: seconds since any moment; never goes back.
        wall: seconds since the epoch; may jump.
        sleep: waits for so many seconds.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


SYSTEM_CLOCK = Clock()
