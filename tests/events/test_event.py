"""Bytes → events: every kind of poison is refused for its own reason, everything else becomes the right columns."""

from __future__ import annotations

import contextlib
import datetime
import json
from typing import Any

import pyarrow.parquet as pq
import pytest
from fixtures.jd import jd_decoder
from fixtures.records import NOW_MS, Fake
from hypothesis import given, settings
from hypothesis import strategies as st

from streaming.errors import BadEvent
from streaming.events import record as record_module
from streaming.events.batch import EventBatch
from streaming.events.dead_letter import dead_letter, fingerprint
from streaming.events.record import reason

GOOD: dict[str, Any] = {
    "user_id": "200001",
    "sku_id": "80005",
    "time": NOW_MS,
    "type": "6",
    "model_id": "27",
    "cate": "8",
    "br": "214",
}
DECODER = jd_decoder()


def action(**changes: Any) -> bytes:
    return json.dumps({k: v for k, v in {**GOOD, **changes}.items() if v is not ...}).encode()


def decoded(record: Fake) -> EventBatch:
    """The event of one record; raises why it is none."""
    events, refused = DECODER.decode([record])
    if refused:
        raise refused[0][1]
    return events


def request_ids(events: EventBatch) -> list[str]:
    """Of each event."""
    found: list[str] = events.rows["flattenRequest"]["reqId"].to_pylist()
    return found


def test_an_action_becomes_a_row_and_a_request_as_in_the_data() -> None:
    event = decoded(Fake(b"200001", action()))
    moment = datetime.datetime(2016, 3, 31, 10, 11, 20)
    assert event.rows["flattenRequest"].to_pylist() == [
        {
            "reqId": "200001_80005_2016-03-31 18:11:20",
            "eventTime": moment,
            "main_id": "",
            "pair_id": "200001_80005",
            "user_id": "200001",
            "sku_id": "80005",
            "time": NOW_MS,
            "split_id": 0,
            "time1": "2016-03-31 18:11:20",
        }
    ]
    assert event.rows["bo_action"].to_pylist() == [
        {
            "ingestionTime": moment,
            "pair_id": "200001_80005",
            "time": NOW_MS,
            "model_id": "27",
            "type": "6",
            "cate": "8",
            "br": "214",
        }
    ]
    assert event.times.tolist() == [NOW_MS]
    assert event.sender_ids == [None]


def test_default_request_ids_are_the_datas_own(jd: Any) -> None:
    rows = pq.read_table(jd / "flattenRequest_clean").slice(0, 2000)
    records = [
        Fake(user.encode(), action(user_id=user, sku_id=sku, time=time), written_ms=-1)
        for user, sku, time in zip(*(rows[name].to_pylist() for name in ("user_id", "sku_id", "time")), strict=True)
    ]
    events, refused = DECODER.decode(records)
    assert refused == []
    assert request_ids(events) == rows["reqId"].to_pylist()


def test_a_request_id_of_its_own_is_kept_and_unknown_fields_are_ignored() -> None:
    event = decoded(Fake(b"200001", action(request_id="mine", shop={"a": [1]})))
    assert request_ids(event) == event.sender_ids == ["mine"]


POISON = {
    "null": (None, "null_value", "value is null"),
    "empty": (b"", "empty_value", "value is empty"),
    "broken JSON": (action()[:-5], "malformed", "not JSON"),
    "trailing text": (action() + b"{}", "malformed", "not JSON"),
    "not UTF-8": (action().replace(b"214", b"\xff\xfe"), "malformed", "not UTF-8"),
    "lone surrogate": (action().replace(b"214", b"\\ud800"), "malformed", "not JSON"),
    "deep nesting": (b'{"x":' * 10_000, "malformed", "not JSON"),
    "array": (b"[1]", "invalid_field", "Expected `object`"),
    "too large": (action(br="x" * 65_536), "too_large", "65653 bytes; events.message_bytes_max is 65536"),
    "missing field": (action(sku_id=...), "invalid_field", "missing required field `sku_id`"),
    "null field": (action(sku_id=None), "invalid_field", r"Expected `str`, got `null` - at `\$\.sku_id`"),
    "number for text": (action(cate=8), "invalid_field", r"Expected `str`, got `int` - at `\$\.cate`"),
    "text for number": (action(time="now"), "invalid_field", r"at `\$\.time`"),
    "fraction for time": (action(time=1.5), "invalid_field", r"at `\$\.time`"),
    "negative time": (action(time=-1), "invalid_field", r">= 1|> 0"),
    "time zero": (action(time=0), "invalid_field", r">= 1|> 0"),
    "time beyond 64 bits": (action(time=10**30), "invalid_field", r"at `\$\.time`"),
    "future": (action(time=NOW_MS + 301_000), "time_out_of_range", "time lies 301 s after the record's own time"),
    "unknown type": (action(type="7"), "invalid_field", "Invalid enum value '7'"),
    "number for type": (action(type=1), "invalid_field", r"at `\$\.type`"),
    "empty id": (action(user_id=""), "invalid_field", r"at `\$\.user_id`"),
    "long id": (action(sku_id="x" * 129), "invalid_field", r"length <= 128 - at `\$\.sku_id`"),
    "long text": (action(br="x" * 257), "invalid_field", r"length <= 256 - at `\$\.br`"),
    "empty request_id": (action(request_id=""), "invalid_field", r"at `\$\.request_id`"),
}


