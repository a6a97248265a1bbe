"""Records of several topics in one call: each by its own stream's decoder, events and refusals in the order given."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from fixtures.jd import jd, jd_decoder, jd_topics
from fixtures.records import NOW_MS, Fake
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.app.decoding import StreamDecoder
from streaming.app.topics import TopicNames
from streaming.config import Events
from streaming.events.batch import EventBatch, Refusals
from streaming.events.record import Record, reason

FIELDS: dict[str, dict[str, Any]] = {
    "user-actions": {
        "user_id": "1",
        "sku_id": "2",
        "time": NOW_MS,
        "type": "6",
        "model_id": "27",
        "cate": "8",
        "br": "214",
    },
    "users": {"user_id": "1", "ingestionTime": NOW_MS, "age": "", "sex": "2", "user_lv_cd": "5", "user_reg_tm": -5},
    "products": {"sku_id": "1", "ingestionTime": NOW_MS, "a1": "3", "a2": "1", "a3": "2", "cate": "8", "br": "306"},
    "comments": {
        "sku_id": "1",
        "ingestionTime": NOW_MS,
        "dt": 0,
        "comment_num": 4,
        "has_bad_comment": "1",
        "bad_comment_rate": 0.5,
    },
}
TIMES = {"user-actions": "time"}
TOPICS = tuple(FIELDS)

decoder = functools.cache(jd_decoder)


@functools.cache
def of_topic(topic: str) -> StreamDecoder:
    """One stream's decoder alone."""
    limits = Events()
    return StreamDecoder(jd(), jd_topics().streams[topic], limits.message_bytes_max, limits.future_s_max)


def record(topic: str, offset: int, *, kind: str = "good", name: str | None = None) -> Fake:
    """One of a topic: `good`, `broken` JSON, or of the wrong `key`; its time says its offset."""
    fields = {**FIELDS[topic], TIMES.get(topic, "ingestionTime"): NOW_MS + offset}
    if name is not None and topic == "user-actions":
        fields["request_id"] = name
    value = b"{" if kind == "broken" else json.dumps(fields).encode()
    return Fake(b"x" if kind == "key" else next(iter(FIELDS[topic].values())).encode(), value, None, (topic, 0, offset))


drawn = st.lists(
    st.tuples(
        st.sampled_from(TOPICS),
        st.sampled_from(["good", "good", "good", "broken", "key"]),
        st.none() | st.sampled_from(["a", "b"]),
    ),
    max_size=20,
)


def made(draws: Sequence[tuple[str, str, str | None]]) -> list[Record]:
    return [record(topic, at, kind=kind, name=name) for at, (topic, kind, name) in enumerate(draws)]


def one_by_one(records: Sequence[Record]) -> tuple[list[tuple[Record, EventBatch]], Refusals]:
    """What each record is by itself."""
    events, refusals = [], Refusals()
    for one in records:
        event, refused = of_topic(one.topic()).decode([one])
        refusals += refused
        if len(event):
            events.append((one, event))
    return events, refusals


@settings(deadline=None)
@given(drawn)
def test_several_topics_in_one_call_are_what_their_records_are_one_by_one(
    draws: list[tuple[str, str, str | None]],
) -> None:
    records = made(draws)
    events, refused = decoder().decode(records)
    expected, refusals = one_by_one(records)
    assert [id(one) for one in events.records] == [id(one) for one, _ in expected]
    assert [(id(one), type(why), str(why)) for one, why in refused] == [
        (id(one), type(why), str(why)) for one, why in refusals
    ]
    assert events.times.tolist() == [int(event.times[0]) for _, event in expected]
    assert events.sender_ids == [event.sender_ids[0] for _, event in expected]
    assert events.rows.keys() == events.events_of.keys() == {table for _, event in expected for table in event.rows}
    for table, rows in events.rows.items():
        assert rows.to_pylist() == [row for _, e in expected if table in e.rows for row in e.rows[table].to_pylist()]
        assert events.events_of[table].tolist() == [
            number for number, (_, e) in enumerate(expected) if table in e.rows for _ in range(e.rows[table].num_rows)
        ]


@pytest.mark.parametrize("records", [[], [record("users", 0)], [record("users", 0), record("user-actions", 1)]])
def test_nothing_one_and_two(records: list[Record]) -> None:
    events, refused = decoder().decode(records)
    assert events.records == records
    assert refused == []
    assert len(events) == len(events.times) == len(events.sender_ids) == len(records)


def test_refusals_come_in_the_order_of_the_records_not_of_the_topics() -> None:
    records: list[Record] = [
        record("users", 0, kind="broken"),
        record("user-actions", 1),
        record("comments", 2, kind="key"),
        record("user-actions", 3, kind="key"),
        record("products", 4),
        record("comments", 5, kind="broken"),
    ]
    events, refused = decoder().decode(records)
    assert events.records == [records[1], records[4]]
    assert [(one.offset(), reason(why)) for one, why in refused] == [
        (0, "malformed"),
        (2, "wrong_key"),
        (3, "wrong_key"),
        (5, "malformed"),
    ]


def test_dimensions_are_told_by_their_topic_at_the_broker() -> None:
    topics = TopicNames.of(jd(), {"users": "people"})
    renamed = jd_decoder(topics)
    person = record("users", 0)
    person.place = ("people", 0, 0)
    assert renamed.of_dimensions(person)
    assert not renamed.of_dimensions(record("user-actions", 0))
    events, refused = renamed.decode([person, record("user-actions", 1)])
    assert refused == []
    assert events.has("bo_user").tolist() == [True, False]
    with pytest.raises(KeyError):
        renamed.decode([record("users", 0)])


def test_replayed_records_without_a_time_are_taken_in_every_topic() -> None:
    records: list[Record] = []
    for at, topic in enumerate(TOPICS):
        one = record(topic, at)
        fields = {**json.loads(one.value_ or b""), TIMES.get(topic, "ingestionTime"): 253_402_243_199_999}
        records.append(Fake(one.key_, json.dumps(fields).encode(), None, one.place, written_ms=-1))
    events, refused = decoder().decode(records)
    assert (len(events), [reason(why) for _, why in refused]) == (0, ["time_out_of_range"] * 4)
    events, refused = decoder().decode(records, replayed=True)
    assert (events.records, refused) == (records, [])
    assert np.array_equal(events.has("flattenRequest"), [True, False, False, False])
