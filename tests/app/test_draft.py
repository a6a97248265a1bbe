"""`jd-intent-score init`: what it drafts is an application that takes every record of its samples."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures.cards import card_records, write_records
from fixtures.folders import contents
from fixtures.records import Fake
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from batch.backfill.archive import records_of_files
from batch.backfill.tables import backfill
from streaming.app.decoding import StreamDecoder
from streaming.app.draft.write import draft
from streaming.app.folder import FILES, App, load_app
from streaming.app.wrong import WrongApp
from streaming.cli.commands import app as program
from streaming.engine.types import Type
from streaming.errors import BadInput, OutputRefused
from streaming.files.output_folder import MARKER

NO_LABEL = r"app\.toml:\d+:1: no label: \[label\] names a column of the feature query"
NOW = 1_700_000_000_000


class Timeless(Fake):
    def timestamp(self) -> tuple[int, int]:
        return 0, -1


LATER_EVENT = re.compile(r"^# (\[label\.later_event\](?:.*\n# .*){5})$", re.MULTILINE)
COLUMN = re.compile(r"^# (column = .*)$", re.MULTILINE)


def labelled(folder: Path, label: str = "") -> App:
    """The draft with its one question answered; by default as the draft proposes."""
    file = folder / "app.toml"
    text = file.read_text(encoding="utf-8")
    label = label or LATER_EVENT.findall(text)[0].replace("\n# ", "\n")
    file.write_text(text.replace("\n[label]\n", f"\n[label]\n{label}\n"), encoding="utf-8")
    try:
        return load_app(folder)
    finally:
        file.write_text(text, encoding="utf-8")


def check_accepts(app: App, samples: dict[str, list[dict[str, Any]]]) -> None:
    """Each record of the samples, by topic, becomes a row."""
    for topic, events in samples.items():
        stream = app.stream_of(topic)
        assert stream is not None
        records = [
            Timeless(str(event.get(stream.key or "", "")).encode(), json.dumps(event).encode()) for event in events
        ]
        found, refused = StreamDecoder(app, stream, 1 << 20, 300).decode(records, replayed=True)
        assert [str(why) for _, why in refused] == []
        (rows,) = found.rows.values()
        assert rows.num_rows == len(events)


def write_samples(folder: Path, samples: dict[str, list[dict[str, Any]]]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, events in samples.items():
        files.append(folder / f"{name}.jsonl")
        files[-1].write_text("".join(f"{json.dumps(event)}\n" for event in events), encoding="utf-8")
    return files


# -- any samples -------------------------------------------------------------------------------------------------------

ODD_NAMES = """
    user_id ip sku Time time ts order select key index check timestamp date at value request_id events_1h last_1h count
    probability label_rows column id ID Id user-id a.b ß 名 x'y x`y
"""
NAMES = st.one_of(st.sampled_from(ODD_NAMES.split()), st.text(min_size=1, max_size=8))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
VALUES: list[st.SearchStrategy[Any]] = [
    st.booleans(),
    st.integers(-3, 40),
    st.integers(-(2**31), 2**31),
    st.integers(-(2**63), 2**63 - 1),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.one_of(st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False)),
    TEXTS,
    st.sampled_from(["a", "b", "it's", ""]),
    st.dates().map(str),
    st.datetimes().map(str),
    st.datetimes(timezones=st.just(datetime.timezone.utc)).map(lambda moment: moment.isoformat()),
    st.integers(1, 2**33),
    st.integers(946_684_800_000, 4_102_444_800_000),
    st.lists(st.integers(), max_size=2),
    st.none(),
    st.one_of(st.booleans(), st.integers(), TEXTS),
]
TIMES: list[st.SearchStrategy[Any]] = [
    st.integers(946_684_800, 4_102_444_800),
    st.integers(946_684_800_000, 4_102_444_800_000),
    st.datetimes(datetime.datetime(1970, 1, 3), datetime.datetime(9999, 12, 30)).map(str),
]


@st.composite
def sample(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Events of one topic, each with a time and something that can be a key."""
    fields = draw(st.dictionaries(NAMES, st.tuples(st.sampled_from(VALUES), st.sampled_from([0, 0, 1, 2])), max_size=7))
    time, key = draw(st.lists(NAMES.filter(nameable), min_size=2, max_size=2, unique=True))
    of_time, of_key = draw(st.sampled_from(TIMES)), draw(st.sampled_from([st.integers(0, 10**18), TEXTS]))
    events = []
    for _ in range(draw(st.integers(1, 8))):
        event = {name: draw(values) for name, (values, gaps) in fields.items() if not gaps or draw(st.booleans())}
        events.append(event | {key: draw(of_key), time: draw(of_time)})
    return events


