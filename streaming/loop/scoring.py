"""Ids → scores: submits them to the model, waits, asks again, and checks that the model belongs to the encoder.

While the model is slow or away the consumer is paused, but polls, to stay in its group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from streaming.config import Model as ModelSettings
from streaming.errors import ModelUnavailable
from streaming.loop.batch import Batch, Call, Model, offset_range
from streaming.loop.runtime import Runtime
from streaming.loop.waiting_loop import WaitingLoop
from streaming.model.served_encoder import EncoderCheck
from streaming.ops.breaker import Breaker

if TYPE_CHECKING:
    from streaming.model.triton import Scores

__all__ = ["Scoring"]

SLOW_S = 0.2  # a model that takes longer is waited for beside the polls that keep the consumer in its group
LEAVE_S = 2.0  # for how long the model is waited for before partitions are given up or the process ends
CHECK_S = 1.0  # how often Triton is asked, under load, whether its model still belongs to our encoder

_log = structlog.stdlib.get_logger("streaming.loop.scoring")


class Scoring:
    """Gets the scores of batches.

    Args:
        settings: `[model]`.
        model: the model server.
        encoder_digest: of the encoder that has made the ids.
        loop: goes on while the model is waited for.
        runtime: see `Runtime`.
    """

    def __init__(
        self, settings: ModelSettings, model: Model, encoder_digest: str, loop: WaitingLoop, runtime: Runtime
    ) -> None:
        self.model = model
        self._settings, self._loop = settings, loop
        self._metrics, self._health, self._clock = runtime.metrics, runtime.health, runtime.clock
        self._breaker = Breaker(
            failures_max=settings.breaker.failures_max,
            failing_s_max=settings.breaker.failing_s_max,
            wait_s=settings.backoff_ms / 1000,
            wait_s_max=settings.backoff_ms_max / 1000,
            give_up_after_s=settings.give_up_after_s,
            on_state=runtime.metrics.set_breaker,
            clock=runtime.clock.monotonic,
        )
        self._encoder_check = EncoderCheck(
            self._served_encoder,
            encoder_digest,
            f"model {settings.name!r} at {settings.url}",
            "this scorer has",
            ": restart it with that model's artifact",
            every_s=CHECK_S,
            clock=runtime.clock,
        )

    def _served_encoder(self) -> str | None:
        return self.model.encoder_digest()

    def submit(self, batch: Batch) -> None:
        """Hands a batch to the model, unless that is away."""
        if batch.ids is not None and self._breaker.state == "closed":
            batch.call = self.model.submit(batch.ids)

    def scores(self, batch: Batch) -> Scores | None:
        """Waits for the model.

        Returns:
            None: nothing to score, or the batch was forgotten (it is not in flight any more).

        Raises:
            ModelUnavailable: for longer than `model.give_up_after_s`.
            ArtifactMismatch: the model belongs to another encoder.
        """
        if batch.ids is None:
            return None
        with self._metrics.stage("score"):
            if batch.call is not None and batch.call.wait(SLOW_S):
                try:
                    return self._result(batch.call)
                except ModelUnavailable as error:
                    self._failed(batch, error)
            self._loop.pause()
            while (scores := self._ask_again(batch)) is None and self._loop.is_in_flight(batch):
                pass
            self._loop.resume()
        return scores

    def last_scores(self, batch: Batch) -> Scores | None:
        """Waits for `LEAVE_S` at most: partitions are given up, or the process ends.

        Returns:
            None: there are none.

        Raises:
            ModelUnavailable, ArtifactMismatch: see `scores`.
        """
        error: object = "no answer yet"
        if batch.call is not None and batch.call.wait(LEAVE_S):
            try:
                return self._result(batch.call)
            except ModelUnavailable as away:
                error = away
        _log.warning("given back unscored: the model is away", error=str(error), at=offset_range(batch.events.records))
        self._encoder_check.forget()
        return None

    def _ask_again(self, batch: Batch) -> Scores | None:
        """Waits for the call under way, or makes one as soon as the breaker allows it; Kafka is polled meanwhile.

        Returns:
            None: it failed, or the batch was forgotten.
        """
        loop, breaker = self._loop, self._breaker
        leave_at = None
        while batch.call is None or not batch.call.wait(SLOW_S):
            loop.goes_round()
            loop.keep_alive(0.0 if batch.call else min(0.1, breaker.wait_s()))
            if not loop.is_in_flight(batch):  # given back during a rebalance
                return None
            if loop.stop.is_set():
                leave_at = leave_at or self._clock.monotonic() + LEAVE_S
                if batch.call is None or self._clock.monotonic() > leave_at:
                    loop.forget()
                    return None
            elif batch.call is None and batch.ids is not None and breaker.allows():
                self._metrics.model_retries.inc()
                batch.call = self.model.submit(batch.ids)
        try:
            return self._result(batch.call)
        except ModelUnavailable as error:
            self._failed(batch, error)
            return None

    def _result(self, call: Call) -> Scores:
        """What came, if it may be published.

        Raises:
            ModelUnavailable, ArtifactMismatch: see `scores`.
        """
        scores = call.result()
        self._encoder_check.check(scores.version)  # Triton may have been given another model since
        if self._breaker.state != "closed":
            _log.info("the model is back", version=scores.version)
            self._health.ready("model")
        self._breaker.succeeded()
        return scores

    def _failed(self, batch: Batch, error: ModelUnavailable) -> None:
        """Takes note of a call that came to nothing.

        Raises:
            ModelUnavailable: there were too many.
        """
        batch.call = None
        self._encoder_check.forget()
        self._breaker.failed(error)
        _log.warning(
            "the model does not answer",
            error=str(error),
            breaker=self._breaker.state,
            again_in_s=round(self._breaker.wait_s(), 2),
            at=offset_range(batch.events.records),
        )
        if self._breaker.state == "open":
            self._health.not_ready("model", str(error))
