"""`jd-intent-score serve`: features and probability of one request row over HTTP, as the tutorial's predict server.

    POST /predict   a row of the request table → the deployment's named features, the probability, the model's version
    GET  /schema    the columns of request and answer, with their OpenMLDB types
    GET  /docs      the OpenAPI page
    GET  /healthz   alive · /readyz  state and model are there · /metrics  for Prometheus

The state is a read-only copy (`streaming.predict.state_replica`); request rows are answered, not inserted. Status
codes: 422 names the fields that are missing or wrong, 413 a body above BODY_BYTES_MAX, 503 with Retry-After while the
state is being rebuilt or Triton is away, 500 when Triton serves a model of another encoder; 401, 403, 431 and 503 of
`streaming.web`. A body of another kind than JSON is a 415 (`streaming.web.content_type`).
"""

import asyncio
import dataclasses
import datetime
import html
import json
import math
import socket
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streaming.config import Config, load
from streaming.engine import BadRow
from streaming.errors import ArtifactMismatch, ScorerError, Unavailable
from streaming.kafka.rights import check_topics, of_serve
from streaming.model.artifact import check_sql
from streaming.model.encoder import Encoder
from streaming.model.triton import Model
from streaming.ops import exits, log
from streaming.predict.request_model import request_model, type_name
from streaming.predict.state_replica import Direct, Follower, State
from streaming.store.open import open_store
from streaming.store.openmldb.cluster import ClusterStore
from streaming.web.access import Access, BodyLimit, Rules, own_names
from streaming.web.connection import Limits
from streaming.web.content_type import JsonBody
from streaming.web.listen import Listen, listening
from streaming.web.server import Server, run_until_told

__all__ = ["BODY_BYTES_MAX", "PredictMetrics", "Predictor", "create_app", "main", "run"]

BODY_BYTES_MAX = 65_536
LIMITS = Limits()
RETRY_AFTER_S = 1
CHECK_S = 5.0  # how often Triton is asked, under load, whether its model still belongs to our encoder
SECONDS_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)

EXAMPLE: dict[str, Any] = {
    "reqId": "200001_80005_2016-03-31 18:11:20",
    "eventTime": 1459419080000,
    "main_id": "",
    "pair_id": "200001_80005",
    "user_id": "200001",
    "sku_id": "80005",
    "time": 1459419080000,
    "split_id": 0,
    "time1": "2016-03-31 18:11:20",
}
"""The tutorial's request; shown in /docs where the request table has its columns."""

_log = structlog.stdlib.get_logger("streaming.predict.server")


class Column(BaseModel):
    """A column of the request or of the features, under its SQL name."""

    name: str
    type: str = Field(description="OpenMLDB's type")
    nullable: bool


class Schema(BaseModel):
    """What `POST /predict` takes and gives."""

    database: str
    deployment: str
    request: list[Column]
    features: list[Column]
    encoder: str = Field(description="digest of the encoder that makes the model's ids")
    ids: list[str] = Field(description="names of the model's 41 inputs, in order")


class Prediction(BaseModel):
    """The answer to one request row."""

    model_config = ConfigDict(protected_namespaces=())

    features: dict[str, bool | int | float | str | None] = Field(
        description="the deployment's columns: timestamps in epoch ms, NULL as null, a real that is not finite as text"
    )
    ids: dict[str, int] | None = Field(None, description="with ?ids=true: the model's inputs by field; 64 bits each")
    probability: float = Field(description="that the user orders the product within five days after eventTime")
    model: str
    model_version: str


class Problem(BaseModel):
    """Why there is no prediction."""

    detail: str


