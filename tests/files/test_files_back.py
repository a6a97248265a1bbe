"""What INTO OUTFILE writes comes back by LOAD DATA; every reader takes the same files and refuses in the same words."""

from __future__ import annotations

import datetime
import math
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures.scorer import Stage
from hypothesis import given, settings
from hypothesis import strategies as st
from rigs.fake_openmldb import Cluster, running_cluster
from rigs.odd_files import odd_but_good, set_column

from batch.features import spark
from batch.features.data_layout import BadData
from batch.features.extract import extract_features
from batch.features.history import check_data, tables_of
from batch.world import tutorial_replay as replay
from batch.world.generate import generate_world
from streaming.app.folder import load_app
from streaming.cli.deploy_sql import Scripts, deploy
from streaming.cli.load_history import load
from streaming.engine import BadRow, Engine
from streaming.errors import ConfigError
from streaming.shipped_files import SQL_FOLDER
from streaming.store.embedded import EmbeddedStore
from streaming.store.openmldb.sdk import Client, connect_options

JD = load_app(SQL_FOLDER / "jd")
COLUMNS = "b bool, s smallint, i int, l bigint, f float, d double, ts timestamp, dt date, t string, u string"
KINDS = [part.split() for part in COLUMNS.split(", ")]
FIRST_MS, LAST_MS = -62_135_596_800_000, 253_402_300_799_999


def whole(bits: int) -> st.SearchStrategy[int | None]:
    least, most = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    return st.none() | st.integers(least, most) | st.sampled_from([least, most, 0, -1])


texts = (
    st.none()
    | st.text(max_size=8)
    | st.text("\",|\n\r\t \\'#nul0é\ufeff\0", max_size=6)
    | st.sampled_from(
        ["", "null", "NULL", '"', '""', "\n", "\r\n", ",", "NA", "007", "1.0", "\ufeffx", " ", "\\", "日本", "😀", "-"]
    )
)
values_of: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.none() | st.booleans(),
    "smallint": whole(16),
    "int": whole(32),
    "bigint": whole(64),
    "float": st.none() | st.floats(width=32),
    "double": st.none() | st.floats(),
    "timestamp": st.none() | st.integers(FIRST_MS, LAST_MS) | st.sampled_from([FIRST_MS, LAST_MS, 0, -1]),
    "date": st.none() | st.dates(datetime.date(1900, 1, 1)),
    "string": texts,
}
rows_of = st.lists(st.tuples(*(values_of[kind] for _, kind in KINDS)), max_size=12)
options_of = st.fixed_dictionaries(
    {
        "delimiter": st.sampled_from([",", "|", "\t", ";", " ", "-", "1", "\x01"]),
        "quote": st.sampled_from(['"', "'", "#"]),
        "null_value": st.sampled_from(["null", "", "NA", "0", "nan", "\\N", "true"]),
        "header": st.booleans(),
    }
)


def bits(row: dict[str, Any]) -> list[Any]:
    """The row's values, reals by their bits but for NaN, of which there is one."""
    return [
        "nan" if isinstance(v, float) and math.isnan(v) else struct.pack("<d", v) if isinstance(v, float) else v
        for v in row.values()
    ]


@pytest.fixture(scope="module")
def engine() -> Engine:
    made = Engine()
    made.execute(f"create database db; use db; create table one({COLUMNS}); create table back({COLUMNS});")
    made.execute("create table lone(t string); create table loneback(t string);")
    return made


def filled(engine: Engine, table: str, rows: list[dict[str, Any]]) -> None:
    with tempfile.NamedTemporaryFile(suffix=".csv") as nothing:
        load = f"load data infile '{nothing.name}' into table {table}"
        engine.execute(f"{load} options(header=false, mode='overwrite')")
    engine.insert(table, rows)


