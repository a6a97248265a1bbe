"""`jd-intent-score deploy`: database, tables, indexes and deployment of an application on a cluster.

What is there is compared with the application, never changed in silence: the same does nothing, another is refused,
unless `replace` says that it may go. `CREATE TABLE IF NOT EXISTS` compares nothing, and `DEPLOY IF NOT EXISTS` fails on
what is there, so both are asked about first.
"""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from streaming.app.configured import configured_app
from streaming.app.folder import App
from streaming.app.scripts import deploy_script, tables_script
from streaming.config import Config
from streaming.engine import Engine, UnsupportedSQL
from streaming.engine.sql import syntax
from streaming.engine.sql.parse import parse
from streaming.engine.sql.tokens import tokens_of
from streaming.errors import ArtifactMismatch, ConfigError, StoreUnavailable
from streaming.store.open import open_cluster
from streaming.store.openmldb.cluster import StatementRunner
from streaming.store.openmldb.columns import backquoted, differences, schema_of
from streaming.store.openmldb.sdk import deployment_schemas
from streaming.store.sql_scripts import Script, statement_texts, within

__all__ = ["Scripts", "deploy", "normal_words", "run_deploy", "same_sql", "shown_sql", "table_columns"]

COUNTS_KNOWN_S = 5.0
"""The nameserver counts rows with ~2 s delay, and a DEPLOY fills its indexes only for rows that it has counted."""

INDEX_UNSEEN = re.compile("Isn't partition provider")
"""What DEPLOY answers, in one of six empty databases, when a tablet has not heard yet of the indexes that were just
added for it. The indexes stay: a little later the same statement works."""

DEPLOY_TRIES, DEPLOY_WAIT_S = 10, 1.0

DEPLOY_TIMEOUT_S = 600.0  # filling the indexes of tables that have rows takes as long as it takes

_SPELLINGS = {"!": "not", "==": "=", "<>": "!="}


@dataclass(frozen=True)
class Scripts:
    """What an application's scripts make.

    Attributes:
        app: whose they are.
        tables: name → its CREATE TABLE, as it is written.
        deployment: its DEPLOY, as it is written but for the biases.
        engine: has run them: it knows columns and indexes.
    """

    app: App
    tables: dict[str, str]
    deployment: str
    engine: Engine

    @property
    def database(self) -> str:
        """That they use."""
        return self.app.tables.database

    @property
    def name(self) -> str:
        """Of the deployment."""
        return self.app.settings.deployment.name

    @classmethod
    def made(cls, app: App, range_bias: str | None = None, rows_bias: str | None = None) -> Scripts:
        """The scripts; the biases, where given, stand for those of app.toml.

        Raises:
            ConfigError: the application has no database, which a cluster needs.
            UnsupportedSQL: a cluster does not compile the query; file, line and column are named.
        """
        if not app.tables.database:
            raise ConfigError(f"{app.folder / 'tables.sql'}: no CREATE DATABASE and USE: set store.database")
        engine, tables, deployment = Engine(portable=True), {}, ""
        for name, text in (("tables.sql", tables_script(app)), ("features.sql", deploy_script(app))):
            with within(Script(app.folder / name, text)):
                engine.execute(text)
            for made, statement in zip(parse(text), statement_texts(text), strict=True):
                if isinstance(made, syntax.CreateTable):
                    tables[made.name[-1]] = statement
                elif isinstance(made, syntax.Deploy):
                    deployment = statement
        return cls(app, tables, _biased(deployment, range_bias, rows_bias), engine)


def run_deploy(config: Config, *, replace: bool, range_bias: str | None, rows_bias: str | None) -> None:
    """The command.

    Raises:
        ConfigError: `store.kind` has nothing to deploy to, or the scripts do not fit the configuration.
        ArtifactMismatch: something else is there; nothing was changed.
        StoreUnavailable: the cluster does not answer.
    """
    app = configured_app(config)
    with open_cluster(config.store, app) as cluster:
        scripts = Scripts.made(app, range_bias, rows_bias)
        deploy(cluster, scripts, replace=replace, say=print)


