"""Structured logs on stderr, JSON or console; what libraries log through `logging` takes the same way."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from typing import Any

import structlog

from streaming.config import Log

__all__ = ["Seldom", "configure", "place", "to_stderr"]

SELDOM_S = 10.0
KINDS_MAX = 1000  # that are remembered


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


class Seldom(logging.Filter):
    """Lets a line through that differs from one of the last `SELDOM_S` by more than what stands in `(after …)` at its
    end; the next one of its kind tells how many there were.

    librdkafka 2.16 forgets its brokers where none is left, and tries the bootstrap servers 70 times a second then; its
    own rule against repeated lines is forgotten with them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, tuple[float, int]] = {}  # by kind: when one was let through, how many were not since

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        kind, now = re.sub(r" \(after \d+ms .*\)$", "", text), self._clock()
        with self._lock:
            let_at, held = self._seen.get(kind, (-SELDOM_S, 0))
            if now - let_at < SELDOM_S:
                self._seen[kind] = let_at, held + 1
                return False
            if len(self._seen) >= KINDS_MAX:
                self._seen.clear()
            self._seen[kind] = now, 0
        if held:
            record.msg, record.args = f"{text} ({held} more like it)", ()
        return True


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
