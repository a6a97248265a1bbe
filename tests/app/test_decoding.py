"""Records of any application's streams → rows: types to the last digit, constraints by name, times in their formats."""

from __future__ import annotations

import csv
import datetime
import json
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pytest
from fixtures.applications import make
from fixtures.records import NOW_MS, Fake
from hypothesis import given, settings
from hypothesis import strategies as st
from places import SHARED, SQL

from streaming.app.decoding import StreamDecoder
from streaming.app.folder import App, load_app
from streaming.engine import Engine
from streaming.events.batch import EventBatch, Refusals
from streaming.events.record import reason

CARD = 123_456_789_012_345_678
PAID: dict[str, Any] = {"number": CARD, "moment": NOW_MS, "cents": 1050, "reference": "a"}
ROW: dict[str, Any] = {"card": CARD, "since": "2016-03-31T12:00:00+02:00", "country": "DE"}
MOMENT = datetime.datetime(2016, 3, 31, 10, 0)


class Found(NamedTuple):
    """What came of records."""

    events: EventBatch
    refused: Refusals

    @property
    def rows(self) -> dict[str, pa.Table]:
        return self.events.rows


def decode(app: App, stream: str, *events: dict[str, Any], key: bytes | None = None, **options: bool) -> Found:
    found = next(one for one in app.streams if one.name == stream)
    decoder = StreamDecoder(app, found, 65_536, 300)
    records = [
        Fake(str(event.get(found.key or "", "")).encode() if key is None else key, json.dumps(event).encode())
        for event in events
    ]
    return Found(*decoder.decode(records, **options))


def refusals(found: Found) -> list[tuple[str, str]]:
    return [(reason(why), str(why)) for _, why in found.refused]


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> App:
    return load_app(make(tmp_path_factory.mktemp("bank") / "app"))


def test_fields_of_other_names_units_and_types_become_the_columns(bank: App) -> None:
    found = decode(bank, "paid", PAID, {**PAID, "reference": "b", "cents": None, "more": [1]})
    assert found.rows.keys() == {"payments"}
    assert found.rows["payments"].cast(schema_of_table(bank, "payments")).to_pylist() == [
        {"id": "a", "card": CARD, "at": moment(NOW_MS), "amount": 10.5, "small": 7, "note": None},
        {"id": "b", "card": CARD, "at": moment(NOW_MS), "amount": None, "small": 7, "note": None},
    ]
    assert found.events.sender_ids == ["a", "b"]
    assert found.events.times.tolist() == [NOW_MS] * 2
    assert found.refused == []


def schema_of_table(app: App, table: str) -> Any:
    engine = Engine()
    engine.execute(app.sources["tables.sql"])
    return engine.table_schema(table)


def moment(ms: int) -> datetime.datetime:
    return datetime.datetime(1970, 1, 1) + datetime.timedelta(milliseconds=ms)


def test_rows_go_into_the_tables_and_the_query_answers_them(bank: App) -> None:
    engine = Engine()
    engine.execute(bank.sources["tables.sql"])
    engine.execute(f"DEPLOY d {bank.sources['features.sql']}")
    engine.insert("cards", decode(bank, "card_rows", ROW).rows["cards"])
    requests = decode(bank, "paid", PAID).rows["payments"]
    assert engine.request("d", requests).to_pylist() == [{"id": "a", "amount": 10.5, "payments_1h": 1, "country": "DE"}]


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("2016-03-31T12:00:00+02:00", 1_459_418_400_000),
        ("2016-03-31T10:00:00Z", 1_459_418_400_000),
        ("2016-03-31T12:00:00", 1_459_418_400_000),  # Berlin's summer time
        ("2016-01-31 12:00:00.123456", 1_454_238_000_123),
        ("2015-10-25T02:30:00", 1_445_733_000_000),  # the clocks show it twice: the first
    ],
)
def test_a_declared_time_may_be_a_text(bank: App, text: str, ms: int) -> None:
    assert decode(bank, "card_rows", {**ROW, "since": text}).events.times.tolist() == [ms]


