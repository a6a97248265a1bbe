"""No text makes the engine run out of stack or time: deep and long SQL is planned, or refused with its place."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from streaming.engine import Engine, UnsupportedSQL
from streaming.engine.sql.depth import NESTING_MAX

TABLE = (
    "CREATE DATABASE d; USE d; CREATE TABLE t (a int, b double, s string, ts timestamp, INDEX(KEY=s, TS=ts));"
    "INSERT INTO t VALUES (1, 0.5, 'x', 1);"
)


def answer(select: str) -> object:
    engine = Engine()
    engine.execute(TABLE)
    return engine.query(select).column(0).to_pylist()[0]


LONG: dict[str, Callable[[int], tuple[str, object]]] = {
    "sum": lambda n: ("+".join("a" * n), n),
    "sum of two types": lambda n: ("+".join(["a", "0.5"] * (n // 2)), n // 2 * 1.5),
    "and": lambda n: (" and ".join(["a > 0"] * n), True),
    "or": lambda n: (" or ".join(["a > 1"] * n), False),
    "not": lambda n: ("not " * n + "a > 0", n % 2 == 0),
    "when": lambda n: ("case " + " ".join(f"when a = {i} then {i}" for i in range(n)) + " else 0 end", 1),
    "arguments": lambda n: (f"concat({','.join('s' * n)})", "x" * n),
}


@pytest.mark.parametrize("kind", LONG)
def test_five_hundred_terms_are_planned_and_three_thousand_refused(kind: str) -> None:
    expression, value = LONG[kind](500)
    assert answer(f"SELECT {expression} AS c FROM t") == value
    for named in (" AS c", ""):
        with pytest.raises(UnsupportedSQL, match=r"deeper than 1000 levels at 1:\d+") as refused:
            answer(f"SELECT {LONG[kind](3_000)[0]}{named} FROM t")
        assert refused.value.column > 0


def test_a_list_may_be_long() -> None:
    assert answer(f"SELECT a IN ({','.join(map(str, range(5000)))}) FROM t") is True
    assert answer(f"SELECT (a NOT IN ({','.join(map(str, range(2, 5000)))}, NULL)) IS NULL FROM t") is True


DEEP: dict[str, Callable[[int], str]] = {
    "parentheses": lambda n: f"SELECT {'(' * n}a{')' * n} FROM t",
    "unclosed": lambda n: f"SELECT {'(' * n}",
    "calls": lambda n: f"SELECT {'abs(' * n}a{')' * n} FROM t",
    "casts": lambda n: f"SELECT {'cast(' * n}a{' as int)' * n} FROM t",
    "signs": lambda n: f"SELECT {'- ' * n}a FROM t",
    "case": lambda n: f"SELECT {'case when true then ' * n}a{' end' * n} FROM t",
    "in": lambda n: f"SELECT {'a in (' * n}1{')' * n} FROM t",
    "sub-queries": lambda n: f"SELECT a FROM {'(SELECT a FROM ' * n}t{')' * n}",
    "selects": lambda n: f"{'(' * n}SELECT a FROM t{')' * n}",
    "with": lambda n: f"{'WITH c AS (' * n}SELECT a FROM t{') SELECT * FROM c' * n}",
    "order": lambda n: (
        f"SELECT count(a) OVER w FROM t WINDOW w AS (PARTITION BY {'(' * n}s{')' * n} ORDER BY ts "
        "ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)"
    ),
    "options": lambda n: f"SET x = {'[' * n}1{']' * n}",
    "time to live": lambda n: f"CREATE TABLE u (s string, ts timestamp, INDEX(KEY=s, TS=ts, TTL={'(' * n}1{')' * n}))",
}


@pytest.mark.parametrize("kind", DEEP)
def test_nesting_is_planned_to_its_bound_and_refused_beyond(kind: str) -> None:
    """In a thread, whose stack is the smaller one, and from a caller that is deep in the stack itself."""
    outcomes: list[object] = []

    def work(calls: int = 500) -> None:
        if calls:
            work(calls - 1)
            return
        for depth in (90, NESTING_MAX + 1, 10_000):
            engine = Engine()
            engine.execute(TABLE)
            try:
                engine.execute(DEEP[kind](depth))
            except UnsupportedSQL as refused:
                outcomes.append(str(refused).partition("\n")[0])
            else:
                outcomes.append("planned")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert outcomes[0] == "planned" or kind == "unclosed", outcomes
    assert all(f"nesting deeper than {NESTING_MAX} levels at 1:" in str(outcome) for outcome in outcomes[1:]), outcomes


def test_what_grows_with_every_level_is_refused_before_it_is_planned() -> None:
    doubled = "WITH a0 AS (SELECT * FROM t)" + "".join(
        f", a{i} AS (SELECT a{i - 1}.s FROM a{i - 1} LAST JOIN a{i - 1} AS u ON a{i - 1}.s = u.s)" for i in range(1, 60)
    )
    for select in (
        f"SELECT {'(' * 60}a{' between 1 and 2)' * 60} FROM t",
        f"SELECT {'case ' * 60}a{' when 1 then 2 when 2 then 3 end' * 60} FROM t",
        f"{doubled} SELECT * FROM a59",
    ):
        with pytest.raises(UnsupportedSQL, match=r"larger than 100000 parts at 1:\d+"):
            answer(select)


@pytest.mark.parametrize(
    "chain", ["1 = 1 = 1", "a < 1 < 2", "a is null is null", "a in (1) = true", "a between 1 and 2 between 1 and 2"]
)
def test_a_comparison_of_a_comparison_stands_in_parentheses(chain: str) -> None:
    for times in (1, 3_000):
        with pytest.raises(
            UnsupportedSQL, match=r"a comparison of a comparison stands in parentheses, found .* at 1:1|2"
        ):
            answer(f"SELECT {chain}{' = 1' * (times - 1)} FROM t")
