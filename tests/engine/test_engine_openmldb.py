"""The embedded engine beside OpenMLDB's own, in request mode, on random tables and queries: cell by cell.

    python -m pytest tests/engine/test_engine_openmldb.py -m slow                             # the seeds of the test
    PYTHONPATH=.:tests python tests/engine/test_engine_openmldb.py --from 5000 --shrink       # a thousand others

`--over-aggregates` draws expressions over aggregates, which the other grammar does not make.

What the embedded engine refuses and OpenMLDB answers is no difference here: it may refuse. All else is one.
"""

from __future__ import annotations

import argparse
import datetime
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
from msgspec import structs
from reference import random_queries as grammar
from reference.same_answer import ROUNDED, same

from deploy.environments import Missing
from deploy.openmldb.oracle import Answer, Oracle, Refused
from streaming.engine import BadRow, Engine, UnsupportedSQL

SEEDS = 400
ARROW = {
    "string": pa.string(),
    "smallint": pa.int16(),
    "int": pa.int32(),
    "bigint": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("ms"),
}
# What OpenMLDB answers by accident
LEFT_OPEN = re.compile(
    "|".join(
        (
            r".*\b(ucase|upper|lcase|lower)\(",  # of '' it is now '' and now NULL
            r".*\bdistinct_count\(e\)",  # a date that is NULL counts as what lies in its memory
            r"min\((?!\w+\))",  # whether NaN passes, of an expression, is the optimizer's choice
            r".*case (?P<same>\w) when (?P=same) ",
        )
    )
)
# The last time of top and topn_frequency, of a year of five or eight characters: its buffer of 19 bytes ends within a
# field, which C's strftime then does not write at all: the last byte is what lay there.
UNWRITTEN = re.compile(r"((?:^|,)[-\d]\d{4}(?:\d{3}-\d\d-\d\d \d\d|-\d\d-\d\d \d\d:\d\d):).\Z", re.DOTALL)


def ours(case: grammar.Case, items: list[str]) -> tuple[dict[str, str], list[list[Any]]] | None:
    """Types and rows of the embedded engine, None where it refuses."""
    engine = Engine(portable=True)
    for name, table in case.tables.items():
        columns = ", ".join(f"{column} {kind}" for column, kind in table.columns.items())
        indexes = "".join(f", index(key=({','.join(keys)}){f', ts={ts}' if ts else ''})" for keys, ts in table.indexes)
        engine.execute(f"create table {name}({columns}{indexes})")
    try:
        engine.execute("deploy d " + case.sql(items))
        for name, table in case.tables.items():
            engine.insert(name, list(table.rows))
        answer = engine.request("d", case.requests)
    except (UnsupportedSQL, BadRow):
        return None
    other_ways(engine, case, answer)
    names = [name.replace("boolean", "bool") for name in map(_type, answer.schema.types)]
    found = [column.cast("int64") if pa.types.is_timestamp(column.type) else column for column in answer.columns]
    rows = [list(map(_plain, row)) for row in zip(*(column.to_pylist() for column in found), strict=True)]
    return dict(zip(answer.column_names, names, strict=True)), rows


def other_ways(engine: Engine, case: grammar.Case, answer: pa.Table) -> None:
    """Holds that the requests one by one, and as Arrow, have the answers that they have together.

    Raises:
        AssertionError: they have not.
    """
    expected = _texts(answer)
    singly = [row for request in case.requests for row in _texts(engine.request("d", [request]))]
    assert singly == expected, f"seed {case.seed}: one by one {singly}, together {expected}: {case.sql()}"
    columns = case.tables["t"].columns
    if all(row.keys() == columns.keys() for row in case.requests):
        table = pa.table(
            {
                name: pa.array([_arrow(row[name], kind) for row in case.requests], ARROW[kind])
                for name, kind in columns.items()
            }
        )
        found = _texts(engine.request("d", table))
        assert found == expected, f"seed {case.seed}: of Arrow {found}, of rows {expected}: {case.sql()}"


def _texts(answer: pa.Table) -> list[str]:
    """The rows as texts, as NaN is not equal to itself; times as numbers, as Python has not all of them."""
    found = [column.cast("int64") if pa.types.is_timestamp(column.type) else column for column in answer.columns]
    return [str(row) for row in zip(*(column.to_pylist() for column in found), strict=True)]


def _arrow(value: Any, kind: str) -> Any:
    return datetime.date.fromisoformat(value) if kind == "date" and value is not None else value


def _type(kind: pa.DataType) -> str:
    names = {
        "int16": "smallint",
        "int32": "int",
        "int64": "bigint",
        "date32[day]": "date",
        "timestamp[ms]": "timestamp",
    }
    return names.get(str(kind), str(kind))


def _plain(cell: Any) -> Any:
    if isinstance(cell, datetime.date):  # the date of a time that has none lies before all others
        return "1900-01-00" if cell == datetime.date(1899, 12, 31) else cell.isoformat()
    return cell


def theirs(oracle: Oracle, case: grammar.Case, items: list[str]) -> Answer | Refused:
    """OpenMLDB's answer, or its refusal."""
    try:
        return oracle.ask(case.sql(items), case.tables, case.requests)
    except Refused as refused:
        return refused


