"""What a command must be allowed to do on Kafka, and what it is not.

A broker does not show a topic to who may not describe it: in a list of all topics it looks as if it were not there. So
topics are asked for by name, which tells the two apart (and, through the admin's call, makes none), and with them the
operations that the principal may do: all that is lacking is said at once, before anything was read or sent.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AclOperation, AdminClient

from streaming.app.topics import TopicNames
from streaming.config import Kafka
from streaming.errors import ConfigError, NotAllowed
from streaming.kafka.connection import Connection
from streaming.kafka.login import Login

__all__ = [
    "AUTHORIZATION",
    "Found",
    "Right",
    "check_topics",
    "denied",
    "find",
    "grants",
    "named",
    "of_board",
    "of_letters",
    "of_replay",
    "of_run",
    "of_send",
    "of_serve",
    "principal",
    "sentence",
]

ASK_S = 5.0

_HIDDEN = frozenset({"Nothing"})  # the operations on what may not even be described

AUTHORIZATION = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "group",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "transactional id",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "cluster",
}
"""Errors that say that a right is lacking, and on what kind of resource."""


@dataclass(frozen=True)
class Right:
    """An operation on a resource, as in Kafka's ACLs.

    Attributes:
        operation: `Read`, `Write`, `Describe`, `DescribeConfigs`, …
        kind: `topic`, `group`, `transactional id` or `cluster`.
        prefixed: it is needed on names that begin so, too.
    """

    operation: str
    kind: str
    name: str
    prefixed: bool = False


@dataclass(frozen=True)
class Found:
    """What the broker says.

    Attributes:
        absent: topics that do not exist.
        lacking: rights that the principal has not.
    """

    absent: Sequence[str] = ()
    lacking: Sequence[Right] = ()


def of_run(kafka: Kafka, topics: TopicNames) -> list[Right]:
    """Of the scorer."""
    return [*of_serve(topics), Right("Read", "group", kafka.group_id), *_written(topics)]


def of_serve(topics: TopicNames) -> list[Right]:
    """Of the predict server: what the state is made of, and what is no part of it."""
    return [Right("Read", "topic", name) for name in (*topics.inputs, topics.dead_letters)]


def of_board(topics: TopicNames) -> list[Right]:
    """Of the board: what it shows, and the events that scores are of."""
    return [Right("Read", "topic", name) for name in (topics.scores, topics.dead_letters, *topics.inputs)]


def of_send(topics: TopicNames) -> list[Right]:
    """Of `send`: a producer and a subscriber."""
    read = [Right("Read", "topic", name) for name in (topics.scores, topics.dead_letters)]
    return [*(Right("Write", "topic", name) for name in topics.scored), *read]


def of_letters(topics: TopicNames) -> list[Right]:
    """Of `dlq list` and `show`."""
    return [Right("Read", "topic", topics.dead_letters)]


def of_replay(topics: TopicNames, inputs: Iterable[str]) -> list[Right]:
    """Of `dlq replay` into topics."""
    return [*of_letters(topics), *(Right("Write", "topic", name) for name in (*inputs, topics.dead_letters))]


def _written(topics: TopicNames) -> list[Right]:
    return [Right("Write", "topic", name) for name in (topics.scores, topics.dead_letters)]


def find(admin: AdminClient, rights: Collection[Right]) -> Found:
    """Asks the broker about topics and groups; what it does not tell counts as allowed.

    Raises:
        KafkaException: it does not answer.
    """
    topics = {right.name for right in rights if right.kind == "topic"}
    groups = {right.name for right in rights if right.kind == "group"}
    absent: list[str] = []
    allowed: dict[tuple[str, str], Set[str]] = {}
    if topics:
        asked = admin.describe_topics(
            TopicCollection(sorted(topics)), include_authorized_operations=True, request_timeout=ASK_S
        )
        for name, future in asked.items():
            try:
                allowed["topic", name] = _names(future.result(2 * ASK_S).authorized_operations)
            except KafkaException as error:
                code = error.args[0].code()
                if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
                    absent.append(name)
                elif code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                    allowed["topic", name] = _HIDDEN
                else:
                    raise
    for name in groups:
        asked_group = admin.describe_consumer_groups([name], include_authorized_operations=True, request_timeout=ASK_S)[
            name
        ]
        try:
            allowed["group", name] = _names(asked_group.result(2 * ASK_S).authorized_operations)
        except KafkaException as error:
            code = error.args[0].code()
            if code not in (KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.GROUP_ID_NOT_FOUND):
                raise
            allowed["group", name] = _HIDDEN if code == KafkaError.GROUP_AUTHORIZATION_FAILED else set()
    lacking = [
        right for right in rights if (may := allowed.get((right.kind, right.name))) and right.operation not in may
    ]
    undescribed = [
        Right("Describe", *of)
        for of in dict.fromkeys((right.kind, right.name) for right in lacking)
        if allowed[of] == _HIDDEN and Right("Describe", *of) not in lacking
    ]
    return Found(sorted(absent), [*undescribed, *lacking])


def check_topics(
    kafka: Kafka,
    needs: Sequence[Right],
    connection: Connection | None = None,
    patience_s: float | None = None,
    *,
    keys: Mapping[str, str] | None = None,
) -> None:
    """The login is taken, and all topics exist and may be used as needed.

    Args:
        needs: of topics, and of groups; see `of_run` and the others.
        connection: how the broker is waited for; default: one of its own.
        patience_s: for how long the broker is waited for; default: `kafka.give_up_after_s`.
        keys: by topic, its key in the configuration, for the message.

    Raises:
        ConfigError: names the missing topics and their keys.
        LoginRefused: with librdkafka's words.
        NotAllowed: names operation, resource and principal of all that is not allowed.
        BrokerUnavailable: no broker answers.
        Stopped: told to stop before one did.
    """
    connection = connection or Connection(threading.Event(), login=Login(kafka))
    patience_s = kafka.give_up_after_s if patience_s is None else patience_s
    admin = connection.admin(kafka)
    found = connection.retry(lambda: find(admin, needs), patience_s)
    keys = keys or {}
    missing = [f"{name!r} ({keys[name]})" if name in keys else repr(name) for name in found.absent]
    if missing:
        raise ConfigError(f"Kafka at {kafka.bootstrap_servers} has no topic {', '.join(missing)}: create it first")
    if found.lacking:
        raise NotAllowed(f"Kafka at {kafka.bootstrap_servers}: {sentence(kafka, found.lacking)}")


def _names(operations: Iterable[AclOperation] | None) -> set[str]:
    """As ACLs spell them: `DescribeConfigs`. Empty: an old broker, which tells none."""
    return {operation.name.title().replace("_", "") for operation in operations or ()}


def sentence(kafka: Kafka, lacking: Sequence[Right]) -> str:
    """Who may not do what, and the commands that change it."""
    wanted: dict[tuple[str, str], list[str]] = {}
    for right in lacking:
        wanted.setdefault((right.kind, right.name), []).append(right.operation)
    parts = [f"{' or '.join(operations)} {kind} {name!r}" for (kind, name), operations in wanted.items()]
    return f"{principal(kafka)} may not {'; may not '.join(parts)}. Allow it: {'; '.join(grants(kafka, lacking))}"


def grants(kafka: Kafka, lacking: Sequence[Right]) -> list[str]:
    """The commands that give rights."""
    name = _user(kafka) or "PRINCIPAL"
    implying = {(right.kind, right.name) for right in lacking if right.operation in ("Read", "Write")}
    commands = []
    for right in lacking:
        if right.operation == "Describe" and (right.kind, right.name) in implying:
            continue  # who may read or write, may describe
        on = "--cluster" if right.kind == "cluster" else f"--{right.kind.replace(' ', '-')} '{right.name}'"
        on += " --resource-pattern-type prefixed" if right.prefixed else ""
        commands.append(
            f"kafka-acls.sh --bootstrap-server {kafka.bootstrap_servers} --add --allow-principal 'User:{name}' "
            f"--operation {right.operation} {on}"
        )
    return commands


def principal(kafka: Kafka) -> str:
    """How this process is called by the broker, as far as it is known here."""
    name = _user(kafka)
    return f"principal {name!r}" if name else f"the principal of this {kafka.security_protocol} login"


def _user(kafka: Kafka) -> str:
    if kafka.security_protocol.startswith("SASL"):
        return kafka.sasl_username
    certificate = any(key.startswith(("ssl.certificate", "ssl.keystore")) for key in kafka.librdkafka.common)
    return "" if certificate else "ANONYMOUS"


def denied(kafka: Kafka, error: KafkaError, rights: Collection[Right]) -> NotAllowed:
    """What to raise for one of the `AUTHORIZATION` errors: the broker is asked which of `rights` it is that lacks."""
    kind = AUTHORIZATION.get(error.code(), "")
    lacking: Sequence[Right] = ()
    try:
        if kind in ("topic", "group"):
            admin = Connection(threading.Event()).admin(kafka)
            lacking = find(admin, [right for right in rights if right.kind == kind]).lacking
    except KafkaException:
        pass  # the error itself has to do
    lacking = lacking or [right for right in rights if right.kind == kind]
    return NotAllowed(f"{error.str()}: {sentence(kafka, lacking)}" if lacking else f"{principal(kafka)}: {error.str()}")


@contextlib.contextmanager
def named(kafka: Kafka, rights: Collection[Right]) -> Iterator[None]:
    """What Kafka forbids in the block is said with operation, resource and principal.

    Raises:
        NotAllowed: instead of an error of `AUTHORIZATION`.
    """
    try:
        yield
    except KafkaException as error:
        if error.args[0].code() in AUTHORIZATION:
            raise denied(kafka, error.args[0], rights) from error
        raise