class PredictMetrics:
    """What `/metrics` shows of the predict server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.requests = Counter(
            "jd_intent_predict_requests", "Answers of /predict.", ["status"], registry=self.registry
        )
        self.seconds = Histogram(
            "jd_intent_predict_seconds", "Seconds to answer /predict.", buckets=SECONDS_BUCKETS, registry=self.registry
        )


class Predictor:
    """State, encoder and model of one deployment, for many threads.

    Args:
        name: the model's name on Triton.
    """

    def __init__(self, follower: State, encoder: Encoder, model: Model, name: str) -> None:
        self.follower, self.encoder, self.model, self.name = follower, encoder, model, name
        self._encoding = threading.Lock()  # an encoder has caches: one thread at a time
        self._checked = ("", 0.0)  # the version whose encoder was asked for, and when

    def predict(self, row: dict[str, Any], *, ids: bool) -> Prediction:
        """Answers one row.

        Raises:
            Unavailable: the state or the model is not there.
            BadRow: the deployment refuses the row.
            ArtifactMismatch: Triton serves a model of another encoder.
        """
        features = self.follower.request([row])
        with self._encoding:
            encoded = self.encoder.encode(features)
        try:
            scores = self.model.score(encoded)
        except Unavailable:
            self._checked = ("", 0.0)  # another model may come back under the same version
            raise
        self._check(scores.version)
        prediction = Prediction(
            features={name: _json_value(column) for name, column in zip(features.column_names, features, strict=True)},
            probability=float(scores.probabilities[0]),
            model=self.name,
            model_version=scores.version,
        )
        if ids:
            prediction.ids = dict(zip((f.name for f in self.encoder.fields), encoded[0].tolist(), strict=True))
        return prediction

    def missing(self) -> dict[str, str]:
        """The parts that are not there, and why; empty: ready."""
        missing = {}
        state = self.follower.missing()
        if state is not None:
            missing["state"] = state
        if not self.model.ready():
            missing["model"] = f"Triton does not serve {self.name}"
        return missing

    def _check(self, version: str) -> None:
        checked, at = self._checked
        if version == checked and time.monotonic() - at < CHECK_S:
            return
        digest = self.model.encoder_digest()
        if digest != self.encoder.digest:
            raise ArtifactMismatch(
                f"Triton's {self.name} version {version} was trained with encoder {digest}, this server has "
                f"{self.encoder.digest}: restart it with the artifact of that model"
            )
        self._checked = (version, time.monotonic())


def create_app(
    predictor: Predictor, config: Config, request: pa.Schema, features: pa.Schema, rules: Rules | None = None
) -> FastAPI:
    """The application over a predictor.

    Args:
        request, features: the deployment's request and output columns.
        rules: what callers must show; default: they are on this machine.
    """
    example = EXAMPLE if set(request.names) == EXAMPLE.keys() else None
    Row = request_model("RequestRow", request, example)  # noqa: N806 - it is a class
    measured = PredictMetrics()
    app = FastAPI(
        docs_url=None,  # FastAPI's pages load their scripts from a public CDN
        redoc_url=None,
        title="jd-intent-score serve",
        description="Features and purchase probability of one request row, from the scorer's own tables and model.",
    )
    app.add_middleware(JsonBody, path="/predict")
    app.add_middleware(BodyLimit, bytes_max=BODY_BYTES_MAX)
    app.add_middleware(Access, rules=rules or Rules(), refusal=_refusal)
    app.add_middleware(Measured, metrics=measured)

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        schema = html.escape(json.dumps(app.openapi(), indent=2, ensure_ascii=False))
        return HTMLResponse(
            f"<!doctype html><title>{app.title}</title><h1>{app.title}</h1><p>{app.description}</p>"
            f"<p>The interface as OpenAPI, also at <a href=openapi.json>openapi.json</a>:</p><pre>{schema}</pre>"
        )

    @app.exception_handler(RequestValidationError)
    async def refused(_: Request, error: RequestValidationError) -> Response:
        # FastAPI's own answer repeats the input, which may be long, secret, or no valid Unicode.
        detail = [{"loc": part["loc"], "msg": part["msg"], "type": part["type"]} for part in error.errors()]
        return JSONResponse({"detail": detail}, 422)

    @app.exception_handler(BadRow)
    async def bad_row(_: Request, error: BadRow) -> Response:
        return JSONResponse({"detail": [{"loc": ["body"], "msg": str(error), "type": "bad_row"}]}, 422)

    @app.exception_handler(Unavailable)
    async def unavailable(_: Request, error: Unavailable) -> Response:
        return JSONResponse({"detail": str(error)}, 503, headers={"Retry-After": str(RETRY_AFTER_S)})

    @app.exception_handler(ArtifactMismatch)
    async def mismatch(_: Request, error: ArtifactMismatch) -> Response:
        _log.error("model and encoder differ", error=str(error))
        return JSONResponse({"detail": str(error)}, 500)

    @app.post(
        "/predict",
        response_model_exclude_unset=True,
        responses={
            401: {"model": Problem, "description": "the token is missing or wrong"},
            413: {"model": Problem, "description": f"the body is larger than {BODY_BYTES_MAX} bytes"},
            415: {"model": Problem, "description": "Content-Type says that the body is something else than JSON"},
            500: {"model": Problem, "description": "Triton serves a model of another encoder"},
            503: {
                "model": Problem,
                "description": "the state is being rebuilt, Triton is away, or too many are connected; see Retry-After",
            },
        },
    )
    def predict(row: Row, ids: bool = False) -> Prediction:  # type: ignore[valid-type]  # made of the deployment above
        """Features and probability of one request row. Every column is needed, no other taken, nothing coerced."""
        return predictor.predict(row.model_dump(by_alias=True), ids=ids)  # type: ignore[attr-defined]

    @app.get("/schema")
    def schema() -> Schema:
        """Columns of request and features, in the SQL's names and OpenMLDB's types."""
        return Schema(
            database=config.store.database,
            deployment=config.store.deployment,
            request=[_column(column, nullable=not pa.types.is_timestamp(column.type)) for column in request],
            features=[_column(column, nullable=True) for column in features],
            encoder=predictor.encoder.digest,
            ids=[field.name for field in predictor.encoder.fields],
        )

    @app.get("/healthz")
    def healthz(response: Response) -> dict[str, Any]:
        """200 while the topics are followed."""
        failure = predictor.follower.failure
        response.status_code = 200 if failure is None else 503
        return {"alive": failure is None, "failure": None if failure is None else str(failure)}

    @app.get("/readyz")
    def readyz(response: Response) -> dict[str, Any]:
        """200 when /predict can answer."""
        missing = predictor.missing()
        response.status_code = 503 if missing else 200
        return {"ready": not missing, "missing": missing}

    @app.get("/metrics")
    def metrics() -> Response:
        """Prometheus' text format."""
        return Response(generate_latest(measured.registry), media_type=CONTENT_TYPE_LATEST)

    return app


