"""What the scorers say of themselves on /metrics: latency, lag, state, model; asked every other second."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import httpx
from prometheus_client.parser import text_string_to_metric_families

from streaming.config import Http
from streaming.errors import ConfigError

__all__ = ["ASK_S", "WINDOW_S", "ScorerFigures", "Scorers", "metrics_url", "quantile"]

ASK_S = 2.0
TIMEOUT_S = 2.0
WINDOW_S = 30.0
"""The latency is that of the scores of so long."""

LATENCY, LAG, BYTES, ROWS = (
    "jd_intent_event_to_score_seconds",
    "jd_intent_consumer_lag",
    "jd_intent_state_bytes",
    "jd_intent_state_rows",
)
READY = "jd_intent_ready"
OURS = (READY, "jd_intent_worker")  # which tell a scorer, or the supervisor of several, from other programs of ours


Buckets: TypeAlias = dict[float, float]
"""Of a histogram: how many lie up to each bound."""


@dataclass(frozen=True)
class ScorerFigures:
    """All scorers together.

    Attributes:
        p50_s, p99_s: from the event to its committed score, by interpolation in the buckets; None: no score yet. A time
            beyond the last bucket is that bucket's bound.
        recent: they are of the last `WINDOW_S`; else of all since the scorers' start, as nothing was scored since.
        lag: records behind the end of their topics; None: nobody tells.
        state_bytes, state_rows: of the online tables; None: nobody tells (a cluster keeps them).
        versions: of the model, that scored last.
        ready: scorers that are, of `asked`; a worker is one, an address that does not answer another.
        away: why one does not answer, by its address.
    """

    p50_s: float | None = None
    p99_s: float | None = None
    recent: bool = True
    lag: int | None = None
    state_bytes: int | None = None
    state_rows: int | None = None
    versions: tuple[str, ...] = ()
    ready: int = 0
    asked: int = 0
    away: Mapping[str, str] = field(default_factory=dict)


def metrics_url(http: Http) -> str:
    """Where the scorer of a configuration answers; "": its port is one that only its log tells."""
    if http.host.startswith("unix:"):
        return http.host
    if http.port == 0:
        return ""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(http.host, f"[{http.host}]" if ":" in http.host else http.host)
    return f"http://{host}:{http.port}/metrics"


class Scorers:
    """Asks on a thread of its own.

    Args:
        urls: of the scorers' /metrics, or `unix:PATH`.
        clock: monotonic seconds.

    Raises:
        ConfigError: a URL is none.
    """

    def __init__(self, urls: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._clients = {url: _client(url) for url in urls}
        self._clock = clock
        self._figures = ScorerFigures(asked=len(urls))
        self._buckets: dict[str, deque[tuple[float, Buckets]]] = {url: deque() for url in urls}  # oldest first
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scorers", daemon=True)

    def figures(self) -> ScorerFigures:
        """What they said last."""
        return self._figures

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2 * TIMEOUT_S)
        if not self._thread.is_alive():
            for client, _ in self._clients.values():
                client.close()

    def ask(self) -> None:
        """Asks all of them once."""
        told: dict[str, _Told] = {}
        away: dict[str, str] = {}
        for url, (client, path) in self._clients.items():
            try:
                answer = client.get(path)
                if answer.status_code == httpx.codes.OK:
                    told[url] = _Told.of(answer.text)
                else:
                    away[url] = f"it answers with status {answer.status_code}"
            except (httpx.HTTPError, OSError) as error:
                away[url] = str(error) or type(error).__name__
            except (ValueError, KeyError, OverflowError):  # another program has the port
                away[url] = "its answer is not a scorer's"
        self._figures = self._summed(told, away)

    def _run(self) -> None:
        while True:
            self.ask()
            if self._stop.wait(ASK_S):
                return

    def _summed(self, told: Mapping[str, _Told], away: dict[str, str]) -> ScorerFigures:
        now, recent, ever = self._clock(), Counter[float](), Counter[float]()
        for url, asked in self._buckets.items():
            if url in told:
                buckets = told[url].buckets
                # A scorer that was started again counts from nothing: what was before says no more.
                if asked and any(buckets.get(bound, 0.0) < count for bound, count in asked[-1][1].items()):
                    asked.clear()
                    asked.append((now, dict.fromkeys(buckets, 0.0)))
                asked.append((now, buckets))
                ever.update(buckets)
            # One that is away is asked about as of when it last answered: it may be back with all that it counted.
            while asked and now - (asked[1] if len(asked) > 1 else asked[0])[0] > WINDOW_S:
                asked.popleft()
            if asked:
                (_, before), (_, after) = asked[0], asked[-1]
                recent.update({bound: count - before.get(bound, 0.0) for bound, count in after.items()})
        is_recent = quantile(recent, 0.5) is not None
        shown = recent if is_recent else ever
        return ScorerFigures(
            quantile(shown, 0.5),
            quantile(shown, 0.99),
            is_recent,
            _sum(one.lag for one in told.values()),
            _sum(one.state_bytes for one in told.values()),
            _sum(one.state_rows for one in told.values()),
            tuple(sorted({version for one in told.values() for version in one.versions})),
            sum(one.ready for one in told.values()),
            sum(one.scorers for one in told.values()) + len(away),
            away,
        )


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """The value below which a share of a cumulative histogram lies, evenly spread in its bucket; None: it is empty."""
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    wanted, low, below = share * total, 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= wanted:
            if bound == float("inf"):
                return low
            inside = buckets[bound] - below
            return low + (bound - low) * ((wanted - below) / inside if inside else 1.0)
        low, below = bound, buckets[bound]
    return low


@dataclass(frozen=True)
class _Told:
    """One scorer's metrics."""

    buckets: Buckets
    lag: int | None
    state_bytes: int | None
    state_rows: int | None
    versions: tuple[str, ...]
    ready: int
    scorers: int

    @classmethod
    def of(cls, text: str) -> _Told:
        """What a page of metrics says.

        Raises:
            ValueError, KeyError, OverflowError: it is none of a scorer's.
        """
        buckets: Buckets = {}
        sums: dict[str, list[int]] = {LAG: [], BYTES: [], ROWS: []}
        versions, ready, scorers, is_scorer = [], 0, 0, False
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                is_scorer |= sample.name.startswith(OURS)
                if sample.name == f"{LATENCY}_bucket":
                    buckets[float(sample.labels["le"])] = sample.value
                elif sample.name in sums and not (sample.name == ROWS and sample.labels.get("table") == "strings"):
                    sums[sample.name].append(int(sample.value))
                elif sample.name == "jd_intent_model_info" and sample.value:
                    versions.append(sample.labels.get("version", ""))
                elif sample.name == READY:  # of `run --workers` one of each worker
                    ready, scorers = ready + int(sample.value), scorers + 1
        if not is_scorer:
            raise ValueError("no figure is a scorer's")
        return cls(
            buckets, _sum(sums[LAG]), _sum(sums[BYTES]), _sum(sums[ROWS]), tuple(versions), ready, max(1, scorers)
        )


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _client(url: str) -> tuple[httpx.Client, str]:
    if url.startswith("unix:"):
        socket = httpx.HTTPTransport(uds=url.removeprefix("unix:"))
        return httpx.Client(transport=socket, timeout=TIMEOUT_S), "http://localhost/metrics"
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL:
        address = httpx.URL("")
    if address.scheme not in ("http", "https") or not address.host:
        raise ConfigError(f"--metrics {url!r} is no URL such as http://127.0.0.1:9108/metrics")
    return httpx.Client(timeout=TIMEOUT_S), str(address if address.path != "/" else address.copy_with(path="/metrics"))
