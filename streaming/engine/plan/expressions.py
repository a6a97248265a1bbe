"""Expressions: names resolved, types checked, operators and functions turned into nodes."""

from __future__ import annotations

import dataclasses

from streaming.engine.plan import casts, functions
from streaming.engine.plan.aggregates import AGGREGATES, canonical
from streaming.engine.plan.nodes import (
    Aggregate,
    Apply,
    Const,
    Node,
    OwnRowPlace,
    PythonAggregate,
    PythonCall,
    WindowColumn,
    WindowGroup,
)
from streaming.engine.plan.portable import CompiledCases
from streaming.engine.plan.scope import Planning, Scope, WindowFrame, aggregates, children, walk, without_places
from streaming.engine.plan.signatures import FORMATS, MARKS, training_line
from streaming.engine.plan.text_lists import COUNTED, FOLDS, SPLITS, list_function_of_row, list_function_of_window
from streaming.engine.plan.windows import WindowPlanner
from streaming.engine.sql import syntax
from streaming.engine.storage.strings import StringPool
from streaming.engine.types import Type, to_word

__all__ = ["Binder", "literal"]


def literal(literal: syntax.Literal, pool: StringPool) -> Const:
    if literal.value is None:
        return Const(Type.NULL, 0, True)
    if isinstance(literal.value, str):
        return Const(Type.STRING, pool.code(literal.value))
    return Const(literal.type, to_word(literal.type, literal.value))