class Measured:
    """ASGI middleware: counts and times the answers of /predict, whatever they are."""

    def __init__(self, app: ASGIApp, metrics: PredictMetrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/predict":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            self._metrics.requests.labels(str(status)).inc()
            self._metrics.seconds.observe(time.perf_counter() - start)


def main(file: Path | None, listen: Listen) -> int:
    """The command: reads the configuration, serves, and says in one line why it ended.

    Returns:
        The exit status, see `streaming.ops.exits`.
    """
    try:
        config = load(file)
        log.configure(config.log)
        run(config, listen)
    except Exception as error:
        return exits.ended(exits.SCORE, error)
    return 0


def run(config: Config, listen: Listen) -> None:
    """Serves until SIGTERM or SIGINT, then finishes the requests at hand and returns.

    Raises:
        ConfigError: the port is taken; a token is missing; a script, certificate, topic or file is missing or wrong;
            Kafka refuses the login.
        NotAllowed: a topic may not be read.
        ArtifactMismatch: the encoder is damaged; the deployed SQL is not the artifact's.
        ScorerError: following the topics failed; the process should be started again.
    """
    with listening(listen.host, listen.port) as listener:
        rules = Rules(own_names(listen.host, listen.allow_hosts), listen.token(listener))
        tls = listen.tls()
        check_sql(Path(config.store.sql), Path(config.model.artifact), config.store.deployment)
        encoder = Encoder.load(Path(config.model.artifact) / "encoder")
        if config.store.kind == "embedded":  # what Kafka refuses is said before minutes go by with history
            check_topics(config.kafka, of_serve(config.kafka))
        store = open_store(config.store, dedup=config.dedup)
        store.load()
        model = Model(config.model.url, config.model.name, config.model.timeout_s)
        follower: State = Direct(store) if isinstance(store, ClusterStore) else Follower(config, store)
        predictor = Predictor(follower, encoder, model, config.model.name)
        app = create_app(predictor, config, store.request_schema(), store.schema(), rules)
        server = Server(app, dataclasses.replace(LIMITS, connections_max=listen.connections_max), tls)
        follower.start()
        try:
            _log.info("serving", **listen.told(listener), docs="/docs")
            run_until_told(lambda: _serve(server, listener, follower))
        finally:
            follower.stop()
    if follower.failure is not None:
        raise ScorerError(f"following the topics failed: {follower.failure}") from follower.failure


async def _serve(server: Server, listener: socket.socket, follower: State) -> None:
    """Runs the server until it is told to stop, or the follower ends: a state that stands still must not answer."""

    async def watch() -> None:
        await asyncio.to_thread(follower.ended.wait)
        server.should_exit = True

    watching = asyncio.create_task(watch())
    try:
        await server.serve(sockets=[listener])
    finally:
        follower.stop()
        await watching


def _refusal(status: int, why: str, headers: Mapping[str, str]) -> Response:
    return JSONResponse({"detail": why}, status, dict(headers))


def _column(column: pa.Field, *, nullable: bool) -> Column:
    return Column(name=column.name, type=type_name(column.type), nullable=nullable)


def _json_value(column: pa.ChunkedArray) -> bool | int | float | str | None:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ms")).cast(pa.int64())
    value = column[0].as_py()
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no NaN and no infinity
    return value  # type: ignore[no-any-return]  # one of OpenMLDB's types
