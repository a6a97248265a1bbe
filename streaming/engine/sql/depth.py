"""How deep a script may be nested, so that no text makes the planner's recursion run out of stack.

`nested` bounds what the parser's rules do by calling themselves: parentheses, CASE, sub-queries, signs. `TreeMeasure`
bounds the tree that comes of it: `a + b + c` is read in a loop, and is a tree as deep as it has terms; and what is
written once and computed more than once (a query of WITH, x in `x between … and …`) must not grow with every level.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from streaming.engine.errors import error_at
from streaming.engine.sql import syntax

__all__ = ["DEPTH_MAX", "NESTING_MAX", "PARTS_MAX", "TreeMeasure", "nested"]

NESTING_MAX = 200
"""Parentheses, CASEs, sub-queries and signs in one another."""

DEPTH_MAX = 1_000
"""Levels of an expression: the terms of a sum, the branches of a CASE, the arguments of a function."""

PARTS_MAX = 100_000
"""Parts of a query, each counted as often as it is computed."""

# A level of nesting takes the parser 16 calls, a level of the tree takes planning and emitting up to 5; Python's own
# limit of 1,000 calls is below both. 8 MiB of stack, which a thread has on Linux, hold several times of this.
_CALLS_MAX = 8_000
sys.setrecursionlimit(max(sys.getrecursionlimit(), _CALLS_MAX))

Rule = TypeVar("Rule", bound=Callable[..., Any])


def nested(rule: Rule) -> Rule:
    """A rule of the grammar that comes back to itself: it does so NESTING_MAX times at most."""

    @functools.wraps(rule)
    def bounded(self: Any, *arguments: Any, **named: Any) -> Any:
        if self.nesting == NESTING_MAX:
            raise self.refuse(f"nesting deeper than {NESTING_MAX} levels", self.token.at)
        self.nesting += 1
        try:
            return rule(self, *arguments, **named)
        finally:
            self.nesting -= 1

    return bounded  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class _Size:
    node: object  # kept: its id must stay its own
    height: int
    parts: int


class TreeMeasure:
    """How deep and how large the trees of one script are.

    Args:
        script: for the place in the message.
    """

    def __init__(self, script: str) -> None:
        self._script = script
        self._sizes: dict[int, _Size] = {}

    def check(self, tree: object) -> None:
        """Refuses a statement or an expression that is deeper than DEPTH_MAX or larger than PARTS_MAX.

        Raises:
            UnsupportedSQL: names the place where it becomes so.
        """
        waiting = [tree]
        while waiting:
            node = waiting[-1]
            if id(node) in self._sizes:
                waiting.pop()
                continue
            parts = _parts(node)
            missing = [part for part in parts if id(part) not in self._sizes]
            if missing:
                waiting += missing
                continue
            waiting.pop()
            self._sizes[id(node)] = self._size(node, parts)

    def _size(self, node: object, parts: list[object]) -> _Size:
        sizes = [self._sizes[id(part)] for part in parts]
        steps, operand, times = _planned(node)
        height = 1 + steps + max((size.height for size in sizes), default=0)
        count = 1 + sum(size.parts for size in sizes)
        if times > 1 and (again := self._sizes.get(id(operand))) is not None:
            count += (times - 1) * again.parts
        for what, found, most in (("deeper", height, DEPTH_MAX), ("larger", count, PARTS_MAX)):
            if found > most:
                unit = "levels" if what == "deeper" else "parts"
                raise error_at(
                    self._script, getattr(node, "at", 0), f"unsupported: an expression {what} than {most} {unit}"
                )
        return _Size(node, height, count)


def _parts(node: object) -> list[object]:
    """The nodes that a node is made of, but for those that have no parts."""
    found: list[object] = []
    kind: Any = type(node)
    values = [getattr(node, name) for name in _fields(kind)]
    while values:
        value = values.pop()
        if isinstance(value, tuple):
            values += value
        elif not isinstance(value, (syntax.Literal, syntax.Name)) and dataclasses.is_dataclass(value):
            found.append(value)
    return found


@functools.cache
def _fields(kind: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))


def _planned(node: object) -> tuple[int, object, int]:
    """What planning makes of a node: levels more than one, an operand and how often it is computed."""
    if isinstance(node, syntax.Case):
        return len(node.whens), node.operand, len(node.whens)
    if isinstance(node, syntax.Between):
        return 1, node.operand, 2
    if isinstance(node, syntax.In):
        return len(node.choices).bit_length(), node.operand, len(node.choices)
    return (len(node.arguments) if isinstance(node, syntax.Call) else 0), None, 1
