"""The files of `store.history`: which tables of load_online.sql it has, and whether they can be loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from streaming.config import Store
from streaming.engine import Engine
from streaming.engine.sql.parse import parse, statement_text
from streaming.engine.sql.syntax import LoadData
from streaming.engine.statements.outfile import resolve
from streaming.errors import ConfigError
from streaming.files.tables import BadFile, check_columns, is_there, load_options
from streaming.store.sql_scripts import blanked, read_script, within

__all__ = ["checked", "present"]


def present(script: str, prefixes: Mapping[str, str]) -> tuple[str, list[LoadData]]:
    """`script` without the LOADs of tables that history has no folder of, and these; an empty folder is an error.

    Args:
        prefixes: of the script's paths, and what stands for them.

    Raises:
        UnsupportedSQL: a syntax error.
    """
    left_out = [load for load in _loads(script) if _lacks(load, prefixes)]
    for load in left_out:
        text = statement_text(script, load.at)
        script = script[: load.at] + blanked(text) + script[load.at + len(text) :]
    return script, left_out


def checked(settings: Store) -> dict[str, list[Path]]:
    """The files that a start would load, by table. Each can be opened and has its table's columns; no value is read.

    Raises:
        ConfigError: a script, a file or an option of LOAD DATA is wrong, or there is no such table.
        UnsupportedSQL: a script says what the engine cannot run.
    """
    engine, prefixes = Engine(), {settings.history_prefix: settings.history}
    made = read_script(Path(settings.sql) / "create_tables.sql", "store.sql")
    with within(made):
        engine.execute(made.text)
    loaded = read_script(Path(settings.sql) / "load_online.sql", "store.sql")
    with within(loaded):
        loads = list(_loads(loaded.text))
    found: dict[str, list[Path]] = {}
    for load in loads:
        if _lacks(load, prefixes):
            continue
        table = load.table[-1]
        try:
            columns = engine.table_schema(".".join((settings.database, *load.table)[-2:]))
            files = check_columns(resolve(load.path, prefixes), columns, load_options(load.options))
        except (BadFile, KeyError, ValueError) as error:
            raise ConfigError(f"{loaded.path}: LOAD DATA INTO TABLE {table}: {error}") from error
        found[table] = [*found.get(table, []), *files]
    return found


def _loads(script: str) -> Iterator[LoadData]:
    return (statement for statement in parse(script) if isinstance(statement, LoadData))


def _lacks(load: LoadData, prefixes: Mapping[str, str]) -> bool:
    """Whether a table's files would lie in history, and there are none."""
    path = load.path.removeprefix("file://")
    within_history = any(path.startswith(prefix.rstrip("/") + "/") for prefix in prefixes)
    return within_history and not is_there(resolve(path, prefixes))
