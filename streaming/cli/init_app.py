"""`jd-intent-score init`: drafts an application's folder, and says what is left to do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["init"]


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write; no file of it is overwritten.")],
    first: Annotated[
        list[Path],
        typer.Option(
            "--from", help="A sample of a topic's events, JSON lines or parquet; its name is the topic's. Repeatable."
        ),
    ],
    more: Annotated[list[Path] | None, typer.Argument(metavar="[PATH]...", help="More samples.")] = None,
    scored: Annotated[
        str | None, typer.Option(help="The name of the file whose events are scored; default: the longest one.")
    ] = None,
) -> None:
    """Draft an application from samples of its events: tables.sql, events.sql, features.sql, app.toml.

    Types are guessed from all rows, keys and times from names and values. What only you know stands as a QUESTION in
    app.toml; `check` names the one that must be answered, the label.
    """
    from streaming.app.draft.write import draft

    guesses = draft(folder, [*first, *(more or ())], scored)
    for guess in guesses:
        key = "no key" if guess.key is None else f"key {guess.key.field.name}"
        use = "scored" if guess.scored else "looked up" if guess.join is not None else "not looked up: it shares no key"
        print(f"{guess.name}: {guess.sample.rows:,} rows, {key}, event time {guess.time.field.name}, {use}")
        for name, why in guess.left_out:
            print(f"  {name!r} is left out: {why}")
    print(f"wrote {folder}: edit it, answer the QUESTIONs of app.toml, then: jd-intent-score check {folder}")
