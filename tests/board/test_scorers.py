"""What the board makes of the scorers' /metrics: of several, of one that is away or was started again, of none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from fixtures.web import Running
from prometheus_client import CollectorRegistry, Gauge, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from streaming.board.scorers import WINDOW_S, ScorerFigures, Scorers
from streaming.web.connection import Limits


class Scorer:
    """Its /metrics; `answer` instead of them, if there is one."""

    def __init__(self) -> None:
        self.answer: Response | None = None
        self.start()

    def start(self) -> None:
        """As a new process: all is counted from nothing."""
        self.registry = CollectorRegistry()
        Gauge("jd_intent_ready", "ready", registry=self.registry).set(1)
        Gauge("jd_intent_consumer_lag", "lag", registry=self.registry).set(5)
        bounds = (0.01, 0.1, 1.0)
        self.latency = Histogram("jd_intent_event_to_score_seconds", "latency", registry=self.registry, buckets=bounds)

    def score(self, seconds: float, count: int) -> None:
        for _ in range(count):
            self.latency.observe(seconds)


@dataclass
class Asked:
    """Two scorers, and a board that asks them."""

    slow: Scorer
    fast: Scorer
    board: Scorers
    now: float = 0.0

    def ask(self) -> ScorerFigures:
        """The figures two seconds later."""
        self.now += 2.0
        self.board.ask()
        return self.board.figures()


@pytest.fixture
def asked() -> Iterator[Asked]:
    slow, fast = Scorer(), Scorer()

    async def metrics(request: Request) -> Response:
        scorer = slow if request.path_params["name"] == "slow" else fast
        return scorer.answer or PlainTextResponse(generate_latest(scorer.registry))

    with Running(Starlette(routes=[Route("/{name}", metrics)]), Limits()) as server:
        board = Scorers([f"{server.url}/slow", f"{server.url}/fast"], lambda: both.now)
        both = Asked(slow, fast, board)
        yield both
        board.stop()


def test_what_was_before_the_board_is_not_called_recent(asked: Asked) -> None:
    asked.slow.score(0.5, 10)
    figures = asked.ask()
    assert figures.p50_s is not None
    assert not figures.recent
    asked.fast.score(0.005, 10)
    figures = asked.ask()
    assert figures.recent
    assert figures.p50_s is not None
    assert figures.p50_s <= 0.01
    assert (figures.lag, figures.ready, figures.asked) == (10, 2, 2)


def test_a_scorer_that_comes_back_does_not_bring_its_past_along(asked: Asked) -> None:
    asked.slow.score(0.5, 1000)
    asked.ask()
    asked.slow.answer = PlainTextResponse("", 503)
    asked.fast.score(0.005, 10)
    figures = asked.ask()
    assert (figures.ready, list(figures.away.values())) == (1, ["it answers with status 503"])
    asked.slow.answer = None
    for _ in range(2):
        figures = asked.ask()
        assert figures.recent
        assert figures.p99_s is not None
        assert figures.p99_s <= 0.01
    asked.now += 2 * WINDOW_S
    asked.fast.score(0.005, 1)
    assert asked.ask().p50_s == figures.p50_s


def test_one_that_was_started_again_counts_from_nothing_and_the_other_goes_on(asked: Asked) -> None:
    asked.slow.score(0.5, 100)
    asked.ask()
    asked.fast.score(0.005, 10)
    asked.ask()
    asked.slow.start()
    asked.slow.score(0.05, 1)
    figures = asked.ask()
    assert figures.recent
    assert figures.p50_s is not None
    assert figures.p99_s is not None
    assert figures.p50_s <= 0.01 < figures.p99_s <= 0.1


def test_each_worker_of_an_address_counts(asked: Asked) -> None:
    gauges = "".join(f'jd_intent_ready{{worker="{worker}"}} {ready}\n' for worker, ready in enumerate((1, 1, 0)))
    asked.slow.answer = PlainTextResponse(gauges)
    figures = asked.ask()
    assert (figures.ready, figures.asked) == (3, 4)


@pytest.mark.parametrize(
    "answer",
    [
        "<html><body>another program</body></html>",
        "go_threads 7\n",
        "jd_intent_predict_requests_total 7\n",
        "jd_intent_ready NaN\n",
        'jd_intent_event_to_score_seconds_bucket{x="1"} 3\n',
    ],
)
def test_another_program_s_answer_is_called_so(asked: Asked, answer: str) -> None:
    asked.slow.answer = PlainTextResponse(answer)
    figures = asked.ask()
    assert list(figures.away.values()) == ["its answer is not a scorer's"]
    assert (figures.lag, figures.ready) == (5, 1)
