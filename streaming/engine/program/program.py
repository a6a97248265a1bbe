"""A program: what the compiler makes of a plan, and the runner runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from streaming.engine.kernels.instructions import CONSTANTS, Domain, Field, Op
from streaming.engine.kernels.instructions import register as register_number
from streaming.engine.kernels.operands import Collect, FilteredSource, Frequency, Join
from streaming.engine.plan.nodes import Const, PythonAggregate, PythonCall, WindowGroup
from streaming.engine.storage.table import Table
from streaming.engine.types import Type

__all__ = ["IndexUse", "Program", "ProgramBuilder", "PythonStep"]

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class IndexUse:
    """An index that a program reads.

    Attributes:
        table: whose rows it finds.
        key: numbers of its key columns.
        ts: number of the column that orders its rows; -1: as they were inserted.
        windows: whether windows read it, whose rows the request's time bounds.
    """

    table: Table
    key: tuple[int, ...]
    ts: int
    windows: bool


@dataclass(frozen=True)
class PythonStep:
    """A function in Python: for every element of `out`'s domain, or for every segment of a group's domain.

    Attributes:
        node: the function, and the types of its arguments and result.
        out: the register of its results.
        arguments: the registers of its arguments.
        domain: of an aggregate, the domain of the group's rows.
        frame: of an aggregate, the number of its frame.
    """

    node: PythonCall | PythonAggregate
    out: int
    arguments: tuple[int, ...]
    domain: int = -1
    frame: int = 0


@dataclass
class Program:
    """A plan ready to run.

    Attributes:
        code: int64[k, 8], the instructions, see `Field`.
        operands: int64[m], what they need beyond that, see `kernels.operands`.
        constants, constant_nulls: domain 0.
        constant_texts: which of the constants are strings, whose codes change when the pool is cleared of unused ones.
        domains: int64[d, 6], the table of domains as it is before a run.
        tables, indexes: what the numbers in the instructions stand for.
        python_steps: the functions in Python, by number.
        outputs: the register of each output, in the domain of the requests.
        sources: the groups of windows, and the indexes of each one's tables.
        times: the registers of window times that are computed, and so can be checked only after a run.
    """

    code: Int64
    operands: Int64
    constants: Int64
    constant_nulls: npt.NDArray[np.uint8]
    constant_texts: npt.NDArray[np.bool_]
    domains: Int64
    tables: list[Table]
    indexes: list[IndexUse]
    python_steps: list[PythonStep]
    outputs: list[int]
    sources: list[tuple[WindowGroup, list[int]]]
    times: list[int]

    @property
    def groups(self) -> list[WindowGroup]:
        """The groups of windows."""
        return [group for group, _ in self.sources]


class ProgramBuilder:
    """A program in the making: its instructions one behind the other, and what the numbers in them stand for."""

    def __init__(self) -> None:
        self.code: list[tuple[int, ...]] = []
        self.operands: list[int] = []
        self.constants: dict[Const, int] = {}
        self.slots = [0, 0]  # of each domain, how many there are
        self.parents = [0, 0]  # of each domain
        self.tables: list[Table] = []
        self.indexes: list[IndexUse] = []
        self.python_steps: list[PythonStep] = []
        self.sources: list[tuple[WindowGroup, list[int]]] = []
        self.times: list[int] = []

    def register(self, domain: int) -> int:
        """A new register of a domain."""
        self.slots[domain] += 1
        return register_number(domain, self.slots[domain] - 1)

    def constant(self, node: Const) -> int:
        """The register of a constant."""
        return register_number(CONSTANTS, self.constants.setdefault(node, len(self.constants)))

    def add(self, op: Op, out: int, *operands: int) -> int:
        """Adds an instruction with up to six operands; returns the register (or domain) of its result."""
        row = (int(op), out, *operands)
        self.code.append(row + (0,) * (len(Field) - len(row)))
        return out

    def call_python(self, step: PythonStep) -> int:
        """Adds the instruction before which a function in Python is called; returns the register of its result."""
        self.python_steps.append(step)
        return self.add(Op.PYTHON, step.out, len(self.python_steps) - 1)

    def place_operands(self, made: Collect | FilteredSource | Frequency | Join) -> int:
        """Where in the program's operands a list lies, which is added to them."""
        at = len(self.operands)
        self.operands += made.words()
        return at

    def domain(self, parent: int) -> int:
        """A new domain of rows that belong to the elements of `parent`."""
        self.slots.append(2)  # slot 0: the rows, slot 1: the parent's element
        self.parents.append(parent)
        return len(self.slots) - 1

    def table(self, table: Table) -> int:
        """The number of a table."""
        if table not in self.tables:
            self.tables.append(table)
        return self.tables.index(table)

    def index(self, use: IndexUse) -> int:
        """The number of an index."""
        if use not in self.indexes:
            self.indexes.append(use)
        return self.indexes.index(use)

    def finish(self, outputs: Sequence[int]) -> Program:
        """The program as it is now; `outputs`: the registers of its outputs."""
        domains = np.zeros((len(self.slots), len(Domain)), np.int64)
        domains[:, Domain.SLOTS] = self.slots
        domains[:, Domain.PARENT] = self.parents
        return Program(
            np.array(self.code, np.int64).reshape(-1, len(Field)),
            np.array(self.operands, np.int64),
            np.array([c.word for c in self.constants], np.int64),
            np.array([c.null for c in self.constants], np.uint8),
            np.array([c.type == Type.STRING for c in self.constants], np.bool_),
            domains,
            self.tables,
            self.indexes,
            self.python_steps,
            list(outputs),
            self.sources,
            self.times,
        )
