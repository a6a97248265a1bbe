"""Ends a process whose main thread hangs, as in a call into librdkafka: nothing else interrupts one.

    told to stop        Python's handlers run in the main thread, between two steps of Python: never while a call
                        hangs. The system tells this thread (`signal.set_wakeup_fd`): what is not over `LEAVE_S_MAX`
                        later ends with status 0. An open transaction is ended by the next start, as after SIGKILL.
    leaves by itself    the same, with the status of what it leaves for: closing a client may hang, too
    goes round no more  ends with status 5 after `http.stalled_s`, for its supervisor

Time in which the process itself was stopped (SIGSTOP, a suspended machine) does not count.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator

import structlog

from streaming.ops.health import Health

__all__ = ["LEAVE_S_MAX", "watched"]

LEAVE_S_MAX = 9.0  # what a stop does takes 7 s at most (LEAVE_S, STOP_S, the group, CLOSE_S); Docker kills after 10
TICK_S = 0.5
HANGS = 5

_log = structlog.stdlib.get_logger("streaming.ops.watchdog")


@contextlib.contextmanager
def watched(
    health: Health, stalled_s: float, status_of: Callable[[BaseException], int], end: Callable[[int], None] = os._exit
) -> Iterator[None]:
    """Watches the block, which is run by the main thread.

    Args:
        health: tells that the loop goes round, and why it leaves.
        status_of: the exit status that stands for a failure.
        end: ends the process.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    over = threading.Event()
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    dog = threading.Thread(
        target=_watch,
        args=(reading, over, health),
        kwargs={"stalled_s": stalled_s, "status_of": status_of, "end": end},
        name="watchdog",
        daemon=True,
    )
    dog.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        over.set()
        os.write(writing, b"\0")
        dog.join()
        os.close(reading)
        os.close(writing)


def _watch(
    reading: int,
    over: threading.Event,
    health: Health,
    *,
    stalled_s: float,
    status_of: Callable[[BaseException], int],
    end: Callable[[int], None],
) -> None:
    told = False
    leaving_s = silent_s = 0.0
    looked, beat = time.monotonic(), health.beaten
    while True:
        ready, _, _ = select.select([reading], [], [], TICK_S)
        if ready:
            told |= not {signal.SIGTERM, signal.SIGINT}.isdisjoint(os.read(reading, 64))
        if over.is_set():
            return
        now = time.monotonic()
        passed, looked = min(now - looked, 2 * TICK_S), now
        leaving_s += passed if told or health.leaves else 0.0
        silent_s = silent_s + passed if health.watched and health.beaten == beat else 0.0
        beat = health.beaten
        if leaving_s > LEAVE_S_MAX:
            _log.error("left while a call hangs", after_s=LEAVE_S_MAX, why=str(health.why or "told to stop"))
            end(0 if told or health.why is None else status_of(health.why))
            return
        if silent_s > stalled_s and not health.leaves:
            _log.error("the loop does not go round: a call hangs", silent_s=round(silent_s))
            end(HANGS)
            return
