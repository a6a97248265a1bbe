"""Structured logs on stderr, JSON or console; what libraries log through `logging` takes the same way."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from streaming.config import Log

__all__ = ["configure", "place", "to_stderr"]


def configure(log: Log) -> None:
    """Sets up structlog and the root logger. JSON lines carry `timestamp` (UTC, ISO 8601), `level`, `event`, fields.

    In a worker of `run --workers` they carry `worker`, its number, too: all write to one stderr.
    """
    worker = os.environ.get("JD_INTENT_WORKER")

    def name_worker(_: object, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {**fields, "worker": worker}

    shared: list[Any] = [
        *([name_worker] if worker is not None else []),
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if log.format == "json" or (log.format == "auto" and not sys.stderr.isatty()):
        # A traceback without the values of variables: passwords and rows are among them.
        traced = structlog.processors.ExceptionRenderer(
            structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        )
        render: list[Any] = [traced, structlog.processors.JSONRenderer()]
    else:
        plain = structlog.dev.plain_traceback
        render = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render]
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(log.level.upper())
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


class _Stderr:
    """Where it is now: a test may have put another in its place."""

    def __getattr__(self, _: str) -> Any:
        return lambda message: print(message, file=sys.stderr)


def to_stderr() -> None:
    """For commands whose stdout is their answer: without `configure`, structlog prints there."""
    if not structlog.is_configured():
        structlog.configure(logger_factory=lambda *_: _Stderr())


def place(topic: str, partition: int, offset: int) -> str:
    """Where a record is, as every message of this program writes it."""
    return f"{topic}[{partition}]@{offset}"
