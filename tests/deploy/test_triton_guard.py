"""Triton beside hostile clients and killed children: what it must refuse, and who notices that it no longer scores."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from fixtures.model import FIELDS, write_repository
from fixtures.scorer import wait_until
from places import REPOSITORY
from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

from deploy.process import Process, ProcessFailed, free_ports
from deploy.triton.probe import ProbeFailed, probe
from deploy.triton.server import UNSENDABLE_HEADER, Ports, Triton, watch
from streaming.errors import ModelUnavailable
from streaming.model.triton import Model

HALF = "return np.full((len(ids), 1), 0.5, np.float32)"
START_TIMEOUT_S = 120.0
AGAIN = "starting tritonserver again"  # says the launcher
ONE_ROW = np.zeros((1, FIELDS), np.int64)
HEADER, VALUE = UNSENDABLE_HEADER.split("=")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """A Triton that no test changes, open to the network as a container's is."""
    folder = tmp_path_factory.mktemp("guard")
    with Triton(write_repository(folder / "repository", HALF), folder / "triton", host="0.0.0.0") as running:
        yield running


# Any of these would change what the server runs, writes or shares.
OVER_HTTP = {
    "/v2/repository/index": {},
    "/v2/repository/models/embedding/load": {},
    "/v2/repository/models/embedding/unload": {},
    "/v2/repository/models/other/load": {
        "parameters": {"config": '{"backend": "python"}', "file:1/model.py": "cHJpbnQoMSk="}
    },
    "/v2/logging": {"log_verbose_level": 9},
    "/v2/trace/setting": {"trace_level": ["TENSORS"]},
    "/v2/models/embedding/trace/setting": {"trace_rate": "1"},
    "/v2/systemsharedmemory/region/x/register": {"key": "/x", "offset": 0, "byte_size": 8},
    "/v2/systemsharedmemory/unregister": {},
    "/v2/cudasharedmemory/region/x/register": {"raw_handle": {"b64": ""}, "device_id": 0, "byte_size": 8},
}

OVER_GRPC: dict[str, Callable[[InferenceServerClient], object]] = {
    "index": lambda client: client.get_model_repository_index(),
    "load": lambda client: client.load_model("embedding"),
    "load-files": lambda client: client.load_model(
        "x", config='{"backend": "python"}', files={"file:1/model.py": b"1"}
    ),
    "unload": lambda client: client.unload_model("embedding"),
    "logging": lambda client: client.update_log_settings({"log_verbose_level": 9}),
    "trace": lambda client: client.update_trace_settings(settings={"trace_level": ["TENSORS"]}),
    "memory": lambda client: client.register_system_shared_memory("x", "/x", 8),
    "memory-status": lambda client: client.get_system_shared_memory_status(),
    "cuda-memory": lambda client: client.register_cuda_shared_memory("x", b"", 0, 8),
}


def post(port: int, path: str, body: object, header: str) -> str:
    """The answer, whole. By hand: no client sends such headers."""
    sent = json.dumps(body)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        head = f"POST {path} HTTP/1.0\r\nContent-Length: {len(sent)}\r\n{header}\r\n\r\n"
        connection.sendall((head + sent).encode())
        with connection.makefile("rb") as answer:
            return answer.read().decode()


def http2(port: int, method: str, headers: list[tuple[str, str]]) -> list[int]:
    """One gRPC call of an empty message, written by hand because no client sends such headers; the kinds of the frames
    that answer it: 0 is a message, 1 headers or an error, 3 a reset."""

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload

    said = [(":method", "POST"), (":scheme", "http"), (":path", f"/inference.GRPCInferenceService/{method}")]
    said += [(":authority", "x"), ("content-type", "application/grpc"), ("te", "trailers"), *headers]
    block = b"".join(b"\0" + b"".join(bytes([len(word)]) + word.encode() for word in pair) for pair in said)
    kinds: list[int] = []
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b""))
        connection.sendall(frame(1, 4, 1, block) + frame(0, 1, 1, bytes(5)))
        with connection.makefile("rb") as answers:
            while len(start := answers.read(9)) == 9:
                kind, flags, stream = start[3], start[4], int.from_bytes(start[5:9], "big")
                answers.read(int.from_bytes(start[:3], "big"))
                if stream == 1:
                    kinds.append(kind)
                    if kind == 3 or flags & 1:
                        break
    return kinds


@pytest.mark.parametrize("path", OVER_HTTP)
def test_nothing_is_changed_over_http(server: Triton, path: str) -> None:
    for header in ("Accept: any", f"{HEADER}: {VALUE}"):
        answer = post(server.ports.http, path, OVER_HTTP[path], header)
        assert answer.startswith("HTTP/1.0 403"), answer
        assert f"This API is restricted, expecting header '{HEADER}'" in answer


