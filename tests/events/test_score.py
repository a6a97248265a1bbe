"""Scores as they go out: keys, values, and headers that name each event once."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from fixtures.applications import make
from fixtures.jd import jd, jd_decoder, jd_topics
from fixtures.records import Fake

from streaming.app.folder import load_app
from streaming.app.inputs import InputDecoder
from streaming.app.scores import score_encoder
from streaming.app.topics import TopicNames
from streaming.config import CloudEvents, Events
from streaming.events.scores import Headers, event_place, score_json


def encoded(
    records: list[Fake], probabilities: list[float], topics: TopicNames | None = None, form: CloudEvents = "binary"
) -> list[tuple[bytes | None, bytes, Headers]]:
    """The scores of JD's actions."""
    events, refused = jd_decoder(topics).decode(records)
    assert refused == []
    return score_encoder(jd(), form)(events, np.array(probabilities, np.float32), "4")


def action(user: str, sku: str, time: int, place: tuple[str, int, int], name: str | None = None) -> Fake:
    fields = {"user_id": user, "sku_id": sku, "time": time, "type": "1", "model_id": "", "cate": "8", "br": "3"}
    named = {} if name is None else {"request_id": name}
    return Fake(user.encode(), json.dumps(fields | named).encode(), place=place, written_ms=time)


def test_actions_of_one_pair_in_one_second_have_event_ids_of_their_own() -> None:
    times = (1_459_419_080_000, 1_459_419_080_007)
    records = [action("1", "2", time, ("user-actions", 3, at)) for time, at in zip(times, (7, 8), strict=True)]
    sent = encoded(records, [0.25, 0.5])
    headers: list[dict[str, Any]] = [dict(parts) for _, _, parts in sent]
    assert [parts["ce_id"] for parts in headers] == [b"user-actions[3]@7", b"user-actions[3]@8"]
    assert [parts["ce_time"] for parts in headers] == [b"2016-03-31T10:11:20.000Z", b"2016-03-31T10:11:20.007Z"]
    assert {parts["ce_source"] for parts in headers} == {b"/jd-intent-scorer/user-actions"}
    assert [json.loads(value) for _, value, _ in sent] == [
        {
            "request_id": "1_2_2016-03-31 18:11:20",
            "user_id": "1",
            "sku_id": "2",
            "event_time": time,
            "purchase_probability": probability,
            "model_version": "4",
        }
        for time, probability in zip(times, (0.25, 0.5), strict=True)
    ]
    assert [key for key, _, _ in sent] == [b"1", b"1"]


RECORDED: list[tuple[Fake, float, bytes, bytes, bytes]] = [
    (
        action("200001", "80005", 1_459_419_080_000, ("user-actions", 3, 7)),
        0.25,
        b'{"request_id":"200001_80005_2016-03-31 18:11:20","user_id":"200001","sku_id":"80005",'
        b'"event_time":1459419080000,"purchase_probability":0.25,"model_version":"4"}',
        b"user-actions[3]@7",
        b"2016-03-31T10:11:20.000Z",
    ),
    (
        action('ü"1\\', "8/0\t5", 1_459_419_080_007, ("user-actions", 0, 2**40), "mine \u2028 é😀"),
        0.1,
        b'{"request_id":"mine \xe2\x80\xa8 \xc3\xa9\xf0\x9f\x98\x80","user_id":"\xc3\xbc\\"1\\\\","sku_id":"8/0\\t5",'
        b'"event_time":1459419080007,"purchase_probability":0.10000000149011612,"model_version":"4"}',
        b"user-actions[0]@1099511627776",
        b"2016-03-31T10:11:20.007Z",
    ),
    (
        action("3", "4", 1, ("user-actions", 1, 0)),
        1e-8,
        b'{"request_id":"3_4_1970-01-01 08:00:00","user_id":"3","sku_id":"4","event_time":1,'
        b'"purchase_probability":9.99999993922529e-9,"model_version":"4"}',
        b"user-actions[1]@0",
        b"1970-01-01T00:00:00.001Z",
    ),
    (
        action("3", "4", 253_402_243_199_999, ("user-actions", 2, 1), "x"),
        1.0,
        b'{"request_id":"x","user_id":"3","sku_id":"4","event_time":253402243199999,'
        b'"purchase_probability":1.0,"model_version":"4"}',
        b"user-actions[2]@1",
        b"9999-12-31T07:59:59.999Z",
    ),
]
"""Records, probabilities, and what the scorer of before there were applications sent: value, ce_id, ce_time."""


def test_the_tutorials_scores_are_byte_for_byte_what_they_were() -> None:
    sent = encoded([record for record, *_ in RECORDED], [probability for _, probability, *_ in RECORDED])
    assert sent == [
        (
            record.key(),
            value,
            [
                ("content-type", b"application/json"),
                ("ce_specversion", b"1.0"),
                ("ce_type", b"com.jd.intent.purchase-score.v1"),
                ("ce_source", b"/jd-intent-scorer/user-actions"),
                ("ce_id", name),
                ("ce_time", moment),
            ],
        )
        for record, _, value, name, moment in RECORDED
    ]


