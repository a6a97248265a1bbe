"""Jobs of the stand-in: LOAD DATA and SELECT … INTO OUTFILE are done at once, and listed as by a TaskManager."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["JOB_COLUMNS", "Jobs"]

JOB_COLUMNS = [
    "Int32",
    "String",
    "String",
    "Timestamp",
    "Timestamp",
    "String",
    "String",
    "String",
    "String",
    "String",
    "String",
    "Int32",
    "String",
    "String",
]
"""id, type, state, start, end, parameter, cluster, application, error, db, name, pid, task, component."""

JOBS_MAX = 1000


class Jobs:
    """What was run, the newest `JOBS_MAX`.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._count = 0
        self._rows: dict[int, list[Any]] = {}

    def run(self, kind: str, sql: str, work: Callable[[], None]) -> dict[str, Any]:
        """Does `work`, whose exception is the job's failure, and lists it; the job as it was submitted."""
        self._count += 1
        start, error, state = int(self._clock() * 1000), "", "FINISHED"
        try:
            work()
        except Exception as failure:  # a job's failure is its state, not the caller's
            error, state = str(failure) or type(failure).__name__, "FAILED"
        end = int(self._clock() * 1000)
        row = [self._count, kind, state, start, end, sql, "embedded", "", error, None, None, None, None, "TaskManager"]
        self._rows[self._count] = row
        self._rows.pop(self._count - JOBS_MAX, None)
        return {"schema": JOB_COLUMNS, "data": [[*row[:2], "Submitted", start, None, *row[5:8], "", *row[9:]]]}

    def show(self, words: Sequence[str]) -> dict[str, Any] | None:
        """The answer to SHOW JOBS [FROM TASKMANAGER | NAMESERVER], SHOW JOB n, SHOW JOBLOG n; None: it is none of them.

        Args:
            words: of the statement (`streaming.standin.show.words_of`).

        Raises:
            LookupError: there is no such job.
        """
        match [word.lower() for word in words]:
            case ["show", "jobs"] | ["show", "jobs", "from", "taskmanager"]:
                return {"schema": JOB_COLUMNS, "data": list(self._rows.values())}
            case ["show", "jobs", "from", "nameserver"]:
                return {"schema": JOB_COLUMNS, "data": []}
            case ["show", "job", number] if number.isdecimal():
                return {"schema": JOB_COLUMNS, "data": [self._row(number)]}
            case ["show", "joblog", number] if number.isdecimal():
                row = self._row(number)
                return {"schema": ["String"], "data": [[f"Stdout:\n{row[1]}\n\nStderr:\n{row[8]}"]]}
        return None

    def _row(self, number: str) -> list[Any]:
        row = self._rows.get(int(number))
        if row is None:
            raise LookupError(f"Job not found: {number}")
        return row
