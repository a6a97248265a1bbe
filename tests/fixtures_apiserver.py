"""A real `jd-intent-score apiserver` in a process of its own, and a client of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import pytest
from fixtures_web import Certificate

from deploy.process import Process, free_ports
from streaming.web.listen import TOKEN_VARIABLE

REPOSITORY = Path(__file__).resolve().parent.parent


class ApiServer:
    """Starts the server and waits until it answers; `stop` or leaving the context ends it.

    Args:
        options: of the command, e.g. `--empty`.
        token: in the environment of the server, and shown by the client.
        certificate: of a server that speaks TLS.
    """

    def __init__(
        self, folder: Path, *options: str, port: int = 0, token: str = "", certificate: Certificate | None = None
    ) -> None:
        self.port = port or free_ports(1)[0]
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.port}"
        if certificate is not None:
            options = (*options, "--tls-cert", str(certificate.cert), "--tls-key", str(certificate.key))
        command = [sys.executable, "-m", "streaming", "apiserver", "--port", str(self.port), *options]
        environment = {**os.environ, TOKEN_VARIABLE: token}
        self.process = Process("apiserver", command, folder / "apiserver.log", environment, REPOSITORY)
        self.client = httpx.Client(
            base_url=self.url, timeout=60, headers={"Authorization": f"Bearer {token}"} if token else {},
            verify=certificate.client() if certificate else True,
        )  # fmt: skip
        self.process.wait_ready(self._answers, 120)

    def sql(self, database: str, statement: str) -> dict[str, Any]:
        """Runs one statement."""
        body = {"mode": "online", "sql": statement}
        answer: dict[str, Any] = self.client.post(f"/dbs/{database}", json=body).json()
        return answer

    def run(self, database: str, *statements: str) -> None:
        """Runs statements that must succeed."""
        for statement in statements:
            answer = self.sql(database, statement)
            assert answer["code"] == 0, f"{statement}: {answer}"

    def stop(self) -> int:
        self.client.close()
        return self.process.stop()

    def _answers(self) -> bool:
        try:
            return self.client.get("/health").text == "OK"
        except httpx.TransportError:
            return False

    def __enter__(self) -> ApiServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@pytest.fixture(scope="session")
def apiserver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A server without any database: tests make databases of their own names."""
    with ApiServer(tmp_path_factory.mktemp("apiserver"), "--empty") as server:
        yield server
