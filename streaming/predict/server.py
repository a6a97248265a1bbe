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

from __future__ import annotations

import asyncio
import dataclasses
import socket
from pathlib import Path

import structlog

from streaming.app.configured import application
from streaming.config import Config, load
from streaming.errors import ScorerError
from streaming.kafka.rights import check_topics, of_serve
from streaming.model.artifact import check_sql
from streaming.model.encoder import Encoder
from streaming.model.triton import Model
from streaming.ops import log
from streaming.predict.application import create_app
from streaming.predict.predictor import Predictor
from streaming.predict.state_replica import Direct, Follower, State
from streaming.store.open import open_store
from streaming.store.openmldb.cluster import ClusterStore
from streaming.web.access import Rules, own_names
from streaming.web.connection import Limits
from streaming.web.listen import Listen, listening
from streaming.web.server import Server, run_until_told

__all__ = ["LIMITS", "run", "run_serve"]

LIMITS = Limits()

_log = structlog.stdlib.get_logger("streaming.predict.server")


def run_serve(file: Path | None, listen: Listen) -> None:
    """The command: reads the configuration, and serves until it is told to stop.

    Args:
        file: the configuration; none: defaults and the environment.
        listen: where, to whom, and with which certificate.
    """
    config = load(file)
    log.configure(config.log)
    run(config, listen)


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
        shop, topics = application(config)
        check_sql(shop, Path(config.model.artifact))
        encoder = Encoder.load(Path(config.model.artifact) / "encoder")
        if config.store.kind == "embedded":  # what Kafka refuses is said before minutes go by with history
            check_topics(config.kafka, of_serve(topics), keys=topics.keys)
        store = open_store(config.store, shop, dedup=config.dedup)
        store.load()
        model = Model(config.model.url, config.model.name, config.model.timeout_s)
        follower: State = Direct(store) if isinstance(store, ClusterStore) else Follower(config, shop, topics, store)
        predictor = Predictor(follower, encoder, model, config.model.name)
        app = create_app(predictor, shop, rules)
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
