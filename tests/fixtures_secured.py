"""A real broker that lets in who has a password, and lets do what ACLs say; with TLS and without."""

from __future__ import annotations

import contextlib
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)
from proxy import Proxy

from deploy.environments import java
from deploy.kafka.broker import TOPICS, Broker, Listener
from deploy.process import free_ports
from streaming.config import Kafka
from streaming.rights import Right

PASSWORD = "right"
USERS = ("scorer", *(f"user{number}" for number in range(80)))

ANY: Any = None
"""In a filter of ACLs; confluent_kafka's types know no None."""

_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
_OPERATIONS = {
    "Read": AclOperation.READ, "Write": AclOperation.WRITE, "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
}  # fmt: skip
_KINDS = {
    "topic": ResourceType.TOPIC, "group": ResourceType.GROUP, "transactional id": ResourceType.TRANSACTIONAL_ID
}  # fmt: skip


@dataclass
class Secured:
    """The broker and its doors.

    Attributes:
        ports: of the listeners: `PLAIN` (nobody is asked, everything may be done), `LOGIN` (SASL), `TLS`, `BOTH`,
            `MUTUAL` (TLS, who comes has to show a certificate).
        network: between `LOGIN`'s clients and the broker.
        ca, other_ca: PEM files of the broker's certificate, and of another that is called the same.
    """

    broker: Broker
    ports: Mapping[str, int]
    network: Proxy
    ca: Path
    other_ca: Path

    def __post_init__(self) -> None:
        self.admin = AdminClient({"bootstrap.servers": self.broker.bootstrap})
        self._users = iter(USERS[1:])

    def kafka(self, door: str, user: str = "scorer", **changes: Any) -> Kafka:
        """How a user of the SASL mechanism PLAIN gets in."""
        protocols = {"PLAIN": "PLAINTEXT", "LOGIN": "SASL_PLAINTEXT", "TLS": "SSL", "BOTH": "SASL_SSL", "MUTUAL": "SSL"}
        values = {
            "bootstrap_servers": f"127.0.0.1:{self.ports[door]}", "security_protocol": protocols[door],
            "give_up_after_s": 20.0, "transactional_id_prefix": "scorer", "instance_id": user,
            "librdkafka": {"common": {"ssl.ca.location": str(self.ca)}} if protocols[door].endswith("SSL") else {},
        }  # fmt: skip
        if protocols[door].startswith("SASL"):
            values |= {"sasl_mechanism": "PLAIN", "sasl_username": user, "sasl_password": PASSWORD}
        return Kafka(**{**values, **changes})

    def user(self, rights: Sequence[Right]) -> str:
        """A user who may do this and nothing else."""
        name = next(self._users)
        self.allow(name, rights)
        return name

    def allow(self, user: str, rights: Sequence[Right]) -> None:
        """Gives rights, and waits until the broker knows them: the controller has taken them before that."""
        bindings = [AclBinding(*_acl(user, right)) for right in rights]
        for future in (self.admin.create_acls(bindings) if bindings else {}).values():
            future.result(30)
        wanted = AclBindingFilter(
            ResourceType.ANY, ANY, ResourcePatternType.ANY, f"User:{user}", ANY, AclOperation.ANY, AclPermissionType.ANY
        )
        while len(self.admin.describe_acls(wanted).result(30)) < len(bindings):
            time.sleep(0.02)

    def forbid(self, user: str, right: Right) -> None:
        """Takes a right."""
        for future in self.admin.delete_acls([AclBindingFilter(*_acl(user, right))]).values():
            assert len(future.result(30)) == 1

    def set_password(self, user: str, password: str) -> None:
        """Of the mechanism SCRAM-SHA-256."""
        info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 4096)
        changes: list[UserScramCredentialAlteration] = [UserScramCredentialUpsertion(user, info, password.encode())]
        for future in self.admin.alter_user_scram_credentials(changes).values():
            future.result(30)


def _acl(user: str, right: Right) -> tuple[Any, ...]:
    pattern = ResourcePatternType.PREFIXED if right.prefixed else ResourcePatternType.LITERAL
    who = (f"User:{user}", "*", _OPERATIONS[right.operation], AclPermissionType.ALLOW)
    return _KINDS[right.kind], right.name, pattern, *who


def keytool(keystore: Path, *words: str) -> None:
    """Java's tool for keys; it is where Kafka runs."""
    store = ["-keystore", str(keystore), "-storepass", PASSWORD * 2, "-alias", "broker"]
    subprocess.run([str(Path(java()).with_name("keytool")), *words, *store], check=True, capture_output=True)


def make_keys(keystore: Path) -> None:
    """A key and its self-signed certificate of 127.0.0.1."""
    made = ["-keyalg", "EC", "-groupname", "secp256r1", "-dname", "CN=broker", "-ext", "san=ip:127.0.0.1"]
    keytool(keystore, "-genkeypair", "-storetype", "PKCS12", *made)


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """See `Secured`; the topics of the data path are there, and no ACL."""
    folder = tmp_path_factory.mktemp("secured")
    keys, other_keys = folder / "broker.p12", folder / "other.p12"
    ca, other_ca = folder / "broker.pem", folder / "other.pem"
    make_keys(keys)
    make_keys(other_keys)
    keytool(other_keys, "-exportcert", "-rfc", "-file", str(other_ca))
    accounts = " ".join(f'user_{user}="{PASSWORD}"' for user in USERS)
    with contextlib.ExitStack() as stack:
        network = stack.enter_context(Proxy())
        login, tls, both, mutual = free_ports(4)
        network.target = login
        settings = {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS", "ssl.keystore.type": "PKCS12",
            "ssl.keystore.location": str(keys), "ssl.keystore.password": PASSWORD * 2,
            "listener.name.mutual.ssl.client.auth": "required",
            "listener.name.login.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256",
            "listener.name.login.scram-sha-256.sasl.jaas.config": _SCRAM,
            "listener.name.both.sasl.enabled.mechanisms": "PLAIN",
        }  # fmt: skip
        settings |= {
            f"listener.name.{name}.plain.sasl.jaas.config": f"{_LOGIN} {accounts};" for name in ("login", "both")
        }
        listeners = {
            "LOGIN": Listener("SASL_PLAINTEXT", login, network.port), "TLS": Listener("SSL", tls),
            "BOTH": Listener("SASL_SSL", both), "MUTUAL": Listener("SSL", mutual),
        }  # fmt: skip
        broker = stack.enter_context(Broker(folder / "kafka", listeners=listeners, settings=settings))
        broker.create_topics(TOPICS)
        ca.write_text(ssl.get_server_certificate(("127.0.0.1", tls)))
        ports = {"PLAIN": broker.port, "LOGIN": network.port, "TLS": tls, "BOTH": both, "MUTUAL": mutual}
        yield Secured(broker, ports, network, ca, other_ca)