@pytest.mark.parametrize(
    ("stream", "changes", "why", "message"),
    [
        ("paid", {"moment": "2016-03-31T12:00:00Z"}, "invalid_field", "Expected `int`, got `str` - at `$.moment`"),
        ("paid", {"number": str(CARD)}, "invalid_field", "Expected `int`, got `str` - at `$.number`"),
        ("paid", {"number": 2**63}, "invalid_field", "at `$.number`"),
        ("paid", {"number": 1.5}, "invalid_field", "at `$.number`"),
        ("paid", {"cents": 2**31}, "invalid_field", "Expected `int` <= 2147483647 - at `$.cents`"),
        ("paid", {"cents": 0}, "invalid_field", "Expected `int` >= 1 - at `$.cents`"),
        ("paid", {"reference": None}, "invalid_field", "Expected `str`, got `null` - at `$.reference`"),
        ("paid", {"reference": "x" * 257}, "invalid_field", "length <= 256 - at `$.reference`"),
        ("paid", {"moment": NOW_MS + 301_000}, "time_out_of_range", "moment lies 301 s after the record's own time"),
        ("card_rows", {"since": NOW_MS}, "invalid_field", "at `$.since`"),
        ("card_rows", {"since": "1969-12-31T23:59:59Z"}, "invalid_field", "a time after 1970 - at `$.since`"),
        ("card_rows", {"since": "2016-03-31"}, "invalid_field", "at `$.since`"),
        ("card_rows", {"since": "2016-04-01T00:00:00Z"}, "time_out_of_range", "since lies"),
    ],
)
def test_a_refusal_says_why(bank: App, stream: str, changes: dict[str, Any], why: str, message: str) -> None:
    good = PAID if stream == "paid" else ROW
    found = decode(bank, stream, {**good, **changes}, good)
    assert len(found.events) == 1
    ((kind, text),) = refusals(found)
    assert kind == why
    assert message in text


@pytest.mark.parametrize("key", [b"", b"1", b"0" + str(CARD).encode(), b"\xff"])
def test_a_whole_number_is_a_key_by_its_digits(bank: App, key: bytes) -> None:
    ((kind, text),) = refusals(decode(bank, "paid", PAID, key=key))
    assert kind == "wrong_key"
    assert text == f"the key is {key!r}, number is {CARD}"


def changed(tmp_path: Path, **changes: tuple[str, str]) -> App:
    return load_app(make(tmp_path / "app", **changes))


def test_a_constraint_of_several_fields_is_named(tmp_path: Path) -> None:
    app = changed(tmp_path, events=("CHECK (cents > 0)", "CONSTRAINT dear CHECK (cents > 5 OR reference = 'free'),\n"
                                    "CHECK (concat(reference, 'x') !=  'badx')"))  # fmt: skip
    events = [PAID, {"cents": 1}, {"cents": 1, "reference": "free"}, {"reference": "bad"}, {"cents": None}]
    found = decode(app, "paid", *({**PAID, **event} for event in events))
    assert found.events.sender_ids == ["a", "free", "a"]  # of NULL no CHECK is false
    assert refusals(found) == [
        ("invalid_field", "dear: CHECK (cents > 5 OR reference = 'free') is false"),
        ("invalid_field", "CHECK (concat(reference, 'x') != 'badx') is false"),
    ]


def test_a_row_without_a_value_that_its_table_wants_is_refused(tmp_path: Path) -> None:
    app = changed(tmp_path, events=("moment AS at", "timestamp(cents - 5) AS at"))
    found = decode(app, "paid", PAID, {**PAID, "cents": None}, {**PAID, "cents": 3}, {**PAID, "cents": 5})
    assert [row["at"] for row in found.rows["payments"].to_pylist()] == [moment(1045), moment(0)]
    assert refusals(found) == [("invalid_field", "payments.at would be NULL, or no time")] * 2


def test_one_stream_may_fill_several_tables_and_one_table_several_times(tmp_path: Path) -> None:
    app = changed(
        tmp_path,
        events=(
            "INSERT INTO cards SELECT card, since, country FROM card_rows;",
            "INSERT INTO cards SELECT card, since, country FROM card_rows WHERE country != 'XX';\n"
            "INSERT INTO cards (country, since, card) SELECT 'all', since, -card FROM card_rows;\n"
            "INSERT INTO cards SELECT number AS card, moment AS since FROM paid WHERE cents > 100;",
        ),
    )
    found = decode(app, "card_rows", ROW, {**ROW, "country": "XX"}, {"card": 5}, {**ROW, "country": None})
    assert [(row["card"], row["country"]) for row in found.rows["cards"].to_pylist()] == [
        (CARD, "DE"),
        (-CARD, "all"),
        (-CARD, "all"),
        (-CARD, "all"),
    ]
    assert found.events.events_of["cards"].tolist() == [0, 0, 1, 2]
    assert len(found.refused) == 1
    paid = decode(app, "paid", {**PAID, "cents": 5}, PAID)
    assert paid.rows["payments"].num_rows == 2
    assert paid.rows["cards"].to_pylist() == [{"card": CARD, "since": moment(NOW_MS), "country": "??"}]
    assert paid.events.events_of["cards"].tolist() == [1]


