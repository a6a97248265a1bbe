"""What an expression of a query is made of, down to the aggregates' own arguments and the request's values in windows.

(`plan.scope.walk` stops at aggregates: a planner asks what stands beside them.)
"""

from __future__ import annotations

from collections.abc import Iterator

from streaming.engine.plan.nodes import (
    Aggregate,
    ColumnNode,
    Joined,
    Missing,
    Node,
    PythonAggregate,
    QueryTable,
    WindowColumn,
)

__all__ = ["aggregates_of", "joins_of", "parts_of"]


def parts_of(node: Node) -> Iterator[Node]:
    """A node and all that it is made of, the request's own values in windows too."""
    yield node
    for child in getattr(node, "arguments", ()):
        yield from parts_of(child)
    if isinstance(node, Aggregate):
        yield from parts_of(node.value)
        if node.condition is not None:
            yield from parts_of(node.condition)
    if isinstance(node, WindowColumn):
        yield from parts_of(node.group.own[node.position])


def aggregates_of(node: Node) -> Iterator[Aggregate | PythonAggregate]:
    """The aggregates in it, and those that they are made of."""
    return (n for n in parts_of(node) if isinstance(n, (Aggregate, PythonAggregate)))


def joins_of(node: Node) -> Iterator[Joined]:
    """The joins that it reads from, those that find the keys of others first."""
    for n in parts_of(node):
        base: QueryTable | None = n.base if isinstance(n, (ColumnNode, Missing)) else None
        if base is not None and base.joined is not None:
            for _, value in base.joined.key:
                yield from joins_of(value)
            yield base.joined
