"""The grammar of events.sql; and that the engine's own dialect has not grown by it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from places import CASES

from streaming.engine import Engine, UnsupportedSQL
from streaming.engine.sql.parse import parse
from streaming.engine.sql.parse_streams import parse_events
from streaming.engine.sql.stream_syntax import CreateStream, InsertSelect
from streaming.engine.types import Type

STREAM = """CREATE TABLE clicks (
    ip bigint NOT NULL,
    name varchar(12) NOT NULL DEFAULT 'x',
    `order` string,
    at timestamp CHECK (at > 0),
    CHECK (name  IN ('a',
        'b')),
    CONSTRAINT small CHECK (ip < 10)
) WITH (topic = 'clicks', key = 'ip', partitioned = true, "size" = 3)"""


def test_a_stream_has_columns_constraints_and_options() -> None:
    (stream,) = parse_events(f"-- what comes in\n{STREAM};")
    assert isinstance(stream, CreateStream)
    assert stream.name == "clicks"
    assert [(c.name, c.type, c.length_max, c.nullable) for c in stream.columns] == [
        ("ip", Type.BIGINT, None, False),
        ("name", Type.STRING, 12, False),
        ("order", Type.STRING, None, True),
        ("at", Type.TIMESTAMP, None, True),
    ]
    assert stream.columns[1].default is not None
    assert stream.columns[1].default.value == "x"
    assert [(check.name, check.text) for check in stream.checks] == [
        (None, "at > 0"),
        (None, "name IN ('a', 'b')"),
        ("small", "ip < 10"),
    ]
    assert {option.name: option.value for option in stream.options} == {
        "topic": "clicks",
        "key": "ip",
        "partitioned": True,
        "size": 3,
    }


def test_an_insert_has_its_table_columns_and_select() -> None:
    first, second = parse_events(
        "INSERT INTO d.t SELECT a AS b FROM s WHERE a > 1; INSERT INTO t (x, y) SELECT 1, 2 FROM s"
    )
    assert isinstance(first, InsertSelect)
    assert isinstance(second, InsertSelect)
    assert (first.table, first.columns, first.select.items[0].alias) == (("d", "t"), (), "b")
    assert first.select.where is not None
    assert (second.table, second.columns, len(second.select.items)) == (("t",), ("x", "y"), 2)


@pytest.mark.parametrize(
    ("script", "what", "place"),
    [
        ("CREATE TABLE t (a int);", r"expected WITH \(topic", (1, 23)),
        ("CREATE TABLE t (a int, INDEX(KEY=a)) WITH (topic='t')", "an index of a stream", (1, 24)),
        ("CREATE TABLE t (a nothing) WITH (topic='t')", "column type 'nothing'", (1, 19)),
        ("CREATE TABLE t (a varchar(0)) WITH (topic='t')", "a text of no characters", (1, 27)),
        ("CREATE TABLE t (a int DEFAULT b) WITH (topic='t')", "a default that is not a constant", (1, 31)),
        ("CREATE TABLE t (a int,\n CHECK a > 1) WITH (topic='t')", r"syntax error: expected \(", (2, 8)),
        ("CREATE TABLE t (a int) WITH (topic='t', topic='u')", "option topic is there twice", (1, 41)),
        ("CREATE TABLE t (a int) WITH (topic=t)", "expected a text in quotes", (1, 36)),
        ("CREATE TABLE t (a int) WITH (topic='t' key='a')", "expected ,", (1, 40)),
        ("INSERT INTO t VALUES (1)", "expected SELECT", (1, 15)),
        ("SELECT 1", "expected CREATE TABLE", (1, 1)),
        ("DEPLOY d SELECT a FROM t", "expected CREATE TABLE", (1, 1)),
        (f"CREATE TABLE t (a int, CHECK ({'(' * 300}a{')' * 300} > 1)) WITH (topic='t')", "nesting deeper", (1, 231)),
    ],
)
def test_a_wrong_statement_is_refused_with_its_place(script: str, what: str, place: tuple[int, int]) -> None:
    with pytest.raises(UnsupportedSQL, match=what) as refused:
        parse_events(script)
    assert (refused.value.line, refused.value.column) == place


@pytest.mark.parametrize(
    ("script", "what"),
    [
        (STREAM.replace("varchar(12)", "varchar"), "CHECK of a table|expected"),
        ("CREATE TABLE t (a int) WITH (topic='t')", "WITH of a table"),
        ("CREATE TABLE t (a int, CHECK (a > 1))", "CHECK of a table"),
        ("CREATE TABLE t (a int, CONSTRAINT c CHECK (a > 1))", "CHECK of a table"),
        ("CREATE TABLE s (a int); CREATE TABLE t (a int); INSERT INTO t SELECT a FROM s", "INSERT … SELECT"),
    ],
)
def test_the_engine_refuses_them_and_runs_nothing_of_the_script(script: str, what: str) -> None:
    engine = Engine()
    with pytest.raises(UnsupportedSQL, match=what):
        engine.execute(script)
    assert engine.tables("") == []


@pytest.mark.parametrize("name", ["tutorial_tables", "tutorial_load", "tutorial_deploy", "tutorial_outfile"])
def test_scripts_of_openmldb_are_no_events(name: str) -> None:
    script = (CASES / f"{name}.sql").read_text(encoding="utf-8")
    assert parse(script)
    with pytest.raises(UnsupportedSQL):
        parse_events(script)


TOKENS = """CREATE TABLE t ( ) , a int CHECK WITH
 'x' = 1 INSERT INTO SELECT FROM ; NOT NULL DEFAULT varchar CONSTRAINT - >"""


def line_of_error(script: str) -> int:
    """Where a script is wrong; 1: it is not."""
    try:
        parse_events(script)
    except UnsupportedSQL as error:
        return min(error.line, error.column)
    return 1


@given(st.lists(st.sampled_from(TOKENS.split()), max_size=30).map(" ".join) | st.text(max_size=60))
@settings(max_examples=400, deadline=None)
def test_no_text_raises_anything_else(script: str) -> None:
    assert line_of_error(script) >= 1


@given(st.integers(0, len(STREAM)), st.integers(0, len(STREAM)))
@settings(max_examples=200, deadline=None)
def test_a_stream_with_a_hole_is_parsed_or_refused(start: int, length: int) -> None:
    assert line_of_error(STREAM[:start] + STREAM[start + length :]) >= 1
