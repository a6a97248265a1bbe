"""Whatever a record says, it is refused, or the tables take its rows and the query answers it: no record kills."""

from __future__ import annotations

import json
from typing import Any

import pytest
from fixtures.applications import PAYMENTS
from hypothesis import example, given, settings
from hypothesis import strategies as st

from batch.backfill.archive import ArchiveRecord
from streaming.app.decoding import StreamDecoder
from streaming.app.folder import App, load_app
from streaming.store.embedded import EmbeddedStore

TYPES = {
    "b": "bool",
    "s": "smallint",
    "i": "int",
    "l": "bigint",
    "f": "float",
    "d": "double",
    "t": "timestamp",
    "x": "date",
    "v": "varchar(40)",
}
COMPUTED = {
    "date_of_time": ("date", "date(moment)"),
    "date_of_number": ("date", "date(timestamp(l))"),
    "date_of_text": ("date", "date(v)"),
    "time_of_number": ("timestamp", "timestamp(l)"),
    "time_of_text": ("timestamp", "timestamp(v)"),
    "time_of_date": ("timestamp", "timestamp(x)"),
    "small_of_number": ("smallint", "smallint(l)"),
    "whole_of_real": ("int", "int(d)"),
    "single_of_real": ("float", "float(d)"),
    "ratio": ("double", "d / i"),
    "part": ("string", "substr(v, 2)"),
    "text_of_date": ("string", "string(x)"),
}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> App:
    """A main table with a column of each type, and some that are computed."""
    folder = tmp_path_factory.mktemp("apps")
    tables = [f"{name} {kind.partition('(')[0].replace('varchar', 'string')}" for name, kind in TYPES.items()]
    tables += [f"{name} {kind}" for name, (kind, _) in COMPUTED.items()]
    texts = {
        "tables.sql": PAYMENTS["tables.sql"].replace("note string", ", ".join(tables)),
        "features.sql": PAYMENTS["features.sql"].replace(
            "SELECT id,", f"SELECT id, `at`, {', '.join((*TYPES, *COMPUTED))},"
        ),
        "events.sql": PAYMENTS["events.sql"]
        .replace("cents int,", f"cents int, {', '.join(f'{name} {kind}' for name, kind in TYPES.items())},")
        .replace("NULL AS note", ", ".join((*TYPES, *(f"{sql} AS {name}" for name, (_, sql) in COMPUTED.items())))),
        "app.toml": PAYMENTS["app.toml"],
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return load_app(folder)


@pytest.fixture(scope="module")
def store(wide: App) -> EmbeddedStore:
    store = EmbeddedStore(wide)
    store.load()
    return store


ENDS = [2**n + step for n in (0, 7, 15, 31, 53, 63, 64) for step in (-1, 0, 1)]
YEARS = [253402300799, 253402300800, 253402271999, 253402272000]  # 10000, and the same at UTC+8, in seconds
NUMBERS = st.one_of(
    st.integers(-5, 5),
    st.sampled_from([sign * end for end in ENDS for sign in (1, -1)]),
    st.sampled_from([seconds * 1000 + step for seconds in YEARS for step in (-1, 0, 1)]),
    st.floats(allow_nan=False, allow_infinity=False),
)
TEXTS = st.one_of(
    st.dates().map(str),
    st.datetimes().map(str),
    st.text(max_size=5),
    st.sampled_from(["", "\0", "é", "1899-12-31", "0001-01-01", "9999-12-31", "1e400"]),
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "moment": NUMBERS,
        **{
            name: st.one_of(
                st.booleans() if kind == "bool" else TEXTS if kind in ("date", "varchar(40)") else NUMBERS, st.none()
            )
            for name, kind in TYPES.items()
        },
    },
)


@settings(deadline=None)
@given(FIELDS)
@example({"x": "1899-12-31"})
@example({"moment": 253402300799999})
@example({"l": 253402300800000})
def test_a_record_is_refused_or_answered(wide: App, store: EmbeddedStore, fields: dict[str, Any]) -> None:
    event = {"number": 5, "moment": 1_700_000_000_000, "reference": "a", **fields}
    (stream,) = wide.scored
    decoder = StreamDecoder(wide, stream, 1 << 16, 300)
    record = ArchiveRecord("paid", 0, b"5", json.dumps(event).encode(), 253402300799999)
    good = ArchiveRecord("paid", 1, b"5", b'{"number": 5, "moment": 1, "reference": "b"}', 1)
    events, refused = decoder.decode([record, good])
    assert [one for one, _ in refused] in ([], [record])
    answers = store.answer(events)
    assert answers["id"].to_pylist() == (["b"] if refused else ["a", "b"])