@pytest.mark.parametrize("call", OVER_GRPC)
def test_nothing_is_changed_over_grpc(server: Triton, call: str) -> None:
    with (
        InferenceServerClient(server.grpc_url) as client,
        pytest.raises(InferenceServerException, match="This protocol is restricted"),
    ):
        OVER_GRPC[call](client)


@pytest.mark.parametrize("prefix", ["", "triton-grpc-protocol-"])
def test_the_header_that_would_open_them_cannot_be_sent(server: Triton, prefix: str) -> None:
    assert 0 in http2(server.ports.grpc, "ServerLive", [("any", VALUE)]), "the frames are well-formed"
    for method in ("RepositoryIndex", "SystemSharedMemoryStatus", "LogSettings", "TraceSetting"):
        assert http2(server.ports.grpc, method, [("any", VALUE)]) == [1]
        assert http2(server.ports.grpc, method, [(prefix + HEADER, VALUE)]) == [3]


def test_health_metadata_and_scores_stay_open(server: Triton) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/embedding/ready", "/v2/models/embedding/config"):
        connection = http.client.HTTPConnection("127.0.0.1", server.ports.http, timeout=10)
        connection.request("GET", path)
        assert connection.getresponse().status == 200, path
        connection.close()
    probe(server.http_url)
    with Model(server.grpc_url) as model:
        assert model.ready()
        assert model.encoder_digest() == "sha256:none"
        assert model.score(ONE_ROW).probabilities.tolist() == [0.5]


def listeners() -> dict[int, set[str]]:
    """Port → addresses that something listens on, in hex as the kernel has them."""
    found: dict[int, set[str]] = {}
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            address, port = local.split(":")
            if state == "0A":
                found.setdefault(int(port, 16), set()).add(address)
    return found


# IPv4's 127.0.0.1, and the same in a socket for IPv6, as gRPC has it
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}


def test_http_stays_on_this_machine_where_grpc_does_not(server: Triton) -> None:
    found = listeners()
    assert found[server.ports.http] <= LOOPBACK
    assert not found[server.ports.grpc] & LOOPBACK
    assert not found[server.ports.metrics] & LOOPBACK


def children(pid: int) -> dict[int, str]:
    """pid → command line of all below a process."""
    found: dict[int, str] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                words = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                found |= {child: words, **children(child)}
    return found


def kill_stub(pid: int) -> None:
    (stub,) = [child for child, words in children(pid).items() if "triton_python_backend_stub" in words]
    os.kill(stub, signal.SIGKILL)


def health_check(service: str, port: int) -> int:
    """Runs a service's check out of docker-compose.yml against a port of this machine; its exit status."""
    services: dict[str, Any] = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]
    _, *argv = services[service]["healthcheck"]["test"]
    if argv[0] == "python":
        argv = [sys.executable, *argv[1:], f"--url=http://127.0.0.1:{port}"]
    argv = [word.replace("$$", "$").replace("/127.0.0.1/8000", f"/127.0.0.1/{port}") for word in argv]
    return subprocess.run(argv, cwd=REPOSITORY, timeout=30, check=False, capture_output=True).returncode


def test_a_dead_model_is_noticed_by_an_inference_alone(small_repository: Callable[[str], Path], tmp_path: Path) -> None:
    with Triton(small_repository(HALF), tmp_path / "triton") as server, Model(server.grpc_url) as model:
        port = server.ports.http
        assert [health_check(name, port) for name in ("triton", "triton-gpu")] == [0, 0]
        kill_stub(server.process.pid)
        with pytest.raises(ModelUnavailable, match="Stub process"):
            model.score(ONE_ROW)
        assert server.ready()
        assert model.ready()
        with pytest.raises(ProbeFailed, match=r"answers 500.*Stub process"):
            server.probe()
        assert [health_check(name, port) for name in ("triton", "triton-gpu")] == [1, 1]
        server.kill()  # a server that waits for its dead child takes ten seconds to stop
    assert [health_check(name, port) for name in ("triton", "triton-gpu")] == [1, 1]


def test_nobody_listening_fails_the_probe() -> None:
    (port,) = free_ports(1)
    with pytest.raises(ProbeFailed, match=f"127.0.0.1:{port}.* does not answer"):
        probe(f"http://127.0.0.1:{port}")


def launch(repository: Path, folder: Path, ports: Ports) -> Process:
    words = shlex.split(f"-m deploy.triton.server --repository {repository} --folder {folder}")
    words += [f"--grpc-port={ports.grpc}", f"--http-port={ports.http}", f"--metrics-port={ports.metrics}"]
    return Process("launcher", [sys.executable, *words], folder / "launcher.log", cwd=REPOSITORY)