def there_and_back(engine: Engine, source: str, target: str, options: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        engine.execute(f"select * from {source} into outfile '{folder}/out' options({options})")
        load = options.replace("mode='error_if_exists'", "mode='overwrite'")
        engine.execute(f"load data infile '{folder}/out' into table {target} options({load})")
    rows, back = (engine.query(f"select * from {table}").to_pylist() for table in (source, target))
    assert [bits(row) for row in rows] == [bits(row) for row in back]


def spelled(options: dict[str, Any]) -> str:
    def value(one: Any) -> str:
        text = str(one).replace("\\", "\\\\").replace("'", "\\'")
        return str(one).lower() if isinstance(one, bool) else f"'{text}'"

    return ", ".join(f"{key}={value(one)}" for key, one in options.items())


@settings(deadline=None, max_examples=150)
@given(rows=rows_of, options=options_of)
def test_every_table_comes_back_from_csv_and_parquet(engine: Engine, rows: list[Any], options: dict[str, Any]) -> None:
    filled(engine, "one", [dict(zip([name for name, _ in KINDS], row, strict=True)) for row in rows])
    if options["delimiter"] in options["null_value"]:
        options["null_value"] = "null"
    there_and_back(engine, "one", "back", "format='csv', mode='error_if_exists', " + spelled(options))
    there_and_back(engine, "one", "back", "format='parquet', mode='error_if_exists'")


@settings(deadline=None, max_examples=60)
@given(rows=st.lists(values_of["string"], max_size=6), options=options_of)
def test_a_column_alone_comes_back_blank_lines_too(engine: Engine, rows: list[Any], options: dict[str, Any]) -> None:
    filled(engine, "lone", [{"t": text} for text in rows])
    if options["delimiter"] in options["null_value"]:
        options["null_value"] = "null"
    there_and_back(engine, "lone", "loneback", "format='csv', mode='error_if_exists', " + spelled(options))


def test_blank_is_null_and_quoted_empty_is_text_as_in_openmldb(tmp_path: Path) -> None:
    """The csv of OpenMLDB's page on LOAD DATA, as its clusters read it."""
    (tmp_path / "a.csv").write_text('c1, c2\n,\n"",""\nab,cd\n"ef","gh"\nnull,null\n')
    engine = Engine()
    engine.execute("create database db; use db; create table t(c1 string, c2 string); create table i(a int, b string)")
    engine.execute(f"load data infile '{tmp_path}/a.csv' into table t options(format='csv', mode='append')")
    rows = [tuple(row.values()) for row in engine.query("select * from t").to_pylist()]
    assert rows == [(None, None), ("", ""), ("ab", "cd"), ("ef", "gh"), (None, None)]
    engine.execute(f"select * from t into outfile '{tmp_path}/out'")
    written = (tmp_path / "out" / "part-00000.csv").read_text()
    assert written == 'c1,c2\nnull,null\n"",""\nab,cd\nef,gh\nnull,null\n'
    engine.insert("i", [{"a": 1, "b": "x"}, {"a": None, "b": None}])
    there_and_back(engine, "i", "i", "format='csv', mode='error_if_exists'")


def test_times_in_csv_are_local_with_their_zone(tmp_path: Path) -> None:
    engine = Engine()
    engine.execute("create database db; use db; create table t(ts timestamp, d date, f float, g double)")
    engine.insert("t", [{"ts": 1_459_419_080_123, "d": datetime.date(1900, 1, 2), "f": 0.1, "g": float("-inf")}])
    engine.insert("t", [{"ts": LAST_MS, "d": None, "f": float("nan"), "g": 1e22}])
    engine.execute(f"select * from t into outfile '{tmp_path}/out'")
    assert (tmp_path / "out" / "part-00000.csv").read_text().splitlines() == [
        "ts,d,f,g",
        "2016-03-31T18:11:20.123+08:00,1900-01-02,0.1,-Infinity",
        f"{LAST_MS},null,NaN,1e+22",
    ]


def test_int96_beyond_2262_is_exact(tmp_path: Path) -> None:
    times = [datetime.datetime(2016, 3, 31, 10, 11, 20, 123000), datetime.datetime(9999, 12, 31, 23, 59, 59, 999000)]
    table = pa.table({"k": ["a", "b"], "ts": pa.array(times, pa.timestamp("us"))})
    pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    engine = Engine()
    engine.execute("create database db; use db; create table t(k string, ts timestamp)")
    engine.execute(f"load data infile '{tmp_path}/a.parquet' into table t options(format='parquet', mode='append')")
    assert [row["b"] for row in engine.query("select bigint(ts) as b from t").to_pylist()] == [1459419080123, LAST_MS]


def test_a_load_that_fails_changes_nothing(tmp_path: Path) -> None:
    engine = Engine()
    engine.execute("create database db; use db; create table t(k string, ts timestamp, index(key=k, ts=ts))")
    engine.insert("t", [{"k": "old", "ts": 1}])
    (tmp_path / "a.csv").write_text("k,ts\na,1\n")
    (tmp_path / "b.csv").write_text("k,ts\nb,2\nb,\n")
    before = engine.query("select * from t").to_pylist()
    for mode in ("append", "overwrite"):
        with pytest.raises(BadRow, match=r"b\.csv: t row 1 column ts: an indexed time is NULL or negative"):
            engine.execute(f"load data infile '{tmp_path}' into table t options(mode='{mode}')")
        assert engine.query("select * from t").to_pylist() == before
    with pytest.raises(BadRow, match="LOAD DATA INTO TABLE t: option formt"):
        engine.execute(f"load data infile '{tmp_path}' into table t options(formt='csv')")
    with pytest.raises(BadRow, match=r"INTO OUTFILE '.*/out': option quot"):
        engine.execute(f"select * from t into outfile '{tmp_path}/out' options(quot='')")
    (tmp_path / "b.csv").write_text("k,ts\nb,2\na,1\na,1\n")
    engine.execute(f"load data infile '{tmp_path}' into table t options(mode='append', put_if_absent=true)")
    assert sorted(row["k"] for row in engine.query("select * from t").to_pylist()) == ["a", "b", "old"]


# -- one reader ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("files") / "world"
    generate_world(out, users=5, seed=5, days=20)
    return out


@pytest.fixture
def data(world: Path, tmp_path: Path) -> Path:
    """A copy, in a folder whose name would be a pattern."""
    shutil.copytree(world, tmp_path / "[w]orld*")
    return tmp_path / "[w]orld*"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Client]]:
    options = connect_options(Stage.store_settings(), "JD_db", "rigs.fake_openmldb:cluster_sdk")
    with running_cluster(tmp_path_factory.mktemp("openmldb")) as made, Client(options, "demo") as client:
        yield made, client


