"""The JSON bodies of calls: read, and refused as the API server refuses them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from streaming.engine.storage.catalogue import DeploymentInfo
from streaming.engine.storage.table import Column
from streaming.engine.types import Type
from streaming.standin.cells import SPELLINGS, Unfit, cell, parse_json, shown
from streaming.standin.refusals import CallRefused

__all__ = ["cell_of", "query_request", "request_row"]

MODES = ("offsync", "offasync", "online", "onsync")


def cell_of(column: Column, value: Any) -> Any:
    """A value of JSON as the column holds it.

    Raises:
        Unfit: it is none of the column's type, or NULL where there may be none.
    """
    if value is None and not column.nullable:
        raise Unfit
    return cell(value, column.type)


def request_row(info: DeploymentInfo, row: Any, place: int) -> list[Any]:
    """A request row, given as an array or a map; its values in the deployment's order.

    Args:
        place: its number in the call, for messages.

    Raises:
        CallRefused: it does not fit the deployment.
    """
    if isinstance(row, list):
        if len(row) != len(info.request):
            raise CallRefused(f"Invalid input data size in row {place}")
        given: Mapping[str, Any] = {column.name: value for column, value in zip(info.request, row, strict=True)}
        kind = "array"
    elif isinstance(row, dict):
        given, kind = row, "map"
        for column in sorted(info.request, key=lambda column: column.type != Type.STRING):  # it looks for these first
            if column.name not in row:
                what = "col " if column.type == Type.STRING else ""
                why = f"INVALID_ARGUMENT: can't find {what}{column.name}"
                raise CallRefused(f"Translate to request row failed in map row {place}, {why}")
    else:
        raise CallRefused(f"Must be array or map, row {place}")
    values = []
    for column in info.request:
        value = given[column.name]
        try:
            values.append(cell_of(column, value))
        except Unfit:
            number = SPELLINGS[column.type].number
            why = f"INVALID_ARGUMENT: trans failed on {column.name}({number}): {shown(value)}"
            raise CallRefused(f"Translate to request row failed in {kind} row {place}, {why}") from None
    return values


def query_request(body: bytes) -> tuple[str, str, bool]:
    """(SQL, mode, whether NaN and infinite numbers become null) of a request to run SQL.

    Raises:
        CallRefused: the body is no such request.
    """

    def wrong(why: str) -> CallRefused:
        return CallRefused(f"Json parse failed, INVALID_ARGUMENT: {why}")

    try:
        request = parse_json(body)
    except ValueError:
        request = None
    if not isinstance(request, dict):
        raise wrong("req is not object")
    mode, sql = request.get("mode"), request.get("sql")
    if not isinstance(mode, str):
        raise wrong("mode parse failed")
    if not isinstance(sql, str):
        raise wrong("sql parse failed")
    timeout = request.get("timeout", 0)
    if not isinstance(timeout, int) or isinstance(timeout, bool):
        raise wrong("timeout parse failed")
    parameters = _parameters(request, wrong)
    finite = request.get("write_nan_and_inf_null", False)
    if not isinstance(finite, bool):
        raise wrong("write_nan_and_inf_null parse failed")
    if mode.lower() not in MODES:
        raise CallRefused(f"Invalid mode {mode.lower()}")
    if parameters:
        raise CallRefused("parameters are not supported by this stand-in: write the values into the statement", 1000)
    return sql, mode.lower(), finite


def _parameters(request: Mapping[str, Any], wrong: Callable[[str], CallRefused]) -> list[Any]:
    if "input" not in request:
        return []
    given = request["input"]
    if not isinstance(given, dict):
        raise wrong("input is not object")
    schema, data = given.get("schema"), given.get("data")
    if schema is None or data is None:
        return []
    if not isinstance(schema, list) or not isinstance(data, list):
        raise wrong("input parse failed")
    if len(schema) != len(data):
        raise wrong(f"data size {len(data)} != schema size {len(schema)}")
    return data