def test_a_structured_score_has_in_its_value_what_the_headers_say() -> None:
    records, probabilities = [record for record, *_ in RECORDED], [probability for _, probability, *_ in RECORDED]
    sent = encoded(records, probabilities, form="structured")
    for (key, value, headers), (record, _, data, name, moment) in zip(sent, RECORDED, strict=True):
        assert key == record.key()
        assert headers == [("content-type", b"application/cloudevents+json")]
        assert data in value
        assert json.loads(value) == {
            "specversion": "1.0",
            "type": "com.jd.intent.purchase-score.v1",
            "source": "/jd-intent-scorer/user-actions",
            "datacontenttype": "application/json",
            "id": name.decode(),
            "time": moment.decode(),
            "data": json.loads(data),
        }


def test_a_bare_score_is_the_json_alone() -> None:
    records, probabilities = [record for record, *_ in RECORDED], [probability for _, probability, *_ in RECORDED]
    sent = encoded(records, probabilities, form="none")
    assert sent == [(record.key(), data, []) for record, _, data, *_ in RECORDED]


@pytest.mark.parametrize("form", ["binary", "structured", "none"])
def test_a_score_is_read_in_each_form(form: CloudEvents) -> None:
    records, probabilities = [record for record, *_ in RECORDED], [probability for _, probability, *_ in RECORDED]
    for (key, value, headers), (*_, data, name, _) in zip(
        encoded(records, probabilities, form=form), RECORDED, strict=True
    ):
        score = Fake(key, value, headers)
        assert score_json(score) == data
        assert event_place(score) == ("" if form == "none" else name.decode())


STRUCTURED = [("content-type", b"application/cloudevents+json; charset=UTF-8")]


@pytest.mark.parametrize(
    ("value", "headers", "data", "place"),
    [
        (None, None, None, ""),
        (b'{"specversion":"1.0","data":{"a":1},"id":"x"}', STRUCTURED, b'{"a":1}', "x"),
        # Fields of a score may be called so: what the headers say counts.
        (b'{"specversion":"1.0","data":1,"id":"x"}', None, b'{"specversion":"1.0","data":1,"id":"x"}', ""),
        (b'{"specversion":"1.0","id":"x"}', STRUCTURED, b'{"specversion":"1.0","id":"x"}', ""),
        (b'{"specversion":"1.0",', STRUCTURED, b'{"specversion":"1.0",', ""),
        (b"{}", [("ce_id", b"\xff")], b"{}", "\ufffd"),
        (b"{}", [("ce_id", None), ("content-type", None)], b"{}", ""),
        (None, STRUCTURED, None, ""),
    ],
)
def test_another_programs_record_is_read_as_it_is(
    value: bytes | None, headers: Headers | None, data: bytes | None, place: str
) -> None:
    record = Fake(None, value, headers)
    assert score_json(record) == data
    assert event_place(record) == place


def test_the_source_is_the_topic_by_its_name_at_the_broker() -> None:
    topics = TopicNames.of(jd(), {"actions": "shop.actions"})
    ((_, _, headers),) = encoded([action("1", "2", 5, ("shop.actions", 0, 0))], [0.5], topics)
    assert dict(headers)["ce_source"] == b"/jd-intent-scorer/shop.actions"
    assert dict(headers)["ce_id"] == b"shop.actions[0]@0"
    assert jd_topics().events == ("user-actions",)


def test_a_score_has_the_fields_and_the_type_that_the_application_says(tmp_path: Any) -> None:
    folder = make(
        tmp_path / "app",
        app=(
            'risk = "$probability"',
            'risk = "$probability"\n"the moment" = "at"\namount = "amount"\nnote = "note"\nversion = "$model_version"',
        ),
    )
    app = load_app(folder)
    record = Fake(b"17", b'{"number": 17, "moment": 1459419080007, "reference": "r"}', place=("paid", 0, 3))
    events, refused = InputDecoder(app, Events(), TopicNames.of(app, {})).decode([record])
    assert refused == []
    ((key, value, headers),) = score_encoder(app)(events, np.array([0.5], np.float32), "2")
    assert key == b"17"
    assert value == (b'{"payment":"r","risk":0.5,"the moment":1459419080007,"amount":null,"note":null,"version":"2"}')
    assert dict(headers)["ce_type"] == b"payments.score.v1"
    assert dict(headers)["ce_source"] == b"/jd-intent-scorer/paid"


@pytest.mark.parametrize("key", [None, b"", b"\xff"])
def test_a_scores_key_is_the_events_own(key: bytes | None) -> None:
    """Bytes that no stream's column spells: the decoder refuses them, and the encoder leaves what is there."""
    events, _ = jd_decoder().decode([action("1", "2", 5, ("user-actions", 0, 0))])
    events.records[0] = Fake(key, b"", place=("user-actions", 0, 0))
    ((got, _, _),) = score_encoder(jd())(events, np.array([0.5], np.float32), "2")
    assert got == key
