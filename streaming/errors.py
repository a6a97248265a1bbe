"""Every error that the scorer raises on purpose.

    ScorerError
    ├── BadEvent          one message is wrong: it goes to the dead-letter topic, the rest goes on
    ├── Unavailable       a server does not answer: bounded retries, consumer paused but polling, not ready
    │   ├── BrokerUnavailable
    │   ├── ModelUnavailable
    │   └── StoreUnavailable
    ├── Aborted           one transaction came to nothing: its batch is read and scored again
    ├── TransactionFatal  the producer is spent: exit, a supervisor starts a new one
    ├── LogNotWhole       records that the state needs are gone, or lie elsewhere: refuse to score from a hole
    │   └── OffsetOutOfRange
    ├── BadSnapshot       it is set aside; an older one or the log makes the state
    ├── FolderTaken       another process has the state folder: exit
    ├── NoSpace           the state folder cannot be made on a full disk: go on without it
    ├── NotAllowed        Kafka refuses an operation, or a login that has worked: exit
    ├── ConfigError       refuse to start
    │   ├── LoginRefused   Kafka refuses password, certificate or protocol
    │   └── OutputRefused  a folder to write holds what is not the command's own, or an input: nothing was touched
    ├── BadInput          (a ValueError, too) a file or an option of a command is wrong
    ├── ArtifactMismatch  encoder, model, SQL and manifest do not belong together: refuse to start
    ├── Rebalanced        partitions came or went while a server was awaited: what was under way is read again
    ├── WorkerFailed      a worker of `run --workers` died too often: exit with its status
    └── Stopped           told to stop while a server was awaited: no failure, the process ends
    UnsupportedSQL        (a ValueError, see `streaming.engine`) refuse to deploy
    BadRow                (a ValueError, see `streaming.engine`) a table refuses a row

Anything else is a defect: the process dies and its state is rebuilt from the log. The exit status of each is in
`streaming.ops.exits`.
"""

from __future__ import annotations

import errno

__all__ = [
    "Aborted",
    "ArtifactMismatch",
    "BadEvent",
    "BadInput",
    "BadSnapshot",
    "BrokerUnavailable",
    "ConfigError",
    "FolderTaken",
    "LogNotWhole",
    "LoginRefused",
    "ModelUnavailable",
    "NoSpace",
    "NotAllowed",
    "OffsetOutOfRange",
    "OutputRefused",
    "Rebalanced",
    "ScorerError",
    "Stopped",
    "StoreUnavailable",
    "TransactionFatal",
    "Unavailable",
    "WorkerFailed",
    "unusable",
]


class ScorerError(Exception):
    """The root: catch it at the outermost layer to print a clear message instead of a traceback."""


class BadEvent(ScorerError):
    """One message that cannot be scored.

    Args:
        stage: the step of the data path that refused it: `decode`, `validate`, `insert`, `features` or `encode`.
        message: what is wrong, naming the field. The caller adds `topic[partition]@offset`.
    """

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage


class Unavailable(ScorerError):
    """A server that the scorer needs does not answer; trying again later may help."""


class BrokerUnavailable(Unavailable):
    """Kafka did not answer for `kafka.give_up_after_s`."""


class ModelUnavailable(Unavailable):
    """Triton is unreachable, not ready, too slow, or answers with a server-side error."""


class StoreUnavailable(Unavailable):
    """The OpenMLDB cluster is unreachable or answers with a server-side error."""


class Aborted(ScorerError):
    """The transaction was aborted: nothing of it is visible, and the batch must be read again."""


class TransactionFatal(ScorerError):
    """The producer cannot go on, e.g. it was fenced: exit, and let the supervisor restart."""


class LogNotWhole(ScorerError):
    """Log, state and committed offsets do not make a whole: records are gone, a topic was made anew or got partitions.

    The message says what is missing and what can be done about it.
    """


class OffsetOutOfRange(LogNotWhole):
    """A committed offset lies outside of its topic."""


class BadSnapshot(ScorerError):
    """A snapshot cannot be used.

    Args:
        kind: `damaged`, `foreign` (it belongs to something else) or `future` (of a later format).
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class FolderTaken(ScorerError):
    """Another process uses the state folder; the message says which."""


class NoSpace(ScorerError):
    """The disk is full where the state folder is: it costs what would be kept there, not the flow."""


class ConfigError(ScorerError):
    """The configuration is wrong; the message names file and key."""


def unusable(key: str, folder: object, error: OSError) -> ScorerError:
    """Why a folder of the configuration cannot be used: `NoSpace` where the disk is full, else `ConfigError`."""
    kind = NoSpace if error.errno in (errno.ENOSPC, errno.EDQUOT) else ConfigError
    return kind(f"{key}: {folder}: {error.strerror or error}")


class OutputRefused(ConfigError):
    """A folder must not be written: it touches an input, or holds what the command did not make. It is as it was."""


class LoginRefused(ConfigError):
    """Kafka does not let this process in; the message has librdkafka's words."""


class NotAllowed(ScorerError):
    """The principal lacks a right on Kafka; the message names it, operation and resource, and how to give the right."""


class BadInput(ScorerError, ValueError):
    """A file or an option that a command was given cannot be used; the message names it and what is wrong with it."""


class ArtifactMismatch(ScorerError):
    """Two parts that must belong together do not; the message names both and what differs."""


class Stopped(ScorerError):
    """Told to stop while a server was awaited. What is under way is left to the next start, which reads it again."""


class Rebalanced(ScorerError):
    """Partitions came or went while the store was awaited: what was under way was forgotten, and is read again."""


class WorkerFailed(ScorerError):
    """A worker process died too often, or in a way that starting it again does not mend.

    Args:
        status: that the supervisor ends with.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
