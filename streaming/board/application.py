"""The board's HTTP: the page, and the JSON that it asks for.

GET /                          the page, its style and its script: they tell nothing, and need no token
GET /api/about                 what the application calls things
GET /api/live                  the ranking and the figures, as lines of JSON for as long as the page reads them: first
                               all of it, then what has changed, three times a second at most
GET /api/pair, /api/why        a pair and its scores; the features of its last one
GET /api/search, /api/history  users and items by name; the scores of one
GET /api/letters               dead letters
GET /healthz, /readyz, /metrics
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import math
import threading
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, ProcessCollector, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streaming.board.board import Board
from streaming.board.outcomes import CLASS_MIN, Outcome
from streaming.board.rows import Key, PairRow, ScoreRow, exact
from streaming.web.access import Access, BodyLimit, Rules

__all__ = ["PAGES", "Board", "create_app"]

PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/board.css": ("board.css", "text/css; charset=utf-8"),
    "/board.js": ("board.js", "text/javascript; charset=utf-8"),
    "/favicon.svg": ("favicon.svg", "image/svg+xml"),
}
TICK_S = 0.33
ROWS, ROWS_MAX = 50, 500
CHOICES_S = 2.0
RATE_S = 5  # whole seconds that the throughput is the mean of
SPARK_S = 60
BODY_BYTES_MAX = 1024

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def create_app(board: Board, rules: Rules | None = None) -> Starlette:
    """The HTTP application.

    Args:
        rules: what callers must show; default: they are on this machine.
    """
    rules = dataclasses.replace(rules or Rules(), open_paths=frozenset(PAGES))
    # Read once: a page that is installed meanwhile is for another server than this.
    pages = {
        path: resources.files("streaming.board").joinpath("pages").joinpath(file).read_bytes()
        for path, (file, _) in PAGES.items()
    }
    told = _about(board, pages)
    live = _Live(board, told["page"])

    async def about(_: Request) -> Response:
        return _json(told)

    async def stream(request: Request) -> Response:
        return StreamingResponse(live.lines(_wanted(request.query_params)), media_type="application/x-ndjson")

    async def pair(request: Request) -> Response:
        return _json(await run_in_threadpool(_pair, board, _key(request.query_params)))

    async def why(request: Request) -> Response:
        key = _key(request.query_params)
        found = board.pairs.pair(key)
        if found is None:
            raise HTTPException(404, "this pair is not kept any more")
        return _json(dataclasses.asdict(await run_in_threadpool(board.why.explain, found[2])))

    async def search(request: Request) -> Response:
        text = request.query_params.get("q", "")[:200]
        matches = await run_in_threadpool(board.pairs.find, text)
        return _json([{**dataclasses.asdict(match), "value": exact(match.value)} for match in matches])

    async def history(request: Request) -> Response:
        field = request.query_params.get("field", "")
        value = _value(request.query_params.get("value", ""))
        scores, pairs = await run_in_threadpool(board.pairs.history, field, value)
        return _json({"scores": [_score(board, row) for row in scores], "pairs": [_row(board, row) for row in pairs]})

    async def letters(request: Request) -> Response:
        newest = board.letters.newest(request.query_params.get("reason", "")[:200])
        return _json({"counts": board.letters.counts(), "letters": [dataclasses.asdict(letter) for letter in newest]})

    async def healthz(_: Request) -> Response:
        failure = board.kafka.failure
        alive = {"alive": failure is None, "failure": None if failure is None else str(failure)}
        return _json(alive, 200 if failure is None else 503)

    async def readyz(_: Request) -> Response:
        missing = {}
        if board.kafka.away:
            missing["kafka"] = board.kafka.away
        elif board.kafka.gone:
            missing["topic"] = f"there is no topic {board.topics['scores']} any more"
        elif not board.kafka.loaded:
            missing["scores"] = "the scores of the look-back are being read"
        return _json({"ready": not missing, "missing": missing}, 503 if missing else 200)

    registry = _metrics(board)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    async def page(request: Request) -> Response:
        _, kind = PAGES[request.url.path]
        return Response(pages[request.url.path], media_type=kind)

    async def refused(_: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException):
            return _json({"detail": error.detail}, error.status_code)
        return _json({"detail": "the board has failed at this; its log says how"}, 500)

    app = Starlette(
        routes=[
            *(Route(path, page) for path in PAGES),
            Route("/api/about", about),
            Route("/api/live", stream),
            Route("/api/pair", pair),
            Route("/api/why", why),
            Route("/api/search", search),
            Route("/api/history", history),
            Route("/api/letters", letters),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
        ],
        exception_handlers={HTTPException: refused, Exception: refused},
    )
    app.router.redirect_slashes = False
    app.add_middleware(BodyLimit, bytes_max=BODY_BYTES_MAX)
    app.add_middleware(Access, rules=rules, refusal=_refusal)
    app.add_middleware(_Headers)
    return app


class _Headers:
    """ASGI middleware: what a browser must not do with any of it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                more = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", []), *more]}
            await send(message)

        await self._app(scope, receive, with_headers if scope["type"] == "http" else send)