def differences(oracle: Oracle, case: grammar.Case, items: list[str] | None = None) -> Iterator[str]:
    """What the two engines answer differently, in words."""
    items = case.items if items is None else items
    try:
        mine, other = ours(case, items), theirs(oracle, case, items)
    except AssertionError as unlike:
        yield str(unlike)
        return
    if (mine is None or isinstance(other, Refused)) and len(items) > 1:
        for item in items:
            yield from differences(oracle, case, [item])
    elif mine is not None and isinstance(other, Refused):
        yield f"seed {case.seed}: {items[0]} is refused by OpenMLDB ({other}): {case.source}"
    elif mine is not None and isinstance(other, Answer):
        for n, item in enumerate(items):
            kinds = mine[0][f"c{n}"], other.columns[n][1]
            rounded = ROUNDED.search(item) is not None
            cells = [(a[n], b and b[n]) for a, b in zip(mine[1], other.rows, strict=True)]
            open_ = LEFT_OPEN.match(item) is not None
            cells = [(written(a), written(b)) for a, b in cells]
            wrong = [(row, *pair) for row, pair in enumerate(cells) if not (same(*pair, rounded) or open_)]
            if kinds[0] != kinds[1]:
                yield f"seed {case.seed}: {item} is {kinds[0]}, of OpenMLDB {kinds[1]}: {case.source}"
            elif wrong:
                row, a, b = wrong[0]
                yield f"seed {case.seed}: {item} of request {row} is {a!r}, of OpenMLDB {b!r}: {case.source}"


def written(cell: Any) -> Any:
    """The cell but for what OpenMLDB does not write, see `UNWRITTEN`."""
    return UNWRITTEN.sub(r"\1?", cell) if isinstance(cell, str) else cell


@pytest.mark.parametrize(
    ("mine", "other", "alike"),
    [
        ("10000-01-01 07:59:5", "10000-01-01 07:59:\0", True),  # seed 31075
        ("NULL,10000-01-01 07:59:5", "NULL,10000-01-01 07:59:$", True),
        ("10000-01-01 07:59:5,NULL", "10000-01-01 07:59:$,NULL", False),  # another one follows: there is room
        ("12345678-01-01 07:5", "12345678-01-01 07:0", True),
        ("123456-01-01 07:59:", "123456-01-01 07:59;", False),  # the field ends with the buffer
        ("9999-12-31 23:59:59", "9999-12-31 23:59:58", False),
        ("10000-01-01 07:59:59", "10000-01-01 07:59:58", False),
    ],
)
def test_what_openmldb_does_not_write_is_no_difference(mine: str, other: str, alike: bool) -> None:
    assert (written(mine) == written(other)) is alike


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    """OpenMLDB's engine; skips where it was not made."""
    try:
        oracle = Oracle()
    except Missing as missing:
        pytest.skip(str(missing))
    with oracle:
        yield oracle


@pytest.mark.slow
def test_random_queries_are_answered_as_openmldb_does(oracle: Oracle) -> None:
    found: list[str] = []
    both = 0
    for seed in range(SEEDS):
        case = grammar.draw(seed)
        found += differences(oracle, case)
        both += ours(case, case.items) is not None
    assert found == []
    assert both > SEEDS / 10, "too few of the queries are answered for this to say anything"


@pytest.mark.slow
def test_random_expressions_over_aggregates_are_answered_as_openmldb_does(oracle: Oracle) -> None:
    cases = [grammar.draw_over_aggregates(seed) for seed in range(SEEDS // 4)]
    found = [line for case in cases for item in case.items for line in differences(oracle, case, [item])]
    assert found == []
    answered = sum(ours(case, [item]) is not None for case in cases for item in case.items)
    assert answered > SEEDS / 10, "too few of the expressions are answered for this to say anything"


def smallest(oracle: Oracle, case: grammar.Case) -> grammar.Case | None:
    """The case with one item, one request and as few rows and values as still differ."""

    def differs(changed: grammar.Case) -> bool:
        return next(differences(oracle, changed), None) is not None

    tries = [replace(case, items=[item], requests=[row]) for item in case.items for row in case.requests]
    small = next(filter(differs, tries), None)
    while small is not None:
        smaller = next(filter(differs, _smaller(small)), None)
        if smaller is None:
            return small
        small = smaller
    return None


def _smaller(case: grammar.Case) -> Iterator[grammar.Case]:
    for name, table in case.tables.items():
        for n in range(len(table.rows)):
            rows = [row for m, row in enumerate(table.rows) if m != n]
            yield replace(case, tables={**case.tables, name: structs.replace(table, rows=rows)})
    for column in set(case.requests[0]) - {"ts"}:
        rest = {name: value for name, value in case.requests[0].items() if name != column}
        yield replace(case, requests=[rest])


def main() -> None:
    """Any seeds, differences on standard output."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--over-aggregates", action="store_true", help="expressions over aggregates instead")
    parser.add_argument("--shrink", action="store_true", help="print the smallest case that still differs too")
    arguments = parser.parse_args()
    total = 0
    draw = grammar.draw_over_aggregates if arguments.over_aggregates else grammar.draw
    with Oracle() as oracle:
        for seed in range(arguments.first, arguments.first + arguments.count):
            case = draw(seed)
            for line in differences(oracle, case):
                print(line, flush=True)
                total += 1
                if arguments.shrink and (small := smallest(oracle, case)) is not None:
                    print(f"    {small.sql()}")
                    for name, table in small.tables.items():
                        print(*(f"    {name}: {row}" for row in table.rows), sep="\n")
                    print(*(f"    request: {row}" for row in small.requests), sep="\n", flush=True)
    print(f"{arguments.count} seeds, {total} differences")
    if total:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
