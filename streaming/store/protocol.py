"""The feature store: tables that take rows, and a deployment that answers requests.

`FeatureStore` is what both kinds have: `streaming.store.embedded`, whose rows are rebuilt from the log and rolled back
with an aborted transaction, and `streaming.store.openmldb.cluster`, which keeps its rows. `BatchStore` is a store as
batches are prepared with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Protocol

import pyarrow as pa

from streaming.events.batch import EventBatch

__all__ = ["BatchStore", "FeatureStore", "restore_good", "restore_singly"]


class FeatureStore(Protocol):
    """Tables and a deployment."""

    def load(self) -> None:
        """Has the tables and the deployment ready: makes them, or checks those that are there."""

    def answer(self, events: EventBatch) -> pa.Table:
        """Inserts the events' rows, and answers each request among them as if the events had come one by one.

        A request is asked when the other rows of its event are in; its own row, of the main table, comes after it.

        Args:
            events: at least one of them is a request.

        Returns:
            The deployment's columns, a row per request, in order.

        Raises:
            ValueError: a row was refused (`BadRow`).
        """

    def restore(self, events: EventBatch) -> None:
        """Inserts rows of events that were answered already, or that ask nothing.

        Raises:
            ValueError: as `answer`.
        """

    def schema(self) -> pa.Schema:
        """The deployment's output columns."""

    def sizes(self) -> Mapping[str, tuple[int, int]]:
        """Rows and bytes of each table that is held here, and of the texts that all of them share, as `strings`."""

    def close(self) -> None:
        """Gives back what it holds."""


class BatchStore(Protocol):
    """A store as batches are prepared with it; `answer` and `restore` as of `FeatureStore`."""

    def answer(self, events: EventBatch) -> pa.Table: ...
    def restore(self, events: EventBatch) -> None: ...

    def drop_repeats(self, events: EventBatch) -> EventBatch:
        """Those that repeat no request; all of them where `dedup` is off.

        Those that are left count as accepted from now on.
        """

    def attempt(self) -> AbstractContextManager[None]:
        """A block whose rows, and accepted requests, are forgotten when it raises `ValueError`: a row was refused."""


def restore_good(store: BatchStore, events: EventBatch) -> list[tuple[int, ValueError]]:
    """Inserts rows that were answered already: all but those that the store refuses, and requests that repeat one.

    The decoder checks what the store checks, so a refusal is rare: only then the rows are inserted event by event.

    Returns:
        See `restore_singly`.
    """
    try:
        with store.attempt():
            store.restore(store.drop_repeats(events))
    except ValueError:
        return restore_singly(store, events)
    return []


def restore_singly(store: BatchStore, events: EventBatch) -> list[tuple[int, ValueError]]:
    """Inserts events one by one, for a batch that the store has refused as a whole: all but those it refuses alone.

    Args:
        events: with those that repeat a request: whom they repeat may be refused.

    Returns:
        Of each refused event its number, and why.
    """
    refused: list[tuple[int, ValueError]] = []
    for number in range(len(events)):
        try:
            with store.attempt():
                store.restore(store.drop_repeats(events.event(number)))
        except ValueError as error:
            refused.append((number, error))
    return refused
