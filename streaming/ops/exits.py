"""How a command ends: one table of exit statuses for both programs, one line on stderr, one `main` for both.

All statuses of both programs are written here; a command that ends with another than these has a defect.

      0  done, or told to stop
      1  a defect of this program (with a traceback); or the answer is no: `parity` differs, a replay left records out
      2  usage, configuration, a login, a file, a folder to write or a script is wrong: somebody has to mend it
      3  encoder, model, deployed SQL and cluster do not belong together
      4  a server stayed away, or a request got no answer in time: later may help
      5  Kafka refuses, a right lacks, the log is not whole, or another process is in the way: a supervisor may start it
         again
    143  a step of `jd-intent-batch` was told to stop by SIGTERM, and took away what it had half written

Imports nothing of what only one environment has (see `streaming.ops.environment`).
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import structlog
import typer

from streaming.errors import (
    Aborted,
    ArtifactMismatch,
    BadSnapshot,
    FolderTaken,
    LogNotWhole,
    NotAllowed,
    ScorerError,
    TransactionFatal,
    Unavailable,
    WorkerFailed,
)
from streaming.ops.environment import SWITCHED, go_on_elsewhere

__all__ = [
    "ANSWER_IS_NO",
    "BATCH",
    "DEFECT",
    "DONE",
    "KAFKA_REFUSES",
    "MISMATCH",
    "MISTAKE",
    "SCORE",
    "TERMINATED",
    "UNAVAILABLE",
    "ended",
    "exit_status",
    "main",
    "message",
]

SCORE, BATCH = "jd-intent-score", "jd-intent-batch"

DONE = 0
DEFECT = ANSWER_IS_NO = 1
MISTAKE = 2
MISMATCH = 3
UNAVAILABLE = 4
KAFKA_REFUSES = 5
TERMINATED = 128 + signal.SIGTERM


def exit_status(error: BaseException) -> int:
    """The status that stands for a failure; 1: nobody expected it."""
    match error:
        case WorkerFailed():
            return error.status
        case Unavailable() | ConnectionError() | TimeoutError():
            return UNAVAILABLE
        case ArtifactMismatch():
            return MISMATCH
        case TransactionFatal() | Aborted() | LogNotWhole() | NotAllowed() | FolderTaken() | BadSnapshot():
            return KAFKA_REFUSES
        case ScorerError() if type(error) is ScorerError and error.__cause__ is not None:
            return exit_status(error.__cause__)  # a plain one says what failed, its cause says why
        case ScorerError() | OSError():
            return MISTAKE
    if isinstance(error, _loaded("streaming.engine.errors", "UnsupportedSQL", "BadRow")):
        return MISTAKE
    return KAFKA_REFUSES if isinstance(error, _loaded("confluent_kafka", "KafkaException")) else DEFECT


def message(error: BaseException) -> str:
    """What is wrong and where, without the names of classes."""
    if isinstance(error, OSError) and error.strerror:
        places = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return f"{' -> '.join(places)}: {error.strerror}" if places else error.strerror
    told: Any = error.args[0] if error.args else ""
    return str(told.str()) if isinstance(error, _loaded("confluent_kafka", "KafkaException")) else str(error)


def ended(program: str, error: Exception) -> int:
    """Says in one line why a command ends; a defect is raised again, for its traceback.

    Returns:
        The exit status.
    """
    status = exit_status(error)
    if status == DEFECT:
        raise error
    print(f"{program}: {message(error)}", file=sys.stderr)
    return status


def main(program: str, module: str, app: typer.Typer) -> None:
    """A console script: runs the command, in the other environment where this one lacks what the command needs.

    Args:
        module: that runs the same program as `python -m module`.
    """
    # Commands that set up no log of their own: what they meet on their way is told on stderr, answers on stdout.
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    came = os.environ.pop(SWITCHED, "")  # said to this process, and to none that it starts
    try:
        try:
            app(prog_name=program)
        except ModuleNotFoundError as error:
            go_on_elsewhere(program, module, error, came)
    except Exception as error:
        sys.exit(ended(program, error))


def _loaded(module: str, *names: str) -> tuple[type, ...]:
    """Classes of a module that takes long to import, or that this environment lacks: none where nobody imported it."""
    found = sys.modules.get(module)
    return tuple(getattr(found, name) for name in names) if found is not None else ()
