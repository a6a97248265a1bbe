"""Where names are looked up while a SELECT is planned, and how its expressions are taken apart."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from streaming.engine.errors import UnsupportedSQL, error_at
from streaming.engine.kernels.instructions import Op
from streaming.engine.plan.nodes import Aggregate, Apply, ColumnNode, Node, PythonAggregate, QueryTable, WindowGroup
from streaming.engine.sql import syntax
from streaming.engine.storage.strings import StringPool
from streaming.engine.storage.table import Table

__all__ = [
    "Output",
    "Planning",
    "Scope",
    "WindowFrame",
    "aggregates",
    "children",
    "columns_of",
    "conditions",
    "conjuncts",
    "named",
    "walk",
    "without_places",
]


@dataclass
class Planning:
    """What all parts of the planning of one query share.

    Attributes:
        script: the text that the query is in.
        database: the one in use, in which a table's name alone is looked up; aliases belong to it, too.
        find: a table by its name or (database, name).
        pool: where the constants' texts are interned.
        main: the table of the requests, once it was met.
        online: constructs that a request passes by, but that mean something offline: (what, offset).
        counted_lists: aggregates of lists over windows without the request's row, and their offsets.
        portable: whether to refuse what OpenMLDB's compiler does not take.
    """

    script: str
    database: str
    find: Callable[[tuple[str, ...]], Table | None]
    pool: StringPool
    main: QueryTable | None = None
    online: list[tuple[str, int]] = field(default_factory=list)
    counted_lists: dict[Node, int] = field(default_factory=dict)
    portable: bool = False

    def refuse(self, what: str, at: int) -> UnsupportedSQL:
        """The error for a construct that is known and not supported."""
        return error_at(self.script, at, f"unsupported: {what}")

    def wrong(self, what: str, at: int) -> UnsupportedSQL:
        """The error for what cannot mean anything."""
        return error_at(self.script, at, what)

    def table(self, name: tuple[str, ...], at: int) -> Table:
        """The table of a name."""
        found = self.find(name)
        if found is None:
            raise self.wrong(f"unknown table {'.'.join(name)}", at)
        return found

    def lookup(self, name: syntax.Name, scope: Scope) -> Node | None:
        """The column of a name; None where there is none."""
        found = {output.node for output in scope.columns if self.matches(output, name)}
        if len(found) > 1:
            raise self.wrong(f"ambiguous column {'.'.join(name.parts)}", name.at)
        return found.pop() if found else None

    def name(self, name: syntax.Name, scope: Scope) -> Node:
        """The column of a name."""
        node = self.lookup(name, scope)
        if node is None:
            raise self.wrong(f"unknown column {'.'.join(name.parts)}", name.at)
        return node

    def matches(self, output: Output, name: syntax.Name) -> bool:
        """Whether a name means this column. Outside of any database a table's name alone is enough."""
        *table, column = name.parts
        if not table:
            return output.name == column
        database = table[0] if len(table) > 1 else self.database
        if not database:
            return any(path[1:] == (table[-1], column) for path in output.paths)
        return (database, table[-1], column) in output.paths


@dataclass(frozen=True)
class Output:
    """A named column of a (sub-)query.

    Attributes:
        name: its name.
        node: what it is.
        paths: the (database, table, column) by which it is found, too: as OpenMLDB has it, those of every table and
            sub-query that the column has come through unchanged, under the name that it had there.
        made_by: the expression that it was computed by; None: it is a table's column.
    """

    name: str
    node: Node
    paths: frozenset[tuple[str, str, str]] = frozenset()
    made_by: syntax.Expr | None = field(default=None, compare=False)


@dataclass
class Scope:
    """Where names are looked up.

    Attributes:
        columns: the columns that names may mean.
        windows: those of the WINDOW clause, by name.
        groups: the windows over the same rows that were met so far, by what makes them the same.
        filtered: whether a WHERE stands between the request and what is selected here.
        base: the joined table whose rows are selected here; None: the request.
    """

    columns: list[Output]
    windows: dict[str, syntax.Window] = field(default_factory=dict)
    groups: dict[object, WindowGroup] = field(default_factory=dict)
    filtered: bool = False
    base: QueryTable | None = None


@dataclass(frozen=True)
class WindowFrame:
    """The frame that an OVER means.

    Attributes:
        group: the windows over its rows.
        number: which of their frames it is.
        window, scope: the window that it was found in, and where that stands.
    """

    group: WindowGroup
    number: int
    window: syntax.Window
    scope: Scope


def columns_of(base: QueryTable, source: syntax.TableRef, database: str) -> list[Output]:
    """The columns of a table, under its own name and under its alias in `database`."""
    own = (base.table.database, source.name[-1])
    tables = {own, own if source.alias is None else (database, source.alias)}
    return [
        Output(c.name, ColumnNode(c.type, base, i), frozenset((*table, c.name) for table in tables))
        for i, c in enumerate(base.table.columns)
    ]


def named(columns: Sequence[Output], alias: str | None, database: str) -> list[Output]:
    """The columns of a sub-query, under its alias in `database`, too."""
    if alias is None:
        return list(columns)
    return [dataclasses.replace(column, paths=column.paths | {(database, alias, column.name)}) for column in columns]


def conjuncts(expr: syntax.Expr) -> list[syntax.Expr]:
    """The conditions that AND joins."""
    if isinstance(expr, syntax.Binary) and expr.operator == "and":
        return conjuncts(expr.left) + conjuncts(expr.right)
    return [expr]


def children(expr: syntax.Expr) -> Sequence[syntax.Expr]:
    """The expressions that an expression is made of."""
    found: list[syntax.Expr] = []
    for field_ in dataclasses.fields(expr):
        value = getattr(expr, field_.name)
        for item in value if isinstance(value, tuple) else (value,):
            for part in item if isinstance(item, tuple) else (item,):
                if isinstance(
                    part,
                    (
                        syntax.Literal,
                        syntax.Name,
                        syntax.Unary,
                        syntax.Binary,
                        syntax.Call,
                        syntax.Cast,
                        syntax.Case,
                        syntax.IsNull,
                        syntax.In,
                        syntax.Between,
                        syntax.Like,
                        syntax.Over,
                        syntax.Star,
                    ),
                ):
                    found.append(part)
    return found


def without_places(node: object) -> object:
    """A syntax node without its places, so that the same window written twice is one."""
    if isinstance(node, tuple):
        return tuple(without_places(part) for part in node)
    if dataclasses.is_dataclass(node):
        values = [(part.name, getattr(node, part.name)) for part in dataclasses.fields(node)]
        return (type(node), tuple(without_places(value) for name, value in values if name not in ("at", "text")))
    return node


def walk(node: Node) -> list[Node]:
    """A node and all arguments below it."""
    found = [node]
    for child in getattr(node, "arguments", ()):
        found += walk(child)
    return found


def conditions(node: Node) -> list[Node]:
    """The conditions that AND joins, after names were resolved."""
    if isinstance(node, Apply) and node.op == Op.AND:
        return [part for argument in node.arguments for part in conditions(argument)]
    return [node]


def aggregates(node: Node) -> list[Aggregate | PythonAggregate]:
    """The aggregates in an expression, without those that they are made of."""
    return [part for part in walk(node) if isinstance(part, (Aggregate, PythonAggregate))]
