"""What a table's files may hold: types, cells, folders; who refuses what, and in which words."""

from __future__ import annotations

import datetime
import decimal
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streaming.files.tables import BadFile, Options, files_of, is_there, load_options, outfile_options, read

CSV, PARQUET = Options(), Options("parquet")
MS = pa.timestamp("ms")
NOON = datetime.datetime(2016, 3, 31, 10, 11, 20, 123456)
NOON_MS = 1_459_419_080_123
D = decimal.Decimal


def rows_in(path: Path, schema: pa.Schema, options: Options = PARQUET) -> list[tuple[Any, ...]]:
    """The rows, timestamps as epoch ms."""
    rows: list[tuple[Any, ...]] = []
    for piece in read(path, schema, options):
        assert piece.rows.schema == schema
        columns = [c.cast(pa.int64()) if pa.types.is_timestamp(c.type) else c for c in piece.rows.columns]
        rows += zip(*(column.to_pylist() for column in columns), strict=True)
    return rows


# -- types in parquet ------------------------------------------------------------------------------------------------

TAKEN: list[tuple[pa.DataType, pa.Array, list[Any]]] = [
    (pa.string(), pa.array(["007", "", None, "é日"], pa.large_string()), ["007", "", None, "é日"]),
    (pa.string(), pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
    (pa.string(), pa.array(["é".encode(), b"", None], pa.binary()), ["é", "", None]),
    (pa.string(), pa.array([b"ab", None], pa.binary(2)), ["ab", None]),
    (pa.string(), pa.nulls(2), [None, None]),
    (pa.int16(), pa.array([-32768, 32767, None], pa.int64()), [-32768, 32767, None]),
    (pa.int32(), pa.array([2**31 - 1, 0], pa.uint64()), [2**31 - 1, 0]),
    (pa.int32(), pa.array([7, None], pa.int8()), [7, None]),
    (pa.int64(), pa.array([2**63 - 1], pa.uint64()), [2**63 - 1]),
    (pa.int64(), pa.array([5.0, -0.0, None, -(2.0**53)]), [5, 0, None, -(2**53)]),
    (pa.int32(), pa.array([2.0**24, 3.0], pa.float32()), [2**24, 3]),
    (pa.int64(), pa.array([D("12.00"), None, D("-3.00")]), [12, None, -3]),
    (pa.int32(), pa.array([5, None], pa.int16()).dictionary_encode(), [5, None]),
    (pa.bool_(), pa.array([1, 0, None], pa.int8()), [True, False, None]),
    (pa.float32(), pa.array([0.5, None, float("inf"), 1e-60]), [0.5, None, float("inf"), 0.0]),
    (pa.float64(), pa.array([0.5, None], pa.float32()), [0.5, None]),
    (pa.float64(), pa.array([2**53, -1], pa.int64()), [2.0**53, -1.0]),
    (pa.float32(), pa.array([2**24, None], pa.int32()), [2.0**24, None]),
    (pa.float64(), pa.array([D("19.99"), D("0.07"), None]), [19.99, 0.07, None]),
    (
        pa.date32(),
        pa.array([datetime.date(1, 1, 1), datetime.date(9999, 12, 31), None], pa.date32()),
        [datetime.date(1, 1, 1), datetime.date(9999, 12, 31), None],
    ),
    (pa.date32(), pa.array([datetime.date(2020, 2, 29)], pa.date64()), [datetime.date(2020, 2, 29)]),
    (MS, pa.array([NOON, None], pa.timestamp("us")), [NOON_MS, None]),
    (MS, pa.array([NOON], pa.timestamp("ns")), [NOON_MS]),
    (MS, pa.array([NOON], pa.timestamp("us", "UTC")), [NOON_MS]),
    (MS, pa.array([NOON], pa.timestamp("us", "Asia/Shanghai")), [NOON_MS]),  # Arrow holds the instant
    (MS, pa.array([-1, -1000, -1001], pa.timestamp("us")), [-1, -1, -2]),  # to the millisecond before
    (MS, pa.array([NOON_MS, None, 0, 253_402_300_799_999], pa.int64()), [NOON_MS, None, 0, 253_402_300_799_999]),
    (MS, pa.array([-62_135_596_800_000], MS), [-62_135_596_800_000]),
]

REFUSED: list[tuple[pa.DataType, pa.Array, str]] = [
    (pa.string(), pa.array([1.0]), r"column c is double, it must be string"),
    (pa.string(), pa.array([1]), r"column c is int64, it must be string"),
    (pa.string(), pa.array([True]), r"column c is bool, it must be string"),
    (pa.string(), pa.array([NOON]), r"column c is timestamp\[us\], it must be string"),
    (pa.string(), pa.array([b"ok", None, b"a\xff"], pa.binary()), r"row 2, column c: b'a\\xff' is not UTF-8"),
    (pa.string(), pa.array([b"\xed\xa0\x80"], pa.large_binary()), r"row 0, column c: .* is not UTF-8"),
    (pa.int16(), pa.array([0, None, 32768]), r"row 2, column c: 32768 does not fit smallint"),
    (pa.int32(), pa.array([-(2**31) - 1]), r"row 0, column c: -2147483649 does not fit int"),
    (pa.int64(), pa.array([1, 2**63], pa.uint64()), r"row 1, column c: 9223372036854775808 does not fit bigint"),
    (pa.int64(), pa.array([1.0, 1.5]), r"row 1, column c: 1\.5 is no whole number"),
    (pa.int64(), pa.array([float("nan")]), r"row 0, column c: nan is no whole number"),
    (pa.int64(), pa.array([2.0**53 + 2]), r"row 0, column c: 9007199254740994\.0 is beyond what a real counts exactly"),
    (pa.int64(), pa.array([2.0**25], pa.float32()), r"row 0, column c: 33554432\.0 is beyond"),
    (pa.int32(), pa.array([1.0, 3e9]), r"row 1, column c: 3000000000 does not fit int"),
    (pa.int64(), pa.array([D("1.00"), D("1.25")]), r"row 1, column c: Decimal\('1\.25'\) does not fit bigint"),
    (pa.int64(), pa.array(["1"]), r"column c is string, it must be bigint"),
    (pa.int64(), pa.array([True]), r"column c is bool, it must be bigint"),
    (pa.bool_(), pa.array([0, 2]), r"row 1, column c: 2 is no bool"),
    (pa.bool_(), pa.array([0, -1], pa.int8()), r"row 1, column c: -1 is no bool"),
    (pa.bool_(), pa.array([1.0]), r"column c is double, it must be bool"),
    (pa.float32(), pa.array([1.0, 1e39]), r"row 1, column c: 1e\+39 does not fit float"),
    (pa.float64(), pa.array([0, 2**53 + 1]), r"row 1, column c: 9007199254740993 is not exact as double"),
    (pa.float32(), pa.array([0, 2**24 + 1]), r"row 1, column c: 16777217 is not exact as float"),
    (pa.float64(), pa.array(["1.0"]), r"column c is string, it must be double"),
    (MS, pa.array([datetime.date(2020, 1, 1)]), r"column c is date32\[day\], it must be timestamp"),
    (MS, pa.array([1459419080], pa.int32()), r"column c is int32, it must be timestamp"),
    (MS, pa.array([1.0]), r"column c is double, it must be timestamp"),
    (MS, pa.array([0, 253_402_300_800_000], MS), r"row 1, column c: 253402300800000 is a time, in epoch ms, outside"),
    (MS, pa.array([0, NOON_MS * 1000], pa.int64()), r"row 1, .* outside of the years 1 to 9999"),  # microseconds
    (MS, pa.array([2**63 + 1], pa.uint64()), r"row 0, column c: 9223372036854775809 is a time beyond the year 9999"),
    (pa.date32(), pa.array([0, 2_932_897], pa.date32()), r"row 1, .* a date, in days since 1970, outside"),
    (pa.date32(), pa.array([NOON]), r"column c is timestamp\[us\], it must be date"),
    (pa.int64(), pa.array([[1]]), r"column c is list<.*>, it must be bigint"),
    (pa.int64(), pa.array([1, 2], pa.duration("ms")), r"column c is .*, it must be bigint"),
]


@pytest.mark.parametrize(("wanted", "given", "values"), TAKEN, ids=lambda x: str(x.type) if hasattr(x, "type") else "")
def test_types_that_hold_the_same_values_are_taken(
    tmp_path: Path, wanted: pa.DataType, given: pa.Array, values: list[Any]
) -> None:
    pq.write_table(pa.table({"more": pa.nulls(len(given)), "c": given}), tmp_path / "a.parquet", version="2.6")
    assert [row[0] for row in rows_in(tmp_path, pa.schema([("c", wanted)]))] == values


@pytest.mark.parametrize(("wanted", "given", "message"), REFUSED, ids=lambda x: "")
def test_what_is_not_the_same_is_refused_with_its_place(
    tmp_path: Path, wanted: pa.DataType, given: pa.Array, message: str
) -> None:
    pq.write_table(pa.table({"c": given}), tmp_path / "a.parquet", version="2.6")
    with pytest.raises(BadFile, match=rf"a\.parquet: {message}"):
        rows_in(tmp_path, pa.schema([("c", wanted)]))


def test_int96_is_exact_in_every_year(tmp_path: Path) -> None:
    """Spark's and Impala's old timestamps; as Arrow's nanoseconds these wrap around into 1815 and 1800."""
    times = [NOON, datetime.datetime(9999, 12, 31, 23, 59, 59, 999999), datetime.datetime(1500, 1, 1, 0, 0, 0, 1), None]
    table = pa.table({"c": pa.array(times, pa.timestamp("us"))})
    pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    found = [row[0] for row in rows_in(tmp_path, pa.schema([("c", MS)]))]
    assert found == [NOON_MS, 253_402_300_799_999, -14_831_769_600_000, None]


def test_rows_are_counted_over_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.files.tables.parquetfile.BATCH_ROWS", 10)
    pq.write_table(pa.table({"c": [*range(25), 40_000]}), tmp_path / "a.parquet")
    with pytest.raises(BadFile, match=r"row 25, column c: 40000 does not fit smallint"):
        rows_in(tmp_path, pa.schema([("c", pa.int16())]))


# -- cells of csv ----------------------------------------------------------------------------------------------------

CELLS: list[tuple[pa.DataType, str, Any]] = [
    (pa.string(), "", None),
    (pa.string(), '""', ""),
    (pa.string(), "null", None),
    (pa.string(), '"null"', "null"),
    (pa.string(), "007", "007"),
    (pa.string(), "1.0", "1.0"),
    (pa.string(), " x ", " x "),
    (pa.string(), "NULL", "NULL"),
    (pa.string(), '"a""b\n,c"', 'a"b\n,c'),
    (pa.string(), "C:\\new", "C:\\new"),
    (pa.string(), "é日", "é日"),
    (pa.int32(), "", None),
    (pa.int32(), '""', None),
    (pa.int32(), "null", None),
    (pa.int32(), "007", 7),
    (pa.int32(), '"-5"', -5),
    (pa.int32(), "+5", 5),
    (pa.int32(), "5.0", 5),
    (pa.int32(), "5.", 5),
    (pa.int64(), "9223372036854775807", 2**63 - 1),
    (pa.int64(), "-9223372036854775808", -(2**63)),
    (pa.bool_(), "true", True),
    (pa.bool_(), "FALSE", False),
    (pa.bool_(), "1", True),
    (pa.bool_(), "0", False),
    (pa.float64(), "1e5", 1e5),
    (pa.float64(), ".5", 0.5),
    (pa.float64(), "-Infinity", float("-inf")),
    (pa.float64(), "+inf", float("inf")),
    (pa.float64(), "0.1", 0.1),
    (pa.float64(), "5e-324", 5e-324),
    (pa.date32(), "2021-01-02", datetime.date(2021, 1, 2)),
    (pa.date32(), "2021-1-2", datetime.date(2021, 1, 2)),
    (pa.date32(), "2021-01-02 00:00:00", datetime.date(2021, 1, 2)),
    (MS, "1459419080123", NOON_MS),
    (MS, "-1", -1),
    (MS, "", None),
    (MS, "2016-03-31 18:11:20", NOON_MS - 123),
    (MS, "2016-03-31T18:11:20.123", NOON_MS),
    (MS, "2016-03-31 18:11:20.1239", NOON_MS),
    (MS, "2016-03-31T10:11:20.123Z", NOON_MS),
    (MS, "2016-03-31T18:11:20.123+08:00", NOON_MS),
    (MS, "2016-03-31 05:11:20.123-0500", NOON_MS),
    (MS, "2016-3-1 8:1", 1_456_790_460_000),
    (MS, "1970-01-01", -8 * 3_600_000),
    (MS, "1969-12-31 23:59:59.9995Z", -1),
    (MS, "1970-01-01 18:00+18", 0),
    (MS, "1969-12-31 06:00 -18:00", 0),
    (MS, "1970-01-01 17:59+1759", 0),
    (pa.float64(), "1e-400", 0.0),
]

WRONG_CELLS: list[tuple[pa.DataType, str, str]] = [
    (pa.int32(), "x", "'x' is no int"),
    (pa.int32(), "1.5", "'1.5' is no int"),
    (pa.int32(), " 1", "' 1' is no int"),
    (pa.int32(), "0x10", "'0x10' is no int"),
    (pa.int32(), "2147483648", "'2147483648' does not fit int"),
    (pa.int64(), "9223372036854775808", "does not fit bigint"),
    (pa.int32(), "1e3", "'1e3' is no int"),
    (pa.bool_(), "yes", "'yes' is no bool"),
    (pa.bool_(), "2", "'2' is no bool"),
    (pa.float64(), "1,5", "4 cells instead of 3"),
    (pa.float64(), "1e999", "'1e999' does not fit double"),
    (pa.float32(), "1e39", "'1e39' does not fit float"),
    (pa.float64(), "0x1p3", "is no double"),
    (pa.float64(), "1_0", "is no double"),
    (pa.float64(), "none", "'none' is no double"),
    (pa.date32(), "2021-02-30", "'2021-02-30' is no date"),
    (pa.date32(), "02/03/2021", "is no date"),
    (pa.date32(), "2021-01-02 01:00:00", "is no date"),
    (pa.date32(), "0000-01-01", "outside of the years"),
    (MS, "2021-02-30 00:00:00", "'2021-02-30 00:00:00' is no timestamp"),
    (MS, "2021-01-01 24:00:00", "is no timestamp"),
    *((MS, cell, "is no timestamp") for cell in ("2016-03-31-18", "2016-03-31+08:00", "2016-03-31Z")),
    *((MS, f"2016-03-31 18:11{zone}", "is no timestamp") for zone in ("+99:99", "+19", "-18:01", "+08:60")),
    (MS, "31.03.2016", "is no timestamp"),
    (MS, "10000-01-01 00:00:00", "is no timestamp"),
    (MS, "253402300800000", "outside of the years 1 to 9999"),
    (MS, "1.5", "is no timestamp"),
    (pa.string(), '"a\\"b"', "line 4: a quote inside of a cell"),
    (pa.string(), 'a"b', "line 4: a quote inside of a cell"),
    (pa.string(), '"a', "line 4: a quote that is never closed"),
]


@pytest.mark.parametrize(("wanted", "cell", "value"), CELLS)
def test_a_cell_of_csv_is_what_its_column_says(tmp_path: Path, wanted: pa.DataType, cell: str, value: Any) -> None:
    (tmp_path / "a.csv").write_text(f"x,c,y\n,,\n1,{cell},2\n", newline="")
    assert rows_in(tmp_path, pa.schema([("c", wanted)]), CSV) == [(None,), (value,)]


@pytest.mark.parametrize(("wanted", "cell", "message"), WRONG_CELLS)
def test_a_cell_that_is_none_is_refused_with_its_row(
    tmp_path: Path, wanted: pa.DataType, cell: str, message: str
) -> None:
    (tmp_path / "a.csv").write_text(f"x,c,y\n,,\n1,,2\n1,{cell},2\n")
    with pytest.raises(BadFile) as told:
        rows_in(tmp_path, pa.schema([("c", wanted)]), CSV)
    assert message in str(told.value)
    assert "a.csv: row 2" in str(told.value) or "line 4" in message


def test_a_csv_that_is_not_utf8_or_has_too_few_cells_is_refused_with_its_row(tmp_path: Path) -> None:
    schema = pa.schema([("a", pa.string()), ("b", pa.int32())])
    file = tmp_path / "a.csv"
    for content, message in (
        (b"a,b\nx,1\n\xff,2\n", r"row 1, column a: b'\\xff' is not UTF-8"),
        (b"a,b\nx,\xff\n", r"row 0, column b: b'\\xff' is not UTF-8"),
        (b"a,b\nx,1\nx\n", "row 1: 1 cells instead of 2"),
        (b"a,b\nx,1\nx,2,3\n", "row 1: 3 cells instead of 2"),
        (b"", "the first line, which names the columns, is empty"),
        (b"\nx,1\n", "the first line, which names the columns, is empty"),
        (b"\xff\n", "the names of the columns are not UTF-8"),
        ("a,b\nx,1\n".encode("utf-16-le"), r"a\.csv: line 1, .* is no csv: line contains NUL"),
        (b"a" * 200_000 + b",b\nx,1\n", r"a\.csv: line 1, .* is no csv: field larger than"),
        (b"b,a,b\n1,x,2\n", "column b is in it 2 times"),
        (b"a,b,B\nx,1,2\n", "columns b and B differ in case only"),
        (b"a,c\nx,1\n", "no column b; it has a, c"),
        (b"c\nx\n", "no column a, b; it has c"),
    ):
        file.write_bytes(content)
        with pytest.raises(BadFile, match=message):
            rows_in(file, schema, CSV)


def test_columns_go_by_name_and_without_a_header_by_place(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    schema = pa.schema([("a", pa.string()), ("b", pa.int32())])
    file = tmp_path / "a.csv"
    file.write_bytes(b"\xef\xbb\xbfb, a,z\r\n1,x,9\r\n")  # with a byte order mark, and OpenMLDB's own `c1, c2`
    assert rows_in(file, schema, CSV) == [("x", 1)]
    assert caplog.messages == [f"{file}: columns that the table does not have are left out: z"]
    file.write_bytes(b"x|1\ny|2")
    assert rows_in(file, schema, Options(header=False, delimiter="|")) == [("x", 1), ("y", 2)]
    file.write_bytes(b"x,1,2\n")
    with pytest.raises(BadFile, match="row 0: 3 cells instead of 2"):
        rows_in(file, schema, Options(header=False))
    for empty in (b"a,b", b"a,b\n", b'"a",b\r\n'):
        file.write_bytes(empty)
        assert rows_in(file, schema, CSV) == []
    file.write_bytes(b"")
    assert rows_in(file, schema, Options(header=False)) == []
    file.write_bytes(b"'a''s',#,2\n")
    assert rows_in(
        file,
        pa.schema({"a": pa.string(), "b": pa.string(), "c": pa.int16()}),
        Options(header=False, quote="'", null_value="#"),
    ) == [("a's", None, 2)]
    file.write_bytes(b'5" pipe,2\n')
    assert rows_in(file, schema, Options(header=False, quote="")) == [('5" pipe', 2)]


def test_quotes_are_looked_at_over_pieces_of_a_large_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streaming.files.tables.csvin._CHUNK_BYTES", 3)
    file = tmp_path / "a.csv"
    file.write_text('a,b\n"x""y",1\n"",2\n"\n""",3\n')
    schema = pa.schema([("a", pa.string()), ("b", pa.int32())])
    assert rows_in(file, schema, CSV) == [('x"y', 1), ("", 2), ('\n"', 3)]
    file.write_text('a,b\n"x""y",1\n"x"y,2\n')
    with pytest.raises(BadFile, match="line 3: a quote inside"):
        rows_in(file, schema, CSV)


# -- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"formt": "csv"}, "option formt: there is none of this name, but "),
        ({"format": "orc"}, "format: 'orc' is neither 'parquet' nor 'csv'"),
        ({"mode": "replace"}, "mode: 'replace' is none of"),
        ({"header": "no"}, "header: 'no' is neither true nor false"),
        ({"delimiter": "||"}, "delimiter: '||' is not one ASCII character"),
        ({"delimiter": "，"}, "is not one ASCII character"),
        ({"quote": '""'}, "quote: '\"\"' is not one ASCII character"),
        ({"delimiter": '"'}, "delimiter and quote: both are"),
        ({"null_value": "a,b"}, "null_value: 'a,b' has the delimiter"),
        ({"null_value": 0}, "null_value: 0 is not a text"),
        ({"load_mode": "local"}, "load_mode: only 'cluster' is known"),
    ],
)
def test_an_option_that_means_nothing_here_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(BadFile) as told:
        load_options(options)
    assert message in str(told.value)
    if "load_mode" not in options:
        with pytest.raises(BadFile):
            outfile_options(options)


