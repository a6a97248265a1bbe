"""CHECKs that no record can keep: what is said of comparisons is what trying every value shows."""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.applications import make
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streaming.app.folder import load_app
from streaming.app.wrong import WrongApp

NUMBERS = range(-6, 7)
TEXTS = ("", "a", "b", "c", "zz")
COMPARED = {
    "=": lambda value, other: value == other,
    "!=": lambda value, other: value != other,
    "<": lambda value, other: value < other,
    "<=": lambda value, other: value <= other,
    ">": lambda value, other: value > other,
    ">=": lambda value, other: value >= other,
}
Condition = tuple[str, frozenset[object]]
"""SQL, and the values for which it is true."""


def compared(
    name: str, values: tuple[object, ...], constants: st.SearchStrategy[object], operators: str
) -> st.SearchStrategy[Condition]:
    return st.builds(
        lambda operator, other: (
            f"{name} {operator} {other!r}",
            frozenset(value for value in values if COMPARED[operator](value, other)),
        ),
        st.sampled_from(operators.split()),
        constants,
    )


def joined(part: st.SearchStrategy[Condition], values: tuple[object, ...]) -> st.SearchStrategy[Condition]:
    both = st.tuples(part, part)
    return st.one_of(
        both.map(lambda two: (f"({two[0][0]} AND {two[1][0]})", two[0][1] & two[1][1])),
        both.map(lambda two: (f"({two[0][0]} OR {two[1][0]})", two[0][1] | two[1][1])),
        part.map(lambda one: (f"NOT ({one[0]})", frozenset(values) - one[1])),
    )


def conditions(
    name: str, values: tuple[object, ...], constants: st.SearchStrategy[object], operators: str
) -> st.SearchStrategy[Condition]:
    return st.recursive(compared(name, values, constants, operators), lambda part: joined(part, values), max_leaves=4)


OF_NUMBERS = conditions("cents", tuple(NUMBERS), st.integers(-3, 3), "= != < <= > >=")
OF_TEXTS = conditions("reference", TEXTS, st.sampled_from(TEXTS[:4]), "= !=")


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.lists(OF_NUMBERS, min_size=1, max_size=3), st.lists(OF_TEXTS, min_size=1, max_size=3)))
def test_checks_are_refused_where_no_value_keeps_them(tmp_path: Path, checks: list[Condition]) -> None:
    left = frozenset.intersection(*(true for _, true in checks))
    text = ",\n    ".join(f"CHECK ({sql})" for sql, _ in checks)
    folder = make(tmp_path / "app", events=("CHECK (cents > 0)", text))
    if left:
        load_app(folder)
    else:
        with pytest.raises(WrongApp, match="is always false"):
            load_app(folder)
