"""What a column of an answer means, in a line: its expression, and the rows that it is computed of."""

from __future__ import annotations

from streaming.engine.deployment.query_parts import aggregates_of, joins_of
from streaming.engine.plan.nodes import ColumnNode, Joined, WindowGroup
from streaming.engine.plan.select import Output, Query
from streaming.engine.sql.expression_text import expression_text

__all__ = ["duration", "key_names", "meaning_of"]

_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms"))


def meaning_of(output: Output, query: Query) -> str:
    """As `distinct_count(merchant) of payments by card, last 32d, newest 100`.

    Args:
        output: a column of `query`.
    """
    node = output.node
    if isinstance(node, ColumnNode):
        what = node.base.table.columns[node.position].name
        if node.base is query.main:
            return f"{what} of the request"
    else:
        what = output.name if output.made_by is None else expression_text(output.made_by)
    windows = dict.fromkeys((part.group, part.frame) for part in aggregates_of(node))
    joins = dict.fromkeys(joined for joined in joins_of(node))
    rows = [_window_rows(group, frame) for group, frame in windows] + [_joined_row(joined) for joined in joins]
    return f"{what} of {'; '.join(rows)}" if rows else what


def _window_rows(group: WindowGroup, number: int) -> str:
    names = dict.fromkeys(source.base.table.name for source in group.sources)
    return f"{' and '.join(names)} by {', '.join(key_names(group))}, {_frame(*group.frames[number])}"


def _joined_row(joined: Joined) -> str:
    table = joined.base.table
    return f"{table.name} by {', '.join(table.columns[column].name for column, _ in joined.key)}"


def _frame(rows: bool, start: int, end: int, maxsize: int) -> str:
    if rows:
        span = "all rows" if start < 0 else f"last {start - end + 1} rows"
        behind = f" before the last {end}" if end else ""
    else:
        span = "all times" if start < 0 else f"last {duration(start)}"
        behind = f" up to {duration(end)} ago" if end else ""
    return f"{span}{behind}{f', newest {maxsize}' if maxsize else ''}"


def key_names(group: WindowGroup) -> list[str]:
    """The columns that a window is partitioned by."""
    nodes = group.sources[0].columns if group.sources else group.own
    return [
        node.base.table.columns[node.position].name
        for node in (nodes[place] for place in group.key)
        if isinstance(node, ColumnNode)
    ]


def duration(ms: int) -> str:
    """In the largest unit that makes it a whole number."""
    for size, unit in _UNITS:
        if ms % size == 0 and (ms or unit == "s"):
            return f"{ms // size}{unit}"
    return f"{ms}ms"
