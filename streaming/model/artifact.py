"""Does the deployed SQL make the features that the model was trained on?

An artifact holds the query of its training, `features.sql`, and its hash in `manifest.json`. A different window or
default in the application's would still give columns of the right names and types, and wrong scores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import msgspec

from streaming.app.folder import App
from streaming.engine.errors import UnsupportedSQL
from streaming.engine.sql.tokens import Token
from streaming.errors import ArtifactMismatch
from streaming.store.sql_scripts import Script, statement_tokens

__all__ = ["check_sql"]

FEATURES, MANIFEST = "features.sql", "manifest.json"


class _Manifest(msgspec.Struct):
    """What is asked of `manifest.json`; the rest is `batch.train.export`'s."""

    sql_sha256: str


def check_sql(app: App, artifact: Path) -> None:
    """The application's query is the artifact's `features.sql`, but for comments and white space.

    Args:
        app: what is deployed.
        artifact: the folder that `jd-intent-batch export` wrote.

    Raises:
        ArtifactMismatch: they differ, naming both files and the first line that does; a file of the artifact is
            missing, or not what the manifest says.
    """
    features, manifest = artifact / FEATURES, artifact / MANIFEST
    script = Script(app.folder / FEATURES, app.sources[FEATURES])
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

    deployed, wanted_query = _query(script), _query(trained)
    for ours, theirs in zip_longest(deployed, wanted_query):
        if ours is None or theirs is None or ours.text != theirs.text:
            raise ArtifactMismatch(
                "the deployed query is not the one that the model was trained on:\n"
                f"  {_shown_place(script, ours)}\n  {_shown_place(trained, theirs)}"
            )


def _query(script: Script) -> Sequence[Token]:
    """The one SELECT of a file."""
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
