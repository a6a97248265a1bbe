"""Events as columns behave as a plain list of events does, whatever is taken, merged and joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from fixtures.records import Fake
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.events.batch import EventBatch, joined, merged
from streaming.events.record import Record

TABLES = ("one", "two", "three")
SCHEMAS = {
    "one": pa.schema([pa.field("n", pa.int64(), nullable=False)]),
    "two": pa.schema([("n", pa.int64()), ("text", pa.string())]),
    "three": pa.schema([("n", pa.int64())]),
}


@dataclass(frozen=True)
class Event:
    """What an event is by itself: `rows`, by table, are the numbers that its rows hold."""

    offset: int
    time: int
    name: str | None
    rows: dict[str, list[int]] = field(default_factory=dict)


def batch_of(events: Sequence[Event]) -> EventBatch:
    """The events as columns."""
    rows, events_of = {}, {}
    for table in TABLES:
        numbers = [(at, n) for at, event in enumerate(events) for n in event.rows.get(table, [])]
        if numbers:
            values = [{"n": n, "text": f"{n}"} for _, n in numbers]
            rows[table] = pa.Table.from_pylist(values, SCHEMAS[table])
            events_of[table] = np.array([at for at, _ in numbers], np.int64)
    records: list[Record] = [Fake(b"k", b"v", place=("t", 0, event.offset)) for event in events]
    times = np.array([event.time for event in events], np.int64)
    return EventBatch(records, times, [event.name for event in events], rows, events_of)


def told(batch: EventBatch) -> list[Event]:
    """The events of columns, which must agree with each other."""
    count = len(batch)
    assert len(batch.records) == len(batch.times) == len(batch.sender_ids) == count
    assert batch.times.dtype == np.int64
    assert batch.rows.keys() == batch.events_of.keys()
    rows: list[dict[str, list[int]]] = [{} for _ in range(count)]
    for table, of in batch.events_of.items():
        found = batch.rows[table]
        assert found.num_rows == len(of) > 0
        assert found.schema == SCHEMAS[table]
        assert (np.diff(of) >= 0).all()
        assert 0 <= of.min() <= of.max() < count
        for at, row in zip(of.tolist(), found.to_pylist(), strict=True):
            assert row.get("text", f"{row['n']}") == f"{row['n']}"
            rows[at].setdefault(table, []).append(row["n"])
    return [
        Event(record.offset(), int(time), name, mine)
        for record, time, name, mine in zip(batch.records, batch.times, batch.sender_ids, rows, strict=True)
    ]


@st.composite
def lists(draw: st.DrawFn, size_max: int = 12) -> list[Event]:
    """Events, each with no row, one or several in each table."""
    number = st.integers(0, 99)
    return draw(
        st.lists(
            st.builds(
                Event,
                number,
                st.integers(-(2**63), 2**63 - 1),
                st.none() | st.sampled_from(["a", "b"]),
                st.dictionaries(st.sampled_from(TABLES), st.lists(number, min_size=1, max_size=3)),
            ),
            max_size=size_max,
        )
    )


@given(lists())
def test_a_batch_says_what_it_was_made_of(events: list[Event]) -> None:
    batch = batch_of(events)
    assert told(batch) == events
    assert len(batch) == len(events)
    for table in TABLES:
        assert batch.has(table).tolist() == [table in event.rows for event in events]
    assert not batch.has("none").any()


@given(lists(), st.data())
def test_taken_are_the_chosen_ones_in_their_order(events: list[Event], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.booleans(), min_size=len(events), max_size=len(events)))
    batch = batch_of(events)
    assert told(batch.take(np.array(chosen, np.bool_))) == [
        e for e, is_one in zip(events, chosen, strict=True) if is_one
    ]
    assert told(batch) == events, "the batch itself was changed"
    again = data.draw(st.lists(st.booleans(), min_size=sum(chosen), max_size=sum(chosen)))
    kept = [e for e, is_one in zip(events, chosen, strict=True) if is_one]
    twice = batch.take(np.array(chosen, np.bool_)).take(np.array(again, np.bool_))
    assert told(twice) == [e for e, is_one in zip(kept, again, strict=True) if is_one]


@given(lists())
def test_one_event_alone_is_itself(events: list[Event]) -> None:
    batch = batch_of(events)
    assert [told(batch.event(number)) for number in range(len(events))] == [[event] for event in events]


@settings(deadline=None)
@given(lists(16), st.data())
def test_parts_that_are_merged_are_the_whole(events: list[Event], data: st.DataObject) -> None:
    of_part = data.draw(st.lists(st.integers(0, 3), min_size=len(events), max_size=len(events)))
    parts = []
    for number in data.draw(st.permutations(range(4))):
        places = [at for at, part in enumerate(of_part) if part == number]
        parts.append((batch_of([events[at] for at in places]), np.array(places, np.int64)))
    assert told(merged(parts)) == events
    as_lists: list[tuple[EventBatch, list[int]]] = [(batch, places.tolist()) for batch, places in parts]
    assert told(merged(as_lists)) == events


@settings(deadline=None)
@given(st.lists(lists(5), max_size=5))
def test_joined_are_one_behind_the_other(batches: list[list[Event]]) -> None:
    assert told(joined([batch_of(events) for events in batches])) == [event for events in batches for event in events]


@given(lists())
def test_events_that_are_joined_one_by_one_are_the_batch(events: list[Event]) -> None:
    batch = batch_of(events)
    assert told(joined([batch.event(number) for number in range(len(events))])) == events


def test_nothing_is_a_batch_of_nothing() -> None:
    assert told(EventBatch()) == told(merged([])) == told(joined([])) == told(joined([EventBatch()] * 2)) == []
    assert told(EventBatch().take(np.zeros(0, np.bool_))) == []
    one = [Event(1, 2, "a", {"one": [3]})]
    assert told(joined([EventBatch(), batch_of(one), EventBatch()])) == one
