"""Who may ask: names and origins of web pages, tokens, content types, and what is wrong with a command line."""

from __future__ import annotations

import base64
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from fixtures.web import PATIENCE_S, Certificate, Running, application, ended
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streaming.config import masked_url
from streaming.errors import ConfigError
from streaming.web.access import OPEN_PATHS, Rules, own_names
from streaming.web.client import connect
from streaming.web.connection import Limits
from streaming.web.listen import TOKEN_CHARS_MIN, Listen, listening, read_token

TOKEN = "0123456789abcdef0123456789abcdef"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def guarded() -> Iterator[Running]:
    """With every rule there is."""
    rules = Rules(own_names("127.0.0.1", ["Shop.Example.", "[fd00::1]"]), TOKEN, json_only=True)
    with Running(application(rules), Limits()) as server:
        yield server


def ask(server: Running, path: str = "/body", *, body: bytes | None = b"{}", **headers: Any) -> httpx.Response:
    """POST (GET without a body) with a token and as JSON, but for what `headers` says; '': without that one."""
    told = {"host": f"127.0.0.1:{server.port}", "authorization": f"Bearer {TOKEN}", **JSON}
    told |= {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {name: value for name, value in told.items() if value or name == "host"}
    method = "GET" if body is None else "POST"
    return httpx.request(method, server.url + path, content=body, headers=sent, timeout=PATIENCE_S)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost"}, 200),
        ({"host": "LOCALHOST:1"}, 200),
        ({"host": "localhost."}, 200),
        ({"host": "[::1]:80"}, 200),
        ({"host": "shop.example:443"}, 200),
        ({"host": "[FD00::1]"}, 200),
        ({"host": socket.gethostname()}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "evil.example:9080"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "localhost.evil.example"}, 403),
        ({"host": "evil.example#localhost"}, 403),
        ({"host": ""}, 403),
        ({"host": "evil@localhost"}, 403),
        ({"host": "localhost:80@evil"}, 403),
        ({"host": "10.1.2.3"}, 403),
        ({"host": "localhost,evil.example"}, 403),
        ({"host": "[::2]"}, 403),
        ({"host": "localhost:x"}, 403),
        ({"origin": "http://127.0.0.1:{port}"}, 200),
        ({"origin": "https://127.0.0.1:{port}"}, 200),
        ({"origin": "http://shop.example", "host": "shop.example"}, 200),
        ({"origin": "http://localhost:{port}"}, 403),
        ({"origin": "http://127.0.0.1"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:{port}.evil.example"}, 403),
        ({"origin": "ftp://127.0.0.1:{port}"}, 403),
        ({"origin": "127.0.0.1:{port}"}, 403),
        ({"origin": "*"}, 403),
        ({"host": "evil.example", "origin": "http://evil.example"}, 403),
        ({"authorization": f"bearer  {TOKEN}"}, 200),
        ({"authorization": ""}, 401),
        ({"authorization": "Bearer"}, 401),
        ({"authorization": TOKEN}, 401),
        ({"authorization": f"Basic {TOKEN}"}, 401),
        ({"authorization": f"Bearer {TOKEN[:-1]}"}, 401),
        ({"authorization": f"Bearer {TOKEN}0"}, 401),
        ({"authorization": f"Bearer {TOKEN.upper()}"}, 401),
        ({"authorization": f"Bearer {TOKEN},{TOKEN}"}, 401),
        ({"content_type": "Application/JSON; charset=utf-8"}, 200),
        ({"content_type": ""}, 415),
        ({"content_type": "text/plain"}, 415),
        ({"content_type": "application/jsonx"}, 415),
        ({"content_type": "application/x-www-form-urlencoded"}, 415),
        ({"content_type": "multipart/form-data"}, 415),
        ({"content_type": "text/plain; application/json"}, 415),
        ({"content_type": "application/json,text/plain"}, 415),
    ],
)
def test_a_request_shows_what_it_must(guarded: Running, headers: Mapping[str, str], status: int) -> None:
    said: dict[str, Any] = {name: value.replace("{port}", str(guarded.port)) for name, value in headers.items()}
    response = ask(guarded, **said)
    assert response.status_code == status, response.text
    assert TOKEN not in response.text
    if status == 401:
        assert response.headers["www-authenticate"] == "Bearer"
    if status == 415:
        assert f"{headers['content_type'].partition(';')[0] or 'missing'}" in response.text