def nameable(name: str) -> bool:
    return name.isprintable() and not re.search(r"""[`'"\\]""", name)


@given(
    samples=st.dictionaries(
        st.sampled_from(["clicks", "users", "a-b", "order", "2nd"]), sample(), min_size=1, max_size=3
    )
)
@example(samples={"clicks": [{"value": 0, "timestamp": 946_684_800}]})  # called as the parts of Kafka's records
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
def test_a_draft_is_an_application_that_takes_every_record(
    samples: dict[str, list[dict[str, Any]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("draft")
    files = write_samples(folder / "samples", samples)
    draft(folder / "app", files)
    with pytest.raises(WrongApp, match=NO_LABEL):
        load_app(folder / "app")
    app = labelled(folder / "app")
    check_accepts(app, samples)
    events = folder / "app" / "events.sql"
    events.write_text(events.read_text(encoding="utf-8").replace("    -- CHECK", "    CHECK"), encoding="utf-8")
    check_accepts(labelled(folder / "app"), samples)
    text = (folder / "app" / "app.toml").read_text(encoding="utf-8")
    for candidate in COLUMN.findall(text) + LATER_EVENT.findall(text):
        labelled(folder / "app", candidate.replace("\n# ", "\n"))


# -- what is guessed ---------------------------------------------------------------------------------------------------


def clicks(count: int = 40) -> list[dict[str, Any]]:
    return [
        {
            "click_id": f"c{n}",
            "user_id": n % 7,
            "ad": ["top", "side", "foot"][n % 3],
            "price": n / 2 if n % 2 else n,
            "mobile": n % 2 == 0,
            "at": NOW // 1000 + n,
            "bought": n % 2,
            "referrer": None if n % 3 else "web",
            "tags": ["x"],
            "born": "1990-02-28",
        }
        for n in range(count)
    ]


def users() -> list[dict[str, Any]]:
    return [{"id": n, "since": f"2020-01-0{n + 1}T12:00:00", "land": "DE", "score": 2**40} for n in range(7)]


def test_types_keys_times_and_joins_are_guessed(tmp_path: Path) -> None:
    draft(tmp_path / "shop", write_samples(tmp_path, {"users": users(), "clicks": clicks()}))
    app = labelled(tmp_path / "shop", 'column = "bought"')
    assert app.warnings == ()
    assert (app.settings.name, app.settings.request.id, app.main) == ("shop", "click_id", "clicks_rows")
    scored, looked_up = app.streams
    assert (scored.name, scored.topic, scored.key, scored.event_time) == ("clicks", "clicks", "user_id", "at")
    assert (scored.request_id, scored.timestamp_format) == ("click_id", "epoch_s")
    assert (looked_up.name, looked_up.key, looked_up.event_time) == ("users", "id", "since")
    assert {column.name: (column.type, column.length_max, column.nullable) for column in scored.columns} == {
        "click_id": (Type.STRING, 16, False),
        "user_id": (Type.BIGINT, None, False),
        "ad": (Type.STRING, 16, False),
        "price": (Type.DOUBLE, None, False),
        "mobile": (Type.BOOL, None, False),
        "at": (Type.TIMESTAMP, None, False),
        "bought": (Type.INT, None, False),
        "referrer": (Type.STRING, 16, True),
        "born": (Type.DATE, None, False),
    }
    text = (tmp_path / "shop" / "events.sql").read_text()
    assert "    -- CHECK (ad IN ('foot', 'side', 'top'))," in text
    assert "    -- left out: tags, a list, an object or the like (row 1): OpenMLDB has no type for it" in text
    names = [name for name, _ in app.query.columns]
    assert {"events_1h", "events_1d", "ad_values_1h", "ad_values_1d", "users_land", "users_score"} <= set(names)
    assert (
        "last join: shop.users_rows by id, the latest since, the first for which the condition holds" in app.query.plan
    )
    toml = (tmp_path / "shop" / "app.toml").read_text()
    assert '# column = "bought"' in toml
    assert '# column = "mobile"' in toml
    assert '# table = "users_rows"' in toml
    check_accepts(app, {"clicks": clicks(), "users": users()})


def test_the_scored_file_is_the_longest_or_the_one_that_is_named(tmp_path: Path) -> None:
    files = write_samples(tmp_path, {"users": users(), "clicks": clicks()})
    (guess, _) = draft(tmp_path / "a", files)
    assert guess.name == "clicks"
    (guess, _) = draft(tmp_path / "b", files, scored="users")
    assert guess.name == "users"
    assert labelled(tmp_path / "b").main == "users_rows"


def test_keys_of_other_names_are_found_by_their_values(tmp_path: Path) -> None:
    sent = {name: [s for s in of if s.refusal is None] for name, of in card_records(4, 60).items()}
    files = write_records(tmp_path, sent)
    draft(tmp_path / "bank", list(files.values()))
    app = labelled(tmp_path / "bank")
    assert {stream.name: stream.key for stream in app.streams} == {
        "authorizations": "pan",
        "card_activity": "card_number",
        "card_master": "no",
    }
    assert {stream.name: stream.timestamp_format for stream in app.streams} == {
        "authorizations": "epoch_s",
        "card_activity": "iso-8601",
        "card_master": "epoch_ms",
    }
    assert app.query.plan.count("last join:") == 2
    for stream in app.streams:
        done = backfill(app, {stream.name: records_of_files(stream, [files[stream.name]])}, tmp_path / stream.name)
        assert done.refused == {stream.name: {}}


def test_parquet_is_a_sample_too(tmp_path: Path) -> None:
    moments = [datetime.datetime(2024, 1, 1, 0, 0, n) for n in range(30)]
    table = pa.table(
        {
            "user": pa.array([f"u{n % 3}" for n in range(30)]).dictionary_encode(),
            "happened": pa.array(moments, pa.timestamp("us")),
            "seen_at": pa.array([None, *moments[1:]], pa.timestamp("ns", "UTC")),
            "cents": pa.array([n * 10**10 for n in range(30)], pa.uint64()),
            "whole": pa.array([None] + [float(n) for n in range(29)]),
            "born": pa.array([datetime.date(2000, 1, 1)] * 30),
            "place": pa.array([{"x": 1}] * 30),
        }
    )
    pq.write_table(table, tmp_path / "visits.parquet")
    draft(tmp_path / "app", [tmp_path / "visits.parquet"])
    app = labelled(tmp_path / "app")
    (stream,) = app.streams
    assert {column.name: (str(column.type), column.nullable) for column in stream.columns} == {
        "user": ("string", False),
        "happened": ("timestamp", False),
        "seen_at": ("timestamp", True),
        "cents": ("bigint", False),
        "whole": ("double", True),
        "born": ("date", False),
    }
    done = backfill(app, {"visits": records_of_files(stream, [tmp_path / "visits.parquet"])}, tmp_path / "data")
    assert (done.refused, done.rows) == ({"visits": {}}, {"visits_rows": 30})
    rows = pq.read_table(tmp_path / "data" / "visits_rows")
    assert rows["happened"].to_pylist() == moments


def test_records_with_their_keys_are_samples_too(tmp_path: Path) -> None:
    """The key that records have is the stream's, whatever the names say."""
    events = [{"user_id": n, "lane": n % 4, "at": NOW + n} for n in range(20)]
    values = [json.dumps(event) for event in events]
    lines = [json.dumps({"value": values[n] if n % 2 else events[n], "key": n % 4}) for n in range(20)]
    (tmp_path / "lines.jsonl").write_text("\n".join([*lines, '{"key": "9", "value": null}']))
    table = {"value": pa.array([value.encode() for value in values]), "key": [str(n % 4) for n in range(20)]}
    pq.write_table(pa.table(table), tmp_path / "file.parquet")
    for file in (tmp_path / "lines.jsonl", tmp_path / "file.parquet"):
        draft(tmp_path / file.stem, [file])
        app = labelled(tmp_path / file.stem)
        (stream,) = app.streams
        assert (stream.key, stream.event_time, len(stream.columns)) == ("lane", "at", 3)
        done = backfill(app, {stream.name: records_of_files(stream, [file])}, tmp_path / "out")
        assert done.rows == {app.main: 20}


def test_a_query_has_as_many_columns_as_it_may(tmp_path: Path) -> None:
    wide = [{"user": n % 2, "time": NOW + n, **{f"f{i}": i for i in range(1_500)}} for n in range(4)]
    draft(tmp_path / "app", write_samples(tmp_path, {"wide": wide}))
    assert len(labelled(tmp_path / "app").query.columns) == 1_000
    assert re.search(
        r"^-- \d+ more columns are left out", (tmp_path / "app" / "features.sql").read_text(), re.MULTILINE
    )


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_guessed_and_check_asks_for_the_label(tmp_path: Path) -> None:
    files = write_samples(tmp_path, {"clicks": clicks(), "users": users()})
    done = CliRunner().invoke(program, ["init", str(tmp_path / "shop"), "--from", *map(str, files)])
    assert done.exit_code == 0, done.output
    assert done.output == (
        "clicks: 40 rows, key user_id, event time at, scored\n"
        "  'tags' is left out: a list, an object or the like (row 1): OpenMLDB has no type for it\n"
        "users: 7 rows, key id, event time since, looked up\n"
        f"wrote {tmp_path / 'shop'}: edit it, answer the QUESTIONs of app.toml, then: "
        f"jd-intent-score check {tmp_path / 'shop'}\n"
    )
    assert sorted(path.name for path in (tmp_path / "shop").iterdir()) == sorted([*FILES, MARKER])
    done = CliRunner().invoke(program, ["check", str(tmp_path / "shop")])
    assert isinstance(done.exception, WrongApp)
    assert re.fullmatch(rf".*/{NO_LABEL}.*", str(done.exception))
    text = (tmp_path / "shop" / "app.toml").read_text().splitlines()
    assert text[done.exception.line - 1] == "[label]"
    assert "QUESTION" in text[done.exception.line - 2]


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_overwritten(name: str, tmp_path: Path) -> None:
    files = write_samples(tmp_path / "samples", {"clicks": clicks()})
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / name).write_text("mine")
    before = contents(tmp_path)
    with pytest.raises(OutputRefused, match=f"{folder} has a file {name} already"):
        draft(folder, files)
    assert contents(tmp_path) == before
    (folder / name).unlink()
    draft(folder, files)
    assert (folder / "notes.txt").read_text() == "mine"
    with pytest.raises(OutputRefused):
        draft(folder, files)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputRefused, match="is a file"):
        draft(tmp_path / "file", files)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"t": 1700000000, "k": 1}\n\n{"t": 17\n', "a.jsonl:3: not JSON: Input data was truncated"),
        ("a.jsonl", '{"t": 1700000000, "k": 1}\n[1]\n', "a.jsonl:2: no JSON object"),
        ("a.jsonl", '{"t": 1700000000, "k": "\xff"}\n', "a.jsonl:1: not JSON"),
        ("a.jsonl", "", "a.jsonl: no rows in it"),
        ("a.jsonl", None, "a.jsonl: No such file or directory"),
        ("a.csv", "t,k\n1,2\n", "a.csv: a sample is JSON lines (.jsonl, .ndjson, .json) or .parquet"),
        ("a.parquet", "none", "a.parquet: "),
        ("a.jsonl", '{"k": 1}\n', "a.jsonl: no field is a time in each of its 1 rows"),
        ("a.jsonl", '{"t": 1700000000, "k": 1}\n{"k": 1}\n', "a.jsonl: no field is a time in each of its 2 rows"),
        ("a.jsonl", '{"t": 1700000000, "x": 1.5}\n', "a.jsonl: no text and no whole number is in each of its rows"),
    ],
)
def test_a_bad_sample_is_one_line_and_nothing_is_written(
    name: str, text: str | None, message: str, tmp_path: Path
) -> None:
    if text is not None:
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(BadInput) as error:
        draft(tmp_path / "app", [tmp_path / name])
    assert str(error.value).startswith(f"{tmp_path}/{message}")
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "app").exists()


