"""Does the deployed SQL make the features that the model was trained on?

An artifact holds the query of its training, `features.sql`, and its hash in `manifest.json`. `deploy.sql` holds what is
deployed. A different window or default in it would still give columns of the right names and types, and wrong scores.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import msgspec

from streaming.errors import ArtifactMismatch, ConfigError
from streaming.store.sql_scripts import script_text

__all__ = ["check_sql"]

DEPLOY, FEATURES, MANIFEST = "deploy.sql", "features.sql", "manifest.json"

_PIECE = re.compile(
    r"""
    (?P<space>\s+|--[^\n]*|\#[^\n]*|/\*.*?\*/)
  | `[^`]*` | '(?:[^'\\]|\\.|'')*' | "(?:[^"\\]|\\.|"")*"
  | \w+ | .
    """,
    re.VERBOSE | re.DOTALL,
)


class _Manifest(msgspec.Struct):
    """What is asked of `manifest.json`; the rest is `batch.train.export`'s."""

    sql_sha256: str


@dataclass(frozen=True)
class _Piece:
    """A word, name, string or symbol of a script, and the line (from 1) that it begins in."""

    text: str
    line: int


def check_sql(sql: Path, artifact: Path, deployment: str) -> None:
    """The query that `deploy.sql` deploys is the artifact's `features.sql`, but for comments and white space.

    Args:
        sql: the folder of the SQL scripts.
        artifact: the folder that `jd-intent-batch export` wrote.
        deployment: its name in `deploy.sql`.

    Raises:
        ArtifactMismatch: they differ, naming both files and the first line that does; a file of the artifact is
            missing, or not what the manifest says.
        ConfigError: `deploy.sql` cannot be read or has no such deployment.
    """
    script, features, manifest = sql / DEPLOY, artifact / FEATURES, artifact / MANIFEST
    deployed = script_text(script, "store.sql")
    try:
        content = features.read_bytes()
        wanted = msgspec.json.decode(manifest.read_bytes(), type=_Manifest).sql_sha256
        trained = content.decode()
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

    for ours, theirs in zip_longest(_deployed(script, deployed, deployment), _query(features, trained)):
        if ours is None or theirs is None or ours.text != theirs.text:
            raise ArtifactMismatch(
                "the deployed query is not the one that the model was trained on:\n"
                f"  {_place(script, deployed, ours)}\n  {_place(features, trained, theirs)}"
            )


def _deployed(file: Path, script: str, deployment: str) -> list[_Piece]:
    """The SELECT of `DEPLOY [IF NOT EXISTS] deployment [OPTIONS(…)] SELECT …`."""
    for statement in _statements(script):
        words = [piece.text.lower() for piece in statement]
        if words[0] != "deploy" or "select" not in words:
            continue
        name = statement[4 if words[1:4] == ["if", "not", "exists"] else 1].text.strip("`")
        if name == deployment:
            return statement[words.index("select") :]
    raise ConfigError(f"store.deployment: {file} does not deploy {deployment!r}")


def _query(file: Path, script: str) -> list[_Piece]:
    """The one SELECT of a script."""
    statements = list(_statements(script))
    if len(statements) != 1 or statements[0][0].text.lower() != "select":
        raise ArtifactMismatch(f"{file}: not one SELECT statement")
    return statements[0]


def _statements(script: str) -> Iterator[list[_Piece]]:
    statement: list[_Piece] = []
    line = 1
    for match in _PIECE.finditer(script):
        if match["space"] is None:
            if match[0] != ";":
                statement.append(_Piece(match[0], line))
            elif statement:
                yield statement
                statement = []
        line += match[0].count("\n")
    if statement:
        yield statement


def _place(file: Path, script: str, piece: _Piece | None) -> str:
    if piece is None:
        return f"{file}: the query ends"
    line = script.split("\n")[piece.line - 1]
    return f"{file}:{piece.line}: {line.strip()}"
