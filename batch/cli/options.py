"""Options that several commands have, and how they speak."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from streaming.app.folder import App

__all__ = [
    "AppFolder",
    "CheckpointFolder",
    "ConfigFile",
    "DataFolder",
    "DatasetFolder",
    "Force",
    "JobTimeout",
    "Seed",
    "Without",
    "chosen_app",
    "console",
    "say",
    "when_forced",
]

console = Console(highlight=False, soft_wrap=True)

Seed = Annotated[int, typer.Option(help="The same seed gives the same result.")]
DataFolder = Annotated[
    Path, typer.Option("--data", help="Folder with one of parquet (or csv) files for each table of the application.")
]
AppFolder = Annotated[
    Path | None, typer.Option("--app", help="Folder of the application; default: sql/jd, which comes with the program.")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="Of a cluster: its [store], see deploy/scorer.toml.")
]
Without = Annotated[
    list[str] | None,
    typer.Option("--without", help="A table that a cluster's DATA, not seen from here, has not; repeatable."),
]
JobTimeout = Annotated[float, typer.Option("--timeout", help="Seconds for each job on a cluster.", min=1)]
Force = Annotated[
    bool, typer.Option("--force", help="Write to --out though other things lie there: says what it removes, and does.")
]
DatasetFolder = Annotated[Path, typer.Option("--dataset", help="Folder that `prepare` wrote.")]
CheckpointFolder = Annotated[Path, typer.Option("--checkpoint", help="Folder that `train` wrote.")]


def chosen_app(folder: Path | None) -> App:
    """The application of `--app`.

    Raises:
        WrongApp: it cannot run.
    """
    from streaming.app.folder import load_app  # the model's environment shows the commands, and cannot plan queries
    from streaming.shipped_files import app_folder

    return load_app(app_folder(folder or "sql/jd"))


def say(line: str) -> None:
    """Prints a line as it is: brackets are no markup."""
    console.print(line, markup=False)


def when_forced(force: bool) -> Callable[[str], None] | None:
    """Who is told what `--force` removes; none: nothing that others wrote may be removed."""
    return say if force else None