def test_two_of_a_header_are_not_one(guarded: Running) -> None:
    for name, values, status in (
        ("authorization", [f"Bearer {TOKEN}", "Bearer no"], 401),
        ("content-type", ["application/json", "text/plain"], 415),
        ("origin", [guarded.url, "http://evil.example"], 403),
    ):
        base = {"host": f"127.0.0.1:{guarded.port}", "authorization": f"Bearer {TOKEN}", **JSON}
        headers = [(key, value) for key, value in base.items() if key != name] + [(name, value) for value in values]
        response = httpx.post(f"{guarded.url}/body", content=b"{}", headers=headers, timeout=PATIENCE_S)
        assert response.status_code == status, name
    with guarded.connect() as peer:
        peer.sendall(b"GET /slow HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert ended(peer).startswith(b"HTTP/1.1 400")


def test_what_an_orchestrator_asks_is_open_and_nothing_else(guarded: Running) -> None:
    for path in OPEN_PATHS:
        assert ask(guarded, path, body=None, authorization="", host="serve:9080").text == "well"
    for path in (
        "/slow",
        "/docs",
        "/openapi.json",
        "/healthz/",
        "//healthz",
        "/Healthz",
        "/healthz/../body",
        "/nowhere",
    ):
        assert ask(guarded, path, body=None, authorization="").status_code == 401, path


def test_a_body_that_is_empty_is_of_any_type(guarded: Running) -> None:
    assert ask(guarded, body=b"", content_type="").text == "0"
    response = httpx.post(
        f"{guarded.url}/body", content=iter([b"{}"]), headers={"authorization": f"Bearer {TOKEN}"}, timeout=PATIENCE_S
    )
    assert response.status_code == 415


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shown=st.text(st.characters(min_codepoint=33, max_codepoint=126) | st.sampled_from("äÿ§"), min_size=1, max_size=64)
)
def test_no_other_token_is_taken(guarded: Running, shown: str) -> None:
    authorization = f"Bearer {shown}".encode("latin-1")
    headers = [(b"authorization", authorization), (b"content-type", b"application/json")]
    response = httpx.post(f"{guarded.url}/body", content=b"{}", headers=headers, timeout=PATIENCE_S)
    assert response.status_code == (200 if shown == TOKEN else 401)


# ── the command line ─────────────────────────────────────────────────────────────────────────────────────────────────


def token_of(listen: Listen, environ: Mapping[str, str]) -> str | None:
    with listening(listen.host, listen.port) as listener:
        return listen.token(listener, environ)


