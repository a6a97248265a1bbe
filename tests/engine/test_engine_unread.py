"""What OpenMLDB answers otherwise than its SQL says, or with what lies in memory: answered as it does, or refused."""

from __future__ import annotations

import math

import pytest

from streaming.engine import Engine, UnsupportedSQL


@pytest.mark.parametrize(
    ("values", "number", "expected"),
    [
        ({"a": math.nan, "b": 1.0, "c": math.nan}, 2, "a:nan"),  # the first is a NaN: all others are the same
        ({"a": 1.0, "b": math.nan, "c": 2.0}, 3, "c:2.000000,a:1.000000"),
        ({"a": 1.0, "b": math.nan, "c": 2.0}, -1, "c:2.000000,a:1.000000"),
        ({"a": 1.0, "b": math.nan}, 1, "a:1.000000"),
        ({"a": math.nan, "b": 1.0}, 0, ""),
    ],
)
def test_the_greatest_results_of_categories_leave_a_nan_out(
    values: dict[str, float], number: int, expected: str
) -> None:
    """As OpenMLDB's ordered set does; its engine answered so to the fuzzer's seeds 21369 and 21756."""
    engine = Engine()
    engine.execute("create table t(k int, ts timestamp, c string, v double, index(key=k, ts=ts))")
    rows = [{"k": 1, "ts": 1000 + n, "c": c, "v": v} for n, (c, v) in enumerate(values.items())]
    engine.insert("t", rows[:-1])
    engine.execute(
        f"deploy d select top_n_value_max_cate_where(v, true, c, {number}) over w as best from t window w as "
        "(partition by k order by ts rows between unbounded preceding and current row)"
    )
    assert engine.request("d", [rows[-1]])["best"].to_pylist() == [expected]


@pytest.mark.parametrize(
    "item", ["bigint(1e308)", "int(-1e10)", "smallint(70000.0)", "timestamp(1e30)", "int(2e9 * 2)"]
)
def test_a_constant_that_does_not_fit_is_refused(item: str) -> None:
    """OpenMLDB folds it into what lies in a register, and what is made of it, too: bigint(1e308) + 1 is 0."""
    engine = Engine()
    engine.execute("create table t(d double)")
    with pytest.raises(UnsupportedSQL, match=r"does not fit \w+: OpenMLDB's answer is undefined"):
        engine.execute(f"deploy d select {item} as c from t")
    engine.execute("deploy d select bigint(d) as c, int(-2147483648.5) as low, smallint(32767.0) as high from t")
    assert engine.request("d", [{"d": 1e308}]).to_pylist() == [{"c": -(2**63), "low": -(2**31), "high": 32767}]


WINDOWED = "over w0 as c from t window w0 as (partition by k order by ts rows between 6 preceding and current row)"


@pytest.fixture
def unread() -> Engine:
    """An engine with a table, for queries of which only the compilation counts."""
    engine = Engine()
    columns = "k int, ts timestamp, i bigint, p smallint, d double, q bool, s string, e date, w timestamp"
    engine.execute(f"create table t({columns}, index(key=k, ts=ts))")
    return engine


def taken(engine: Engine, item: str, rest: str = WINDOWED) -> None:
    engine.execute(f"deploy d select {item} {rest}")
    engine.execute("drop deployment d")


@pytest.mark.parametrize(
    "call",
    [
        *("top({}, 2)", "topn_frequency({}, 2)", "entropy({})", "count_cate(i, {})", "sum_cate_where(i, q, {})"),
        *("median(char_length(string({})))", "count_cate(i, hash64({}))", "entropy(concat('x', {}))", "top1_ratio({})"),
        "count_cate(i, (case when i = 1 then 1 else bigint(concat({}, '')) end))",
    ],
)
@pytest.mark.parametrize("column", ["s", "e", "w"])
def test_a_case_that_openmldb_loses_is_refused(unread: Engine, call: str, column: str) -> None:
    """Its engine answers as if it were NULL in each row; found by the fuzzer's seed 29879. With an ELSE it does not."""
    for lost in (
        f"case when i = 1 then {column} end",
        f"case i when 1 then {column} when 2 then {column} else null end",
    ):
        with pytest.raises(UnsupportedSQL, match="a CASE whose ELSE is NULL, or missing"):
            taken(unread, call.format(f"({lost})"))
    for kept in (f"case when i = 1 then {column} else {column} end", f"case when i != 1 then null else {column} end"):
        taken(unread, call.format(f"({kept})"))


