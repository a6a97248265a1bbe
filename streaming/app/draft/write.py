"""The draft of an application: from sample files to the four files in a folder, over nothing that is there."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

from streaming.app.draft.guesses import Guess, guessed
from streaming.app.draft.names import identifier
from streaming.app.draft.samples import read_sample
from streaming.app.draft.sql_text import events_sql, features_of, tables_sql
from streaming.app.draft.toml_text import app_toml
from streaming.app.folder import FILES
from streaming.errors import OutputRefused
from streaming.files.output_folder import appending

__all__ = ["draft"]


def draft(folder: Path, files: Sequence[Path], scored: str | None = None) -> list[Guess]:
    """Writes tables.sql, features.sql, events.sql and app.toml; returns what was guessed, the scored stream first.

    Args:
        folder: where none of the four is yet; it is made if need be.
        files: a sample per topic; the name of each, without its ending, is the stream's and the topic's.
        scored: the name of the file whose events are scored; default: the one with the most rows.

    Raises:
        BadInput: a file cannot be used; the message names it, and its row. OutputRefused: one of the four is there.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputRefused(f"{folder} is a file, not a folder")
    for name in FILES:
        if (folder / name).exists() or (folder / name).is_symlink():
            raise OutputRefused(f"{folder} has a file {name} already: nothing is overwritten")
    guesses = guessed([read_sample(file) for file in files], scored)
    features = features_of(guesses)
    name = re.sub(r"[^a-z0-9_-]+", "-", folder.resolve().name.lower()).strip("-_")
    name = name if name and name[0].isalpha() else f"app-{name}".rstrip("-")
    database = identifier(name, "app")
    texts = {
        "tables.sql": tables_sql(guesses, database),
        "features.sql": features.text,
        "events.sql": events_sql(guesses),
        "app.toml": app_toml(guesses, features, name[:64], database),
    }
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputRefused(f"{folder}: {error.strerror}") from None
    try:
        with appending(folder, "application") as fresh:
            for file, text in texts.items():
                (fresh / file).write_text(text, encoding="utf-8")
    except BaseException:
        for place in missing:
            with contextlib.suppress(OSError):  # it is not empty: somebody uses it by now
                place.rmdir()
        raise
    return guesses
