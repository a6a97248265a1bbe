"""`jd-intent-score board`: the parts, put together and served until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import socket
import sys
from pathlib import Path

import structlog

from streaming.board.application import create_app
from streaming.board.followers import Followers
from streaming.board.parts import BoardOptions, Parts
from streaming.config import Config, load
from streaming.ops import log
from streaming.web.access import Rules, own_names
from streaming.web.connection import Limits
from streaming.web.listen import Listen, listening
from streaming.web.server import Server, run_until_told

__all__ = ["LIMITS", "run", "run_board"]

LIMITS = Limits()
SWITCH_S = 0.001

_log = structlog.stdlib.get_logger("streaming.board.server")


def run_board(file: Path | None, listen: Listen, options: BoardOptions) -> None:
    """The command: reads the configuration, and serves until it is told to stop.

    Args:
        file: the configuration; none: defaults and the environment.
        listen: where, to whom, and with which certificate.
    """
    config = load(file)
    log.configure(config.log)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # that a scorer was asked, every other second, is no news
    run(config, listen, options)


def run(config: Config, listen: Listen, options: BoardOptions) -> None:
    """Serves until SIGTERM or SIGINT.

    Kafka, the scorers, the predict server and Triton may be away, at the start, too: the page says so.

    Raises:
        ConfigError: the port is taken; a token is missing; a URL, certificate or topic is missing or wrong; Kafka
            refuses the login; the scores name nobody.
        NotAllowed: a topic may not be read.
        ScorerError: following the topics failed; the process should be started again.
    """
    with listening(listen.host, listen.port) as listener:
        rules = Rules(own_names(listen.host, listen.allow_hosts), listen.token(listener))
        tls = listen.tls()
        parts = Parts(config, options)
        server: Server | None = None
        board = parts.board(lambda: server is None or server.should_exit)
        limits = dataclasses.replace(LIMITS, connections_max=listen.connections_max)
        server = Server(create_app(board, rules), limits, tls)
        # In a burst the followers would keep a request waiting for 5 ms each time that it changes its thread.
        sys.setswitchinterval(SWITCH_S)
        # What is there now stays: the collector need not walk it again, for a tenth of a second, while somebody waits.
        gc.collect()
        gc.freeze()
        parts.start()
        try:
            _log.info("serving", **listen.told(listener))
            run_until_told(lambda: _serve(server, listener, parts.followers))
        finally:
            parts.stop()
    parts.followers.state.raise_failure()


async def _serve(server: Server, listener: socket.socket, followers: Followers) -> None:
    """Runs the server until it is told to stop, or a follower ends: what stands still must not be shown as live."""

    async def watch() -> None:
        await asyncio.to_thread(followers.state.ended.wait)
        server.should_exit = True

    watching = asyncio.create_task(watch())
    try:
        await server.serve(sockets=[listener])
    finally:
        followers.stop()
        await watching