def test_options_are_read_as_openmldb_reads_them() -> None:
    given = {"FORMAT": "CSV", "header": "false", "quote": "", "deep_copy": True, "thread": 4, "load_mode": "cluster"}
    assert load_options(given) == Options(header=False, quote="")
    assert outfile_options({"coalesce": 1, "mode": "APPEND"}) == Options(mode="append")


# -- which files -----------------------------------------------------------------------------------------------------


def touched(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_hidden_files_are_no_data_and_folders_of_part_files_are(tmp_path: Path) -> None:
    touched(
        tmp_path,
        "b.parquet",
        "a.PARQUET",
        "_SUCCESS",
        "._SUCCESS.crc",
        ".b.parquet.crc",
        "_temporary/0/x.parquet",
        "c.parquet/part-1.parquet",
        "c.parquet/part-0.parquet",
        "c.parquet/_SUCCESS",
        ".jd-intent",
    )
    for path in (tmp_path, f"{tmp_path}/*.[pP]*"):
        found = [str(file.relative_to(tmp_path)) for file in files_of(path, "parquet")]
        assert found == ["a.PARQUET", "b.parquet", "c.parquet/part-0.parquet", "c.parquet/part-1.parquet"]
    assert files_of(tmp_path / "_SUCCESS", "parquet") == [tmp_path / "_SUCCESS"]  # asked for by its name
    assert files_of(f"{tmp_path}/*", "parquet") == files_of(tmp_path, "parquet")
    assert [is_there(tmp_path / name) for name in ("b.parquet", "*.csv", "none", "none/*.csv", "n*/*.csv")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def piped(folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "a.parquet")


@pytest.mark.parametrize(
    ("make", "path", "message"),
    [
        (lambda d: None, "none", "none: no such file"),
        (lambda d: None, "none/*.parquet", r"none/\*\.parquet: no such file"),
        (lambda d: (d / "t").mkdir(), "t", r"t: no \*\.parquet file in it"),
        (lambda d: touched(d, "t/_SUCCESS"), "t", r"t: no \*\.parquet file in it"),
        (lambda d: touched(d, "t/a.parq", "t/b"), "t/*.parquet", r"t: no \*\.parquet file in it, but a\.parq, b"),
        (lambda d: touched(d, "t/a.parquet", "t/b.parq"), "t", r"t: b\.parq in it is a file whose name does not end"),
        (lambda d: touched(d, "t/a.parquet", "t/dt=1/b.parquet"), "t", r"t: dt=1 in it is a folder whose name"),
        (lambda d: (d / "t" / "a.parquet").mkdir(parents=True), "t", r"t/a\.parquet: no \*\.parquet file in it"),
        (lambda d: ((d / "t").mkdir(), (d / "t" / "a.parquet").symlink_to("no")), "t", r"a\.parquet: a link to noth"),
        (lambda d: piped(d / "t"), "t", "neither a file nor a fold"),
    ],
)
def test_what_is_no_file_is_named(tmp_path: Path, make: Callable[[Path], object], path: str, message: str) -> None:
    make(tmp_path)
    with pytest.raises(BadFile, match=message):
        files_of(f"{tmp_path}/{path}", "parquet")


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    schema = pa.schema([("c", pa.int64())])
    file = tmp_path / "a.parquet"
    file.write_bytes(b"")
    with pytest.raises(BadFile, match=r"a\.parquet: the file is empty \(0 bytes\)"):
        rows_in(file, schema)
    pq.write_table(pa.table({"c": list(range(10_000))}), file, compression="none", use_dictionary=False)
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    with pytest.raises(BadFile, match=r"a\.parquet: not a readable parquet file"):
        rows_in(file, schema)
    file.write_bytes(whole[:4] + b"\xff" * 64 + whole[68:])  # the first page's header
    with pytest.raises(BadFile, match=r"a\.parquet: not a readable parquet file"):
        rows_in(file, schema)
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["c", "c"]), file)
    with pytest.raises(BadFile, match=r"a\.parquet: column c is in it 2 times"):
        rows_in(file, schema)


