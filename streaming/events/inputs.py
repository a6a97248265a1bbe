"""Records of the four input topics → actions, and rows of the dimension tables; what is neither, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from streaming.config import Events, Topics
from streaming.errors import BadEvent
from streaming.events.decode import Action, Record, action_decoder, dimension_columns, dimension_decoders

__all__ = ["DecodedDimensions", "InputDecoder", "Refusals"]

Refusals = list[tuple[Record, BadEvent]]
"""Records that cannot be scored or inserted, each with the reason."""


@dataclass
class DecodedDimensions:
    """What came of records of the dimension topics.

    Attributes:
        rows: by table; tables without rows are left out.
        records: by table, those that the rows came in, in the same order.
        refused: those that are no rows.
    """

    rows: dict[str, pa.Table] = field(default_factory=dict)
    records: dict[str, list[Record]] = field(default_factory=dict)
    refused: Refusals = field(default_factory=list)


class InputDecoder:
    """The decoders of all input topics.

    Args:
        limits: `[events]`.
        topics: the names, `[kafka.topics]`.
    """

    def __init__(self, limits: Events, topics: Topics) -> None:
        self._actions = action_decoder(limits.message_bytes_max, limits.future_s_max)
        self._dimensions = dimension_decoders(limits.message_bytes_max, limits.future_s_max)
        self._tables = {topics.users: "bo_user", topics.products: "bo_product", topics.comments: "bo_comment"}
        self._actions_topic = topics.actions

    def split(self, records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
        """Records of any input topic: those of the actions, and those of the dimension topics."""
        actions = [record for record in records if record.topic() == self._actions_topic]
        return actions, [record for record in records if record.topic() in self._tables]

    def actions(
        self, records: Sequence[Record], *, replayed: bool = False
    ) -> tuple[list[Action], list[Record], Refusals]:
        """The actions, their records, and what is no action; see `Decoder.decode_all`."""
        return self._actions.decode_all(records, replayed=replayed)

    def dimensions(self, records: Sequence[Record]) -> DecodedDimensions:
        """The rows of the dimension tables."""
        decoded = DecodedDimensions()
        for topic, table in self._tables.items():
            of_topic = [record for record in records if record.topic() == topic]
            if of_topic:
                events, decoded.records[table], bad = self._dimensions[table].decode_all(of_topic)
                decoded.refused += bad
                if events:
                    decoded.rows[table] = dimension_columns(table, events)
        return decoded