@pytest.mark.parametrize("call", ["median({})", "top({}, 2)", "stddev({})", "sum_cate({}, w)", "ew_avg({}, 0.5)"])
def test_a_number_out_of_a_case_is_lost_by_what_it_is_asked(unread: Engine, call: str) -> None:
    """A comparison is answered, a bool that lies in a byte is not: OpenMLDB's mark of NULL is its opposite then."""
    for lost in ("q", "s like 'a%'", "k = 1 or i > 1", "s not in ('a', 'b')", "isnull(s)"):
        with pytest.raises(UnsupportedSQL, match="a CASE whose ELSE is NULL, or missing"):
            taken(unread, call.format(f"(case when {lost} then i end)"))
        taken(unread, call.format(f"(case when {lost} then i else 0 end)"))
    for kept in ("k = 1", "s != 'a'", "not (d < 2.0)"):
        taken(unread, call.format(f"(case when {kept} then i when i < 0 then p end + 1)"))
    taken(unread, "sum(case when q then i end)")


def test_a_number_out_of_a_case_is_not_lost_beside_a_category_that_is_a_text(unread: Engine) -> None:
    taken(unread, "sum_cate((case when q then i end), s)")
    with pytest.raises(UnsupportedSQL, match="a CASE whose ELSE is NULL, or missing"):
        taken(unread, "sum_cate(i, (case when q then s end))")


@pytest.mark.parametrize("item", ["add_months((case when q then e end), 1)", "add_months(e, (case when q then i end))"])
def test_add_months_of_a_case_without_an_else_is_refused(unread: Engine, item: str) -> None:
    """It is the one function of single values that is told what is NULL, and so takes all as NULL."""
    with pytest.raises(UnsupportedSQL, match="a CASE whose ELSE is NULL, or missing"):
        taken(unread, item, "from t")
    taken(unread, "last_day(case when q then e end)", "from t")


@pytest.mark.parametrize(
    "item",
    [
        *("case when q then max(s) over w0 end", "case when q then string(count(i) over w0) end"),
        *("case when i > 0 then s when q then max(w) over w0 + 1 end", "nvl2(i, null, max(e) over w0)"),
        *("case when first_value(i) over w0 > 0 then concat(top(i, 2) over w0, s) else null end",),
        *("count(case when max(i) > 0 then max(s) end) over w0", "max(concat(nvl2(i, null, min(s)), 'x')) over w0"),
        *("case when q then s else (case when q then max(s) over w0 end) end",),
        *("case when q and (case when q then max(s) over w0 end) = 'a' then 1 end", "if_null(i, max(d) over w0)"),
        *("case when q then max(d) over w0 else i end", "case when q then d else max(i) over w0 end"),
        *("case when q then max(p) over w0 else 5 end", "case when q then s when i > 0 then max(d) over w0 else d end"),
        *("case when q then 1.5 when i > 0 then max(p) over w0 else p end", "sum(if_null(i, max(d))) over w0"),
    ],
)
def test_a_case_of_an_aggregate_that_openmldb_does_not_compile_is_refused_for_a_cluster(item: str) -> None:
    """Its compiler says "fail to verify codegen module"."""
    ddl = "create table t(k int, ts timestamp, i bigint, p smallint, d double, q bool, s string, e date, w timestamp, "
    rest = "as c from t window w0 as (partition by k order by ts rows between 6 preceding and current row)"
    answering, engine = Engine(), Engine(portable=True)
    for one in (answering, engine):
        one.execute(f"{ddl} index(key=k, ts=ts))")
    with pytest.raises(UnsupportedSQL, match=r"unsupported by OpenMLDB: an aggregate in a branch .* at 1:\d+"):
        taken(engine, item, rest)
    taken(answering, item, rest)
    for compiled in (
        "case when q then max(i) over w0 end",
        "case when q then max(s) over w0 else s end",
        "case when q then max(d) over w0 else 5 end",
        "case when q then i else max(d) over w0 end",
        "if_null(max(d) over w0, i) + if_null(d, max(d) over w0)",
        "case when count(i) over w0 > 0 then (case when q then max(s) over w0 end) else string(i) end",
        "case when q then last_value(s) over w0 when i > 0 then concat(lag(s, 1) over w0, 'x') end",
        "concat(case when q then s end, max(s) over w0)",
        "sum(minimum(max(d), i)) over w0",
    ):
        taken(engine, compiled, rest)


