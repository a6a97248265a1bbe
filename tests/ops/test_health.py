"""The scorer's own port: peers that are slow, silent or many neither hold it up nor pile up threads."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fixtures.web import PATIENCE_S, drip, ended
from prometheus_client import CollectorRegistry, Gauge

from streaming.config import Http
from streaming.ops import health
from streaming.ops.health import Health, HttpServer

THREADS = 3


@pytest.fixture
def patience_s() -> float:
    """How long a connection may take; a test that needs it to end sets less."""
    return PATIENCE_S


@pytest.fixture(params=["tcp", "unix"])
def address(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, patience_s: float
) -> Iterator[tuple[str, int] | str]:
    """Of a server with few threads."""
    monkeypatch.setattr(health, "CONNECTIONS_MAX", THREADS)
    monkeypatch.setattr(health, "CONNECTION_S", patience_s)
    monkeypatch.setattr(health, "LEAVING_S", 0.3)
    registry = CollectorRegistry()
    Gauge("jd_intent_test", "A value.", registry=registry).set(7)
    path = str(tmp_path / "sock")
    http = Http(host=f"unix:{path}") if request.param == "unix" else Http(port=0)
    with HttpServer(http, Health(60.0), registry) as server:
        yield path if request.param == "unix" else ("127.0.0.1", server.port)


def connect(address: tuple[str, int] | str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    connection.settimeout(PATIENCE_S)
    connection.connect(address)
    return connection


def get(address: tuple[str, int] | str, path: str) -> tuple[int, str, str | None]:
    """Status, body, and what Retry-After says."""
    client = http.client.HTTPConnection("localhost")
    client.sock = connect(address)
    with contextlib.closing(client):
        client.request("GET", path)
        answer = client.getresponse()
        return answer.status, answer.read().decode(), answer.headers["Retry-After"]


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_answers(address: tuple[str, int] | str) -> None:
    assert "jd_intent_test 7.0" in get(address, "/metrics")[1]
    assert json.loads(get(address, "/healthz?x")[1])["alive"] is True
    status, body, _ = get(address, "/readyz")
    assert (status, json.loads(body)["ready"]) == (503, False)
    assert get(address, "/nowhere")[0] == 404


@pytest.mark.parametrize("patience_s", [0.8])
def test_slow_peers_are_cut_while_others_are_served(address: tuple[str, int] | str) -> None:
    with contextlib.ExitStack() as stack:
        silent, dripping = (stack.enter_context(connect(address)) for _ in range(2))
        dripping.sendall(b"GET /metrics HTTP/1.1\r\n")
        until(lambda: get(address, "/healthz")[0] == 200)
        until(lambda: not drip(dripping, b"x"))
        assert ended(silent) == b""
        assert get(address, "/healthz")[0] == 200


def test_many_peers_are_told_to_come_again_and_have_no_threads(address: tuple[str, int] | str) -> None:
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        silent = [stack.enter_context(connect(address)) for _ in range(THREADS)]
        until(lambda: threading.active_count() == before + THREADS)
        status, _, again = get(address, "/healthz")
        assert (status, again) == (503, "1")
        others = [stack.enter_context(connect(address)) for _ in range(3 * THREADS)]
        told = [ended(other) for other in others]
        assert all(answer in {b"", health.BUSY} for answer in told)
        assert health.BUSY in told
        assert threading.active_count() <= before + THREADS
        for peer in silent:
            peer.close()
    until(lambda: threading.active_count() == before)
    assert get(address, "/healthz")[0] == 200


def test_a_peer_that_goes_away_is_no_news(address: tuple[str, int] | str, capsys: pytest.CaptureFixture[str]) -> None:
    before = threading.active_count()
    for _ in range(20):
        with connect(address) as peer:
            peer.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    until(lambda: threading.active_count() == before)
    until(lambda: get(address, "/healthz")[0] == 200)
    assert "Traceback" not in capsys.readouterr().err