# ── the live stream ──────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Wanted:
    """What a page shows: `within_s` 0: scores of any age; `filters`: name and value."""

    limit: int
    within_s: int
    filters: tuple[tuple[str, str], ...]


class _Ranked:
    """A ranking with what its pages have in common: 30 of them cost little more than one.

    Args:
        rows: the best first.
        total: how many pairs there are.

    Attributes:
        at: when it was so, monotonic seconds.
        marks: of each row by its id, in their order: another mark, another row.
    """

    def __init__(self, board: Board, rows: list[PairRow], total: int) -> None:
        self.at, self.total = time.monotonic(), total
        self.marks = {row.id: (row.seq, board.attributes.of(row.key)) for row in rows}
        self._board, self._rows = board, dict(zip(self.marks, rows, strict=True))
        self._told: dict[str, msgspec.Raw] = {}

    def row(self, name: str) -> msgspec.Raw:
        """A row's JSON."""
        if name not in self._told:
            self._told[name] = msgspec.Raw(msgspec.json.encode(_row(self._board, self._rows[name])))
        return self._told[name]


class _Live:
    """The ranking and the figures as lines. What pages have in common is computed once for all of them.

    Args:
        page: names what pages have loaded; the first line of each stream tells it.
    """

    def __init__(self, board: Board, page: str) -> None:
        self._board, self._page = board, page
        self._lock = threading.Lock()  # threads of a pool make the rankings
        self._rankings: dict[_Wanted, _Ranked] = {}
        self._choices: tuple[float, dict[str, list[tuple[str, int]]]] = (float("-inf"), {})

    async def lines(self, wanted: _Wanted) -> AsyncIterator[bytes]:
        """First everything, then what is new."""
        sent: dict[str, tuple[int, dict[str, str]]] = {}
        order: list[str] | None = None
        total = -1
        figures: dict[str, Any] = {}
        choices: dict[str, list[tuple[str, int]]] | None = None
        while not self._board.is_ending():
            began = time.monotonic()
            ranked = await run_in_threadpool(self._ranking, wanted)
            line: dict[str, Any] = {"now": int(time.time() * 1000)}
            if order is None:
                line["page"] = self._page
            if new := {name: ranked.row(name) for name, mark in ranked.marks.items() if sent.get(name) != mark}:
                line["rows"] = new
            if order != (now := list(ranked.marks)):
                line["order"] = order = now
            if total != ranked.total:
                line["total"] = total = ranked.total
            sent = ranked.marks
            told = self._figures()
            if changed := {name: value for name, value in told.items() if figures.get(name) != value}:
                line["figures"] = changed
            figures = told
            if choices != (found := await run_in_threadpool(self._choices_now)):
                line["choices"] = choices = found
            yield msgspec.json.encode(line) + b"\n"
            await asyncio.sleep(max(0.05, TICK_S - (time.monotonic() - began)))

    def _ranking(self, wanted: _Wanted) -> _Ranked:
        with self._lock:
            now = time.monotonic()
            found = self._rankings.get(wanted)
            if found is None or now - found.at > TICK_S / 2:
                not_before = int((time.time() - wanted.within_s) * 1000) if wanted.within_s else 0
                ranked = self._board.pairs.ranking(wanted.limit, not_before=not_before, filters=dict(wanted.filters))
                found = _Ranked(self._board, *ranked)
                self._rankings = {w: kept for w, kept in self._rankings.items() if now - kept.at < TICK_S}
                self._rankings[wanted] = found
            return found

    def _choices_now(self) -> dict[str, list[tuple[str, int]]]:
        now = time.monotonic()
        if now - self._choices[0] > CHOICES_S:
            self._choices = (now, self._board.pairs.choices())
        return self._choices[1]

    def _figures(self) -> dict[str, Any]:
        board = self._board
        seconds = board.pairs.per_second(SPARK_S)
        letters = board.letters.counts()
        return {
            "kafka": {"away": board.kafka.away, "loaded": board.kafka.loaded, "gone": board.kafka.gone},
            "received": board.pairs.received,
            "unreadable": board.pairs.unreadable,
            "pairs": board.pairs.pairs_kept(),
            "rate": sum(seconds[-RATE_S:]) / RATE_S,
            "seconds": seconds,
            "scorers": dataclasses.asdict(board.scorers.figures()),
            "letters": sum(letters.values()),
            "auc": dataclasses.asdict(board.auc()),
            "version": board.pairs.version(),
        }


