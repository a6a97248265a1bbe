"""The heaps of C++ (libstdc++'s priority_queue), step by step: where a value is NaN, their order is what these make.

OpenMLDB's median keeps the lower half of the values in one heap, the upper half in another.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

__all__ = ["two_heaps"]

Before = Callable[[float, float], bool]


def _rise(heap: list[float], hole: int, value: float, before: Before) -> None:
    while hole > 0 and before(heap[(hole - 1) // 2], value):
        heap[hole] = heap[(hole - 1) // 2]
        hole = (hole - 1) // 2
    heap[hole] = value


def _push(heap: list[float], value: float, before: Before) -> None:
    heap.append(value)
    _rise(heap, len(heap) - 1, value, before)


def _pop(heap: list[float], before: Before) -> float:
    top, value = heap[0], heap.pop()
    length, hole, child = len(heap), 0, 0
    if not length:
        return top
    while child < (length - 1) // 2:
        child = 2 * (child + 1)
        if before(heap[child], heap[child - 1]):
            child -= 1
        heap[hole] = heap[child]
        hole = child
    if length % 2 == 0 and child == (length - 2) // 2:
        child = 2 * (child + 1)
        heap[hole] = heap[child - 1]
        hole = child - 1
    _rise(heap, hole, value, before)
    return top


def two_heaps(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """The lower and the upper half of some values, in the order in which they came.

    The first are the greatest of the lower and the least of the upper half; the lower has as many or one more.
    """
    below: list[float] = []
    above: list[float] = []
    for value in values:
        if not below or value <= below[0]:
            _push(below, value, operator.lt)
            if len(below) > len(above) + 1:
                _push(above, _pop(below, operator.lt), operator.gt)
        else:
            _push(above, value, operator.gt)
            if len(above) > len(below):
                _push(below, _pop(above, operator.gt), operator.lt)
    return below, above