def test_names_of_files_must_make_sense(tmp_path: Path) -> None:
    files = write_samples(tmp_path / "a", {"clicks": clicks(), "clicks.dlq": clicks()})
    with pytest.raises(BadInput, match="the dead letters of clicks"):
        draft(tmp_path / "app", files)
    with pytest.raises(BadInput, match="2 files of the name clicks"):
        draft(tmp_path / "app", [files[0], *write_samples(tmp_path / "b", {"clicks": clicks()})])
    with pytest.raises(BadInput, match="--scored moon: there is no such file; there are clicks"):
        draft(tmp_path / "app", files[:1], scored="moon")
    assert not (tmp_path / "app").exists()


def test_a_link_is_what_the_values_share_and_not_chance(tmp_path: Path) -> None:
    trips = [{"rider": 10**17 + n % 50, "metres": 100_000 + n * 7, "at": NOW + n} for n in range(500)]
    paid = [{"account": 10**17 + n % 50, "cents": 100_000 + n * 14, "when": NOW + n} for n in range(200)]
    files = write_samples(tmp_path / "samples", {"trips": trips, "paid": paid})
    draft(tmp_path / "app", files)
    app = labelled(tmp_path / "app")
    assert {stream.name: stream.key for stream in app.streams} == {"trips": "rider", "paid": "account"}
