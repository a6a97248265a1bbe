"""docs/reference/sql lists what there is, and what it says is refused is refused, with its place."""

from __future__ import annotations

import re

import pytest
from places import REPOSITORY

from streaming.engine import Engine, UnsupportedSQL
from streaming.engine.library import ALIASES, FUNCTIONS, VARIADIC
from streaming.engine.plan.aggregates import AGGREGATES
from streaming.engine.plan.functions import SCALARS
from streaming.engine.plan.signatures import FORMATS, MARKS
from streaming.engine.plan.text_lists import FOLDS, SPLITS

PAGES = sorted((REPOSITORY / "docs" / "reference" / "sql").glob("*.md"))
TABLES = """create table t(id string, k string, ts timestamp, i int, f float, s string);
create table u(id string, k string, ts timestamp, i int, f float, s string);"""
W = "window w as (partition by k order by ts rows between 2 preceding and current row)"


def listed(what: str) -> list[str]:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    (found,) = re.findall(rf"<!-- {what} -->(.*?)<!-- end -->", text, re.DOTALL)
    return re.findall(r"`(\w+)`", found)


def test_every_function_is_listed() -> None:
    assert listed("scalars") == sorted({*SCALARS, *FUNCTIONS, *ALIASES, *VARIADIC})
    assert listed("aggregates") == sorted(AGGREGATES)
    window_splits = [f"window_{name}" for name in SPLITS]
    assert listed("lists") == [*SPLITS, *window_splits, *[name for name in FOLDS if name != "join"]]
    assert listed("signatures") == [*FORMATS, *MARKS]


@pytest.mark.parametrize(
    ("sql", "what", "place"),
    [
        ("select id from t group by id", "GROUP BY", "1:18"),
        ("select id\nfrom t join u on t.k = u.k", "JOIN", "2:8"),
        ("select distinct id from t", "DISTINCT", "1:1"),
        ("select t.id from t last join u on t.i < u.i", "without an equality", "1:39"),
        ("select t.id from t last join t as x order by x.ts on t.k = x.k", "with itself", "1:46"),
        ("select t.id from t last join u on t.k = u.k or t.i = u.i", "without an equality", "1:45"),
        ("select t.id from t left join u on t.k = u.k", "LEFT JOIN", "1:20"),
        (f"select sum(1) over w from t {W}", "sum() of no column", "1:8"),
        (f"select count_where(i, i) over w from t {W}", "a int as a condition", "1:8"),
        (f"select min(true) over w from t {W}", "min() of", "1:8"),
        ("select hour(i) from t", "hour() of a int", "1:8"),
        ("select case when i then 1 else 2 end from t", "a int as a condition", "1:8"),
        ("select i << 1 from t", "operator <<", "1:10"),
        ("select count(i) from t", "without a window", "1:8"),
        (f"select sum(s) over w from t {W}", "sum() of a string", "1:8"),
        (f"select nosuch(i) from t {W}", "function nosuch", "1:8"),
        ("select split(s, ',') from t", "function split", "1:8"),
        ("select count(split(s, ',')) from t", "count() of split", "1:8"),
        (f"select size(window_split(s, k)) over w from t {W}", "by something that is not a constant", "1:8"),
        (f"select topn_frequency(window_split(s, ','), -1) over w from t {W}", "topn_frequency() of -1", "1:8"),
        ("select csv(i) from t", "csv() of what is not binary_label", "1:12"),
        ("select csv(discrete(f)) from t", "csv() of discrete(float)", "1:8"),
        ("select x.t.* from t", "a database before `*`", "1:8"),
        ("select nosuch from t", "unknown column nosuch", "1:8"),
        ("select id from nosuch", "unknown table nosuch", "1:16"),
        ("select s + 1 from t", "string + int", "1:10"),
        ("select ts = 1 from t", "timestamp = int", "1:11"),
        ("select i & true from t", "int & bool", "1:10"),
        (
            "select count(i) over w from t window w as (partition by k rows between 2 preceding and current row)",
            "without ORDER BY",
            "1:43",
        ),
        (
            "select count(i) over w from t window w as (partition by k rows_range between 2s preceding and "
            "current row)",
            "without ORDER BY",
            "1:43",
        ),
        (
            "select count(i) over w from (select * from t where i > 1) window w as (partition by k order by ts "
            "rows between 2 preceding and current row)",
            "a WHERE has filtered",
            "1:71",
        ),
        (
            "select sum(i) over w + sum(i) over v from t window w as (partition by k order by ts rows between "
            "2 preceding and current row), v as (partition by k order by ts rows between 1 preceding and current row)",
            "several windows",
            "1:31",
        ),
        (
            "select sum(i) over w from t window w as (partition by k order by ts desc rows between 2 preceding and "
            "current row)",
            "DESC in a window",
            "1:41",
        ),
        (
            "select count(i) over w from t window w as (partition by k order by ts rows_range between 1s preceding and "
            "current row exclude current_row maxsize 2)",
            "syntax error",
            "1:139",
        ),
        (
            "select sum(i) over w, lag(i, 2) over w from t window w as (partition by k order by ts rows_range between "
            "1s preceding and current row maxsize 2)",
            "MAXSIZE beside another window",
            "1:59",
        ),
        (
            "select sum(i) over w, sum(i) over v from t window w as (partition by k order by ts rows_range between 1s "
            "preceding and current row maxsize 2), v as (partition by k order by ts rows between 2 preceding and "
            "current row)",
            "MAXSIZE beside another window",
            "1:56",
        ),
        ("select id frm t", "syntax error", "1:15"),
        ("select 'open from t", "unclosed string", "1:8"),
        ("select ? from t", "parameter", "1:8"),
    ],
)
def test_refusals_name_construct_and_place(sql: str, what: str, place: str) -> None:
    engine = Engine()
    engine.execute(TABLES)
    with pytest.raises(UnsupportedSQL) as error:
        engine.query(sql)
    assert what in str(error.value)
    assert f" at {place}\n" in str(error.value)
    assert f"{error.value.line}:{error.value.column}" == place
    assert str(error.value).splitlines()[-1].strip() == "^"