@pytest.fixture
def jd_cluster(cluster: tuple[Cluster, Client]) -> Client:
    cluster[0].wipe()
    deploy(cluster[1], SCRIPTS)
    return cluster[1]


SCRIPTS = Scripts.made(JD)
Reader = Callable[[Path], object]


def embedded(data: Path) -> object:
    store = EmbeddedStore(JD, str(data))
    store.load()
    return {table.removeprefix("JD_db."): rows for table, (rows, _) in store.sizes().items()}


READERS: dict[str, Reader] = {
    "store.history": embedded,
    "extract": lambda data: check_data(data, JD),
    "replay": lambda data: replay.cut_history(data, data.parent / "cut", 2**42),
}


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "a text key of reals": (
        lambda d: set_column(d, "bo_user", "user_id", lambda c: pa.array([1.0] * len(c))),
        r"bo_user/part-00000\.parquet: column user_id is double, it must be string",
    ),
    "not UTF-8": (
        lambda d: set_column(d, "bo_user", "age", lambda c: pa.array([b"\xff"] * len(c))),
        r"bo_user/part-00000\.parquet: row 0, column age: b'\\xff' is not UTF-8",
    ),
    "a late year": (
        lambda d: set_column(d, "bo_product", "ingestionTime", lambda c: pa.array([LAST_MS + 1] * len(c))),
        r"bo_product/part-00000\.parquet: row 0, column ingestionTime: 253402300800000 is a time",
    ),
    "a fraction": (
        lambda d: set_column(d, "bo_comment", "comment_num", lambda c: pa.array([0.5] * len(c))),
        r"bo_comment/part-00000\.parquet: row 0, column comment_num: 0\.5 is no whole number",
    ),
    "another ending": (
        lambda d: (d / "bo_user" / "part-00000.parquet").rename(d / "bo_user" / "a.parq"),
        r"bo_user: (no \*\.parquet file in it, but a\.parq|a\.parq in it is a file whose name)",
    ),
    "a column twice": (
        lambda d: pq.write_table(
            pa.Table.from_arrays([pa.array(["1"])] * 2, names=["user_id", "user_id"]), d / "bo_user" / "b.parquet"
        ),
        r"bo_user/b\.parquet: column user_id is in it 2 times",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_every_reader_refuses_in_the_same_words(data: Path, wrong: str, jd_cluster: Client) -> None:
    damage, message = WRONG[wrong]
    damage(data)

    def loaded(data: Path) -> object:
        return load(jd_cluster, JD, data)

    said = []
    for read in (*READERS.values(), loaded):
        with pytest.raises((ConfigError, BadData), match=message) as told:
            read(data)
        said.append(str(told.value).removeprefix("store.history: "))
    if wrong != "another ending":
        assert len(set(said)) == 1


def test_every_reader_takes_the_same_rows(data: Path, world: Path, tmp_path: Path, jd_cluster: Client) -> None:
    expected = check_data(world, JD)
    odd_but_good(data)
    assert check_data(data, JD) == expected
    assert embedded(data) == embedded(world)
    assert replay.cut_history(data, tmp_path / "cut", 2**42) == replay.cut_history(world, tmp_path / "same", 2**42)
    for folder in expected:
        cut, same = (pq.read_table(tmp_path / out / folder) for out in ("cut", "same"))
        assert cut.equals(same), folder
    loaded = load(jd_cluster, JD, data)
    assert {table: rows for table, (rows, _) in loaded.items() if table != "flattenRequest"} == {
        folder: len(set(zip(*pq.read_table(world / folder).to_pydict().values(), strict=True)))
        for folder in expected
        if folder != "flattenRequest_clean"
    }


def test_spark_gets_copies_of_what_it_would_read_otherwise(data: Path, world: Path, tmp_path: Path) -> None:
    def handed(folder: Path) -> tuple[dict[str, list[str]], set[str]]:
        """The files of each table, and the tables of which they are copies."""
        tables = spark.spark_tables(JD, folder)
        given = {table.name: spark._handed_over(table, tmp_path / "tables").files for table in tables}
        return given, {name for name, files in given.items() if any("/tables/" in file for file in files)}

    assert handed(world)[1] == set()
    assert handed(data)[1] == {"flattenRequest", "bo_user", "bo_action", "bo_product", "bo_comment"}  # for its path
    odd_but_good(data)
    given, copied = handed(data.rename(tmp_path / "plain"))
    assert copied == {"bo_product", "bo_comment", "bo_action"}
    for name in copied:
        copies = pa.concat_tables(pq.read_table(file.removeprefix("file://")) for file in sorted(given[name]))
        original = pq.read_table(world / name).cast(copies.schema)
        assert copies.equals(original), name


def test_csv_history_is_extracted_as_parquet_is(data: Path, world: Path, tmp_path: Path) -> None:
    engine = Engine()
    engine.execute(JD.sources["tables.sql"])
    for source in tables_of(JD, world):
        shutil.rmtree(data / source.folder.name)
        taken = f"load data infile '{source.path}' into table {source.table} options(format='parquet')"
        engine.execute(f"{taken}; select * from {source.table} into outfile '{data / source.folder.name}'")
    extracted = [extract_features(*of) for of in ((data, tmp_path / "csv"), (world, tmp_path / "parquet"))]
    assert extracted[0].rows == extracted[1].rows
    assert pq.read_table(tmp_path / "csv").equals(pq.read_table(tmp_path / "parquet"))
    store = EmbeddedStore(JD, str(data))
    store.load()
    assert {table.removeprefix("JD_db."): rows for table, (rows, _) in store.sizes().items()} == embedded(world)
    for table in spark.spark_tables(JD, data):
        for file in spark._handed_over(table, tmp_path / "tables").files:
            folder = "flattenRequest_clean" if table.name == "flattenRequest" else table.name
            copy = pq.read_table(file.removeprefix("file://"))
            assert copy.equals(pq.read_table(world / folder).cast(copy.schema)), table.name