@pytest.mark.parametrize("kind", POISON)
def test_poison_is_refused_for_its_reason(kind: str) -> None:
    value, why, message = POISON[kind]
    with pytest.raises(BadEvent, match=message) as caught:
        decoded(Fake(b"200001", value))
    assert reason(caught.value) == why


def test_a_record_without_a_time_is_held_against_the_present_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.app.decoding.time.time", lambda: NOW_MS / 1000)
    soon, late = (Fake(b"200001", action(time=NOW_MS + ms), written_ms=-1) for ms in (299_000, 302_000))
    assert DECODER.decode([soon, late])[0].records == [soon]
    with pytest.raises(BadEvent, match=r"time lies 30\d s after now \(the record has no time of its own\)"):
        decoded(late)
    monkeypatch.setattr("streaming.app.decoding.time.time", lambda: NOW_MS / 1000 - 86_400)  # the clock was set back
    assert DECODER.decode([soon], replayed=True)[0].records == [soon]


@pytest.mark.parametrize("key", [None, b"", b"200002", b"\xff"])
def test_the_key_must_be_the_user(key: bytes | None) -> None:
    with pytest.raises(BadEvent, match=r"the key is .*, user_id is '200001'") as caught:
        decoded(Fake(key, action()))
    assert reason(caught.value) == "wrong_key"


def test_a_batch_keeps_its_order_around_poison() -> None:
    records = [Fake(b"1", action(user_id="1")), Fake(b"2", b"{"), Fake(b"3", action(user_id="3")), Fake(b"4", None)]
    events, bad = DECODER.decode(records)
    assert events.rows["flattenRequest"]["user_id"].to_pylist() == ["1", "3"]
    assert events.records == [records[0], records[2]]
    assert [(record, reason(why)) for record, why in bad] == [(records[1], "malformed"), (records[3], "null_value")]


@given(
    st.binary(max_size=300) | st.from_type(dict[str, str | int | float | None]).map(lambda d: json.dumps(d).encode())
)
@settings(max_examples=500, deadline=None)
def test_no_bytes_raise_anything_else(value: bytes) -> None:
    with contextlib.suppress(BadEvent):
        decoded(Fake(b"200001", value))


DIMENSIONS: dict[str, dict[str, Any]] = {
    "users": {
        "ingestionTime": NOW_MS,
        "user_id": "1",
        "age": "26-35岁",
        "sex": "2",
        "user_lv_cd": "5",
        "user_reg_tm": -5,
    },
    "products": {"ingestionTime": NOW_MS, "sku_id": "1", "a1": "3", "a2": "1", "a3": "2", "cate": "8", "br": "306"},
    "comments": {
        "ingestionTime": NOW_MS,
        "dt": 0,
        "sku_id": "1",
        "comment_num": 4,
        "has_bad_comment": "1",
        "bad_comment_rate": 0.0322,
    },
}


TABLES = {"users": "bo_user", "products": "bo_product", "comments": "bo_comment"}


