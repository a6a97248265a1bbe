"""Configuration: one TOML file, overridden key by key by the environment; unknown keys are errors.

`deploy/scorer.toml` documents every key with its default (a test compares the two). Any key can be set in the
environment: `JD_INTENT__KAFKA__BOOTSTRAP_SERVERS=broker:9092` overrides `bootstrap_servers` of table `[kafka]`;
tables of raw librdkafka keys take JSON: `JD_INTENT__KAFKA__LIBRDKAFKA__COMMON='{"debug": "broker"}'`.
"""

from __future__ import annotations

import difflib
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from streaming.errors import ConfigError

__all__ = [
    "ENV_PREFIX",
    "Batch",
    "Config",
    "Dedup",
    "Events",
    "Http",
    "Kafka",
    "Librdkafka",
    "Log",
    "Metrics",
    "Model",
    "OpenMLDB",
    "Poison",
    "Rest",
    "Store",
    "Workers",
    "load",
    "masked",
    "masked_url",
]

ENV_PREFIX = "JD_INTENT__"

CloudEvents = Literal["binary", "structured", "none"]
Raw = dict[str, str | bool | int | float]
Name = Annotated[str, Field(min_length=1, max_length=249)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]

# Raw keys that have a key of their own here, or that would break exactly-once; the value says what to do instead.
_REFUSED = {
    "acks": "transactions need acknowledgement by all replicas",
    "auto.commit.enable": "offsets are committed in the scores' transaction only",
    "auto.offset.reset": "set `start` of [kafka]",
    "bootstrap.servers": "set `bootstrap_servers` of [kafka]",
    "client.id": "set `instance_id` of [kafka]",
    "enable.auto.commit": "offsets are committed in the scores' transaction only",
    "enable.auto.offset.store": "offsets are committed in the scores' transaction only",
    "enable.idempotence": "transactions need an idempotent producer",
    "enable.partition.eof": "the scorer sets it where it needs it",
    "group.id": "set `group_id` of [kafka]",
    "group.instance.id": "set `static_membership` of [kafka]",
    "group.protocol": "set `group_protocol` of [kafka]",
    "isolation.level": "set `isolation_level` of [kafka]",
    "metadata.broker.list": "set `bootstrap_servers` of [kafka]",
    "partition.assignment.strategy": "set `assignor` of [kafka]",
    "request.required.acks": "transactions need acknowledgement by all replicas",
    "sasl.mechanism": "set `sasl_mechanism` of [kafka]",
    "sasl.mechanisms": "set `sasl_mechanism` of [kafka]",
    "security.protocol": "set `security_protocol` of [kafka]",
    "session.timeout.ms": "set `session_timeout_s` of [kafka]",
    "transaction.timeout.ms": "set `transaction_timeout_s` of [kafka]",
    "transactional.id": "set `transactional_id_prefix` and `instance_id` of [kafka]",
}

_SECRET = re.compile(r"password|secret|token|credential|passphrase|jaas|\.pem$|oauthbearer\.config", re.I)
_MASK = "**********"
_USER = re.compile(r"(?<=://).*@")  # as far as the last @: a password that is not escaped may hold others


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Librdkafka(_Table):
    """Raw librdkafka keys, for every client (`common`), or for consumers or producers alone."""

    common: Raw = {}
    consumer: Raw = {}
    producer: Raw = {}

    @field_validator("common", "consumer", "producer")
    @classmethod
    def _allowed(cls, raw: Raw) -> Raw:
        for key in raw:
            if key in _REFUSED:
                raise ValueError(f"{key} is not allowed here: {_REFUSED[key]}")
        return raw


