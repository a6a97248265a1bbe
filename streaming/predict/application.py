"""The predict server's HTTP interface, over a `Predictor`; `streaming.predict.server` says what it answers when."""

import html
import json
import time
from collections.abc import Mapping
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
from pydantic import BaseModel, Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from streaming.app.folder import App
from streaming.engine import BadRow
from streaming.errors import ArtifactMismatch, Unavailable
from streaming.predict.predictor import Prediction, Predictor
from streaming.predict.request_model import request_model, type_name
from streaming.web.access import Access, BodyLimit, Rules
from streaming.web.content_type import JsonBody

__all__ = ["BODY_BYTES_MAX", "PredictMetrics", "create_app"]

BODY_BYTES_MAX = 65_536
RETRY_AFTER_S = 1
SECONDS_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)

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
    ids: list[str] = Field(description="names of the model's inputs, in order")


class Problem(BaseModel):
    """Why there is no prediction."""

    detail: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    401: {"model": Problem, "description": "the token is missing or wrong"},
    413: {"model": Problem, "description": f"the body is larger than {BODY_BYTES_MAX} bytes"},
    415: {"model": Problem, "description": "Content-Type says that the body is something else than JSON"},
    500: {"model": Problem, "description": "Triton serves a model of another encoder"},
    503: {
        "model": Problem,
        "description": "the state is being rebuilt, Triton is away, or too many are connected; see Retry-After",
    },
}


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


def create_app(predictor: Predictor, shop: App, rules: Rules | None = None) -> FastAPI:
    """The HTTP application over a predictor.

    Args:
        shop: whose requests are answered.
        rules: what callers must show; default: they are on this machine.
    """
    request = shop.query.requests
    Row = request_model("RequestRow", request, shop.settings.request.example or None)  # noqa: N806 - it is a class
    measured = PredictMetrics()
    app = FastAPI(
        docs_url=None,  # FastAPI's pages load their scripts from a public CDN
        redoc_url=None,
        title="jd-intent-score serve",
        description="Features and probability of one request row, from the scorer's own tables and model.",
    )
    app.add_middleware(JsonBody, path="/predict")
    app.add_middleware(BodyLimit, bytes_max=BODY_BYTES_MAX)
    app.add_middleware(Access, rules=rules or Rules(), refusal=_refusal)
    app.add_middleware(Measured, metrics=measured)
    _add_docs(app)
    _add_refusals(app)

    @app.post("/predict", response_model_exclude_unset=True, responses=PROBLEMS)
    def predict(row: Row, ids: bool = False) -> Prediction:  # type: ignore[valid-type]  # made of the deployment above
        """Features and probability of one request row. Every column is needed, no other taken, nothing coerced."""
        return predictor.predict(row.model_dump(by_alias=True), ids=ids)  # type: ignore[attr-defined]

    @app.get("/schema")
    def schema() -> Schema:
        """Columns of request and features, in the SQL's names and OpenMLDB's types."""
        return Schema(
            database=shop.tables.database,
            deployment=shop.settings.deployment.name,
            request=[_column(column, nullable=not pa.types.is_timestamp(column.type)) for column in request],
            features=[_column(column, nullable=True) for column in shop.query.answers],
            encoder=predictor.encoder.digest,
            ids=[field.name for field in predictor.encoder.fields],
        )

    _add_operations(app, predictor, measured)
    return app


def _add_docs(app: FastAPI) -> None:
    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        schema = html.escape(json.dumps(app.openapi(), indent=2, ensure_ascii=False))
        return HTMLResponse(
            f"<!doctype html><title>{app.title}</title><h1>{app.title}</h1><p>{app.description}</p>"
            f"<p>The interface as OpenAPI, also at <a href=openapi.json>openapi.json</a>:</p><pre>{schema}</pre>"
        )


def _add_refusals(app: FastAPI) -> None:
    """What a caller is told instead of a prediction."""

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


def _add_operations(app: FastAPI, predictor: Predictor, measured: PredictMetrics) -> None:
    """Health, readiness, metrics."""

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


def _refusal(status: int, why: str, headers: Mapping[str, str]) -> Response:
    return JSONResponse({"detail": why}, status, dict(headers))


def _column(column: pa.Field, *, nullable: bool) -> Column:
    return Column(name=column.name, type=type_name(column.type), nullable=nullable)