# -- any text as csv, against a reader that goes letter by letter ------------------------------------------------------


def naive_csv(text: str, width: int) -> list[tuple[str | None, ...]] | None:
    """The rows; None: no csv."""
    rows: list[tuple[str | None, ...]] = []
    cells: list[str | None] = []
    at, start, end = 0, 0, len(text)
    while at < end:
        if text[at] == '"':
            cell, at = "", at + 1
            while True:
                close = text.find('"', at)
                if close < 0:
                    return None
                cell, at = cell + text[at:close], close + 1
                if text[at : at + 1] != '"':
                    break
                cell, at = cell + '"', at + 1
            cells.append(cell)
            if at < end and text[at] not in ",\r\n":
                return None
        else:
            begin = at
            while at < end and text[at] not in ",\r\n":
                at += 1
            cell = text[begin:at]
            if '"' in cell:
                return None
            cells.append(None if cell in ("", "null") else cell)
        if at < end and text[at] == ",":
            at += 1
            if at < end:
                continue
            cells.append(None)
        if at > start or width == 1:
            rows.append(tuple(cells))
        at += 2 if text[at : at + 2] == "\r\n" else 1
        start, cells = at, []
    return rows if all(len(row) == width for row in rows) else None


@settings(deadline=None, max_examples=300)
@example(text='"",', width=2)
@example(text='"","",', width=3)
@given(text=st.lists(st.sampled_from([*'",\n\ra', "null"]), max_size=12).map("".join), width=st.integers(1, 3))
def test_any_text_is_read_as_the_rules_say_or_refused(text: str, width: int) -> None:
    schema = pa.schema([(name, pa.string()) for name in "abc"[:width]])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "x.csv"
        file.write_text(text, newline="")
        try:
            found = rows_in(file, schema, Options(header=False))
        except BadFile:
            found = None
    expected = naive_csv(text, width)
    assert found == expected
