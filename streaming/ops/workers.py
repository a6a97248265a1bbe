"""`jd-intent-score run --workers N`: N scorers on one machine, started again when they die, behind one HTTP port.

Each worker is a process of its own: its own `instance_id` (and so transactional.id, group member and snapshot folder),
its share of the CPUs, and a Unix socket where it serves what a scorer serves. The supervisor asks each once a second.

`/metrics` adds up: counters and histograms are the sum over all workers, those of dead ones included, so that they
never fall; gauges carry a label `worker`. What a worker counted in its last second is lost with it. `/readyz` says yes
when all workers do, `/healthz` when the supervisor goes round.

A worker that dies is started again after a wait that doubles (with jitter); one that was ready for `healthy_s` begins
with the first wait again. After `deaths_max` deaths without that, or one with status 2 or 3, which no restart mends,
all are stopped and the supervisor ends with that worker's status (1 for a signal). A worker whose loop hangs is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from streaming.config import Config
from streaming.errors import Stopped, WorkerFailed
from streaming.ops.health import Health, HttpServer
from streaming.ops.waiting import jittered

__all__ = ["Merged", "Supervisor", "supervise"]

ASK_S = 1.0  # how often a worker is asked for its metrics and readiness
ANSWER_S = 5.0  # for how long its answer is waited for
TURN_S = 0.1  # how often the supervisor looks whether a worker has died
ADDED_UP = ("counter", "histogram", "summary")
USUAL_ENDS = (
    "SIGKILL",
    "SIGSEGV",
    "SIGABRT",
    "1",
)  # on /metrics from the start: Prometheus does not see a series begin at 1
NO_RESTART = (2, 3)  # configuration, artifact: a person has to look

PR_SET_PDEATHSIG = 1
# Loaded here, because after a fork nothing may be loaded.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

_log = structlog.stdlib.get_logger("streaming.ops.workers")


def supervise(config: Config, file: Path | None, count: int) -> None:
    """Runs `count` workers until SIGTERM or SIGINT; a second SIGINT kills them.

    Raises:
        WorkerFailed: a worker died too often, or in a way that no restart mends.
    """
    with tempfile.TemporaryDirectory(prefix="jd-intent-") as folder:
        supervisor = Supervisor(config, file, count, Path(folder))

        def handle(number: int, _: object) -> None:
            if number == signal.SIGINT and supervisor.stop.is_set():
                supervisor.kill()
                shutil.rmtree(folder, ignore_errors=True)
                signal.signal(signal.SIGINT, signal.SIG_DFL)
                os.kill(os.getpid(), signal.SIGINT)
            supervisor.stop.set()  # before the log says so: who reads it and presses Ctrl-C again means the second
            _log.info("told to stop", signal=signal.Signals(number).name)

        signal.signal(signal.SIGTERM, handle)
        signal.signal(signal.SIGINT, handle)
        supervisor.run()


class Supervisor:
    """See the module.

    Args:
        file: what each worker is started with, as this process was.
        folder: for the workers' sockets.

    Attributes:
        stop: set from outside to stop the workers and return.
    """

    def __init__(self, config: Config, file: Path | None, count: int, folder: Path) -> None:
        self.stop = threading.Event()
        self._config = config
        self.registry = CollectorRegistry()
        running = Gauge("jd_intent_workers_running", "Worker processes that run.", registry=self.registry)
        running.set_function(lambda: sum(worker.running() for worker in self.workers))
        self._restarts = Counter(
            "jd_intent_worker_restarts",
            "Workers that were started again, by the status of their end.",
            ["worker", "status"],
            registry=self.registry,
        )
        self.merged = Merged()
        self.registry.register(self.merged)
        self.workers = [
            Worker(number, config, file, _environment(config, number, count, folder), folder / f"{number}.sock")
            for number in range(count)
        ]
        for worker in self.workers:
            for status in USUAL_ENDS:
                self._restarts.labels(str(worker.number), status)
        self.health = Health(config.http.stalled_s)
        for part in ("assignment", "state", "model"):  # the workers' to say
            self.health.ready(part)
        for worker in self.workers:
            self._tell_health(f"worker {worker.number}", worker.missing)

    def run(self) -> None:
        """Until `stop` is set.

        Raises:
            WorkerFailed: see `supervise`.
        """
        with HttpServer(self._config.http, self.health, self.registry) as server:
            _log.info("http", host=self._config.http.host, port=server.port, workers=len(self.workers))
            self.health.watch()
            try:
                with contextlib.suppress(Stopped):
                    self._watch()
            finally:
                self._stop_all()
        _log.info("stopped")

    def kill(self) -> None:
        """SIGKILL to all."""
        for worker in self.workers:
            worker.signal(signal.SIGKILL)

    def _watch(self) -> None:
        for worker in self.workers:
            worker.start()
        while not self.stop.wait(TURN_S):
            self.health.beat()
            for worker in self.workers:
                name = str(worker.number)
                if worker.ended() is None:
                    if (seen := worker.take()) is not None:
                        self.merged.see(name, seen)
                    self._tell_health(f"worker {name}", worker.missing)
                    worker.check_hung(self._config.http.stalled_s)
                elif worker.again_at is None:
                    self._died(worker)
                elif time.monotonic() >= worker.again_at:
                    worker.start()

    def _died(self, worker: Worker) -> None:
        name, status = str(worker.number), worker.ended()
        if (seen := worker.take()) is not None:
            self.merged.see(name, seen)
        self.merged.died(name)
        settings = self._config.workers
        worker.deaths = 1 if worker.was_healthy(settings.healthy_s) else worker.deaths + 1
        shown = signal.Signals(-status).name if status is not None and status < 0 else str(status)
        self._tell_health(f"worker {name}", {"process": f"ended with {shown}"})
        if status in NO_RESTART:
            raise WorkerFailed(f"worker {name} ended with {shown}: its log says why", status)
        if worker.deaths >= settings.deaths_max:
            raise WorkerFailed(
                f"worker {name} ended {worker.deaths} times without having been ready for {settings.healthy_s:g} s, "
                f"the last time with {shown}",
                status if status and status > 0 else 1,
            )
        wait_s = jittered(min(settings.backoff_ms / 1000 * 2 ** (worker.deaths - 1), settings.backoff_ms_max / 1000))
        worker.again_at = time.monotonic() + wait_s
        self._restarts.labels(name, shown).inc()
        _log.warning("worker died", worker=name, status=shown, deaths=worker.deaths, again_in_s=round(wait_s, 2))

    def _tell_health(self, part: str, missing: Mapping[str, str]) -> None:
        if missing:
            self.health.not_ready(part, "; ".join(f"{name}: {why}" for name, why in missing.items()))
        else:
            self.health.ready(part)

    def _stop_all(self) -> None:
        for worker in self.workers:
            worker.signal(signal.SIGTERM)
        deadline = time.monotonic() + self._config.workers.stop_s
        for worker in self.workers:
            self.health.beat()
            if not worker.wait(max(0.0, deadline - time.monotonic())):
                _log.error("worker does not stop: killed", worker=worker.number, after_s=self._config.workers.stop_s)
                worker.signal(signal.SIGKILL)
                worker.wait(ANSWER_S)


class Worker:
    """One scorer process, and what it said last.

    Attributes:
        missing: what it lacks to be ready, as its /readyz said.
        deaths: in a row, without having been healthy in between.
        again_at: when it is to be started again; none: it was not decided yet.
    """

    def __init__(self, number: int, config: Config, file: Path | None, env: Mapping[str, str], address: Path) -> None:
        self.number = number
        self.missing: Mapping[str, str] = {"process": "starting"}
        self.deaths = 0
        self.again_at: float | None = None
        self._argv = [sys.executable, "-m", "streaming", "run", *(("--config", str(file)) if file else ())]
        self._env, self._address = env, address
        self._popen: subprocess.Popen[bytes] | None = None
        self._metrics: tuple[subprocess.Popen[bytes], str] | None = None
        self._ready_since: float | None = None
        self._ready_s = 0.0
        self._answered = 0.0

    def start(self) -> None:
        """Starts the process, and a thread that asks it."""
        self._address.unlink(missing_ok=True)  # of its predecessor
        self.missing, self.again_at, self._ready_since, self._ready_s = {"process": "starting"}, None, None, 0.0
        self._answered = time.monotonic()
        # A session of its own: Ctrl-C in the terminal reaches the supervisor only, which stops the workers.
        self._popen = subprocess.Popen(
            self._argv,
            env=dict(self._env),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - it takes no lock and loads nothing
        )
        _log.info("worker started", worker=self.number, pid=self._popen.pid)
        threading.Thread(target=self._ask, args=(self._popen,), name=f"worker-{self.number}", daemon=True).start()

    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def ended(self) -> int | None:
        """Its exit status (negative: the signal), none while it runs."""
        return None if self._popen is None else self._popen.poll()

    def wait(self, timeout_s: float) -> bool:
        """Has it ended within `timeout_s`?"""
        if self._popen is not None:
            try:
                self._popen.wait(timeout_s)
            except subprocess.TimeoutExpired:
                return False
        return True

    def signal(self, number: signal.Signals) -> None:
        if self._popen is not None and self._popen.poll() is None:
            self._popen.send_signal(number)

    def take(self) -> str | None:
        """Its metrics, where it has told them since the last time."""
        told, self._metrics = self._metrics, None
        return told[1] if told and told[0] is self._popen else None

    def was_healthy(self, healthy_s: float) -> bool:
        """Was it ready for so long at a stretch?"""
        return self._ready_s >= healthy_s

    def check_hung(self, stalled_s: float) -> None:
        """Kills it when it has not said for so long that it is alive."""
        if time.monotonic() - self._answered > stalled_s + 2 * ASK_S:
            _log.error("worker hangs: killed", worker=self.number, silent_s=round(time.monotonic() - self._answered))
            self.signal(signal.SIGKILL)
            self._answered = time.monotonic()

    def _ask(self, popen: subprocess.Popen[bytes]) -> None:
        listens = False
        while popen.poll() is None:
            now = time.monotonic()
            try:
                metrics = _get(self._address, "/metrics")[1]
                ready = json.loads(_get(self._address, "/readyz")[1])["missing"]
                alive = _get(self._address, "/healthz")[0] == 200
            except (OSError, http.client.HTTPException, ValueError):
                if not listens:
                    self._answered = now  # still importing: it has no loop yet that could hang
            else:
                listens = True
                if popen is not self._popen:
                    return
                self._metrics, self.missing = (popen, metrics), ready
                self._answered = now if alive else self._answered
                self._ready_since = None if ready else self._ready_since or now
                if self._ready_since is not None:
                    self._ready_s = max(self._ready_s, now - self._ready_since)
            time.sleep(ASK_S)


class Merged(Collector):
    """The workers' metrics as one.

    A worker that was started again counts from zero: what its predecessors counted is kept and added.
    """

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._dead: dict[str, Metric] = {}  # sums of the dead, by family
        self._lock = threading.Lock()

    def see(self, worker: str, text: str) -> None:
        """What a worker's /metrics said."""
        with self._lock:
            self._texts[worker] = text

    def died(self, worker: str) -> None:
        """What it said last becomes part of the sums."""
        with self._lock:
            if (text := self._texts.pop(worker, None)) is not None:
                for family in text_string_to_metric_families(text):
                    if family.type in ADDED_UP:
                        _add(self._dead, family)

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            texts = dict(self._texts)
            sums = {name: _copy(family) for name, family in self._dead.items()}
        gauges: dict[str, Metric] = {}
        for worker, text in sorted(texts.items()):
            for family in text_string_to_metric_families(text):
                if family.type in ADDED_UP:
                    _add(sums, family)
                else:
                    to = gauges.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                    for sample in family.samples:
                        to.add_sample(sample.name, {**sample.labels, "worker": worker}, sample.value)
        yield from sums.values()
        yield from gauges.values()

    def describe(self) -> list[Metric]:
        return []