def test_defaults_seconds_and_all_types(tmp_path: Path) -> None:
    app = changed(
        tmp_path,
        tables=("CREATE TABLE cards", "CREATE TABLE kinds (a bool, b smallint, c float, d double, e date, f timestamp, "
                "g string, h int);\nCREATE TABLE cards"),
        events=("CREATE TABLE card_rows", """CREATE TABLE kinds_of (a bool, b smallint DEFAULT -3, c float, d double,
            `class` date, f timestamp NOT NULL, g varchar(3) NOT NULL DEFAULT 'x', h int NOT NULL DEFAULT 4)
            WITH (event_time = 'f', timestamp_format = 'epoch_s');
            INSERT INTO kinds SELECT a, b, c, c AS d, `class` AS e, f, g, h FROM kinds_of;
            CREATE TABLE card_rows"""),
    )  # fmt: skip
    event = {"a": True, "b": 7, "c": 0.1, "d": 2, "class": "2020-02-29", "f": NOW_MS // 1000, "g": "äöü", "h": 9}
    found = decode(
        app, "kinds_of", event, {"f": 1, "a": None}, {"f": 1, "g": None}, {"f": 1, "c": 3.5e38}, {"f": NOW_MS}
    )
    first, second = found.rows["kinds"].to_pylist()
    assert first == {
        "a": True, "b": 7, "c": pytest.approx(0.1), "d": first["c"], "e": datetime.date(2020, 2, 29),
        "f": moment(NOW_MS // 1000 * 1000), "g": "äöü", "h": 9,
    }  # fmt: skip
    assert second == {"a": None, "b": -3, "c": None, "d": None, "e": None, "f": moment(1000), "g": "x", "h": 4}
    assert [kind for kind, _ in refusals(found)] == ["invalid_field"] * 3


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=3)


@given(
    st.binary(max_size=40)
    | st.dictionaries(st.sampled_from(["card", "since", "country", "x"]), JSON).map(lambda d: json.dumps(d).encode())
)
@settings(max_examples=300, deadline=None)
def test_no_bytes_raise_anything_else(bank: App, value: bytes) -> None:
    decoder = StreamDecoder(bank, bank.streams[1], 65_536, 300)
    events, refused = decoder.decode([Fake(b"1", value)])
    assert len(events) + len(refused) == 1


def test_the_public_sample_of_ad_clicks_is_decoded_whole() -> None:
    sample = SHARED / "apps" / "talkingdata" / "train_sample.csv"
    if not sample.exists():
        pytest.skip("the sample is not here")
    app = load_app(SQL / "talkingdata")
    zone = datetime.timezone(datetime.timedelta(hours=8))
    with sample.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    names = ("ip", "app", "device", "os", "channel")
    events = []
    for line in lines:
        at = datetime.datetime.strptime(line["click_time"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=zone)
        events.append({**{name: int(line[name]) for name in names}, "click_time": round(at.timestamp() * 1000)})
    records = [
        Fake(str(event["ip"]).encode(), json.dumps(event).encode(), None, ("ad-clicks", 0, i))
        for i, event in enumerate(events)
    ]
    written = max(event["click_time"] for event in events)
    for record in records:
        record.timestamp = lambda: (1, written)  # type: ignore[method-assign]
    found, refused = StreamDecoder(app, app.streams[0], 65_536, 300).decode(records)
    assert refused == []
    rows = found.rows["clicks"]
    assert rows.num_rows == len(lines) == 10_000
    assert [rows[name].to_pylist() for name in names] == [[int(line[name]) for line in lines] for name in names]
    first = events[0]
    assert found.sender_ids[0] is None
    assert rows["click_id"][0].as_py() == f"{first['ip']}_{first['app']}_{first['click_time']}"
    assert rows["is_attributed"].null_count == 10_000
    engine = Engine()
    engine.execute(app.sources["tables.sql"])
    engine.execute(f"DEPLOY d {app.sources['features.sql']}")
    engine.insert("clicks", rows)
    (answer,) = engine.request("d", rows.slice(0, 1)).to_pylist()
    assert (answer["click_hour"], answer["click_day"]) == (6, 8)  # 2017-11-08 06:30:54


@given(day=st.dates())
@settings(max_examples=100, deadline=None)
def test_a_date_that_no_table_holds_is_refused_for_itself(dated: App, day: datetime.date) -> None:
    """Whatever an INSERT computes of it: the other records of the batch become rows."""
    row = {**ROW, "day": day.isoformat()}
    found = decode(dated, "card_rows", ROW | {"day": "2000-02-29"}, row)
    assert len(found.events) == (2 if day.year >= 1900 else 1)
    assert [text for _, text in refusals(found)] == (
        [] if day.year >= 1900 else ["Expected a date from 1900 on - at `$.day`"]
    )


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory) -> App:
    """The bank, whose cards have a date."""
    return load_app(
        make(
            tmp_path_factory.mktemp("dated") / "app",
            tables=("country string DEFAULT '??'", "country string DEFAULT '??', day date, years int"),
            events=(
                "country string)\nWITH (key = 'card', event_time = 'since', timestamp_format = 'iso-8601', "
                "partitioned = true);\nINSERT INTO cards SELECT card, since, country FROM",
                "country string, day date)\nWITH (key = 'card', event_time = 'since', timestamp_format = 'iso-8601', "
                "partitioned = true);\nINSERT INTO cards SELECT card, since, country, day, year(day) AS years FROM",
            ),
        )
    )
