"""The real `tritonserver` that lies in the nvidia-pytriton wheel of the model's environment, started and stopped.

    python -m deploy.triton.server --repository build/artifact/triton --folder build/triton     # until Ctrl-C

What the wheel needs to run by itself, found by experiment: the Python backend copied to a folder of our own with the
stub for this Python beside it; LD_LIBRARY_PATH with the wheel's libraries and the interpreter's (a libpython built by
pyenv is on no system path); the model environment's `bin` first on PATH, because the stub runs the first `python3`.
Clients must not inherit that LD_LIBRARY_PATH: the wheel's libcrypto and libcurl would shadow the system's.

With `private`, gRPC listens on a Unix socket that its user alone reaches, and ids may come through shared memory.

The launcher asks for a score every few seconds and starts a server again whose model no longer answers. SIGHUP serves
the newest version in the repository, after it was tried beside the old one.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import threading
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from deploy.environments import interpreter
from deploy.process import Process, ProcessFailed, free_ports, is_free, one_line, port
from deploy.triton.probe import MODEL, ProbeFailed, probe
from streaming.errors import OutputRefused, Stopped
from streaming.files.output_folder import replacing

__all__ = ["NotLoaded", "Ports", "Triton", "has_room_for_socket"]

SHARED_MEMORY = Path("/dev/shm")
STUB_MEMORY_BYTES = 1 << 23  # holds a full batch: by default it grows, and is mapped anew, under the first large one
READY_TIMEOUT_S = 120.0  # importing OneFlow takes 2 s on an idle machine, many times that on a busy one
STOP_TIMEOUT_S = 20.0  # above --exit-timeout-secs: what is left then hangs
PROBE_EVERY_S = 1.0
PROBE_TIMEOUT_S = 10.0  # behind some full batches of a slow model
PROBES_FAILED_MAX = 3  # in a row; a dead stub refuses each after a second

# Whoever reaches Triton's ports could load any Python through its repository API, read and write the memory between
# server and model, and fill its log. Triton opens a restricted API to a header that its command line shows to every
# user of the machine; so the header is one that nobody can send: a name with a colon is cut at it by HTTP/1, and makes
# gRPC reset the call.
CLOSED_APIS = "model-repository,shared-memory,trace,logging"
UNSENDABLE_HEADER = "closed:to everybody=x"
# Behind a Unix socket in a folder of this user's alone, shared memory is open over gRPC: who reaches it can read and
# write this user's memory anyway.
CLOSED_BEHIND_SOCKET = "model-repository,trace,logging"
SOCKETS = "grpc"
SOCKET_PATH_MAX = 107  # bytes, the kernel's limit

# Where the model environment's packages and its interpreter's library lie: asked of it, not guessed.
ASK = """
import json, sys, sysconfig
print(json.dumps([sysconfig.get_path("purelib"), sysconfig.get_config_var("LIBDIR"), sys.version_info[:2]]))
"""


@dataclass(frozen=True)
class Ports:
    """Where one server listens."""

    grpc: int
    http: int
    metrics: int

    @classmethod
    def free(cls) -> Ports:
        """Three ports that were free a moment ago."""
        return cls(*free_ports(3))


class NotLoaded(ProcessFailed):
    """A version that was tried does not serve; the one before it does."""


def has_room_for_socket(folder: Path) -> bool:
    """Is a server's folder short enough for `private`, whatever the port?"""
    return len(os.fsencode(folder.resolve() / SOCKETS / "s:65535")) <= SOCKET_PATH_MAX


