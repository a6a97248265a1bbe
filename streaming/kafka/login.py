"""Does Kafka let us in? A wrong password, CA or protocol, told with librdkafka's own words.

librdkafka takes a refused login for a broker that is away: it tries again for ever, and a call only times out. Why, it
tells callbacks that are served when their client is polled, which a client that reads records cannot be at any time.
So there is one place that knows: `Login`. It asks with a client of its own, at the start before anything else, and
whenever a call fails or another client's callback (`heard`) says that it lost its brokers.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from streaming.config import Kafka
from streaming.errors import ConfigError, LoginRefused, NotAllowed

__all__ = ["Answer", "Login", "ask"]

ASK_S = 2.5  # for name, connection, TLS and login of a broker that is there: a few hundred milliseconds
OTHERS_S = 10.0  # for the other servers, where one has refused: a login may be known to them
TURN_S = 0.5  # a refusal is looked for in between
EVERY_S = 5.0  # between two questions: each is a login more for the broker
LATER_S = 60.0  # for how long a login may be refused that has worked: brokers change their credentials one by one
WIRE_S = 1.0

# A TLS alert is an answer: a broker that is stopped, or a network that is cut, sends none.
_ALERT = re.compile(r"alert (number|bad|unknown|handshake|certificate)|certificate verify failed")
_CLOSED = re.compile(r"Disconnected|closed by peer|connection reset", re.I)

_log = structlog.stdlib.get_logger("streaming.kafka.login")


@dataclass(frozen=True)
class Answer:
    """What became of a try to log in.

    Attributes:
        kind: `in`, `refused`, or `silent`: nobody answers.
        why: librdkafka's words; "" when it is in.
    """

    kind: str
    why: str = ""


class Login:
    """Whether Kafka lets this process in; one for all clients of a process. May be called from any thread.

    Args:
        kafka: `[kafka]`: servers, protocol and credentials.
    """

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._turn = threading.Lock()  # held while it asks
        self._proven = False
        self._alarm = False
        self._asked = float("-inf")
        self._refused_since: float | None = None
        self._over = ""  # why there is nothing more to hope for

    def heard(self, error: KafkaError) -> None:
        """The `error_cb` of every client: librdkafka mends connections by itself, but for those that are refused."""
        _log.debug("kafka", error=error.str(), code=error.name())
        if error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError._ALL_BROKERS_DOWN):
            self._alarm = True

    def first(self) -> None:
        """Before the first call of all: waits for an answer.

        Raises:
            ConfigError: librdkafka refuses a setting, or a file that it names.
            LoginRefused: with librdkafka's words.
        """
        if not self._proven and self._turn.acquire(blocking=False):
            try:
                self._judge(ask(self._kafka))
            finally:
                self._asked = time.monotonic()
                self._turn.release()
            self._raise()

    def listen(self) -> None:
        """In every round of who waits for records: as `again`, when a client has lost its brokers.

        Raises:
            LoginRefused, NotAllowed: see `again`.
        """
        if self._alarm:
            self.again()

    def again(self) -> None:
        """After a call that came to nothing: says what is known, and asks once more, on a thread of its own.

        Raises:
            LoginRefused: it is refused, and was never let in.
            NotAllowed: it was, and is refused for `LATER_S` now, or `kafka.give_up_after_s` where that is shorter.
        """
        self._raise()
        if time.monotonic() - self._asked > EVERY_S and self._turn.acquire(blocking=False):
            threading.Thread(target=self._ask, name="login", daemon=True).start()

    def _ask(self) -> None:
        try:
            self._alarm = False
            self._judge(ask(self._kafka))
        except ConfigError as error:  # a password file that is being written, perhaps
            self._judge(Answer("refused", str(error)))
        finally:
            self._asked = time.monotonic()
            self._turn.release()

    def _judge(self, answer: Answer) -> None:
        if answer.kind == "in":
            self._proven, self._refused_since = True, None
        elif answer.kind == "silent":
            _log.warning("no broker answers", why=answer.why)
        elif not self._proven:
            self._over = f"refuses the login: {answer.why}"
        else:
            self._alarm = True  # clients may tell of it no more
            now = time.monotonic()
            since = self._refused_since = self._refused_since or now
            _log.warning("Kafka refuses a login that it took before", why=answer.why, for_s=round(now - since))
            if now - since > min(LATER_S, self._kafka.give_up_after_s):
                self._over = f"has refused the login for {now - since:.0f} s, which it took before: {answer.why}"

    def _raise(self) -> None:
        if self._over:
            raise (NotAllowed if self._proven else LoginRefused)(
                f"Kafka at {self._kafka.bootstrap_servers} {self._over}"
            )


@dataclass
class _Heard:
    """What a client says of its connections, in the order in which it says it."""

    lines: list[str] = field(default_factory=list)
    refusals: dict[str, str] = field(default_factory=dict)
    """By server, as librdkafka calls it: protocol://host:port."""

    def on_error(self, error: KafkaError) -> None:
        text = error.str()
        if error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL) or _ALERT.search(text):
            self.refusals.setdefault(text.partition(": ")[0].rpartition("/")[0], text)
        elif error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.lines.append(text)

    def log(self, _level: int, message: str, *parts: object) -> None:
        """As a logger's."""
        text = message % parts if parts else message
        if text.startswith("FAIL "):  # of connections; the rest is advice
            self.lines.append(text.rpartition("]: ")[2])