def _copy(family: Metric) -> Metric:
    made = Metric(family.name, family.documentation, family.type)
    made.samples = list(family.samples)
    return made


def _add(sums: dict[str, Metric], family: Metric) -> None:
    to = sums.get(family.name)
    if to is None:
        sums[family.name] = _copy(family)
        return
    at = {(sample.name, tuple(sorted(sample.labels.items()))): n for n, sample in enumerate(to.samples)}
    for sample in family.samples:
        n = at.get((sample.name, tuple(sorted(sample.labels.items()))))
        if n is None:
            to.samples.append(sample)
        else:
            to.samples[n] = to.samples[n]._replace(value=to.samples[n].value + sample.value)


def _environment(config: Config, number: int, count: int, folder: Path) -> dict[str, str]:
    """What makes a worker differ from the others. Its libraries' thread pools share the CPUs out."""
    threads = str(max(1, len(os.sched_getaffinity(0)) // count))
    # As long as this supervisor lives, what its workers died of is remembered, even without a folder.
    remember = {} if config.poison.folder or config.snapshots.folder else {"JD_INTENT__POISON__FOLDER": str(folder)}
    return {
        **os.environ,
        **remember,
        "OMP_NUM_THREADS": threads,  # Arrow's pool, too
        "JD_INTENT__KAFKA__INSTANCE_ID": f"{config.kafka.instance}-{number}",
        "JD_INTENT__HTTP__HOST": f"unix:{folder / f'{number}.sock'}",
        "JD_INTENT_WORKER": str(number),
    }


def _end_with_parent() -> None:
    """Runs in the child before exec: a supervisor that is killed cannot stop its workers; the kernel does (Linux)."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _get(address: Path, path: str) -> tuple[int, str]:
    """Status and body from an HTTP server on a Unix socket."""
    connection = http.client.HTTPConnection("localhost", timeout=ANSWER_S)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.settimeout(ANSWER_S)
        connection.sock.connect(str(address))
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()
