"""`jd-intent-score doctor`: is everything there that `run` needs, and may it be used?

All checks run, whatever one of them finds; each says in one line what is so and how to mend it. Nothing is changed:
topics, groups, transactions, folders and tables are looked at only.

    streaming/doctor/kafka.py   login, rights, topics, clock
    streaming/doctor/parts.py   SQL, encoder, model, history, folders, port
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streaming.app.configured import application
from streaming.app.folder import App
from streaming.app.topics import TopicNames
from streaming.config import Config, load
from streaming.doctor import kafka, parts
from streaming.doctor.findings import Finding, ok, wrong
from streaming.engine import UnsupportedSQL
from streaming.errors import ConfigError, ScorerError
from streaming.ops import exits, log

__all__ = ["check_all", "check_file", "run_doctor"]

ON_KAFKA: dict[str, Callable[[Config, TopicNames, AdminClient], Iterator[Finding]]] = {
    "rights": kafka.check_rights,
    "transactional id": kafka.check_transactional_id,
    "topics": kafka.check_topics,
    "clock": kafka.check_clock,
}
BROKERS = "look at the brokers' logs, and give the command again"
APP_PARTS: dict[str, tuple[Callable[[Config, App], Iterator[Finding]], str]] = {
    "SQL": (parts.check_store, "mend the application, or set app, store.deployment"),
    "SQL and model": (parts.check_query, "serve the model of this query, or set app"),
    "history": (parts.check_history, "set store.history to a folder with a folder of files for each table"),
}
PARTS: dict[str, tuple[Callable[[Config], Iterator[Finding]], str]] = {
    "encoder": (parts.check_encoder, "set model.artifact to what `jd-intent-batch export` wrote"),
    "model": (parts.check_model, "look at Triton's log, start it again"),
    "folders": (parts.check_folders, "set snapshots.folder, poison.folder to folders that can be written"),
    "port": (parts.check_port, "set http.host, http.port"),
}
"""Each with what to do where it comes to an end by an error."""


def run_doctor(file: Path | None, *, as_json: bool) -> int:
    """Prints what it finds as it goes.

    Returns:
        The exit status: 2 when something is wrong, else 0.
    """
    log.to_stderr()
    status = exits.DONE
    for finding in check_file(file):
        print(json.dumps(finding.fields(), ensure_ascii=False) if as_json else finding.line(), flush=True)
        if finding.level == "wrong":
            status = exits.MISTAKE
    return status


def check_file(file: Path | None) -> Iterator[Finding]:
    """The configuration, and all that it names."""
    try:
        config = load(file)
        config.kafka.client()  # reads the files of passwords
    except ConfigError as error:
        yield wrong("configuration", str(error), "deploy/scorer.toml has every key and what it means")
    else:
        yield ok("configuration", f"{file or 'defaults and environment'}: every key is known")
        yield from check_all(config)


def check_all(config: Config) -> Iterator[Finding]:
    """Everything that a configuration names."""
    app = topics = None
    try:
        app, topics = application(config)
    except (ConfigError, UnsupportedSQL) as error:
        yield wrong("application", str(error), "`jd-intent-score check` says more")
    else:
        yield ok("application", f"{app.settings.name}, {app.folder}")
    let_in = False
    for finding in _guarded("login", kafka.check_login(config), "set [kafka] as the brokers want it"):
        let_in = finding.level == "ok"
        yield finding
    if let_in and topics is not None:
        admin = kafka.admin_of(config)
        for about, check in ON_KAFKA.items():
            yield from _guarded(about, check(config, topics, admin), BROKERS)
    if app is not None:
        for about, (check_app, fix) in APP_PARTS.items():
            yield from _guarded(about, check_app(config, app), fix)
    for about, (check_part, fix) in PARTS.items():
        yield from _guarded(about, check_part(config), fix)


def _guarded(about: str, check: Iterator[Finding], fix: str) -> Iterator[Finding]:
    """What ends a check is a finding: the others go on."""
    try:
        yield from check
    except (ScorerError, UnsupportedSQL) as error:
        yield wrong(about, str(error), fix)
    except KafkaException as error:
        yield wrong(about, error.args[0].str(), fix)
    except Exception as error:  # the others shall be checked all the same
        yield wrong(about, f"the check came to nothing: {error!r}", "report it: it is a defect of this program")