def ask(kafka: Kafka, wait_s: float = ASK_S) -> Answer:
    """Logs in with a client of its own, and leaves again.

    Raises:
        ConfigError: librdkafka refuses a setting, or a file that it names.
    """
    heard = _Heard()
    settings: dict[str, Any] = {**kafka.client(), "error_cb": heard.on_error}
    try:
        client = AdminClient(settings, logger=heard)
    except KafkaException as error:
        raise ConfigError(f"kafka: librdkafka refuses the settings: {error.args[0].str()}") from error
    servers = len(kafka.bootstrap_servers.split(","))
    answer = _try(client, heard, TURN_S, servers)
    if answer.kind == "silent" and all(map(_CLOSED.search, heard.lines)) and (hint := _other_protocol(kafka)):
        # A broker that came up a moment ago has closed connections, too: it is asked once more.
        again = _try(AdminClient(kafka.client(), logger=_Heard()), _Heard(), TURN_S, 1)
        return again if again.kind == "in" else Answer("refused", f"{answer.why}: {hint}")
    return _try(client, heard, wait_s, servers) if answer.kind == "silent" else answer


def _try(client: AdminClient, heard: _Heard, wait_s: float, servers: int) -> Answer:
    """`servers`: so many have to refuse, or to be silent for `OTHERS_S` beside one that does."""
    began = time.monotonic()
    while True:
        try:
            client.list_topics(timeout=TURN_S)
        except KafkaException as error:
            failure = error.args[0].str()
        else:
            return Answer("in")
        client.poll(0)
        took_s, refusals = time.monotonic() - began, list(heard.refusals.values())
        if len(refusals) >= servers or (refusals and took_s > OTHERS_S):
            return Answer("refused", _advised(refusals[0]))
        if took_s > wait_s and not refusals:
            return Answer("silent", heard.lines[-1] if heard.lines else failure)
        time.sleep(0.05)  # a call that fails at once is no reason to go round at full speed


def _advised(text: str) -> str:
    """librdkafka says what to do about an unknown CA in one of the two ways in which it meets it only."""
    if "certificate verify failed" in text and "ssl.ca.location" not in text:
        return f"{text}: ssl.ca.location of [kafka.librdkafka.common] has to name the CA of the broker's certificate"
    return text


def _other_protocol(kafka: Kafka) -> str:
    """Why a broker that takes connections closes them; "": its listener does not tell."""
    ours = kafka.security_protocol
    tls = ours.endswith("SSL")
    for server in kafka.bootstrap_servers.split(","):
        host, _, port = server.strip().rpartition("://")[2].rpartition(":")
        address = (host.strip("[]"), int(port)) if port.isdigit() else (server.strip(), 9092)
        if not tls and _speaks_tls(address):
            return f"the listener speaks TLS, kafka.security_protocol is {ours}: set SSL or SASL_SSL"
        if _speaks_plainly(address):
            if tls:
                return f"the listener speaks no TLS, kafka.security_protocol is {ours}: set PLAINTEXT or SASL_PLAINTEXT"
            if ours == "PLAINTEXT":
                return "the listener wants a login, kafka.security_protocol is PLAINTEXT: set SASL_PLAINTEXT"
    return ""


def _speaks_tls(address: tuple[str, int]) -> bool:
    """Whether who it is does not matter here: nothing is sent but a greeting."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with socket.create_connection(address, WIRE_S) as plain, context.wrap_socket(plain):
            return True
    except OSError:
        return False


def _speaks_plainly(address: tuple[str, int]) -> bool:
    """Answers ApiVersions, Kafka's greeting, before any login."""
    greeting = bytes.fromhex("0000000a 0012 0000 00000001 ffff")  # length, key, version, correlation id, no client id
    with contextlib.suppress(OSError), socket.create_connection(address, WIRE_S) as plain:
        plain.settimeout(WIRE_S)
        plain.sendall(greeting)
        return plain.recv(8, socket.MSG_WAITALL)[4:] == greeting[8:12]
    return False
