"""The part that `serve` and `apiserver` share: slow, silent, greedy and too many peers, and TLS, on real sockets."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from fixtures.web import (
    BODY_BYTES_MAX,
    LARGE_BYTES,
    PATIENCE_S,
    SLOW_S,
    Certificate,
    Running,
    application,
    body,
    drip,
    ended,
)
from starlette.applications import Starlette
from starlette.routing import Route

from streaming.web.access import BodyLimit
from streaming.web.connection import Connection, Limits
from streaming.web.listen import listening
from streaming.web.server import Server

QUICK = Limits(headers_s=0.8, body_s=0.8, idle_s=1, unread_s=0.8, closing_s=0.8, look_s=0.1)
"""A machine that is busy elsewhere may make a good peer look slow: what must go well is tried again, see `until`."""

assert QUICK.headers_s + QUICK.body_s < SLOW_S


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module", params=["http", "https"])
def server(request: pytest.FixtureRequest, certificate: Certificate) -> Iterator[Running]:
    with Running(application(), QUICK, certificate.server() if request.param == "https" else None) as server:
        yield server


def open_peer(stack: contextlib.ExitStack, server: Running, certificate: Certificate) -> socket.socket:
    """A raw connection to the server, behind TLS where it speaks that."""
    raw = stack.enter_context(server.connect())
    if server.url.startswith("https"):
        return stack.enter_context(certificate.client().wrap_socket(raw, server_hostname="localhost"))
    return raw


@pytest.fixture
def peer(server: Running, certificate: Certificate) -> Iterator[socket.socket]:
    with contextlib.ExitStack() as stack:
        yield open_peer(stack, server, certificate)


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(httpx.TransportError):
            if true():
                return
        assert time.monotonic() < deadline
        time.sleep(0.02)


def client_of(server: Running, certificate: Certificate) -> httpx.Client:
    return httpx.Client(base_url=server.url, verify=certificate.client(), timeout=PATIENCE_S)


def answers(server: Running, certificate: Certificate) -> bool:
    with client_of(server, certificate) as client:
        until(lambda: client.post("/body", content=b"four").text == "4")
    return True


START = b"POST /body HTTP/1.1\r\nHost: localhost\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
REFUSED = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n"
DRIPS = {
    "nothing": (b"", b""),
    "a line": (b"POST /bo", b"d"),
    "headers": (START, b"X-A: b\r\n"),
    "blank lines": (b"\r\n", b"\r\n"),
    "no line's end": (START + b"X-A: ", b"a"),
    "a body": (START + b"Content-Length: 900\r\n\r\n", b"x"),
    "chunks": (START + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "a second request's body": (HEALTH + START + b"Content-Length: 900\r\n\r\nx", b""),
    "a second request's headers": (HEALTH + START, b"X-A: b\r\n"),
    "a third line": (HEALTH + HEALTH + b"POST", b""),
    "a chunk's size": (START + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "a body nobody wants": (REFUSED, b"x"),
}


def test_requests_that_drip_in_are_dropped_while_others_are_served(server: Running, certificate: Certificate) -> None:
    with contextlib.ExitStack() as stack:
        peers = {name: open_peer(stack, server, certificate) for name in DRIPS}
        for name, (begin, _) in DRIPS.items():
            peers[name].sendall(begin)
        assert answers(server, certificate)
        deadline, step = time.monotonic() + PATIENCE_S, 0
        while peers:
            for name, connection in list(peers.items()):
                more = DRIPS[name][1]
                if not drip(connection, more[step % len(more) :][:1] if more else b""):
                    del peers[name]
            assert time.monotonic() < deadline, f"still served: {list(peers)}"
            step += 1
        assert answers(server, certificate)


def test_an_answer_that_is_not_read_is_given_up(server: Running, peer: socket.socket) -> None:
    peer.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
    received = len(peer.recv(1))  # it has begun
    until(lambda: server.connections() == 0)
    with contextlib.suppress(OSError):
        while part := peer.recv(1 << 20):
            received += len(part)
    assert received < LARGE_BYTES


def test_a_peer_that_reads_gets_a_large_answer_and_one_that_waits_a_slow_one(
    server: Running, certificate: Certificate
) -> None:
    with client_of(server, certificate) as client:
        until(lambda: len(client.get("/large").content) == LARGE_BYTES)
        until(lambda: client.get("/slow").text == "done")


def test_an_idle_connection_is_dropped(server: Running, peer: socket.socket) -> None:
    peer.sendall(b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nab")
    assert ended(peer).endswith(b"2")


def test_a_peer_that_says_nothing_where_tls_begins_is_dropped(certificate: Certificate) -> None:
    with Running(application(), Limits(handshake_s=0.5), certificate.server()) as server, server.connect() as peer:
        assert ended(peer) == b""
        assert answers(server, certificate)


def test_tls_older_than_1_2_is_refused(certificate: Certificate) -> None:
    assert certificate.server().minimum_version == ssl.TLSVersion.TLSv1_2
    with Running(application(), Limits(), certificate.server()) as server:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = certificate.client()
            context.minimum_version = context.maximum_version = version
            with httpx.Client(verify=context, timeout=PATIENCE_S) as client:
                assert client.get(f"{server.url}/healthz").text == "well"
        context = certificate.client()
        context.set_ciphers("ALL:@SECLEVEL=0")  # this machine's own would not even ask
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        with server.connect() as raw, pytest.raises(ssl.SSLError, match=r"PROTOCOL_VERSION|EOF"):
            context.wrap_socket(raw, server_hostname="localhost")
        with pytest.raises(httpx.TransportError):
            httpx.get(server.url.replace("https", "http") + "/healthz")


@pytest.mark.parametrize("secured", [False, True])
def test_one_connection_too_many_is_told_to_come_again_while_the_others_are_served(
    certificate: Certificate, secured: bool
) -> None:
    tls = certificate.server() if secured else None
    limits = Limits(connections_max=3, turned_away_max=2, look_s=0.1)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Running(application(), limits, tls))
        clients = [stack.enter_context(client_of(server, certificate)) for _ in range(5)]
        for client in clients[:3]:
            assert client.post("/body", content=b"first").status_code == 200
        for client in clients[3:]:
            turned_away = client.post("/body", content=b"too many")
            assert (turned_away.status_code, turned_away.headers["retry-after"]) == (503, "1")
            assert turned_away.headers["connection"] == "close"
            assert client.get("/healthz").status_code == 200, "an orchestrator must not take it for dead"
        for client in clients[:3]:
            assert client.post("/body", content=b"more").status_code == 200
        clients[0].close()
        until(lambda: clients[4].post("/body", content=b"now").status_code == 200)


def test_connections_beyond_those_wait_until_there_is_room(certificate: Certificate) -> None:
    limits = Limits(connections_max=1, turned_away_max=1, look_s=0.1)
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Running(application(), limits))
        silent = [stack.enter_context(server.connect()) for _ in range(2)]
        until(lambda: server.connections() == 2)
        waiting = [stack.enter_context(server.connect()) for _ in range(20)]
        for peer in waiting:
            peer.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        time.sleep(5 * limits.look_s)
        assert server.connections() == 2
        for peer in silent:
            peer.close()
        for peer in waiting:
            assert ended(peer).endswith(b"well")


def test_sizes_are_bounded(certificate: Certificate) -> None:
    with Running(application(), Limits()) as server, client_of(server, certificate) as client:
        for size, status in ((BODY_BYTES_MAX, 200), (BODY_BYTES_MAX + 1, 413), (LARGE_BYTES, 413)):
            assert client.post("/body", content=b"x" * size).status_code == status
            assert client.post("/body", content=iter([b"x" * size])).status_code == status
        with server.connect() as peer:  # told at once, before any of it was sent
            peer.sendall(
                b"POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n"
            )
            assert peer.recv(12) == b"HTTP/1.1 413"
        assert client.get("/healthz", headers={"X-A": "a" * 15_000}).status_code == 200
        assert client.get("/healthz", headers={"X-A": "a" * 16_384}).status_code in {400, 431}
        assert client.get("/healthz", headers={f"X-{n}": "a" for n in range(3000)}).status_code in {400, 431}
        with server.connect() as peer:
            with contextlib.suppress(OSError):
                for _ in range(1000):
                    peer.sendall(b"X-A: " + b"a" * 10_000)
            assert ended(peer)[:12] in {b"HTTP/1.1 400", b""}


def test_bodies_are_bounded_together(certificate: Certificate) -> None:
    app = Starlette(routes=[Route("/body", body, methods=["POST"])])
    app.add_middleware(BodyLimit, bytes_max=1000, together_max=1500)
    with Running(app, Limits()) as server, client_of(server, certificate) as client, server.connect() as peer:
        peer.sendall(START + b"Content-Length: 1000\r\n\r\n" + b"x" * 900)
        until(lambda: client.post("/body", content=b"x" * 900).status_code == 503)
        assert client.post("/body", content=b"x" * 900).headers["retry-after"] == "1"
        assert client.post("/body", content=b"x" * 500).text == "500"
        peer.sendall(b"x" * 100)
        assert peer.recv(15) == b"HTTP/1.1 200 OK"
        until(lambda: client.post("/body", content=b"x" * 900).text == "900")


def test_a_request_that_is_under_way_is_answered_when_the_server_stops(certificate: Certificate) -> None:
    with ThreadPoolExecutor(1) as thread, client_of(running := Running(application(), Limits()), certificate) as client:
        with running:
            answer = thread.submit(client.get, "/slow")
            until(lambda: running.connections() == 1)
        assert answer.result().text == "done"


def test_a_server_whose_watch_fails_ends_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(Connection, "overdue", broken)
    server = Server(application(), QUICK)
    with listening("127.0.0.1", 0) as listener, ThreadPoolExecutor(1) as thread:
        served = thread.submit(server.run, [listener])
        with (
            socket.create_connection(listener.getsockname(), PATIENCE_S),
            pytest.raises(RuntimeError, match="a defect"),
        ):
            served.result(PATIENCE_S)


def test_a_peer_that_goes_away_is_no_defect(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    for begin in (REFUSED, START + b"Content-Length: 900\r\n\r\nx", b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n"):
        with server.connect() as peer:
            peer.sendall(begin)
    until(lambda: server.connections() == 0)
    assert not caplog.records
