"""Lists of texts: what texts are split into, and what one call makes of that. No column, and no answer, is a list.

join(split(s, ','), '-')                            of the row's own text
distinct_count(window_split(s, ',')) over w         of all texts of a window, newest first
size(split_by_key(s, ',', ':'))                     the keys of 'k1:v1,k2:v2'; a part without ':' counts for nothing
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from streaming.engine.library.statistics import entropy
from streaming.engine.library.text_bytes import text_bytes
from streaming.engine.plan.casts import Mismatch
from streaming.engine.plan.functions import choose, if_null, invert, is_null, logic
from streaming.engine.plan.nodes import Const, Node, PythonAggregate, PythonCall, WindowGroup
from streaming.engine.storage.strings import EMPTY
from streaming.engine.types import Type, is_integer

__all__ = ["COUNTED", "FOLDS", "SPLITS", "list_function_of_row", "list_function_of_window"]

Rows = Sequence[tuple[Any, ...]]


def _split(text: str, separator: str) -> list[str]:
    return text.split(separator) if separator else []


def _pieces(place: int) -> Callable[[str, str, str], list[str]]:
    """Of each part that has the mark, the piece before it or behind it."""

    def split(text: str, separator: str, mark: str) -> list[str]:
        pieces = [part.split(mark) for part in _split(text, separator)] if mark else []
        return [found[place] for found in pieces if len(found) > 1]

    return split


SPLITS: dict[str, tuple[int, Callable[..., list[str]]]] = {
    "split": (2, _split),
    "split_by_key": (3, _pieces(0)),
    "split_by_value": (3, _pieces(1)),
}
"""How a text is split: how many arguments that takes, and the function. `window_…` is the same of a window's texts."""


def _top1_ratio(found: list[str]) -> float:
    return max(Counter(found).values()) / len(found) if found else 0.0


def _topn_frequency(found: list[str], number: int) -> str:
    if not found:
        return ""
    counts = Counter(found)
    best = sorted(counts, key=lambda text: (-counts[text], text_bytes(text)))[:number]
    return ",".join([*best, *["NULL"] * (number - len(best))])


FOLDS: dict[str, tuple[Type, Type | None, Callable[..., Any]]] = {
    "join": (Type.STRING, Type.STRING, lambda found, between: between.join(found)),
    "size": (Type.INT, None, len),
    "count": (Type.BIGINT, None, len),
    "distinct_count": (Type.BIGINT, None, lambda found: len(set(found))),
    "top1_ratio": (Type.DOUBLE, None, _top1_ratio),
    "topn_frequency": (Type.STRING, Type.INT, _topn_frequency),
    "max": (Type.STRING, None, lambda found: max(found, key=text_bytes, default=None)),
    "min": (Type.STRING, None, lambda found: min(found, key=text_bytes, default=None)),
    "entropy": (Type.DOUBLE, None, lambda found: entropy([(text,) for text in found])),
    "first_value": (Type.STRING, None, lambda found: found[-1] if found else None),
    "last_value": (Type.STRING, None, lambda found: found[0] if found else None),
}
"""What a list becomes: the result's type, that of the second argument, if there is one, and the function."""


COUNTED = frozenset(FOLDS) - {"join", "size", "first_value", "last_value"}
"""Aggregates, to which OpenMLDB gives a window's rows from the request on, also where its frame begins behind it."""


def _check(fold: str, split: str, arguments: Sequence[Node]) -> int:
    """How many of the arguments are the split's.

    Raises:
        Mismatch: they are not what the two functions take.
    """
    (count, _), (_, more, _) = SPLITS[split], FOLDS[fold]
    kinds = [Type.STRING] * count + ([more] if more is not None else [])
    given = [Type.INT if is_integer(node.type) else node.type for node in arguments]
    if given != kinds:
        raise Mismatch(f"{split}: {', '.join(map(str, given)) or 'nothing'}")
    return count


@functools.cache
def _row_function(fold: str, split: str) -> Callable[..., Any]:
    (count, parts), (_, _, function) = SPLITS[split], FOLDS[fold]
    return lambda *values: function(parts(*values[:count]), *values[count:])


def list_function_of_row(fold: str, split: str, arguments: Sequence[Node]) -> Node:
    """`fold(split(…), …)` of a row's own text: of a NULL text there is nothing in the list."""
    if fold not in ("join", "size"):  # the others are aggregates
        raise Mismatch(split)
    _check(fold, split, arguments)
    text, *rest = arguments
    result = FOLDS[fold][0]
    answer = PythonCall(result, _row_function(fold, split), (if_null(text, Const(Type.STRING, EMPTY)), *rest))
    if fold == "join":  # of '' there is nothing to see, either
        return answer
    known = [invert(is_null(node)) for node in rest]
    return choose(functools.reduce(lambda a, b: logic("and", a, b), known, is_null(text)), Const(result, 0), answer)


@functools.cache
def _window_function(fold: str, split: str, number: int | None) -> Callable[[Rows], Any]:
    (count, parts), (_, _, function) = SPLITS[split], FOLDS[fold]

    def call(rows: Rows) -> Any:
        found = [part for row in rows if None not in row[:count] for part in parts(*row[:count])]
        if number is not None:
            return function(found, number)
        return function(found, *rows[0][count:]) if rows else function(found, *[""] * (fold == "join"))

    return call


def list_function_of_window(fold: str, split: str, group: WindowGroup, frame: int, arguments: Sequence[Node]) -> Node:
    """`fold(window_split(…), …) over w`: of the window's texts that are not NULL; all else must be constants."""
    count = _check(fold, split, arguments)
    number = None
    for node in arguments[1:]:
        if not isinstance(node, Const) or node.null:
            raise Mismatch(f"window_{split}() by something that is not a constant")
    if fold == "topn_frequency" and isinstance(last := arguments[-1], Const):
        number = last.word
        if number < 0:
            raise Mismatch(f"{number}")
    kept = arguments if number is None else arguments[:count]
    return PythonAggregate(FOLDS[fold][0], _window_function(fold, split, number), group, frame, tuple(kept))
