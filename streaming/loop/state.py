"""The state that features are computed from, as the loop drives it. Of two kinds, for the two kinds of stores:

replayed_state   tables in this process: rebuilt from the log, taken back with an aborted transaction
kept_state       tables of a cluster: rows stay, and count once however often they come
"""

from __future__ import annotations

from typing import Protocol

from streaming.loop.batch import Batch

__all__ = ["State"]


class State(Protocol):
    """What the loop does with either kind."""

    def catch_up(self, generation: int) -> int:
        """Brings the tables up to the offsets of the pending partitions.

        Args:
            generation: of the assignment; returns early when it passes, or when told to stop.

        Returns:
            How many records it read.
        """

    def go_round(self) -> None:
        """One round of the loop: a poll, and what becomes of it.

        Raises:
            Rebalanced: partitions came or went; what was not committed is read again.
        """

    def committed(self, batch: Batch) -> None:
        """A batch's transaction is committed."""

    def given_up(self, batch: Batch) -> None:
        """A batch, and all that was read after it, will be read again."""

    def hold_still(self) -> None:
        """Partitions are about to be given up, or are gone: nothing goes on beside any more."""

    def leave(self) -> None:
        """All that could be committed is, and the process is about to end."""