@pytest.mark.parametrize("topic", DIMENSIONS)
def test_dimension_rows_become_rows_of_their_table(topic: str) -> None:
    row = DIMENSIONS[topic]
    record = Fake(b"1", json.dumps(row).encode(), place=(topic, 0, 0))
    assert DECODER.of_dimensions(record)
    expected = {**row, "ingestionTime": datetime.datetime(2016, 3, 31, 10, 11, 20)}
    events = decoded(record)
    assert events.rows.keys() == {TABLES[topic]}
    assert events.sender_ids == [None]
    (got,) = events.rows[TABLES[topic]].to_pylist()
    assert got.pop("bad_comment_rate", 0) == pytest.approx(expected.pop("bad_comment_rate", 0))
    assert got == expected
    with pytest.raises(BadEvent, match="missing required field `ingestionTime`"):
        decoded(Fake(b"1", b'{"sku_id": "1", "user_id": "1"}', place=(topic, 0, 0)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"comment_num": 2**31}, "comment_num"),
        ({"bad_comment_rate": 1.5}, "bad_comment_rate"),
        ({"bad_comment_rate": None}, "bad_comment_rate"),
        ({"dt": 2**63}, "dt"),
        ({"ingestionTime": NOW_MS + 10**9}, "ingestionTime lies"),
    ],
)
def test_dimension_rows_are_checked(changes: dict[str, Any], message: str) -> None:
    value = json.dumps({**DIMENSIONS["comments"], **changes}).encode()
    with pytest.raises(BadEvent, match=message):
        decoded(Fake(b"1", value, place=("comments", 0, 0)))


def refuse(record: Fake) -> BadEvent:
    with pytest.raises(BadEvent) as caught:
        decoded(record)
    return caught.value


def test_a_dead_letter_keeps_the_bytes_and_says_where_and_why() -> None:
    record = Fake(b"k\xff", b"\xff", [("trace", b"abc"), ("trace", None)])
    key, value, headers = dead_letter(record, refuse(record), 1_000_000, "group")
    assert (key, value) == (b"k\xff", b"\xff")
    assert headers == [
        ("trace", b"abc"),
        ("trace", None),
        ("__connect.errors.topic", b"user-actions"),
        ("__connect.errors.partition", b"1"),
        ("__connect.errors.offset", b"7"),
        ("__connect.errors.stage", b"decode"),
        ("__connect.errors.exception.class.name", b"streaming.event.Malformed"),
        ("__connect.errors.exception.message", b"not JSON: JSON is malformed: invalid character (byte 0)"),
        ("jd_intent.timestamp", str(record.timestamp()[1]).encode()),
        ("jd_intent.group", b"group"),
        ("jd_intent.fingerprint", fingerprint(record).encode()),
    ]


PUBLISHED = ("Malformed", "NullValue", "EmptyValue", "TooLarge", "InvalidField", "TimeOutOfRange", "WrongKey")


@pytest.mark.parametrize("kind", PUBLISHED)
def test_who_filters_dead_letters_by_a_class_finds_the_name_that_it_always_had(kind: str) -> None:
    error = getattr(record_module, kind)("validate", "why")
    _, _, headers = dead_letter(Fake(b"k", b"v"), error, 1_000_000, "group")
    assert dict(headers)["__connect.errors.exception.class.name"] == f"streaming.event.{kind}".encode()


def test_no_other_class_of_refusals_is_published_under_that_module() -> None:
    kinds = {name for name, of in vars(record_module).items() if isinstance(of, type) and issubclass(of, BadEvent)}
    assert kinds == {*PUBLISHED, "BadEvent"}


@pytest.mark.parametrize(
    ("key", "headers", "gone"),
    [
        (b"k", [("h", b"1")], {"value_bytes": b"5000000"}),
        (b"k", [("h", b"x" * 2_000_000)], {"value_bytes": b"5000000", "headers": b"1"}),
        (b"k" * 3_000_000, None, {"value_bytes": b"5000000", "key_bytes": b"3000000"}),
    ],
)
def test_a_dead_letter_fits_its_topic(key: bytes, headers: Any, gone: dict[str, bytes]) -> None:
    record = Fake(key, b"v" * 5_000_000, headers)
    got_key, got_value, got = dead_letter(record, refuse(record), 1_000_000, "group")
    size = len(got_key or b"") + len(got_value or b"") + sum(len(name) + len(text or b"") for name, text in got)
    assert 900_000 < size < 1_000_000
    assert key.startswith(got_key or b"?")
    cut = {name.removeprefix("jd_intent.truncated."): text for name, text in got if "truncated" in name}
    assert cut == gone


class Unreadable(Fake):
    """A record with a header whose name is not UTF-8, as confluent-kafka gives it."""

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        try:
            b"\xff".decode()
        except UnicodeDecodeError as error:
            raise SystemError("<method 'headers'> returned a result with an exception set") from error
        raise AssertionError


def test_headers_that_cannot_be_read_are_left_out_of_the_dead_letter() -> None:
    record = Unreadable(b"1", b"{")
    key, value, headers = dead_letter(record, refuse(record), 1_000_000, "group")
    assert (key, value) == (b"1", b"{")
    names = dict(headers)
    assert names["__connect.errors.topic"] == b"user-actions"
    assert b"can't decode byte 0xff" in (names["jd_intent.unreadable.headers"] or b"")
