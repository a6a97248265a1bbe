"""`jd-intent-batch backfill`: what an archive of events makes is what the scorer's decoder says, in order."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confluent_kafka import Producer
from fixtures.applications import make
from fixtures.cards import CARDS, Sent, card_records, write_records
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from places import SQL
from typer.testing import CliRunner

import batch.backfill.archive
import batch.backfill.ordering
from batch.backfill.archive import ArchiveRecord, records_of_files
from batch.backfill.ordering import SortedRows
from batch.backfill.tables import REFUSED, Limits, backfill
from batch.cli.commands import app as program
from deploy.kafka.broker import Broker
from streaming.app.decoding import StreamDecoder
from streaming.app.folder import App, load_app
from streaming.engine.storage.rows import schema_of
from streaming.errors import BadInput
from streaming.events.record import reason
from streaming.ops.exits import MISTAKE, exit_status

BANK = load_app(CARDS)
STREAMS = {stream.name: stream for stream in BANK.streams}


def one_by_one(
    app: App, archives: Mapping[str, Sequence[ArchiveRecord]]
) -> tuple[dict[str, pa.Table], list[dict[str, Any]]]:
    """What the decoder says of each record by itself: the tables' rows in order, and the refusals."""
    rows: dict[str, list[tuple[tuple[int, int, int], pa.Table]]] = {}
    refused = []
    for place, stream in enumerate(app.streams):
        for number, record in enumerate(archives.get(stream.name, ())):
            events, bad = StreamDecoder(app, stream, 65_536, 300).decode([record], replayed=True)
            for table, made in events.rows.items():
                rows.setdefault(table, []).append(((int(events.times[0]), place, number), made))
            refused += [
                {"place": record.place, "stream": stream.name, "reason": reason(why), "message": str(why)}
                for _, why in bad
            ]
    tables = {
        table: pa.concat_tables([part for _, part in sorted(found, key=lambda pair: pair[0])])
        for table, found in rows.items()
    }
    return tables, refused


def written(app: App, out: Path) -> dict[str, pa.Table]:
    folders = app.settings.history.folders
    tables = {name: out / folders.get(name, name) for name in app.tables.columns}
    return {name: pq.read_table(folder) for name, folder in tables.items() if folder.is_dir()}


def check_same(app: App, out: Path, archives: Mapping[str, Sequence[ArchiveRecord]]) -> None:
    expected, refused = one_by_one(app, archives)
    found = written(app, out)
    assert found.keys() == expected.keys()
    for name, rows in expected.items():
        assert found[name].schema.remove_metadata() == schema_of(app.tables.columns[name])
        assert found[name].to_pylist() == rows.to_pylist()
    assert [json.loads(line) for line in (out / REFUSED).read_text().splitlines()] == refused


