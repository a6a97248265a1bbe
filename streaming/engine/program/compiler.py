"""Typed expressions → a program: instructions for the interpreter (see `kernels.instructions`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streaming.engine.kernels.instructions import CONSTANTS, REQUESTS, FrequencyKind, Op, domain_of
from streaming.engine.kernels.operands import (
    Collect,
    FilteredSource,
    Frame,
    Frequency,
    FrequencyResult,
    Join,
    KeyPart,
    OwnRow,
)
from streaming.engine.plan.nodes import (
    Aggregate,
    Apply,
    ColumnNode,
    Const,
    Joined,
    Missing,
    Node,
    OwnRowPlace,
    PythonAggregate,
    PythonCall,
    QueryTable,
    Source,
    WindowColumn,
    WindowGroup,
    under,
)
from streaming.engine.program.program import IndexUse, Program, ProgramBuilder, PythonStep
from streaming.engine.types import Type

__all__ = ["compile_program"]


def compile_program(outputs: Sequence[Node], strict: bool) -> Program:
    """The program that computes `outputs`.

    Args:
        outputs: expressions over the request.
        strict: NULL join keys match nothing, as OpenMLDB has it offline.
    """
    return _ProgramCompiler(outputs, strict).program()


@dataclass(frozen=True, eq=False)
class _Context:
    """Where an expression is computed: a domain, and whose rows its elements are."""

    domain: int
    base: QueryTable | None  # the table whose rows the elements are; None: the requests, or all sources of a group
    source: int
    group: WindowGroup | None
    parent: _Context | None


class _ProgramCompiler(ProgramBuilder):
    """Compiles the expressions of one query.

    Args:
        outputs, strict: see `compile_program`.
    """

    def __init__(self, outputs: Sequence[Node], strict: bool) -> None:
        super().__init__()
        self.wanted = outputs
        self.strict = strict
        self.done: dict[tuple[int, int, Node | Joined], int] = {}
        self.requests = _Context(REQUESTS, None, -1, None, None)
        self.groups: dict[WindowGroup, _Context] = {}
        self.frequencies: dict[tuple[WindowGroup, int, Node, Node | None], list[Aggregate]] = {}
        for node in outputs:
            self.gather_frequencies(node)

    def gather_frequencies(self, node: Node) -> None:
        """Gathers the aggregates that one pass of counting answers together."""
        if isinstance(node, Aggregate):
            if isinstance(node.kind, FrequencyKind):
                together = self.frequencies.setdefault((node.group, node.frame, node.value, node.condition), [])
                if node not in together:
                    together.append(node)
            self.gather_frequencies(node.value)
            if node.condition is not None:
                self.gather_frequencies(node.condition)
        for child in getattr(node, "arguments", ()):
            self.gather_frequencies(child)

    def program(self) -> Program:
        """The program of all outputs."""
        return self.finish([self.vector(self.node(node, self.requests), self.requests) for node in self.wanted])

    def vector(self, register: int, context: _Context) -> int:
        """`register` as a vector of the context's domain: constants are spread out."""
        if domain_of(register) != CONSTANTS:
            return register
        return self.add(Op.COPY, self.register(context.domain), register)

    # -- expressions -----------------------------------------------------------------------------------------------

    def node(self, node: Node, context: _Context) -> int:
        """The register of `node` in `context`."""
        if isinstance(node, Const):
            return self.constant(node)
        key = (context.domain, context.source, node)
        found = self.done.get(key)
        if found is None:
            found = self.done[key] = self.compute(node, context)
        return found

    def compute(self, node: Node, context: _Context) -> int:
        if isinstance(node, ColumnNode):
            return self.column(node, context)
        if isinstance(node, Missing):
            if node.base is context.base:  # a candidate is there
                return self.node(Const(Type.BOOL, 0), context)
            if node.base.joined is None:
                raise TypeError("a table that is not joined")
            if context.source >= 0 and context.group is None and not under(node.base, context.base):
                return self.lift(node, context)
            return self.add(Op.IS_NULL, self.register(context.domain), self.joined(node.base.joined, context))
        if isinstance(node, WindowColumn):
            if context is not self.groups.get(node.group):
                raise TypeError("a window's column outside its window")
            return self.element(node, context)
        if isinstance(node, Apply):
            arguments = [self.node(argument, context) for argument in node.arguments]
            return self.add(
                node.op, self.register(context.domain), *arguments, *([0] * (3 - len(arguments))), node.bits
            )
        if isinstance(node, PythonCall):
            arguments = [self.node(argument, context) for argument in node.arguments]
            return self.call_python(PythonStep(node, self.register(context.domain), tuple(arguments)))
        if context is not self.requests:
            return self.lift(node, context)
        if isinstance(node, PythonAggregate):
            group = self.group(node.group)
            arguments = [self.node(argument, group) for argument in node.arguments]
            out = self.register(context.domain)
            return self.call_python(PythonStep(node, out, tuple(arguments), group.domain, node.frame))
        if not isinstance(node, Aggregate):
            raise TypeError(node)
        if isinstance(node.kind, FrequencyKind):
            return self.frequency(node)
        group = self.group(node.group)
        value = self.node(node.value, group)
        condition = -1 if node.condition is None else self.vector(self.node(node.condition, group), group)
        number = node.number
        if node.kind == Op.COUNT:
            number = int(isinstance(node.value, Const) and not node.value.null)
        out = self.register(context.domain)
        return self.add(node.kind, out, group.domain, node.frame, value, condition, number, node.bits)

    def lift(self, node: Node, context: _Context) -> int:
        """A value of the parent's element, for each of its rows."""
        if context.parent is None:
            raise TypeError("no parent to take a value from")
        value = self.node(node, context.parent)
        return self.add(Op.FLAT_PARENT, self.register(context.domain), value)

    def column(self, node: ColumnNode, context: _Context) -> int:
        if node.base is context.base:
            table = self.table(node.base.table)
            out = self.register(context.domain)
            return self.add(Op.FLAT_COLUMN, out, context.source, table, node.position, 1)
        candidates = context.source >= 0 and context.group is None
        if candidates and not under(node.base, context.base):  # all else is the join's left side
            return self.lift(node, context)
        if node.base.joined is not None:
            row = self.joined(node.base.joined, context)
            table = self.table(node.base.table)
            return self.add(Op.FETCH, self.register(context.domain), row, table, node.position)
        if context is not self.requests:
            raise TypeError("a request's column among a window's rows")
        return self.add(Op.LOAD, self.register(REQUESTS), node.position)

    def joined(self, joined: Joined, context: _Context) -> int:
        key = (context.domain, context.source, joined)
        found = self.done.get(key)
        if found is not None:
            return found
        table = joined.base.table
        parts = [
            KeyPart(self.node(value, context), table.columns[column].type == Type.STRING)
            for column, value in joined.key
        ]
        index = self.index(IndexUse(table, tuple(column for column, _ in joined.key), joined.ts, False))
        if joined.condition is None:
            at = self.place_operands(Join(index, self.strict, parts))
            found = self.add(Op.JOIN, self.register(context.domain), at)
        else:
            domain = self.domain(context.domain)
            at = self.place_operands(Collect([index], parts))
            self.add(Op.COLLECT, domain, at)
            candidates = _Context(domain, joined.base, 0, None, context)
            condition: Node = joined.condition
            if self.strict:
                for _, value in joined.key:
                    known = Apply(Type.BOOL, Op.NOT, (Apply(Type.BOOL, Op.IS_NULL, (value,)),))
                    condition = Apply(Type.BOOL, Op.AND, (known, condition))
            test = self.vector(self.node(condition, candidates), candidates)
            found = self.add(Op.PICK, self.register(context.domain), domain, test)
        self.done[key] = found
        return found

    # -- windows ---------------------------------------------------------------------------------------------------

    def group(self, group: WindowGroup) -> _Context:
        """The context of a group's rows, which are collected first."""
        found = self.groups.get(group)
        if found is not None:
            return found
        own = [group.own[place] for place in group.key]
        key = [KeyPart(self.node(node, self.requests), node.type == Type.STRING) for node in own]
        time = -1
        if group.time is not None:
            time = self.node(group.own[group.time], self.requests)
            if not isinstance(group.own[group.time], ColumnNode):
                time = self.vector(time, self.requests)
                self.times.append(time)
        indexes = [self.index(self.index_use(group, number)) for number in range(len(group.sources))]
        self.sources.append((group, indexes))
        sources = [
            index if source.where is None else self.filtered(group, source, index, time, key)
            for index, source in zip(indexes, group.sources, strict=True)
        ]
        own_row = _OWN_ROW[group.own_row]
        if own_row == OwnRow.FIRST and any(source.columns is not group.own for source in group.sources):
            own_row = OwnRow.FIRST_UNCOUNTED  # OpenMLDB counts the request's row apart where there is a UNION
        domain = self.domain(REQUESTS)
        frames = [Frame(*frame) for frame in group.frames]
        bounded = group.time is not None
        at = self.place_operands(Collect(sources, key, frames, time, own_row, group.exclude_time, bounded))
        self.add(Op.COLLECT, domain, at)
        found = self.groups[group] = _Context(domain, None, -1, group, self.requests)
        return found

    def index_use(self, group: WindowGroup, number: int) -> IndexUse:
        """The index by which the rows of a group's source are found."""
        source = group.sources[number]
        places = [*group.key, *([] if group.time is None else [group.time])]
        positions = [node.position for node in map(source.columns.__getitem__, places) if isinstance(node, ColumnNode)]
        ts = group.orders[number] if group.time is None else positions[-1]
        return IndexUse(source.base.table, tuple(positions[: len(group.key)]), ts, True)

    def filtered(self, group: WindowGroup, source: Source, index: int, time: int, key: Sequence[KeyPart]) -> int:
        """A source of which a condition lets some rows in: they are collected and tested before the windows are."""
        starts = [-1 if rows else start for rows, start, _, _ in group.frames]
        reach = -1 if min(starts) < 0 else max(starts)
        domain = self.domain(REQUESTS)
        frame = Frame(False, reach, 0, 0)
        at = self.place_operands(Collect([index], key, [frame], time, OwnRow.OUT, group.exclude_time, bounded=True))
        self.add(Op.COLLECT, domain, at)
        candidates = _Context(domain, source.base, 0, None, self.requests)
        if source.where is None or group.time is None:
            raise TypeError("a source without a condition, or without a time")
        test = self.vector(self.node(source.where, candidates), candidates)
        times = self.node(source.columns[group.time], candidates)
        return -1 - self.place_operands(FilteredSource(index, domain, test, times))

    def element(self, node: WindowColumn, context: _Context) -> int:
        group = node.group
        own = self.node(group.own[node.position], self.requests)
        if len(group.sources) == 1:
            base, value = group.sources[0].base, group.sources[0].columns[node.position]
            if isinstance(value, ColumnNode) and value.base is base:
                out = self.register(context.domain)
                return self.add(Op.FLAT, out, own, self.table(base.table), value.position)
        out = self.register(context.domain)
        self.add(Op.FLAT_PARENT, out, own, 1)
        for number, source in enumerate(group.sources):
            value = source.columns[node.position]
            if isinstance(value, ColumnNode) and value.base is source.base:
                self.add(Op.FLAT_COLUMN, out, number, self.table(source.base.table), value.position)
            else:
                inner = _Context(context.domain, source.base, number, group, self.requests)
                self.add(Op.FLAT_COPY, out, number, self.node(value, inner))
        return out

    def frequency(self, node: Aggregate) -> int:
        together = self.frequencies[node.group, node.frame, node.value, node.condition]
        group = self.group(node.group)
        value = self.node(node.value, group)
        condition = -1 if node.condition is None else self.vector(self.node(node.condition, group), group)
        results: list[FrequencyResult] = []
        for one in together:
            out = self.register(REQUESTS)
            self.done[REQUESTS, -1, one] = out
            results.append(FrequencyResult(FrequencyKind(one.kind), one.number, out))
        kind = node.value.type
        at = self.place_operands(Frequency(kind == Type.STRING, kind in (Type.FLOAT, Type.DOUBLE), results))
        self.add(Op.FREQUENCY, results[0].register, group.domain, node.frame, value, condition, at)
        return self.done[REQUESTS, -1, node]


_OWN_ROW = {
    OwnRowPlace.OUT: OwnRow.OUT,
    OwnRowPlace.IN: OwnRow.FIRST,
    OwnRowPlace.STORED: OwnRow.OUT,
    OwnRowPlace.STORED_OUT: OwnRow.NEWEST_OUT,
}
