"""The feature store: tables that take rows, and a deployment that answers requests.

`FeatureStore` is what both kinds have: `streaming.store.embedded`, whose rows are rebuilt from the log and rolled back
with an aborted transaction, and `streaming.store.openmldb.cluster`, which keeps its rows. `BatchStore` is a store as
batches are prepared with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import pyarrow as pa

from streaming.events.decode import Action, Actions, Record, action_columns

__all__ = ["ACTIONS", "REQUESTS", "BatchStore", "FeatureStore", "restore_good", "restore_singly"]

ACTIONS, REQUESTS = "bo_action", "flattenRequest"
"""The tables that an action's row and its request go to."""


class FeatureStore(Protocol):
    """Tables and a deployment.

    `dimensions` are rows of bo_user, bo_product and bo_comment, by table; they are inserted before the actions.
    """

    def load(self) -> None:
        """Has the tables and the deployment ready: makes them, or checks those that are there."""

    def answer(self, dimensions: Mapping[str, pa.Table], actions: Actions) -> pa.Table:
        """Inserts the rows, and answers each action's request as if it had come alone.

        Returns:
            The deployment's columns, a row per action, in order.

        Raises:
            ValueError: a row was refused (`BadRow`).
        """

    def restore(self, dimensions: Mapping[str, pa.Table], actions: Actions | None) -> None:
        """Inserts rows that were answered already.

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

    def answer(self, dimensions: Mapping[str, pa.Table], actions: Actions) -> pa.Table: ...
    def restore(self, dimensions: Mapping[str, pa.Table], actions: Actions | None) -> None: ...

    def drop_repeats(self, actions: Sequence[Action], records: Sequence[Record]) -> tuple[list[Action], list[Record]]:
        """Those, of the records that they came in, that repeat no request; all of them where `dedup` is off.

        Those that are left count as accepted from now on.
        """

    def attempt(self) -> AbstractContextManager[None]:
        """A block whose rows, and accepted requests, are forgotten when it raises `ValueError`: a row was refused."""


def restore_good(
    store: BatchStore, dimensions: Mapping[str, pa.Table], actions: Sequence[Action], records: Sequence[Record]
) -> list[tuple[str, int, ValueError]]:
    """Inserts rows that were answered already: all but those that the store refuses, and requests that repeat one.

    The decoder checks what the store checks, so a refusal is rare: only then the rows are inserted one by one.

    Args:
        records: that the actions came in.

    Returns:
        See `restore_singly`.
    """
    try:
        with store.attempt():
            kept, _ = store.drop_repeats(actions, records)
            store.restore(dimensions, action_columns(kept) if kept else None)
    except ValueError:
        return restore_singly(store, dimensions, actions, records)
    return []


def restore_singly(
    store: BatchStore, dimensions: Mapping[str, pa.Table], actions: Sequence[Action], records: Sequence[Record]
) -> list[tuple[str, int, ValueError]]:
    """Inserts rows one by one, for a batch that the store has refused as a whole: all but those that it refuses alone.

    Args:
        actions, records: with those that repeat a request: whom they repeat may be refused.

    Returns:
        Of each refused row its table (of an action: bo_action), its number in it, and why.
    """
    refused: list[tuple[str, int, ValueError]] = []

    def insert(table: str, number: int, rows: Mapping[str, pa.Table], action: Sequence[Action]) -> None:
        try:
            with store.attempt():
                kept, _ = store.drop_repeats(action, records[number : number + 1]) if action else ([], [])
                store.restore(rows, action_columns(kept) if kept else None)
        except ValueError as error:
            refused.append((table, number, error))

    for table, rows in dimensions.items():
        for number in range(len(rows)):
            insert(table, number, {table: rows.slice(number, 1)}, ())
    for number, action in enumerate(actions):
        insert(ACTIONS, number, {}, (action,))
    return refused
