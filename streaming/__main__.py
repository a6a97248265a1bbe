"""`jd-intent-score`: run | serve | predict | send."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from streaming.errors import ScorerError

__all__ = ["app", "main"]

app = typer.Typer(
    name="jd-intent-score", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="Scores a shop's user actions: the probability that this user buys this product within five days.",
)  # fmt: skip

ConfigFile = Annotated[
    Optional[Path],  # noqa: UP045 - typer reads this at run time
    typer.Option("--config", "-c", help="TOML file; see deploy/scorer.toml. The environment (JD_INTENT__…) wins."),
]


@app.command()
def run(config: ConfigFile = None) -> None:
    """Score `user-actions` until SIGTERM or Ctrl-C.

    Exit status: 0 stopped, 1 a defect, 2 configuration, 3 encoder, model and SQL do not fit, 4 a server stayed away,
    5 Kafka refuses.
    """
    from streaming.run import main as run_scorer  # noqa: PLC0415 - seconds of imports that other commands do not need

    raise typer.Exit(run_scorer(config))


def main() -> None:
    """The console script: failures that have a clear message are printed without a traceback."""
    try:
        app()
    except ScorerError as error:
        print(f"jd-intent-score: {type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