class Triton:
    """One server with the model `embedding` loaded; nothing runs before `start`.

    Args:
        repository: model repository, e.g. an artifact's `triton/`.
        folder: for the backend's copy and the log; several servers need a folder each.
        ports: None for free ones.
        host: address to listen on with gRPC, which scorers ask, and metrics.
        http_host: the same with HTTP, which only health checks and people need.
        private: gRPC listens on a Unix socket in `folder` that this user alone reaches, instead of `host`, and lets
            clients hand over ids through shared memory.
        stop: once it is set, a start ends, also one that is under way.
    """

    def __init__(
        self,
        repository: Path,
        folder: Path,
        ports: Ports | None = None,
        host: str = "127.0.0.1",
        http_host: str = "127.0.0.1",
        *,
        private: bool = False,
        stop: threading.Event | None = None,
    ) -> None:
        self.repository = repository
        self.folder = folder
        self.ports = ports or Ports.free()
        self.host, self.http_host = host, http_host
        self._sockets = folder.resolve() / SOCKETS if private else None
        self._stop = stop or threading.Event()
        self.log = folder / "triton.log"
        # Triton's stubs make regions with this prefix: what a killed server leaves behind is found by it.
        self._shared_memory_prefix = f"jd_triton_{os.getpid()}_{self.ports.grpc}_"
        self._process: Process | None = None

    @property
    def grpc_url(self) -> str:
        """`host:port` or `unix:PATH`, as tritonclient takes it."""
        return f"{self._grpc_address}:{self.ports.grpc}"

    @property
    def _grpc_address(self) -> str:
        """What Triton puts its port behind, also when that makes the name of a socket."""
        return self.host if self._sockets is None else f"unix:{self._sockets}/s"

    @property
    def http_url(self) -> str:
        return f"http://{self.http_host}:{self.ports.http}"

    @property
    def metrics_url(self) -> str:
        return f"http://{self.host}:{self.ports.metrics}/metrics"

    @property
    def process(self) -> Process:
        """The running server.

        Raises:
            RuntimeError: it was not started.
        """
        if self._process is None:
            raise RuntimeError("Triton was not started")
        return self._process

    def start(self, timeout_s: float = READY_TIMEOUT_S) -> Triton:
        """Starts the server and waits until the model answers.

        Raises:
            ProcessFailed: the repository has no model `embedding`, the model does not load, a port is taken, or
                `timeout_s` passed; the message carries the end of the log.
            Stopped: it was told to, before the model answered; nothing runs then.
        """
        config = self.repository / MODEL / "config.pbtxt"
        if not config.exists():
            raise ProcessFailed(
                f"{config} does not exist: {self.repository} is not a repository with the model {MODEL}"
            )
        ports = (self.host, self.ports.grpc), (self.http_host, self.ports.http), (self.host, self.ports.metrics)
        for host, number in ports:
            if not is_free(number, host):
                raise ProcessFailed(f"Triton cannot listen on {host} port {number}: another process does")
        if self._sockets is not None:
            if not has_room_for_socket(self.folder):
                raise ProcessFailed(f"{self.grpc_url} is longer than the {SOCKET_PATH_MAX} bytes of a socket's path")
            self._sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._sockets.chmod(0o700)
        closed = CLOSED_APIS if self._sockets is None else CLOSED_BEHIND_SOCKET
        server, environment = self._prepare()
        argv = [
            str(server),
            f"--model-repository={self.repository.resolve()}",
            f"--backend-directory={self.folder.resolve() / 'backends'}",
            # What is loaded at the start stays: a new version is served by another start, after a trial (`load`).
            "--model-control-mode=none",
            f"--http-restricted-api={CLOSED_APIS}:{UNSENDABLE_HEADER}",
            f"--grpc-restricted-protocol={closed}:{UNSENDABLE_HEADER}",
            "--exit-on-error=true",
            "--exit-timeout-secs=10",
            f"--http-address={self.http_host}",
            f"--http-port={self.ports.http}",
            f"--grpc-address={self._grpc_address}",
            f"--grpc-port={self.ports.grpc}",
            f"--metrics-address={self.host}",
            f"--metrics-port={self.ports.metrics}",
            "--allow-gpu-metrics=false",
            "--reuse-http-port=false",
            "--reuse-grpc-port=false",
            f"--backend-config=python,shm-region-prefix-name={self._shared_memory_prefix}",
            f"--backend-config=python,shm-default-byte-size={STUB_MEMORY_BYTES}",
            "--log-info=false",
        ]
        self._process = Process("tritonserver", argv, self.log, env=environment)
        try:
            self._process.wait_ready(self._ready_or_stopped, timeout_s)
        except BaseException:  # Ctrl-C too
            self.kill()
            raise
        return self

    def _ready_or_stopped(self) -> bool:
        if self._stop.is_set():
            raise Stopped("told to stop before the model was loaded")
        return self.ready()

    def ready(self) -> bool:
        """Has the server loaded the model? It says yes, too, when the model's process has died since: see `probe`."""
        try:
            with urllib.request.urlopen(f"{self.http_url}/v2/models/{MODEL}/ready", timeout=2.0) as response:
                return bool(response.status == 200)
        except (OSError, http.client.HTTPException):
            return False

    def probe(self) -> None:
        """Asks for one score.

        Raises:
            ProbeFailed: there is none.
        """
        probe(self.http_url, PROBE_TIMEOUT_S)

    def load(self) -> None:
        """Serves the newest version in the repository: a second server tries it, then this one starts again with it.

        Nobody answers for the seconds of that start; clients try again.

        Raises:
            NotLoaded: the model does not load, or gives no score. The old version goes on answering.
            ProcessFailed: it was tried well, and the server does not start with it: nobody answers any more.
            Stopped: see `start`.
        """
        try:
            with Triton(self.repository, self.folder / "trial", stop=self._stop) as trial:
                trial.probe()
        except (ProcessFailed, ProbeFailed) as error:
            raise NotLoaded(str(error)) from error
        self.stop()
        self.start()

    def stop(self) -> None:
        """Lets requests at hand end, then stops; safe in any state."""
        if self._process is not None:
            self._process.stop(STOP_TIMEOUT_S)
            self._clean()

    def kill(self) -> None:
        """SIGKILL to server and stubs; safe in any state."""
        if self._process is not None:
            self._process.kill()
            self._clean()

    def __enter__(self) -> Triton:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _prepare(self) -> tuple[Path, dict[str, str]]:
        """Copies the backend into the folder; returns the server's binary and its environment."""
        python = interpreter("model")
        told = subprocess.run([str(python), "-c", ASK], check=True, capture_output=True, text=True).stdout
        packages, libraries, (major, minor) = json.loads(told)
        wheel = Path(packages) / "pytriton" / "tritonserver"
        if not wheel.is_dir():
            raise ProcessFailed(f"{wheel} does not exist: nvidia-pytriton is not installed beside {python}")
        stub = wheel / "python_backend_stubs" / f"{major}.{minor}" / "triton_python_backend_stub"
        try:
            with replacing(self.folder / "backends" / "python", "backend") as backend:
                shutil.copytree(wheel / "backends" / "python", backend, dirs_exist_ok=True)
                shutil.copy2(stub, backend / stub.name)
        except OutputRefused as error:
            raise ProcessFailed(str(error)) from None
        environment = dict(os.environ)
        environment["LD_LIBRARY_PATH"] = os.pathsep.join([str(Path(packages) / "nvidia_pytriton.libs"), libraries])
        environment["PATH"] = os.pathsep.join([str(python.parent), os.environ.get("PATH", os.defpath)])
        environment["VIRTUAL_ENV"] = str(python.parent.parent)
        environment.pop("PYTHONHOME", None)
        environment.pop("PYTHONPATH", None)
        return wheel / "bin" / "tritonserver", environment

    def _clean(self) -> None:
        for region in SHARED_MEMORY.glob(f"{self._shared_memory_prefix}*"):
            region.unlink(missing_ok=True)
        if self._sockets is not None:
            Path(self.grpc_url.removeprefix("unix:")).unlink(missing_ok=True)


