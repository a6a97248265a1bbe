"""What every part of the loop is given: whom it tells, what stops it, and what it takes time and threads from."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from streaming.ops.background import Start, in_thread
from streaming.ops.clock import SYSTEM_CLOCK, Clock
from streaming.ops.health import Health
from streaming.ops.metrics import Metrics

__all__ = ["Runtime"]


def _no_step(_: str) -> None:
    pass


@dataclass(frozen=True)
class Runtime:
    """The surroundings of a loop; the simulator of the tests has its own.

    Args:
        metrics, health: are told what happens.
        stop: set from outside to finish the batches under way, commit and leave.
        step: called with a step's name after it was done; tests die in it.
        start: does the publishing beside the loop.
        clock: the time.
    """

    metrics: Metrics
    health: Health
    stop: threading.Event
    step: Callable[[str], None] = _no_step
    start: Start = in_thread
    clock: Clock = SYSTEM_CLOCK
