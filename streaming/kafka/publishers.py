"""Two transactional producers that take turns, used like one: a transaction need not wait for the last one's markers.

A broker writes a transaction's markers after it has answered the commit, and refuses that producer's next transaction
meanwhile (10 ms and more). It takes the other producer's. What a reader sees does not change:

    order       a transaction begins after the commit of the one before was answered, so its records lie behind, and
                whoever reads committed sees none of them before the markers of the one before are there
    offsets     of two transactions whose markers come the other way round the group keeps the offsets that were
                written last; a member that asks meanwhile is told to ask again
    all or none a process that dies leaves one transaction open at most, and perhaps one whose markers are not written
                yet: `start` ends the one and waits for the other, before the group is joined
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from streaming.kafka.producer import Message, Publisher

__all__ = ["Publishers", "turn_name"]


def turn_name(transactional_id: str) -> str:
    """The transactional.id of the second producer. A name of an instance has no colon before a process is told so."""
    return f"{transactional_id}:2"


class Publishers:
    """Publishes as `Publisher` does, each transaction by the producer whose turn it is.

    Args:
        first: not started.
        second: not started; default: a twin of the first.

    Attributes:
        dead_letter_bytes_max: the largest record that the dead-letter topic takes.
        transactional_ids: of both.
    """

    transactional = True

    def __init__(self, first: Publisher, second: Publisher | None = None) -> None:
        self._publishers = [first, second or first.twin(turn_name(first.transactional_id))]
        first.on_lost, self._publishers[1].on_lost = self._publishers[1].mistrust, first.mistrust
        self._new = list(self._publishers)  # not started yet
        self._turn = 0
        self.dead_letter_bytes_max = first.dead_letter_bytes_max

    @property
    def current(self) -> Publisher:
        """Whose turn it is, from one `begin` to the next."""
        return self._publishers[self._turn]

    @property
    def transactional_ids(self) -> list[str]:
        return [publisher.transactional_id for publisher in self._publishers]

    def start(self) -> None:
        """Takes the transactional.ids of those that have none yet, see `Publisher.start`."""
        while self._new:
            self._new[0].start()
            del self._new[0]

    def begin(self) -> None:
        """Opens a transaction of the other producer; the one before is over."""
        self._turn = 1 - self._turn
        self.current.begin()

    def scores(self, messages: Sequence[Message]) -> None:
        self.current.scores(messages)

    def dead_letters(self, messages: Sequence[Message]) -> None:
        self.current.dead_letters(messages)

    def offsets(
        self, positions: Mapping[tuple[str, int], int], group_metadata: Any, note: Callable[[tuple[str, int]], str]
    ) -> None:
        self.current.offsets(positions, group_metadata, note)

    def commit(self) -> None:
        self.current.commit()

    def hung(self) -> str | None:
        """See `Publisher.hung`, of whose turn it is."""
        return next((step for new in self._new if (step := new.hung())), None) or self.current.hung()

    def replacement(self) -> Publishers | None:
        """Others, of whom one is new, instead of the one that hangs; see `Publisher.replacement`."""
        new = self.current.replacement()
        if new is None:
            return None
        other = self._publishers[1 - self._turn]
        replaced = Publishers(new, other)
        # An earlier replacement may not have been started yet.
        replaced._new = [new, *(one for one in self._new if one is other)]
        return replaced

    def close(self) -> None:
        for publisher in self._publishers:
            publisher.close()
