"""Cells of text (csv) -> columns of a table.

Numbers, times and dates as OpenMLDB's batch engine takes them from csv; a cell that is none is refused, where OpenMLDB
would make it NULL. NULLs stay, and '' is no number and no time either: NULL, in every column but text.
"""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

from streaming.files.tables.convert import SQL_NAMES, as_date, as_milliseconds
from streaming.files.tables.errors import BadCell, shown

__all__ = ["ZONE_MS", "parsed"]

ZONE_MS = 8 * 3_600_000
"""Times without a zone are local: UTC+8 in ms, as everywhere in OpenMLDB."""

_INTEGER = r"^[+-]?[0-9]+(\.0*)?$"
_REAL = r"(?i)^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?$"
_ENDLESS = r"(?i)^[+-]?(nan|inf|infinity)$"
_MOMENT = r"^[+-]?[0-9]{1,18}$"
_DAY = r"(?P<year>[0-9]{4})-(?P<month>[0-9]{1,2})-(?P<day>[0-9]{1,2})"
_CLOCK = r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{1,2})(?::(?P<second>[0-9]{1,2})(?P<part>\.[0-9]+)?)?"
_OFFSET = r"(?:(?:0[0-9]|1[0-7])(?::?[0-5][0-9])?|18(?::?00)?)"  # up to 18 hours, as Java has them
_TIME = rf"^{_DAY}(?:[ T]{_CLOCK}(?P<zone> ?(?:Z|[+-]{_OFFSET}))?)?$"
_DATE = rf"^{_DAY}([ T]0{{1,2}}:00(:00(\.0+)?)?)?$"


def parsed(cells: pa.Array, wanted: pa.DataType) -> pa.Array:
    """The cells (text) as the type of a table's column.

    Raises:
        BadCell: a cell is none of the column's values.
    """
    if pa.types.is_string(wanted):
        return cells
    cells = pc.if_else(pc.equal(cells, ""), pa.scalar(None, pa.string()), cells)
    if pa.types.is_boolean(wanted):
        return _truths(cells)
    if pa.types.is_integer(wanted):
        return _integers(cells, wanted)
    if pa.types.is_floating(wanted):
        return _reals(cells, wanted)
    return _times(cells) if pa.types.is_timestamp(wanted) else _dates(cells)


def _refuse(cells: pa.Array, good: pa.Array, wanted: pa.DataType) -> None:
    row = pc.index(good, False).as_py()  # NULL is neither
    if row >= 0:
        raise BadCell(f"{shown(cells[row].as_py())} is no {SQL_NAMES[wanted]}", row)


def _truths(cells: pa.Array) -> pa.Array:
    lower = pc.utf8_lower(cells)
    yes = pc.or_(pc.equal(lower, "true"), pc.equal(lower, "1"))
    _refuse(cells, pc.or_(yes, pc.or_(pc.equal(lower, "false"), pc.equal(lower, "0"))), pa.bool_())
    return yes


def _integers(cells: pa.Array, wanted: pa.DataType) -> pa.Array:
    _refuse(cells, pc.match_substring_regex(cells, _INTEGER), wanted)
    digits = pc.replace_substring_regex(pc.utf8_ltrim(cells, "+"), r"\..*", "")
    try:
        return digits.cast(wanted)
    except pa.ArrowInvalid:
        limit = 1 << (wanted.bit_width - 1)
        for row, text in enumerate(digits.to_pylist()):
            if text is not None and not -limit <= int(text) < limit:
                raise BadCell(f"{shown(cells[row].as_py())} does not fit {SQL_NAMES[wanted]}", row) from None
        raise


def _reals(cells: pa.Array, wanted: pa.DataType) -> pa.Array:
    endless = pc.match_substring_regex(cells, _ENDLESS)
    _refuse(cells, pc.or_(endless, pc.match_substring_regex(cells, _REAL)), wanted)
    made = pc.utf8_lower(pc.utf8_ltrim(cells, "+")).cast(wanted)
    # What is too small is 0.0 (1e-400), as Java's Double.parseDouble has it: an error below any other of its rounding.
    lost = pc.and_(pc.is_inf(made), pc.invert(endless))
    row = pc.index(lost, True).as_py()
    if row >= 0:
        raise BadCell(f"{shown(cells[row].as_py())} does not fit {SQL_NAMES[wanted]}", row)
    return made


def _padded(parts: pa.StructArray, name: str, width: int = 2) -> pa.Array:
    return pc.utf8_lpad(pc.struct_field(parts, name), width, "0")


def _times(cells: pa.Array) -> pa.Array:
    """Epoch ms, or a day, with a clock, a fraction and a zone where they stand; finer than ms is cut off."""
    wanted = pa.timestamp("ms")
    moment = pc.match_substring_regex(cells, _MOMENT)
    _refuse(cells, pc.or_(moment, pc.match_substring_regex(cells, _TIME)), wanted)
    nothing = pa.scalar(None, pa.string())
    numbers = pc.utf8_ltrim(pc.if_else(moment, cells, nothing), "+").cast(pa.int64())
    parts = pc.extract_regex(pc.if_else(moment, nothing, cells), _TIME)
    day = pc.binary_join_element_wise(*(_padded(parts, name) for name in ("year", "month", "day")), "-")
    clock = pc.binary_join_element_wise(*(_padded(parts, name) for name in ("hour", "minute", "second")), ":")
    fraction = pc.utf8_slice_codeunits(pc.utf8_rpad(pc.utf8_ltrim(pc.struct_field(parts, "part"), "."), 3, "0"), 0, 3)
    spelled = pc.binary_join_element_wise(pc.binary_join_element_wise(day, clock, " "), fraction, ".")
    local = _cast(spelled, cells, wanted).cast(pa.int64())
    epoch = pc.subtract(local, _zones(pc.struct_field(parts, "zone")))
    return as_milliseconds(pc.coalesce(numbers, epoch))


def _zones(zones: pa.Array) -> pa.Array:
    """What is to be taken from a local time, in ms, for each zone as it is written."""
    coded = zones.dictionary_encode()
    offsets = []
    for zone in coded.dictionary.to_pylist():
        found = re.fullmatch(r" ?([+-])(\d\d):?(\d\d)?", zone)
        if found is None:
            offsets.append(0 if zone.strip() == "Z" else ZONE_MS)
        else:
            size = (int(found[2]) * 60 + int(found[3] or 0)) * 60_000
            offsets.append(-size if found[1] == "-" else size)
    return pa.array(offsets, pa.int64()).take(coded.indices)


def _dates(cells: pa.Array) -> pa.Array:
    _refuse(cells, pc.match_substring_regex(cells, _DATE), pa.date32())
    parts = pc.extract_regex(cells, rf"^{_DAY}")
    spelled = pc.binary_join_element_wise(*(_padded(parts, name) for name in ("year", "month", "day")), "-")
    return as_date(_cast(spelled, cells, pa.date32()))


def _cast(spelled: pa.Array, cells: pa.Array, wanted: pa.DataType) -> pa.Array:
    """`spelled` as days or times; a 30th of February is named as its cell has it."""
    try:
        return spelled.cast(wanted)
    except pa.ArrowInvalid:
        for row, text in enumerate(spelled.to_pylist()):
            try:
                pa.scalar(text, pa.string()).cast(wanted)
            except pa.ArrowInvalid:
                raise BadCell(f"{shown(cells[row].as_py())} is no {SQL_NAMES[wanted]}", row) from None
        raise
