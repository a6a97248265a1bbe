"""A batch on its way from Kafka to Kafka, and what the loop asks of model server and encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from streaming.events.batch import EventBatch, Refusals
from streaming.events.record import Record
from streaming.kafka.producer import Message
from streaming.kafka.reader import Positions
from streaming.kafka.topics import TopicsQuestion
from streaming.ops.log import place
from streaming.state.snapshots import Standing

if TYPE_CHECKING:
    from streaming.model.triton import Scores

__all__ = ["Batch", "Call", "Encoder", "Model", "Output", "offset_range"]


class Call(Protocol):
    """A request that the model is working on."""

    def wait(self, timeout_s: float) -> bool: ...
    def result(self) -> Scores: ...


class Model(Protocol):
    """The model server, as the loop uses it (`streaming.model.triton.Model`)."""

    def submit(self, ids: npt.NDArray[np.int64]) -> Call: ...
    def encoder_digest(self) -> str | None: ...


class Output(Protocol):
    """Where scores and dead letters go (`streaming.kafka.publishers.Publishers`, or `.at_least_once.AtLeastOnce`)."""

    dead_letter_bytes_max: int

    @property
    def transactional(self) -> bool:
        """Whether offsets are committed with what is sent; else behind it."""

    def begin(self) -> None: ...
    def scores(self, messages: Sequence[Message]) -> None: ...
    def dead_letters(self, messages: Sequence[Message]) -> None: ...
    def offsets(self, positions: Positions, group_metadata: Any, note: Callable[[tuple[str, int]], str]) -> None: ...
    def commit(self) -> None: ...
    def start(self) -> None: ...
    def hung(self) -> str | None: ...
    def replacement(self) -> Output | None: ...
    def close(self) -> None: ...


class Encoder(Protocol):
    """Features → ids (`streaming.model.encoder.Encoder`)."""

    @property
    def digest(self) -> str: ...

    def encode(self, features: pa.Table) -> npt.NDArray[np.int64]: ...


@dataclass
class Batch:
    """What one poll gave, and what became of it so far.

    Attributes:
        mark: names the store's rows before its own, for a store that takes rows back; else None.
        starts, dimension_starts: the offsets from which it was read, of the events' and of the dimension partitions.
        commit_offsets: the offsets that its transaction commits.
        events: the requests to score, with their rows.
        dead: the records that cannot be scored, and why.
        repeats: how many more events repeat a request that was scored, and are left out.
        ids: the model's input, int64 [requests, fields]; none without requests.
        same_topics: whether the topics are still those that its records were read from, asked when they were.
        call: the request to the model that is under way.
        state_after: the state with its rows in it.
        committed: its transaction is.
    """

    mark: Any
    starts: Positions
    dimension_starts: Positions
    commit_offsets: Positions = field(default_factory=dict)
    events: EventBatch = field(default_factory=EventBatch)
    dead: Refusals = field(default_factory=list)
    repeats: int = 0
    ids: npt.NDArray[np.int64] | None = None
    same_topics: TopicsQuestion | None = None
    call: Call | None = None
    state_after: Standing | None = None
    committed: bool = False

    @property
    def is_empty(self) -> bool:
        """It changes nothing on Kafka but offsets."""
        return not (len(self.events) or self.dead or self.repeats)


def offset_range(records: Sequence[Record]) -> str:
    """The first and the last record of a batch's requests, for messages."""
    if not records:
        return "no requests"
    first, last = (place(r.topic(), r.partition(), r.offset()) for r in (records[0], records[-1]))
    return f"{first} … {last}"