class Kafka(_Table):
    bootstrap_servers: str = Field("localhost:9092", min_length=1)
    group_id: Name = "jd-intent-scorer"
    instance_id: str = ""
    transactional_id_prefix: Name = "jd-intent-scorer"
    delivery: Literal["exactly_once", "at_least_once"] = "exactly_once"
    cloudevents: CloudEvents = "binary"
    static_membership: bool = False
    group_protocol: Literal["classic", "consumer"] = "classic"
    assignor: Literal["cooperative-sticky", "range", "roundrobin"] = "cooperative-sticky"
    isolation_level: Literal["read_committed", "read_uncommitted"] = "read_committed"
    start: Literal["earliest", "latest"] = "earliest"
    begin_anew: bool = False
    merge_wait_ms: int = Field(50, ge=0, le=60_000)
    session_timeout_s: Seconds = 10.0
    transaction_timeout_s: Seconds = 30.0
    give_up_after_s: Seconds = 300.0
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: str = ""
    sasl_username: str = ""
    sasl_password: SecretStr = SecretStr("")
    sasl_password_file: str = ""
    ssl_key_password: SecretStr = SecretStr("")
    ssl_key_password_file: str = ""
    topics: dict[str, Name] = {}
    librdkafka: Librdkafka = Librdkafka()

    @property
    def instance(self) -> str:
        """The name of this process in its group: `instance_id`, or the host's name."""
        return self.instance_id or socket.gethostname()

    def client(self) -> dict[str, Any]:
        """librdkafka's settings that every client shares.

        Raises:
            ConfigError: a password file cannot be read.
        """
        settings: dict[str, Any] = {
            "bootstrap.servers": self.bootstrap_servers,
            "client.id": self.instance,
            "security.protocol": self.security_protocol,
            # A broker that is away is tried once a second (librdkafka: ever more seldom, down to each 10 s): a scorer
            # is back a second after its broker. Where none is left, librdkafka 2.16 begins with the bootstrap servers
            # again and again, 70 times a second; without that (metadata.recovery.strategy) it was lost for good when
            # its only broker came back with another address. `ops.log.Seldom` keeps the log readable.
            "reconnect.backoff.max.ms": 1000,
            # librdkafka opens a client's connections one by one, half of this apart: with its 100 ms a start, whose
            # clients are a dozen, waits half a second for them. It is doubled with each failure, up to the above.
            "reconnect.backoff.ms": 20,
        }
        secrets = {
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": _secret("kafka.sasl_password", self.sasl_password, self.sasl_password_file),
            "ssl.key.password": _secret("kafka.ssl_key_password", self.ssl_key_password, self.ssl_key_password_file),
        }
        settings.update({key: value for key, value in secrets.items() if value})
        settings.update(self.librdkafka.common)
        return settings


class Batch(_Table):
    messages_max: int = Field(2048, ge=1, le=10_000)  # a batch is one inference request; Triton's config takes 10,000
    poll_ms: int = Field(200, ge=1, le=1_000)


class Events(_Table):
    message_bytes_max: int = Field(65_536, ge=256, le=64 * 1024 * 1024)
    future_s_max: int = Field(300, ge=0, le=10 * 365 * 86_400)


class OpenMLDB(_Table):
    """How the SDK reaches a cluster (`zk`), or a standalone server (`host`)."""

    zk: str = ""
    zk_path: str = Field("/openmldb", pattern="^/.")
    host: str = ""
    port: int = Field(6527, ge=1, le=65_535)
    user: Name = "root"
    password: SecretStr = SecretStr("")
    password_file: str = ""
    timeout_s: Seconds = 20.0
    calls_in_flight: int = Field(4, ge=1, le=64)
    connections: int = Field(4, ge=1, le=16)

    def secret(self) -> str:
        """The password.

        Raises:
            ConfigError: the password file cannot be read.
        """
        return _secret("store.openmldb.password", self.password, self.password_file)


class Rest(_Table):
    """OpenMLDB's API server."""

    url: str = Field("http://localhost:9080", min_length=1)
    token: SecretStr = SecretStr("")
    token_file: str = ""
    ca_file: str = ""
    timeout_s: Seconds = 20.0
    connections: int = Field(4, ge=1, le=64)

    def secret(self) -> str:
        """The token; "": none is sent.

        Raises:
            ConfigError: its file cannot be read.
        """
        return _secret("store.rest.token", self.token, self.token_file)


class Store(_Table):
    kind: Literal["embedded", "openmldb", "openmldb-rest"] = "embedded"
    database: str = ""
    deployment: str = ""
    history: str = ""
    windows_may_start_empty: bool = False
    backoff_ms: int = Field(200, ge=1, le=60_000)
    backoff_ms_max: int = Field(5_000, ge=1, le=600_000)
    give_up_after_s: Seconds = 900.0
    openmldb: OpenMLDB = OpenMLDB()
    rest: Rest = Rest()


class ModelBreaker(_Table):
    failures_max: int = Field(3, ge=1, le=1_000)
    failing_s_max: Seconds = 5.0


class Snapshots(_Table):
    folder: str = ""
    every_s: Seconds = 60.0
    keep: int = Field(2, ge=1, le=100)


class Poison(_Table):
    tries_max: int = Field(3, ge=0, le=100)
    folder: str = ""


class Dedup(_Table):
    horizon_s: float = Field(0.0, ge=0, le=31 * 86_400)

    @property
    def horizon_ms(self) -> int:
        """0: off."""
        return int(self.horizon_s * 1000)


class Model(_Table):
    url: str = Field("localhost:8001", min_length=1)
    name: Name = "embedding"
    artifact: str = Field("build/artifact", min_length=1)
    timeout_s: Seconds = 10.0
    backoff_ms: int = Field(100, ge=1, le=60_000)
    backoff_ms_max: int = Field(5_000, ge=1, le=600_000)
    give_up_after_s: Seconds = 900.0
    breaker: ModelBreaker = ModelBreaker()


