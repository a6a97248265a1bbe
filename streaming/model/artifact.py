"""Does the deployed SQL make the features that the model was trained on?

An artifact holds the query of its training, `features.sql`, and its hash in `manifest.json`. `deploy.sql` holds what is
deployed. A different window or default in it would still give columns of the right names and types, and wrong scores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path

import msgspec

from streaming.app.folder import App
from streaming.engine.errors import UnsupportedSQL
from streaming.engine.sql.tokens import Token
from streaming.errors import ArtifactMismatch, ConfigError
from streaming.store.sql_scripts import FEATURES, Script, read_script, statement_tokens, within

__all__ = ["check_app", "check_sql"]

DEPLOY, MANIFEST = "deploy.sql", "manifest.json"


class _Manifest(msgspec.Struct):
    """What is asked of `manifest.json`; the rest is `batch.train.export`'s."""

    sql_sha256: str


def check_app(app: App, artifact: Path) -> None:
    """The application's query is the artifact's `features.sql`, but for comments and white space.

    Args:
        app: what is deployed.
        artifact: the folder that `jd-intent-batch export` wrote.

    Raises:
        ArtifactMismatch: they differ, naming both files and the first line that does; a file of the artifact is
            missing, or not what the manifest says.
    """
    ours = Script(app.folder / FEATURES, app.sources[FEATURES])
    _compare(ours, lambda: next(statement_tokens(ours.text)), artifact)


def check_sql(sql: Path, artifact: Path, deployment: str) -> None:
    """`check_app` of a folder of scripts: the query that `deploy.sql` deploys.

    Args:
        sql: the folder of the SQL scripts.
        artifact: the folder that `jd-intent-batch export` wrote.
        deployment: its name in `deploy.sql`.

    Raises:
        ArtifactMismatch: see `check_app`.
        ConfigError: `deploy.sql` cannot be read or has no such deployment. UnsupportedSQL: it is no SQL.
    """
    script = read_script(sql / DEPLOY, "store.sql")
    _compare(script, lambda: _deployed_query(script, deployment), artifact)


def _compare(script: Script, query: Callable[[], Sequence[Token]], artifact: Path) -> None:
    """Holds a query of a script against the artifact's."""
    features, manifest = artifact / FEATURES, artifact / MANIFEST
    try:
        content = features.read_bytes()
        wanted = msgspec.json.decode(manifest.read_bytes(), type=_Manifest).sql_sha256
        trained = Script(features, content.decode())
    except OSError as error:
        raise ArtifactMismatch(
            f"{error.filename}: {error.strerror}: is {artifact} a folder that `jd-intent-batch export` wrote?"
        ) from error
    except msgspec.DecodeError as error:
        raise ArtifactMismatch(f"{manifest}: {error}") from error
    except UnicodeDecodeError as error:
        raise ArtifactMismatch(f"{features}: {error}") from error
    found = f"sha256:{hashlib.sha256(content).hexdigest()}"
    if found != wanted:
        raise ArtifactMismatch(f"{features} was changed: it has {found}, {manifest} says {wanted}")
    for ours, theirs in zip_longest(query(), _trained_query(trained)):
        if ours is None or theirs is None or ours.text != theirs.text:
            raise ArtifactMismatch(
                "the deployed query is not the one that the model was trained on:\n"
                f"  {_shown_place(script, ours)}\n  {_shown_place(trained, theirs)}"
            )


def _deployed_query(script: Script, deployment: str) -> Sequence[Token]:
    """The SELECT of `DEPLOY [IF NOT EXISTS] deployment [OPTIONS(…)] SELECT …`."""
    with within(script):
        statements = list(statement_tokens(script.text))
    for statement in statements:
        words = [token.lower for token in statement]
        if words[0] != "deploy" or "select" not in words:
            continue
        name = statement[4 if words[1:4] == ["if", "not", "exists"] else 1].text.strip("`")
        if name == deployment:
            return statement[words.index("select") :]
    raise ConfigError(f"store.deployment: {script.path} does not deploy {deployment!r}")


def _trained_query(script: Script) -> Sequence[Token]:
    """The one SELECT of the artifact."""
    try:
        statements = list(statement_tokens(script.text))
    except UnsupportedSQL as error:
        raise ArtifactMismatch(f"{script.path}: {error}") from error
    if len(statements) != 1 or statements[0][0].lower != "select":
        raise ArtifactMismatch(f"{script.path}: not one SELECT statement")
    return statements[0]


def _shown_place(script: Script, token: Token | None) -> str:
    """File, line number and line of a token; None: the query ended before."""
    if token is None:
        return f"{script.path}: the query ends"
    place = script.place_at(token.at)
    return f"{place.path}:{place.line}: {script.line(place).strip()}"
