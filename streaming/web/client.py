"""How our HTTP clients reach a server: its certificate checked, and what proves us kept out of addresses and logs."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx

from streaming.config import masked_url
from streaming.errors import ConfigError

__all__ = ["connect"]


def connect(place: str, url: str, *, token: str | None = None, ca: Path | None = None, **options: Any) -> httpx.Client:
    """A client of the server at `url`, whose own address holds no password: httpx logs it with every request.

    Args:
        place: where the address was given, for messages.
        token: sent as `Authorization: Bearer`.
        ca: certificates, PEM, that vouch for the server, instead of the machine's own.
        options: more of httpx's.

    Raises:
        ConfigError: the URL is none, it holds a password and there is a token too, or the certificates are unusable.
    """
    match = re.match(r"(?P<scheme>https?)://(?P<rest>[^/].*)", url)
    address = None
    if match is not None:
        user, at, rest = match["rest"].rpartition("@")
        try:
            if "/" not in user:
                address = httpx.URL(f"{match['scheme']}://{rest}".rstrip("/"))
                urlsplit(str(address)).port  # noqa: B018 - it looks at it only now
        except (httpx.InvalidURL, ValueError):
            address = None
    if address is None or not address.host:
        raise ConfigError(
            f"{place}: {masked_url(url)!r} is no URL such as http://HOST:9080 (in a password / is %2F and @ is %40)"
        )
    if at and token is not None:
        raise ConfigError(f"{place}: {masked_url(url)} holds a password, and there is a token: keep one")
    if at:
        name, _, password = user.partition(":")
        options["auth"] = httpx.BasicAuth(unquote(name), unquote(password))
    if token is not None:
        options["headers"] = {**options.get("headers", {}), "Authorization": f"Bearer {token}"}
    if ca is not None:
        options["verify"] = _vouched_by(place, ca)
    return httpx.Client(base_url=address, **options)


def _vouched_by(place: str, ca: Path) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca)
    except ssl.SSLError as error:
        raise ConfigError(f"{place}: {ca} holds no certificates in PEM") from error
    except OSError as error:
        raise ConfigError(f"{place}: {ca} cannot be read: {error.strerror}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
