"""The loop while a server is waited for: the consumer is paused, but polls, to stay in its group."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from streaming.loop.batch import Batch
from streaming.loop.progress import Progress
from streaming.loop.reporting import Reporting

if TYPE_CHECKING:
    import threading

__all__ = ["WaitingLoop"]


class WaitingLoop:
    """What who waits for the model, or for a cluster, does meanwhile.

    Args:
        progress: whose source is paused and polled.
        reporting: is told that the loop goes round.
        stop: the process is to end.
        forget: leaves the batch in flight to whoever reads it next.
    """

    def __init__(
        self, progress: Progress, reporting: Reporting, stop: threading.Event, forget: Callable[[], None]
    ) -> None:
        self.stop, self.forget = stop, forget
        self._progress, self._reporting = progress, reporting

    @property
    def generation(self) -> int:
        """Changes whenever partitions come or go."""
        return self._progress.source.generation

    def pause(self) -> None:
        """No records until `resume`."""
        self._progress.source.pause()

    def resume(self) -> None:
        """Records flow again."""
        self._progress.source.resume()

    def goes_round(self) -> None:
        """Says that the loop does."""
        self._reporting.goes_round()

    def keep_alive(self, wait_s: float) -> None:
        """Polls for so long; partitions may come and go meanwhile, and batches with them."""
        self._progress.source.keep_alive(wait_s)

    def is_in_flight(self, batch: Batch) -> bool:
        """Was it not forgotten?"""
        return self._progress.in_flight is batch
