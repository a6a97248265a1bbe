"""What the stand-in refuses: the server's code and message for what the engine says."""

from __future__ import annotations

import re

__all__ = ["CallRefused", "insert_refusal", "refusal"]

_NS_FAILED = "ns create procedure failed--ReturnCode[-1]"
# What the engine says → the server's code and message; the first that matches. {} is all that the engine said.
_REFUSALS = (
    (r"syntax error", 1001, "create logic plan tree failed--{}"),
    (r"database .* exists already", 2000, "Create database failed for database already exists"),
    (r"database .* still has tables", 2000, "database not empty"),
    (r"unknown database", 2000, "database not found--{}"),
    (r"table .* exists already", 2000, "table already exists"),
    (r"table .* is used by deployment", 2000, "fail to drop, table has associated deployment: {}"),
    (r"deployment .* exists already", 2001, f"{_NS_FAILED}--store procedure already exists"),
    (r"unknown deployment", 2000, "deployment not found"),
    (r"unknown table", 1202, "{}"),
    (r"unknown column", 1204, "{}"),
)


class CallRefused(ValueError):
    """A call that is answered with an error.

    Args:
        message: the server's words.
        code: the server's; -1 where it gives none of its own.
    """

    def __init__(self, message: str, code: int = -1) -> None:
        super().__init__(message)
        self.code = code


def refusal(message: str) -> CallRefused:
    """Of a statement.

    Args:
        message: what the engine says.
    """
    for pattern, code, template in _REFUSALS:
        if re.search(pattern, message):
            return CallRefused(template.format(message), code)
    return CallRefused(message, 1000)


def insert_refusal(message: str, database: str, sql: str) -> CallRefused:
    """Of an INSERT, for which the server has words of its own.

    Args:
        message: what the engine says.
        database: in which it was to run.
        sql: the statement.
    """
    unknown = re.match(r"unknown (table|column) (\S+)(?: in (\S+))?", message)
    if unknown is None:
        why = f"fail to get sql plan with sql {sql}--" if "syntax error" in message else "fail to parse row--"
        why += message
    elif unknown[1] == "table":
        why = f"{database}-{unknown[2]} not exist"
    else:
        why = f"can't find column {unknown[2]} in table {unknown[3]}"
    return CallRefused(f"Fail to get insert info--{why}", 2000)
