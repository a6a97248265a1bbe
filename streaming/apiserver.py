"""`jd-intent-score apiserver`: the embedded engine under OpenMLDB's REST interface, to develop without a cluster.

    GET  /dbs · /dbs/DB/tables · /dbs/DB/tables/TABLE · /dbs/DB/deployments/NAME
    POST /dbs/DB/deployments/NAME   {"input": [[…] | {…}, …], "need_schema": …}: features of request rows
    PUT  /dbs/DB/tables/TABLE       {"value": [[…]]}: inserts one row
    POST /dbs/DB                    {"mode": "online", "sql": "…"}: one statement
    POST /refresh · GET /health

As there, every answer has status 200, whatever `code` in it says, and no content type. One thread runs the engine;
requests wait for it in their order.
"""

from __future__ import annotations

import asyncio
import functools
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from streaming import exits, log
from streaming.api import Answer, Api
from streaming.apicells import dump
from streaming.config import Store, load
from streaming.engine import Engine
from streaming.serve import BodyLimit, listening
from streaming.store import EmbeddedStore

__all__ = ["BODY_BYTES_MAX", "create_app", "main"]

BODY_BYTES_MAX = 64 * 1024 * 1024  # brpc's limit
METHODS = ("GET", "POST", "PUT")

_log = structlog.stdlib.get_logger("streaming.apiserver")


def create_app(api: Api, thread: ThreadPoolExecutor) -> Starlette:
    """The HTTP application.

    Args:
        thread: of one thread, the one that made the engine of `api`.
    """

    async def answer(call: Callable[..., Answer], *arguments: object) -> Response:
        run = asyncio.get_running_loop().run_in_executor
        return Response(await run(thread, lambda: dump(api.answer(call, *arguments))))

    async def dbs(_: Request) -> Response:
        return await answer(api.databases)

    async def query(request: Request) -> Response:
        return await answer(api.query, request.path_params["db"], await request.body())

    async def tables(request: Request) -> Response:
        return await answer(api.tables, request.path_params["db"])

    async def table(request: Request) -> Response:
        place = request.path_params["db"], request.path_params["table"]
        if request.method == "PUT":
            return await answer(api.put, *place, await request.body())
        return await answer(api.table, *place)

    async def deployment(request: Request) -> Response:
        place = request.path_params["db"], request.path_params["name"]
        if request.method == "POST":
            return await answer(api.call, *place, await request.body())
        return await answer(api.deployment, *place)

    async def procedure(request: Request) -> Response:
        place = request.path_params["db"], request.path_params["name"]
        if request.method == "POST":
            return await answer(functools.partial(api.call, common=True), *place, await request.body())
        return await answer(api.procedure, *place)

    async def refresh(_: Request) -> Response:
        return await answer(api.refresh)

    async def health(_: Request) -> Response:
        return PlainTextResponse("OK")

    async def refused(request: Request, error: Exception) -> Response:
        if isinstance(error, HTTPException) and error.status_code == 413:
            return Response(dump({"code": -1, "msg": error.detail}), 413)
        known = request.method in METHODS
        return Response(dump({"code": -1, "msg": "no match method" if known else "unsupported method"}))

    app = Starlette(
        routes=[
            Route("/dbs", dbs, methods=["GET"]),
            Route("/dbs/{db}", query, methods=["POST"]),
            Route("/dbs/{db}/tables", tables, methods=["GET"]),
            Route("/dbs/{db}/tables/{table}", table, methods=["GET", "PUT"]),
            Route("/dbs/{db}/deployments/{name}", deployment, methods=["GET", "POST"]),
            Route("/dbs/{db}/procedures/{name}", procedure, methods=["GET", "POST"]),
            Route("/refresh", refresh, methods=["POST"]),
            Route("/health", health, methods=["GET"]),
        ],
        exception_handlers={HTTPException: refused},
    )
    app.router.redirect_slashes = False
    app.add_middleware(BodyLimit, bytes_max=BODY_BYTES_MAX)
    return app


def main(file: Path | None, sql: Path | None, history: Path | None, host: str, port: int, *, empty: bool) -> int:
    """The command: makes the engine, serves until SIGTERM or Ctrl-C, and says in one line why it ended.

    Args:
        sql, history: instead of the configuration's `store.sql` and `store.history`.
        empty: runs no script: clients make their own databases.

    Returns:
        The exit status, see `streaming.exits`.
    """
    try:
        config = load(file)
        log.configure(config.log)
        changes = {"sql": sql and str(sql), "history": history and str(history)}
        settings = config.store.model_copy(update={key: value for key, value in changes.items() if value})
        run(settings, host, port, empty=empty)
    except Exception as error:
        return exits.ended(exits.SCORE, error)
    return 0


def run(settings: Store, host: str, port: int, *, empty: bool) -> None:
    """Serves until it is told to stop.

    Raises:
        ConfigError: the port is taken; a script or a history file is missing or wrong.
        UnsupportedSQL: a script says what the engine cannot run.
    """
    with listening(host, port) as listener, ThreadPoolExecutor(1, "engine") as thread:
        api = Api(thread.submit(_engine, settings, empty).result(), time.time)
        server = uvicorn.Server(
            uvicorn.Config(create_app(api, thread), log_config=None, access_log=False, timeout_graceful_shutdown=10)
        )
        _log.info("serving", url=f"http://{host}:{listener.getsockname()[1]}", databases=api.databases()["dbs"])
        # uvicorn gives a signal that it stopped for back to the handler that was there before: ours ends in order.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: None)
        asyncio.run(server.serve(sockets=[listener]))


def _engine(settings: Store, empty: bool) -> Engine:
    if empty:
        return Engine(paths={settings.history_prefix: settings.history} if settings.history else {})
    store = EmbeddedStore(settings)
    store.load()
    return store.engine