def _wanted(query: QueryParams) -> _Wanted:
    filters = tuple(
        sorted(
            (name.removeprefix("filter."), value[:500]) for name, value in query.items() if name.startswith("filter.")
        )
    )
    return _Wanted(
        min(max(1, _whole(query.get("limit", ""), ROWS)), ROWS_MAX), max(0, _whole(query.get("within", ""), 0)), filters
    )


def _whole(text: str, otherwise: int) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else otherwise


# ── what is answered ─────────────────────────────────────────────────────────────────────────────────────────────────


def _about(board: Board, pages: Mapping[str, bytes]) -> dict[str, Any]:
    settings, fields = board.app.settings, board.pairs.fields
    told = {
        "app": settings.name,
        "zone": settings.time_zone,
        "users": fields.users,
        "items": fields.items,
        "pair": fields.pair,
        "probability": fields.probability,
        "horizon": settings.label.later_event.horizon if settings.label.later_event else None,
        "class_min": CLASS_MIN,
        "attributes": list(board.attributes.names()),
        "names": settings.names,
        "topics": board.topics,
        "kept": {"scores": board.pairs.scores_max, "best": board.pairs.best_max},
    }
    # A page that is open while the board is updated, or started for another application, must not go on with the old.
    parts = [*pages.values(), json.dumps(told, sort_keys=True).encode()]
    return {**told, "page": hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]}


def _pair(board: Board, key: Key) -> dict[str, Any]:
    found = board.pairs.pair(key)
    if found is None:
        raise HTTPException(404, "this pair is not kept any more")
    row, scores, _ = found
    return {"row": _row(board, row), "scores": [_score(board, score) for score in scores]}


def _row(board: Board, row: PairRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "p": round(row.probability, 6),
        "trend": [round(p, 4) for p in row.trend],
        "at": row.at,
        "time": row.time,
        "version": row.version,
        "count": row.count,
        "outcome": _outcome(board.outcome(row.seq)),
        "attributes": board.attributes.of(row.key),
    }


def _outcome(outcome: Outcome | None) -> dict[str, Any] | None:
    return None if outcome is None else dataclasses.asdict(outcome)


def _score(board: Board, row: ScoreRow) -> dict[str, Any]:
    return {
        "id": exact(row.key),
        "p": round(row.probability, 6),
        "at": row.at,
        "time": row.time,
        "version": row.version,
        "outcome": _outcome(board.outcome(row.number)),
    }


def _key(query: QueryParams) -> Key:
    key = _value(query.get("key", ""))
    if not isinstance(key, list):
        raise HTTPException(400, "key: a list in JSON names a pair")
    return tuple(key)


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = {}
    parts = value if isinstance(value, list) else [value]
    if not all(part is None or isinstance(part, str | int | float) for part in parts):
        raise HTTPException(400, "a value is a text, a number or null in JSON")
    return value


def _metrics(board: Board) -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    for name, what, value in (
        ("jd_intent_board_scores", "Scores that the board has taken.", lambda: board.pairs.received),
        ("jd_intent_board_unreadable", "Records of their topic that are no scores.", lambda: board.pairs.unreadable),
        ("jd_intent_board_pairs", "Pairs that the board keeps.", board.pairs.pairs_kept),
        ("jd_intent_board_label_events", "Events that make labels, as they are kept.", board.label_events),
        ("jd_intent_board_auc", "AUC over matured scores; NaN: there are too few.", lambda: _or_nan(board.auc().auc)),
        ("jd_intent_board_auc_low", "Lower end of its 95% interval.", lambda: _or_nan(board.auc().low)),
        ("jd_intent_board_auc_high", "Upper end of its 95% interval.", lambda: _or_nan(board.auc().high)),
        ("jd_intent_board_matured", "Kept scores whose label is known.", lambda: board.auc().matured),
        ("jd_intent_board_positives", "Of these, those of label 1.", lambda: board.auc().positives),
        (
            "jd_intent_board_labels_known_to_seconds",
            "Event time up to which labels are known, epoch seconds; NaN: none is.",
            lambda: _or_nan(board.auc().known_to) / 1000,
        ),
    ):
        Gauge(name, what, registry=registry).set_function(value)
    return registry


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _json(body: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(body), status, media_type="application/json")


def _refusal(status: int, why: str, headers: Mapping[str, str]) -> Response:
    return JSONResponse({"detail": why}, status, dict(headers))
