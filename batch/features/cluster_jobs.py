"""Jobs of an OpenMLDB cluster's TaskManager: started by a statement, followed through SHOW JOB until they end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from streaming.errors import ScorerError, StoreUnavailable
from streaming.store.openmldb.cluster import StatementRunner

__all__ = ["ClusterJob", "JobFailed", "run_job"]

SUBMIT_S = 120.0  # the TaskManager starts a Spark driver before it answers
POLL_S, POLL_S_MAX = 0.5, 5.0
REPORT_S = 15.0  # how often a job that goes on is said to
POLLS_LOST_MAX = 10  # in a row: a TaskManager that restarts finds its jobs again
LOG_LINES = 40
FINISHED, ENDED = "FINISHED", ("FINISHED", "FAILED", "KILLED", "LOST")


class JobFailed(ScorerError):
    """A job of the cluster did not finish; the message ends with its log."""


class ClusterJob(msgspec.Struct, frozen=True):
    """A row of SHOW JOB: its number, kind (ImportOfflineData, …), state and error."""

    id: int
    kind: str
    state: str
    error: str

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> ClusterJob:
        """From a row as the servers give it: id, type, state, start, end, parameter, cluster, application, error, …"""
        return cls(int(row[0]), str(row[1]), str(row[2]), str(row[8] or ""))


def run_job(
    cluster: StatementRunner,
    statement: str,
    timeout_s: float,
    say: Callable[[str], None],
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> ClusterJob:
    """Starts a job and waits until it has finished. The session must have `@@sync_job=false`.

    Args:
        say: told when the state changes, and now and then that it has not.

    Raises:
        JobFailed: with the end of the job's log.
        StoreUnavailable: the cluster does not take it, or does not answer any more, or the job goes on after
            `timeout_s`: it was not stopped.
    """
    started = clock()
    job = _submit(cluster, statement)
    wait_s, lost, said = POLL_S, 0, started
    say(f"job {job.id} {job.kind}: {job.state}")
    while job.state.upper() not in ENDED:
        if clock() - started > timeout_s:
            raise StoreUnavailable(
                f"job {job.id} is still {job.state} after {timeout_s:.0f} s and goes on: SHOW JOB {job.id} tells more, "
                f"STOP JOB {job.id} ends it"
            )
        sleep(wait_s)
        wait_s = min(2 * wait_s, POLL_S_MAX)
        try:
            now = ClusterJob.of(cluster.execute(f"SHOW JOB {job.id}")[0])
            lost = 0
        except (StoreUnavailable, IndexError) as error:
            lost += 1
            if lost > POLLS_LOST_MAX:
                raise StoreUnavailable(f"job {job.id} was last {job.state}; now SHOW JOB fails: {error}") from error
            continue
        if now.state != job.state or clock() - said > REPORT_S:
            said = clock()
            say(f"job {job.id} {job.kind}: {now.state}, {said - started:.0f} s")
        job = now
    if job.state.upper() != FINISHED:
        raise JobFailed(f"job {job.id} {job.kind}: {job.state} {job.error}\n{_log(cluster, job)}".rstrip())
    return job


def _submit(cluster: StatementRunner, statement: str) -> ClusterJob:
    before = {row[0] for row in cluster.execute("SHOW JOBS")}
    rows = cluster.execute(statement, timeout_s=SUBMIT_S)
    if rows and len(rows[0]) > 8:
        return ClusterJob.of(rows[0])
    # A client that does not hand the job's row on: it is the one that was not there before.
    fresh = [row for row in cluster.execute("SHOW JOBS") if row[0] not in before]
    if len(fresh) != 1:
        raise StoreUnavailable(f"{len(fresh)} new jobs in SHOW JOBS after: {statement[:120]}")
    return ClusterJob.of(fresh[0])


def _log(cluster: StatementRunner, job: ClusterJob) -> str:
    try:
        text = "\n".join(str(row[0]) for row in cluster.execute(f"SHOW JOBLOG {job.id}"))
    except StoreUnavailable as error:
        return f"its log cannot be read: {error}"
    lines = text.splitlines()
    cut = f"… {len(lines) - LOG_LINES} lines before, see SHOW JOBLOG {job.id}\n" if len(lines) > LOG_LINES else ""
    return cut + "\n".join(lines[-LOG_LINES:])
