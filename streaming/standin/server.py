"""`jd-intent-score apiserver`: the embedded engine under OpenMLDB's REST interface, to develop without a cluster.

    GET  /dbs · /dbs/DB/tables · /dbs/DB/tables/TABLE · /dbs/DB/deployments/NAME
    POST /dbs/DB/deployments/NAME   {"input": [[…] | {…}, …], "need_schema": …}: features of request rows
    PUT  /dbs/DB/tables/TABLE       {"value": [[…]]}: inserts one row
    POST /dbs/DB                    {"mode": "online", "sql": "…"}: one statement
    POST /refresh · GET /health

As there, every answer has status 200, whatever `code` in it says, and no content type; but for what the real server
takes from everybody, and this one does not: see `streaming.web.access` (401, 403, 413, 415, 431, 503). Bodies must be
application/json, so that no web page can post a form; statements touch only files below the folders that were named at
the start. One thread runs the engine; requests wait for it in their order.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from streaming.app.configured import configured_app
from streaming.app.folder import App
from streaming.config import load
from streaming.engine import Engine
from streaming.errors import ConfigError
from streaming.ops import log
from streaming.standin.answers import Answer, Api
from streaming.standin.cells import dump
from streaming.store.embedded import EmbeddedStore
from streaming.web.access import Access, BodyLimit, Rules, own_names
from streaming.web.connection import Limits
from streaming.web.listen import Listen, listening
from streaming.web.server import Server, run_until_told

__all__ = ["BODY_BYTES_MAX", "create_app", "run_apiserver"]

BODY_BYTES_MAX = 64 * 1024 * 1024  # brpc's limit
BODIES_BYTES_MAX = 4 * BODY_BYTES_MAX  # of all together: each connection may bring one
LIMITS = Limits(body_s=60.0)
METHODS = ("GET", "POST", "PUT")

_log = structlog.stdlib.get_logger("streaming.standin.server")


def create_app(api: Api, thread: ThreadPoolExecutor, rules: Rules) -> Starlette:
    """The HTTP application.

    Args:
        thread: of one thread, the one that made the engine of `api`.
        rules: what callers must show.
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
        if isinstance(error, HTTPException) and error.status_code in (413, 503):
            return _refusal(error.status_code, error.detail, error.headers or {})
        known = request.method in METHODS
        return Response(dump({"code": -1, "msg": "no match method" if known else "unsupported method"}))

    async def gone(_: Request, __: Exception) -> Response:
        return Response()  # nobody is there to read it: it hung up, or was dropped, before its body was whole

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
        exception_handlers={HTTPException: refused, ClientDisconnect: gone},
    )
    app.router.redirect_slashes = False
    app.add_middleware(BodyLimit, bytes_max=BODY_BYTES_MAX, together_max=BODIES_BYTES_MAX)
    app.add_middleware(Access, rules=rules, refusal=_refusal)
    return app


def _refusal(status: int, why: str, headers: Mapping[str, str]) -> Response:
    return Response(dump({"code": -1, "msg": why}), status, dict(headers))


def run_apiserver(
    file: Path | None, app: str | None, history: Path | None, files: Sequence[Path], listen: Listen, *, empty: bool
) -> None:
    """The command: makes the engine, and serves until SIGTERM or Ctrl-C.

    Args:
        app, history: instead of the configuration's `app` and `store.history`.
        files: folders below which statements may read and write files.
        empty: makes no tables: clients make their own databases.
    """
    config = load(file)
    log.configure(config.log)
    if app:
        config = config.model_copy(update={"app": app})
    run(configured_app(config), str(history or config.store.history), files, listen, empty=empty)


def run(shop: App, history: str, files: Sequence[Path], listen: Listen, *, empty: bool) -> None:
    """Serves until it is told to stop.

    Args:
        shop: the application whose tables it begins with.
        history: the folder of what is in them; "": nothing.
        files, listen, empty: see `run_apiserver`.

    Raises:
        ConfigError: the port is taken; a token is missing; a folder, certificate or history file is missing or wrong.
    """
    for folder in files:
        if not folder.is_dir():
            raise ConfigError(f"--files {folder}: there is no such folder")
    with listening(listen.host, listen.port) as listener, ThreadPoolExecutor(1, "engine") as thread:
        rules = Rules(own_names(listen.host, listen.allow_hosts), listen.token(listener), json_only=True)
        tls = listen.tls()
        api = Api(thread.submit(_engine, shop, history, files, empty).result(), time.time)
        limits = dataclasses.replace(LIMITS, connections_max=listen.connections_max)
        server = Server(create_app(api, thread, rules), limits, tls)
        _log.info("serving", **listen.told(listener), databases=api.databases()["dbs"], files=list(map(str, files)))
        run_until_told(lambda: server.serve(sockets=[listener]))


def _engine(shop: App, history: str, files: Sequence[Path], empty: bool) -> Engine:
    """The engine with what it begins with; whoever calls afterwards reaches no file outside of `files`."""
    if empty:
        engine = Engine(paths={shop.settings.history.path: history} if history else {})
    else:
        store = EmbeddedStore(shop, history)
        store.load()
        engine = store.engine
    engine.confine(files)
    return engine
