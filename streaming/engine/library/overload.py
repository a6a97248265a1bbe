"""One combination of argument types that a function takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from streaming.engine.types import Type

__all__ = ["INTEGERS", "NUMBERS", "REALS", "Overload", "overloads_of"]

INTEGERS = (Type.SMALLINT, Type.INT, Type.BIGINT)
REALS = (Type.FLOAT, Type.DOUBLE)
NUMBERS = (*INTEGERS, *REALS)


@dataclass(frozen=True)
class Overload:
    """One combination of argument types that a function takes.

    Attributes:
        kinds: the types of the arguments.
        result: the type of the result.
        function: of values that are not NULL.
    """

    kinds: tuple[Type, ...]
    result: Type
    function: Callable[..., Any]


def overloads_of(kinds: Iterable[Type], result: Type, function: Callable[..., Any], *more: Type) -> list[Overload]:
    """An overload for each type of the first argument, of the same result; `more`: the types of the other arguments."""
    return [Overload((kind, *more), result, function) for kind in kinds]
