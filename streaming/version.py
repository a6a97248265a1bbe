"""`--version` of both programs."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

__all__ = ["Version"]

DISTRIBUTION = "jd-intent-scorer"


def _tell(asked: bool) -> None:
    if asked:
        try:
            typer.echo(f"{DISTRIBUTION} {version(DISTRIBUTION)}")
        except PackageNotFoundError:  # a checkout on the path, not installed
            typer.echo(f"{DISTRIBUTION} (a checkout that is not installed)")
        raise typer.Exit


Version = Annotated[bool, typer.Option("--version", help="Print the version and exit.", callback=_tell, is_eager=True)]