class Binder:
    """Binds the expressions of one query.

    Args:
        planning: what the planning of the query shares.
        windows: what finds the windows that OVER names.
    """

    def __init__(self, planning: Planning, windows: WindowPlanner) -> None:
        self.planning = planning
        self.windows = windows
        self.cases = CompiledCases()

    def item(self, expr: syntax.Expr, scope: Scope) -> Node:
        """An item of a SELECT."""
        over = self.over(expr, scope)
        if over is not None and isinstance(expr, syntax.Over) and isinstance(call := expr.operand, syntax.Call):
            name = canonical(call.function)
            if name in ("at", "lag"):
                try:
                    return self.place(name, call, scope, over)
                except casts.Mismatch as error:
                    raise self.planning.refuse(f"{call.function}() of {error}", call.at) from None
        return self.bind(expr, scope, over)

    def over(self, expr: syntax.Expr, scope: Scope) -> WindowFrame | None:
        """The window of the aggregates in a select item: OpenMLDB has one for all of them, named by any OVER in it."""
        found = _overs(expr)
        if len({without_places(over.window) for over in found}) > 1:
            raise self.planning.refuse("several windows in one expression", found[-1].at)
        return self.windows.frame(found[0].window, scope, found[0].at) if found else None

    def condition(self, expr: syntax.Expr, scope: Scope) -> Node:
        node = self.bind(expr, scope)
        try:
            return functions.condition(node)
        except casts.Mismatch as error:
            raise self.planning.refuse(str(error), expr.at) from None

    def bind(self, expr: syntax.Expr, scope: Scope, over: WindowFrame | None = None) -> Node:
        """The typed expression; `over`: the window of the aggregates in it."""
        try:
            return self._bind(expr, scope, over)
        except casts.Mismatch as error:
            what = f"{expr.function}() of " if isinstance(expr, syntax.Call) else ""
            raise self.planning.refuse(f"{what}{error}", expr.at) from None

    def _bind(self, expr: syntax.Expr, scope: Scope, over: WindowFrame | None) -> Node:
        if isinstance(expr, syntax.Literal):
            try:
                return literal(expr, self.planning.pool)
            except OverflowError:
                raise self.planning.refuse(f"the number {expr.value}", expr.at) from None
        if isinstance(expr, syntax.Name):
            return self.planning.name(expr, scope)
        if isinstance(expr, syntax.Over):
            if over is None:
                raise self.planning.refuse("OVER outside the items of a SELECT", expr.at)
            if isinstance(expr.operand, syntax.Cast):
                raise self.planning.refuse("OVER behind a cast", expr.at)
            return self.bind(expr.operand, scope, over)
        if isinstance(expr, syntax.Call):
            name = canonical(expr.function)
            if name in FOLDS and expr.arguments and isinstance(inner := expr.arguments[0], syntax.Call):
                split = canonical(inner.function)
                if split in SPLITS or split.removeprefix("window_") in SPLITS:
                    call = syntax.Call(expr.function, (*inner.arguments, *expr.arguments[1:]), expr.at)
                    return self.fold(name, split, call, scope, over)
            if name in AGGREGATES:
                return self.aggregate(name, expr, scope, over)
            if name in FORMATS:
                return self.line(name, expr, scope, over)
            arguments = [self.bind(a, scope, over) for a in expr.arguments[:1]]
            mark = self.cases.mark()
            arguments += [self.bind(a, scope, over) for a in expr.arguments[1:]]
            found = functions.scalar(name, arguments)
            if found is None:
                raise self.planning.refuse(f"function {expr.function}", expr.at)
            if (branches := functions.branches_of(name, arguments)) is not None:
                self.cases.case(arguments[:1], branches, mark, expr.at)
            return found
        if isinstance(expr, syntax.Cast):
            return casts.cast(self.bind(expr.operand, scope, over), expr.type)
        if isinstance(expr, syntax.Unary):
            operand = self.bind(expr.operand, scope, over)
            if expr.operator == "not":
                return functions.invert(functions.truth(operand))
            if expr.operator == "-":
                return functions.negate(operand)
            return functions.complement(operand)
        if isinstance(expr, syntax.Binary):
            left, right = self.bind(expr.left, scope, over), self.bind(expr.right, scope, over)
            if expr.operator in ("and", "or", "xor"):
                return functions.logic(expr.operator, functions.truth(left), functions.truth(right))
            if expr.operator in ("=", "!=", "<", "<=", ">", ">="):
                return functions.compare(expr.operator, left, right)
            return functions.arithmetic(expr.operator, left, right)
        if isinstance(expr, syntax.IsNull):
            node = functions.is_null(self.bind(expr.operand, scope, over))
            return functions.invert(node) if expr.negated else node
        if isinstance(expr, syntax.Between):
            operand = self.bind(expr.operand, scope, over)
            low, high = self.bind(expr.low, scope, over), self.bind(expr.high, scope, over)
            node = functions.logic("and", functions.compare(">=", operand, low), functions.compare("<=", operand, high))
            return functions.invert(node) if expr.negated else node
        if isinstance(expr, syntax.In):
            operand = self.bind(expr.operand, scope, over)
            tests = [functions.compare("=", operand, self.bind(choice, scope, over)) for choice in expr.choices]
            while len(tests) > 1:  # in pairs: a long list must not make a deep tree
                pairs = [functions.logic("or", *tests[i : i + 2]) for i in range(0, len(tests) - 1, 2)]
                tests = pairs + tests[2 * len(pairs) :]
            return functions.invert(tests[0]) if expr.negated else tests[0]
        if isinstance(expr, syntax.Like):
            arguments = [self.bind(expr.operand, scope, over), self.bind(expr.pattern, scope, over)]
            if expr.escape is not None:
                arguments.append(self.bind(expr.escape, scope, over))
            found = functions.scalar("regexp_like" if expr.kind == "rlike" else f"{expr.kind}_match", arguments)
            if found is None:
                raise self.planning.refuse(expr.kind.upper(), expr.at)
            return functions.invert(found) if expr.negated else found
        if isinstance(expr, syntax.Case):
            return self.case(expr, scope, over)
        raise self.planning.refuse("`*` here", expr.at)

    def line(self, name: str, expr: syntax.Call, scope: Scope, over: WindowFrame | None) -> Node:
        """A row as a line of training data."""
        marked: list[tuple[str, list[Node]]] = []
        for argument in expr.arguments:
            if not isinstance(argument, syntax.Call) or argument.function not in MARKS:
                raise self.planning.refuse(f"{name}() of what is not {', '.join(MARKS)}", argument.at)
            marked.append((argument.function, [self.bind(one, scope, over) for one in argument.arguments]))
        return training_line(name, marked)

    def case(self, expr: syntax.Case, scope: Scope, over: WindowFrame | None) -> Node:
        operand = None if expr.operand is None else self.bind(expr.operand, scope, over)
        tests: list[Node] = []
        for when, _ in expr.whens:
            test = self.bind(when, scope, over)
            tests.append(functions.condition(test) if operand is None else functions.compare("=", operand, test))
        mark = self.cases.mark()
        branches = [self.bind(then, scope, over) for _, then in expr.whens]
        null = Const(Type.NULL, 0, True)
        branches.append(null if expr.otherwise is None else self.bind(expr.otherwise, scope, over))
        self.cases.case(tests, branches, mark, expr.at)
        branches = functions.same_type(branches)
        node = branches[-1]
        for test, branch in zip(reversed(tests), reversed(branches[:-1]), strict=True):
            node = functions.choose(test, branch, node)
        return node

    def fold(self, name: str, split: str, expr: syntax.Call, scope: Scope, over: WindowFrame | None) -> Node:
        """What `name` makes of a list; `expr` has the arguments of the split, then those of `name` behind the list."""
        if split in SPLITS:
            return list_function_of_row(name, split, [self.bind(argument, scope, over) for argument in expr.arguments])
        frame, arguments = self.elements(name, expr, scope, over)
        end = frame.group.frames[frame.number][2]
        node = list_function_of_window(name, split.removeprefix("window_"), frame.group, frame.number, arguments)
        if name in COUNTED and (end or frame.group.own_row in (OwnRowPlace.OUT, OwnRowPlace.STORED_OUT)):
            self.planning.counted_lists[node] = expr.at
        return node

    def aggregate(self, name: str, expr: syntax.Call, scope: Scope, over: WindowFrame | None) -> Node:
        frame, arguments = self.elements(name, expr, scope, over)
        if name in ("at", "lag", "first_value", "last_value") and not isinstance(expr.arguments[0], syntax.Name):
            raise casts.Mismatch("something that is not a column")
        return AGGREGATES[name](frame.group, frame.number, arguments)

    def elements(
        self, name: str, expr: syntax.Call, scope: Scope, over: WindowFrame | None
    ) -> tuple[WindowFrame, list[Node]]:
        """The window of an aggregate, and its arguments, bound to the window's rows."""
        if over is None:
            raise self.planning.refuse(f"aggregate {expr.function}() without a window", expr.at)
        inner = Scope(
            [
                dataclasses.replace(column, node=WindowColumn(column.node.type, over.group, i))
                for i, column in enumerate(scope.columns)
            ]
        )
        arguments: list[Node] = []
        for i, argument in enumerate(expr.arguments):
            if isinstance(argument, syntax.Star):
                if i > 0 or name not in ("count", "count_where") or argument.table is not None:
                    raise self.planning.refuse(f"`*` in {expr.function}()", argument.at)
                arguments.append(Const(Type.INT, 1))
            else:
                with self.cases.arguments_of_aggregate():
                    node = self.bind(argument, inner, over)
                if any(isinstance(n, WindowColumn) and aggregates(n.group.own[n.position]) for n in walk(node)):
                    raise self.planning.refuse("an aggregate of a window of a joined sub-query", argument.at)
                arguments.append(node)
        if not isinstance(expr.arguments[0] if expr.arguments else None, syntax.Star) and not any(
            isinstance(n, (WindowColumn, Aggregate, PythonAggregate)) for argument in arguments for n in walk(argument)
        ):
            raise casts.Mismatch("no column")
        return over, arguments

    def place(self, name: str, expr: syntax.Call, scope: Scope, over: WindowFrame) -> Node:
        """at() or lag() as a whole item: the n-th row back from the request's, whatever the frame and its exclusion.

        As a part of an expression they are aggregates like others to OpenMLDB: the n-th row of the frame.
        """
        node = self.aggregate(name, expr, scope, over)
        if not isinstance(node, Aggregate):
            raise TypeError(node)
        group = self.windows.group(over.window, over.scope, OwnRowPlace.IN, over.window.exclude_current_time)
        node = dataclasses.replace(node, group=group, value=_in_group(node.value, group))
        return dataclasses.replace(node, frame=group.frame((True, node.number, 0, 0)))


def _in_group(node: Node, group: WindowGroup) -> Node:
    """`node` with the columns of the window's rows taken from `group`, whose columns are the same."""
    if isinstance(node, WindowColumn):
        return dataclasses.replace(node, group=group)
    if isinstance(node, (Apply, PythonCall)):
        return dataclasses.replace(node, arguments=tuple(_in_group(a, group) for a in node.arguments))
    return node


def _overs(expr: syntax.Expr) -> list[syntax.Over]:
    """Every OVER in an expression."""
    found = [expr] if isinstance(expr, syntax.Over) else []
    for child in children(expr):
        found += _overs(child)
    return found
