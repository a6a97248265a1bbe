"""The tutorial's shop as a folder decodes its topics as the program did before, record for record."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pytest
from fixtures.records import NOW_MS, Fake
from hypothesis import given, settings
from hypothesis import strategies as st
from places import SQL
from reference.tutorial_events import action_columns, action_decoder, dimension_columns, dimension_decoders

from streaming.app.decoding import StreamDecoder
from streaming.app.folder import load_app
from streaming.events.batch import EventBatch, Refusals
from streaming.events.record import reason

BYTES_MAX, FUTURE_S = 2_000, 300
LAST_LOCAL_MS = 253_402_243_199_999  # the end of the year 9999 in UTC+8

GOOD: dict[str, dict[str, Any]] = {
    "actions": {
        "user_id": "200001",
        "sku_id": "80005",
        "time": NOW_MS,
        "type": "6",
        "model_id": "27",
        "cate": "8",
        "br": "214",
        "request_id": "r1",
    },
    "users": {
        "user_id": "200001",
        "ingestionTime": NOW_MS,
        "age": "26-35岁",
        "sex": "2",
        "user_lv_cd": "5",
        "user_reg_tm": -5,
    },
    "products": {"sku_id": "1", "ingestionTime": NOW_MS, "a1": "3", "a2": "1", "a3": "2", "cate": "8", "br": "306"},
    "comments": {
        "sku_id": "1",
        "ingestionTime": NOW_MS,
        "dt": 0,
        "comment_num": 4,
        "has_bad_comment": "1",
        "bad_comment_rate": 0.0322,
    },
}
TABLES = {"users": "bo_user", "products": "bo_product", "comments": "bo_comment"}


@dataclass
class Written(Fake):
    """A record that was written at a time of its own; -1: at none."""

    at: int = NOW_MS

    def timestamp(self) -> tuple[int, int]:
        return 1, self.at


@functools.cache
def decoder(stream: str) -> StreamDecoder:
    app = load_app(SQL / "jd")
    found = next(one for one in app.streams if one.name == stream)
    return StreamDecoder(app, found, BYTES_MAX, FUTURE_S)


def same(stream: str, records: Sequence[Written], replayed: bool = False) -> tuple[EventBatch, Refusals]:
    """What the folder's decoder makes of records, which must be what the program's own does."""
    found, refused = decoder(stream).decode(records, replayed=replayed)
    if stream == "actions":
        acts, good, bad = action_decoder(BYTES_MAX, FUTURE_S).decode_all(records, replayed=replayed)
        if acts:
            old = action_columns(acts)
            tables = {"bo_action": old.rows, "flattenRequest": old.requests}
            assert found.rows["flattenRequest"]["reqId"].to_pylist() == old.request_ids
            assert found.sender_ids == [act.request_id for act in acts]
            assert found.times.tolist() == old.times.tolist()
        else:
            tables = {}
    else:
        table = TABLES[stream]
        dimensions, good, bad = dimension_decoders(BYTES_MAX, FUTURE_S)[table].decode_all(records, replayed=replayed)
        tables = {table: dimension_columns(table, dimensions)} if dimensions else {}
    assert [id(record) for record in found.records] == [id(record) for record in good]
    assert found.rows.keys() == tables.keys()
    for name, rows in tables.items():
        assert found.rows[name].schema == rows.schema
        assert found.rows[name].equals(rows)
        assert found.events_of[name].tolist() == list(range(len(good)))
    assert [(id(r), type(e), e.stage) for r, e in refused] == [(id(r), type(e), e.stage) for r, e in bad]
    for (_, new), (_, was) in zip(refused, bad, strict=True):
        assert str(new) == str(was)
    return found, refused


TEXTS = st.text(max_size=5) | st.sampled_from(["", "x" * 128, "x" * 129, "x" * 256, "x" * 257, "字" * 128, "\x00", "1"])
NUMBERS = (
    st.integers(NOW_MS - 10**6, NOW_MS + 10**6)
    | st.integers(1, LAST_LOCAL_MS)
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0, 1, 2, -1, 2**31 - 1, 2**31, 2**63 - 1, 2**63, -(2**63), LAST_LOCAL_MS, 10**17 + 1])
    .filter(lambda number: not LAST_LOCAL_MS < number < 253_402_300_800_000)
)  # fmt: skip
ODD: st.SearchStrategy[Any] = (
    TEXTS | NUMBERS | st.floats() | st.floats(0, 1) | st.none() | st.booleans() | st.just([1]) | st.just({"a": {}})
)


def like(good: object) -> st.SearchStrategy[Any]:
    """A value of the kind of a good one."""
    if isinstance(good, str):
        return TEXTS | st.just(good) | st.sampled_from("1234567")
    return st.floats(0, 1) | st.sampled_from([0, 1, 1e-50, 0.1]) if isinstance(good, float) else NUMBERS | st.just(good)


@st.composite
def values(draw: st.DrawFn, stream: str) -> dict[str, Any]:
    """Fields of which most are good; some are odd, missing, or more than there should be."""
    fields = {name: draw(like(good)) if draw(st.booleans()) else good for name, good in GOOD[stream].items()}
    if draw(st.booleans()):
        fields.pop("request_id", None)
    if draw(st.integers(0, 3)) == 0:
        name = draw(st.sampled_from([*fields, "more"]))
        fields[name] = draw(ODD)
    if draw(st.integers(0, 7)) == 0:
        del fields[draw(st.sampled_from(sorted(fields)))]
    return fields


@st.composite
def records(draw: st.DrawFn, stream: str) -> Written:
    kind = draw(st.integers(0, 11))
    at = draw(st.sampled_from([NOW_MS, NOW_MS, NOW_MS - FUTURE_S * 1000, -1, 0, LAST_LOCAL_MS]))
    if kind == 0:
        return Written(draw(st.none() | st.binary(max_size=3)), draw(st.none() | st.binary(max_size=20)), at=at)
    fields = draw(values(stream))
    value = json.dumps(fields, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if kind == 1:
        cut = draw(st.integers(0, len(value)))
        value = value[:cut] + draw(st.binary(max_size=2)) + value[cut + draw(st.integers(0, 2)) :]
    key = fields.get(next(iter(GOOD[stream])))
    right = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else b"k"
    return Written(right if draw(st.integers(0, 7)) else draw(st.none() | st.binary(max_size=3)), value, at=at)


@pytest.mark.parametrize("stream", GOOD)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_records_become_the_same_rows_and_the_same_refusals(stream: str, data: st.DataObject) -> None:
    batch = data.draw(st.lists(records(stream), max_size=8))
    same(stream, batch, replayed=data.draw(st.booleans()))


def action(**changes: Any) -> bytes:
    return json.dumps({k: v for k, v in {**GOOD["actions"], **changes}.items() if v is not ...}).encode()


def test_a_batch_of_a_thousand_keeps_its_order_around_what_is_refused() -> None:
    batch = [
        Written(str(i % 7).encode(), action(user_id=str(i % 7), time=NOW_MS - i, request_id=... if i % 3 else f"r{i}"))
        for i in range(1_500)
    ]
    batch[3] = Written(b"3", b"{")
    batch[700] = Written(b"0", action(user_id="0", type="7"))
    batch[1_499] = Written(b"x", action())
    found, refused = same("actions", batch)
    assert [reason(why) for _, why in refused] == ["malformed", "invalid_field", "wrong_key"]
    assert found.rows["bo_action"].num_rows == 1_497


MESSAGES = {
    "missing": (action(sku_id=...), "Object missing required field `sku_id`"),
    "null": (action(sku_id=None), "Expected `str`, got `null` - at `$.sku_id`"),
    "a number": (action(cate=8), "Expected `str`, got `int` - at `$.cate`"),
    "a long id": (action(sku_id="x" * 129), "Expected `str` of length <= 128 - at `$.sku_id`"),
    "a long text": (action(br="x" * 257), "Expected `str` of length <= 256 - at `$.br`"),
    "a negative time": (action(time=-1), "Expected `int` >= 1 - at `$.time`"),
    "an unknown type": (action(type="7"), "Invalid enum value '7' - at `$.type`"),
    "an empty id": (action(user_id=""), "Expected `str` of length >= 1 - at `$.user_id`"),
    "an empty name": (action(request_id=""), "Expected `str` of length >= 1 - at `$.request_id`"),
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_a_refusal_names_the_field_or_the_constraint(kind: str) -> None:
    value, message = MESSAGES[kind]
    _, ((_, why),) = same("actions", [Written(b"200001", value)])
    assert str(why) == message


def test_nothing_makes_nothing() -> None:
    found, _ = same("actions", [])
    assert found.records == []
    assert found.rows == {}
    assert found.times.tolist() == []


def test_the_projection_holds_rows_of_its_own() -> None:
    """What came of one batch does not change when the next one is decoded."""
    first, _ = same("actions", [Written(b"200001", action(request_id=...))])
    kept = pa.Table.from_pylist(first.rows["flattenRequest"].to_pylist())
    same("actions", [Written(b"a", action(user_id="a", sku_id="b", request_id=...))])
    assert first.rows["flattenRequest"].to_pylist() == kept.to_pylist()
