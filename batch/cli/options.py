"""Options that several commands have, and how they speak."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

__all__ = [
    "CheckpointFolder",
    "ConfigFile",
    "DataFolder",
    "DatasetFolder",
    "Force",
    "JobTimeout",
    "NoAction",
    "Seed",
    "SqlFolder",
    "console",
    "say",
    "when_forced",
]

console = Console(highlight=False, soft_wrap=True)

Seed = Annotated[int, typer.Option(help="The same seed gives the same result.")]
DataFolder = Annotated[Path, typer.Option("--data", help="Folder in the tutorial's layout (bo_action/*.parquet, …).")]
SqlFolder = Annotated[
    Path | None, typer.Option("--sql", help="Folder of the SQL scripts; default: the project's sql/.")
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="Of a cluster: its [store], see deploy/scorer.toml.")
]
NoAction = Annotated[
    bool, typer.Option("--no-action", help="A cluster's DATA that is not seen from here has no table `action`.")
]
JobTimeout = Annotated[float, typer.Option("--timeout", help="Seconds for each job on a cluster.", min=1)]
Force = Annotated[
    bool, typer.Option("--force", help="Write to --out though other things lie there: says what it removes, and does.")
]
DatasetFolder = Annotated[Path, typer.Option("--dataset", help="Folder that `prepare` wrote.")]
CheckpointFolder = Annotated[Path, typer.Option("--checkpoint", help="Folder that `train` wrote.")]


def say(line: str) -> None:
    """Prints a line as it is: brackets are no markup."""
    console.print(line, markup=False)


def when_forced(force: bool) -> Callable[[str], None] | None:
    """Who is told what `--force` removes; none: nothing that others wrote may be removed."""
    return say if force else None