def deploy(
    cluster: StatementRunner,
    scripts: Scripts,
    *,
    replace: bool = False,
    say: Callable[[str], None] = lambda _: None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Makes what is not there.

    Args:
        replace: may drop tables (with their rows) and the deployment where they differ.
        say: told each thing that was done or found.

    Raises:
        ArtifactMismatch: what differs, and where; nothing was changed.
        StoreUnavailable: the cluster does not answer.
    """
    database, name = scripts.database, scripts.name
    if database not in [row[0] for row in cluster.execute("SHOW DATABASES")]:
        cluster.execute(f"CREATE DATABASE IF NOT EXISTS {backquoted(database)}")
        say(f"database {database}: made")
    cluster.execute(f"USE {backquoted(database)}")
    cluster.execute("SET @@execute_mode='online'")
    there = {row[0] for row in cluster.execute("SHOW TABLES")}
    deployed = name in _deployments(cluster)
    wrong = {
        table: found for table in scripts.tables if table in there and (found := _table_wrong(cluster, scripts, table))
    }
    changed = _deployment_wrong(cluster, scripts, name) if deployed else []
    if (wrong or changed) and not replace:
        found = [f"table {table}: {'; '.join(why)}" for table, why in wrong.items()]
        found += [f"deployment {name}: {why}" for why in changed]
        raise ArtifactMismatch(
            f"database {database} differs from {scripts.app.folder}: {' | '.join(found)}. Nothing was changed; "
            f"--replace makes it anew{', and drops the rows of these tables' if wrong else ''}"
        )
    if deployed and (wrong or changed):
        cluster.execute(f"DROP DEPLOYMENT {backquoted(name)}")
        say(f"deployment {name}: dropped")
        deployed = False
    for table, statement in scripts.tables.items():
        if table in wrong:
            cluster.execute(f"DROP TABLE {backquoted(table)}")
            say(f"table {table}: dropped, with its rows")
        if table in there and table not in wrong:
            say(f"table {table}: is there")
        else:
            cluster.execute(statement)
            say(f"table {table}: made")
    if deployed:
        say(f"deployment {name}: is there")
    else:
        if any(_filled(cluster, table) for table in scripts.tables if table in there and table not in wrong):
            say(f"tables have rows: waiting {COUNTS_KNOWN_S:.0f} s, until the nameserver has counted them")
            sleep(COUNTS_KNOWN_S)
        _deploy(cluster, scripts.deployment, sleep)
        say(f"deployment {name}: made")
    for row in cluster.execute(f"SHOW DEPLOYMENT {backquoted(database)}.{backquoted(name)}"):
        say(row[0])


def normal_words(sql: str) -> list[str]:
    """The words of a statement, in one spelling: as OpenMLDB's own formatter and people write the same differently.

    Raises:
        UnsupportedSQL: a character is none of SQL's.
    """
    found = []
    for token in tokens_of(sql)[:-1]:
        if token.kind == "string":
            found.append(f"'{token.text[1:-1]}'")
            continue
        word = token.text.strip("`").lower()
        if word not in ("as", ";"):
            found.append(_SPELLINGS.get(word, word))
    answer = []
    at = 0
    while at < len(found):
        answer.append(found[at])
        if found[at] == "over" and found[at + 1 : at + 4 : 2] == ["(", ")"]:  # OVER (w) is OVER w
            answer.append(found[at + 2])
            at += 3
        at += 1
    return answer


def same_sql(one: str, two: str) -> str | None:
    """None when two DEPLOY statements say the same; else where they part, in words.

    Args:
        one: of the scripts.
        two: as the cluster shows it.
    """
    try:
        other_words = normal_words(two)
    except UnsupportedSQL as error:
        return f"what the cluster shows cannot be compared: {error}"
    (options, query), (other_options, other_query) = _parts(normal_words(one)), _parts(other_words)
    for bias in ("range_bias", "rows_bias"):
        if options.get(bias) != other_options.get(bias):
            return f"{bias.upper()} is {other_options.get(bias)}, not {options.get(bias)}"
    for at, (mine, other) in enumerate(zip(query, other_query, strict=False)):
        if mine != other:
            near = slice(max(0, at - 6), at + 6)
            return f"… {' '.join(other_query[near])} … instead of … {' '.join(query[near])} …"
    if len(query) != len(other_query):
        return f"it ends with … {' '.join(other_query[-8:])}, not with … {' '.join(query[-8:])}"
    return None


def shown_sql(shown: str) -> str:
    """The DEPLOY statement in the text of SHOW DEPLOYMENT.

    Raises:
        ArtifactMismatch: there is none.
    """
    found = re.search(r"^\s*(DEPLOY\b.*?)^\s*-{4,}", shown, re.MULTILINE | re.DOTALL | re.IGNORECASE)
    if found is None:
        raise ArtifactMismatch(f"SHOW DEPLOYMENT shows no statement: {shown[:300]}")
    return found[1]


def table_columns(created: str) -> pa.Schema:
    """The columns in the text of SHOW CREATE TABLE; not parsed, as newer servers may say more of a table."""
    words = tokens_of(created)
    return schema_of(
        [
            (name.text.strip("`"), kind.text)
            for before, name, kind in zip(words, words[1:], words[2:], strict=False)
            if before.text in ("(", ",") and name.kind == "quoted" and kind.kind == "word"
        ]
    )


def _table_wrong(cluster: StatementRunner, scripts: Scripts, table: str) -> list[str]:
    created = cluster.execute(f"SHOW CREATE TABLE {backquoted(table)}")[0][1]
    return differences(scripts.engine.table_schema(f"{scripts.database}.{table}"), table_columns(created))


def _deployment_wrong(cluster: StatementRunner, scripts: Scripts, name: str) -> list[str]:
    shown = "\n".join(
        row[0] for row in cluster.execute(f"SHOW DEPLOYMENT {backquoted(scripts.database)}.{backquoted(name)}")
    )
    expected = scripts.engine.request_schema(name), scripts.engine.schema(name)
    found = deployment_schemas(shown)
    wrong = [
        f"{what} {part}"
        for what, one, two in zip(("request", "answer"), expected, found, strict=True)
        for part in differences(one, two)
    ]
    part = same_sql(scripts.deployment, shown_sql(shown))
    return wrong + ([part] if part else [])


def _deploy(cluster: StatementRunner, statement: str, sleep: Callable[[float], None]) -> None:
    for left in range(DEPLOY_TRIES - 1, -1, -1):
        try:
            cluster.execute(statement, timeout_s=DEPLOY_TIMEOUT_S)
        except StoreUnavailable as error:
            if not left or INDEX_UNSEEN.search(str(error)) is None:
                raise
            sleep(DEPLOY_WAIT_S)
        else:
            return


def _deployments(cluster: StatementRunner) -> list[str]:
    """Of the database in use: the server refuses to answer without one, and does not look at FROM."""
    try:
        return [row[1] for row in cluster.execute("SHOW DEPLOYMENTS")]
    except StoreUnavailable as error:
        if "not found" in str(error):  # a database that never had one
            return []
        raise


def _filled(cluster: StatementRunner, table: str) -> bool:
    """Whether a table has rows; of none, SELECT count(*) answers no row."""
    return any(row[0] for row in cluster.execute(f"SELECT count(*) FROM {backquoted(table)}"))


def _biased(statement: str, range_bias: str | None, rows_bias: str | None) -> str:
    given = {"RANGE_BIAS": range_bias, "ROWS_BIAS": rows_bias}
    given = {key: value for key, value in given.items() if value is not None}
    if not given:
        return statement
    if not re.fullmatch(r"inf|\d+[smhd]?", range_bias or "inf") or not re.fullmatch(r"inf|\d+", rows_bias or "inf"):
        raise ConfigError("a bias is 'inf' or a number, that of a range (milliseconds) also a number with s, m, h or d")
    made, words = parse(statement)[0], tokens_of(statement)
    if not isinstance(made, syntax.Deploy):
        raise ConfigError(f"{statement[:60]} … is no DEPLOY")
    name = words[4 if made.if_not_exists else 1]
    query = next(word.at for word in words if word.lower == "select")
    options = {key.upper(): _constant(value) for key, value in made.options.items()}
    options |= {key: f"'{value}'" if value == "inf" else str(value) for key, value in given.items()}
    shown = ", ".join(f"{key}={value}" for key, value in options.items())
    return f"{statement[: name.at + len(name.text)]} OPTIONS({shown}) {statement[query:]}"


def _constant(value: object) -> str:
    """An option's value as a script spells it; the server takes no span in quotes."""
    if isinstance(value, datetime.timedelta):
        return str(value // datetime.timedelta(milliseconds=1))
    if isinstance(value, (bool, int)):
        return str(value).lower()
    return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"


def _parts(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """The options of a DEPLOY, and its query."""
    options: dict[str, str] = {}
    rest = words[words.index("select") :] if "select" in words else words
    head = words[: len(words) - len(rest)]
    for at, word in enumerate(head):
        if word == "=":
            options[head[at - 1]] = head[at + 1].strip("'")
    return options, rest