def scores(model: Model) -> bool:
    try:
        return len(model.score(ONE_ROW).probabilities) == 1
    except ModelUnavailable:
        return False


def test_the_launcher_starts_again_what_no_longer_scores_and_loads_on_sighup(
    small_repository: Callable[[str], Path], tmp_path: Path
) -> None:
    repository, ports = small_repository(HALF), Ports.free()
    with launch(repository, tmp_path / "triton", ports) as launcher, Model(f"127.0.0.1:{ports.grpc}") as model:
        launcher.wait_ready(lambda: "gRPC" in launcher.log.read_text(), START_TIMEOUT_S)
        assert scores(model)
        assert set.union(*(listeners()[port] for port in (ports.grpc, ports.http, ports.metrics))) <= LOOPBACK
        kill_stub(launcher.pid)
        assert not scores(model)
        launcher.wait_ready(lambda: scores(model), START_TIMEOUT_S)
        assert AGAIN in launcher.log.read_text()

        (server,) = [child for child, words in children(launcher.pid).items() if "bin/tritonserver " in words]
        starts = launcher.log.read_text().count(AGAIN)  # on a busy machine a slow probe may have started it once more
        os.kill(server, signal.SIGKILL)
        wait_until(lambda: launcher.log.read_text().count(AGAIN) > starts, "another start")
        launcher.wait_ready(lambda: scores(model), START_TIMEOUT_S)

        (repository / "embedding" / "2").mkdir()
        code = (repository / "embedding" / "1" / "model.py").read_text()
        (repository / "embedding" / "2" / "model.py").write_text(code.replace("0.5", "0.75"))
        os.kill(launcher.pid, signal.SIGHUP)
        wait_until(lambda: "serving the newest version" in launcher.log.read_text(), "the new version")
        launcher.wait_ready(lambda: scores(model), START_TIMEOUT_S)
        assert model.score(ONE_ROW).version == "2"

        (repository / "embedding" / "3").mkdir()
        (repository / "embedding" / "3" / "model.py").write_text("import nothing_of_that_name")
        os.kill(launcher.pid, signal.SIGHUP)
        wait_until(lambda: "the old version goes on" in launcher.log.read_text(), "the refusal")
        assert model.score(ONE_ROW).version == "2"
        assert launcher.stop() == 0
    assert re.search("the old version goes on.*nothing_of_that_name", launcher.log.read_text(), re.DOTALL)


def test_a_start_ends_when_it_is_told_to(small_repository: Callable[[str], Path], tmp_path: Path) -> None:
    repository = small_repository(HALF)
    code = repository / "embedding" / "1" / "model.py"
    code.write_text("import time\ntime.sleep(3600)\n" + code.read_text())
    with launch(repository, tmp_path, Ports.free()) as launcher:
        wait_until(lambda: any("stub" in words for words in children(launcher.pid).values()), "the model's process")
        os.kill(launcher.pid, signal.SIGTERM)
        assert launcher.popen.wait(START_TIMEOUT_S) == 0
    assert launcher.log.read_text() == ""


class Watched(Triton):
    """No process: a trial that goes well and starts that fail."""

    def probe(self) -> None:
        pass

    def start(self, timeout_s: float = 0.0) -> Triton:
        if self.folder.name == "trial":
            return self
        raise ProcessFailed("its port is taken")


def test_a_new_version_that_does_not_start_after_its_trial_ends_the_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("deploy.triton.server.Triton", Watched)
    monkeypatch.setattr("deploy.triton.server.PROBE_EVERY_S", 0.0)
    reload = threading.Event()
    reload.set()
    with pytest.raises(ProcessFailed, match="its port is taken"):
        watch(Watched(tmp_path, tmp_path / "triton"), threading.Event(), reload)
    assert capsys.readouterr().out == ""


def test_a_port_is_looked_at_where_it_will_be_listened_on(tmp_path: Path) -> None:
    ports, repository = Ports.free(), write_repository(tmp_path / "repository", HALF)
    with socket.socket() as taken:
        taken.bind(("127.0.0.2", ports.http))
        taken.listen()
        with pytest.raises(ProcessFailed, match=f"cannot listen on 127.0.0.2 port {ports.http}"):
            Triton(repository, tmp_path / "triton", ports, http_host="127.0.0.2").start()


def test_the_launcher_gives_up_on_a_model_that_never_scored(
    small_repository: Callable[[str], Path], tmp_path: Path
) -> None:
    with launch(small_repository("raise ValueError('no weights today')"), tmp_path, Ports.free()) as launcher:
        assert launcher.popen.wait(START_TIMEOUT_S) == 1
    assert "no weights today" in launcher.log.read_text().splitlines()[-1]
