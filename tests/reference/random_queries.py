"""Seeded random tables and queries in OpenMLDB's dialect, right and wrong ones: one grammar for both engines.

Every function is called with arguments of every type, so that what is refused is compared too. Numbers and times lie at
the ends of their types, texts are hostile, a few tables are large.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from deploy.openmldb.oracle import Table
from streaming.engine.library import ALIASES, FUNCTIONS, VARIADIC
from streaming.engine.plan.aggregates import AGGREGATES
from streaming.engine.plan.functions import SCALARS

__all__ = ["Case", "draw", "draw_over_aggregates"]

TYPES = {
    "id": "string",
    "k": "string",
    "j": "int",
    "ts": "timestamp",
    "i": "int",
    "b": "bigint",
    "f": "float",
    "d": "double",
    "s": "string",
    "p": "smallint",
    "q": "bool",
    "e": "date",
    "w": "timestamp",
}
TEXTS = (None, "", "a", "b", "aa", "A", "é", "日本", "10", "9", "-3", "1.5", "a,b", "%", "a_b", "NULL", "2020-02-29")
LAST_SECONDS = (253_402_271_999_000, 253_402_300_799_999)  # of the year 9999 in UTC+8, and in UTC
HOSTILE = (
    *("a\0b", "\0", " ", "\t5\n", "1e400", "nan", "inf", "0x1F", "+5", "99999999999999999999", "1e-400", "5.", "-0"),
    *("9999-12-31 23:59:59", "0001-01-01", "2021-02-30", "\U0001f600", "e\u0301", "é" * 200, "\\", "'", '"', "\x7f"),
    *("\ufeff", "\u0661", "true", "T", "%_", "a:1,b:2,,:"),
)
NOT_FINITE = (float("nan"), float("inf"), float("-inf"))
VALUES: dict[str, tuple[Any, ...]] = {
    "k": (None, "", "a", "b", "a", "b", "a\0", "é"),
    "j": (None, 0, 1),
    "i": (None, -3, -1, 0, 1, 2, 3, 2**31 - 1, -(2**31)),
    "b": (None, -2, 0, 1, 2, 10, 2**63 - 1, -(2**63), 1_590_738_991_000, 2**53 + 1),
    "f": (None, -1.25, 0.0, -0.0, 0.5, 1.0, 2.75, 1e10, 0.10000000149011612, 3.4028234663852886e38, *NOT_FINITE),
    "d": (None, -1.25, 0.0, -0.0, 0.5, 1.0, 2.75, 0.1, 1e300, 1.7976931348623157e308, 5e-324, *NOT_FINITE),
    "s": (*TEXTS, *TEXTS, *HOSTILE),
    "p": (None, -1, 0, 1, 7, 32767, -32768),
    "q": (None, True, False),
    "e": (None, "1970-01-01", "2020-02-29", "2021-12-31", "1999-07-15", "1900-01-01", "9999-12-31"),
    "w": (None, 0, 1, 86_399_999, 1_590_738_991_000, 951_782_400_000, -28_800_500, -1, *LAST_SECONDS),
}
# Far from 1970: OpenMLDB's windows end at 0 there, so that `1s preceding` of 500 is 0.
START_MS = 1_590_738_990_000
KEYS: tuple[tuple[str, ...], ...] = (("k",), ("j",), ("k", "j"))
OPERATORS = ("+", "-", "*", "/", "div", "%", "=", "!=", "<", "<=", ">", ">=", "and", "or", "xor", "&", "|", "^")
CASTS = ("bool", "smallint", "int", "bigint", "float", "double", "string", "timestamp", "date")
LITERALS = (
    "0",
    "1",
    "2",
    "-1",
    "2.5",
    "'a'",
    "''",
    "'1'",
    "true",
    "null",
    "3000000000",
    *("2147483647", "-9223372036854775807", "9223372036854775807L", "1e308", "0.0", "1.5f", r"'a\000b'"),
    *(r"'\x41'", r"'\u00e9'", r"'\141'", r"'\a\v'", "'''a'b'''", r"r'\d'", r'"\?"'),
)
PATTERNS = ("a%", "%", "_", "a_b", "%b", "a\\\\_b", "", "é")


@dataclass
class Case:
    """A query, and what it is asked about.

    Attributes:
        seed: what it was drawn with.
        items: its SELECT items one by one.
        source: the rest of it; `t` is the main table.
        tables: the tables by name, with their rows.
        requests: the request rows.
    """

    seed: int
    items: list[str]
    source: str
    tables: dict[str, Table]
    requests: list[dict[str, Any]] = field(default_factory=list)

    def sql(self, items: list[str] | None = None) -> str:
        """The whole query, or that of some items."""
        chosen = enumerate(self.items if items is None else items)
        return f"select {', '.join(f'{item} as c{n}' for n, item in chosen)} {self.source}"


def draw(seed: int) -> Case:
    """The case of a seed."""
    rng = random.Random(seed)
    kind = rng.choice(("windows", "windows", "joins", "joins", "joined windows", "united", "left", "scalars"))
    timed: list[tuple[tuple[str, ...], str | None]] = [(key, "ts") for key in KEYS]
    large = rng.random() < 0.02  # beyond what one block of rows, or of a list of times, holds
    tables = {
        "t": Table(TYPES, timed, [_row(rng) for _ in range(rng.randint(0, 14) + 700 * large)]),
        "u": Table(TYPES, timed, [_row(rng) for _ in range(rng.randint(0, 10) + 700 * large)]),
        "v": Table(TYPES, [(key, None) for key in KEYS], [_row(rng) for _ in range(rng.randint(0, 6))]),
    }
    count = rng.randint(1, 5)
    if kind == "windows":
        names = [f"w{n}" for n in range(rng.randint(1, 3))]
        items = [_aggregate(rng, rng.choice(names)) for _ in range(count)]
        tables["v"] = Table(TYPES, timed, tables["v"].rows)
        main = rng.choice(("t", "t", "t", f"(select {', '.join(TYPES)} from t)", "(select * from t) y"))
        source = f"from {main} window " + ", ".join(f"{name} as {_window(rng)}" for name in names)
    elif kind == "joined windows":
        # Of rows of one time OpenMLDB takes any for the one that it found: all times differ
        found = tables["u"].rows[:20]
        times = rng.sample(range(24), len(found))
        rows = [{**row, "ts": START_MS + time * 500} for row, time in zip(found, times, strict=True)]
        tables["u"] = Table(TYPES, timed, rows)
        count = rng.randint(1, 2)  # what is refused here cannot be left out
        made = ", ".join(f"{_aggregate(rng, rng.choice(('w0', 'w1')))} as a{n}" for n in range(count))
        specs = f"w0 as {_window(rng, 'v')}, w1 as {_window(rng, 'v')}"
        tables["v"] = Table(TYPES, timed, tables["v"].rows)
        items = [f"x.a{n}" for n in range(count)] + ["x.s", "t.i + x.i"]
        on = " and ".join(f"t.{key} = x.{key}" for key in rng.choice(KEYS))
        order = rng.choice(("order by x.ts ", ""))
        source = f"from t last join (select *, {made} from u window {specs}) x {order}on {on}"
    elif kind == "united":
        tables["v"] = Table(TYPES, timed, tables["v"].rows)
        parts = [f"select * from {name}{rng.choice(('', '', ' where i > 0', ' where q'))}" for name in "uv"]
        items = [_expression(rng, rng.choice((0, 0, 1)), rng.choice("xxt")) for _ in range(count)]
        on = " and ".join(f"t.{key} = x.{key}" for key in rng.choice(KEYS))
        more = rng.choice(("", "", " and x.ts <= t.ts", " and x.i > 0", " and t.d < x.d"))
        source = f"from t last join ({' union all '.join(parts)}) x {rng.choice(('', 'order by x.ts '))}on {on}{more}"
    elif kind == "left":
        inner = rng.choice(("", "", " and v.i > 0", " and u.d < v.d", " and u.i = 2 * v.i"))
        where = rng.choice(("", "", " where v.i > 0", " where u.i > 0", " where isnull(v.i)"))
        key = rng.choice("kj")
        items = [f"x.{rng.choice(('us', 'ui', 'vi', 'vs', 'vd'))}" for _ in range(count)]
        columns = "u.k, u.j, u.ts, u.i as ui, u.s as us, v.i as vi, v.s as vs, v.d as vd"
        more = rng.choice(
            ("", " and x.vi > 0", " and t.d < x.vd", " and isnull(x.vi)", " and x.ui > 0", " and t.i = x.vi")
        )
        source = (
            f"from t last join (select {columns} from u left join v on u.{key} = v.{key}{inner}{where}) x "
            f"{rng.choice(('', 'order by x.ts '))}on {' and '.join(f't.{k} = x.{k}' for k in rng.choice(KEYS))}{more}"
        )
    elif kind == "joins":
        first, second = rng.choice((("u", "v"), ("v", "u"), ("u", ""), ("v", "")))
        items = [
            _expression(rng, rng.choice((0, 0, 1)), rng.choice(("t", first, second or first))) for _ in range(count)
        ]
        source = f"from t {_join(rng, first)} {_join(rng, second) if second else ''}"
    else:
        items = [_expression(rng, rng.randint(1, 3)) for _ in range(count)]
        source = "from t"
    return Case(seed, items, source, tables, [_row(rng) for _ in range(3)])


def draw_over_aggregates(seed: int) -> Case:
    """Another case of a seed: expressions whose parts are aggregates over a window, beside columns and constants."""
    rng = random.Random(f"over aggregates {seed}")
    timed: list[tuple[tuple[str, ...], str | None]] = [(key, "ts") for key in KEYS]
    tables = {
        name: Table(TYPES, timed, [_row(rng) for _ in range(rng.randint(0, most))])
        for name, most in (("t", 14), ("u", 10), ("v", 6))
    }
    items: list[str] = []
    while len(items) < 6:
        item = _expression(rng, rng.randint(1, 3), window="w0")
        if " over w0" in item:
            items.append(item)
    return Case(seed, items, f"from t window w0 as {_window(rng)}", tables, [_row(rng) for _ in range(3)])


def _row(rng: random.Random) -> dict[str, Any]:
    return {
        "id": "x",
        "ts": START_MS + rng.randint(0, 12) * 500,
        **{name: rng.choice(values) for name, values in VALUES.items()},
    }


def _column(rng: random.Random, table: str = "") -> str:
    name = rng.choice([name for name in TYPES if name != "id"])
    return f"{table}.{name}" if table else name


def _expression(rng: random.Random, depth: int, table: str = "", window: str = "") -> str:
    """An expression of columns of a table; with a window, of aggregates over it, too."""
    if depth == 0:
        if window and rng.random() < 0.35:
            return _aggregate(rng, window)
        return rng.choice(LITERALS) if rng.random() < 0.15 else _column(rng, table)
    one, two, three = (_expression(rng, depth - 1 - rng.randint(0, depth - 1), table, window) for _ in range(3))
    shapes = [
        f"({one} {rng.choice(OPERATORS)} {two})",
        f"({one} {rng.choice(OPERATORS)} {two})",
        f"cast({one} as {rng.choice(CASTS)})",
        f"{rng.choice(CASTS)}({one})",
        f"({one} {rng.choice(('', 'not '))}in ({two}, {rng.choice(LITERALS)}))",
        f"({one} between {two} and {three})",
        f"(case when {one} then {two} else {three} end)",
        f"(case {one} when {two} then {three} end)",
        f"(not {one})",
        f"({one} is {rng.choice(('', 'not '))}null)" if rng.random() < 0.2 else f"isnull({one})",
        f"(-{one})",
        f"({one} {rng.choice(('', 'not '))}{rng.choice(('like', 'ilike'))} '{rng.choice(PATTERNS)}')",
        *[_call(rng, one, two, three) for _ in range(6)],
    ]
    return rng.choice(shapes)


def _call(rng: random.Random, *arguments: str) -> str:
    if rng.random() < 0.04:
        mark = rng.choice(("','", "':'", "''", "'é'"))
        split = rng.choice((f"split({arguments[0]}, {mark})", f"split_by_key({arguments[0]}, ',', {mark})"))
        return f"`join`({split}, '-')" if rng.random() < 0.7 else f"size({split})"
    names = sorted({*SCALARS, *FUNCTIONS, *ALIASES, *VARIADIC} - {"identity", "unix_timestamp"})
    return f"{rng.choice(names)}({', '.join(arguments[: rng.choice((1, 1, 2, 2, 3))])})"


def _aggregate(rng: random.Random, window: str) -> str:
    name = rng.choice(sorted(AGGREGATES))
    value = _expression(rng, 1) if rng.random() < 0.15 else _column(rng)
    if rng.random() < 0.08:
        inner = _aggregate(rng, window).removesuffix(f" over {window}")
        value = rng.choice((inner, f"({_column(rng)} + {inner})", f"({inner} - {value})"))
    if rng.random() < 0.04:
        call = rng.choice(("count", "distinct_count", "top1_ratio", "max", "min", "entropy", "last_value", "size"))
        return f"{call}(window_split({_column(rng)}, ',')) over {window}"
    condition = rng.choice(("i > 1", "q", "s = 'a'", "d > 0", "b != 2", _expression(rng, 1)))
    arguments = [value]
    if "_where" in name:
        arguments.append(condition)
    if "_cate" in name:
        arguments.append(_column(rng))
    if name.startswith("top_n_") or name in ("topn_frequency", "at", "lag"):
        arguments.append(str(rng.randint(0, 4)))
    return f"{name}({', '.join(arguments)}) over {window}"


def _window(rng: random.Random, other: str = "u") -> str:
    filtered = f"union (select * from {other} where {rng.choice(('i > 0', 'q', 'd < 1.5', _expression(rng, 1)))}) "
    listed = f"union (select {', '.join(TYPES)} from {other}) "
    more = "uv".replace(other, "")
    several = rng.choice(
        (f"union {other}, {more} ", f"{filtered.rstrip()}, {more} ", f"{listed.rstrip()}, (select * from {more}) ")
    )
    union = rng.choice(("", "", f"union {other} ", f"union (select * from {other}) ", listed, filtered, several))
    key = ", ".join(rng.choice(KEYS))
    excludes = rng.choice(("", "", " exclude current_row", " exclude current_time"))
    if union and rng.random() < 0.4:
        excludes += " instance_not_in_window"
    if rng.random() < 0.5:
        end = rng.choice((0, 0, 1, 2))
        frame = f"rows between {rng.randint(end, 6)} preceding and {f'{end} preceding' if end else 'current row'}"
    else:
        start, end = sorted((rng.randint(0, 6), rng.choice((0, 0, 1, 3))), reverse=True)
        low = rng.choice((f"{start}s preceding", f"{start}s open preceding", "unbounded preceding"))
        frame = f"rows_range between {low} and {f'{end}s preceding' if end else 'current row'}"
        frame += rng.choice(("", "", " maxsize 2", " maxsize 1"))
    return f"({union}partition by {key} order by ts {frame}{excludes})"


def _join(rng: random.Random, table: str) -> str:
    keys = rng.choice(KEYS)
    order = f"order by {table}.ts " if table == "u" else ""
    on = " and ".join(f"t.{key} = {table}.{key}" for key in keys)
    more = rng.choice(("", "", f" and {table}.ts <= t.ts", f" and {table}.i > 0", f" and t.d < {table}.d"))
    return f"last join {table} {order}on {on}{more}"