def test_beyond_loopback_a_token_is_needed(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    for host in ("127.0.0.1", "localhost", "127.0.0.2"):
        assert token_of(Listen(host, 0), {}) is None
        assert token_of(Listen(host, 0), {"JD_INTENT_TOKEN": TOKEN}) == TOKEN
    for host in ("0.0.0.0", "::"):
        with pytest.raises(ConfigError, match=r"other machines reach this address.*--token-file.*JD_INTENT_TOKEN"):
            token_of(Listen(host, 0), {"JD_INTENT_TOKEN": ""})
        assert token_of(Listen(host, 0, file), {}) == TOKEN


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "at least 16 characters"),
        (b"short", "at least 16 characters"),
        (b"\n", "at least 16 characters"),
        (b"onesecret twosecret threesecret", "without blanks"),
        ("schlüssel-schlüssel".encode(), "printable ASCII"),
        (b"0123456789abcdef\n0123456789abcdef", "without blanks"),
        (b"\xff\xfe0123456789abcdef", "not a text"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_token_that_is_none_is_named_and_not_shown(tmp_path: Path, content: bytes | None, why: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=why) as error:
        read_token(file, {})
    assert str(file) in str(error.value)
    for word in (content or b"").decode("latin-1").split():
        assert word not in str(error.value)
    if content and b"\xff" not in content and content.strip():
        with pytest.raises(ConfigError, match="JD_INTENT_TOKEN: a token has"):
            read_token(None, {"JD_INTENT_TOKEN": content.decode()})


def test_a_token_has_one_place(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t" * TOKEN_CHARS_MIN)
    assert read_token(tmp_path / "token", {}) == "t" * TOKEN_CHARS_MIN
    with pytest.raises(ConfigError, match="keep one"):
        read_token(tmp_path / "token", {"JD_INTENT_TOKEN": TOKEN})


def test_wrong_certificates_are_named(tmp_path: Path) -> None:
    certificate, other = Certificate(tmp_path), tmp_path / "other"
    other.mkdir()
    others = Certificate(other)
    (tmp_path / "empty").write_text("")
    cases = [
        (certificate.cert, None, "give both"),
        (None, certificate.key, "give both"),
        (tmp_path / "nowhere", certificate.key, "--tls-cert .*nowhere cannot be read"),
        (certificate.cert, tmp_path / "nowhere", "--tls-key .*nowhere cannot be read"),
        (certificate.cert, others.key, "key values mismatch"),
        (tmp_path / "empty", certificate.key, "PEM"),
        (certificate.key, certificate.cert, "--tls-cert .*key.pem"),
        (certificate.cert, encrypted(tmp_path), "encrypted"),
    ]
    for cert, key, why in cases:
        with pytest.raises(ConfigError, match=why):
            Listen("127.0.0.1", 0, tls_cert=cert, tls_key=key).tls()


def encrypted(folder: Path) -> Path:
    made = folder / "encrypted.pem"
    command = ["openssl", "genpkey", "-algorithm", "RSA", "-aes256", "-pass", "pass:secret", "-out", str(made)]
    subprocess.run(command, check=True, capture_output=True)
    return made


# ── clients ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_client_shows_its_token_and_checks_the_certificate(tmp_path: Path) -> None:
    certificate = Certificate(tmp_path)
    with Running(application(Rules(token=TOKEN)), Limits(), certificate.server()) as server:
        with connect("--url", server.url, token=TOKEN, ca=certificate.cert, timeout=PATIENCE_S) as client:
            assert client.post("/body", content=b"four").text == "4"
        with (
            connect("--url", server.url, token=TOKEN, timeout=PATIENCE_S) as stranger,
            pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
        ):
            stranger.get("/healthz")


@pytest.mark.parametrize(
    "password", ["secret", "s%2Fecret", "se@cret", "se:cret", "s e c r e t", "secret?x=1", "secret#x", "%00secret"]
)
def test_a_password_in_a_url_is_sent_and_never_said(password: str) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        raise httpx.ConnectError("refused", request=request)

    url = f"http://user:{password}@host:9080"
    with (
        connect("store.rest.url", url, transport=httpx.MockTransport(answer)) as client,
        pytest.raises(httpx.ConnectError),
    ):
        client.get("/dbs")
    told = f"{client.base_url} {seen[0].url} {seen[0].url!r} {client.base_url.join('/dbs')} {masked_url(url)}"
    assert "user" not in told
    assert "cret" not in told
    sent = base64.b64encode(f"user:{unquote(password)}".encode()).decode()
    assert seen[0].headers["authorization"] == f"Basic {sent}"


def test_a_password_that_makes_the_url_none_is_not_said_either() -> None:
    with pytest.raises(ConfigError, match="is no URL") as error:
        connect("store.rest.url", "http://user:se/cret@host:9080")
    assert not any(part in str(error.value) for part in ("user:", "se/", "cret"))


@pytest.mark.parametrize(
    "url",
    ["", "host:9080", "ftp://host", "http://", "http:///dbs", "http://host:port", "http://user:pw@", "http://[::1"],
)
def test_what_is_no_url_is_named(url: str) -> None:
    with pytest.raises(ConfigError, match=r"--url: .* is no URL"):
        connect("--url", url)


def test_a_password_and_a_token_are_one_too_many() -> None:
    with pytest.raises(ConfigError, match="keep one") as error:
        connect("--url", "http://user:secret@host", token=TOKEN)
    assert "secret" not in str(error.value)


def test_wrong_certificates_of_a_client_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    with pytest.raises(ConfigError, match="empty holds no certificates"):
        connect("--url", "https://host", ca=tmp_path / "empty")
    with pytest.raises(ConfigError, match="nowhere cannot be read"):
        connect("--url", "https://host", ca=tmp_path / "nowhere")
