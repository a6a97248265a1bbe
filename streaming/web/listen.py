"""Where a server listens, with which certificate, and the token that it asks for."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from streaming.errors import ConfigError

__all__ = ["TOKEN_CHARS_MIN", "TOKEN_VARIABLE", "Listen", "listening", "on_loopback", "read_token", "tls_context"]

TOKEN_VARIABLE = "JD_INTENT_TOKEN"
TOKEN_CHARS_MIN = 16


@dataclass(frozen=True)
class Listen:
    """What the command line says about it.

    Args:
        token_file: holds the token and nothing else; without it `TOKEN_VARIABLE` of the environment may.
        tls_cert, tls_key: PEM; the certificate with those that lead to its root. Both or neither.
        allow_hosts: names besides its own, under which clients may call it.
        connections_max: at a time; the next ones are told to come again.
    """

    host: str
    port: int
    token_file: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allow_hosts: tuple[str, ...] = ()
    connections_max: int = 128

    def token(self, listener: socket.socket, environ: Mapping[str, str] = os.environ) -> str | None:
        """What callers must show; none: everybody on this machine may call.

        Args:
            listener: bound to where `host` leads.

        Raises:
            ConfigError: there is none, and other machines can reach the address; or it is unusable.
        """
        token = read_token(self.token_file, environ)
        if token is None and not on_loopback(listener):
            raise ConfigError(
                f"--host {self.host}: other machines reach this address, so callers need a token: name a file that "
                f"holds it with --token-file, or set {TOKEN_VARIABLE} (`openssl rand -hex 32` makes one)"
            )
        return token

    def told(self, listener: socket.socket) -> dict[str, object]:
        """What the log says of it; never the token."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        url = f"{'https' if self.tls_cert else 'http'}://{host}:{listener.getsockname()[1]}"
        told: dict[str, object] = {"url": url}
        if not self.tls_cert and not on_loopback(listener):
            told["unencrypted"] = "token and rows can be read on the way: --tls-cert, or a proxy that speaks TLS"
        return told

    def tls(self) -> ssl.SSLContext | None:
        """The server's side of TLS; none: plain HTTP.

        Raises:
            ConfigError: a file is missing or wrong.
        """
        if self.tls_cert is None and self.tls_key is None:
            return None
        if self.tls_cert is None or self.tls_key is None:
            raise ConfigError("--tls-cert and --tls-key: give both, or neither")
        return tls_context(self.tls_cert, self.tls_key)


def read_token(file: Path | None, environ: Mapping[str, str] = os.environ) -> str | None:
    """The token from a file or the environment; never from the command line, which every user of a machine can read.

    Raises:
        ConfigError: it is in both, cannot be read, or is too short or not printable.
    """
    told = environ.get(TOKEN_VARIABLE, "")
    if file is not None and told:
        raise ConfigError(f"--token-file and {TOKEN_VARIABLE} are both there: keep one")
    place = TOKEN_VARIABLE
    if file is not None:
        place = f"--token-file {file}"
        try:
            told = file.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ConfigError(f"{place} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError:
            raise ConfigError(f"{place}: not a text") from None  # the cause would show a part of it
    elif not told:
        return None
    if not re.fullmatch(r"[!-~]+", told) or len(told) < TOKEN_CHARS_MIN:
        raise ConfigError(
            f"{place}: a token has at least {TOKEN_CHARS_MIN} characters, printable ASCII without blanks "
            "(`openssl rand -hex 32` makes one)"
        )
    return told


def tls_context(cert: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 or later with this certificate.

    Raises:
        ConfigError: a file is missing, is no PEM, or the two do not belong together; the key is encrypted.
    """
    for option, file in (("--tls-cert", cert), ("--tls-key", key)):
        try:
            file.read_bytes()
        except OSError as error:
            raise ConfigError(f"{option} {file} cannot be read: {error.strerror}") from error
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])

    def no_password() -> str:  # without it OpenSSL would ask at the terminal
        raise ConfigError(f"--tls-key {key} is encrypted: decrypt it into a file that only this user reads")

    try:
        context.load_cert_chain(cert, key, no_password)
    except ssl.SSLError as error:
        why = error.reason.replace("_", " ").lower() if error.reason else "no PEM file"
        raise ConfigError(f"--tls-cert {cert}, --tls-key {key}: {why}") from error
    return context


def listening(host: str, port: int) -> socket.socket:
    """The listening socket, taken before anything slow begins.

    Raises:
        ConfigError: the port is taken, or the host is not this machine's.
    """
    listener = None
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # With its protocol named: only then asyncio sets TCP_NODELAY, without which an answer waits 40 ms for an ACK.
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen()
    except (OSError, UnicodeError) as error:
        if listener is not None:
            listener.close()
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"cannot listen on {host} port {port}: {why}") from error
    return listener


def on_loopback(listener: socket.socket) -> bool:
    """Is it out of the reach of other machines?"""
    return ipaddress.ip_address(str(listener.getsockname()[0]).partition("%")[0]).is_loopback