@given(seed=st.integers(0, 2**31), cards=st.integers(1, 6), batch_size=st.integers(1, 50), run=st.integers(1, 300))
@settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_tables_are_what_the_decoder_says_record_by_record(
    seed: int,
    cards: int,
    batch_size: int,
    run: int,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch.backfill.archive, "BATCH", batch_size)
    monkeypatch.setattr(batch.backfill.ordering, "RUN_ROWS", run)
    monkeypatch.setattr(batch.backfill.ordering, "BLOCK_ROWS", max(1, run // 7))
    folder = tmp_path_factory.mktemp("backfill")
    rng = np.random.default_rng(seed)
    records = card_records(seed, cards, days=3)
    assume(all(any(one.refusal is None for one in sent) for sent in records.values()))  # else it is refused whole
    for sent in records.values():  # an archive is in any order
        sent[:] = [sent[i] for i in rng.permutation(len(sent))]
    files = write_records(folder / "archive", records)
    archives = {
        name: [record for part in records_of_files(STREAMS[name], [file]) for record in part]
        for name, file in files.items()
    }
    done = backfill(BANK, {name: [part] for name, part in archives.items()}, folder / "a")
    check_same(BANK, folder / "a", archives)
    assert done.records == {name: len(sent) for name, sent in records.items()}
    for name, sent in records.items():
        assert sum(done.refused[name].values()) == sum(one.refusal is not None for one in sent)
    backfill(BANK, {name: records_of_files(STREAMS[name], [file]) for name, file in files.items()}, folder / "b")
    assert {n: t.to_pylist() for n, t in written(BANK, folder / "b").items()} == {
        n: t.to_pylist() for n, t in written(BANK, folder / "a").items()
    }


@given(
    rows=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=80),
    run=st.integers(1, 20),
    block=st.integers(1, 5),
    parts=st.integers(1, 7),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rows_come_out_by_time_then_stream_then_record(
    rows: list[tuple[int, int]],
    run: int,
    block: int,
    parts: int,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batch.backfill.ordering, "RUN_ROWS", run)
    monkeypatch.setattr(batch.backfill.ordering, "BLOCK_ROWS", block)
    folder = tmp_path_factory.mktemp("runs")
    schema = pa.schema([("n", pa.int64())])
    sorting = SortedRows(folder, schema)
    # Two rows of each record stand together.
    for stream in range(3):
        numbers = [n for n, (_, of) in enumerate(rows) if of == stream]
        for first in range(0, len(numbers), parts):
            some = np.repeat(np.array(numbers[first : first + parts], np.int64), 2)
            values = pa.table({"n": some * 2 + np.arange(len(some)) % 2}, schema)
            sorting.add(values, np.array([rows[n][0] for n in some], np.int64), stream, some)
    sorting.write(folder / "out.parquet")
    expected = sorted(range(len(rows)), key=lambda n: (*rows[n], n))
    assert pq.read_table(folder / "out.parquet")["n"].to_pylist() == [2 * n + k for n in expected for k in (0, 1)]
    assert sorting.rows == 2 * len(rows)


# -- formats -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good() -> dict[str, list[Sent]]:
    return {name: [s for s in sent if s.refusal is None] for name, sent in card_records(5, 8, days=4).items()}


def test_events_records_and_parquet_of_records_are_the_same_archive(
    good: dict[str, list[Sent]], tmp_path: Path
) -> None:
    def made(name: str, form: str, file: Path) -> dict[str, list[dict[str, Any]]]:
        out = tmp_path / "out" / name / form
        done = backfill(BANK, {name: records_of_files(STREAMS[name], [file])}, out, inputs=[file])
        assert not done.refused[name]
        return {table: rows.to_pylist() for table, rows in written(BANK, out).items()}

    for name, sent in good.items():
        values = [one.value or b"" for one in sent]
        record = write_records(tmp_path / "records", {name: sent})[name]
        texts = tmp_path / f"{name}-texts.jsonl"
        texts.write_text("".join(json.dumps({"value": value.decode()}) + "\r\n" for value in values))
        events = tmp_path / f"{name}.ndjson"
        events.write_bytes(b"\xef\xbb\xbf" + b"\n\n".join(values))
        whole = tmp_path / f"{name}.parquet"
        columns = {
            "value": pa.array(values, pa.large_binary()),
            "key": pa.array([int(one.key or b"") for one in sent]),
            "timestamp": pa.array([one.time_ms for one in sent], pa.timestamp("ms", "UTC")),
        }
        pq.write_table(pa.table(columns), whole, row_group_size=100)
        split = tmp_path / f"{name}-files"
        split.mkdir()
        for part, some in enumerate((values[:7], values[7:])):
            pq.write_table(pa.table({"value": pa.array(some).cast(pa.string())}), split / f"{part}.parquet")
        first = made(name, "record", record)
        assert first
        for form, file in (("texts", texts), ("events", events), ("whole", whole), ("split", split)):
            assert made(name, form, file) == first


def test_parquet_may_have_the_streams_columns(good: dict[str, list[Sent]], tmp_path: Path) -> None:
    events = [json.loads(one.value or b"") for one in good["authorizations"]]
    table = pa.table(
        {
            "txn": pa.array([event["txn"] for event in events]).dictionary_encode(),
            "pan": pa.array([event["pan"] for event in events], pa.uint64()),
            "ts": pa.array([event["ts"] * 1_000_000_000 for event in events], pa.timestamp("ns")),
            "cents": pa.array([event["cents"] for event in events], pa.float64()),  # whole
            "mcc": pa.array([event["mcc"] for event in events], pa.int64()),
            "land": pa.array([event["land"] for event in events], pa.large_string()),
            "mode": pa.array([event["mode"] for event in events], pa.int8()),
            "parts": pa.array([event.get("parts") for event in events], pa.int32()),  # missing: its default
            "more": pa.array([0] * len(events)),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    found = records_of_files(STREAMS["authorizations"], [tmp_path / "a.parquet"])
    done = backfill(BANK, {"authorizations": found}, tmp_path / "out")
    assert not done.refused["authorizations"]
    files = write_records(tmp_path, {"authorizations": good["authorizations"]})
    backfill(
        BANK, {"authorizations": records_of_files(STREAMS["authorizations"], list(files.values()))}, tmp_path / "b"
    )
    assert written(BANK, tmp_path / "out")["payments"] == written(BANK, tmp_path / "b")["payments"]


def test_parquets_times_and_dates_are_spelled_as_the_stream_has_them(tmp_path: Path) -> None:
    moment = datetime.datetime(2024, 3, 10, 7, 0, 0, 250_000)
    activity = pa.table({"card_number": [5, 6], "moment": [moment] * 2, "what": ["login"] * 2, "success": [True, None]})
    pq.write_table(activity, tmp_path / "activity.parquet")
    master = pa.table(
        {"no": [5], "changed_ms": [moment], "tier": ["gold"], "opened": [datetime.date(2001, 2, 3)], "country": [b"US"]}
    )
    pq.write_table(master, tmp_path / "master.parquet")
    done = backfill(
        BANK,
        {
            "card_activity": records_of_files(STREAMS["card_activity"], [tmp_path / "activity.parquet"]),
            "card_master": records_of_files(STREAMS["card_master"], [tmp_path / "master.parquet"]),
        },
        tmp_path / "out",
    )
    found = written(BANK, tmp_path / "out")
    assert found["logins"].to_pylist() == [{"card": 5, "at": moment, "device": None, "failed": 0}]
    row = {"card": 5, "changed": moment, "tier": "gold", "home": "US", "credit": None}
    assert found["cards"].to_pylist() == [row | {"opened": datetime.date(2001, 2, 3)}]
    assert done.refused["card_activity"] == {"invalid_field": 1}
    (line,) = (tmp_path / "out" / REFUSED).read_text().splitlines()
    assert json.loads(line)["place"] == f"{tmp_path / 'activity.parquet'}:1"


def test_a_line_that_looks_like_a_record_is_an_event_where_the_stream_has_a_column_value(tmp_path: Path) -> None:
    text = (SQL / "talkingdata" / "events.sql").read_text()
    folder = tmp_path / "app"
    folder.mkdir()
    for name in ("tables.sql", "features.sql", "app.toml"):
        (folder / name).write_text((SQL / "talkingdata" / name).read_text())
    (folder / "events.sql").write_text(text.replace("    ip int NOT NULL,", "    ip int NOT NULL,\n    value int,", 1))
    app = load_app(folder)
    click = {"ip": 1, "app": 1, "device": 1, "os": 1, "channel": 1, "click_time": 1_500_000_000_000, "value": 4}
    (tmp_path / "a.jsonl").write_text(json.dumps(click))
    done = backfill(app, {"ad_clicks": records_of_files(app.streams[0], [tmp_path / "a.jsonl"])}, tmp_path / "out")
    assert done.rows == {"clicks": 1}


def test_two_streams_into_one_table_are_ordered_by_time_then_stream(tmp_path: Path) -> None:
    second = (
        "CREATE TABLE more (card bigint NOT NULL, t timestamp NOT NULL, country string) "
        "WITH (key = 'card', event_time = 't');\nINSERT INTO cards SELECT card, t AS since, country FROM more;\n"
        "CREATE TABLE card_rows ("
    )
    app = load_app(make(tmp_path / "app", events=("CREATE TABLE card_rows (", second)))
    (tmp_path / "rows.jsonl").write_text(
        '{"card": 1, "since": "2020-01-01T00:00:02Z", "country": "c"}\n'
        '{"card": 1, "since": "2020-01-01T00:00:01Z", "country": "b"}\n'
        '{"card": 1, "since": "2020-01-01T00:00:01Z", "country": "B"}\n'
    )
    (tmp_path / "more.jsonl").write_text(
        '{"card": 1, "t": 1577836801000, "country": "a"}\n{"card": 1, "t": 1577836803000, "country": "d"}\n'
    )
    words = ["--from", f"card_rows={tmp_path / 'rows.jsonl'}", "--from", f"more={tmp_path / 'more.jsonl'}"]
    done = CliRunner().invoke(program, ["backfill", "--app", str(tmp_path / "app"), *words, "--out", f"{tmp_path}/out"])
    assert done.exit_code == 0, done.output
    assert written(app, tmp_path / "out")["cards"]["country"].to_pylist() == ["a", "b", "B", "c", "d"]
    assert "payments: 0 rows; no stream that was read has any" in done.output
    assert "card_rows: 3 records\n" in done.output


# -- a topic -----------------------------------------------------------------------------------------------------------


def test_a_topic_is_read_from_its_beginning_without_what_was_aborted(broker: Broker, tmp_path: Path) -> None:
    """By the name that the configuration gives it."""
    broker.create_topics({"backfill.activity": 3})
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": "backfill"})
    producer.init_transactions(30)
    sent = card_records(9, 10, days=5)["card_activity"]
    for some, commit in ((sent[:20], True), (sent[5:10], False), (sent[20:], True)):
        producer.begin_transaction()
        for one in some:
            producer.produce("backfill.activity", one.value, one.key, timestamp=one.time_ms)
        if commit:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)
    config, topics = tmp_path / "scorer.toml", 'card_activity = "backfill.activity"\n'
    config.write_text(f'[kafka]\nbootstrap_servers = "{broker.bootstrap}"\n[kafka.topics]\n{topics}')
    words = ["--from-topic", "card_activity", "--config", str(config), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(program, ["backfill", "--app", str(CARDS), *words])
    assert done.exit_code == 0, (done.output, done.exception)
    assert f"card_activity: {len(sent):,} records" in done.output
    found, expected = written(BANK, tmp_path / "out"), tmp_path / "expected"
    file = write_records(tmp_path, {"card_activity": sent})["card_activity"]
    backfill(BANK, {"card_activity": records_of_files(STREAMS["card_activity"], [file])}, expected)
    assert found.keys() == {"logins", "chargebacks"}
    for table, rows in written(BANK, expected).items():
        assert sorted(found[table].to_pylist(), key=str) == sorted(rows.to_pylist(), key=str)
    refused = [json.loads(line)["place"] for line in (tmp_path / "out" / REFUSED).read_text().splitlines()]
    assert len(refused) == sum(one.refusal is not None for one in sent)
    assert all(place.startswith("backfill.activity[") for place in refused)


TIMES = [pa.timestamp(unit) for unit in ("ms", "us", "ns")]  # seconds are written as milliseconds
ODD = [*TIMES, pa.timestamp("us", "Asia/Tokyo"), pa.int64(), pa.date64(), pa.time64("ns"), pa.duration("s")]


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(ODD),
    values=st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.integers(-5, 5)), min_size=1, max_size=3),
    into=st.sampled_from(["no", "changed_ms", "tier", "opened", "limit_usd"]),
)
def test_a_column_of_parquet_may_hold_anything(
    kind: pa.DataType, values: list[int | None], into: str, tmp_path: Path
) -> None:
    count = len(values) + 1
    columns = {"no": pa.array([5] * count), "changed_ms": pa.array([1] * count), "tier": pa.array(["gold"] * count)}
    for name in ("opened", "limit_usd"):
        columns[name] = pa.nulls(count)
    odd = pa.array(values, pa.int64()).view(kind)
    if into in ("no", "changed_ms", "tier"):
        columns[into] = odd
        columns = {name: array if name == into else array[: len(values)] for name, array in columns.items()}
    else:
        columns[into] = pa.concat_arrays([odd, pa.nulls(1, kind)])
    pq.write_table(pa.table(columns), tmp_path / "odd.parquet")
    archive = {"card_master": records_of_files(STREAMS["card_master"], [tmp_path / "odd.parquet"])}
    with contextlib.suppress(BadInput):  # where all are refused
        done = backfill(BANK, archive, tmp_path / "out")
        assert done.rows["cards"] + sum(done.refused["card_master"].values()) == len(columns["no"])


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "is needed, or --from-topic"),
        (["--from", "clicks"], "'clicks' is not STREAM=PATH"),
        (
            ["--from", "clicks={}/a.jsonl"],
            "unknown stream clicks; {app} has authorizations, card_activity, card_master",
        ),
        (["--from-topic", "x"], "unknown stream x"),
        (["--from", "card_master={}/none.jsonl"], "{}/none.jsonl: no such file"),
        (["--from", "card_master={}/a.txt"], "{}/a.txt: an archive is JSON lines (.jsonl, .ndjson, .json) or .parquet"),
        (["--from", "card_master={}/empty"], "{}/empty: no JSON lines (.jsonl, .ndjson, .json) and no .parquet in it"),
        (["--from", "card_master={}/no.parquet"], "{}/no.parquet: "),
        (
            ["--from", "card_master={}/a.jsonl", "--from", "card_master={}/link.jsonl"],
            "{}/link.jsonl: given twice for stream card_master: each of its records would be there twice",
        ),
        (["--from", "card_master={}/odd.parquet"], "{}/odd.parquet: column value is int64, neither texts nor bytes"),
        (
            ["--from", "card_master={}/less.parquet"],
            "{}/less.parquet: no column changed_ms of stream card_master, and no column value",
        ),
        (
            ["--from", "card_master={}/a.jsonl", "--from-topic", "card_master"],
            "stream card_master: take --from or --from-topic, not both",
        ),
    ],
)
def test_a_mistake_is_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{}")
    (tmp_path / "a.txt").write_text("{}")
    (tmp_path / "link.jsonl").symlink_to("a.jsonl")
    (tmp_path / "no.parquet").write_text("{}")
    (tmp_path / "empty").mkdir()
    pq.write_table(pa.table({"value": [1]}), tmp_path / "odd.parquet")
    pq.write_table(pa.table({"no": [1], "tier": ["gold"]}), tmp_path / "less.parquet")
    words = [word.replace("{}", str(tmp_path)) for word in words]
    done = CliRunner().invoke(program, ["backfill", "--app", str(CARDS), *words, "--out", str(tmp_path / "out")])
    expected = message.replace("{}", str(tmp_path)).replace("{app}", str(CARDS))
    if isinstance(done.exception, SystemExit):  # usage
        assert done.exit_code == MISTAKE
        assert expected in " ".join(done.output.split())
    else:
        assert isinstance(done.exception, BadInput)
        assert expected in str(done.exception)
        assert len(str(done.exception).splitlines()) == 1
        assert exit_status(done.exception) == MISTAKE
    assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_limits_are_the_configurations_and_an_archive_that_is_refused_whole_is_a_mistake(tmp_path: Path) -> None:
    good = ArchiveRecord("there", 0, b"5", b'{"no":5,"changed_ms":1,"tier":"gold"}')
    late = ArchiveRecord("here", 1, b"5", b'{"no": 5, "changed_ms": 60001, "tier": "gold"}', 1)

    def refused(*records: ArchiveRecord, bytes_max: int = 100, future_s_max: int = 300) -> dict[str, int]:
        found = backfill(BANK, {"card_master": [records]}, tmp_path / "a", Limits(bytes_max, future_s_max))
        return found.refused["card_master"]

    assert refused(good, late) == {}
    assert refused(good, late, bytes_max=len(good.value_ or b"")) == {"too_large": 1}
    assert refused(good, late, future_s_max=59) == {"time_out_of_range": 1}
    assert refused(late, future_s_max=60) == {}
    message = "card_master: each of its 2 records is refused: there: the value has 37 bytes"
    with pytest.raises(BadInput, match=message):
        refused(good, late, bytes_max=36)