def watch(server: Triton, stop: threading.Event, reload: threading.Event) -> None:
    """Asks the running server for scores until `stop`; starts it again when it gives none, and loads on `reload`.

    Raises:
        ProbeFailed: it gives none after it was started again: another start would not help.
        ProcessFailed: it does not start again, also with a new version that was tried well.
        Stopped: it was told to stop while it started.
    """
    failed = 0
    while not stop.wait(PROBE_EVERY_S):
        if reload.is_set():
            reload.clear()
            try:
                server.load()
                print("serving the newest version", flush=True)
            except NotLoaded as error:
                print(f"the old version goes on: {error}", flush=True)
        try:
            server.probe()
            failed = 0
        except ProbeFailed as error:
            failed += 1
            exited = not server.process.running()
            if exited or failed >= PROBES_FAILED_MAX:
                print(f"starting tritonserver again: {server.process.tail() if exited else error}", flush=True)
                server.kill()
                server.start()
                server.probe()
                failed = 0


def main() -> None:
    """Serves a repository until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description="Serve a model repository with the Triton of the model's environment.")
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True, help="for the backend's copy and the log")
    parser.add_argument("--grpc-port", type=port, default=8001)
    parser.add_argument("--http-port", type=port, default=8000)
    parser.add_argument("--metrics-port", type=port, default=8002)
    there = "to listen on with %s; there is no password (default: %%(default)s)"
    parser.add_argument("--host", default="127.0.0.1", help=there % "gRPC and metrics")
    # Triton 24.10's HTTP can be made to crash from outside (CVE-2025-23310, -23311): gRPC is enough for scorers.
    parser.add_argument("--http-host", default="127.0.0.1", help=there % "HTTP")
    parser.add_argument(
        "--private",
        action="store_true",
        help="gRPC on a Unix socket in --folder, for this user alone, with shared memory; the first line says its URL",
    )
    args = parser.parse_args()
    stop, reload = threading.Event(), threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    signal.signal(signal.SIGHUP, lambda *_: reload.set())
    ports = Ports(args.grpc_port, args.http_port, args.metrics_port)
    try:
        with (
            one_line("deploy.triton.server"),
            contextlib.suppress(Stopped),
            Triton(
                args.repository, args.folder, ports, args.host, args.http_host, private=args.private, stop=stop
            ) as server,
        ):
            server.probe()  # before it says that it is there
            print(
                f"gRPC {server.grpc_url}, HTTP {server.http_url}, metrics {server.metrics_url}, log {server.log}",
                flush=True,
            )
            watch(server, stop, reload)
    except ProbeFailed as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
