"""Work beside the loop: on a thread of its own, whose outcome is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol

__all__ = ["Outcome", "Start", "in_thread"]


class Outcome(Protocol):
    """Of work beside the loop: raises what it raised, `concurrent.futures.TimeoutError` while it still runs."""

    def result(self, timeout: float | None = None) -> None: ...


Start = Callable[[Callable[[], None]], Outcome]
"""Begins work; the simulator of the tests decides when it goes on."""


def in_thread(work: Callable[[], None]) -> Outcome:
    """Does `work` on a thread of its own: a daemon, because one that hangs in librdkafka must not keep the process."""
    outcome = Future[None]()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            outcome.set_exception(error)
        else:
            outcome.set_result(None)

    threading.Thread(target=run, name="beside", daemon=True).start()
    return outcome
