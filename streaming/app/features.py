"""tables.sql and features.sql, checked: the tables, and the one query over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import pyarrow as pa

from streaming.app.settings import Deployment, key_place
from streaming.app.wrong import AppFile, WrongApp
from streaming.engine import BadRow, Engine, UnsupportedSQL
from streaming.engine.deployment.contract import Contract
from streaming.engine.sql import syntax
from streaming.engine.sql.parse import parse
from streaming.engine.storage.catalogue import TableInfo
from streaming.engine.storage.table import Column
from streaming.engine.types import Type

__all__ = ["FEATURES_MAX", "FeatureQuery", "Tables", "deploy", "read_query", "read_tables"]

FEATURES_MAX = 1_000
"""Columns of a feature query: more of them are a mistake, and each is an input of the model."""


@dataclass(frozen=True)
class Tables:
    """tables.sql.

    Attributes:
        database: where the tables are; '': in none.
        columns: of each table, by its name.
    """

    database: str
    columns: Mapping[str, tuple[Column, ...]]


@dataclass(frozen=True)
class FeatureQuery:
    """features.sql, planned.

    Attributes:
        columns: names and types of what it answers, in order.
        places: the offset in features.sql of each, where it can be told from the outermost SELECT.
        contract: which rows it reads, and its main table.
        plan: windows, joins and indexes, as `explain` prints them.
        tables: the tables, with the indexes that it needs.
        requests, answers: the columns of a request and of its answer.
    """

    columns: tuple[tuple[str, Type], ...]
    places: Mapping[str, int]
    contract: Contract
    plan: str
    tables: tuple[TableInfo, ...]
    requests: pa.Schema
    answers: pa.Schema


def read_tables(file: AppFile) -> tuple[Engine, Tables]:
    """The tables of tables.sql, and an engine that has them.

    Raises:
        WrongApp: names the place of what is wrong.
    """
    engine = Engine()
    try:
        for statement in parse(file.text):
            if not isinstance(
                statement, (syntax.CreateDatabase, syntax.Use, syntax.CreateTable, syntax.CreateIndex, syntax.Set)
            ):
                raise file.wrong("tables.sql makes tables: CREATE TABLE and CREATE INDEX only", statement.at)
        engine.execute(file.text)
    except UnsupportedSQL as error:
        raise file.sql_error(error) from None
    except BadRow as error:
        raise WrongApp(file.path, 0, 0, str(error)) from None
    found = [(database, table) for database in ["", *engine.databases()] for table in engine.tables(database)]
    databases = {database for database, _ in found}
    if not found:
        raise WrongApp(file.path, 0, 0, "no CREATE TABLE")
    if len(databases) > 1:
        raise WrongApp(file.path, 0, 0, f"tables of {len(databases)} databases: an application has one")
    columns = MappingProxyType({table.name: table.columns for _, table in found})
    return engine, Tables(databases.pop(), columns)


def read_query(file: AppFile) -> syntax.Select:
    """The SELECT of features.sql.

    Raises:
        WrongApp: there is none, or something else beside it, or it has too many columns.
    """
    try:
        statements = parse(file.text)
        if len(statements) != 1 or not isinstance(statements[0], syntax.Select):
            at = statements[1].at if len(statements) > 1 else 0
            what = f"{len(statements)} statements" if len(statements) != 1 else "another statement"
            raise file.wrong(f"features.sql is one SELECT, not {what}", at)
        select = statements[0]
    except UnsupportedSQL as error:
        raise file.sql_error(error) from None
    _check_count(file, len(select.items), select.at)
    if select.source is None:
        raise file.wrong("a query without FROM: it has no main table, whose rows are the requests", select.at)
    inner: syntax.Select | None = select
    while inner is not None:
        if inner.where is not None:
            raise file.wrong("WHERE of the main table: every request wants an answer", inner.where.at)
        if inner.limit is not None or inner.distinct:
            raise file.wrong("LIMIT or DISTINCT of the main table: every request wants an answer", inner.at)
        inner = inner.source.select if isinstance(inner.source, syntax.SubSelect) else None
    return select


def deploy(engine: Engine, tables: Tables, file: AppFile, deployment: Deployment, settings: AppFile) -> FeatureQuery:
    """Plans the query as the scorer deploys it.

    Args:
        engine: with the tables; it has the deployment afterwards.
        tables: these.
        file: features.sql.
        deployment: its name and options.
        settings: app.toml, where these stand.

    Raises:
        WrongApp: names the place of what is wrong.
    """
    select = read_query(file)
    options = ", ".join(f"{name}={value!r}" for name, value in deployment.options.items())
    script = f"DEPLOY {deployment.name} {f'OPTIONS({options})' if options else ''}\n{file.text}"
    try:
        plan = engine.explain(script)
        engine.execute(script)
    except UnsupportedSQL as error:
        if error.line == 1:  # the line before the query
            what = str(error).partition(" at 1:")[0]
            raise settings.wrong(what, key_place(settings.text, "deployment", "options")) from None
        raise file.sql_error(error, lines_before=1) from None
    except ValueError as error:  # of a time to live
        raise settings.wrong(str(error), key_place(settings.text, "deployment", "options")) from None
    (made,) = engine.deployments(tables.database)
    _check_count(file, len(made.answer), select.at)
    places = MappingProxyType({item.text if item.alias is None else item.alias: item.at for item in select.items})
    names = [name for name, _ in made.answer]
    for name in names:
        if names.count(name) > 1:
            raise file.wrong(f"two columns of the name {name}", places.get(name, select.at))
    name = deployment.name
    return FeatureQuery(
        made.answer,
        places,
        engine.contract(name),
        plan,
        tuple(engine.tables(tables.database)),
        engine.request_schema(name),
        engine.schema(name),
    )


def _check_count(file: AppFile, count: int, at: int) -> None:
    if count > FEATURES_MAX:
        raise file.wrong(f"{count} features; at most {FEATURES_MAX} are taken", at)
