"""Where names are looked up while a SELECT is planned, and how its expressions are taken apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from streaming.engine import syntax as s
from streaming.engine.nodes import Base, Column, Group, Node

__all__ = ["Frame", "Output", "Scope", "children", "columns_of", "conjuncts", "identity", "matches", "walk"]


@dataclass(frozen=True)
class Output:
    """A named column of a (sub-)query. `table`: the name by which `table.column` finds it."""

    name: str
    table: str | None
    node: Node


@dataclass
class Scope:
    """Where names are looked up."""

    columns: list[Output]
    windows: dict[str, s.Window]
    groups: dict[object, Group]


@dataclass(frozen=True)
class Frame:
    group: Group
    number: int
    window: s.Window
    scope: Scope


def columns_of(base: Base, table: str) -> list[Output]:
    return [Output(c.name, table, Column(c.type, base, i)) for i, c in enumerate(base.table.columns)]


def matches(output: Output, name: s.Name) -> bool:
    if output.name != name.parts[-1]:
        return False
    return len(name.parts) == 1 or output.table == name.parts[-2]


def conjuncts(expr: s.Expr) -> list[s.Expr]:
    if isinstance(expr, s.Binary) and expr.operator == "and":
        return conjuncts(expr.left) + conjuncts(expr.right)
    return [expr]


def children(expr: s.Expr) -> Sequence[s.Expr]:
    found: list[s.Expr] = []
    for field in dataclasses.fields(expr):
        value = getattr(expr, field.name)
        for item in value if isinstance(value, tuple) else (value,):
            for part in item if isinstance(item, tuple) else (item,):
                if isinstance(part, (s.Literal, s.Name, s.Unary, s.Binary, s.Call, s.Cast, s.Case, s.IsNull, s.In,
                                     s.Between, s.Like, s.Over, s.Star)):  # fmt: skip
                    found.append(part)
    return found


def identity(node: object) -> object:
    """A syntax node without its places, so that the same window written twice is one."""
    if isinstance(node, tuple):
        return tuple(identity(part) for part in node)
    if dataclasses.is_dataclass(node):
        values = [(field.name, getattr(node, field.name)) for field in dataclasses.fields(node)]
        return (type(node), tuple(identity(value) for name, value in values if name not in ("at", "text")))
    return node


def walk(node: Node) -> list[Node]:
    found = [node]
    for child in getattr(node, "arguments", ()):
        found += walk(child)
    return found
