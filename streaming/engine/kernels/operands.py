"""What instructions need beyond seven numbers: lists of words, one behind the other in one array, `operands`.

Each kind of list is a class here. The compiler makes one and adds its `words` to the array; the instruction has the
place of the first. The enumeration behind a class says where its fields lie from there on, for kernels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from streaming.engine.kernels.instructions import FrequencyKind

__all__ = [
    "COLLECT_FIELDS",
    "FREQUENCY_FIELDS",
    "JOIN_FIELDS",
    "Collect",
    "CollectField",
    "FilteredSource",
    "FilteredSourceField",
    "Frame",
    "FrameField",
    "Frequency",
    "FrequencyField",
    "FrequencyResult",
    "Join",
    "JoinField",
    "KeyField",
    "KeyPart",
    "OwnRow",
    "ResultField",
]


class KeyField(IntEnum):
    """Where the fields of a `KeyPart` lie."""

    REGISTER = 0
    IS_TEXT = 1
    SIZE = 2


@dataclass(frozen=True)
class KeyPart:
    """A value that a key column must have.

    Attributes:
        register: the value.
        is_text: whether it is a string, whose NULL OpenMLDB spells as a text.
    """

    register: int
    is_text: bool

    def words(self) -> list[int]:
        """The words, in the order of `KeyField`."""
        return [self.register, int(self.is_text)]


class FrameField(IntEnum):
    """Where the fields of a `Frame` lie."""

    BY_ROWS = 0
    START = 1
    END = 2
    MAXSIZE = 3
    SIZE = 4


@dataclass(frozen=True)
class Frame:
    """A frame, as distances back from the row that the window belongs to.

    Attributes:
        by_rows: whether they count rows; else they are milliseconds.
        start: how far it reaches back; -1: without bound.
        end: where it ends; 0: with that row.
        maxsize: at most so many rows, the newest; 0: all.
    """

    by_rows: bool
    start: int
    end: int
    maxsize: int

    def words(self) -> list[int]:
        """The words, in the order of `FrameField`."""
        return [int(self.by_rows), self.start, self.end, self.maxsize]


class OwnRow(IntEnum):
    """Where the row that a window belongs to is among the rows that are collected for it."""

    OUT = 0
    FIRST = 1  # before all others
    FIRST_UNCOUNTED = 2  # the same, but it takes no place of a MAXSIZE whose frame ends before it
    NEWEST_OUT = 3  # it is the newest row of the first source, which is left out


class CollectField(IntEnum):
    """Where the fields of a `Collect` lie: behind them the sources, then the parts of the key, then the frames."""

    N_SOURCES = 0
    N_KEYS = 1
    N_FRAMES = 2
    TIME = 3
    OWN_ROW = 4
    EXCLUDE_TIME = 5
    BOUNDED = 6


COLLECT_FIELDS = len(CollectField)


@dataclass(frozen=True)
class Collect:
    """Which rows belong to each element of the parent domain.

    Attributes:
        sources: of each source the number of its index; or -1 - p, where at place p there is a `FilteredSource`.
        key: what the key of the rows is equal to.
        frames: the rows are collected as far as one of them reaches; of none, all.
        time: the register of the element's time; -1: it has none.
        own_row: where the element's own row is.
        exclude_time: whether other rows of its time are out.
        bounded: whether no row may be newer than it.
    """

    sources: Sequence[int]
    key: Sequence[KeyPart]
    frames: Sequence[Frame] = ()
    time: int = -1
    own_row: OwnRow = OwnRow.OUT
    exclude_time: bool = False
    bounded: bool = False

    def words(self) -> list[int]:
        """The words, in the order of `CollectField`, then the lists."""
        counts = [len(self.sources), len(self.key), len(self.frames)]
        fields = [self.time, int(self.own_row), int(self.exclude_time), int(self.bounded)]
        key = [word for part in self.key for word in part.words()]
        return [*counts, *fields, *self.sources, *key, *(word for frame in self.frames for word in frame.words())]


class FilteredSourceField(IntEnum):
    """Where the fields of a `FilteredSource` lie."""

    INDEX = 0
    DOMAIN = 1
    CONDITION = 2
    TIME = 3


@dataclass(frozen=True)
class FilteredSource:
    """A source of which a condition lets some rows in.

    Attributes:
        index: the number of the index by which they were found.
        domain: the domain that holds all that were found.
        condition: the register, in this domain, that says which of them are in.
        time: the register of their times.
    """

    index: int
    domain: int
    condition: int
    time: int

    def words(self) -> list[int]:
        """The words, in the order of `FilteredSourceField`."""
        return [self.index, self.domain, self.condition, self.time]


class JoinField(IntEnum):
    """Where the fields of a `Join` lie: behind them the parts of the key."""

    INDEX = 0
    N_KEYS = 1
    STRICT = 2


JOIN_FIELDS = len(JoinField)


@dataclass(frozen=True)
class Join:
    """Which row belongs to each element: the newest of its key.

    Attributes:
        index: the number of the index.
        strict: whether NULL in a key matches nothing.
        key: what the key of the row is equal to.
    """

    index: int
    strict: bool
    key: Sequence[KeyPart]

    def words(self) -> list[int]:
        """The words, in the order of `JoinField`, then the key."""
        return [self.index, len(self.key), int(self.strict), *(word for part in self.key for word in part.words())]


class FrequencyField(IntEnum):
    """Where the fields of a `Frequency` lie: behind them the results."""

    IS_TEXT = 0
    IS_REAL = 1
    N_RESULTS = 2


FREQUENCY_FIELDS = len(FrequencyField)


class ResultField(IntEnum):
    """Where the fields of a `FrequencyResult` lie."""

    KIND = 0
    NUMBER = 1
    REGISTER = 2
    SIZE = 3


@dataclass(frozen=True)
class FrequencyResult:
    """One result of counting.

    Attributes:
        kind: what it is.
        number: of TOPN_FREQUENCY, how many values it names.
        register: where it goes.
    """

    kind: FrequencyKind
    number: int
    register: int

    def words(self) -> list[int]:
        """The words, in the order of `ResultField`."""
        return [int(self.kind), self.number, self.register]


@dataclass(frozen=True)
class Frequency:
    """What to make of the counts of a value.

    Attributes:
        is_text, is_real: whether the value is a string, or a float.
        results: one or more.
    """

    is_text: bool
    is_real: bool
    results: Sequence[FrequencyResult]

    def words(self) -> list[int]:
        """The words, in the order of `FrequencyField`, then the results."""
        head = [int(self.is_text), int(self.is_real), len(self.results)]
        return [*head, *(word for result in self.results for word in result.words())]