class Workers(_Table):
    count: int = Field(0, ge=0, le=256)
    deaths_max: int = Field(10, ge=1, le=1_000)
    healthy_s: Seconds = 60.0
    backoff_ms: int = Field(500, ge=1, le=60_000)
    backoff_ms_max: int = Field(30_000, ge=1, le=600_000)
    stop_s: Seconds = 30.0


class Http(_Table):
    host: str = "127.0.0.1"
    port: int = Field(9108, ge=0, le=65_535)
    stalled_s: Seconds = 60.0


class Metrics(_Table):
    latency_from: Literal["record", "event"] = "record"


class Log(_Table):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "console"] = "auto"


class Config(BaseSettings):
    """The whole configuration; immutable."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    app: str = Field("sql/jd", min_length=1)
    kafka: Kafka = Kafka()
    batch: Batch = Batch()
    events: Events = Events()
    store: Store = Store()
    snapshots: Snapshots = Snapshots()
    poison: Poison = Poison()
    dedup: Dedup = Dedup()
    model: Model = Model()
    workers: Workers = Workers()
    http: Http = Http()
    metrics: Metrics = Metrics()
    log: Log = Log()

    @model_validator(mode="after")
    def _repeats_are_the_same(self) -> Config:
        # A cluster's tables hold the request row of an event that is asked again: its second score would be another.
        if self.kafka.delivery == "at_least_once" and self.store.kind != "embedded":
            raise ValueError(f"kafka.delivery at_least_once needs store.kind embedded, not {self.store.kind}")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file (whose content comes as init arguments)."""
        return env_settings, init_settings


def load(file: Path | None) -> Config:
    """Reads `file` (none: defaults) and the environment.

    Raises:
        ConfigError: names the file or the environment variable, the key, and what is wrong with it.
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = tomli.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
        except (tomli.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file}: not valid TOML: {error}") from error
    _check_variables(os.environ)
    try:
        return Config(**values)
    except SettingsError as error:
        raise ConfigError(f"environment: {error}: {error.__cause__}") from error
    except ValidationError as error:
        place = "defaults" if file is None else str(file)
        raise ConfigError("; ".join(_explain(place, e["loc"], e["type"], e["msg"]) for e in error.errors())) from None


def masked(config: Config) -> dict[str, Any]:
    """The effective configuration as plain values, secrets masked, those in raw librdkafka keys and in URLs too."""
    return {name: _mask(name, value) for name, value in config.model_dump(mode="json").items()}


def _mask(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _mask(key, inner) for key, inner in value.items()}
    if value and _SECRET.search(name) and not name.endswith("_file"):
        return _MASK
    return masked_url(value) if isinstance(value, str) else value


def masked_url(text: str) -> str:
    """`text` without the user and password of a URL in it."""
    return _USER.sub(f"{_MASK}@", text)


def _secret(key: str, value: SecretStr, file: str) -> str:
    if not file:
        return value.get_secret_value()
    if value.get_secret_value():
        raise ConfigError(f"{key} and {key}_file are both set: keep one")
    try:
        return Path(file).read_text(encoding="utf-8").rstrip("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}_file: {file} cannot be read: {error}") from error


def _check_variables(environ: Mapping[str, str]) -> None:
    """pydantic-settings ignores a variable whose table it does not know: that would hide a typing error."""
    for variable in environ:
        table, _, _ = variable.removeprefix(ENV_PREFIX).partition("__")
        if variable.startswith(ENV_PREFIX) and table.lower() not in Config.model_fields:
            raise ConfigError(f"environment: {variable}: unknown table {table.lower()!r}{_nearest((), table.lower())}")


def _explain(file: str, loc: tuple[int | str, ...], kind: str, message: str) -> str:
    key = ".".join(map(str, loc))
    variable = ENV_PREFIX + "__".join(str(part).upper() for part in loc)
    place = f"environment {variable}" if variable in os.environ else file
    if kind in ("model_type", "model_attributes_type"):
        return f"{place}: {key}: must be a table, [{key}]"
    if kind == "extra_forbidden":
        return f"{place}: {key}: unknown key{_nearest(loc[:-1], str(loc[-1]))}"
    return f"{place}: {key}: {message.removeprefix('Value error, ')}"


def _nearest(table: tuple[int | str, ...], name: str) -> str:
    """A proposal for an unknown key, from the keys of its table."""
    fields: Mapping[str, Any] = Config.model_fields
    for part in table:
        inner = fields[str(part)].annotation if str(part) in fields else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return ""
        fields = inner.model_fields
    found = difflib.get_close_matches(name, fields, n=1)
    return f" (did you mean {found[0]!r}?)" if found else ""
