"""Configuration: what the documented file says, what is refused and how clearly, and that no secret is shown."""

from __future__ import annotations

import io
import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
import structlog
import tomli
from places import REPOSITORY
from pydantic import BaseModel, SecretStr

from streaming.config import Config, Kafka, Log, load, masked
from streaming.errors import ConfigError
from streaming.ops import log

DOCUMENTED = REPOSITORY / "deploy" / "scorer.toml"


def write(folder: Path, text: str) -> Path:
    file = folder / "scorer.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_documented_file_names_every_key_with_its_default() -> None:
    defaults = Config().model_dump(mode="json")
    assert tomli.loads(DOCUMENTED.read_text(encoding="utf-8")) == defaults
    assert load(DOCUMENTED) == Config()


def test_every_key_of_the_documented_file_is_explained() -> None:
    """A comment stands above each key, or above the run of keys that it belongs to."""
    blocks = re.split(r"\n\s*\n", DOCUMENTED.read_text(encoding="utf-8"))
    # these say it themselves
    bare = {"bootstrap_servers", "sasl_mechanism", "sasl_username", "name"}
    for block in blocks:
        explained = False
        for line in block.splitlines():
            explained = explained or line.startswith("#")
            key = line.partition(" = ")[0]
            assert explained or "=" not in line or key in bare, line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[kafka]\nbootstrap_server = 'x'", r"kafka\.bootstrap_server: unknown key \(did you mean 'bootstrap_servers'"),
        ("[kafak]\n", r"kafak: unknown key \(did you mean 'kafka'\?\)"),
        ("[batch]\nmessages_max = 0", r"batch\.messages_max: Input should be greater than or equal to 1"),
        ("[batch]\nmessages_max = 'many'", r"batch\.messages_max: Input should be a valid integer"),
        ("[log]\nformat = 'xml'", r"log\.format: Input should be 'auto', 'json' or 'console'"),
        ("[kafka]\nx y", "not valid TOML: .*line 2"),
        (
            "[kafka.librdkafka.consumer]\n'enable.auto.commit' = true",
            r"kafka\.librdkafka\.consumer: enable\.auto\.commit is not allowed here: offsets are committed in the",
        ),
        (
            "[kafka.librdkafka.producer]\n'transactional.id' = 'mine'",
            r"kafka\.librdkafka\.producer: transactional\.id is not allowed here: set `transactional_id_prefix`",
        ),
    ],
)
def test_a_wrong_file_is_refused_by_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError, match=f"^{re.escape(str(file))}: {message}"):
        load(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read: No such file"):
        load(tmp_path / "nowhere.toml")


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch\.b: unknown key; .*: a: unknown key"):
        load(write(tmp_path, "a = 1\n[batch]\nb = 2"))


def test_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, "[kafka]\nbootstrap_servers = 'file:1'\ngroup_id = 'of-the-file'")
    monkeypatch.setenv("JD_INTENT__KAFKA__BOOTSTRAP_SERVERS", "environment:2")
    monkeypatch.setenv("JD_INTENT__KAFKA__LIBRDKAFKA__COMMON", '{"debug": "broker"}')
    kafka = load(file).kafka
    assert (kafka.bootstrap_servers, kafka.group_id) == ("environment:2", "of-the-file")
    assert kafka.client()["debug"] == "broker"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("JD_INTENT__KAFKA__BOOTSTRAP", "x", r"environment JD_INTENT__KAFKA__BOOTSTRAP: kafka\.bootstrap: unknown key"),
        ("JD_INTENT__KAFAK__GROUP_ID", "x", "environment: JD_INTENT__KAFAK__GROUP_ID: unknown table 'kafak'"),
        ("JD_INTENT__HTTP__PORT", "http", r"environment JD_INTENT__HTTP__PORT: http\.port: Input should be"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=message):
        load(None)


def secret_places(model: type[BaseModel], at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key that may hold a secret: those of a secret's type, URLs, and librdkafka's raw ones."""
    for name, field in model.model_fields.items():
        if field.annotation is SecretStr or name == "url":
            yield (*at, name)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from secret_places(field.annotation, (*at, name))
    if at[-1:] == ("librdkafka",):
        for key in RAW_SECRETS:
            yield (*at, "common", key)


RAW_SECRETS = (
    "sasl.password",
    "ssl.key.password",
    "ssl.keystore.password",
    "ssl.key.pem",
    "sasl.oauthbearer.config",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.jaas.config",
)


def test_no_secret_is_shown_wherever_it_stands() -> None:
    places = list(secret_places(Config))
    assert {place[-1] for place in places} >= {"sasl_password", "ssl_key_password", "password", "token", "url"}
    values: dict[str, Any] = {}
    for number, place in enumerate(places):
        *tables, key = place
        table = values
        for name in tables:
            table = table.setdefault(name, {})
        table[key] = f"http://hunter:hunter{number}@host/hunt" if key == "url" else f"hunter{number}"
    config = Config(**values)
    shown = json.dumps(masked(config)) + repr(config.kafka.sasl_password)
    assert "hunter" not in shown
    assert shown.count("**********") == len(places) + 1
    assert "http://**********@host/hunt" in shown


def test_secrets_reach_the_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JD_INTENT__KAFKA__SASL_PASSWORD", "hunter2")
    config = load(write(tmp_path, "[kafka.librdkafka.common]\n'ssl.key.password' = 'hunter3'"))
    assert config.kafka.client()["sasl.password"] == "hunter2"
    assert config.kafka.client()["ssl.key.password"] == "hunter3"


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_in_the_log_shows_no_values(
    form: Literal["json", "console"], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", root.handlers[:])
    monkeypatch.setattr(root, "level", root.level)
    before, written = structlog.get_config(), io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", written)
        log.configure(Log(format=form))
    word = "hunter2"[::-1]  # the line of the code may be shown, the value may not

    def fail(settings: dict[str, str]) -> None:
        raise RuntimeError(f"{len(settings)} setting")

    try:
        fail({"sasl.password": word[::-1]})
    except RuntimeError:
        logging.getLogger("uvicorn.error").exception("an application failed")
        structlog.stdlib.get_logger("streaming.test").exception("so did we")
    structlog.configure(**before)
    assert written.getvalue().count("1 setting") == 2
    assert "hunter2'}" not in written.getvalue()


def test_secrets_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2\n")
    assert Kafka(sasl_password_file=str(tmp_path / "password")).client()["sasl.password"] == "hunter2"
    with pytest.raises(ConfigError, match=r"kafka\.sasl_password_file: .*gone cannot be read"):
        Kafka(sasl_password_file=str(tmp_path / "gone")).client()
    with pytest.raises(ConfigError, match="both set"):
        Kafka(sasl_password_file="x", sasl_password="y").client()
