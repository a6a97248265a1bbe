"""The scripts that OpenMLDB's command line runs, made from an application: tables, DEPLOY, LOAD DATA, INTO OUTFILE.

Paths are those that the servers see. What a script names stands in the application's database; one without a database
names none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Literal

from streaming.app.folder import App
from streaming.engine.sql.names import quoted
from streaming.engine.sql.parse import statement_text
from streaming.engine.sql.tokens import tokens_of
from streaming.errors import BadInput

__all__ = ["OUT", "deploy_script", "extract_script", "load_script", "query_text", "tables_script"]

OUT = "/root/project/out/1"
"""Where they write features."""

Mode = Literal["online", "offline"]


def tables_script(app: App) -> str:
    """tables.sql as it stands."""
    return app.sources["tables.sql"]


def query_text(app: App) -> str:
    """The SELECT of features.sql, without what stands before it and without its `;`."""
    text = app.sources["features.sql"]
    return statement_text(text, tokens_of(text)[0].at)


def deploy_script(app: App) -> str:
    """DEPLOY of the feature query for online requests."""
    deployment = app.settings.deployment
    options = ", ".join(f"{name}={_value(value)}" for name, value in deployment.options.items())
    return (
        "-- Deploys the feature query of features.sql for online requests.\n"
        "-- Deploy before loading: on a filled cluster the new indexes may miss rows that came in the last two "
        "seconds.\n"
        f"{_session(app, 'online')}"
        f"DEPLOY {deployment.name} {f'OPTIONS({options}) ' if options else ''}{query_text(app)};\n"
    )


def load_script(
    app: App, mode: Mode, data: str = "", formats: Mapping[str, str] | None = None, without: Collection[str] = ()
) -> str:
    """LOAD DATA of every table, in the order of tables.sql.

    Args:
        mode: `online`: added to what is in the tables; `offline`: in place of what was loaded for extraction before.
        data: the data folder, as the servers see it; "": as [history] of app.toml says.
        formats: of a table's files, `parquet` or `csv`, by the table's name; parquet where it is not named.
        without: tables that are not loaded.

    Raises:
        BadInput: a path that cannot stand in SQL.
    """
    what = "into the online tables, after DEPLOY" if mode == "online" else "for offline extraction"
    lines = [f"-- Loads history {what}.\n{_session(app, mode)}SET @@sync_job=true;\n"]
    written = "append" if mode == "online" else "overwrite"
    for table in app.tables.columns:
        if table in without:
            continue
        kind = (formats or {}).get(table, "parquet")
        folder = f"{(data or app.settings.history.path).rstrip('/')}/{app.settings.history.folders.get(table, table)}"
        path = _quoted(f"{folder}/*.{kind}")
        options = f"format='{kind}', header=true, mode='{written}'"
        lines.append(f"LOAD DATA INFILE {path} INTO TABLE {quoted(table)} OPTIONS({options});\n")
    return "".join(lines)


def extract_script(app: App, out: str = OUT, *, overwrite: bool = True) -> str:
    """SELECT … INTO OUTFILE: the features of every request of history, as a job.

    Args:
        out: where they go, as the servers see it.
        overwrite: whether what is there is replaced; else it is an error.

    Raises:
        BadInput: a path that cannot stand in SQL.
    """
    mode = "overwrite" if overwrite else "error_if_exists"
    return (
        "-- Extracts the features of features.sql for every request of history, as a job of its own.\n"
        f"{_session(app, 'offline')}SET @@sync_job=true;\n"
        f"{query_text(app)}\nINTO OUTFILE {_quoted(out)} OPTIONS(format='parquet', mode='{mode}');\n"
    )


def _session(app: App, mode: Mode) -> str:
    use = f"USE {quoted(app.tables.database)};\n" if app.tables.database else ""
    return f"{use}SET @@execute_mode='{mode}';\n"


def _value(value: str | int) -> str:
    return str(value) if isinstance(value, int) else _quoted(value)


def _quoted(text: str) -> str:
    """As a string of SQL."""
    if re.search(r"['\\\r\n]", text):
        raise BadInput(f"{text!r}: a quote, a backslash or a line's end cannot stand in SQL")
    return f"'{text}'"
