"""`jd-intent-score board`: the parts, put together and served until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import structlog

from streaming.app.configured import application
from streaming.board.application import Board, create_app
from streaming.board.attributes import Attributes
from streaming.board.events import EventReader
from streaming.board.fields import score_fields
from streaming.board.followers import Followers
from streaming.board.following import Following
from streaming.board.letters import Letters
from streaming.board.outcomes import scores_kept
from streaming.board.scorers import Scorers, metrics_url
from streaming.board.why import Why
from streaming.config import Config, load
from streaming.model.triton import Model
from streaming.ops import log
from streaming.web.access import Rules, own_names
from streaming.web.client import connect
from streaming.web.connection import Limits
from streaming.web.listen import Listen, listening, read_token
from streaming.web.server import Server, run_until_told

__all__ = ["LIMITS", "BoardOptions", "run", "run_board"]

LIMITS = Limits()
PREDICT_S = 10.0  # for one answer of the predict server
MODEL_S = 5.0
SWITCH_S = 0.001

_log = structlog.stdlib.get_logger("streaming.board.server")


@dataclass(frozen=True)
class BoardOptions:
    """What the command line says beside where to listen.

    Args:
        following: what is followed, and how much of it is kept.
        predict: URL of the predict server that computes features; none: there is none.
        predict_token_file, predict_ca: its token, and certificates that vouch for it.
    """

    following: Following
    predict: str | None = None
    predict_token_file: Path | None = None
    predict_ca: Path | None = None


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
    following = options.following
    with listening(listen.host, listen.port) as listener:
        rules = Rules(own_names(listen.host, listen.allow_hosts), listen.token(listener))
        tls = listen.tls()
        app, topics = application(config)
        fields = score_fields(app)
        letters, attributes = Letters(), Attributes(fields, app.settings.names)
        pairs, outcomes = scores_kept(app, topics, fields, following.scores_max)
        scorers = Scorers(following.metrics or [url for url in [metrics_url(config.http)] if url])
        predict = None
        if options.predict is not None:
            token = read_token(options.predict_token_file, {})
            predict = connect("--predict", options.predict, token=token, ca=options.predict_ca, timeout=PREDICT_S)
        model = Model(config.model.url, config.model.name, min(config.model.timeout_s, MODEL_S))
        why = Why(app, pairs, EventReader(config, app, topics), Path(config.model.artifact), model, predict)
        followers = Followers(config, app, topics, pairs, letters, attributes, following.look_back_s, outcomes)
        server: Server | None = None
        names = {"scores": topics.scores, "dead_letters": topics.dead_letters}
        board = Board(
            app,
            names,
            pairs,
            letters,
            attributes,
            followers.state,
            scorers,
            why,
            is_ending=lambda: server is None or server.should_exit,
            outcomes=outcomes,
        )
        limits = dataclasses.replace(LIMITS, connections_max=listen.connections_max)
        server = Server(create_app(board, rules), limits, tls)
        # In a burst the followers would keep a request waiting for 5 ms each time that it changes its thread.
        sys.setswitchinterval(SWITCH_S)
        # What is there now stays: the collector need not walk it again, for a tenth of a second, while somebody waits.
        gc.collect()
        gc.freeze()
        followers.start()
        outcomes.start()
        scorers.start()
        why.start()
        try:
            _log.info("serving", **listen.told(listener))
            run_until_told(lambda: _serve(server, listener, followers))
        finally:
            followers.stop()
            outcomes.stop()
            scorers.stop()
            why.stop()
            model.close()
    followers.state.raise_failure()


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
