"""How wide the engine's types are: what a whole number may be, and which type holds every value of another."""

from __future__ import annotations

from streaming.engine.types import Type, is_integer

__all__ = ["whole_limits", "widens"]


def whole_limits(kind: Type) -> tuple[int, int]:
    """The least and the greatest number of a whole type."""
    limit = 1 << {Type.SMALLINT: 15, Type.INT: 31, Type.BIGINT: 63}[kind]
    return -limit, limit - 1


def widens(source: Type, target: Type) -> bool:
    """Whether every value of one type is the same value of the other."""
    if is_integer(source):
        exact = {Type.SMALLINT: Type.FLOAT, Type.INT: Type.DOUBLE}.get(source, Type.NULL)
        return (is_integer(target) and source < target) or (
            exact != Type.NULL and target in (Type.FLOAT, Type.DOUBLE) and target >= exact
        )
    return source == Type.FLOAT and target == Type.DOUBLE
