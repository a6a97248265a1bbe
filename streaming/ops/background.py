"""Work beside the loop: on a thread of its own, whose outcome is asked for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Protocol, TypeVar

__all__ = ["Outcome", "Start", "in_thread"]

T = TypeVar("T")


class Outcome(Protocol):
    """Of work beside the loop: raises what it raised, `concurrent.futures.TimeoutError` while it still runs."""

    def result(self, timeout: float | None = None) -> None: ...


Start = Callable[[Callable[[], None]], Outcome]
"""Begins work; the simulator of the tests decides when it goes on."""


def in_thread(work: Callable[[], T]) -> Future[T]:
    """Does `work` on a thread that does nothing else meanwhile: one that is done with its last work, or a new one.

    Such threads are daemons, because one that hangs in librdkafka must not keep the process. They stay: there are as
    many as ever worked at once.
    """
    outcome = Future[T]()
    try:
        worker = _IDLE.pop()
    except IndexError:
        worker = _Worker()
        worker.start()
    worker.works.put((work, outcome))
    return outcome


class _Worker(threading.Thread):
    """Does what is put into `works`."""

    def __init__(self) -> None:
        super().__init__(name="beside", daemon=True)
        self.works = queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]]()

    def run(self) -> None:
        while True:
            self._do(*self.works.get())  # keeps nothing of it alive while it waits for more

    def _do(self, work: Callable[[], Any], outcome: Future[Any]) -> None:
        try:
            result = work()
        except BaseException as error:
            _IDLE.append(self)
            outcome.set_exception(error)
        else:
            _IDLE.append(self)
            outcome.set_result(result)


_IDLE: list[_Worker] = []
