"""What a field of the encoder is, and how values are spelled and named (see `encoder`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
import xxhash

__all__ = [
    "DAY_MS",
    "HOUR_MS",
    "NULL_ID",
    "NULL_TEXT",
    "RARE_ID",
    "RARE_TEXT",
    "SEED",
    "Binned",
    "Category",
    "Field",
    "Hashed",
    "Known",
    "ListShape",
    "ListTop",
    "canonical",
    "speller",
    "value_id",
]

SEED = 10
NULL_TEXT = b"\xff"
RARE_TEXT = b"\xfe"
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def canonical(value: str | int | float | None) -> bytes:
    """The canonical text of one value; timestamps come as epoch ms (int)."""
    if value is None:
        return NULL_TEXT
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, int):
        return b"%d" % value
    with np.errstate(over="ignore"):  # beyond a float: infinite
        single = np.float32(value)
    if np.isnan(single):
        return NULL_TEXT
    return str(single + np.float32(0.0)).encode()  # adding zero makes -0.0 positive


def value_id(text: bytes) -> int:
    """The signed 64-bit id of a canonical text."""
    unsigned = xxhash.xxh64_intdigest(text, SEED)
    return unsigned - (1 << 64) if unsigned >> 63 else unsigned


NULL_ID = value_id(NULL_TEXT)
RARE_ID = value_id(RARE_TEXT)


class Spec(msgspec.Struct, frozen=True, tag_field="kind", forbid_unknown_fields=True):
    """What every field has: its own name, and the column of the feature query that it reads."""

    name: str
    column: str


class Known(Spec, frozen=True):
    """A field that keeps the ids of training: `known` is its slice of vocabulary.npy, the others share the rare id."""

    known: tuple[int, int]


class Category(Known, frozen=True, tag="category", omit_defaults=True):
    """A value as it is: of a string, or of an integer or bool."""

    of: Literal["text", "whole"] = "text"


class ListTop(Known, frozen=True, tag="list_top"):
    """The `place`-th (from 1) entry of a frequency list that names something: neither '' nor the padding 'NULL'.

    '' is what the request row itself adds to its windows, so where it stands says how often, not what (`ListShape`).
    """

    place: int


class ListShape(Spec, frozen=True, tag="list_shape", omit_defaults=True):
    """Where the empty entry stands in a frequency list: one letter for each of its `length` entries, e empty, n
    padding, v a value.

    The request row adds one '' to each window and ties go to the smaller key, so "evn" means that the pair's most
    frequent value was seen once, "ven" more than once, "vve" and "vvv" that it was busy.
    """

    length: int = 3


class Binned(Spec, frozen=True, tag="binned"):
    """A number in bins: bin i is [starts[i], starts[i + 1]), the first one open below, the last one above.

    `of` says what is binned: an integer column; a real or integer one as a real; of timestamp and date columns the days
    from it to the event's time, its weekday (1 is Sunday, as of OpenMLDB's `dayofweek`), and of timestamps the hour of
    the day, both in the encoder's zone. `event_time` is the column of the event's time, for the days.
    """

    of: Literal["integer", "real", "days_since", "hour", "weekday"]
    starts: list[float]
    event_time: str = ""


class Hashed(Spec, frozen=True, tag="hashed"):
    """Any column, each value its own id, nothing fitted: the seed system's encoding."""


Field: TypeAlias = Category | ListTop | ListShape | Binned | Hashed


def speller(field: Category | ListTop | ListShape) -> Callable[[Any], bytes]:
    """What makes a field's canonical text of its column's value (which is not NULL)."""
    match field:
        case Category(of=of):
            return str.encode if of == "text" else canonical
        case ListTop(place=place):
            return lambda text: _named_entry(text, place).encode()
        case ListShape(length=length):
            return lambda text: _shape(text, length).encode()


def _named_entry(text: str, place: int) -> str:
    named = [entry for entry in text.split(",") if entry not in {"", "NULL"}]
    return named[place - 1] if len(named) >= place else ""


def _shape(text: str, length: int) -> str:
    return "".join({"": "e", "NULL": "n"}.get(entry, "v") for entry in text.split(",")[:length])
