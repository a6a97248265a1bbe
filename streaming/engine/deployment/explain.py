"""What a query does, in words: its tables, joins, windows, what the windows share, and the indexes it needs."""

from __future__ import annotations

from collections.abc import Sequence

from streaming.engine.deployment.meanings import duration, key_names
from streaming.engine.deployment.query_parts import aggregates_of, joins_of
from streaming.engine.deployment.ttl import Ttl
from streaming.engine.kernels.instructions import FrequencyKind
from streaming.engine.plan.nodes import Aggregate, Node, OwnRowPlace, WindowGroup
from streaming.engine.plan.select import Query
from streaming.engine.program.program import Program

__all__ = ["explain"]


def explain(query: Query, program: Program, ttls: Sequence[Ttl]) -> str:
    """The plan of `query` and its `program`, several lines.

    Args:
        ttls: how long the rows of each of its indexes would live, where they are not there yet.
    """
    lines = [f"main table: {query.main.table.full_name if query.main else 'none'}"]
    for group in program.groups:
        lines += _window(group, query)
    for joined in dict.fromkeys(j for output in query.outputs for j in joins_of(output.node)):
        on = ", ".join(joined.base.table.columns[column].name for column, _ in joined.key)
        order = "the last inserted" if joined.ts < 0 else f"the latest {joined.base.table.columns[joined.ts].name}"
        more = ", the first for which the condition holds" if joined.condition is not None else ""
        lines.append(f"last join: {joined.base.table.full_name} by {on}, {order}{more}")
    for rows, ttl in zip(program.indexes, ttls, strict=True):
        key = ", ".join(rows.table.columns[c].name for c in rows.key)
        ts = f", ts {rows.table.columns[rows.ts].name}" if rows.ts >= 0 else ""
        existing = rows.table.indexes.get((rows.key, rows.ts))
        made = "is there" if existing is not None else "made by DEPLOY"
        lives = _lives(ttl if existing is None else existing.ttl)
        lines.append(f"index: {rows.table.full_name} (key {key}{ts}), {made}, rows live {lives}")
    lines.append(f"instructions: {len(program.code)}, of which in Python: {len(program.python_steps)}")
    return "\n".join(lines)


def _window(group: WindowGroup, query: Query) -> list[str]:
    names = key_names(group)
    tables = [x.base.table.full_name + (" (some rows)" if x.where is not None else "") for x in group.sources]
    flags = "" if group.of is None else f", for the joined row of {group.of.table.full_name}"
    flags += ", without the row itself" if group.own_row in (OwnRowPlace.OUT, OwnRowPlace.STORED_OUT) else ""
    flags += ", other rows of its time out" if group.exclude_time else ""
    lines = [f"window: one walk over {', '.join(tables) or 'no table'} by {', '.join(names)}{flags}"]
    for number, (rows, start, end, maxsize) in enumerate(group.frames):
        used = [o.name for o in query.outputs if (group, number) in {(a.group, a.frame) for a in aggregates_of(o.node)}]
        shown = str if rows else duration
        frame = f"{'rows' if rows else 'range'} {'unbounded' if start < 0 else shown(start)} … {shown(end)}"
        lines.append(f"  {frame}{f' maxsize {maxsize}' if maxsize else ''}: {', '.join(used) or '(shared)'}")
        counted: dict[tuple[Node, Node | None], list[str]] = {}
        for output in query.outputs:
            for a in aggregates_of(output.node):
                if (
                    isinstance(a, Aggregate)
                    and isinstance(a.kind, FrequencyKind)
                    and (a.group, a.frame) == (group, number)
                ):
                    together = counted.setdefault((a.value, a.condition), [])
                    if output.name not in together:
                        together.append(output.name)
        lines += [f"    one count for {' and '.join(names)}" for names in counted.values() if len(names) > 1]
    return lines


def _lives(ttl: Ttl) -> str:
    ms, rows, both = ttl
    span, most = f"{duration(ms)} by the wall clock", f"as the newest {rows} of their key"
    if ms and rows:
        return f"{span} {'or' if both else 'and'} {most}"
    return span if ms else most if rows else "for ever"
