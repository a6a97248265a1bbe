"""How a process deals with its Kafka: what makes its clients, and how a broker that is away is waited for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from streaming.config import Kafka
from streaming.errors import BrokerUnavailable, Stopped
from streaming.kafka.clients import LIBRDKAFKA, KafkaClients
from streaming.kafka.login import Login
from streaming.ops.clock import SYSTEM_CLOCK, Clock
from streaming.ops.waiting import Waiting, steady

__all__ = ["REQUEST_TIMEOUT_S", "Connection"]

REQUEST_TIMEOUT_S = 5.0  # one request to the broker; retried until `give_up_after_s`, so signals are served in between
UNKNOWN_S = 30.0  # a broker that has just started does not know its partitions yet; one that is gone stays unknown
AGAIN_MIN_S, AGAIN_MAX_S = 0.1, 0.3  # between two attempts

_log = structlog.stdlib.get_logger("streaming.kafka.connection")


class Connection:
    """One for all that a process does on Kafka.

    Args:
        stop: once it is set, nothing is called again.
        beat: called before each attempt, so that the process counts as alive.
        login: asked why, where calls fail; none: a broker that refuses the login counts as away.
        clients: makes the clients.
        clock: counts how long the broker is away.
    """

    def __init__(
        self,
        stop: threading.Event,
        beat: Callable[[], None] = lambda: None,
        login: Login | None = None,
        *,
        clients: KafkaClients = LIBRDKAFKA,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.stop, self.beat, self.clients, self.clock = stop, beat, clients, clock
        self._login = login

    def beside(self) -> Connection:
        """The same for work beside the loop, which must not say that the loop is alive."""
        return Connection(self.stop, login=self._login, clients=self.clients, clock=self.clock)

    def consumer(self, settings: dict[str, Any]) -> Consumer:
        """A consumer whose lost connections are `heard`.

        Raises:
            ConfigError: librdkafka refuses a setting.
        """
        return self.clients.consumer({**settings, "error_cb": self.heard})

    def admin(self, kafka: Kafka) -> AdminClient:
        """The same for a client that asks about topics and groups."""
        return self.clients.admin({**kafka.client(), "error_cb": self.heard})

    def rest(self, why: str) -> None:
        """A moment before something is looked at again.

        Raises:
            Stopped: told to stop; `why` says while what.
        """
        self.beat()
        if self._waiting(0.0).rest():
            raise Stopped(why)

    def retry(self, call: Callable[[], Any], patience_s: float) -> Any:
        """What `call` returns; it is called again while the broker is away or not ready.

        Raises:
            BrokerUnavailable: for longer than `patience_s`.
            LoginRefused, NotAllowed: see `Login`.
            Stopped: told to stop meanwhile.
            KafkaException: an error that does not pass; a partition that stays unknown for `UNKNOWN_S`.
        """
        waiting, unknown = self._waiting(patience_s), self._waiting(UNKNOWN_S)
        if self._login is not None:
            self._login.first()
        while True:
            self.beat()
            try:
                return call()
            except KafkaException as raised:
                error = raised.args[0]
                if error.fatal() or not (error.retriable() or error.code() in _PASSING | _UNKNOWN):
                    raise
                if error.code() in _UNKNOWN and unknown.is_over:
                    raise
                if self.stop.is_set():
                    raise Stopped(f"Kafka does not answer: {error.str()}") from raised
                if waiting.is_over:
                    raise BrokerUnavailable(f"Kafka did not answer for {patience_s:.0f} s: {error.str()}") from raised
                _log.warning("kafka does not answer yet", error=error.str())
                self.ask_login()
                waiting.rest()

    def ask_login(self) -> None:
        """A call has failed: is it the login?

        Raises:
            LoginRefused, NotAllowed: see `Login`.
        """
        if self._login is not None:
            self._login.again()

    def listen(self) -> None:
        """In every round of who waits for records: a login that is refused shows as silence.

        Raises:
            LoginRefused, NotAllowed: see `Login`.
        """
        if self._login is not None:
            self._login.listen()

    def heard(self, error: KafkaError) -> None:
        """The `error_cb` of clients."""
        if self._login is not None:
            self._login.heard(error)

    def _waiting(self, limit_s: float) -> Waiting:
        return Waiting(limit_s, steady(AGAIN_MIN_S, AGAIN_MAX_S), self.stop.wait, self.clock)


_PASSING = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._TRANSPORT,
    KafkaError._WAIT_COORD,
    KafkaError._RESOLVE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNSTABLE_OFFSET_COMMIT,
}

_UNKNOWN = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC}
