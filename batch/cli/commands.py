"""`jd-intent-batch`: from history to a model that Triton serves, one command per step.

train and evaluate run in the model's environment, the others in the scorer's: given in the other one, a command goes
on in its own. Each imports what it needs when it runs, so that both can show all of them.
"""

from __future__ import annotations

import signal
import sys

import typer

from batch.cli.data_commands import encode, extract, generate, load_online, parity, prepare
from batch.cli.history_commands import backfill
from batch.cli.model_commands import evaluate, export, train
from batch.cli.report_commands import match, report
from streaming.ops import exits
from streaming.version import Version

__all__ = ["app", "main"]

app = typer.Typer(
    name=exits.BATCH,
    help=__doc__,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def program(version: Version = False) -> None:
    """Options of the program itself."""


for command in (
    generate,
    backfill,
    extract,
    load_online,
    prepare,
    encode,
    train,
    evaluate,
    report,
    match,
    export,
    parity,
):
    app.command()(command)


def main() -> None:
    """The console script; told to stop, it takes away what is half written."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(exits.TERMINATED))
    exits.main(exits.BATCH, "batch", app)
