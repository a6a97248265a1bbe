"""An application of another kind than the project's two: its folder is right, and its events become its rows."""

from __future__ import annotations

import datetime
import json
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from fixtures.cards import CARDS, Sent, card_records
from fixtures.records import Fake
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from streaming.app.decoding import StreamDecoder
from streaming.app.folder import load_app
from streaming.engine import Engine
from streaming.events.batch import EventBatch, Refusals
from streaming.events.record import reason


class AsSent(Fake):
    """A record with the time that it was sent at."""

    def __init__(self, sent: Sent) -> None:
        super().__init__(sent.key, sent.value)
        self.sent = sent

    def timestamp(self) -> tuple[int, int]:
        return 1, self.sent.time_ms


APP = load_app(CARDS)


@pytest.fixture(scope="module")
def records() -> dict[str, list[Sent]]:
    return card_records(3)


def decoded(records: dict[str, list[Sent]]) -> dict[str, tuple[EventBatch, Refusals]]:
    return {
        stream.name: StreamDecoder(APP, stream, 65_536, 300).decode([AsSent(sent) for sent in records[stream.name]])
        for stream in APP.streams
    }


def test_its_folder_is_right_and_warns_of_nothing() -> None:
    assert APP.warnings == ()
    assert APP.main == "payments"
    assert [stream.name for stream in APP.scored] == ["authorizations"]
    assert len(APP.features) >= 20


@given(seed=st.integers(0, 2**31))
@settings(deadline=None, max_examples=15)
def test_its_world_becomes_rows_and_what_is_wrong_is_refused_for_its_reason(seed: int) -> None:
    records = card_records(seed, cards=5)
    for name, (events, refused) in decoded(records).items():
        expected = [sent for sent in records[name] if sent.refusal is not None]
        assert len(events) + len(expected) == len(records[name])
        assert len(refused) == len(expected)
        for sent, (record, why) in zip(expected, refused, strict=True):
            assert isinstance(record, AsSent)
            assert record.sent is sent
            assert sent.refusal is not None
            kind, message = sent.refusal
            assert reason(why) == kind
            assert message in str(why)


def test_units_names_and_types_are_the_columns(records: dict[str, list[Sent]]) -> None:
    found = {name: events for name, (events, _) in decoded(records).items()}
    payments = found["authorizations"].rows["payments"].to_pylist()
    sent = [json.loads(one.value or b"") for one in records["authorizations"] if one.refusal is None]
    assert len(payments) == len(sent) > 5_000
    for row, event in zip(payments, sent, strict=True):
        assert row["card"] == event["pan"]
        assert len(str(row["card"])) == 18
        assert row["amount"] == event["cents"] / 100.0
        assert row["paid_at"] == datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=event["ts"])
        assert row["entry"] == ("chip", "stripe", "web", "phone")[event["mode"]]
        assert row["country"] == (event["land"] or "??")
        assert row["instalments"] == event.get("parts", 1)
    activity = [json.loads(one.value or b"") for one in records["card_activity"] if one.refusal is None]
    logins = [event for event in activity if event["what"] == "login"]
    rows = found["card_activity"].rows["logins"].to_pylist()
    for row, event in zip(rows, logins, strict=True):
        moment = datetime.datetime.fromisoformat(event["moment"])
        moment = moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo("America/New_York"))
        assert row["at"] == moment.astimezone(datetime.timezone.utc).replace(tzinfo=None)
        assert row["failed"] == (not event["success"])
    assert len(rows) + found["card_activity"].rows["chargebacks"].num_rows == len(activity)


def test_the_query_answers_it_and_the_label_can_be_learned(records: dict[str, list[Sent]]) -> None:
    found = {name: events for name, (events, _) in decoded(records).items()}
    engine = Engine()
    engine.execute(APP.sources["tables.sql"])
    engine.execute(f"DEPLOY d {APP.sources['features.sql']}")
    for batch in found.values():
        for table, rows in batch.rows.items():
            engine.insert(table, rows)
    payments = found["authorizations"].rows["payments"]
    label = later_dispute(payments, found["card_activity"].rows["chargebacks"])
    assert 0.01 < label.mean() < 0.2
    answers = engine.request("d", payments.slice(0, 3_000))
    assert answers.num_columns == len(APP.query.columns)
    failed = pc.fill_null(answers["failed_logins_1d"], 0).to_numpy()
    first = label[:3_000]
    assert failed[first == 1].mean() > 2 * failed[first == 0].mean()


def later_dispute(payments: pa.Table, disputes: pa.Table) -> NDArray[np.int64]:
    filed: dict[int, list[datetime.datetime]] = {}
    for row in disputes.to_pylist():
        filed.setdefault(row["card"], []).append(row["filed_at"])
    horizon = datetime.timedelta(days=3)
    return np.array(
        [
            any(row["paid_at"] < at <= row["paid_at"] + horizon for at in filed.get(row["card"], ()))
            for row in payments.to_pylist()
        ],
        np.int64,
    )