def test_what_a_cluster_refuses_is_found_behind_an_aggregate() -> None:
    """Each item is checked, also those that nothing reads; found by the fuzzer's seed 36926."""
    engine = Engine(portable=True)
    engine.execute("create table t(k int, ts timestamp, e date, index(key=k, ts=ts))")
    window = "window w as (partition by k order by ts rows between 4 preceding and current row)"
    with pytest.raises(UnsupportedSQL, match=r"IS NULL .* at 1:"):
        engine.execute(
            f"deploy d select count(k) over w as a, count_where(k, e is not null) over w as b from t {window}"
        )


@pytest.mark.parametrize(
    "test",
    [
        *(
            "s not like 'a%'",
            "not (s ilike 'a%')",
            "(s like 'a%') = false",
            "not isnull(s)",
            "s not rlike 'a' or i < 0",
        ),
        *(
            "not q",
            "q = false",
            "q != true",
            "q < true",
            "q <= false",
            "q xor true",
            "q = (s like 'a%')",
            "not (q = q)",
        ),
        *(
            "s not in ('a', 'b')",
            "not (i > 0 or k = 1)",
            "i not between 1 and p",
            "if_null(s like 'a%', false) = false",
        ),
        *("int(q) = 0", "(case when q then 1 else 0 end) = 0", "q in (p, 0.0)", "case when q then false else true end"),
        *(
            "if_null(not q, true)",
            "(not q) and true",
            "case when i > 0 then not q end",
            "isnull(case when q then s end)",
        ),
        "case when q then i > 0 end",
    ],
)
def test_the_opposite_of_a_bool_is_no_condition_of_a_category(unread: Engine, test: str) -> None:
    """OpenMLDB's engine takes it as true in each row; found by the fuzzer's seeds 40388, 41322 and 67052."""
    what = "the opposite of a bool, also of a LIKE or of a function|a CASE whose ELSE is NULL"
    for item in ("sum_cate_where(i, ({}), k)", "top_n_key_ratio_cate(i, ({}), e, 2)", "nth_value_where(i, 1, ({}))"):
        with pytest.raises(UnsupportedSQL, match=what):
            taken(unread, item.format(test))
    taken(unread, f"count_where(i, ({test}))")
    taken(unread, f"sum_cate_where(i, ({test}), s)")


@pytest.mark.parametrize(
    "test",
    [
        *("s like 'a%'", "not (i > 3)", "isnull(s)", "q = true", "q", "q and i > 0", "q or i > 0", "s in ('a', 'b')"),
        *(
            "string(q) = 'false'",
            "s != 'a' and s != 'b'",
            "not q and i > 0",
            "q xor (i > 0)",
            "bool(i)",
            "q != (s = 'a')",
        ),
    ],
)
def test_other_conditions_of_a_category_are_answered(unread: Engine, test: str) -> None:
    taken(unread, f"sum_cate_where(i, ({test}), k)")


def test_hash64_of_the_opposite_of_a_bool_is_refused(unread: Engine) -> None:
    """Of OpenMLDB it is the hash of a byte of 254 or 255."""
    for item in ("not q", "s not like 'a%'", "q = false"):
        with pytest.raises(UnsupportedSQL, match=r"hash64\(\) of the opposite of a bool"):
            taken(unread, f"hash64({item})", "from t")
    taken(unread, "hash64(q) + hash64(i > 3) + hash64(s like 'a%')", "from t")


@pytest.mark.parametrize(
    ("value", "known"),
    [
        *(("i + 1", "0"), ("year(w)", "0"), ("concat(s, 'x')", "''"), ("i between p and d", "false")),
        ("case when i > 0 then i end", "0"),
    ],
)
def test_distinct_count_of_an_expression_says_what_a_null_counts_as(unread: Engine, value: str, known: str) -> None:
    """OpenMLDB counts what lies in its memory; found by the fuzzer's seeds 52352, 61995 and 67472."""
    with pytest.raises(UnsupportedSQL, match=r"distinct_count\(\) of what may be NULL .* if_null"):
        taken(unread, f"distinct_count({value})")
    taken(unread, f"distinct_count(if_null({value}, {known}))")
    taken(unread, "distinct_count(case when i > 0 then 2 else 1 end) + distinct_count(i)")
