"""Checks of `streaming.doctor.command`: login, rights, topics and their settings, clock.

The broker is asked what the principal may do, and about a transactional id by a request that it must refuse: one whose
timeout no broker allows. It looks at the rights first, and takes the id from nobody.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, OffsetSpec

from streaming.app.topics import TopicNames
from streaming.config import Config
from streaming.doctor.findings import Finding, ok, warning, wrong
from streaming.kafka.clients import consumer_settings
from streaming.kafka.connection import Connection
from streaming.kafka.login import ask
from streaming.kafka.publishers import turn_name
from streaming.kafka.rights import Right, find, grants, of_run, principal

__all__ = [
    "admin_of",
    "check_clock",
    "check_login",
    "check_rights",
    "check_topics",
    "check_transactional_id",
    "judge_settings",
]

LOGIN_S = 5.0
CALL_S = 5.0
TIMEOUT_MS_REFUSED = 2**31 - 1  # librdkafka's largest; a broker allows 15 minutes, or what somebody thought enough
SKEW_S = 5.0  # clocks that are kept by NTP differ by milliseconds, records are on their way for less than this
DAY_MS = 86_400_000

_quiet = logging.getLogger("librdkafka.doctor")
_quiet.setLevel(logging.CRITICAL)  # what fails is said by the checks


def admin_of(config: Config) -> AdminClient:
    """The client of the checks below: for when the login is known to be taken."""
    return AdminClient(config.kafka.client(), logger=_quiet)


def check_login(config: Config) -> Iterator[Finding]:
    """Somebody answers, speaks our protocol, and takes our credentials."""
    kafka = config.kafka
    Connection(threading.Event()).consumer(consumer_settings(kafka)).close()  # a setting that is none ends here
    Producer({**kafka.client(), **kafka.librdkafka.producer}, logger=_quiet)
    about, answer = f"Kafka at {kafka.bootstrap_servers}", ask(kafka, LOGIN_S)
    if answer.kind == "in":
        how = f"{kafka.security_protocol} {kafka.sasl_mechanism}".strip()
        yield ok(about, f"lets {principal(kafka)} in by {how}")
    elif answer.kind == "refused":
        keys = "kafka.security_protocol, kafka.sasl_*, ssl.* in kafka.librdkafka.common"
        yield wrong(about, f"refuses the login: {answer.why}. Nothing else of Kafka was checked", f"set {keys}")
    else:
        yield wrong(
            about, f"does not answer: {answer.why}. Nothing else was checked there", "set kafka.bootstrap_servers"
        )


def check_rights(config: Config, topics: TopicNames, admin: AdminClient) -> Iterator[Finding]:
    """Those of `run`, but for transactions."""
    kafka = config.kafka
    needed = of_run(kafka, topics)
    told = [Right("DescribeConfigs", "topic", name) for name in (topics.scores, topics.dead_letters)]
    found = Connection(threading.Event()).retry(lambda: find(admin, [*needed, *told]), 2 * CALL_S)
    # Of a topic that may not be described it is not told whether its settings may be.
    hidden = {right.name for right in found.lacking if right.operation == "Describe"}
    for right in found.lacking:
        text = f"{principal(kafka)} may not {right.operation} {right.kind} {right.name!r}"
        (fix,) = grants(kafka, [right])
        if right in told and right.name not in hidden:
            yield warning("rights", f"{text}: records are taken to have at most 1,000,000 bytes there", fix)
        elif right in needed:
            yield wrong("rights", text, fix)
    there = [right for right in needed if right not in found.lacking and right.name not in found.absent]
    if there:
        may = ", ".join(f"{right.operation} {right.kind} {right.name!r}" for right in there)
        yield ok("rights", f"{principal(kafka)} may {may}")


def check_transactional_id(config: Config, _: TopicNames, __: AdminClient) -> Iterator[Finding]:
    """May it be used? Nothing is opened, and nobody fenced: see the module."""
    kafka = config.kafka
    if kafka.delivery != "exactly_once":
        return
    number = "-0" if config.workers.count else ""
    first = f"{kafka.transactional_id_prefix}-{kafka.instance}{number}"
    for name in (first, turn_name(first)):
        finding = _check_transactional_id(config, name)
        yield finding
        if finding.level != "ok":
            return


def _check_transactional_id(config: Config, name: str) -> Finding:
    kafka = config.kafka
    about = f"transactional id {name!r}"
    settings = {**kafka.client(), "transactional.id": name, "transaction.timeout.ms": TIMEOUT_MS_REFUSED}
    try:
        Producer(settings, logger=_quiet).init_transactions(2 * CALL_S)
    except KafkaException as error:
        code = error.args[0].code()
        if code == KafkaError.INVALID_TRANSACTION_TIMEOUT:
            return ok(about, f"{principal(kafka)} may write it")
        if code == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
            right = Right("Write", "transactional id", kafka.transactional_id_prefix, prefixed=True)
            return wrong(about, f"{principal(kafka)} may not Write it", *grants(kafka, [right]))
        return wrong(about, error.args[0].str(), "look at the brokers' logs")
    else:
        return ok(about, f"{principal(kafka)} may write it")


def check_topics(config: Config, topics: TopicNames, admin: AdminClient) -> Iterator[Finding]:
    """They exist, can be written and read, and keep what they have to keep."""
    kafka = config.kafka
    keys = topics.keys
    asked = admin.describe_topics(TopicCollection(list(keys)), request_timeout=CALL_S)
    there = {}
    for name, future in asked.items():
        try:
            there[name] = future.result(2 * CALL_S)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                make = f"kafka-topics.sh --bootstrap-server {kafka.bootstrap_servers} --create --topic {name}"
                yield wrong(f"topic {name!r}", f"{keys[name]}: it does not exist", make)
            elif error.args[0].code() != KafkaError.TOPIC_AUTHORIZATION_FAILED:  # told by `check_rights`
                yield wrong(f"topic {name!r}", error.args[0].str(), "look at the brokers")
    settings: dict[str, Mapping[str, str]] = {}
    hidden = []
    resources = {ConfigResource(ConfigResource.Type.TOPIC, name): name for name in there}
    for resource, told in (
        admin.describe_configs(list(resources), request_timeout=CALL_S) if resources else {}
    ).items():
        try:
            settings[resources[resource]] = {key: entry.value for key, entry in told.result(2 * CALL_S).items()}
        except KafkaException:
            if resources[resource] in topics.inputs:  # told by `check_rights`
                hidden.append(resources[resource])
    for name, topic in there.items():
        yield from _partitions(config, topics, topic, settings.get(name, {}))
    if hidden:
        rights = [Right("DescribeConfigs", "topic", name) for name in hidden]
        names = ", ".join(map(repr, hidden))
        yield warning("settings of topics", f"not told of {names}: not checked", "; ".join(grants(kafka, rights)))
    yield from judge_settings(config, topics, settings)
    yield from _beginnings(config, admin, [name for name in there if name in topics.inputs])
    yield ok("subscribers", f"of {topics.scores!r} must set isolation.level=read_committed: then each score is once")


def _partitions(config: Config, topics: TopicNames, topic: Any, settings: Mapping[str, str]) -> Iterator[Finding]:
    """Leaders, replicas, and how many there are."""
    about, count = f"topic {topic.name!r}", len(topic.partitions)
    lost = [p.id for p in topic.partitions if p.leader is None or p.leader.id < 0]
    if lost:
        yield wrong(about, f"partitions {lost} have no leader", "look at the brokers")
    wanted = int(settings.get("min.insync.replicas", "1"))
    short = [p.id for p in topic.partitions if len(p.isr) < wanted]
    if short and topic.name not in topics.inputs:
        yield wrong(
            about, f"partitions {short} have less than min.insync.replicas {wanted} in sync", "look at the brokers"
        )
    if topic.name in topics.events and count < config.workers.count:
        yield warning(
            about,
            f"{count} partitions for workers.count {config.workers.count}: the others wait as spares",
            "make a new topic with more: partitions that are added move keys",
        )
    if not lost:
        replicas = min((len(p.replicas) for p in topic.partitions), default=0)
        yield ok(about, f"{count} partitions, {replicas} replicas")


def judge_settings(config: Config, topics: TopicNames, settings: Mapping[str, Mapping[str, str]]) -> Iterator[Finding]:
    """Whether topics keep what they have to.

    Args:
        settings: by topic, as Kafka spells them.
    """
    kafka = config.kafka
    alter = f"kafka-configs.sh --bootstrap-server {kafka.bootstrap_servers} --alter --entity-type topics"
    kept = {name: int(values.get("retention.ms", "-1")) for name, values in settings.items()}
    for name, values in settings.items():
        about, fix = f"topic {name!r}", f"{alter} --entity-name {name} --add-config"
        if "compact" in values.get("cleanup.policy", "delete"):
            yield wrong(
                about, "it is compacted: of the records of a key all but the last go", f"{fix} cleanup.policy=delete"
            )
        elif name == topics.scores:
            if int(values.get("min.insync.replicas", "1")) < 2:
                text = "min.insync.replicas is 1: a score is lost with the disk of one broker"
                yield warning(about, text, f"{fix} min.insync.replicas=2, with 3 replicas")
        elif name == topics.dead_letters:
            yield from _letters(topics, settings, kept, fix)
        elif kept[name] >= 0 or int(values.get("retention.bytes", "-1")) >= 0:
            yield from _retention(config, topics, name, kept[name])


def _retention(config: Config, topics: TopicNames, name: str, kept_ms: int) -> Iterator[Finding]:
    about = f"topic {name!r}"
    span = f"{kept_ms / DAY_MS:.1f} days" if kept_ms >= 0 else "retention.bytes"
    if 0 <= kept_ms < config.dedup.horizon_ms and name in topics.scored:
        yield wrong(
            about, f"keeps {span}, less than dedup.horizon_s {config.dedup.horizon_s:.0f}", "keep it for longer"
        )
    if config.store.kind == "embedded" and not (config.store.history or config.snapshots.folder):
        yield warning(
            about,
            f"keeps {span}: what is older is in no window after the next start",
            "set store.history to a folder that covers it, or snapshots.folder; or retention.ms=-1",
        )


def _letters(
    topics: TopicNames, settings: Mapping[str, Mapping[str, str]], kept: Mapping[str, int], fix: str
) -> Iterator[Finding]:
    """Letters are as large as what they are made of, and needed for as long."""
    about = f"topic {topics.dead_letters!r}"
    sizes = {name: int(values.get("max.message.bytes", "0")) for name, values in settings.items()}
    sizes.pop(topics.scores, None)
    own, largest = sizes.pop(topics.dead_letters), max(sizes.values(), default=0)
    if own and own <= largest:
        text = f"max.message.bytes {own} is not above the {largest} of an input topic: larger letters are cut"
        yield warning(about, text, f"{fix} max.message.bytes={largest + 65_536}")
    longest = max((-1 if ms < 0 else ms for name, ms in kept.items() if name in topics.inputs), default=0)
    forever = any(ms < 0 for name, ms in kept.items() if name in topics.inputs)
    kept_ms = kept[topics.dead_letters]
    if kept_ms >= 0 and (forever or kept_ms < longest):
        days = f"{kept_ms / DAY_MS:.1f} days"
        yield warning(
            about,
            f"keeps {days}, less than an input topic: a start that reads the log takes records whose letters are gone",
            f"{fix} retention.ms={-1 if forever else longest}",
        )


def _beginnings(config: Config, admin: AdminClient, inputs: Sequence[str]) -> Iterator[Finding]:
    """Is the log whole, where it alone makes the state?"""
    store = config.store
    if store.kind != "embedded" or store.history or config.snapshots.folder:
        return
    for at, found in _offsets(admin, inputs, OffsetSpec.earliest()):  # type: ignore[no-untyped-call]
        if found.offset > 0:
            text = f"partition {at.partition} begins at offset {found.offset}: what was before is in no window"
            yield warning(f"topic {at.topic!r}", text, "set store.history to a folder that covers it")


def check_clock(_: Config, topics: TopicNames, admin: AdminClient) -> Iterator[Finding]:
    """No record is of the future: this machine's clock, and those of producers, agree as far as that tells."""
    found = _offsets(admin, list(topics.keys), OffsetSpec.max_timestamp())  # type: ignore[no-untyped-call]
    at, newest = max(((at, of.timestamp) for at, of in found), key=lambda pair: pair[1], default=(None, -1))
    if at is None or newest < 0:
        yield ok("clock", "no record to compare it with")
        return
    ahead_s = newest / 1000 - time.time()
    place = f"the newest record, in {at.topic}[{at.partition}],"
    if ahead_s > SKEW_S:
        text = f"{place} is {ahead_s:.0f} s ahead of this machine's clock"
        yield warning("clock", text, "keep the clocks of this machine and of producers by NTP")
    else:
        yield ok("clock", f"{place} is {max(0.0, -ahead_s):.0f} s old")


def _offsets(admin: AdminClient, topics: Sequence[str], wanted: OffsetSpec) -> Sequence[tuple[TopicPartition, Any]]:
    """Of each partition that may be described."""

    def asked() -> list[tuple[TopicPartition, Any]]:
        listed = admin.list_topics(timeout=CALL_S).topics
        partitions = [TopicPartition(name, n) for name in topics if name in listed for n in listed[name].partitions]
        if not partitions:
            return []
        told = admin.list_offsets(dict.fromkeys(partitions, wanted), request_timeout=CALL_S)
        return [(at, future.result(2 * CALL_S)) for at, future in told.items()]

    found: list[tuple[TopicPartition, Any]] = Connection(threading.Event()).retry(asked, 2 * CALL_S)
    return found
